"""What all combinators have in common: they stand alone, and in any chain."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import pytest

from chains import ALONE, ORDERS, TWICE, Chain, any_chain, wrap
from streamkit import (
    CancelToken,
    Head,
    Outcome,
    Stage,
    StatusStream,
    Stream,
    StreamCancelled,
    with_keepalive,
    with_stage,
)
from support import Log, PlainSource, Probe, live_tasks, on_trio, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator

Combinator: TypeAlias = Callable[[Any], Stream[Any]]

every_chain = pytest.mark.parametrize("chain", [*ALONE, *ORDERS, *TWICE], ids="+".join)
any_combinator = pytest.mark.parametrize("chain", ALONE, ids="+".join)


async def passed_on(source: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """Stand between two combinators, as a generator of the user, who has never heard of them."""
    async for item in source:
        yield item


@asynccontextmanager
async def entered(source: AsyncIterable[Any]) -> AsyncIterator[AsyncIterable[Any]]:
    yield source


def with_generators(source: Any, chain: Chain, **arguments: Any) -> Stream[Any]:
    """Build a chain with a plain generator around each stream but the last."""
    stream: Stream[Any] = wrap(source, chain[:1], **arguments)
    for name in chain[1:]:
        stream = wrap(consumed(stream), (name,), **arguments)
    return stream


async def consumed(stream: Stream[Any]) -> AsyncGenerator[Any, None]:
    """Stand between two combinators, as a generator that opens its stream and passes items on."""
    async with stream:
        async for item in stream:
            yield item


class TestItems:
    @every_chain
    async def test_of_a_generator(self, chain: Chain) -> None:
        """R10: a chain passes items through untouched, None and exceptions among them."""
        items = [0, None, "", (), ValueError("an item"), StopIteration]
        probe = Probe(*items)
        async with wrap(probe.source(), chain) as stream:
            received = [item async for item in stream]
        assert len(received) == len(items)
        assert all(a is b for a, b in zip(received, items, strict=True))
        assert (stream.outcome.kind, stream.outcome.items) == ("completed", len(items))
        assert (probe.closed, len(probe.task_ids)) == (1, 1)

    @any_chain
    async def test_of_a_plain_iterator(self, chain: Chain) -> None:
        """R10: a chain over an iterator without ``athrow()`` and ``aclose()``."""
        async with wrap(PlainSource(1, 2, 3), chain) as stream:
            assert [item async for item in stream] == [1, 2, 3]

    @any_chain
    async def test_of_a_context_manager(self, chain: Chain) -> None:
        """R10: a chain over a context manager that yields a source; left in the source task."""
        probe = Probe(1, 2, 3)
        async with wrap(entered(probe.source()), chain) as stream:
            assert [item async for item in stream] == [1, 2, 3]
        assert (probe.closed, len(probe.task_ids)) == (1, 1)

    @any_chain
    async def test_of_a_receive_stream(self, chain: Chain) -> None:
        """R10: a chain over an object receive stream of anyio."""
        send, receive = anyio.create_memory_object_stream[int](2)
        with send:
            send.send_nowait(1)
            send.send_nowait(2)
        async with wrap(receive, chain) as stream:
            assert [item async for item in stream] == [1, 2]
        assert receive.statistics().open_receive_streams == 0

    @every_chain
    async def test_with_generators_in_between(self, chain: Chain) -> None:
        """R10: a chain with a plain generator around each stream, each of which opens its own."""
        probe = Probe(1, 2, 3)
        async with with_generators(probe.source(), chain) as stream:
            assert [item async for item in stream] == [1, 2, 3]
        assert (probe.closed, len(probe.task_ids)) == (1, 1)

    @any_chain
    async def test_over_generators(self, chain: Chain) -> None:
        """R10: a chain over plain generators around its source."""
        probe = Probe(1, 2, 3)
        async with wrap(passed_on(passed_on(probe.source())), chain) as stream:
            assert [item async for item in stream] == [1, 2, 3]
        assert (probe.closed, len(probe.task_ids)) == (1, 1)


class TestEachDoesItsPart:
    """Every combinator of a chain does what it does alone, wherever it stands in it."""

    @every_chain
    async def test_of_a_chain(self, chain: Chain) -> None:
        """R10: a head, items, beats, a reason, the end and last items, through any chain."""
        token = CancelToken()
        log = Log()
        outcomes: list[Outcome] = []

        async def source() -> AsyncGenerator[str | Head, None]:
            try:
                yield "item"
                await anyio.sleep(25 if "cancellation" not in chain else 1e9)
            except StreamCancelled as stop:
                yield f"stopped: {stop.reason}"

        async def on_end(outcome: Outcome) -> None:
            outcomes.append(outcome)

        stream = wrap(
            source(),
            chain,
            token=token,
            interval=10,
            final=lambda outcome: "last word",
            on_end=on_end,
        )
        async with anyio.create_task_group() as tasks:
            async with stream:
                log.start()
                tasks.start_soon(self._fire, token)
                if isinstance(stream, StatusStream):
                    log((await stream.head()).decided_by)
                async for item in stream:
                    log(item)

        expected: list[tuple[float, object]] = []
        if chain[-1] == "status":
            expected.append((0, "item"))
        expected.append((0, "item"))
        if "keepalive" in chain:
            expected += [(10, "beat"), (20, "beat")]
        if "cancellation" in chain:
            expected.append((25, "stopped: stop"))
        expected += [(25, "last word")] * chain.count("status")
        assert log == expected
        kind = "cancelled" if "cancellation" in chain else "completed"
        assert {outcome.kind for outcome in outcomes} <= {kind}
        assert len(outcomes) == chain.count("status")
        assert stream.outcome.kind == kind

    async def _fire(self, token: CancelToken) -> None:
        await anyio.sleep(25)
        token.cancel("stop")

    @any_combinator
    async def test_over_a_stage(self, chain: Chain) -> None:
        """R10: a combinator on top of a stage of the user, and below one: the innermost first."""

        class Doubled(Stage[int, int]):
            def on_item(self, item: int) -> int:
                return item * 2

        class Increased(Stage[int, int]):
            def on_item(self, item: int) -> int:
                return item + 1

        stream = with_stage(wrap(with_stage(Probe(1, 2).source(), Doubled()), chain), Increased())
        async with stream:
            assert [item async for item in stream] == [3, 5]

    @any_chain
    async def test_a_beat_passes_outwards(self, chain: Chain) -> None:
        """R10: two keepalives in a chain count apart: each beats when it is due, one at a time."""
        log = Log()

        async def source() -> AsyncGenerator[str, None]:
            await anyio.sleep(35)
            yield "item"

        inner = wrap(with_keepalive(source(), 10, "fast"), chain)
        async with with_keepalive(inner, 16, "slow") as stream:
            log.start()
            async for item in stream:
                log(item)
        # Each beat ends the wait, with which the clock of the slower one starts anew.
        assert log == [(10, "fast"), (20, "fast"), (30, "fast"), (35, "item")]


class TestOwnership:
    @any_chain
    async def test_an_inner_stream_cannot_be_entered(self, chain: Chain) -> None:
        """R10: a stream that was given to a combinator belongs to the outer one."""
        inner = with_keepalive(Probe(1).source(), 10, "beat")
        async with wrap(inner, chain) as outer:
            with pytest.raises(RuntimeError, match="belongs to"):
                async with inner:
                    raise AssertionError("must not be entered")
            with pytest.raises(RuntimeError, match="belongs to"):
                await anext(inner)
            assert [item async for item in outer] == [1]
        assert inner.outcome is outer.outcome

    @any_chain
    async def test_not_twice(self, chain: Chain) -> None:
        """R10: a stream can't be given to two combinators."""
        inner = with_keepalive(Probe(1).source(), 10, "beat")
        async with wrap(inner, chain) as outer:
            with pytest.raises(RuntimeError, match="belongs to"):
                wrap(inner, chain)
            assert [item async for item in outer] == [1]

    @any_chain
    async def test_an_open_stream_is_no_source(self, chain: Chain) -> None:
        """R10: a stream that is open, or was, can't be given to a combinator."""
        async with with_keepalive(Probe(1).source(), 10, "beat") as stream:
            with pytest.raises(RuntimeError, match="entered before it was wrapped"):
                wrap(stream, chain)
            assert [item async for item in stream] == [1]
        with pytest.raises(RuntimeError, match="used once"):
            wrap(stream, chain)

    @any_chain
    async def test_open_in_a_generator(self, chain: Chain) -> None:
        """R10: an open stream may be iterated by the source of another one, which closes both."""
        probe = Probe(1, 2, block=True)
        inner = wrap(probe.source(), chain)
        async with wrap(consumed(inner), chain) as outer:
            assert await anext(outer) == 1
        assert (probe.closed, len(probe.task_ids)) == (1, 1)
        assert inner.outcome.kind == "closed"


