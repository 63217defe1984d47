"""The status before the first item, and the last word after the end."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import math
import pickle
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import pytest

from chains import ORDERS, TWICE, Chain, wrap
from streamkit import (
    CancelToken,
    Head,
    Idle,
    Outcome,
    Stage,
    StatusStream,
    StreamCancelled,
    with_cancellation,
    with_keepalive,
    with_stage,
    with_status,
)
from support import Log, Probe, aiter_of, wait_all_blocked

HEAD = Head(status=409, headers={"retry-after": "7"})

with_head = pytest.mark.parametrize(
    "chain",
    [("status",), *ORDERS, *[chain for chain in TWICE if "status" in chain]],
    ids="+".join,
)

deciding = pytest.mark.parametrize(
    ("items", "decided_by"),
    [(["a"], "item"), ([HEAD], "head"), ([], "end")],
    ids=["item", "head", "end"],
)


async def slowly(*items: object, every: float = 1.0, error: BaseException | None = None) -> Any:
    """Yield each item a while after it was asked for, then raise, if there is an error."""
    for item in items:
        await anyio.sleep(every)
        yield item
    await anyio.sleep(every)
    if error is not None:
        raise error


async def silent() -> AsyncGenerator[Any, None]:
    """Never yield anything."""
    await anyio.sleep_forever()
    yield


async def rest_of(stream: StatusStream[Any]) -> list[Any]:
    return [item async for item in stream]


class TestHead:
    @with_head
    async def test_in_any_chain(self, chain: Chain) -> None:
        """S1: a Head is no item of any chain, and the outermost status gives it to who asks."""
        async with wrap(aiter_of(HEAD, 1, 2), chain) as stream:
            if isinstance(stream, StatusStream):
                head = await stream.head()
                assert (head.status, head.headers) == (409, {"retry-after": "7"})
                assert head.decided_by == "head"
            assert await rest_of(stream) == [1, 2]
        assert stream.outcome.kind == "completed"
        assert stream.outcome.items == 2

    async def test_comes_before_the_first_item(self) -> None:
        """S1: head() returns when the Head is there, and the item follows at its own time."""
        log = Log()
        async with with_status(slowly(HEAD, "a", "b", every=10)) as stream:
            log.start()
            log((await stream.head()).status)
            async for item in stream:
                log(item)
            log("end")
        assert log == [(10, 409), (20, "a"), (30, "b"), (40, "end")]

    async def test_nobody_asks(self) -> None:
        """S9: head() is never called: the Head is dropped, the items come."""
        async with with_status(slowly(HEAD, "a")) as stream:
            assert await rest_of(stream) == ["a"]

    @deciding
    async def test_belongs_to_its_stream(self, items: list[object], decided_by: str) -> None:
        """S2: a Head can be copied, pickled and written as JSON, whatever has decided it; no other
        stream has the same headers."""
        heads: list[Head] = []
        for _ in range(2):
            async with with_status(aiter_of(*items)) as stream:
                heads.append(await stream.head())
        for head in heads:
            assert head.decided_by == decided_by
            assert copy.deepcopy(head) == pickle.loads(pickle.dumps(head)) == head
            assert json.loads(json.dumps(asdict(head)))["headers"] == head.headers
        if decided_by != "head":
            assert heads[0].headers is not heads[1].headers

    async def test_item_first(self) -> None:
        """S2: an item without a Head means 200; it is not consumed."""
        probe = Probe("a", "b", every=10)
        async with with_status(probe.source()) as stream:
            before = anyio.current_time()
            assert await stream.head() == Head(200, {}, decided_by="item")
            assert anyio.current_time() == before + 10
            assert probe.produced == ["a"]
            assert await rest_of(stream) == ["a", "b"]
        assert stream.outcome.items == 2

    @pytest.mark.parametrize("item", [None, 0, "", ()])
    async def test_falsy_item_first(self, item: object) -> None:
        """S2: a falsy item decides the head, as any other."""
        async with with_status(aiter_of(item)) as stream:
            assert (await stream.head()).decided_by == "item"
            assert await rest_of(stream) == [item]

    @pytest.mark.parametrize("first", [HEAD, "a"], ids=["head", "item"])
    async def test_source_is_asked_once(self, first: object) -> None:
        """S9: head(), however often, reads no further than the first item."""
        probe = Probe(first, "b", "c", "d")
        async with with_status(probe.source()) as stream:
            for _ in range(3):
                await stream.head()
                await wait_all_blocked()
            assert probe.produced == ([HEAD, "b"] if first is HEAD else ["a"])

    @with_head
    async def test_error_first(self, chain: Chain) -> None:
        """S3: an error before the first item is raised by head(), bare, and not again."""
        error = LookupError("no such run")
        probe = Probe[int](every=1, error=error)
        async with wrap(probe.source(), chain) as stream:
            ask = stream.head if isinstance(stream, StatusStream) else stream.__anext__
            with pytest.raises(LookupError) as caught:
                await ask()
            assert caught.value is error
            assert error.__context__ is None
            if isinstance(stream, StatusStream):
                assert await stream.head() == Head(500, {}, decided_by="error")
            assert await rest_of(stream) == []
        assert probe.closed == 1
        assert stream.outcome.kind == "failed"
        assert stream.outcome.error is error

    async def test_error_after_the_head(self) -> None:
        """S3: an error between the Head and the first item belongs to the iteration."""
        async with with_status(slowly(HEAD, error=LookupError("late"))) as stream:
            assert (await stream.head()).status == 409
            with pytest.raises(LookupError, match="late"):
                await anext(stream)
            assert (await stream.head()).status == 409

    async def test_error_after_an_item(self) -> None:
        """S3: an error after the first item belongs to the iteration."""
        async with with_status(slowly("a", error=LookupError("late"))) as stream:
            assert (await stream.head()).decided_by == "item"
            assert await anext(stream) == "a"
            with pytest.raises(LookupError, match="late"):
                await anext(stream)

    async def test_error_was_raised_before(self) -> None:
        """S3: an error that the iteration has raised is not raised again by head()."""
        async with with_status(slowly(error=LookupError("once"))) as stream:
            with pytest.raises(LookupError, match="once"):
                await anext(stream)
            assert await stream.head() == Head(500, {}, decided_by="error")

    async def test_error_while_on_end_runs(self) -> None:
        """S3: the time for the head ends while on_end runs: the error is raised once, by head()."""

        async def on_end(outcome: Outcome) -> None:
            await anyio.sleep(3)

        source = slowly(error=LookupError("once"))
        async with with_status(source, first_item_within=2, on_end=on_end) as stream:
            before = anyio.current_time()
            with pytest.raises(LookupError, match="once"):
                await stream.head()
            assert anyio.current_time() == before + 2
            assert await rest_of(stream) == []

    async def test_cancelled_first(self) -> None:
        """S3: a source that is cancelled before its first item: head() raises, the rest is empty"""
        token = CancelToken()
        async with with_status(with_cancellation(silent(), token)) as stream:
            token.cancel("stop")
            with pytest.raises(StreamCancelled, match="stop"):
                await stream.head()
            assert await rest_of(stream) == []
            assert (await stream.head()).status == 500
        assert stream.outcome.kind == "cancelled"

    async def test_error_and_last_items(self) -> None:
        """S3: head() raises the error also where last items come in place of it in the stream."""
        source = slowly(error=LookupError("no such run"))
        async with with_status(source, final=lambda outcome: f"error: {outcome.error}") as stream:
            with pytest.raises(LookupError):
                await stream.head()
            assert await rest_of(stream) == ["error: no such run"]

    async def test_error_and_last_items_further_in(self) -> None:
        """S3: last items of an inner status are not the first item of an outer one."""
        inner = with_status(slowly(error=LookupError("x")), final=lambda outcome: "error frame")
        async with with_status(inner) as stream:
            with pytest.raises(LookupError, match="x"):
                await stream.head()
            assert await rest_of(stream) == ["error frame"]

    @with_head
    async def test_empty(self, chain: Chain) -> None:
        """S4: a source without items: 200, decided by the end."""
        async with wrap(slowly(), chain) as stream:
            if isinstance(stream, StatusStream):
                assert await stream.head() == Head(200, {}, decided_by="end")
            assert await rest_of(stream) == []
        assert stream.outcome.kind == "completed"

    async def test_empty_with_last_items(self) -> None:
        """S4: last items are not the first item: the end decides."""
        inner = with_status(slowly(), final=lambda outcome: "inner")
        async with with_status(inner, final=lambda outcome: "outer") as stream:
            assert (await stream.head()).decided_by == "end"
            assert await rest_of(stream) == ["inner", "outer"]

    async def test_head_alone(self) -> None:
        """S4: a Head and nothing after it is a head, and an empty stream."""
        async with with_status(slowly(HEAD)) as stream:
            assert (await stream.head()).decided_by == "head"
            assert await rest_of(stream) == []
        assert stream.outcome.items == 0
        assert stream.outcome.first_item_at is None

    async def test_time_passes(self) -> None:
        """S5: the time for the first item passes: 200, for good, and the item is not lost."""
        async with with_status(slowly("a", every=10), first_item_within=3) as stream:
            before = anyio.current_time()
            for _ in range(2):
                assert await stream.head() == Head(200, {}, decided_by="timeout")
                assert anyio.current_time() == before + 3
            assert await anext(stream) == "a"
            assert anyio.current_time() == before + 10
            assert (await stream.head()).decided_by == "timeout"

    @deciding
    async def test_time_does_not_pass(self, items: list[object], decided_by: str) -> None:
        """S5: what comes within the time decides."""
        async with with_status(slowly(*items), first_item_within=3) as stream:
            assert (await stream.head()).decided_by == decided_by

    @pytest.mark.parametrize("head", [HEAD, Head()], ids=["another status", "the same"])
    async def test_head_after_its_time(self, head: Head, caplog: pytest.LogCaptureFixture) -> None:
        """S5: a Head that comes too late is dropped: the status has been decided. Not silently."""
        async with with_status(slowly(head, "a", every=10), first_item_within=3) as stream:
            assert (await stream.head()).status == 200
            assert await rest_of(stream) == ["a"]
            assert await stream.head() == Head(200, {}, decided_by="timeout")
        told = ["a Head with status 409 came too late"] if head is HEAD else []
        assert [message.partition(" and")[0] for message in caplog.messages] == told

    @with_head
    async def test_head_in_the_outcome(self, chain: Chain) -> None:
        """S1: the outcome has the Head that was given, also for on_end, and if nobody reads it."""
        seen: list[Outcome] = []

        async def on_end(outcome: Outcome) -> None:
            seen.append(outcome)

        for reads in True, False:
            async with wrap(aiter_of(HEAD, "busy"), chain, on_end=on_end) as stream:
                if reads and chain[-1] == "status":
                    assert await stream.head() == HEAD
                assert [item async for item in stream] == ["busy"]
            assert stream.outcome.kind == "completed"
            assert stream.outcome.head == HEAD
        assert all(outcome.head == HEAD for outcome in seen)

    async def test_no_head_in_the_outcome(self) -> None:
        """S2: without one there is none, nor where nobody takes it, or where it came too late."""
        async with with_status(aiter_of("a")) as stream:
            assert (await stream.head()).decided_by == "item"
        assert stream.outcome.head is None
        async with with_cancellation(aiter_of(HEAD)) as other:
            assert await anext(other) is HEAD
        assert other.outcome.head is None
        async with with_status(slowly(HEAD, "a", every=10), first_item_within=3) as stream:
            assert (await stream.head()).decided_by == "timeout"
            assert await rest_of(stream) == ["a"]
        assert stream.outcome.head is None

    async def test_error_after_the_time(self) -> None:
        """S5: an error that comes after the time is raised by the iteration."""
        source = slowly(every=10, error=LookupError("late"))
        async with with_status(source, first_item_within=3) as stream:
            assert (await stream.head()).decided_by == "timeout"
            with pytest.raises(LookupError, match="late"):
                await anext(stream)

    @pytest.mark.parametrize(
        ("items", "received"),
        [(["a", HEAD, "b"], ["a"]), ([HEAD, HEAD, "a"], []), ([HEAD, "a", HEAD], ["a"])],
        ids=["after an item", "second one", "second one after an item"],
    )
    async def test_later_than_first(self, items: list[object], received: list[object]) -> None:
        """S6: a Head after the first item, or a second one, is a clear error in its place."""
        probe = Probe(*items)
        async with with_status(probe.source()) as stream:
            ending = Ending(stream, CancelToken())
            with pytest.raises(RuntimeError, match="Head once, before its first item"):
                await ending.iterate()
            assert ending.log == received
            assert probe.closed == 1
            assert probe.produced == items[: items.index(HEAD, 1) + 1]
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert stream.outcome.kind == "failed"

    async def test_error_of_another_stage(self) -> None:
        """S3: an error of a stage before the first item is raised by head(), too."""

        class Broken(Stage[str, str]):
            def on_item(self, item: str) -> str:
                raise LookupError("stage")

        async with with_status(with_stage(slowly("a"), Broken())) as stream:
            with pytest.raises(LookupError, match="stage"):
                await stream.head()
            assert await rest_of(stream) == []


class TestAskingForTheHead:
    async def test_late(self) -> None:
        """S9: head() after items were taken returns at once, and asks the source for nothing."""
        probe = Probe("a", "b", block=True)
        async with with_status(probe.source()) as stream:
            assert await anext(stream) == "a"
            with anyio.fail_after(1):
                assert (await stream.head()).decided_by == "item"
            await wait_all_blocked()
            assert probe.produced == ["a"]

    async def test_late_with_a_head(self) -> None:
        """S9: the same where the source has yielded a Head."""
        probe = Probe[Any](HEAD, "a", "b", block=True)
        async with with_status(probe.source()) as stream:
            assert await anext(stream) == "a"
            assert (await stream.head()).status == 409
            await wait_all_blocked()
            assert probe.produced == [HEAD, "a"]

    @deciding
    async def test_after_the_end(self, items: list[object], decided_by: str) -> None:
        """S9: after the end, with items or without, head() still says what decided it."""
        async with with_status(slowly(*items)) as stream:
            await rest_of(stream)
            assert (await stream.head()).decided_by == decided_by

    async def test_two_tasks(self) -> None:
        """S9: a second task that asks meanwhile gets BusyResourceError; the first one its head."""
        async with anyio.create_task_group() as tasks, with_status(slowly("a")) as stream:

            @tasks.start_soon
            async def first() -> None:
                assert (await stream.head()).decided_by == "item"

            await wait_all_blocked()
            for ask in (stream.head, stream.__anext__):
                with pytest.raises(anyio.BusyResourceError):
                    await ask()
            await anyio.sleep(2)
            assert (await stream.head()).decided_by == "item"
            assert await rest_of(stream) == ["a"]

    async def test_another_task_iterates(self) -> None:
        """S9: head() while another task waits for the first item: BusyResourceError."""
        async with anyio.create_task_group() as tasks, with_status(slowly("a")) as stream:

            @tasks.start_soon
            async def first() -> None:
                assert await anext(stream) == "a"

            await wait_all_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await stream.head()
            await anyio.sleep(2)

    async def test_cancelled(self) -> None:
        """S9: a head() that is cancelled loses nothing: the next one finds the item."""
        probe = Probe("a", every=10)
        async with with_status(probe.source()) as stream:
            before = anyio.current_time()
            for _ in range(3):
                with anyio.move_on_after(3):
                    await stream.head()
                    raise AssertionError("the wait was cancelled")
            assert (await stream.head()).decided_by == "item"
            assert anyio.current_time() == before + 10
            assert await rest_of(stream) == ["a"]
        assert [where for where, _ in probe.seen] == []

    async def test_cancelled_before(self) -> None:
        """C1: a scope cancelled before the head is asked for: the source never runs."""

        async def source() -> AsyncGenerator[object, None]:
            raise AssertionError("must not be run")
            yield None

        with anyio.CancelScope() as scope:
            async with with_status(source()) as stream:
                scope.cancel()
                await stream.head()
                raise AssertionError("must not get a head")
        assert scope.cancelled_caught
        assert (stream.outcome.kind, stream.outcome.items) == ("closed", 0)

    async def test_cancelled_when_it_is_there(self) -> None:
        """S9: the item comes in the moment in which head() is cancelled: it is there afterwards."""
        async with with_status(slowly("a", "b", every=10)) as stream:
            with anyio.move_on_after(10):
                await stream.head()
            assert await rest_of(stream) == ["a", "b"]

    async def test_not_entered(self) -> None:
        """G3: head() of a stream that was not entered is a RuntimeError that shows the code."""
        stream = with_status(aiter_of(1))
        with pytest.raises(RuntimeError, match="async with stream:"):
            await stream.head()
        await stream.aclose()

    async def test_closed(self) -> None:
        """G6: head() of a closed stream is a ClosedResourceError, in the block and after it."""
        async with with_status(silent()) as stream:
            await stream.aclose()
            with pytest.raises(anyio.ClosedResourceError):
                await stream.head()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.head()

    @pytest.mark.parametrize("asked", [True, False])
    async def test_after_the_block(self, asked: bool) -> None:
        """S9: a status that was known is the same after the block, also if nobody asked before."""

        async def source() -> AsyncGenerator[Head | str, None]:
            yield HEAD
            yield "item"

        async with with_status(source()) as stream:
            assert await anext(stream) == "item"
            head = await stream.head() if asked else HEAD
        assert await stream.head() == head
        assert head.status == 409

    async def test_closed_meanwhile(self) -> None:
        """G7: another task closes the stream while head() waits: ClosedResourceError there."""
        async with anyio.create_task_group() as tasks, with_status(silent()) as stream:
            tasks.start_soon(stream.aclose)
            with pytest.raises(anyio.ClosedResourceError):
                await stream.head()


class TestHeadAndBeats:
    @pytest.mark.parametrize("initial", [False, True])
    async def test_beats_do_not_decide(self, initial: bool) -> None:
        """S1: beats are due while head() waits: none decides it."""
        inner = with_keepalive(slowly("a", "b", every=35), 10, "beat", initial=initial)
        async with with_status(inner) as stream:
            before = anyio.current_time()
            assert (await stream.head()).decided_by == "item"
            assert anyio.current_time() == before + 35
            assert await rest_of(stream) == ["a", *["beat"] * 3, "b", *["beat"] * 3]

    async def test_time_passes_then_beats(self) -> None:
        """S5: what a server does: commit to 200 after a while, and beat until the item comes."""
        log = Log()
        inner = with_keepalive(slowly("a", every=40), 10, "beat")
        async with with_status(inner, first_item_within=15) as stream:
            log.start()
            log((await stream.head()).decided_by)
            async for item in stream:
                log(item)
        assert log[:4] == [(15, "timeout"), (25, "beat"), (35, "beat"), (40, "a")]

    async def test_beats_came_first(self) -> None:
        """S1: beats that the consumer took before it asks for the head have not decided it."""
        async with with_status(with_keepalive(slowly("a", every=15), 10, "beat")) as stream:
            assert await anext(stream) == "beat"
            assert (await stream.head()).decided_by == "item"
            assert await anext(stream) == "a"

    @pytest.mark.parametrize("chain", [c for c in ORDERS if c[-1] == "status"], ids="+".join)
    async def test_head_is_not_the_last_item(self, chain: Chain) -> None:
        """K10: a Head is no item for a beat, wherever the keepalive is in the chain."""
        stream = wrap(slowly(HEAD, "a", every=25), chain, interval=10, beat=lambda idle: idle)
        async with stream:
            assert (await stream.head()).status == 409
            first = await anext(stream)
        assert isinstance(first, Idle)
        assert first.last is None


@dataclass
class Ending:
    """A stream that is about to end in some way, and what it is to end as."""

    stream: StatusStream[Any]
    token: CancelToken
    log: list[object] = field(default_factory=list)

    async def iterate(self) -> None:
        async for item in self.stream:
            self.log.append(item)


Way: TypeAlias = Callable[[Ending], Awaitable[None]]


async def _to_the_end(ending: Ending) -> None:
    async with ending.stream:
        await ending.iterate()


async def _never_asked(ending: Ending) -> None:
    async with ending.stream:
        await anyio.sleep(1)


async def _break(ending: Ending) -> None:
    async with ending.stream:
        await anext(ending.stream)


async def _body_raises(ending: Ending) -> None:
    with pytest.raises(LookupError, match="body"):
        async with ending.stream:
            await anext(ending.stream)
            raise LookupError("body")


async def _aclose(ending: Ending) -> None:
    async with ending.stream:
        await anext(ending.stream)
        await ending.stream.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await anext(ending.stream)


async def _aclose_elsewhere(ending: Ending) -> None:
    async with anyio.create_task_group() as tasks, ending.stream:

        @tasks.start_soon
        async def close() -> None:
            await anyio.sleep(1.5)
            await ending.stream.aclose()

        with pytest.raises(anyio.ClosedResourceError):
            await ending.iterate()


async def _outer_scope(ending: Ending) -> None:
    with anyio.move_on_after(1.5) as scope:
        async with ending.stream:
            await ending.iterate()
    assert scope.cancelled_caught


async def _outer_scope_while_busy(ending: Ending) -> None:
    with anyio.move_on_after(1.5) as scope:
        async with ending.stream:
            await anext(ending.stream)
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def _token(ending: Ending) -> None:
    async with ending.stream:
        await anext(ending.stream)
        ending.token.cancel("stop")
        with pytest.raises(StreamCancelled, match="stop"):
            await ending.iterate()


async def _token_before(ending: Ending) -> None:
    ending.token.cancel("stop")
    async with ending.stream:
        with pytest.raises(StreamCancelled, match="stop"):
            await ending.iterate()


async def _body_is_cancelled(ending: Ending) -> None:
    with pytest.raises(StreamCancelled, match="stop"):
        async with ending.stream:
            await anext(ending.stream)
            raise StreamCancelled("stop")


async def _fails(ending: Ending) -> None:
    async with ending.stream:
        with pytest.raises(LookupError, match="source"):
            await ending.iterate()


async def _native_cancel(ending: Ending) -> None:
    task = asyncio.create_task(_to_the_end(ending))
    await asyncio.sleep(1.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


ENDS: dict[str, tuple[Way, BaseException | None, str]] = {
    "end": (_to_the_end, None, "completed"),
    "error": (_fails, LookupError("source"), "failed"),
    "token": (_token, None, "cancelled"),
    "token before": (_token_before, None, "cancelled"),
    "StreamCancelled in the body": (_body_is_cancelled, None, "cancelled"),
    "never asked": (_never_asked, None, "closed"),
    "break": (_break, None, "closed"),
    "error in the body": (_body_raises, None, "closed"),
    "aclose": (_aclose, None, "closed"),
    "aclose from another task": (_aclose_elsewhere, None, "closed"),
    "outer scope": (_outer_scope, None, "closed"),
    "outer scope while busy": (_outer_scope_while_busy, None, "closed"),
}


class TestOnEnd:
    @pytest.mark.parametrize("chain", ORDERS, ids="+".join)
    @pytest.mark.parametrize("way", ENDS)
    async def test_every_end(self, way: str, chain: Chain) -> None:
        """S7: on_end runs once, with the outcome, after the source was closed, under every end."""
        end, error, kind = ENDS[way]
        await self.check(chain, end, error, kind)

    @pytest.mark.asyncio_only
    @pytest.mark.parametrize("chain", ORDERS, ids="+".join)
    async def test_native_cancel(self, chain: Chain) -> None:
        """S7: the same for a native cancel of the consumer's task, which trio does not have."""
        await self.check(chain, _native_cancel, None, "closed")

    async def check(self, chain: Chain, end: Way, error: BaseException | None, kind: str) -> None:
        probe = Probe(1, 2, 3, every=1, error=error)
        calls: list[tuple[Outcome, int]] = []

        async def on_end(outcome: Outcome) -> None:
            calls.append((outcome, probe.closed))
            await anyio.sleep(1)
            calls.append((outcome, probe.closed))

        token = CancelToken()
        stream = wrap(probe.source(), chain, token=token, on_end=on_end)
        await end(Ending(stream, token))
        assert stream.outcome.kind == kind
        closed = 1 if probe.started else 0
        assert calls == [(stream.outcome, closed)] * 2
        assert all(outcome is stream.outcome for outcome, _ in calls)

    async def test_stage_fails(self) -> None:
        """S7: on_end runs once when a stage of the stream fails."""
        calls = []

        async def on_end(outcome: Outcome) -> None:
            calls.append(outcome)

        async with with_status(slowly("a", HEAD), on_end=on_end) as stream:
            with pytest.raises(RuntimeError, match="Head"):
                await rest_of(stream)
        assert calls == [stream.outcome]

    async def test_in_the_source_task(self) -> None:
        """S7: on_end runs in the task of the source, so that it may undo what that has set."""
        probe = Probe("a")
        tasks = []

        async def on_end(outcome: Outcome) -> None:
            tasks.append(anyio.get_current_task().id)

        async with with_status(probe.source(), on_end=on_end) as stream:
            await rest_of(stream)
        assert set(tasks) == probe.task_ids

    async def test_shielded(self) -> None:
        """S7: an outer scope that is cancelled while on_end runs waits for it."""
        log = Log()

        async def on_end(outcome: Outcome) -> None:
            await anyio.sleep(3)
            log("saved")

        log.start()
        with anyio.move_on_after(2) as scope:
            async with with_status(slowly(every=1), on_end=on_end) as stream:
                await rest_of(stream)
        assert log == [(4, "saved")]
        assert scope.cancelled_caught
        assert stream.outcome.kind == "completed"

    async def test_two_in_a_chain(self) -> None:
        """S7: each runs, the innermost first, with the same outcome."""
        calls: list[tuple[str, Outcome]] = []

        async def inner(outcome: Outcome) -> None:
            calls.append(("inner", outcome))

        async def outer(outcome: Outcome) -> None:
            calls.append(("outer", outcome))

        async with with_status(with_status(slowly("a"), on_end=inner), on_end=outer) as stream:
            await rest_of(stream)
        assert calls == [("inner", stream.outcome), ("outer", stream.outcome)]


