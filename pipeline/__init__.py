"""The data contract of the improvement loop, and what every other package shares."""
