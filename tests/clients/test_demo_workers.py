"""The demo with two workers, which share the runs in a file: it is the same through either."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import TYPE_CHECKING

import httpx
import pytest

from clients.demo import DemoServer, Tab, demo_server, until
from support.event_stream import EventStreamParser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.event_stream import Event

STEPS = 40
WORK = f"import time\nfor n in range({STEPS}): print('step', n); time.sleep(0.1)"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    arguments = "--workers", "2", "--interval", "0.3", "--", sys.executable, "-uc", WORK
    with demo_server(tmp_path_factory.mktemp("demo"), *arguments) as server:
        yield server


@contextmanager
def both_workers(demo: DemoServer) -> Iterator[dict[str, httpx.Client]]:
    """Yield a client of each worker: one connection stays with the worker that has taken it."""
    clients: dict[str, httpx.Client] = {}
    with ExitStack() as stack:

        def found() -> bool:
            client = stack.enter_context(httpx.Client(base_url=demo.url, trust_env=False))
            clients[client.get("/runs").headers["x-worker"]] = client
            return len(clients) == 2

        until(found, lambda: clients)
        yield clients


def events(response: httpx.Response, most: int | None = None) -> list[Event]:
    """Return the events of a response, or so many of them."""
    parser = EventStreamParser()
    for chunk in response.iter_raw():
        parser.feed(chunk)
        if most is not None and len(parser.events) >= most:
            break
    return [event for event in parser.events[:most] if event.type != "beat"]


def test_through_either(demo: DemoServer) -> None:
    """A run is started through one worker, and read, resumed and stopped through the other."""
    for number in range(2):
        with both_workers(demo) as clients:
            one, other = sorted(clients, reverse=bool(number))
            run_id = clients[one].post("/runs/check").json()["id"]
            path = f"/runs/{run_id}"
            # A connection whose answer is left in the middle is not used again.
            with clients[other].stream("GET", f"{path}/events") as response:
                first = events(response, 5)
        with both_workers(demo) as clients, both_workers(demo) as others:
            assert clients[other].get(path).json()["worker"] == int(one)
            seen = {"last-event-id": first[-1].last_event_id}
            with clients[other].stream("GET", f"{path}/events", headers=seen) as response:
                assert response.headers["x-worker"] == other
                told = others[other].post(f"{path}/cancel", content="enough")
                assert (told.json(), told.headers["x-worker"]) == ({"told": True}, other)
                rest = events(response)
            assert others[one].get(path).json()["state"] == "cancelled"
        assert [event.type for event in rest[-2:]] == ["outcome", "end"]
        numbers = [event.last_event_id.partition(":")[2] for event in [*first, *rest[:-2]]]
        assert numbers == [str(number + 1) for number in range(len(numbers))]


def test_reloads(demo: DemoServer, open_tab: Callable[[str], Tab]) -> None:
    """A page that is reloaded has every line once, whichever worker it comes to; a second, too."""
    tab = open_tab(demo.url)
    run_id = tab.start("check")
    for _ in range(6):
        tab.wait_for_line("step 2")
        tab.reload()
    second = open_tab(tab.address)
    for each in tab, second:
        each.wait_for_state("completed")
        assert each.log() == [f"step {number}" for number in range(STEPS)]
    until(lambda: "worker" in tab.listed(run_id), lambda: tab.text("body"))


def test_stop(demo: DemoServer, open_tab: Callable[[str], Tab]) -> None:
    """Stop works in any tab, through whichever worker it comes."""
    first, second = open_tab(demo.url), open_tab(demo.url)
    for number in count(1):
        run_id = first.start("deaf" if number == 1 else "check")
        until(first.log, lambda: first.text("body"))
        second.click(f"#runs [data-id='{run_id}'] .stop")
        first.wait_for_state("stopped")
        assert "“stopped from another tab”" in first.text("#end")
        if number == 4:
            break


def test_nobody_watches(demo: DemoServer, open_tab: Callable[[str], Tab]) -> None:
    """A run that is stopped when nobody watches goes on while a tab does, through any worker."""
    second = open_tab(demo.url)
    first = open_tab(demo.url)
    first.click("#unwatched")
    run_id = first.start("deaf")
    until(first.log, lambda: first.text("body"))
    address = first.address
    first.close()
    third = open_tab(address)
    until(third.log, lambda: third.text("body"))
    third.close()
    until(lambda: "nobody watched it" in second.listed(run_id), lambda: second.text("body"))


def test_a_worker_dies(tmp_path: Path, open_tab: Callable[[str], Tab]) -> None:
    """The worker of a run is killed: every tab is told that it is lost, after what there was."""
    arguments = "--workers", "2", "--interval", "0.3", "--", sys.executable, "-uc", WORK
    with demo_server(tmp_path, *arguments) as demo:
        first = open_tab(demo.url)
        run_id = first.start("check")
        first.wait_for_line("step 3")
        os.kill(demo.run(run_id)["worker"], signal.SIGKILL)
        second = open_tab(first.address)
        for tab in first, second:
            tab.wait_for_state("lost")
            assert tab.log()[:3] == ["step 0", "step 1", "step 2"]
            assert tab.text("#end").startswith("The process that the run was in has died.")
        assert first.log() == second.log()
        assert demo.output().count(f"{run_id} check: lost") == 1


def test_sigterm(tmp_path: Path, open_tab: Callable[[str], Tab]) -> None:
    """The server is told to end: the runs of both workers end well.

    A tab shows it, unless it was reading through the worker that the run is not in: that one sends
    it away, and nobody answers any more.
    """
    with demo_server(tmp_path, "--workers", "2") as demo:
        tabs = [open_tab(demo.url) for _ in range(3)]
        for tab in tabs:
            tab.start("check")
            tab.wait_for_line("json.decoder: ")
        demo.process.send_signal(signal.SIGTERM)
        for tab in tabs:
            until(lambda tab=tab: tab.text("#note").startswith("The server does not"), demo.output)
            assert tab.text("#state") in ("stopped", "reconnecting")
        assert demo.process.wait(15) == 0
        assert demo.output().count("check: cancelled (Shutdown)") == 3
