"""The errors of a reader: there is no stream, or no way to go on with it."""

from __future__ import annotations

from collections.abc import Mapping


class Refused(Exception):
    """Raised for an answer that is not a stream, by its status or its content type."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(status, headers, body)
        #: The status of the answer.
        self.status: int = status
        #: The headers of the answer.
        self.headers: Mapping[str, str] = headers
        #: The body of the answer, or the first 64 KiB of it.
        self.body: bytes = body

    def __str__(self) -> str:
        kind = self.headers.get("content-type", "no content type")
        return f"the answer is not a stream: status {self.status}, {kind}"


class StreamCut(Exception):
    """Raised when the answer has broken off before its last word, with no way to go on."""

    def __init__(self, message: str, last_event_id: str) -> None:
        super().__init__(message, last_event_id)
        #: The id of the last event that was read, or ``""``.
        self.last_event_id: str = last_event_id

    def __str__(self) -> str:
        return str(self.args[0])


class TooLong(Exception):
    """Raised for a line or an event that is longer than ``max_size``."""

    def __init__(self, max_size: int) -> None:
        super().__init__(max_size)
        #: How many bytes were allowed.
        self.max_size: int = max_size

    def __str__(self) -> str:
        return (
            f"a line or an event has more than {self.max_size} bytes: write "
            "connect(..., max_size=...) if the server should send that much"
        )
