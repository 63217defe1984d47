"""Signals of the process: heard by all who want them, and given back."""

from __future__ import annotations

import signal
import sys
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from observing import blocked, kind
from streamkit import CancelToken, StreamCancelled, on_signals, with_cancellation
from streamkit._signals.on_signals import _receivers
from support import Log

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from support import Backend

if sys.platform == "win32":
    pytest.skip("Windows sends no such signals", allow_module_level=True)

pytestmark = pytest.mark.real_time

USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture(autouse=True)
def found() -> Iterator[list[int]]:
    """Have handlers of our own, which must be there again at the end. Returns what they heard."""
    heard: list[int] = []

    def handler(number: int, frame: object) -> None:
        heard.append(number)

    before = {number: signal.signal(number, handler) for number in (USR1, USR2)}
    yield heard
    assert [signal.getsignal(number) for number in before] == [handler, handler]
    assert not _receivers
    for number, default in before.items():
        signal.signal(number, default)


async def until(token: CancelToken) -> object:
    with anyio.fail_after(10):
        return await token.wait()


async def test_stream(found: list[int]) -> None:
    """Z2: a signal ends a stream that is blocked, with its name; the handler is back after that."""
    log = Log()
    stream = with_cancellation(blocked(log, 1), on_signals(USR1, USR2))
    with anyio.fail_after(10), pytest.raises(StreamCancelled, match="SIGUSR2"):
        async with stream:
            assert await anext(stream) == 1
            signal.raise_signal(USR2)
            await anext(stream)
    assert stream.outcome is not None
    assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "SIGUSR2")
    assert found == []
    signal.raise_signal(USR2)
    assert found == [USR2]


async def test_second_signal() -> None:
    """Z2: the second signal, of whichever kind, ends the grace of the source."""
    log = Log()

    async def source() -> AsyncGenerator[object, None]:
        try:
            await anyio.sleep_forever()
            yield None
        except StreamCancelled as stop:
            log(kind(stop))
            signal.raise_signal(USR2)
            try:
                await anyio.sleep_forever()
            finally:
                log("cut")

    stream = with_cancellation(source(), on_signals(USR1, USR2), grace=20)
    with anyio.fail_after(10), pytest.raises(StreamCancelled, match="SIGUSR1"):
        async with stream:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, partial(signal.raise_signal, USR1))
                try:
                    await anext(stream)
                except StreamCancelled as exc:
                    stopped = exc
            raise stopped
    assert [what for _, what in log] == ["told to SIGUSR1", "cut"]
    assert stream.outcome is not None
    assert stream.outcome.grace_exceeded


@pytest.mark.parametrize("busy", [False, True])
async def test_wakes_the_loop(busy: bool) -> None:
    """H3: the loop waits, or a task runs: the token is told of soon, by a timer of the process."""
    async with on_signals(signal.SIGALRM) as token:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        if busy:
            with anyio.fail_after(10):
                while not token.cancelled:
                    await anyio.sleep(0)
        assert await until(token) == "SIGALRM"


