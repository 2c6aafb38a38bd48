"""Tests of labeling_app."""
