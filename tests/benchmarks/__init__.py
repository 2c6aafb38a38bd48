"""Benchmarks: both sides in one run, medians, a JSON object as the last line."""
