"""Streams over WebSockets, on every server and implementation."""

from __future__ import annotations

import resource
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from serving import Server, eventually, running
from sockets import CLIENTS, COMMANDS, STOP, BareSocket, Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Of sockets that wait; real seconds in which all are closed; and what one may take of the server's
# memory: most of it is the server's own, its buffers and those of the compression.
SOCKETS = 1000
CLOSED_WITHIN = 10.0
BYTES_EACH = 320 * 1024

# Tasks of a socket: the server's own, the stream's source, the one that reads, and what the server
# has beside these (hypercorn has five).
TASKS_EACH = 9

SOON = 1.0


@pytest.fixture(scope="module", params=list(COMMANDS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def shared_sockets(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(name, tmp_path_factory.mktemp(name), COMMANDS[name]) as server:
        # The older implementation says that it is old.
        server.trouble()
        yield server
        server.end()


@pytest.fixture
def server(shared_sockets: Server) -> Iterator[Server]:
    yield shared_sockets
    shared_sockets.wait_until_idle()
    assert shared_sockets.trouble() == []


@pytest.fixture
def own(name: str, tmp_path: Path) -> Iterator[Server]:
    with running(name, tmp_path, COMMANDS[name]) as server:
        server.trouble()
        yield server


@pytest.fixture(params=list(CLIENTS))
def talk(request: pytest.FixtureRequest) -> Callable[..., Seen]:
    return CLIENTS[request.param]


def target_of(server: Server, kind: str, **options: Any) -> tuple[str, str]:
    target, key = server.target(kind, **options)
    return "/socket?" + target.partition("?")[2], key


def url_of(server: Server, kind: str, **options: Any) -> tuple[str, str]:
    target, key = target_of(server, kind, **options)
    return f"ws://127.0.0.1:{server.port}{target}", key


def assert_told(server: Server, key: str) -> None:
    """Wait until the server has been told of an error of a source, and has said all of it."""
    server.wait_for(key, "ended")
    eventually(lambda: "RuntimeError: secret of a source" in server.output(), what=server.output)
    time.sleep(0.1)  # for the rest of the traceback, of which there may be several
    server.trouble()


def test_items(server: Server, talk: Callable[..., Seen]) -> None:
    """WS60: items, the last word, and then the close with its code."""
    url, key = url_of(server, "three", final=True)
    seen = talk(url)
    assert seen.messages == [b"item 0\n", b"item 1\n", b"item 2\n", "the end: completed NoneType"]
    assert (seen.code, seen.reason) == (1000, "completed")
    server.wait_for(key, "returned")
    assert server.events(key) == ["started", "closed", "ended", "returned"]


def test_beats(server: Server) -> None:
    """WS60: beats while the source is silent, on each server."""
    target, key = target_of(server, "idle", beat=0.02)
    client = BareSocket(server.port, target)
    client.wait_for_handshake()
    said = b""
    while said.count(b"beat") < 3:
        said += client.receive()
    assert said.startswith(b"\x82\x05item\n\x81\x04beat\x81\x04beat")
    client.leave()
    server.wait_for(key, "returned")


PINGS = {
    "uvicorn": ["--ws-ping-interval", "0.2", "--ws-ping-timeout", "0.5"],
    "hypercorn": ["--websocket-ping-interval", "1"],
    "granian": [],
}


def test_pings(name: str, tmp_path: Path) -> None:
    """WS64: a client that answers nothing has gone, where the server asks for an answer; hypercorn
    asks for none, and granian says nothing."""
    kind = name.partition("-")[0]
    with running(name, tmp_path, [*COMMANDS[name], *PINGS[kind]]) as server:
        server.trouble()
        target, key = target_of(server, "idle")
        with BareSocket(server.port, target) as client:
            client.wait_for_handshake()
            if kind != "granian":
                said = b""
                while b"\x89" not in said:
                    said += client.receive()
            if kind == "uvicorn":
                # The older implementation waits for an answer to its close, too.
                eventually(lambda: "returned" in server.events(key), within=30, what=server.output)
                assert server.record(key, "ended")["reason"] == "Disconnected"
            else:
                assert server.events(key) == ["started"]
        server.wait_for(key, "returned")
        server.end()


def test_refusal(server: Server, talk: Callable[..., Seen]) -> None:
    """WS61: the status and the body of a source that says no, before there is a handshake."""
    url, key = url_of(server, "teapot")
    seen = talk(url)
    assert (seen.status, seen.body) == (418, b"short and stout")
    assert seen.headers["x-kind"] == "teapot"
    assert seen.messages == []
    server.wait_for(key, "returned")


def test_refusal_by_a_close(server: Server, talk: Callable[..., Seen]) -> None:
    """WS61: the same for a client that sees no status."""
    url, _ = url_of(server, "teapot", close=True)
    seen = talk(url)
    assert seen.messages == [b"short and stout"]
    assert (seen.code, seen.reason) == (1008, "refused")


def test_stop(server: Server, talk: Callable[..., Seen]) -> None:
    """WS62: the client says stop; it gets the last items, the last word and then the close."""
    url, key = url_of(server, "idle with grace", final=True)
    seen = talk(url, STOP)
    assert seen.messages == [b"item\n", b"last item\n", "the end: cancelled str"]
    assert (seen.code, seen.reason) == (1000, "cancelled")
    server.wait_for(key, "returned")
    assert server.events(key) == ["started", "saved", "closed", "ended", "returned"]


def test_failure(server: Server, talk: Callable[..., Seen]) -> None:
    """WS63: a failure is told by its code, and raised to the server, or logged."""
    for final in False, True:
        url, key = url_of(server, "broken later", **({"final": True} if final else {}))
        seen = talk(url)
        last = ["the end: failed NoneType"] if final else []
        assert seen.messages == [b"item\n", *last]
        assert (seen.code, seen.reason) == (1011, "failed")
        assert_told(server, key)


def test_failure_before_the_handshake(server: Server, talk: Callable[..., Seen]) -> None:
    """WS63: an error before the first item is the server's to answer."""
    url, key = url_of(server, "broken")
    seen = talk(url)
    assert seen.status == (403 if server.name == "granian" else 500)
    assert_told(server, key)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_vanishing_client(server: Server, reset: bool) -> None:
    """WS64: the connection is gone, without a word: the source is told, and closed."""
    target, key = target_of(server, "idle with grace", final=True)
    client = BareSocket(server.port, target)
    client.wait_for_handshake()
    server.wait_for(key, "started")
    left = client.leave(reset=reset)
    ended = server.wait_for(key, "ended")
    assert (ended["kind"], ended["reason"]) == ("cancelled", "Disconnected")
    assert server.record(key, "closed")["time"] - left < SOON
    server.wait_for(key, "returned")


def test_vanishing_before_the_handshake(server: Server) -> None:
    """WS64: so it is when there is no item yet, and no handshake."""
    target, key = target_of(server, "silent")
    client = BareSocket(server.port, target)
    server.wait_for(key, "started")
    client.leave()
    ended = server.wait_for(key, "ended")
    assert ended["reason"] == "Disconnected"
    server.wait_for(key, "returned")


def test_slow_client(server: Server) -> None:
    """WS65: nothing is made for a client that does not read; when it goes, all is closed."""
    target, key = target_of(server, "random")
    client = BareSocket(server.port, target, buffer=4096)
    client.wait_for_handshake()
    server.wait_until_blocked(key)
    left = client.leave(reset=True)
    server.wait_for(key, "returned")
    assert server.record(key, "closed")["time"] - left < SOON


def test_send_timeout(server: Server) -> None:
    """WS65: a client that takes nothing for too long counts as gone."""
    target, key = target_of(server, "random", send_timeout=0.5)
    with BareSocket(server.port, target, buffer=4096) as client:
        client.wait_for_handshake()
        ended = server.wait_for(key, "ended")
        assert (ended["kind"], ended["reason"]) == ("cancelled", "Disconnected")
        # hypercorn on trio sends in a shield, and lets the call go when the connection has ended.
        client.leave(reset=True)
    server.wait_for(key, "returned")
    eventually(lambda: "was cut off" in server.output(), within=10, what=server.output)
    server.trouble()


def test_sigterm(own: Server, talk: Callable[..., Seen]) -> None:
    """WS67: the server is asked to end: each source is told and closed, and the server ends.

    Hypercorn's clients get the last word and 1001. uvicorn closes its sockets with 1012 before it
    does anything else, and granian cuts them.
    """
    url, key = url_of(own, "idle with grace", final=True)
    asked = time.monotonic()
    seen = talk(url, own.terminate)
    own.wait()
    assert time.monotonic() - asked < 5
    assert own.events(key) == ["started", "saved", "closed", "ended", "returned"]
    reason = own.record(key, "ended")["reason"]
    if own.name.startswith("hypercorn"):
        assert seen.messages == [b"item\n", b"last item\n", "the end: cancelled Shutdown"]
        assert (seen.code, seen.reason) == (1001, "shutdown")
        assert reason == "Shutdown"
    elif own.name.startswith("uvicorn"):
        assert (seen.messages, seen.code) == ([b"item\n"], 1012)
        assert reason == "Shutdown"
    else:
        assert (seen.messages, seen.code) == ([b"item\n"], 1006)
    assert own.events("host") == ["entered", "leaving", "left"]
    assert own.trouble() == []


def test_held_signal(name: str, tmp_path: Path, talk: Callable[..., Seen]) -> None:
    """WS67: a host that has the signal end its streams first: last words and 1001 on uvicorn, too.

    Hypercorn's workers hear of no signal. granian hears of it by its event loop, and cuts its
    sockets while the streams end.
    """
    signals = [signal.SIGTERM, signal.SIGINT]
    with running(name, tmp_path, COMMANDS[name], signals=signals) as server:
        server.trouble()
        url, key = url_of(server, "idle with grace", final=True)
        seen = talk(url, server.terminate)
        if name == "granian":
            assert seen.code in (1006, 1001)
        else:
            assert seen.messages == [b"item\n", b"last item\n", "the end: cancelled Shutdown"]
            assert (seen.code, seen.reason) == (1001, "shutdown")
            assert server.record(key, "ended")["reason"] == "Shutdown"
        server.wait()
        assert server.events(key) == ["started", "saved", "closed", "ended", "returned"]
        assert server.events("host") == ["entered", "leaving", "left"]
        assert server.trouble() == []


def test_shut_down(own: Server, talk: Callable[..., Seen]) -> None:
    """WS67: a host that hears of it before the server does: last words and 1001, on every one."""
    url, key = url_of(own, "idle with grace", final=True)
    seen = talk(url, own.shut_down)
    assert seen.messages == [b"item\n", b"last item\n", "the end: cancelled Shutdown"]
    assert (seen.code, seen.reason) == (1001, "shutdown")
    assert own.record(key, "ended")["reason"] == "Shutdown"
    url, _ = url_of(own, "three")
    seen = talk(url)
    assert seen.status == 503
    assert 0 < int(seen.headers["retry-after"]) < 60
    own.end()


def test_many(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """WS66: a thousand sockets that wait take little, and are all closed when their clients go."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * SOCKETS + 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], needed), before[1]))
    try:
        with running(name, tmp_path, COMMANDS[name]) as server, ExitStack() as stack:
            server.trouble()
            idle = server.state()
            keys, clients = [], []
            # Some at a time, for there is no room for a thousand that wait to be accepted.
            while len(clients) < SOCKETS:
                for _ in range(20):
                    target, key = target_of(server, "idle")
                    clients.append(stack.enter_context(BareSocket(server.port, target)))
                    keys.append(key)
                for client in clients[-20:]:
                    client.wait_for_handshake()
            there = server.state()
            tasks = (len(there["tasks"]) - len(idle["tasks"])) / SOCKETS
            memory = (there["memory"] - idle["memory"]) / SOCKETS
            with capsys.disabled():
                print(f"\n{name}: {tasks:.2f} tasks and {memory / 1024:.0f} KiB for each socket")
            assert tasks <= TASKS_EACH
            assert memory < BYTES_EACH
            for client in clients:
                client.leave()

            def closed() -> set[str]:
                return {each["key"] for each in server.records() if each["event"] == "returned"}

            eventually(lambda: closed() == set(keys), within=CLOSED_WITHIN, what=server.output)
            server.wait_until_idle()
            assert server.trouble() == []
            server.end()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
