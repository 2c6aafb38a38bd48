"""People and robots turned into episodes."""
