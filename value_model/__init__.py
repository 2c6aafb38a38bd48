"""The value model: returns, training, scoring and advantages."""
