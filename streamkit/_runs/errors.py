"""What can go wrong with a run, and how a reader is told that it did not complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from .info import RunInfo


class RunExists(Exception):
    """
    Raised by a start with an id that is taken by a run that goes on, or has ended and is still
    kept.

    :param run_id: the id

    """

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return (
            f"there is a run {self.run_id!r}: start without an id, attach to the existing one, or "
            "delete it once it has ended"
        )


class RunNotFound(LookupError):
    """
    Raised if there is no such run: it is unknown, has expired, was deleted, or has another owner.
    The error does not say which.

    :param run_id: the id that was asked for

    """

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return (
            f"there is no run {self.run_id!r}, or none of this owner: it was never started, or has "
            "ended more than keep=... seconds ago"
        )


class RunRunning(Exception):
    """
    Raised by an attempt to delete a run that goes on.

    :param run_id: the id

    """

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    def __str__(self) -> str:
        return f"the run {self.run_id!r} goes on: await cancel_and_wait() first, then delete it"


class Gap(Exception):
    """
    Raised by a reader that would miss something: its next entries are no longer kept.

    :param first: the position of the first entry that is kept
    :param last: the position of the last one

    """

    def __init__(self, first: int, last: int) -> None:
        super().__init__(first, last)
        self.first = first
        self.last = last

    def __str__(self) -> str:
        return (
            f"entries are missing, those from {self.first} to {self.last} are kept: attach with "
            "after=None to begin with the first of them, or keep more with max_items=..."
        )


class CursorMismatch(Exception):
    """
    Raised by a reader whose cursor does not fit this run: it is of another run of the same id, or
    beyond the end.
    """

    def __init__(self, why: str = "it is of another run") -> None:
        super().__init__(why)

    def __str__(self) -> str:
        return f"the cursor does not fit, {self.args[0]}: attach with after=None to begin anew"


class LogUnavailable(Exception):
    """Raised if the log could not be reached, after some tries."""


class LogFull(Exception):
    """
    Raised by a start for which there is no room. Also the reason that a source is told when there
    is no room for its items.
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "the log has no room for more items"


class RunsClosed(anyio.ClosedResourceError):
    """Raised by a start while the program ends, and by a reader that is left over then."""

    def __str__(self) -> str:
        return "the program ends: start the run, or attach to it, in another process"


class UnknownVersion(Exception):
    """
    Raised by a reader at an entry that a later release has written.

    :param version: the form in which the entry was written
    :param known: the latest form that this release knows

    """

    def __init__(self, version: int, known: int) -> None:
        super().__init__(version, known)
        self.version = version
        self.known = known

    def __str__(self) -> str:
        return (
            f"an entry has the form {self.version}, but this release of streamkit knows forms up "
            f"to {self.known}: update streamkit in this process"
        )


class RunEnded(Exception):
    """
    Raised by a reader at the end of a run that did not complete: one of the classes below.

    :param info: the run as it was at its end

    """

    _says = "the run has ended"

    def __init__(self, info: RunInfo) -> None:
        super().__init__(info)
        self.info = info

    @property
    def reason(self) -> object:
        """Why it was cancelled, or has timed out: text, or one of streamkit's own reasons."""
        return None if self.info.outcome is None else self.info.outcome.reason

    def __str__(self) -> str:
        return self._says if self.reason is None else f"{self._says}: {self.reason}"


class RunCancelled(RunEnded):
    """Raised by a reader when the run was cancelled, after its last items."""

    _says = "the run was cancelled"


class RunTimedOut(RunEnded):
    """Raised by a reader when the run has reached a limit of time."""

    _says = "the run has timed out"


class RunFailed(RunEnded):
    """Raised by a reader when the source of the run, or its ``on_end``, has raised."""

    _says = "the run has failed"

    @property
    def error(self) -> str | None:
        """The name of the class of the error. Its text is not for readers."""
        return None if self.info.outcome is None else self.info.outcome.error

    def __str__(self) -> str:
        return f"{self._says} with {self.error}"


class RunLost(RunEnded):
    """Raised by a reader when the process of the run has died, and the run with it."""

    _says = "the run was lost: the process that it was in has died, or was cut off"