class TestCost:
    """R10: cost does not grow with the chain."""

    @every_chain
    @pytest.mark.parametrize("repeats", [1, 5])
    async def test_tasks(self, chain: Chain, repeats: int, backend: Any) -> None:
        """R10: one source task, however long the chain; on trio one more for all timers."""
        before = live_tasks()
        async with wrap(Probe(1, 2).source(), chain * repeats) as stream:
            assert await anext(stream) == 1
            names = [task_name(task) for task in live_tasks() - before]
            assert len([name for name in names if name.startswith("source task")]) == 1
            timers = ["timers of streams"] if backend.is_trio and "keepalive" in chain else []
            assert [name for name in names if not name.startswith("source task")] == timers
        assert live_tasks() == before

    @any_chain
    async def test_source_task_is_named(self, chain: Chain) -> None:
        """R10: the one source task is named after the source, however long the chain."""
        before = live_tasks()

        async def a_name_to_find() -> AsyncGenerator[int, None]:
            yield 1

        async with wrap(a_name_to_find(), chain) as stream:
            assert await anext(stream) == 1
            names = {task_name(task) for task in live_tasks() - before} - {"timers of streams"}
        assert {name.rpartition(".")[2] for name in names} == {"a_name_to_find"}

    @any_chain
    async def test_hand_offs(self, chain: Chain) -> None:
        """R10: an item takes as many task switches as with one combinator: it is handed over once.

        trio picks the next task at random, so the whole count may differ by one or two.
        """
        items = 20
        difference = await self._turns(chain * 5, items) - await self._turns(chain[:1], items)
        assert abs(difference) < items // 2

    async def _turns(self, chain: Chain, items: int) -> int:
        """Count how often another task gets its turn while the consumer takes some items."""
        turns = 0
        done = False

        async def count_turns() -> None:
            nonlocal turns
            while not done:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            async with wrap(Probe(*range(items)).source(), chain) as stream:
                # The task of the timers starts before the count does.
                await anext(stream)
                await wait_all_blocked()
                tasks.start_soon(count_turns)
                async for _ in stream:
                    pass
                done = True
        return turns


def task_name(task: Any) -> str:
    name: str = task.name if on_trio() else task.get_name()
    return name
