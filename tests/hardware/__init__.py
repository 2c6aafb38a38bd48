"""Tests that need a robot, a camera or a GPU."""
