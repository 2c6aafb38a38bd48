"""The client itself refused a call."""

from __future__ import annotations

from typing import Any

from .KException import KException


class KClientException(KException):
    """An error on the client's side. It has no ``get_error_code``: ask :attr:`error`.

    When the vendor's client raises it is not known; here it is for responses with ``ERROR_PROTOCOL_CLIENT``.
    """

    def __init__(self, error: Any) -> None:
        """``error`` has ``error_code`` and ``error_sub_code``."""
        super().__init__(f"Client error {error.error_code}, sub code {error.error_sub_code}")
        self.error = error
