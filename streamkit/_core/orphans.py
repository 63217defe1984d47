"""
Streams whose task has ended without leaving their blocks, on trio.

That happens if a generator holds a stream, and nobody closes it. trio then cancels what is left of
the task group, and goes on to end the run. But a source is shielded, and a run that has tasks left
does not end well. So the source is told that its consumer has left, and the run waits for it. The
task still fails, with trio's error.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol


class Child(Protocol):
    """A stream, as far as it is looked after here."""

    is_finished: bool

    def abandon(self) -> None:
        """End it, because nobody leaves its block."""
        ...

    async def wait_abandoned(self) -> Any:
        """Wait until its source is closed. Returns the task that has done so."""
        ...


class Orphanage:
    """Looks after the streams of one run of trio whose tasks may end before they do."""

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._children: dict[object, list[Child]] = {}

        # Only the events for which an instrument has a method cost anything.
        watch: Any = type("Watch", (trio.abc.Instrument,), {"task_exited": self._exited})
        trio.lowlevel.add_instrument(watch())

    def add(self, task: object, child: Child) -> None:
        self._children.setdefault(task, []).append(child)

    def remove(self, task: object, child: Child) -> None:
        children = self._children.get(task)
        if children is not None:
            children.remove(child)
            if not children:
                del self._children[task]

    def _exited(self, task: object) -> None:
        for child in self._children.pop(task, ()):
            if child.is_finished:
                continue
            child.abandon()
            self._trio.lowlevel.spawn_system_task(self._wait, child)

    async def _wait(self, child: Child) -> None:
        with self._trio.CancelScope(shield=True):
            source_task = await child.wait_abandoned()
            # The run must not end while there is a task of the stream.
            while source_task.parent_nursery.child_tasks:
                await self._trio.lowlevel.checkpoint()


_orphanage_of_run: Any = None


def orphanage() -> Orphanage:
    """Return the orphanage of the running trio run."""
    global _orphanage_of_run
    trio: Any = sys.modules["trio"]
    if _orphanage_of_run is None:
        _orphanage_of_run = trio.lowlevel.RunVar("streamkit_orphans")
    found: Orphanage | None = _orphanage_of_run.get(None)
    if found is None:
        found = Orphanage(trio)
        _orphanage_of_run.set(found)
    return found
