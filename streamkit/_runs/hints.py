"""
The watchers of each run, in one event loop: for logs whose runs are kept elsewhere.

A hint says that there may be something new, but not what. It is remembered for watchers that are
not waiting at that moment, and forgotten if nobody watches. So nothing grows, and nobody can miss a
change that comes between a read and the wait after it.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from types import TracebackType

import anyio
from anyio.lowlevel import checkpoint

from .log import Watch


class Hints:
    """The runs that are watched here."""

    def __init__(self) -> None:
        self._topics: dict[str, _Topic] = {}

    @property
    def watched(self) -> Collection[str]:
        """The ids of the runs that are watched, as they are now."""
        return self._topics.keys()

    def watch(
        self, run_id: str, patience: float = math.inf
    ) -> AbstractAsyncContextManager[Watch, None]:
        """
        Return a block in which the hints for a run are heard.

        :param patience: seconds after which a wait returns without any

        """
        return _HintedWatch(self._topics, run_id, patience)

    def tell(self, run_id: str) -> None:
        """Wake the watchers of a run."""
        topic = self._topics.get(run_id)
        if topic is not None:
            topic.tell()

    def tell_all(self) -> None:
        """Wake everybody: something may have been missed."""
        for topic in self._topics.values():
            topic.tell()


class _Topic:
    """A run that is watched."""

    __slots__ = ("count", "told", "watches")

    def __init__(self) -> None:
        self.watches = 0
        #: Counts the hints, to tell whether there was one.
        self.count = 0
        #: Set with the next hint, if anybody waits for it.
        self.told: anyio.Event | None = None

    def tell(self) -> None:
        self.count += 1
        if self.told is not None:
            self.told.set()
            self.told = None


class _HintedWatch(AbstractAsyncContextManager[Watch, None]):
    def __init__(self, topics: dict[str, _Topic], run_id: str, patience: float) -> None:
        self._topics = topics
        self._run_id = run_id
        self._patience = patience
        self._topic: _Topic
        self._seen = 0

    async def __aenter__(self) -> Watch:
        self._topic = self._topics.setdefault(self._run_id, _Topic())
        self._topic.watches += 1
        self._seen = self._topic.count
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._topic.watches -= 1
        if not self._topic.watches:
            del self._topics[self._run_id]

    async def wait(self) -> None:
        topic = self._topic
        if topic.count != self._seen:
            await checkpoint()
        else:
            if topic.told is None:
                topic.told = anyio.Event()
            if self._patience == math.inf:
                await topic.told.wait()
            else:
                with anyio.move_on_after(self._patience):
                    await topic.told.wait()
        self._seen = topic.count
