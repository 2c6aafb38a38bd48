"""Episodes in the formats of other projects: read from them, written to them, action spaces converted."""