class TestOrderOfTheEnd:
    @pytest.mark.parametrize("chain", [c for c in ORDERS if c[-1] == "status"], ids="+".join)
    async def test_order(self, chain: Chain) -> None:
        """S8: source closed, on_end, final items, end; the outcome is there before the items."""
        log = Log()
        stream: Any = None

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "item"
            finally:
                await anyio.sleep(1)
                log("source closed")

        async def on_end(outcome: Outcome) -> None:
            assert stream.outcome is outcome
            await anyio.sleep(1)
            log("on_end")

        def final(outcome: Outcome) -> list[str]:
            assert stream.outcome is outcome
            log("final")
            return ["last", "very last"]

        stream = wrap(source(), chain, on_end=on_end, final=final)
        async with stream:
            async for item in stream:
                log((item, stream.ended and stream.outcome.kind))
            log("end")
        assert log.events == [
            ("item", False),
            "source closed",
            "on_end",
            "final",
            ("last", "completed"),
            ("very last", "completed"),
            "end",
        ]

    async def test_two_in_a_chain(self) -> None:
        """S8: every on_end comes before every last item; the innermost speaks first."""
        log = Log()

        def both(name: str) -> dict[str, Any]:
            async def on_end(outcome: Outcome) -> None:
                log(f"on_end {name}")

            return {"on_end": on_end, "final": lambda outcome: f"final {name}"}

        async with with_status(
            with_status(slowly("item"), **both("inner")), **both("outer")
        ) as stream:
            async for item in stream:
                log(item)
        assert log.events == ["item", "on_end inner", "on_end outer", "final inner", "final outer"]

    async def test_final_waits_for_the_consumer(self) -> None:
        """S8: each last item is handed over on demand, and a slow consumer loses none."""
        async with with_status(aiter_of("a"), final=lambda outcome: ["b", "c"]) as stream:
            got = []
            async for item in stream:
                got.append(item)
                await anyio.sleep(100)
        assert got == ["a", "b", "c"]
        assert stream.outcome.items == 1

    @pytest.mark.parametrize("taken", [1, 2])
    async def test_consumer_leaves_among_the_last_items(self, taken: int) -> None:
        """S8: the consumer leaves before it has all of them: no hang, and the outcome stays."""
        async with with_status(aiter_of("a"), final=lambda outcome: ["b", "c"]) as stream:
            for _ in range(taken):
                await anext(stream)
        assert stream.outcome.kind == ("closed" if taken == 1 else "completed")

    async def test_endless_last_items(self) -> None:
        """S8: final returns an endless iterator: it is asked no further than the consumer."""
        numbers = itertools.count()
        async with with_status(aiter_of("a"), final=lambda outcome: numbers) as stream:
            assert [await anext(stream) for _ in range(4)] == ["a", 0, 1, 2]
        assert next(numbers) <= 5


