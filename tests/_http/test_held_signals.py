"""Signals that a host hears of first, and the server when the streams have ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from observing import call_later
from streamkit import StreamCancelled, on_signals
from streamkit.asgi import StreamHost, StreamResponse
from support import Client, Probe, wait_all_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from support import Backend

if sys.platform == "win32":
    pytest.skip("Windows sends no such signals", allow_module_level=True)

USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


class Server:
    """The handler of a server, and what it has heard."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def handle(self, number: int, frame: object) -> None:
        self.heard.append(number)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    numbers = USR1, USR2, signal.SIGINT
    before = {number: signal.signal(number, server.handle) for number in numbers}
    yield server
    # Each has been given back, and hears of what comes.
    for number, default in before.items():
        assert signal.getsignal(number) == server.handle
        signal.signal(number, default)


async def saving(seconds: float) -> AsyncGenerator[str, None]:
    """A source that takes so long when it is told."""
    try:
        yield "item"
        await anyio.sleep_forever()
    except StreamCancelled:
        await anyio.sleep(seconds)
        yield "last"


async def test_held(server: Server) -> None:
    """WS67: the streams are told at once, and the server when they have ended; its handler is back
    then."""
    client = Client()
    async with StreamHost(signals=[USR1]) as host, anyio.create_task_group() as tasks:
        tasks.start_soon(client.get, StreamResponse(saving(2), host=host))
        await wait_all_blocked()
        signal.raise_signal(USR1)
        await anyio.sleep(1.9)
        assert host.is_shut_down
        assert server.heard == []
        await anyio.sleep(0.2)
        assert server.heard == [USR1]
        assert signal.getsignal(USR1) == server.handle
        signal.raise_signal(USR1)
        assert server.heard == [USR1, USR1]
    assert client.log.events[1:] == ["item", "last", "end"]
    assert server.heard == [USR1, USR1]


async def test_nothing_is_open(server: Server) -> None:
    """WS67: the server hears of it at once where no stream is open, and no other signal is held."""
    async with StreamHost(signals=[USR1, USR1]) as host:
        signal.raise_signal(USR2)
        assert server.heard == [USR2]
        signal.raise_signal(USR1)
        await wait_all_blocked()
        assert server.heard == [USR2, USR1]
        assert host.is_shut_down


async def test_pressed_twice(server: Server) -> None:
    """WS67: when Ctrl-C is pressed twice, the server hears of it at once, and of what came before;
    other signals may come more than once."""
    async with (
        StreamHost(signals=[USR1, signal.SIGINT]) as host,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(Client().get, StreamResponse(saving(2), host=host))
        await wait_all_blocked()
        for number in USR1, signal.SIGINT, USR1:
            signal.raise_signal(number)
            await anyio.sleep(0.1)
            assert server.heard == []
        signal.raise_signal(signal.SIGINT)
        assert server.heard == [USR1, signal.SIGINT, USR1, signal.SIGINT]
    assert len(server.heard) == 4


async def test_finish(server: Server) -> None:
    """WS55: streams that may run to their end do so, and the signal is held until then."""
    client = Client()
    source = Probe(*"abc", every=2.0).source()
    async with (
        StreamHost(signals=[USR1], finish=60) as host,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.get, StreamResponse(source, host=host))
        await wait_all_blocked()
        signal.raise_signal(USR1)
        await anyio.sleep(5.9)
        assert server.heard == []
        await anyio.sleep(0.2)
        assert server.heard == [USR1]
    assert client.log.events[1:] == [*"abc", "end"]


async def test_source_that_stays(server: Server) -> None:
    """WS67: what nobody can end does not keep the signal from the server for ever."""

    async def source() -> AsyncGenerator[str, None]:
        yield "item"
        with anyio.CancelScope(shield=True):
            await anyio.sleep(100)

    async with (
        StreamHost(signals=[USR1], finish=1, grace=2, on_end_timeout=3) as host,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(Client().get, StreamResponse(source(), host=host))
        await wait_all_blocked()
        signal.raise_signal(USR1)
        await anyio.sleep(5.9)
        assert server.heard == []
        await anyio.sleep(0.2)
        assert server.heard == [USR1]
        assert host.stats().open == 1


async def test_block_ends(server: Server) -> None:
    """WS67: a lifespan that ends meanwhile: the server hears of it when all is closed."""
    async with anyio.create_task_group() as tasks:
        async with StreamHost(signals=[USR1]) as host:
            tasks.start_soon(Client().get, StreamResponse(saving(2), host=host))
            await wait_all_blocked()
            signal.raise_signal(USR1)
            await call_later(1, partial(server.heard.append, 0))
        assert server.heard == [0, USR1]


async def test_host_is_cancelled(server: Server) -> None:
    """WS67: so it does if nobody waits for the streams."""
    async with anyio.create_task_group() as tasks:
        with anyio.move_on_after(1):
            async with StreamHost(signals=[USR1]) as host:
                tasks.start_soon(Client().get, StreamResponse(saving(2), host=host))
                await wait_all_blocked()
                signal.raise_signal(USR1)
        assert server.heard == [USR1]


async def test_handler_that_raises() -> None:
    """WS67: what the handler raises leaves the block, as without it; all is closed."""

    def handle(number: int, frame: object) -> None:
        raise LookupError("of the server")

    before = signal.signal(USR1, handle)
    try:
        with pytest.raises(LookupError, match="of the server"):
            async with StreamHost(signals=[USR1]) as host, anyio.create_task_group() as tasks:
                tasks.start_soon(Client().get, StreamResponse(saving(2), host=host))
                await wait_all_blocked()
                signal.raise_signal(USR1)
        assert host.stats().open == 0
        assert signal.getsignal(USR1) == handle
    finally:
        signal.signal(USR1, before)


async def test_handler_that_raises_twice() -> None:
    """WS67: if Ctrl-C is pressed twice, it raises once, and other signals are heard as well."""
    heard: list[int] = []

    def handle(number: int, frame: object) -> None:
        heard.append(number)
        if number == signal.SIGINT:
            raise LookupError("of the server")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, USR1)}
    try:
        async with anyio.create_task_group() as tasks:
            with pytest.raises(LookupError, match="of the server"):
                async with StreamHost(signals=[*before]) as host:
                    tasks.start_soon(Client().get, StreamResponse(saving(2), host=host))
                    await wait_all_blocked()
                    for number in signal.SIGINT, USR1, signal.SIGINT:
                        signal.raise_signal(number)
        assert heard == [signal.SIGINT, USR1]
        assert host.stats().open == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def test_put_back_later(server: Server) -> None:
    """WS67: one that others have found, and put back when it is over, passes signals on."""
    other = on_signals(USR1)
    async with StreamHost(signals=[USR1]):
        token = await other.__aenter__()
    # On top of what was held: not taken away.
    signal.raise_signal(USR1)
    assert token.reason == "SIGUSR1"
    assert server.heard == []
    await other.__aexit__(None, None, None)
    assert signal.getsignal(USR1) != server.handle
    signal.raise_signal(USR1)
    assert server.heard == [USR1]


