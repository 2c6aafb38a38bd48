"""What all errors of the client have in common."""

from __future__ import annotations


class KException(Exception):
    """An error of the arm or of its client."""
