"""
How the items of a run get into its log, and what the log replies.

While the log takes a batch, the source goes on, and its items wait in the stream. When the batch is
written, all waiting items are the next one. So a store that takes a millisecond for each call is
called a thousand times a second, however many items there are, and an item that comes alone is
written at once.

If a log takes nothing more (it is full, or away, or the run was taken from this producer), the
source is told, as by a token. Its items are dropped from then on: there must be no hole in the log.
"""

from __future__ import annotations

import logging

from .._signals.token import CancelToken
from .budget import budget
from .errors import LogFull, LogUnavailable
from .log import Requests, RunLog
from .options import Options
from .reasons import Fenced, LogLost, decode_reason

_logger = logging.getLogger("streamkit")


class Writer:
    """
    Writes one run.

    :param run_id: its id
    :param epoch: its random name
    :param log: where it is kept
    :param token: tells its source to stop
    :param options: how much is kept of it

    """

    def __init__(
        self, run_id: str, epoch: str, log: RunLog, token: CancelToken, options: Options
    ) -> None:
        self._run_id = run_id
        self._epoch = epoch
        self._log = log
        self._token = token
        self._budget = budget(options.when_full, options.max_items, options.max_bytes)
        #: The items that were taken from the stream, without those that are being written.
        self.taken: list[bytes] = []
        self._pending: list[bytes] = []
        #: The position of the last item in the log.
        self.position: int = 0
        #: The status of the run, once it is known.
        self.head: int | None = None
        #: Why nothing more can be written, once that is so.
        self.refused: object = None

    @property
    def first(self) -> int:
        """The position of the first entry that is kept, or of the next one."""
        return min(self._budget.first, self.position + 1)

    async def write(self) -> None:
        """Write what was taken. If this is cut short, the next call goes on with the same items."""
        if not self._pending and self.taken:
            self._pending = self._budget.admit(self.taken)
            self.taken = []
            if self._budget.is_full:
                self._token.cancel(LogFull())
        pending = self._pending
        if self.refused is None:
            try:
                requests = await self._log.append(
                    self._run_id,
                    self._epoch,
                    self.position + 1,
                    pending,
                    acknowledged=self.position,
                    first=self._budget.first,
                    head=self.head,
                )
            except Exception as exc:
                self.refuse_after(exc)
            else:
                self.heed(requests)
                if self.refused is None:
                    self.position += len(pending)
        if self._budget.has_dropped:
            self._refuse(LogFull())
        self._pending = []

    async def write_all(self) -> None:
        """Write what was taken, and what was being written."""
        while self._pending or self.taken:
            await self.write()

    async def renew(self) -> Requests:
        """Say that the producer is alive, and what it knows to be written."""
        return await self._log.renew(self._run_id, self._epoch, acknowledged=self.position)

    def heed(self, requests: Requests) -> None:
        """Do what others have asked for."""
        if requests.fenced:
            self._refuse(Fenced())
        elif requests.cancel is not None and not self._token.cancelled:
            self._token.cancel(decode_reason(requests.cancel))

    def refuse_after(self, error: Exception) -> None:
        """Write nothing more, because the log has raised."""
        if isinstance(error, LogFull):
            self._refuse(LogFull())
            return
        if not isinstance(error, LogUnavailable):
            _logger.error("the log of the run %r has failed", self._run_id, exc_info=error)
        self._refuse(LogLost())

    def _refuse(self, reason: object) -> None:
        """Write nothing more."""
        if self.refused is None:
            self.refused = reason
            self._token.cancel(reason)
