"""The way from one process to a log that it shares with others, and what may become of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from streamkit.runs import LogUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from streamkit.runs import RunLog

# Seconds after which a call that does not come back fails.
OUTAGE = 1_000

CALLS = {
    "append",
    "bury",
    "create",
    "delete",
    "end",
    "get",
    "read",
    "renew",
    "request_cancel",
    "touch",
}


class Way:
    """
    A log as one process sees it.

    :param log: the log itself, which others see, too

    """

    def __init__(self, log: RunLog) -> None:
        self._log = log
        #: Calls that do not come back until they are taken out of here.
        self.stuck: set[str] = set()
        #: Seconds that each call takes, or each of these.
        self.takes = 0.0
        self.slow = CALLS
        #: Calls that fail, and how.
        self.failing: dict[str, Exception] = {}
        self._changed = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._log, name)
        return self._through(name, value) if name in CALLS else value

    def cut(self, *calls: str) -> None:
        """Let calls not come back: all of them, if none is named."""
        self.stuck.update(calls or CALLS)

    def mend(self) -> None:
        """Let all calls through."""
        self.stuck.clear()
        self.failing.clear()
        self._changed.set()
        self._changed = anyio.Event()

    def lose(self, *calls: str) -> None:
        """Let calls fail, as they do when the store was away for too long."""
        self.failing.update(dict.fromkeys(calls or CALLS, LogUnavailable("away")))

    def _through(
        self, name: str, call: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        async def passed(*args: Any, **options: Any) -> Any:
            if self.takes and name in self.slow:
                await anyio.sleep(self.takes)
            with anyio.move_on_after(OUTAGE) as patience:
                while name in self.stuck:
                    await self._changed.wait()
            if patience.cancelled_caught:
                raise LogUnavailable("away")
            if name in self.failing:
                raise self.failing[name]
            return await call(*args, **options)

        return passed
