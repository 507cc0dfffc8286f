"""What the server refuses, with an HTTP status and a sentence for the page."""

from __future__ import annotations


class Refused(Exception):
    """A request that is not answered."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)
