"""One suite of tests for every implementation of an interface."""