async def test_handler_on_top(server: Server) -> None:
    """WS67: a handler that was put on top, and calls what it has found: the server hears once of
    what was held, and of what comes later."""
    on_top: list[int] = []
    async with StreamHost(signals=[USR1]) as host, anyio.create_task_group() as tasks:
        found: Any = signal.getsignal(USR1)

        def handle(number: int, frame: Any) -> None:
            on_top.append(number)
            found(number, frame)

        signal.signal(USR1, handle)
        tasks.start_soon(Client().get, StreamResponse(saving(2), host=host))
        await wait_all_blocked()
        signal.raise_signal(USR1)
        assert server.heard == []
    assert server.heard == [USR1]
    signal.raise_signal(USR1)
    assert server.heard == on_top == [USR1, USR1]
    signal.signal(USR1, server.handle)


async def test_fork(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """WS67: a fork has the handlers of the process, but no streams: what was found hears at once,
    for the process would not end otherwise."""
    async with StreamHost(signals=[USR1]) as host:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            signal.raise_signal(USR1)
            assert server.heard == [USR1]
        await wait_all_blocked()
        assert not host.is_shut_down


@pytest.mark.parametrize("has_other", [False, True])
@pytest.mark.parametrize("found", [signal.SIG_IGN, signal.SIG_DFL])
async def test_no_handler(
    found: Any, has_other: bool, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WS67: what is ignored stays so; what ends the process does when the streams have ended, also
    if another handler is on top by then."""
    signal.signal(USR1, found)
    raised: list[Any] = []
    raise_signal = signal.raise_signal

    def note(number: int) -> None:
        raised.append((number, signal.getsignal(number)))

    async with StreamHost(signals=[USR1]) as host:
        monkeypatch.setattr(signal, "raise_signal", note)
        raise_signal(USR1)
        if has_other:
            signal.signal(USR1, server.handle)
        assert raised == []
    assert host.is_shut_down
    ends = found == signal.SIG_DFL
    assert raised == ([(USR1, signal.SIG_DFL)] if ends else [])
    assert signal.getsignal(USR1) == (server.handle if has_other and not ends else found)
    signal.signal(USR1, server.handle)


async def test_not_pythons(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """WS67: a handler that could not be put back is left alone."""
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda number: None)
        async with StreamHost(signals=[USR1]):
            pass
    async with StreamHost(signals=[USR1]) as host:
        assert signal.getsignal(USR1) != server.handle
        assert not host.is_shut_down


def test_another_thread(server: Server, backend: Backend) -> None:
    """WS67: in another thread, as under a test client of Starlette, it is the server that hears."""

    async def main() -> None:
        async with StreamHost(signals=[USR1]):
            assert signal.getsignal(USR1) == server.handle

    thread = threading.Thread(target=backend.run, args=(main,))
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    ("given", "error", "advice"),
    [
        (USR1, TypeError, "a list of signals, got Signals: write signals="),
        (None, TypeError, "got NoneType: write signals="),
        ([10], TypeError, "expected a signal, got int: write signals="),
        ([signal.SIGKILL], ValueError, "does not hear of it: write signals="),
    ],
)
def test_misuse(given: Any, error: type[Exception], advice: str) -> None:
    """WS67: a wrong argument is told where it is written."""
    with pytest.raises(error, match=advice):
        StreamHost(signals=given)
