"""How a run ends whose process has died: another process ends it, after two looks."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio

from .._core.backend import error_of_stray
from .._core.exceptions import is_failure
from .._core.telemetry import RunsTold
from .errors import LogUnavailable, RunNotFound
from .info import RunInfo, RunOutcome
from .log import RunLog
from .reasons import encode_outcome
from .records import info_of, note_of

_logger = logging.getLogger("streamkit")


class Burial:
    """
    Ends the lost runs of a log.

    :param log: where they are kept
    :param on_lost: called for each run that this process ends, or ``None``
    :param timeout: the most seconds that ``on_lost`` may take
    :param told: hears of each run that this process ends, or ``None``

    """

    def __init__(
        self,
        log: RunLog,
        on_lost: Callable[[RunInfo], Awaitable[object]] | None,
        timeout: float,
        told: RunsTold | None,
    ) -> None:
        self._log = log
        self._on_lost = on_lost
        self._timeout = timeout
        self._told = told
        #: The runs that were ended here, and that nobody was told of yet.
        self._lost: deque[RunInfo] = deque()
        self._has_lost = anyio.Event()

    async def look(self, run_id: str, epoch: str) -> bool:
        """Bury a run if it is dead. Returns whether to look again."""
        ended = RunOutcome(kind="lost", ended_at=time.time())
        outcome = encode_outcome(ended)
        try:
            # Before the burial, because the run may be kept for no time after it.
            record = await self._log.get(run_id)
            found = await self._log.bury(run_id, epoch, outcome)
        except LogUnavailable:
            return True
        except RunNotFound:
            return False
        except Exception:
            _logger.exception("a lost run could not be buried: %r", run_id)
            return False
        if found == "buried":
            _logger.warning("the run %r was lost: its process has died, or was cut off", run_id)
            info = info_of(run_id, replace(record, outcome=outcome))
            if self._told is not None:
                seconds = max(0.0, ended.ended_at - info.started_at)
                self._told.buried(note_of(record.terms), seconds, info.last)
            self._lost.append(info)
            self._has_lost.set()
        return found == "doubted"

    async def tell(self) -> None:
        """
        Call ``on_lost`` for the runs that were ended here, until cancelled: one after another, and
        in a task of its own, because it may take its time.
        """
        while True:
            self._has_lost = anyio.Event()
            while self._lost:
                await self._call(self._lost.popleft())
            await self._has_lost.wait()

    async def _call(self, info: RunInfo) -> None:
        if self._on_lost is not None:
            try:
                with anyio.fail_after(self._timeout):
                    await self._on_lost(info)
            except BaseException as exc:
                error = error_of_stray(exc, "on_lost") or exc
                if not is_failure(error):
                    raise
                _logger.error("a lost run could not be handled: %r", info.id, exc_info=error)
                # Its traceback includes this frame.
                del error
