"""What the runs of a program are to a response that reads one of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol
from weakref import WeakValueDictionary

from .._core.metadata import Head
from .._http.termination import Termination
from .._sse.profile import Profile
from .attendance import Attendance
from .cursor import Cursor
from .entry import Entry
from .frames import Frames
from .info import RunInfo
from .log import RunLog
from .reader import ReadAhead, read


class Readable(Protocol):
    """Runs, to a response."""

    @property
    def is_shut_down(self) -> bool:
        """Whether the program is to end: who comes from now on is refused."""
        ...

    async def get(self, run_id: str, *, owner: str | None = None) -> RunInfo:
        """Return what is known of a run."""
        ...

    def entries(
        self,
        ahead: ReadAhead,
        run_id: str,
        *,
        owner: str | None,
        after: Cursor | None,
        until: float,
    ) -> AsyncGenerator[Head | Entry[Any], None]:
        """Return the status of a run and its entries, as :func:`read` does."""
        ...

    def frames(self, run_id: str, epoch: str, profile: Profile) -> Frames:
        """Return what is made of a run for a kind of client, which all readers share."""
        ...


class Shelf:
    """What runs are read from."""

    _log: RunLog
    _attendance: Attendance

    def __init__(self) -> None:
        self._termination: Termination | None = None
        self._frames: WeakValueDictionary[tuple[str, str, Profile], Frames] = WeakValueDictionary()

    def note(self, scope: Mapping[str, Any]) -> None:
        """Note where a request came in, to notice when the server stops to listen there."""
        if self._termination is not None:
            self._termination.note(scope)

    def entries(
        self,
        ahead: ReadAhead,
        run_id: str,
        *,
        owner: str | None,
        after: Cursor | None,
        until: float,
    ) -> AsyncGenerator[Head | Entry[Any], None]:
        """Return the status of a run and its entries, for a response."""
        return read(
            ahead,
            self._log,
            self._attendance,
            run_id,
            owner,
            after,
            until=until,
            for_a_response=True,
        )

    def frames(self, run_id: str, epoch: str, profile: Profile) -> Frames:
        """Return what is made of a run for a kind of client, which all readers share."""
        key = run_id, epoch, profile
        found = self._frames.get(key)
        if found is None:
            self._frames[key] = found = Frames(profile)
        return found
