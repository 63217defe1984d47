"""What is written wrongly raises early, says what to write, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio

from chains import ALONE, ORDERS, Chain, wrap
from streamkit import (
    CancelToken,
    Control,
    Idle,
    Outcome,
    Stage,
    Stream,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_stage,
    with_status,
)
from streamkit.sse import EventStream
from support import Backend, Client, Log, Probe, aiter_of, live_tasks, wait_all_blocked

Combinator = Callable[[Any], Stream[Any]]

COMBINATORS: dict[str, Combinator] = {
    "cancellation": lambda source: with_cancellation(source, CancelToken()),
    "keepalive": lambda source: with_keepalive(source, 15, "beat"),
    "status": with_status,
    "stage": lambda source: with_stage(source, Stage[Any, Any]()),
}
each_combinator = pytest.mark.parametrize(
    "combinator", COMBINATORS.values(), ids=COMBINATORS.keys()
)
each_chain = pytest.mark.parametrize("chain", [*ALONE, ORDERS[0]], ids="+".join)


# What is no source


def sync_generator() -> Iterator[int]:
    raise AssertionError("must not be iterated")
    yield 1


async def async_generator() -> AsyncGenerator[int, None]:
    raise AssertionError("must not be iterated")
    yield 1


async def coroutine_function() -> AsyncIterator[int]:
    raise AssertionError("must not be awaited")


@asynccontextmanager
async def manager_function() -> AsyncIterator[AsyncIterator[int]]:
    raise AssertionError("must not be entered")
    yield async_generator()


def plain_function() -> AsyncIterator[int]:
    raise AssertionError("must not be called")


class NoSource:
    pass


NO_SOURCES: dict[str, tuple[object, str, str]] = {
    "list": ([1, 2], "list", "sync iterable: write from_thread(...) around it"),
    "str": ("text", "str", "sync iterable: write from_thread(...) around it"),
    "sync generator": (sync_generator(), "generator", "write from_thread(...) around it"),
    "sync generator function": (sync_generator, "function", "write from_thread(sync_generator)"),
    "async generator function": (async_generator, "function", "call .* async_generator(...)"),
    "coroutine function": (coroutine_function, "function", "call it"),
    "context manager function": (manager_function, "function", "call it"),
    "function": (plain_function, "function", "call it"),
    "class": (NoSource, "type", "call it"),
    "None": (None, "NoneType", "pass an async generator"),
    "object": (NoSource(), "NoSource", "pass an async generator"),
    "token": (CancelToken(), "CancelToken", "pass an async generator"),
}


def is_closed(source: Any) -> bool:
    """Tell whether an async generator has ended; typing knows no ``ag_frame``."""
    return source.ag_frame is None


@each_combinator
@pytest.mark.parametrize("name", NO_SOURCES)
def test_no_source(combinator: Combinator, name: str) -> None:
    """Misuse: what is no source is a TypeError that names what came and what to write instead."""
    given, kind, advice = NO_SOURCES[name]
    with pytest.raises(TypeError, match="expected an async iterable") as caught:
        combinator(given)
    assert re.search(rf"\bgot {kind}\b", str(caught.value))
    assert all(part in str(caught.value) for part in advice.split(".*"))


@each_combinator
def test_coroutine(combinator: Combinator) -> None:
    """Misuse: a coroutine is a TypeError, and nobody complains that it was never awaited."""
    with pytest.raises(TypeError, match=r"got coroutine: await it and pass what it returns"):
        combinator(coroutine_function())


@each_combinator
async def test_context_manager_without_a_source(combinator: Combinator) -> None:
    """Misuse: a context manager that yields no async iterable is left; the consumer is told."""
    log = Log()

    @asynccontextmanager
    async def manager() -> AsyncIterator[list[int]]:
        log("entered")
        try:
            yield [1, 2]
        finally:
            log("left")

    async with combinator(manager()) as stream:
        with pytest.raises(TypeError, match=r"got list, .* write from_thread\(\.\.\.\) around it"):
            await anext(stream)
        assert log.events == ["entered", "left"]


# Arguments


NO_SECONDS = [None, True, "5", 1j, [5]]
NEVER_SECONDS = [float("nan"), float("inf"), float("-inf"), -1, -0.5]

SECONDS: dict[str, Callable[[Any, Any], Stream[Any]]] = {
    "interval": lambda source, value: with_keepalive(source, value, "beat"),
    "grace": lambda source, value: with_cancellation(source, CancelToken(), grace=value),
    "first_item_within": lambda source, value: with_status(source, first_item_within=value),
    "on_end_timeout": lambda source, value: with_status(source, on_end_timeout=value),
}


async def check_argument(
    make: Callable[[Any], Stream[Any]], error: type[Exception], match: str
) -> None:
    """Check that ``make`` raises, and that the stream which it was given can still be used."""
    probe = Probe(1, 2)
    inner = with_status(probe.source())
    with pytest.raises(error, match=match):
        make(inner)
    assert not probe.started
    async with inner:
        assert [item async for item in inner] == [1, 2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in SECONDS
        for value in NO_SECONDS
        if not (name == "first_item_within" and value is None)  # its default
    ],
)
async def test_seconds_of_another_type(name: str, value: object) -> None:
    """Misuse: a time that is no number is a TypeError: it names the argument and what to write."""
    match = re.escape(f"{name} must be a finite number of seconds") + ".*" + re.escape(repr(value))
    await check_argument(lambda inner: SECONDS[name](inner, value), TypeError, match)
    await check_argument(lambda inner: SECONDS[name](inner, value), TypeError, f"write {name}=")


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000], ids=["400", "-400", "5000"])
async def test_seconds_too_large(name: str, value: int) -> None:
    """Misuse: an int that no float can hold is a ValueError as well: it is no time."""
    match = f"{name} must be .*, got an int that is too large for a float; write {name}=5.0"
    await check_argument(lambda inner: SECONDS[name](inner, value), ValueError, match)


async def test_buffer_that_is_too_large() -> None:
    """B3: a size that no float can hold is as good as infinite, also beside one that is."""
    async with with_buffer(with_buffer(aiter_of(1, 2), math.inf), 10**400) as stream:
        assert [item async for item in stream] == [1, 2]


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", NEVER_SECONDS, ids=repr)
async def test_seconds_out_of_range(name: str, value: float) -> None:
    """Misuse: a time that is not finite, or negative, is a ValueError."""
    match = re.escape(f"{name} must be a finite number of seconds") + f".*{value!r}.*write {name}="
    await check_argument(lambda inner: SECONDS[name](inner, value), ValueError, match)


async def test_interval_of_zero() -> None:
    """Misuse: an interval of zero is a ValueError; a grace or a limit of zero is allowed."""
    await check_argument(
        lambda inner: with_keepalive(inner, 0, "beat"), ValueError, "interval must be .* > 0"
    )
    for name in ("grace", "first_item_within", "on_end_timeout"):
        async with SECONDS[name](aiter_of(1), 0) as stream:
            assert [item async for item in stream] == [1]


@pytest.mark.parametrize("value", ["data: [DONE]", 5, [1], b""], ids=repr)
@pytest.mark.parametrize("name", ["final", "on_end"])
async def test_hook_that_is_not_callable(name: str, value: object) -> None:
    """Misuse: `final` or `on_end` that is not callable is a TypeError, also if it is falsy."""
    hooks: dict[str, Any] = {name: value}
    match = f"{name} must be callable, got {type(value).__name__}: write {name}="
    await check_argument(lambda inner: with_status(inner, **hooks), TypeError, match)


# Signals


@pytest.mark.parametrize(
    ("signal", "name"),
    [
        ("stop", "str"),
        (None, "NoneType"),
        (CancelToken, "type"),
        (anyio.Event, "type"),
        (object(), "object"),
        (lambda: CancelToken(), "function"),
        (True, "bool"),
        (5.0, "float"),
    ],
    ids=["str", "None", "class", "Event", "object", "function", "bool", "grace"],
)
async def test_signal_that_is_no_token(signal: Any, name: str) -> None:
    """Misuse: a signal that is neither a token nor a context manager is a TypeError."""
    await check_argument(
        lambda inner: with_cancellation(inner, CancelToken(), signal),
        TypeError,
        rf"got {name}: write with_cancellation\(source, token",
    )


def make_signal(kind: str, log: Log, yields: object) -> Any:
    """Make a context manager that logs how it is used, and yields something or raises it."""

    @contextmanager
    def sync_signal() -> Iterator[object]:
        log("entered")
        if isinstance(yields, Exception):
            raise yields
        try:
            yield yields
        finally:
            log("left")

    @asynccontextmanager
    async def async_signal() -> AsyncIterator[object]:
        with sync_signal() as token:
            yield token

    return sync_signal() if kind == "sync" else async_signal()


each_kind_of_signal = pytest.mark.parametrize("kind", ["sync", "async"])


@each_kind_of_signal
@pytest.mark.parametrize("value", [None, "stop", CancelToken])
async def test_signal_that_yields_no_token(kind: str, value: object) -> None:
    """Misuse: a context manager that yields no token is left; the source never runs."""
    before = live_tasks()
    log = Log()
    probe = Probe(1)
    source = probe.source()
    stream = with_cancellation(source, CancelToken(), make_signal(kind, log, value))
    name = type(value).__name__
    with pytest.raises(TypeError, match=f"yielded {name}: a signal is a CancelToken, or"):
        async with stream:
            raise AssertionError("must not be entered")
    assert log.events == ["entered", "left"]
    assert not probe.started
    assert is_closed(source)
    assert live_tasks() == before
    with pytest.raises(anyio.ClosedResourceError):
        await anext(stream)


@each_kind_of_signal
async def test_signal_that_raises(kind: str) -> None:
    """Misuse: a signal that cannot be entered: its error, bare; those before it are left."""
    log = Log()
    error = ConnectionError("no registry")
    source = Probe(1).source()
    stream = with_cancellation(
        source, make_signal("async", log, CancelToken()), make_signal(kind, log, error)
    )
    with pytest.raises(ConnectionError) as caught:
        async with stream:
            raise AssertionError("must not be entered")
    assert caught.value is error
    assert log.events == ["entered", "entered", "left"]
    assert is_closed(source)


# Beats


async def test_beat_that_raises() -> None:
    """Misuse: the factory of a beat raises: the stream ends with that error, the source closed."""
    error = ValueError("no beat")
    probe = Probe(1, block=True)
    before = live_tasks()

    def beat(idle: Idle[int]) -> str:
        raise error

    async with with_keepalive(probe.source(), 1.0, beat) as stream:
        assert await anext(stream) == 1
        with pytest.raises(ValueError, match="no beat") as caught:
            await anext(stream)
        assert caught.value is error
        assert probe.closed == 1
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert live_tasks() == before
    assert (stream.outcome.kind, stream.outcome.error) == ("failed", error)


async def test_initial_beat_that_raises() -> None:
    """Misuse: the factory of the initial beat raises: the source is closed."""
    error = ValueError("no beat")
    probe = Probe(1)
    source = probe.source()

    def beat(idle: Idle[int]) -> str:
        raise error

    stream = with_keepalive(source, 1.0, beat, initial=True)
    with pytest.raises(ValueError, match="no beat") as caught:
        async with stream:
            raise AssertionError("must not be entered")
    assert caught.value is error
    assert not probe.started
    assert is_closed(source)


async def async_beat(idle: Idle[int]) -> str:
    raise AssertionError("must not be called")


async def async_items(idle: object) -> AsyncGenerator[str, None]:
    raise AssertionError("must not be called")
    yield "item"


class AsyncCall:
    async def __call__(self, of: object) -> str:
        raise AssertionError("must not be called")


ASYNC: dict[str, Any] = {
    "function": async_beat,
    "generator": async_items,
    "object": AsyncCall(),
    "partial": partial(async_beat),
    "method": AsyncCall().__call__,
}
each_async = pytest.mark.parametrize("function", ASYNC.values(), ids=ASYNC.keys())


@each_async
async def test_beat_that_is_async(function: Any) -> None:
    """Misuse: an async beat is a TypeError where it is written: nobody would await it."""
    await check_argument(
        lambda inner: with_keepalive(inner, 1.0, function),
        TypeError,
        r"^beat must not be async: write 'def' in place of 'async def'",
    )


async def test_beat_that_is_a_coroutine() -> None:
    """Misuse: the coroutine of an async function is no item: a TypeError, and it is closed."""
    await check_argument(
        lambda inner: with_keepalive(inner, 1.0, coroutine_function()),
        TypeError,
        "^beat must not be async",
    )


@pytest.mark.parametrize(
    "function", [lambda idle: async_beat(idle), lambda idle: async_items(idle)]
)
async def test_beat_that_returns_a_coroutine(function: Callable[[Any], Any]) -> None:
    """Misuse: a lambda around an async beat is told where the first beat is due."""
    async with with_keepalive(Probe(1, block=True).source(), 1.0, function) as stream:
        assert await anext(stream) == 1
        with pytest.raises(TypeError, match=r"^beat must not be async"):
            await anext(stream)


class Seldom:
    """The class of a beat, called with an Idle, whose objects are called with something else."""

    def __init__(self, idle: Idle[int]) -> None:
        self.count = idle.count

    async def __call__(self) -> None:
        raise AssertionError("must not be called")


async def test_beat_that_is_a_class() -> None:
    """K10: a class is no async beat, whatever its objects are."""
    async with with_keepalive(Probe(1, every=1.5).source(), 1.0, Seldom) as stream:
        beat = await anext(stream)
        assert isinstance(beat, Seldom)
        assert beat.count == 1


@each_async
async def test_final_that_is_async(function: Any) -> None:
    """Misuse: an async `final` is a TypeError where it is written."""
    await check_argument(
        lambda inner: with_status(inner, final=function),
        TypeError,
        r"^final must not be async: .*, or in on_end$",
    )
    with pytest.raises(TypeError, match=r"^final must not be async"):
        EventStream(aiter_of("a"), final=function)


async def test_final_that_returns_a_coroutine() -> None:
    """Misuse: a lambda around an async `final` is told at the end, with the source closed."""
    probe = Probe(1)
    final: Any = lambda outcome: async_beat(outcome)  # noqa: E731
    async with with_status(probe.source(), final=final) as stream:
        assert await anext(stream) == 1
        with pytest.raises(TypeError, match=r"^final must not be async"):
            await anext(stream)
    assert probe.closed == 1
    with pytest.raises(TypeError, match=r"^final must not be async"):
        await Client().get(EventStream(aiter_of("a"), final=final))


@pytest.mark.parametrize(
    "hook", ["on_open", "on_close", "on_item", "on_metadata", "on_beat", "final"]
)
def test_hook_that_is_async(hook: str) -> None:
    """Misuse: an async hook that nobody awaits is a TypeError where its class is written."""

    async def function(self: object, of: object = None) -> None:
        raise AssertionError("must not be called")

    with pytest.raises(TypeError, match=rf"^Mine\.{hook} must not be async: write 'def' in place"):
        type("Mine", (Stage,), {hook: function})


def test_lifespan_without_a_decorator() -> None:
    """Misuse: a `lifespan` that is an async generator is a TypeError that says what is missing."""
    with pytest.raises(TypeError, match=r"lifespan must return .* write '@asynccontextmanager'"):

        class Mine(Stage[int, int]):
            async def lifespan(self, control: Control) -> AsyncIterator[None]:  # type: ignore[override,misc]
                yield


async def test_hooks_that_return_a_coroutine() -> None:
    """Misuse: what a hook returns of an async function is an error, and no beat or item."""

    class Mine(Stage[Any, Any]):
        def on_beat(self, beat: Any) -> Any:
            return async_beat(beat)

    class Last(Stage[Any, Any]):
        def final(self, outcome: Outcome) -> Any:
            return async_items(outcome)

    source = with_keepalive(Probe[int](block=True).source(), 1, "beat")
    async with with_stage(source, Mine()) as stream:
        with pytest.raises(TypeError, match=r"Mine\.on_beat must not be async"):
            await anext(stream)
    async with with_stage(aiter_of(1), Last()) as stream:
        assert await anext(stream) == 1
        with pytest.raises(TypeError, match=r"Last\.final must not be async"):
            await anext(stream)


async def test_timer_of_an_async_function() -> None:
    """Misuse: a timer of an async function ends the stream with an error."""

    async def function() -> None:
        raise AssertionError("must not be called")

    class Mine(Stage[int, int]):
        def on_open(self, control: Control) -> None:
            control.timer(function).set(control.now() + 1)

    async with with_stage(Probe[int](block=True).source(), Mine()) as stream:
        with pytest.raises(TypeError, match=r"^the function of a timer must not be async"):
            await anext(stream)


async def test_beat_that_takes_nothing() -> None:
    """Misuse: the factory of a beat takes no argument: its TypeError ends the stream."""

    def beat() -> str:
        raise AssertionError("must not be called")

    factory: Any = beat
    async with with_keepalive(Probe[int](block=True).source(), 1.0, factory) as stream:
        with pytest.raises(TypeError, match="takes 0 positional arguments but 1 was given"):
            await anext(stream)


async def test_on_end_that_is_not_async() -> None:
    """Misuse: `on_end` is a sync function: a TypeError at the end, with the source closed."""
    probe = Probe(1)
    log: list[str] = []

    def on_end(outcome: Outcome) -> None:
        log.append(outcome.kind)

    function: Any = on_end
    async with with_status(probe.source(), on_end=function) as stream:
        assert await anext(stream) == 1
        with pytest.raises(TypeError, match="NoneType: write 'async def on_end"):
            await anext(stream)
    assert log == ["completed"]
    assert probe.closed == 1


# The life of a stream


@each_chain
async def test_entered_twice(chain: Chain) -> None:
    """Misuse: a stream is entered a second time, while it is open: the first block goes on."""
    async with wrap(Probe(1, 2).source(), chain) as stream:
        assert await anext(stream) == 1
        with pytest.raises(RuntimeError, match="is used once: wrap a new source in a new stream"):
            async with stream:
                raise AssertionError("must not be entered")
        assert await anext(stream) == 2


@each_chain
async def test_entered_again(chain: Chain) -> None:
    """Misuse: a stream is entered again after its block, or after aclose()."""
    left, closed = wrap(aiter_of(1), chain), wrap(aiter_of(1), chain)
    async with left:
        pass
    await closed.aclose()
    for stream in (left, closed):
        with pytest.raises(RuntimeError, match="is used once"):
            async with stream:
                raise AssertionError("must not be entered")


@each_chain
async def test_iterated_before_and_after(chain: Chain) -> None:
    """Misuse: iterated before the block, and after it: two clear errors, and the block works."""
    stream = wrap(Probe(1, 2).source(), chain)
    with pytest.raises(RuntimeError, match="was not entered: write 'async with stream:'"):
        async for _ in stream:
            raise AssertionError("must not be iterated")
    async with stream:
        assert await anext(stream) == 1
    with pytest.raises(anyio.ClosedResourceError, match="its block was left"):
        async for _ in stream:
            raise AssertionError("must not be iterated")


@each_chain
@each_combinator
async def test_wrapped_twice(combinator: Combinator, chain: Chain) -> None:
    """Misuse: a stream is wrapped a second time: the first wrapper still works."""
    inner = wrap(Probe(1, 2).source(), chain)
    outer = combinator(inner)
    with pytest.raises(RuntimeError, match=r"belongs to .*: use that one"):
        combinator(inner)
    async with outer:
        assert [item async for item in outer] == [1, 2]


@each_chain
@each_combinator
async def test_wrapped_after_it_was_entered(combinator: Combinator, chain: Chain) -> None:
    """Misuse: a stream is wrapped while it is open, or when it was left: the block works."""
    stream = wrap(Probe(1, 2).source(), chain)
    async with stream:
        with pytest.raises(RuntimeError, match=r"before it was wrapped: wrap it first, and enter"):
            combinator(stream)
        assert [item async for item in stream] == [1, 2]
    with pytest.raises(RuntimeError, match="is used once"):
        combinator(stream)


@each_combinator
async def test_inner_stream_is_used(combinator: Combinator) -> None:
    """Misuse: a stream that another one owns is entered or iterated: it says which to use."""
    inner = with_status(Probe(1, 2).source())
    outer = combinator(inner)
    with pytest.raises(RuntimeError, match=r"belongs to <.*>: use that one"):
        async with inner:
            raise AssertionError("must not be entered")
    async with outer:
        for ask in (inner.__anext__, inner.head):
            with pytest.raises(RuntimeError, match=r"belongs to <.*>: iterate that one"):
                await ask()
        assert [item async for item in outer] == [1, 2]


@each_chain
async def test_two_consumers(chain: Chain) -> None:
    """Misuse: two tasks iterate one stream: one of them is told so, the other gets all items."""
    items: list[int] = []
    refused: list[str] = []

    async def consume() -> None:
        try:
            async for item in stream:
                items.append(item)
        except anyio.BusyResourceError as exc:
            refused.append(str(exc))

    stream = wrap(Probe(1, 2, 3, every=1.0).source(), chain)
    async with stream:
        async with anyio.create_task_group() as group:
            group.start_soon(consume)
            await wait_all_blocked()
            group.start_soon(consume)
    assert items == [1, 2, 3]
    assert len(refused) == 1
    assert "waiting for the next item" in refused[0]
    assert refused[0].endswith("through anyio.create_memory_object_stream() for instance")


@pytest.mark.parametrize("stream_of", [with_cancellation, with_status])
async def test_head_of_a_chain(stream_of: Combinator) -> None:
    """Misuse: head() of a chain whose with_status is not the outermost: where it is to be."""
    stream: Any = with_keepalive(stream_of(aiter_of(1)), 15, "beat")
    with pytest.raises(
        AttributeError, match=r"^'Stream' .* write with_status\(stream\), and"
    ) as raised:
        stream.head()
    assert (raised.value.name, raised.value.obj) == ("head", stream)
    assert not hasattr(stream, "head")
    with pytest.raises(AttributeError, match=r"^'Stream' object has no attribute 'heads'$"):
        _ = stream.heads
    async with with_status(stream) as outer:
        assert (await outer.head()).decided_by == "item"


def test_attribute_of_what_was_never_made() -> None:
    """Misuse: a stream whose __init__ has failed has no attributes, and no recursion for them."""
    with pytest.raises(AttributeError, match=r"^'Stream' object has no attribute '_source'$"):
        repr(Stream.__new__(Stream))


# Another event loop


def test_in_a_run_of_trio_inside_the_task() -> None:
    """Misuse: a stream of asyncio is used by a run of trio that its own task has started."""

    async def main() -> None:
        async with with_status(aiter_of(1, 2)) as stream:
            for way in (stream.receive, stream.aclose, partial(stream.__aexit__, None, None, None)):
                with pytest.raises(RuntimeError, match="another event loop or thread: iterate and"):
                    trio.run(way)
            assert [item async for item in stream] == [1, 2]

    asyncio.run(main())


@pytest.mark.real_time
async def test_in_another_loop(backend: Backend) -> None:
    """Misuse: a stream is asked, ended or left in the event loop of another thread."""

    def run(function: Callable[[], Awaitable[object]]) -> object:
        async def main() -> object:
            try:
                return await function()
            except RuntimeError as exc:
                return str(exc)

        return anyio.run(main, backend="trio" if backend.name == "trio" else "asyncio")

    probe = Probe(1, 2)
    async with with_status(probe.source()) as stream:
        ways: list[Callable[[], Awaitable[object]]] = [
            stream.__anext__,
            stream.receive,
            stream.head,
            stream.aclose,
            partial(stream.__aexit__, None, None, None),
        ]
        for way in ways:
            said = await anyio.to_thread.run_sync(run, way)
            assert "another event loop or thread: iterate and leave it there; from a" in str(said)
        assert not probe.started
        # What the error says to write.
        assert await anyio.to_thread.run_sync(anyio.from_thread.run, stream.receive) == 1
        assert [item async for item in stream] == [2]
    assert stream.outcome.kind == "completed"