async def test_all_hear() -> None:
    """Z2: all who listen hear of each signal, in whichever order they come and go."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(on_signals(USR1))
        async with on_signals(USR1, USR2) as both:
            signal.raise_signal(USR2)
            assert await until(both) == "SIGUSR2"
            assert not first.cancelled
            last = await stack.enter_async_context(on_signals(USR2, USR1, USR1))
            await stack.enter_async_context(on_signals(USR2))
        signal.raise_signal(USR1)
        assert await until(first) == "SIGUSR1"
        # It was told once, although it has said so twice: this was no second signal.
        assert await until(last) == "SIGUSR1"
        assert first.end_grace() is True
        assert last.end_grace() is True
        assert both.end_grace() is True


async def test_first_leaves_before_the_last(found: list[int]) -> None:
    """Z2: the handlers that were found are back when the last is left, and not before."""
    first, second = on_signals(USR1), on_signals(USR1)
    await first.__aenter__()
    token = await second.__aenter__()
    await first.__aexit__(None, None, None)
    signal.raise_signal(USR1)
    assert await until(token) == "SIGUSR1"
    await second.__aexit__(None, None, None)
    assert found == []


async def test_another_handler_meanwhile() -> None:
    """Z2: a handler that somebody has put in our place is not ours to take away."""
    before, others = signal.getsignal(USR1), list[int]()
    async with on_signals(USR1):
        signal.signal(USR1, lambda number, _: others.append(number))
    signal.raise_signal(USR1)
    assert others == [USR1]
    signal.signal(USR1, before)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_none_is_lost(monkeypatch: pytest.MonkeyPatch, found: list[int], moment: str) -> None:
    """H3: a signal that comes as the handler is set, or put back, is heard by one of the two."""
    set_handler = signal.signal

    def set_in_the_midst(number: int, handler: Any) -> Any:
        if moment == "before":
            signal.raise_signal(USR1)
        before = set_handler(number, handler)
        if moment == "after":
            signal.raise_signal(USR1)
        return before

    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", set_in_the_midst)
        async with on_signals(USR1) as token:
            assert (token.cancelled, len(found)) == (moment == "after", moment == "before")
    assert token.cancelled
    assert found == [USR1]


@pytest.mark.asyncio_only
async def test_handler_of_the_loop() -> None:
    """Z2: one that the event loop had is back as well, and hears of signals after us."""
    import asyncio

    loop, before = asyncio.get_running_loop(), signal.getsignal(USR1)
    heard = asyncio.Event()
    loop.add_signal_handler(USR1, heard.set)
    try:
        async with on_signals(USR1) as token:
            signal.raise_signal(USR1)
            assert await until(token) == "SIGUSR1"
        heard.clear()
        signal.raise_signal(USR1)
        async with asyncio.timeout(10):
            await heard.wait()
    finally:
        loop.remove_signal_handler(USR1)
        signal.signal(USR1, before)


async def test_ctrl_c() -> None:
    """Z2: SIGINT raises no KeyboardInterrupt and cancels no task, while somebody listens."""
    before = signal.getsignal(signal.SIGINT)
    async with on_signals(signal.SIGINT) as token:
        signal.raise_signal(signal.SIGINT)
        assert await until(token) == "SIGINT"
    assert signal.getsignal(signal.SIGINT) is before


async def test_body_raises(found: list[int]) -> None:
    """E1: an error leaves the block as it is, and the handler is back."""
    error = LookupError("body")
    with pytest.raises(LookupError) as caught:
        async with on_signals(USR1):
            raise error
    assert caught.value is error
    signal.raise_signal(USR1)
    assert found == [USR1]


async def test_in_a_thread() -> None:
    """H2: a thread other than the main one has no signals: an error that says what to do."""

    async def main() -> None:
        async with on_signals(USR1):
            raise AssertionError("must not be entered")

    with pytest.raises(RuntimeError, match="main thread of a program: fire a CancelToken"):
        await anyio.to_thread.run_sync(anyio.run, main)
    # Nor while the main thread listens.
    async with on_signals(USR1):
        with pytest.raises(RuntimeError, match="main thread"):
            await anyio.to_thread.run_sync(anyio.run, main)


async def test_used_twice() -> None:
    """G5: it is used once, and says so."""
    signals = on_signals(USR1)
    async with signals:
        with pytest.raises(RuntimeError, match="anew for each block"):
            await signals.__aenter__()
    with pytest.raises(RuntimeError, match="used once"):
        await signals.__aenter__()


async def test_cannot_be_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Z2: one that is handled by other than Python: an error, and the others are given back."""
    getsignal = signal.getsignal

    def none_for_usr2(number: int) -> Any:
        return None if number == USR2 else getsignal(number)

    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", none_for_usr2)
        with pytest.raises(RuntimeError, match="SIGUSR2 is handled by code that is not Python's"):
            async with on_signals(USR1, USR2):
                raise AssertionError("must not be entered")


def test_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """H3: what is no signal, or is one that nobody hears of, is refused where it is written."""
    with pytest.raises(ValueError, match="on_signals needs a signal: write"):
        on_signals()
    for wrong in (2, "SIGINT", [signal.SIGINT]):
        with pytest.raises(TypeError, match=f"got {type(wrong).__name__}: write on_signals"):
            on_signals(wrong)  # type: ignore[arg-type]
    for unheard in signal.SIGKILL, signal.SIGSTOP:
        with pytest.raises(ValueError, match=f"{unheard.name} ends a process"):
            on_signals(USR1, unheard)
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ValueError, match="Windows sends no SIGTERM: write on_signals"):
        on_signals(signal.SIGINT, signal.SIGTERM)
    on_signals(signal.SIGINT)


def test_two_runs(backend: Backend) -> None:
    """H10: one run after the other, each with its own token."""
    reasons: list[object] = []

    async def main() -> None:
        async with on_signals(USR1) as token:
            signal.raise_signal(USR1)
            reasons.append(await token.wait())

    backend.run(main)
    backend.run(main)
    assert reasons == ["SIGUSR1", "SIGUSR1"]
