"""``RunMessages``: a run over a socket, from any place, until its end or until it is stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from streamkit import Head, StreamCancelled
from streamkit._runs.info import RunOutcome
from streamkit._runs.reasons import encode_outcome
from streamkit.asgi import StreamHost
from streamkit.runs import Gap, LogUnavailable, MemoryLog, Page, Runs, RunsClosed, UnknownVersion
from streamkit.starlette import RunMessages as StarletteRunMessages
from streamkit.websocket import RunMessages
from support import Client, Log, Probe, Socket, aiter_of, wait_all_blocked
from support.socket import STOP

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def read(runs: Runs, run_id: str, seen: str | None = None, **options: Any) -> Socket:
    """Read a run over a socket."""
    socket = Socket(query="" if seen is None else f"starting_after={seen}")
    await socket.open(RunMessages(runs, run_id, **options))
    return socket


def said(socket: Socket) -> list[Any]:
    """Return what was said over a socket, between the handshake and the close."""
    first, *messages, _ = socket.log.events
    assert first == 101
    return [json.loads(str(message)) for message in messages]


async def ended(runs: Runs, *items: Any, **options: Any) -> str:
    """Return the id of a run that has ended."""
    run = await runs.start(aiter_of(*items), **options)
    while (await runs.get(run.id)).state == "running":
        await anyio.sleep(0.1)
    return run.id


class Failing(MemoryLog):
    """A log whose reads raise, from some number on."""

    def __init__(self, error: Exception, good: int = 0) -> None:
        super().__init__()
        self.error = error
        self.good = good

    async def read(self, run_id: str, after: int, limit: int = 200) -> Page:
        if self.good:
            self.good -= 1
            return await super().read(run_id, after, limit)
        raise self.error


@pytest.mark.parametrize("kind", [RunMessages, StarletteRunMessages])
async def test_reads_a_run(kind: Any) -> None:
    """WS70: what is there, what comes, and the end, each with the place to go on after."""
    async with Runs() as runs:
        run = await runs.start(Probe({"a": 1}, "b", every=1.0).source())
        socket = Socket()
        await socket.open(kind(runs, run.id))
    assert said(socket) == [
        {"id": f"{run.epoch}:1", "data": {"a": 1}},
        {"id": f"{run.epoch}:2", "data": "b"},
        {"id": f"{run.epoch}:2.end", "end": {"kind": "completed"}},
    ]
    assert socket.log[-1] == (2.0, (1000, "completed"))


async def test_goes_on() -> None:
    """WS70: a client that comes back says in the query what it has seen, the end included."""
    async with Runs() as runs:
        run_id = await ended(runs, "a", "b", "c")
        epoch = (await runs.get(run_id)).epoch
        socket = await read(runs, run_id, f"{epoch}:2")
        assert [message.get("data") for message in said(socket)] == ["c", None]
        socket = await read(runs, run_id, f"{epoch}:3.end")
        assert socket.log.events == [101, (1000, "completed")]


async def test_leaving() -> None:
    """WS70: a client that goes leaves the run alone."""
    async with Runs() as runs:
        probe = Probe("a", "b", every=1.0)
        run = await runs.start(probe.source())
        socket = Socket(goes_after=1.5)
        await socket.open(RunMessages(runs, run.id))
        assert len(socket.log) == 2
        assert len(said(await read(runs, run.id))) == 3
    assert probe.produced == ["a", "b"]


async def test_stop() -> None:
    """WS71: one client stops the run: all are told its last items, and how it ended."""
    told = Log()

    async def source() -> AsyncGenerator[str, None]:
        try:
            yield "a"
            await anyio.sleep_forever()
        except StreamCancelled as stop:
            told(stop.reason)
            yield "last"

    async with Runs() as runs, anyio.create_task_group() as tasks:
        run = await runs.start(source())
        watching, stopping = Socket(says={1.0: STOP}), Socket(says={2.0: STOP})
        tasks.start_soon(watching.open, RunMessages(runs, run.id, stop=None))
        tasks.start_soon(stopping.open, RunMessages(runs, run.id))
    assert told.events == ["enough"]
    for socket in watching, stopping:
        assert [message.get("data") for message in said(socket)] == ["a", "last", None]
        assert said(socket)[-1]["end"] == {"kind": "cancelled"}
        assert socket.log[-1] == (2.0, (1000, "cancelled"))


async def test_stop_after_the_end() -> None:
    """WS71: a stop that comes when all was said is too late, and does no harm."""
    async with Runs() as runs:
        run_id = await ended(runs, "a")
        socket = Socket(says={1.0: STOP}, takes={2: 5.0})
        await socket.open(RunMessages(runs, run_id))
        assert said(socket)[-1]["end"] == {"kind": "completed"}


async def test_failure() -> None:
    """WS72: a run that failed is told to have, and not why."""
    async with Runs() as runs:
        run = await runs.start(Probe("a", error=LookupError("secret")).source())
        socket = await read(runs, run.id)
    assert said(socket)[-1]["end"] == {"kind": "failed"}
    assert socket.log.events[-1] == (1011, "failed")


async def test_lost() -> None:
    """WS72: so is one whose process has died."""
    log = MemoryLog()
    async with Runs(log) as runs:
        run_id = await ended(runs, "a")
        page = await log.read(run_id, 0)
        lost = encode_outcome(RunOutcome(kind="lost", ended_at=0.0))

        async def read_page(run_id: str, after: int, limit: int = 200) -> Page:
            return replace(page, entries=page.entries[after:], outcome=lost)

        log.read = read_page  # type: ignore[method-assign]
        socket = await read(runs, run_id)
    assert said(socket)[-1]["end"] == {"kind": "lost"}
    assert socket.log.events[-1] == (1011, "lost")


async def test_status_of_the_run() -> None:
    """WS72: a run that begins with a Head gives that to whoever reads it from its beginning."""

    async def source() -> AsyncGenerator[Any, None]:
        yield Head(409)
        yield "busy"

    async with Runs() as runs:
        run = await runs.start(source())
        socket = await read(runs, run.id)
        assert socket.log.events[0] == 409
        assert '"data":"busy"' in str(socket.log.events[1])


async def test_status_too_late(caplog: pytest.LogCaptureFixture) -> None:
    """WS72: a status that comes after the handshake is none any more."""

    async def source() -> AsyncGenerator[Any, None]:
        await anyio.sleep(10)
        yield Head(202)
        yield "a"

    async with Runs() as runs:
        run = await runs.start(source())
        socket = await read(runs, run.id)
    assert [message.get("data") for message in said(socket)] == ["a", None]
    assert "came too late" not in caplog.text


@pytest.mark.parametrize(
    ("seen", "status", "body"),
    [
        ("nonsense", 400, {"code": "malformed_cursor"}),
        ("abc:1", 410, {"code": "cursor_mismatch"}),
        ("1", 410, {"code": "gap", "first": 4, "last": 5}),
    ],
)
async def test_refusals(seen: str, status: int, body: Any) -> None:
    """WS73: what is wrong with a request is its status, and a body that programs can read."""
    async with Runs() as runs:
        run_id = await ended(runs, *"abcde", max_items=2)
        socket = await read(runs, run_id, seen)
    assert socket.log.events[0] == status
    assert json.loads(str(socket.log.events[1])) == body
    assert socket.headers["content-type"] == "application/json"


@pytest.mark.parametrize("is_there", [True, False])
async def test_not_found(is_there: bool) -> None:
    """WS73: no such run, or none of this owner."""
    async with Runs() as runs:
        run_id = await ended(runs, "a", owner="own") if is_there else "none"
        socket = await read(runs, run_id, owner="other")
        assert socket.log.events == [404, '{"code":"run_not_found"}']
        socket = await read(runs, run_id, owner="other", errors="close")
        assert socket.log.events == [101, '{"code":"run_not_found"}', (1008, "run_not_found")]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LogUnavailable("away"), (1013, "unavailable")),
        (RunsClosed(), (1001, "shutdown")),
        (UnknownVersion(7, 1), (1013, "unavailable")),
        (Gap(4, 5), (1008, "gap")),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_breaks(error: Exception, code: Any, caplog: pytest.LogCaptureFixture) -> None:
    """WS74: what goes wrong later is told by the close, after what was read; then by a status."""
    log = Failing(error, good=1)
    async with Runs(log) as runs:
        run = await runs.start(Probe("a", "b", every=1.0).source())
        await anyio.sleep(1.5)
        socket = await read(runs, run.id)
        assert said(socket) == [{"id": f"{run.epoch}:1", "data": "a"}]
        assert socket.log.events[-1] == code
        socket = await read(runs, run.id)
        status = 410 if isinstance(error, Gap) else 503
        assert socket.log.events[0] == status
        assert ("retry-after" in socket.headers) == (status == 503)
    assert ("cannot be read here" in caplog.text) == isinstance(error, UnknownVersion)


async def test_shutdown() -> None:
    """WS75: the program ends: a reader is told all of a run that is here; who comes is refused."""

    async def source() -> AsyncGenerator[str, None]:
        try:
            yield "a"
            await anyio.sleep_forever()
        except StreamCancelled:
            await anyio.sleep(1)
            yield "last"

    async with anyio.create_task_group() as tasks:
        async with StreamHost() as host, Runs(host=host) as runs:
            run = await runs.start(source())
            socket, late = Socket(), Socket()
            tasks.start_soon(socket.open, RunMessages(runs, run.id))
            await wait_all_blocked()
            assert host.stats().open == 1
            host.shut_down()
            await late.open(RunMessages(runs, run.id))
            assert late.log.events == [503, '{"code":"unavailable"}']
            assert late.headers["content-type"] == "application/json"
    assert [message.get("data") for message in said(socket)] == ["a", "last", None]
    assert said(socket)[-1]["end"] == {"kind": "shutdown"}
    assert socket.log.events[-1] == (1001, "shutdown")


async def test_shut_down_without_a_host() -> None:
    """WS75: so it is when nobody but the runs knows."""
    async with StreamHost() as host, Runs() as runs:
        run_id = await ended(runs, "a")
        await read(runs, run_id, host=host)
        assert host.stats().completed == 1
        runs.shut_down()
        socket = await read(runs, run_id)
        assert socket.log.events == [503, '{"code":"shutdown"}']


async def test_misuse() -> None:
    """WS76: a wrong argument is told where it is written, and what the run is told elsewhere."""
    runs = Runs()
    with pytest.raises(TypeError, match="takes runs and the id"):
        RunMessages(aiter_of("a"), "id")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes no on_end"):
        RunMessages(runs, "id", on_end=None)
    with pytest.raises(TypeError, match="run_id"):
        RunMessages(runs, 7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="owner"):
        RunMessages(runs, "id", owner=7)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="was not entered"):
        await Socket().open(RunMessages(runs, "id"))
    async with runs:
        with pytest.raises(RuntimeError, match="answers a WebSocket"):
            await Client().get(RunMessages(runs, "id"))
