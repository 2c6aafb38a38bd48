"""The arm refused a call."""

from __future__ import annotations

from typing import Any

from ..stand_in.generated import enum_name
from .KException import KException


class KServerException(KException):
    """The arm refused a call: the session, the arm's state, or the request is why."""

    def __init__(self, error: Any) -> None:
        """``error`` is the ``Error`` message that came back."""
        code, sub_code = int(error.error_code), int(error.error_sub_code)
        names = enum_name("", "ErrorCodes", code), enum_name("", "SubErrorCodes", sub_code)
        super().__init__(f"Server error name={names[0]}, sub name={names[1]} => {error.error_sub_string}")
        self._codes = code, sub_code

    def get_error_code(self) -> int:
        """``ErrorCodes``."""
        return self._codes[0]

    def get_error_sub_code(self) -> int:
        """``SubErrorCodes``."""
        return self._codes[1]
