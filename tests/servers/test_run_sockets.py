"""``RunMessages`` on every server: read from any place, cut, stopped, and where there is none."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from recipes import Program, running
from serving import eventually
from sockets import CLIENTS, COMMANDS, STOP, BareSocket, Seen
from support.cutting_proxy import cutting_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

numbers = count(1)


@pytest.fixture(scope="module", params=list(COMMANDS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def program_of(name: str, directory: Path) -> Program:
    return Program(["-m", *COMMANDS[name], "run_sockets:app"], directory)


@pytest.fixture(scope="module")
def shared_runs(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with running(program_of(name, tmp_path_factory.mktemp(name))) as server:
        # The older implementation of uvicorn says that it is old.
        server.trouble()
        yield server
        server.terminate()
        server.end()


@pytest.fixture
def server(shared_runs: Program) -> Iterator[Program]:
    yield shared_runs
    wait_for(shared_runs, readers=0, open=0)
    assert shared_runs.trouble() == []


@pytest.fixture
def own(name: str, tmp_path: Path) -> Iterator[Program]:
    with running(program_of(name, tmp_path)) as server:
        server.trouble()
        yield server


@pytest.fixture(params=list(CLIENTS))
def talk(request: pytest.FixtureRequest) -> Callable[..., Seen]:
    return CLIENTS[request.param]


def state_of(server: Program) -> dict[str, Any]:
    with server.client() as client:
        found: dict[str, Any] = client.get("/state").json()
    return found


def wait_for(server: Program, **wanted: int) -> None:
    """Wait until the server has so many of these."""
    eventually(
        lambda: wanted.items() <= state_of(server).items(),
        what=lambda: (state_of(server), server.output()),
    )


def begin(server: Program, kind: str, **options: Any) -> tuple[str, str]:
    """Start a run. Returns its id and its epoch."""
    run_id = f"run-{next(numbers)}"
    answer = server.post(f"/start/{kind}/{run_id}", params=options)
    return run_id, str(answer.json()["epoch"])


def url_of(server: Program, run_id: str, query: str = "", *, port: int | None = None) -> str:
    return f"ws://127.0.0.1:{port or server.port}/runs/{run_id}?{query}"


def said(seen: Seen) -> list[Any]:
    return [json.loads(message) for message in seen.messages]


def test_reads_a_run(server: Program, talk: Callable[..., Seen]) -> None:
    """WS70: each item with the place to go on after, and how the run has ended; then the close."""
    run_id, epoch = begin(server, "short")
    wanted: list[Any] = [
        {"id": f"{epoch}:{number}", "data": letter} for number, letter in enumerate("abcde", 1)
    ]
    wanted.append({"id": f"{epoch}:5.end", "end": {"kind": "completed"}})
    for skipped in 0, 3:
        query = f"starting_after={epoch}:{skipped}" if skipped else ""
        seen = talk(url_of(server, run_id, query))
        assert said(seen) == wanted[skipped:]
        assert (seen.code, seen.reason) == (1000, "completed")
    # The end was seen, too.
    seen = talk(url_of(server, run_id, f"starting_after={epoch}:5.end"))
    assert (seen.messages, seen.code) == ([], 1000)


def test_cut(server: Program, talk: Callable[..., Seen]) -> None:
    """WS70: a client that is cut off again and again has every item once, and the end."""
    run_id, _ = begin(server, "gated")
    found: list[Any] = []
    with cutting_proxy(server.port) as proxy:

        def read_on() -> None:
            query = f"starting_after={found[-1]['id']}" if found else ""
            seen = talk(url_of(server, run_id, query, port=proxy.port), proxy.cut)
            found.extend(said(seen))

        # It cannot have come to its end.
        read_on()
        assert 1 <= len(found) <= 3
        server.post(f"/go-on/{run_id}")
        while "end" not in found[-1]:
            read_on()
    *items, end = found
    assert [item["data"]["number"] for item in items] == list(range(10))
    assert end["end"] == {"kind": "completed"}


def test_stop(server: Program, talk: Callable[..., Seen]) -> None:
    """WS71: one client stops the run; all get its last items and its end, also who may not stop."""
    run_id, _ = begin(server, "idle")
    with ThreadPoolExecutor(1) as threads:
        watching = threads.submit(talk, url_of(server, run_id, "watch=1"), STOP)
        wait_for(server, readers=1)
        stopping = talk(url_of(server, run_id), STOP)
        watched = watching.result()
    for seen in watched, stopping:
        assert [message.get("data") for message in said(seen)] == ["item", "told: enough", None]
        assert said(seen)[-1]["end"] == {"kind": "cancelled"}
        assert (seen.code, seen.reason) == (1000, "cancelled")


def test_failure(server: Program, talk: Callable[..., Seen]) -> None:
    """WS72: a run that failed is told to have, and not why."""
    run_id, epoch = begin(server, "broken")
    seen = talk(url_of(server, run_id))
    end = {"id": f"{epoch}:1.end", "end": {"kind": "failed"}}
    assert said(seen) == [{"id": f"{epoch}:1", "data": "item"}, end]
    assert (seen.code, seen.reason) == (1011, "failed")
    eventually(lambda: "RuntimeError: secret of a source" in server.output(), what=server.output)
    wait_for(server, readers=0, open=0)
    server.trouble()


def test_refusals(server: Program, talk: Callable[..., Seen]) -> None:
    """WS73: what there is not to read is a status and a code; or the close, where it is to be."""
    run_id, _ = begin(server, "short", max_items=2)
    wait_for(server, running=0)
    cases = [
        ("nowhere", "", 404, {"code": "run_not_found"}),
        (run_id, "starting_after=1", 410, {"code": "gap", "first": 4, "last": 5}),
        (run_id, "starting_after=abc:1", 410, {"code": "cursor_mismatch"}),
        (run_id, "starting_after=nonsense", 400, {"code": "malformed_cursor"}),
    ]
    for asked, query, status, body in cases:
        seen = talk(url_of(server, asked, query))
        assert (seen.status, json.loads(seen.body)) == (status, body)
        assert seen.headers["content-type"] == "application/json"
        seen = talk(url_of(server, asked, f"{query}&close=1"))
        assert said(seen) == [body]
        assert (seen.code, seen.reason) == (1008, body["code"])


def test_vanishing_client(server: Program) -> None:
    """WS70: a client that vanishes leaves the run alone, and nothing of its own behind."""
    run_id, _ = begin(server, "gated")
    client = BareSocket(server.port, f"/runs/{run_id}")
    client.wait_for_handshake()
    wait_for(server, readers=1, running=1)
    client.leave(reset=True)
    wait_for(server, readers=0, open=0, running=1)
    server.post(f"/go-on/{run_id}")
    wait_for(server, running=0)


def test_shut_down(own: Program, talk: Callable[..., Seen]) -> None:
    """WS75: the program ends: a reader is told all of the run, and that; who comes is refused."""
    run_id, _ = begin(own, "idle")
    seen = talk(url_of(own, run_id), lambda: own.post("/shut-down"))
    *items, end = said(seen)
    assert [item["data"] for item in items] == ["item", "told: Shutdown"]
    assert end["end"] == {"kind": "shutdown"}
    assert (seen.code, seen.reason) == (1001, "shutdown")
    seen = talk(url_of(own, run_id))
    assert (seen.status, json.loads(seen.body)) == (503, {"code": "unavailable"})
    assert 0 < int(seen.headers["retry-after"]) < 60
    own.terminate()
    own.end()


def test_sigterm(own: Program, name: str, talk: Callable[..., Seen]) -> None:
    """WS75: so is a reader where the server is asked to end. granian cuts it while the run ends."""
    run_id, _ = begin(own, "idle")
    seen = talk(url_of(own, run_id), own.terminate)
    if name == "granian":
        assert said(seen)[0]["data"] == "item"
        assert seen.code in (1006, 1001)
    else:
        *items, end = said(seen)
        assert [item["data"] for item in items] == ["item", "told: Shutdown"]
        assert end["end"] == {"kind": "shutdown"}
        assert (seen.code, seen.reason) == (1001, "shutdown")
    own.end()
