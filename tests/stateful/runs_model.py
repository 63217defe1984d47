"""A model of runs and those who read them, of a few lines, and what is done to both."""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import anyio
import pytest
from hypothesis import strategies as st

from streamkit import StreamCancelled
from streamkit.runs import (
    CursorMismatch,
    Gap,
    RunCancelled,
    RunEnded,
    RunExists,
    RunFailed,
    RunLog,
    RunNotFound,
    RunRunning,
    Runs,
)
from support import wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from anyio.abc import ObjectReceiveStream, ObjectSendStream, TaskGroup

IDS = "ab"
ENDS: dict[str, type[RunEnded] | None] = {
    "completed": None,
    "cancelled": RunCancelled,
    "failed": RunFailed,
}


@dataclass(frozen=True)
class Start:
    run_id: str
    keep: float
    max_items: int
    owner: str | None


@dataclass(frozen=True)
class Produce:
    run_id: str
    count: int


@dataclass(frozen=True)
class Finish:
    run_id: str
    error: bool


@dataclass(frozen=True)
class Cancel:
    run_id: str
    owner: str | None


@dataclass(frozen=True)
class Delete:
    run_id: str


@dataclass(frozen=True)
class Attach:
    run_id: str
    #: ``-1`` is a cursor of another run.
    after: int | Literal["now"] | None
    owner: str | None


@dataclass(frozen=True)
class Detach:
    reader: int


@dataclass(frozen=True)
class Advance:
    seconds: float


ids = st.sampled_from(IDS)
# Seldom another one's.
owners = st.sampled_from([None, None, None, "me", "you"])
#: What takes no time, and begins nothing.
moments = [
    # Never more at once than are kept, so that who follows sees all.
    st.builds(Produce, ids, st.integers(1, 3)),
    st.builds(Produce, ids, st.integers(1, 3)),
    st.builds(Finish, ids, st.booleans()),
    st.builds(Cancel, ids, owners),
    st.builds(Delete, ids),
    st.builds(Attach, ids, st.sampled_from([None, "now", -1, *range(8)]), owners),
    st.builds(Detach, st.integers(0, 5)),
]
steps = st.one_of(
    st.builds(Start, ids, st.sampled_from([0, 5, 100]), st.sampled_from([3, 10]), owners),
    *moments,
    st.builds(Advance, st.sampled_from([1, 5, 30, 60, 100])),
)


@dataclass
class Model:
    """A run as it should be."""

    epoch: str
    keep: float
    max_items: int
    owner: str | None
    send: ObjectSendStream[Any]
    items: list[object] = field(default_factory=list[object])
    kind: str | None = None
    expires_at: float = math.inf
    cancelled: bool = False
    deleted: bool = False

    @property
    def first(self) -> int:
        return max(len(self.items) - self.max_items, 0) + 1

    @property
    def last(self) -> int:
        return len(self.items)


@dataclass
class Reader:
    """Who reads as fast as it can, and what it should see."""

    scope: anyio.CancelScope
    #: What it reads, and after which position; or what it is told.
    run: Model | None
    after: int
    refused: type[Exception] | None
    seen: list[object] = field(default_factory=list[object])
    error: Exception | None = None
    is_over: bool = False
    has_left: bool = False

    def check(self) -> None:
        if self.refused is not None:
            assert isinstance(self.error, self.refused)
            return
        assert self.run is not None
        if self.has_left:
            assert self.seen == self.run.items[self.after :][: len(self.seen)]
            return
        assert self.seen == self.run.items[self.after :]
        assert self.is_over == (self.run.kind is not None)
        if self.run.kind is not None:
            assert type(self.error) is (ENDS[self.run.kind] or type(None))