class TestFinal:
    @pytest.mark.parametrize("kind", ["completed", "failed", "cancelled"])
    @pytest.mark.parametrize("speaks", [True, False], ids=["item", "None"])
    async def test_per_kind(self, kind: str, speaks: bool) -> None:
        """S8: what final returns comes in place of what is raised; on None, that is raised."""
        error = LookupError("source") if kind == "failed" else None
        raised = {"completed": None, "failed": LookupError, "cancelled": StreamCancelled}[kind]
        token = CancelToken()
        probe = Probe("a", error=error, block=kind == "cancelled")

        def final(outcome: Outcome) -> str | None:
            return f"[{outcome.kind}: {outcome.error or outcome.reason}]" if speaks else None

        stream = with_status(with_cancellation(probe.source(), token), final=final)
        async with stream:
            assert await anext(stream) == "a"
            if kind == "cancelled":
                token.cancel("stop")
            if speaks:
                what = {"completed": None, "failed": "source", "cancelled": "stop"}[kind]
                assert await rest_of(stream) == [f"[{kind}: {what}]"]
            elif raised is not None:
                with pytest.raises(raised) as caught:
                    await anext(stream)
                assert kind == "cancelled" or caught.value is error
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert stream.outcome.kind == kind
        assert stream.outcome.error is error
        assert stream.outcome.items == 1
        assert probe.closed == 1

    @pytest.mark.parametrize("way", [way for way, (_, _, kind) in ENDS.items() if kind == "closed"])
    async def test_nobody_is_there(self, way: str) -> None:
        """S8: the consumer has left: there is nobody to say anything to, so final is not called."""

        def final(outcome: Outcome) -> None:
            raise AssertionError("must not be called")

        stream = with_status(Probe(1, 2, every=1).source(), final=final)
        await ENDS[way][0](Ending(stream, CancelToken()))
        assert stream.outcome.kind == "closed"

    @pytest.mark.parametrize(
        ("returned", "received"),
        [
            ("data: [DONE]", ["data: [DONE]"]),
            (["a", "b"], ["a", "b"]),
            (("a", None), ["a", None]),
            ([], []),
            (0, [0]),
            ("", [""]),
            (b"ab", [b"ab"]),
            ({"done": True}, [{"done": True}]),
        ],
        ids=repr,
    )
    async def test_what_it_returns(self, returned: Any, received: list[object]) -> None:
        """S8: a list, a tuple or an iterator is several items, anything else but None is one."""
        source = slowly(error=LookupError("replaced"))
        async with with_status(source, final=lambda outcome: returned) as stream:
            assert await rest_of(stream) == received
        assert stream.outcome.kind == "failed"

    async def test_generator(self) -> None:
        """S8: a generator is an iterator of items; its code runs after on_end."""

        def final(outcome: Outcome) -> Any:
            yield f"items: {outcome.items}"
            yield "data: [DONE]"

        async with with_status(aiter_of("a"), final=final) as stream:
            assert await rest_of(stream) == ["a", "items: 1", "data: [DONE]"]

    async def test_passes_the_outer_stages(self) -> None:
        """S8: last items pass the stages further out, like any item."""

        class Upper(Stage[str, str]):
            def on_item(self, item: str) -> str:
                return item.upper()

        inner = with_status(aiter_of("a"), final=lambda outcome: "b")
        async with with_status(with_stage(inner, Upper()), final=lambda outcome: "c") as stream:
            assert await rest_of(stream) == ["A", "B", "c"]


