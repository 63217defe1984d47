"""The client over real connections to uvicorn: cut, killed, restarted, sent elsewhere."""

from __future__ import annotations

import json
import random
from itertools import count, repeat
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx2
import pytest

from cutting import cutting
from recipes import UVICORN, Program, running
from streamkit.client import Refused, StreamCut, connect, openai_chat_end

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streamkit.client import Event

pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]

numbers = count()


def program(directory: Path, name: str, port: int | None = None) -> Program:
    """Return a server; those of one directory share their runs."""
    own = directory / name
    own.mkdir(exist_ok=True)
    return Program([*UVICORN, "run_client:app"], own, port=port, RUNS=str(directory / "runs.db"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with running(program(tmp_path_factory.mktemp("client"), "shared")) as server:
        yield server
        server.terminate()
        server.end()


@pytest.fixture
def server(shared: Program) -> Iterator[Program]:
    yield shared
    assert shared.trouble() == []


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients come back at once: how long they wait is tested in virtual time."""
    monkeypatch.setattr("streamkit._client.connection.pause", lambda *told: 0.0)


def begin(server: Program, items: int, pause: float = 0.0) -> str:
    """Start a run, and return where it is."""
    run_id = f"r{next(numbers)}"
    params = {"id": run_id, "count": items, "pause": pause, "only": 1}
    server.post("/start", params=params).raise_for_status()
    return f"/runs/{run_id}"


def open_client(port: int) -> httpx2.AsyncClient:
    # Each request on a connection of its own, which is the one that is cut.
    return httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={"connection": "close"},
        trust_env=False,
        verify=False,
    )


async def read(port: int, path: str, **options: Any) -> list[Event]:
    async with open_client(port) as client:
        async with connect(client, path, **{"idle": 5.0, **options}) as stream:
            return [event async for event in stream]


def check(events: list[Event], items: int, kind: str = "completed") -> None:
    *found, end = events
    assert [event.json() for event in found] == [{"text": f"{n} é\u2028\r\n"} for n in range(items)]
    assert (end.event, end.json()["kind"]) == ("end", kind)


@pytest.mark.usefixtures("at_once")
async def test_cut_after_any_byte(server: Program) -> None:
    """Runs: cut once, after any number of bytes: nothing is lost, nothing doubled."""
    path = begin(server, 3)
    whole = await read(server.port, path)
    check(whole, 3)
    async with open_client(server.port) as client:
        size = len((await client.get(path)).content)
    limits: Iterator[float] = iter(())
    async with cutting(server.port, lambda: next(limits, float("inf"))) as port:
        for at in range(size + 20):
            limits = iter([at])
            assert await read(port, path) == whole


@pytest.mark.usefixtures("at_once")
async def test_cut_again_and_again(server: Program) -> None:
    """Runs: cut after each so many bytes, as long as an event gets through."""
    path = begin(server, 5)
    whole = await read(server.port, path)
    limits: Iterator[float] = iter(())
    async with cutting(server.port, lambda: next(limits)) as port:
        for at in range(150, 400, 3):
            limits = repeat(at)
            assert await read(port, path) == whole


@pytest.mark.usefixtures("at_once")
async def test_many_that_come_and_go(server: Program) -> None:
    """Runs: while a run goes on, clients that are cut off at random read the same."""
    path, drawn = begin(server, 30, 0.02), random.Random(1)
    seen: list[list[Event]] = []

    async def one(port: int) -> None:
        seen.append(await read(port, path))

    async with cutting(server.port, lambda: drawn.randrange(150, 700)) as port:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(one, port)
    check(seen[0], 30)
    assert all(events == seen[0] for events in seen)


@pytest.mark.parametrize("signal", ["kill", "terminate"])
async def test_killed_and_restarted(tmp_path: Path, signal: str) -> None:
    """Runs: the server that is read from is killed, or asked to end, and another is there later:
    nothing is lost, and of a shutdown nothing is seen.
    """
    with running(program(tmp_path, "producer")) as producer:
        path = begin(producer, 60, 0.05)
        seen: list[Event] = []
        first = program(tmp_path, "first")
        second: Program | None = None
        try:
            first.wait_until_it_answers()
            async with open_client(first.port) as client:
                async with connect(client, path, idle=5) as stream:
                    async for event in stream:
                        seen.append(event)
                        if len(seen) != 10:
                            continue
                        if signal == "terminate":
                            first.terminate()
                            await anyio.to_thread.run_sync(first.end)
                        first.kill()
                        second = program(tmp_path, "second", first.port)
        finally:
            first.kill()
            if second is not None:
                second.kill()
        check(seen, 60)


async def test_producer_is_killed(tmp_path: Path) -> None:
    """Runs: when the run itself dies, its client is told so by whoever is there then."""
    with running(program(tmp_path, "producer")) as producer:
        path = begin(producer, 1000, 0.05)
        with running(program(tmp_path, "reader")) as reader:
            seen: list[Event] = []
            async with open_client(reader.port) as client:
                async with connect(client, path, idle=5) as stream:
                    async for event in stream:
                        seen.append(event)
                        if len(seen) == 10:
                            producer.kill()
            check(seen, len(seen) - 1, "failed")


@pytest.mark.usefixtures("at_once")
async def test_post(server: Program) -> None:
    """Runs: a run is started once, and read on at its Location, wherever its answer is cut."""
    for at in range(0, 400, 7):
        limits = iter([at])
        run_id = f"r{next(numbers)}"
        async with cutting(server.port, lambda limits=limits: next(limits, float("inf"))) as port:  # type: ignore[misc]
            params = {"id": run_id, "count": 3, "pause": 0}
            check(await read(port, "/start", method="POST", params=params), 3)


async def test_beats_and_ages(server: Program) -> None:
    """Runs: a run that is silent for long, and bodies that end as a whole and too early."""
    path = begin(server, 3, 0.7)
    check(await read(server.port, path, idle=0.5), 3)
    path = begin(server, 3, 0.7)
    check(await read(server.port, path, params={"max_age": 0.3}, attempts=1), 3)


async def test_redirects_and_503(server: Program) -> None:
    """Runs: over a redirect, and a server that has no time at first."""
    path = begin(server, 3).replace("/runs/", "/moved/")
    with pytest.raises(StreamCut, match="1 attempts have brought nothing"):
        await read(server.port, path, attempts=1)
    # Two connections for each attempt: one is sent on, the other is what answers.
    limits = iter([200.0, 200.0, 200.0, 200.0, 200.0])
    path = begin(server, 3).replace("/runs/", "/moved/")
    async with cutting(server.port, lambda: next(limits, float("inf"))) as port:
        check(await read(port, path), 3)
    assert not list(limits)


async def test_no_stream(server: Program) -> None:
    """Runs: what is none is refused, by its status or its content type."""
    with pytest.raises(Refused) as caught:
        await read(server.port, "/runs/none?chat=1", last_word=openai_chat_end)
    assert (caught.value.status, json.loads(caught.value.body)) == (404, {"code": "run_not_found"})
    [gone] = await read(server.port, "/runs/none")
    assert gone.json()["kind"] == "gone"
    with pytest.raises(Refused, match="status 405"):
        await read(server.port, "/start")


@pytest.mark.usefixtures("at_once")
async def test_json_lines(server: Program) -> None:
    """Web: JSON lines are read to their last record; a cut is an error, unless nothing was read."""
    *items, last = [event.json() for event in await read(server.port, "/lines")]
    assert [item["text"][0] for item in items if "text" in item] == ["0", "1", "2"]
    assert last["end"]["kind"] == "completed"
    limits = iter([0.0, 40.0])
    async with cutting(server.port, lambda: next(limits)) as port:
        with pytest.raises(StreamCut, match="JSON lines have no ids"):
            await read(port, "/lines")


async def test_leaves(server: Program) -> None:
    """X1: a client that leaves in the middle of an answer, by a timeout, has closed it."""
    path = begin(server, 100, 0.1)
    async with open_client(server.port) as client:
        with anyio.move_on_after(0.3) as scope:
            async with connect(client, path) as stream:
                async for _ in stream:
                    pass
        assert scope.cancelled_caught
