"""What the value model's tests share."""

from __future__ import annotations

from hypothesis import settings

# A formula takes microseconds, and a shared machine now and then as many milliseconds as it likes.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