async def fails(outcome: Outcome) -> Any:
    """An on_end that fails."""
    raise KeyError("on_end")


def final_fails(outcome: Outcome) -> Any:
    raise KeyError("final")


class TestTheLastWordFails:
    @pytest.mark.parametrize(
        ("hooks", "message"),
        [({"on_end": fails}, "on_end"), ({"final": final_fails}, "final")],
        ids=["on_end", "final"],
    )
    @pytest.mark.parametrize("chain", [c for c in ORDERS if c[-1] == "status"], ids="+".join)
    async def test_after_the_end(self, chain: Chain, hooks: dict[str, Any], message: str) -> None:
        """E12: what on_end or final raises surfaces after the items, once; the source is closed."""
        probe = Probe("a")
        async with wrap(probe.source(), chain, **hooks) as stream:
            assert await anext(stream) == "a"
            with pytest.raises(KeyError, match=message):
                await anext(stream)
            assert probe.closed == 1
            assert await rest_of(stream) == []
        assert stream.outcome.kind == "completed"

    @pytest.mark.parametrize(
        ("hooks", "message"),
        [({"on_end": fails}, "on_end"), ({"final": final_fails}, "final")],
        ids=["on_end", "final"],
    )
    async def test_after_an_error(self, hooks: dict[str, Any], message: str) -> None:
        """E12: the source has failed, too: a group of both, so that neither is lost."""
        error = LookupError("source")
        probe = Probe("a", error=error)
        async with with_status(probe.source(), **hooks) as stream:
            with pytest.raises(BaseExceptionGroup) as caught:
                await rest_of(stream)
            assert caught.value.exceptions[0] is error
            assert isinstance(caught.value.exceptions[1], KeyError)
            assert caught.value.exceptions[1].args == (message,)
            assert len(caught.value.exceptions) == 2
        assert probe.closed == 1
        assert stream.outcome.error is error

    @pytest.mark.parametrize("leaves", [False, True])
    async def test_after_an_error_and_a_last_item(self, leaves: bool) -> None:
        """E12: what final says was to take the place of the error, and it has not said it all."""
        error = LookupError("source")

        def final(outcome: Outcome) -> Iterator[str]:
            yield "last"
            raise KeyError("final")

        with pytest.raises(ExceptionGroup) as caught:
            async with with_status(Probe("a", error=error).source(), final=final) as stream:
                assert await anext(stream) == "a"
                assert await anext(stream) == "last"
                if not leaves:
                    await anext(stream)
        assert caught.value.exceptions[0] is error
        assert isinstance(caught.value.exceptions[1], KeyError)

    @pytest.mark.parametrize(
        ("error", "kind"), [(None, "failed"), (StreamCancelled("stop"), "cancelled")], ids=str
    )
    async def test_final_is_told(self, error: BaseException | None, kind: str) -> None:
        """E12: on_end has failed: final sees no success, its items come, and then the error."""
        told: list[Outcome] = []

        def final(outcome: Outcome) -> str:
            told.append(outcome)
            return f"[{outcome.kind}]"

        source = Probe("a", error=error).source()
        async with with_status(source, on_end=fails, final=final) as stream:
            assert [await anext(stream), await anext(stream)] == ["a", f"[{kind}]"]
            with pytest.raises(KeyError, match="on_end") as caught:
                await anext(stream)
            assert await rest_of(stream) == []
        assert told[0].on_end_error is caught.value
        outcome = stream.outcome
        assert outcome.kind == ("completed" if error is None else "cancelled")
        assert outcome.on_end_error is None

    async def test_both_fail_in_a_chain(self) -> None:
        """E12: every on_end of a chain runs, though an inner one has failed, and is told so."""
        calls: list[Outcome] = []

        async def on_end(outcome: Outcome) -> None:
            calls.append(outcome)

        async with with_status(with_status(aiter_of(), on_end=fails), on_end=on_end) as stream:
            with pytest.raises(KeyError, match="on_end") as caught:
                await rest_of(stream)
        assert stream.outcome.kind == "completed"
        assert calls == [replace(stream.outcome, kind="failed", on_end_error=caught.value)]

    @pytest.mark.asyncio_only
    async def test_cancelled_in_a_chain(self) -> None:
        """E12: an inner on_end was cancelled natively: that is no failure, to the outer ones."""
        calls: list[Outcome] = []

        async def cancelled(outcome: Outcome) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await anyio.sleep(1)

        async def on_end(outcome: Outcome) -> None:
            calls.append(outcome)

        async with with_status(with_status(aiter_of(), on_end=cancelled), on_end=on_end) as stream:
            assert await rest_of(stream) == []
        assert calls == [stream.outcome]

    async def test_consumer_has_left(self) -> None:
        """E12: the consumer has left: what on_end raises surfaces where the block ends."""
        probe = Probe("a", block=True)
        with pytest.raises(KeyError, match="on_end"):
            async with with_status(probe.source(), on_end=fails) as stream:
                await anext(stream)
        assert probe.closed == 1
        assert stream.outcome.kind == "closed"

    async def test_body_has_failed(self) -> None:
        """E12: the body has failed, too: a group of both where the block ends."""
        body = LookupError("body")
        with pytest.raises(BaseExceptionGroup) as caught:
            async with with_status(silent(), on_end=fails):
                raise body
        assert caught.value.exceptions[0] is body
        assert isinstance(caught.value.exceptions[1], KeyError)

    async def test_aclose(self) -> None:
        """E12: aclose() raises what on_end raised, and the end of the block does not."""
        async with with_status(silent(), on_end=fails) as stream:
            with pytest.raises(KeyError, match="on_end"):
                await stream.aclose()

    async def test_iterator_fails(self) -> None:
        """E12: an iterator of last items that fails: those before it, then the error."""

        def final(outcome: Outcome) -> Any:
            yield "last"
            raise KeyError("final")

        async with with_status(aiter_of("a"), final=final) as stream:
            assert [await anext(stream), await anext(stream)] == ["a", "last"]
            with pytest.raises(KeyError, match="final"):
                await anext(stream)

    async def test_timeout(self) -> None:
        """E12: on_end that takes too long is cancelled, and a TimeoutError says so."""
        log = Log()
        probe = Probe("a")

        async def on_end(outcome: Outcome) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                log("on_end was cancelled")

        log.start()
        async with with_status(probe.source(), on_end=on_end, on_end_timeout=3) as stream:
            assert await anext(stream) == "a"
            with pytest.raises(TimeoutError, match="on_end took longer than 3 seconds"):
                await anext(stream)
        assert log == [(3, "on_end was cancelled")]
        assert probe.closed == 1
        assert stream.outcome.kind == "completed"

    async def test_timeout_by_default(self) -> None:
        """E12: on_end has five seconds where nothing else is said."""

        async def on_end(outcome: Outcome) -> None:
            await anyio.sleep_forever()

        before = anyio.current_time()
        with pytest.raises(TimeoutError, match=r"on_end took longer than 5\.0 seconds"):
            async with with_status(silent(), on_end=on_end):
                pass
        assert anyio.current_time() == before + 5


