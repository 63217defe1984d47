"""How a producer says that it is alive, and notices that nobody reads its run."""

from __future__ import annotations

import math

import anyio

from .._signals.token import CancelToken
from .errors import LogUnavailable
from .log import DOUBT, RunLog
from .reasons import Unwatched, encode_reason
from .writer import Writer

# Seconds between two signs of life, at most: one must fall between the two looks that bury a run,
# even if its lease ends in an instant because the clock of the store was put forward.
_OFTEN = DOUBT / 2

# Seconds until another look for readers, at least.
_SOON = 0.05


class Lease:
    """
    The sign of life of one run.

    :param run_id: its id
    :param epoch: its random name
    :param log: where it is kept
    :param token: tells its source to stop
    :param writer: obeys what the log replies
    :param unwatched: seconds after which it is cancelled if nobody reads it, or ``None``

    """

    def __init__(
        self,
        run_id: str,
        epoch: str,
        log: RunLog,
        token: CancelToken,
        writer: Writer,
        unwatched: float | None,
    ) -> None:
        self._run_id = run_id
        self._epoch = epoch
        self._log = log
        self._token = token
        self._writer = writer
        self._unwatched = unwatched
        self._scope = anyio.CancelScope(shield=True)

    @property
    def needs_keeping(self) -> bool:
        """Whether :meth:`keep_up` has anything to do."""
        return self._unwatched is not None or self._log.lease < math.inf

    def close(self) -> None:
        """Note that the run has ended."""
        self._scope.cancel()

    async def keep_up(self) -> None:
        """Renew the lease, and see whether anybody reads, where that is needed."""
        unwatched, lease = self._unwatched, self._log.lease
        with self._scope:
            idle = 0.0
            while True:
                wait = math.inf if lease == math.inf else min(lease / 3, _OFTEN)
                if unwatched is not None and not self._token.cancelled:
                    wait = min(wait, max(unwatched - idle, _SOON))
                # The wait may be infinite, which sleep() does not take.
                with anyio.move_on_after(wait):
                    await anyio.sleep_forever()
                try:
                    requests = await self._writer.renew()
                except Exception as exc:
                    self._writer.refuse_after(exc)
                    return
                self._writer.heed(requests)
                idle = requests.unwatched_for
                if unwatched is not None and idle >= unwatched and not self._token.cancelled:
                    await self._cancel_unwatched(unwatched)

    async def _cancel_unwatched(self, unwatched: float) -> None:
        reason = Unwatched()
        try:
            # The store looks again: somebody may have come meanwhile, in another process.
            found = await self._log.request_cancel(
                self._run_id, encode_reason(reason), epoch=self._epoch, unwatched_for=unwatched
            )
        except LogUnavailable:
            # No run counts as unwatched while the store is away. The store is asked again.
            return
        if found == "running":
            self._token.cancel(reason)
