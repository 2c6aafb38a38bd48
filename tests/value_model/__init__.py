"""Tests of value_model."""
