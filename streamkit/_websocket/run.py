"""
A socket for a run, and what its client is told: the source of the stream of a socket.

As in an answer of events, everything that is said is made in here, so that it is told in the order
in which it happened. Until the handshake, an error is a status. After it, it is the code of the
close, and a client that comes back gets the status.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias

from .._core.metadata import Head
from .._runs.asked import cursor_in
from .._runs.codec import decode
from .._runs.cursor import Cursor
from .._runs.errors import (
    CursorMismatch,
    Gap,
    LogUnavailable,
    RunEnded,
    RunLost,
    RunNotFound,
    RunsClosed,
    UnknownVersion,
)
from .._runs.reader import ReadAhead
from .._runs.runs import Runs
from .._runs.said_last import outcome_of
from .closing import FAILED, GOING_AWAY, LATER, REFUSED, closing_of
from .outlet import SocketOutlet

_logger = logging.getLogger("streamkit")

# Seconds after which a client that was refused for now should come back.
_SOON = (1, 5)

#: What is sent: the status, if it comes first, and messages.
Parts: TypeAlias = list[Head | dict[str, Any]]


class Reading:
    """
    What one client is told about a run.

    :param runs: where the run is
    :param run_id: which one
    :param owner: who reads, or ``None``

    """

    __slots__ = ("_owner", "_run_id", "_runs", "_told", "ahead", "outlet", "scope")

    def __init__(self, runs: Runs, run_id: str, owner: str | None) -> None:
        self.ahead: ReadAhead = ReadAhead()
        #: The outlet of the socket, once it is there.
        self.outlet: SocketOutlet = SocketOutlet(None)
        #: The scope of the socket, once it is there.
        self.scope: Mapping[str, Any] = {}
        self._runs = runs
        self._run_id = run_id
        self._owner = owner
        self._told: RunEnded | None = None

    def told(self) -> RunEnded | None:
        """Return the end of the run that the client was told, unless the run completed."""
        return self._told

    def stop(self, reason: object) -> None:
        """Ask the run to stop, in whichever process it is. Does not block."""
        ask = partial(self._runs.cancel, self._run_id, reason, owner=self._owner)
        self.outlet.start_soon(ask, f"stop of run {self._run_id}")

    async def messages(self) -> AsyncGenerator[Head | dict[str, Any], None]:
        """Yield what the client is told, and before it the status where that is not 200."""
        try:
            cursor = cursor_in(self.scope)
        except ValueError:
            for part in self._refused(400, "malformed_cursor"):
                yield part
            return
        error: Exception | None = None
        if self._runs.is_shut_down:
            error = RunsClosed()
        else:
            entries = self._runs.entries(
                self.ahead, self._run_id, owner=self._owner, after=cursor, until=math.inf
            )
            try:
                async with aclosing(entries):
                    async for read in entries:
                        if isinstance(read, Head):
                            if not self.outlet.has_begun:
                                yield read
                            continue
                        for position, data in enumerate(read.entries, read.position):
                            yield {
                                "id": str(Cursor(read.epoch, position)),
                                "data": decode(data),
                            }
            except (
                CursorMismatch,
                Gap,
                LogUnavailable,
                RunEnded,
                RunNotFound,
                RunsClosed,
                UnknownVersion,
            ) as exc:
                error = exc
        is_over = error is None or isinstance(error, RunEnded)
        parts = self._end(error, cursor) if is_over else self._broken(error)
        # Its traceback includes this frame.
        del error
        for part in parts:
            yield part

    def _end(self, error: Exception | None, cursor: Cursor | None) -> Parts:
        """Return what tells the client how the run has ended, if it has not been told yet."""
        info = self.ahead.ended
        assert info is not None
        ended = outcome_of(info, error if isinstance(error, RunEnded) else None)
        closing = closing_of(ended, is_refused=False, has_failed=False)
        self.outlet.closing = (FAILED, "lost") if isinstance(error, RunLost) else closing
        if cursor is not None and cursor.is_end:
            return []
        # Told, not raised: its traceback leads back here.
        self._told = error.with_traceback(None) if isinstance(error, RunEnded) else None
        return [{"id": info.end_cursor, "end": {"kind": self.outlet.closing[1]}}]

    def _broken(self, error: Exception | None) -> Parts:
        """Return what the client is told when the run cannot be read any further."""
        if isinstance(error, RunNotFound):
            return self._refused(404, "run_not_found")
        if isinstance(error, Gap):
            return self._refused(410, "gap", first=error.first, last=error.last)
        if isinstance(error, CursorMismatch):
            return self._refused(410, "cursor_mismatch")
        if isinstance(error, UnknownVersion):
            _logger.error("the run %r cannot be read here: %s", self._run_id, error)
        code = "shutdown" if isinstance(error, RunsClosed) else "unavailable"
        return self._refused(503, code)

    def _refused(self, status: int, code: str, **fields: object) -> Parts:
        """Return what tells the client that there is nothing to read here."""
        close = {"shutdown": GOING_AWAY, "unavailable": LATER}.get(code, REFUSED)
        self.outlet.closing = close, code
        if self.outlet.has_begun:
            return []
        headers = {"cache-control": "no-store", "content-type": "application/json"}
        if status == 503:
            headers["retry-after"] = str(random.randint(*_SOON))
        return [Head(status, headers), {"code": code, **fields}]
