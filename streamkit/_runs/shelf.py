"""Where runs are read: by attached streams, and by responses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any
from weakref import WeakValueDictionary

from .._core.metadata import Head
from .._core.stream import Stream
from .._core.telemetry import RunsTold
from .._http.host import StreamHost
from .._sse.json import to_json
from .._sse.profile import Profile
from .arguments import check_text
from .burial import Burial
from .cursor import Cursor, parse
from .entry import Entry
from .errors import RunNotFound
from .frames import Frames, Stretch
from .household import Household
from .log import Page, Record, RunLog
from .reader import ReadAhead, attached, read
from .records import check_owner


class Shelf(Household):
    """Runs, as their readers see them."""

    def __init__(
        self,
        log: RunLog,
        host: StreamHost | None,
        finish: float,
        grace: float,
        max_runs: int | None,
        burial: Burial,
        told: RunsTold | None,
    ) -> None:
        super().__init__(log, host, finish, grace, max_runs, burial)
        self._told = told
        self._frames: WeakValueDictionary[tuple[str, str, Profile, str], Frames] = (
            WeakValueDictionary()
        )

    def attach(
        self, run_id: str, *, owner: str | None = None, after: int | str | None = None
    ) -> Stream[Entry[Any]]:
        """
        Return a stream of the entries of a run: the kept ones, then those that follow.

        A stream like any other: enter it, iterate it, put combinators on it. Leaving it never stops
        the run. It ends as the run did: the iteration ends if the run has completed. Otherwise it
        raises :exc:`RunEnded`, as :exc:`RunCancelled`, :exc:`RunTimedOut`, :exc:`RunFailed` or
        :exc:`RunLost`. A :exc:`~streamkit.StreamCancelled` that comes out of it is the reader's
        own.

        However many readers there are, none waits for another, and the run waits for none. Up to
        200 entries are read ahead from the log; the source of the run does not notice. A run that
        has ended is kept for at least another minute while it is being read.

        :param run_id: the id
        :param owner: who reads. If the run was started with another owner, there is no such run
        :param after: where to begin. ``None``: with the first kept entry, whose position tells what
            is missing. A cursor, or a position: exactly after that. ``"now"``: with what comes next
        :return: a stream, which counts as a reader from its first ask on. The first ask raises
            :exc:`RunNotFound` if there is no such run, and :exc:`CursorMismatch` if ``after`` does
            not fit it. Any ask raises :exc:`Gap` if the next entries are no longer kept,
            :exc:`LogUnavailable` if the log cannot be reached, and :exc:`RunsClosed` if this object
            is left while the run goes on elsewhere
        :raises TypeError: if an argument is of the wrong type
        :raises ValueError: if ``after`` is not a cursor
        :raises RuntimeError: if the block was not entered

        """
        cursor = parse(after)
        check_text("run_id", run_id)
        self.check_open()
        return attached(self._log, self._attendance, run_id, owner, cursor, self._told)

    def entries(
        self,
        ahead: ReadAhead,
        run_id: str,
        *,
        owner: str | None,
        after: Cursor | None,
        until: float,
    ) -> AsyncGenerator[Head | Stretch, None]:
        """Return the status of a run and its entries as they are kept, for a response."""
        return read(
            ahead,
            self._log,
            self._attendance,
            run_id,
            owner,
            after,
            made_of=Stretch.of,
            until=until,
            for_a_response=True,
            told=self._told,
        )

    async def page(self, run_id: str, after: int) -> Page:
        """Return some of the entries after a position."""
        return await self._log.read(run_id, after)

    def frames(self, run_id: str, epoch: str, profile: Profile, about: Mapping[str, Any]) -> Frames:
        """Return the frames of a run for a kind of client, which all readers share."""
        # The frames depend on the data for the beginning if the profile has a beginning.
        known = "" if profile.begin is None else to_json(about)
        key = run_id, epoch, profile, known
        found = self._frames.get(key)
        if found is None:
            about = {"run_id": run_id, "epoch": epoch, **about}
            self._frames[key] = found = Frames(profile, about)
        return found

    async def _get(self, run_id: str, owner: str | None) -> Record:
        check_text("run_id", run_id)
        self.check_open()
        record = await self._log.get(run_id)
        check_owner(run_id, record, owner)
        return record

    async def _until_ended(self, run_id: str, epoch: str | None) -> None:
        """Wait for the end of a run that was told to stop."""
        try:
            async with self._log.watch(run_id) as watch:
                while True:
                    record = await self._log.get(run_id)
                    if epoch is None:
                        if not record.cancel_requested:
                            # A later run of this id: the one that was told has ended, and is gone.
                            return
                        epoch = record.epoch
                    if record.outcome is not None or record.epoch != epoch:
                        return
                    if record.lapsed:
                        self._attendance.suspect(run_id, epoch)
                    await watch.wait()
        except RunNotFound:
            # It has ended, and was removed.
            return
