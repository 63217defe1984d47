"""The client over real connections to uvicorn: runs as servers may send them, and what is none."""

from __future__ import annotations

import time
import tracemalloc
from itertools import count
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import pytest

from recipes import UVICORN, Program, running
from streamkit.client import Event, Refused, TooLong, connect
from support.reading import asking_at, read

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]

LINE = 100 * 2**20

# Real seconds for what comes at once.
PATIENCE = 20.0

numbers = count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with running(Program([*UVICORN, "run_wire:app"], tmp_path_factory.mktemp("wire"))) as server:
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


def begin(server: Program, items: int, pause: float = 0.0, size: int = 0) -> str:
    """Start a run, and return its id."""
    run_id = f"r{next(numbers)}"
    params = {"id": run_id, "count": items, "pause": pause, "size": size}
    server.post("/start", params=params, timeout=60).raise_for_status()
    return run_id


def noting(requests: list[httpx2.Request]) -> dict[str, Any]:
    """Return how a client takes note of what it asks."""

    async def note(request: httpx2.Request) -> None:
        request.extensions["at"] = time.monotonic()
        requests.append(request)

    return {"event_hooks": {"request": [note]}}


def check(events: list[Event], items: int, size: int = 0) -> None:
    *found, end = events
    assert [event.data for event in found] == [f"{n} é\u2028\n" + "x" * size for n in range(items)]
    assert [event.id.partition(":")[2] for event in found] == [str(n + 1) for n in range(items)]
    assert (end.event, end.json()) == ("end", {"kind": "completed"})


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("end", "bom"), [("lf", "bom"), ("cr", "bom"), ("crlf", "bom"), ("crlf", "none")]
)
async def test_ends_of_lines(server: Program, end: str, bom: str) -> None:
    """Runs: whatever ends a line, cut after any byte, of an end of two, too: nothing is lost."""
    run_id = begin(server, 2)
    path = f"/framed/{end}/{bom}/{run_id}"
    limits: Iterator[float] = iter(())
    async with asking_at(server.port, lambda: next(limits, float("inf"))) as client:
        whole = await read(client, path)
        check(whole, 2)
        size = len((await client.get(path)).content)
        for at in range(size + 1):
            limits = iter([at])
            assert await read(client, path) == whole


@pytest.mark.parametrize("end", ["lf", "cr", "crlf"])
async def test_no_event_is_late(server: Program, end: str) -> None:
    """Runs: an event is there when its last byte is, although nothing comes after it."""
    run_id = begin(server, 2, 1000.0)
    async with asking_at(server.port) as client:
        with anyio.fail_after(PATIENCE):
            async with connect(client, f"/framed/{end}/quiet/{run_id}", idle=1000) as stream:
                assert (await stream.receive()).id.endswith(":1")


@pytest.mark.usefixtures("at_once")
async def test_beats_only(server: Program) -> None:
    """Runs: answers of beats alone, again and again, between those that bring something."""
    run_id, requests = begin(server, 20, 0.1), list[httpx2.Request]()
    async with asking_at(server.port, **noting(requests)) as client:
        check(await read(client, f"/beats/{run_id}", attempts=1), 20)
    assert len(requests) > 4


@pytest.mark.usefixtures("at_once")
async def test_a_line_of_100_mib(server: Program) -> None:
    """Runs: a line as long as that arrives if it may, also when it is cut in the middle."""
    run_id = begin(server, 1, 0.0, LINE)
    limits = iter([LINE / 2])
    async with asking_at(server.port, lambda: next(limits, float("inf"))) as client:
        events = await read(client, f"/runs/{run_id}", max_size=LINE + 100)
    check(events, 1, LINE)


async def test_a_line_that_may_not_be(server: Program) -> None:
    """Web: a line without an end is an error, before it is there: it is bounded on both sides."""
    events: list[Event] = []
    tracemalloc.start()
    try:
        async with asking_at(server.port) as client:
            with pytest.raises(TooLong, match="more than 1048576 bytes"):
                async with connect(client, "/no_end", max_size=2**20) as stream:
                    async for event in stream:
                        events.append(event)
            _, most = tracemalloc.get_traced_memory()
            # What the kernel and the server take, and no more.
            await anyio.sleep(0.2)
            assert (await client.get("/how_much")).json()["sent"] < LINE / 4
    finally:
        tracemalloc.stop()
    assert [event.data for event in events] == ["a"]
    assert most < 8 * 2**20


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("host", ["here", "localhost"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects(server: Program, status: int, host: str) -> None:
    """Runs: over redirects, of the same and of another origin, each time it comes back."""
    run_id, requests = begin(server, 3), list[httpx2.Request]()
    limits = iter([float("inf"), 60.0] * 3)
    asking = asking_at(server.port, lambda: next(limits, float("inf")), **noting(requests))
    async with asking as client:
        check(await read(client, f"/moved/{status}/{host}/{run_id}"), 3)
    places = [request.url.path.split("/")[1] for request in requests]
    cursors = [request.headers.get("last-event-id") for request in requests]
    assert set(places[::2]) == {"moved"}
    assert set(places[1::2]) == {"runs"}
    assert cursors[::2] == cursors[1::2]
    assert len(set(cursors)) > 1


@pytest.mark.parametrize("host", ["here", "localhost"])
async def test_who_is_authorized(server: Program, host: str) -> None:
    """Web: what authorizes goes along a redirect of the same origin, and to no other."""
    async with asking_at(server.port) as client:
        headers = {"authorization": "Bearer x"}
        [event] = await read(client, f"/moved/307/{host}/seen", headers=headers)
    assert event.data == ("Bearer x" if host == "here" else "none")


@pytest.mark.parametrize(("how", "seconds"), [("seconds", 1.0), ("date", 0.5)])
async def test_503(server: Program, how: str, seconds: float) -> None:
    """Runs: a server that has no time, at first and in between, is asked when it says."""
    run_id, requests = begin(server, 12, 0.4), list[httpx2.Request]()
    async with asking_at(server.port, **noting(requests)) as client:
        check(await read(client, f"/busy/{how}/{run_id}"), 12)
    times = [request.extensions["at"] for request in requests]
    assert len(times) >= 4
    # A date has whole seconds.
    assert all(after - at > seconds for at, after in zip(times[::2], times[1::2], strict=False))


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("kind", ["text-html", "application-json", "text-plain", "none"])
async def test_content_types(server: Program, kind: str) -> None:
    """Web: what is no stream is refused, also where there was one before."""
    async with asking_at(server.port) as client:
        path, events = f"/other/{kind}", list[Event]()
        with pytest.raises(Refused, match="status 200") as caught:
            async with connect(client, f"{path}?{next(numbers)}") as stream:
                async for event in stream:
                    events.append(event)
    assert caught.value.body == b"id: 2\ndata: b\n\n"
    assert len(events) <= 1
