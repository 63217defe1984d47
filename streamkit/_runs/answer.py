"""
A request for a run, and its answer: the source of the stream of a response.

Everything that the client gets is made here, refusals and the end of the run included, so that
it arrives in the order in which it happened. A refusal is a :class:`Head` and a short body, or an
event if the client does not see the status. When it is too late for either, the body ends without
a last event, or is cut, and the next request gets the answer.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias

import anyio

from .._core.metadata import Head
from .._core.outcome import Outcome
from .._http.outlet import Outlet
from .._sse.events import ServerSentEvent
from .._sse.json import to_json
from .._sse.profile import Profile, in_state
from .asked import cursor_in, is_past
from .cursor import Cursor
from .errors import (
    CursorMismatch,
    Gap,
    LogUnavailable,
    RunEnded,
    RunNotFound,
    RunsClosed,
    UnknownVersion,
)
from .frames import Frames, located
from .readable import Readable
from .reader import ReadAhead
from .said_last import outcome_of

_logger = logging.getLogger("streamkit")

# What reading a run raises. After these, the stream of the response adds no end of its own.
CUTS = (CursorMismatch, Gap, LogUnavailable, RunEnded, RunNotFound, RunsClosed, UnknownVersion)

# Milliseconds after which a client comes back after a body without a last event, and seconds after
# which a refused client comes back.
_SOON = (1000, 5000)
_SOON_IN_SECONDS = (1, 5)

# The position of a client that does not say what it has seen.
_BEGINNING = Cursor(None, 0)

# The share of max_age by which a body may end earlier or later, so that not all end at once.
_JITTER = 0.1

# From this status on, the answer is not a stream of the protocol.
_REFUSED = 400

#: What is sent: the status, if it comes first, and bytes.
Parts: TypeAlias = list[Head | bytes]


class Answer:
    """
    The answer to one request.

    :param runs: where the run is
    :param run_id: which one
    :param owner: who asks, or ``None``
    :param profile: the profile of the client
    :param about: the data for the beginning, besides the id and the epoch of the run
    :param in_band: whether refusals are told by events instead of a status
    :param max_age: seconds after which the body ends, or ``None``
    :param final: makes the last items, from the outcome of the run

    """

    __slots__ = (
        "_about",
        "_begins",
        "_final",
        "_has_resynced",
        "_has_said",
        "_in_band",
        "_max_age",
        "_owner",
        "_profile",
        "_run_id",
        "_runs",
        "_told",
        "ahead",
        "outlet",
        "scope",
        "state",
    )

    def __init__(
        self,
        runs: Readable,
        run_id: str,
        owner: str | None,
        profile: Profile,
        about: Mapping[str, Any],
        in_band: bool,
        max_age: float | None,
        final: Callable[[Outcome], Any],
    ) -> None:
        self.ahead: ReadAhead = ReadAhead()
        #: The outlet of the response, once there is one.
        self.outlet: Outlet = Outlet()
        #: The scope of the request, once there is one.
        self.scope: Mapping[str, Any] = {}
        self._runs = runs
        self._run_id = run_id
        self._owner = owner
        self._profile = profile
        self._about = about
        self._in_band = in_band
        self._max_age = max_age
        self._final = final
        #: The state after what was sent, if the profile has a fold.
        self.state: Any = None
        #: The end of the run, once the client was told that it did not complete.
        self._told: RunEnded | None = None
        self._has_resynced = False
        self._has_said = False
        # Whether the beginning has yet to be sent.
        self._begins = False

    def told(self) -> RunEnded | None:
        """Return the end of the run that the client was told, if it did not complete."""
        return self._told

    async def content(self) -> AsyncGenerator[Head | bytes, None]:
        """Yield the bytes for the client, after a :class:`Head` where the status is known first."""
        until = self._until()
        cursor: Cursor | None = None
        refused: Parts = []
        try:
            cursor = cursor_in(self.scope) if self._profile.resumes else _BEGINNING
        except ValueError:
            found = self._refused(400, "malformed_cursor")
            if found is None:
                raise
            refused = found
        if not refused and self._runs.is_shut_down:
            refused = self._in_events(self._profile.refusal())
            refused = refused or self._refused(503, "shutdown") or self._lost("shutdown")
        for part in refused:
            yield part
        goes_on = not refused
        self._begins = cursor is None or cursor.position == 0
        while goes_on:
            error: Exception | None = None
            frames: Frames | None = None
            reading = self._runs.entries(
                self.ahead, self._run_id, owner=self._owner, after=cursor, until=until
            )
            try:
                async with aclosing(reading):
                    async for read in reading:
                        if isinstance(read, Head):
                            if self._may_say_status:
                                self._begins = self._begins and read.status < _REFUSED
                                yield read
                            continue
                        opening = b""
                        if frames is None:
                            frames, opening = await self._begun(read.epoch, read.position - 1)
                        start = 0
                        while start < len(read.entries):
                            message, start, self.state = frames.message(read, start, self.state)
                            self._has_said = True
                            yield opening + message if opening else message
                            opening = b""
                            if until < math.inf and anyio.current_time() >= until:
                                return
            except CUTS as exc:
                error = exc
            try:
                if error is None or isinstance(error, RunEnded):
                    goes_on = False
                    try:
                        parts = await self._end(error, cursor, frames)
                    except CUTS as exc:
                        error = exc
                        parts, _ = await self._broken(exc, cursor, False)
                elif isinstance(error, RunsClosed) and anyio.current_time() >= until:
                    return
                else:
                    parts, goes_on = await self._broken(error, cursor, frames is not None)
                    cursor = None
                if parts is None and not self._profile.notices_cuts:
                    parts = self._lost("lost")
                if parts is None:
                    assert error is not None
                    if self._has_said:
                        # Only once the client has taken everything that was sent so far.
                        await self.ahead.until_asked()
                    raise error
            finally:
                # The traceback includes this frame.
                del error
            for part in parts:
                self._has_said = True
                yield part

    async def _begun(self, epoch: str, position: int) -> tuple[Frames, bytes]:
        """Return the frames of the run, and the bytes to send before the items after a position."""
        frames = self._runs.frames(self._run_id, epoch, self._profile, self._about)
        read = partial(self._runs.page, self._run_id)
        self.state = await frames.state_after(position, epoch, read)
        opening = frames.opening if self._begins else b""
        self._begins = False
        return frames, opening

    def _lost(self, kind: str) -> Parts:
        """Return the last bytes of a body that does not tell how the run ended."""
        if self._profile.notices_cuts:
            return [_come_back()]
        last = self._profile.ended(kind, None, self.state)
        return [located(frame, None, None, 0) for frame in last or ()]

    def _until(self) -> float:
        if self.scope.get("method") == "HEAD":
            # There is nothing to wait for.
            return anyio.current_time()
        if self._max_age is None:
            return math.inf
        return anyio.current_time() + self._max_age * random.uniform(1 - _JITTER, 1 + _JITTER)

    @property
    def _may_say_status(self) -> bool:
        return not (self._has_said or self.outlet.has_begun)

    async def _end(
        self, error: RunEnded | None, cursor: Cursor | None, frames: Frames | None
    ) -> Parts | None:
        """
        Return the bytes that tell how the run has ended.

        :param error: how, or ``None`` if it has completed
        :param cursor: what the client had seen at the beginning
        :param frames: the frames of the items that the client has read
        :return: ``None`` if the profile cannot tell that the run did not complete: the body must
            then not look complete
        :raises Exception: one of :data:`CUTS`, if items before the end are not there

        """
        info = self.ahead.ended
        assert info is not None
        if cursor is not None and cursor.is_end:
            return self._refused(204, "") or []
        opening = b""
        if frames is None:
            _, opening = await self._begun(info.epoch, info.last)
        with in_state(self.state):
            last: list[bytes] | None = self._final(outcome_of(info, error))
        if last is None and error is not None:
            return None
        # Told, not raised: its traceback leads back here.
        self._told = None if error is None else error.with_traceback(None)
        if not self.outlet.has_body:
            return []
        parts: Parts = [opening] if opening else []
        if last:
            position, field = info.last + 1, self._profile.position_field
            parts += [located(part, None, field, position) for part in last[:-1]]
            parts.append(located(last[-1], info.end_cursor, field, position))
        return parts

    async def _broken(
        self, error: Exception, cursor: Cursor | None, has_begun: bool
    ) -> tuple[Parts | None, bool]:
        """
        Return the bytes to send when the run cannot be read further, and whether to go on.

        The bytes are ``None`` if the answer can only be cut.
        """
        if isinstance(error, RunNotFound):
            gone = self._in_events(self._profile.told("gone"))
            return gone or self._refused(self._nothing, "run_not_found"), False
        if isinstance(error, Gap | CursorMismatch):
            return await self._missing(error, cursor, has_begun)
        if isinstance(error, UnknownVersion):
            _logger.error("the run %r cannot be read here: %s", self._run_id, error)
        if self._in_band or (isinstance(error, RunsClosed) and not self._may_say_status):
            return self._lost("shutdown" if isinstance(error, RunsClosed) else "lost"), False
        return self._refused(503, "unavailable"), False

    async def _missing(
        self, error: Exception, cursor: Cursor | None, has_begun: bool
    ) -> tuple[Parts | None, bool]:
        """Return the bytes to send when the next items of a client are missing."""
        if self._in_band and self._has_resynced and not has_begun:
            # Items are missing again at once. A client that is so far behind should wait.
            return self._lost("lost"), False
        if has_begun and not isinstance(error, Gap):
            # This is another run of the same id. The next request is told so.
            return (self._lost("lost") if self._in_band else None), False
        try:
            info = await self._runs.get(self._run_id, owner=self._owner)
        except (RunNotFound, LogUnavailable) as exc:
            return await self._broken(exc, cursor, has_begun)
        if is_past(cursor, info, self._profile):
            return self._refused(204, "") or [], False
        told = self._in_events(self._profile.told("resync", info.first, info.last))
        kept = {"first": info.first, "last": info.last}
        code = "gap" if isinstance(error, Gap) else "cursor_mismatch"
        self._has_resynced = bool(told)
        return told or self._refused(410, code, **kept), bool(told)

    @property
    def _nothing(self) -> int:
        """The status if there is no such run."""
        status = self._profile.nothing
        # A client that has sent a body expects more than an empty success.
        is_read = self.scope.get("method", "GET") in ("GET", "HEAD")
        return status if is_read or status >= _REFUSED else 404

    def _in_events(self, frames: Sequence[bytes] | None) -> Parts:
        if not self._in_band:
            return []
        return [located(frame, None, None, 0) for frame in frames or ()]

    def _refused(self, status: int, code: str, **fields: object) -> Parts | None:
        """Return a status and a short body instead of a stream, or ``None`` if it is too late."""
        if not self._may_say_status:
            return None
        if status == 204:
            return [Head(204, {"cache-control": "no-store"})]
        headers = {"cache-control": "no-store", "content-type": "application/json"}
        if status == 503:
            headers["retry-after"] = str(random.randint(*_SOON_IN_SECONDS))
            if str(self.scope.get("http_version", "1.1")).startswith("1"):
                # The next request on this connection would come to the same process.
                headers["connection"] = "close"
        return [Head(status, headers), to_json({"code": code, **fields}).encode()]


def _come_back() -> bytes:
    """Return the advice to come back soon."""
    return ServerSentEvent(retry=random.randint(*_SOON)).encode()