class TestArguments:
    @pytest.mark.parametrize("name", ["final", "on_end"])
    def test_not_callable(self, name: str) -> None:
        """S8: a last word that cannot be called is a TypeError that says what to write."""
        hooks: dict[str, Any] = {name: "data: [DONE]"}
        with pytest.raises(TypeError, match=rf"{name} must be callable, got str: write {name}="):
            with_status(aiter_of(1), **hooks)

    @pytest.mark.parametrize("name", ["first_item_within", "on_end_timeout"])
    @pytest.mark.parametrize(
        ("value", "error"),
        [(-1, ValueError), (math.nan, ValueError), (math.inf, ValueError), (True, TypeError)],
    )
    def test_times(self, name: str, value: float, error: type[Exception]) -> None:
        """S5: a time must be a finite number of seconds, and not negative."""
        times: dict[str, Any] = {name: value}
        with pytest.raises(error, match=rf"{name} must be a finite number.*write {name}="):
            with_status(aiter_of(1), **times)

    async def test_no_time(self) -> None:
        """S5: no time at all: 200 at once, and the item is not lost."""
        async with with_status(slowly("a"), first_item_within=0) as stream:
            before = anyio.current_time()
            assert (await stream.head()).decided_by == "timeout"
            assert anyio.current_time() == before
            assert await rest_of(stream) == ["a"]

    def test_head(self) -> None:
        """S1: a Head is a frozen value; 200 without headers if nothing else is said."""
        assert Head() == Head(200, {}, decided_by="head")
        with pytest.raises(AttributeError):
            HEAD.status = 200  # type: ignore[misc]