class World:
    def __init__(self, plan: list[object], log: RunLog) -> None:
        self.plan = plan
        self.runs = Runs(log)
        self.models: dict[str, Model] = {}
        #: Until when a cancellation that came too early counts.
        self.early: dict[tuple[str, str | None], float] = {}
        self.readers: list[Reader] = []
        self.sends: list[ObjectSendStream[Any]] = []
        self.tasks: TaskGroup

    async def main(self) -> None:
        async with self.runs, anyio.create_task_group() as self.tasks:
            for step in self.plan:
                await getattr(self, type(step).__name__.lower())(step)
                await self.settle()
            self.tasks.cancel_scope.cancel()
        for send in self.sends:
            send.close()
        assert self.runs.stats().running == 0

    async def settle(self) -> None:
        """See that all is as it should be, when nothing happens any more."""
        await wait_all_blocked()
        # What has gone wrong is said to a reader that waits, in no time but some.
        await anyio.sleep(1e-6)
        await wait_all_blocked()
        await self.check()

    def model(self, run_id: str) -> Model | None:
        model = self.models.get(run_id)
        if model is not None and (model.deleted or model.expires_at <= anyio.current_time()):
            return None
        return model

    async def source(self, receive: ObjectReceiveStream[Any]) -> AsyncGenerator[Any, None]:
        try:
            with receive:
                async for command in receive:
                    if isinstance(command, Finish):
                        if command.error:
                            raise LookupError
                        return
                    yield command
        except StreamCancelled:
            yield "bye"
            raise

    async def start(self, step: Start) -> None:
        send, receive = anyio.create_memory_object_stream[Any](math.inf)
        self.sends.append(send)
        known = self.model(step.run_id)
        now = anyio.current_time()
        try:
            info = await self.runs.start(
                self.source(receive),
                id=step.run_id,
                keep=step.keep,
                max_items=step.max_items,
                owner=step.owner,
            )
        except RunExists:
            assert known is not None
            send.close()
            receive.close()
            return
        assert known is None
        model = Model(info.epoch, step.keep, step.max_items, step.owner, send)
        self.models[step.run_id] = model
        early = [self.early.pop((step.run_id, owner), 0.0) for owner in {None, step.owner}]
        if max(early) > now:
            assert info.state == "ended"
            model.cancelled = True
            self.end(model, "cancelled")
            receive.close()

    async def produce(self, step: Produce) -> None:
        model = self.model(step.run_id)
        if model is not None and model.kind is None:
            for _ in range(step.count):
                item = f"{model.epoch} {model.last}"
                model.items.append(item)
                model.send.send_nowait(item)

    async def finish(self, step: Finish) -> None:
        model = self.model(step.run_id)
        if model is not None and model.kind is None:
            model.send.send_nowait(step)
            self.end(model, "failed" if step.error else "completed")

    async def cancel(self, step: Cancel) -> None:
        model = self.model(step.run_id)
        now = anyio.current_time()
        if model is not None and step.owner not in (None, model.owner):
            with pytest.raises(RunNotFound):
                await self.runs.cancel(step.run_id, "stop", owner=step.owner)
            return
        running = model is not None and model.kind is None
        assert await self.runs.cancel(step.run_id, "stop", owner=step.owner) is (
            running or model is None
        )
        if model is None:
            key = step.run_id, step.owner
            if self.early.get(key, 0.0) <= now:
                self.early[key] = now + 30
        elif running:
            model.cancelled = True
            model.items.append("bye")
            self.end(model, "cancelled")

    async def delete(self, step: Delete) -> None:
        model = self.model(step.run_id)
        if model is None:
            with pytest.raises(RunNotFound):
                await self.runs.delete(step.run_id)
        elif model.kind is None:
            with pytest.raises(RunRunning):
                await self.runs.delete(step.run_id)
        else:
            await self.runs.delete(step.run_id)
            model.deleted = True

    async def attach(self, step: Attach) -> None:
        model = self.model(step.run_id)
        reader = Reader(anyio.CancelScope(), model, 0, None)
        after: Any = step.after
        if after == -1:
            after = f"{0:016x}:1"
        if model is None or step.owner not in (None, model.owner):
            reader.refused = RunNotFound
        elif step.after == -1:
            reader.refused = CursorMismatch
        elif step.after is None:
            reader.after = model.first - 1
        elif step.after == "now":
            reader.after = model.last
        elif step.after > model.last:
            reader.refused = CursorMismatch
        elif step.after + 1 < model.first:
            reader.refused = Gap
        else:
            reader.after = step.after
        # A cursor that names another epoch is found out before anything is read.
        is_read = reader.refused is not RunNotFound and step.after != -1
        if model is not None and model.kind is not None and is_read:
            model.expires_at = max(model.expires_at, anyio.current_time() + 60)
        self.readers.append(reader)
        self.tasks.start_soon(self.read, reader, step.run_id, step.owner, after)

    async def read(self, reader: Reader, run_id: str, owner: str | None, after: Any) -> None:
        with reader.scope:
            try:
                async with self.runs.attach(run_id, owner=owner, after=after) as stream:
                    async for entry in stream:
                        assert reader.run is not None
                        assert entry.epoch == reader.run.epoch
                        assert entry.position == reader.after + len(reader.seen) + 1
                        reader.seen.append(entry.item)
            except (CursorMismatch, Gap, RunEnded, RunNotFound) as exc:
                reader.error = exc
            reader.is_over = True

    async def detach(self, step: Detach) -> None:
        if step.reader < len(self.readers):
            reader = self.readers[step.reader]
            reader.has_left = reader.has_left or not reader.is_over
            reader.scope.cancel()

    async def advance(self, step: Advance) -> None:
        await anyio.sleep(step.seconds)

    def end(self, model: Model, kind: str) -> None:
        model.kind = kind
        now = anyio.current_time()
        read = any(reader.run is model and self.follows(reader) for reader in self.readers)
        model.expires_at = max(now + model.keep, now + 60 if read else 0)
        model.send.close()

    def follows(self, reader: Reader) -> bool:
        return not (reader.is_over or reader.has_left or reader.refused)

    async def check(self) -> None:
        for run_id in IDS:
            model = self.model(run_id)
            try:
                info = await self.runs.get(run_id)
            except RunNotFound:
                assert model is None
                continue
            assert model is not None
            assert (info.epoch, info.owner) == (model.epoch, model.owner)
            assert (info.first, info.last) == (model.first, model.last)
            assert info.cancel_requested == model.cancelled
            assert (info.outcome and info.outcome.kind) == model.kind
        for reader in self.readers:
            reader.check()
        assert self.runs.stats().running == sum(
            model.kind is None for model in self.models.values()
        )
        assert self.runs.stats().readers == sum(map(self.follows, self.readers))


@contextmanager
def quiet() -> Iterator[None]:
    """Let no run that fails be logged."""
    logger = logging.getLogger("streamkit")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
