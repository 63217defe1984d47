"""The demo in a browser: real processes, a real server, and Chromium in front of it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest

from clients.browser import chromium
from clients.demo import EXAMPLE, PATIENCE, DemoServer, Tab, demo_server, until
from support import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium import webdriver

# Says something and goes quiet. Told to end, it says something more. It ends by itself if a broken
# example leaves it behind.
QUIET = """
import signal, sys, time
alive = open(sys.argv[1], "w")
signal.alarm(60)
def stop(*_):
    print("saving")
    print("saved", flush=True)
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
print("one")
print("two", flush=True)
time.sleep(60)
"""
# Text as no page likes it.
LONG = "print('<b>no markup</b>'); print('x' * 3000); print('two words ' * 100)"


class Children:
    """Tells whether any of the processes is alive that a command has started."""

    def __init__(self, pipe: Path) -> None:
        os.mkfifo(pipe)
        self.command = "--", sys.executable, "-c", QUIET, str(pipe)
        self._reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def are_gone(self) -> bool:
        """Wait until no process has the pipe open. Ask this after one had."""
        readable, _, _ = select.select([self._reader], [], [], PATIENCE)
        return bool(readable) and os.read(self._reader, 1) == b""

    def close(self) -> None:
        os.close(self._reader)


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    with closing(Children(tmp_path_factory.mktemp("pipe") / "alive")) as children:
        yield children


@pytest.fixture(scope="module")
def demo(children: Children, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    directory = tmp_path_factory.mktemp("demo")
    with demo_server(directory, "--interval", "0.3", *children.command) as server:
        yield server


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def open_tab(driver: webdriver.Chrome) -> Iterator[Callable[[str], Tab]]:
    """Open tabs, which are closed after the test."""
    blank = driver.current_window_handle
    yield partial(Tab, driver)
    for handle in driver.window_handles:
        if handle != blank:
            driver.switch_to.window(handle)
            driver.close()
    driver.switch_to.window(blank)
    # What went wrong in a page, or was refused by its policy.
    assert [entry for entry in driver.get_log("browser") if "javascript" in entry["source"]] == []


def test_items_and_beats(demo: DemoServer, open_tab: Callable[[str], Tab]) -> None:
    """Lines arrive with their numbers; while the command is quiet, beats tell for how long."""
    tab = open_tab(demo.url)
    tab.start("check")
    tab.wait_for_line("two")
    tab.wait_for_state("silent")
    silences: list[float] = []

    def grows() -> bool:
        silences.extend(float(line.split()[2]) for line in tab.log("silence"))
        return len(set(silences)) >= 3

    until(grows, lambda: tab.text("body"))
    assert silences == sorted(silences)
    assert silences[0] >= 0.3
    # One line for one silence, and no number of its own.
    rows = "return [...document.querySelectorAll('#log div')].map((row) => row.dataset.id)"
    assert tab.do(rows) == ["1", "2", "~"]
    assert tab.log() == ["one", "two"]
    assert tab.text("#numbers").startswith("2 items · ")
    tab.click("#stop button")
    tab.wait_for_state("cancelled")


def test_beats_on_the_wire(demo: DemoServer, children: Children) -> None:
    """An item has its number as its id. A beat has none, so that the last id stays that of an item.

    A client that goes without a word stops its run like a tab.
    """
    url = f"{demo.url}/runs/check/0a1b2c3d"
    with httpx.stream("POST", url, trust_env=False) as response:
        lines = response.iter_lines()
        events = [list(iter(lambda: next(lines), "")) for _ in range(3)]
    assert events[:2] == [["id: 1", "data: one"], ["id: 2", "data: two"]]
    name, data = events[2]
    assert name == "event: beat"
    assert json.loads(data.removeprefix("data: "))["count"] == 1
    assert children.are_gone()


def test_stop(demo: DemoServer, open_tab: Callable[[str], Tab], children: Children) -> None:
    """Stop ends a run with the reason that is written there, and its last lines arrive."""
    tab = open_tab(demo.url)
    run_id = tab.start("check")
    tab.wait_for_line("two")
    tab.write("#reason", "enough of “it”, <b>now</b>")
    tab.click("#stop button")
    tab.wait_for_state("cancelled")
    assert children.are_gone()
    assert tab.log() == ["one", "two", "saving", "saved"]
    reason = "“enough of “it”, <b>now</b>”"
    assert tab.text("#end") == f"The stream was cancelled. Reason: {reason}."
    numbers = tab.text("#numbers")
    assert re.fullmatch(r"4 items · \d+ beats? · \d+\.\d s", numbers)
    until(lambda: "cancelled" in tab.listed(run_id), lambda: tab.text("body"))
    assert reason in tab.listed(run_id)
    assert numbers in tab.listed(run_id)
    assert demo.runs()[-1]["state"] == "cancelled"


def test_second_tab(demo: DemoServer, open_tab: Callable[[str], Tab], children: Children) -> None:
    """A second tab sees the run of the first, and stops it: the first shows why."""
    first = open_tab(demo.url)
    run_id = first.start("check")
    first.wait_for_line("two")
    second = open_tab(demo.url)
    assert second.text("#state") == "no run"
    second.click(f"#runs [data-id='{run_id}'] .stop")
    assert children.are_gone()
    until(lambda: "cancelled" in second.listed(run_id), lambda: second.text("body"))
    first.wait_for_state("cancelled")
    assert first.log() == ["one", "two", "saving", "saved"]
    assert "“stopped from another tab”" in first.text("#end")


def test_closed_tab(demo: DemoServer, open_tab: Callable[[str], Tab], children: Children) -> None:
    """A tab that is closed stops its run: the server knows why, and another tab shows it."""
    second = open_tab(demo.url)
    first = open_tab(demo.url)
    run_id = first.start("check")
    first.wait_for_line("two")
    first.close()
    assert children.are_gone()
    until(lambda: "its tab was closed" in second.listed(run_id), lambda: second.text("body"))
    run = demo.runs()[-1]
    assert (run["id"], run["state"], run["reason"]) == (run_id, "cancelled", "Disconnected")
    # What it said to the end was counted, although nobody was there.
    assert run["items"] == 4
    assert f"{run_id} check: cancelled (Disconnected)" in demo.output()


def test_failure(demo: DemoServer, open_tab: Callable[[str], Tab]) -> None:
    """A run that fails is shown as failed, after its lines. Why is for the server's terminal."""
    tab = open_tab(demo.url)
    run_id = tab.start("fail")
    tab.wait_for_state("failed")
    assert tab.log() == [f"step {number} of 5" for number in (1, 2, 3)]
    assert tab.text("#end") == "The stream failed."
    until(lambda: "failed" in tab.listed(run_id), lambda: tab.text("body"))
    assert "exit status" not in tab.do("return document.documentElement.outerHTML")
    assert f"{run_id} fail: failed (exit status 3)" in demo.output()


def test_refused(demo: DemoServer, open_tab: Callable[[str], Tab]) -> None:
    """A run that has to wait before it may start is answered with a status: 409, and no stream."""
    tab = open_tab(demo.url)
    run_id = tab.start("locked")
    assert tab.text("#state") == "starting"
    tab.wait_for_state("409 refused")
    assert tab.text("#end").startswith("409 Conflict: Somebody else holds the lock.")
    assert tab.log() == []
    until(lambda: "409 refused" in tab.listed(run_id), lambda: tab.text("body"))


def test_stop_before_the_first_line(demo: DemoServer, open_tab: Callable[[str], Tab]) -> None:
    """Stop works before there is a status, too; being told to stop is no failure."""
    tab = open_tab(demo.url)
    tab.start("locked")
    tab.click("#stop button")
    tab.wait_for_state("cancelled")
    assert tab.text("#numbers").startswith("0 items · 0 beats · ")


def test_deaf(demo: DemoServer, open_tab: Callable[[str], Tab]) -> None:
    """A run that ignores SIGTERM is killed when its grace is over, with beats until then."""
    tab = open_tab(demo.url)
    tab.start("deaf")
    until(tab.log, lambda: tab.text("body"))
    tab.click("#stop button")
    tab.wait_for_state("stopping")
    tab.wait_for_state("cancelled")
    assert "SIGTERM? Not now." in tab.log()
    assert tab.log("silence")
    assert tab.log("remark") == ["killed: it was still there 3 seconds after SIGTERM"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_ends(
    number: signal.Signals,
    tmp_path: Path,
    open_tab: Callable[[str], Tab],
) -> None:
    """The server is told to end while a run is open: the run ends well, and the page shows it."""
    with demo_server(tmp_path) as demo:
        tab = open_tab(demo.url)
        run_id = tab.start("check")
        tab.wait_for_line("json.tool: ")
        read = len(tab.log())
        demo.process.send_signal(number)
        tab.wait_for_state("cancelled")
        assert demo.process.wait(PATIENCE) == (0 if number == signal.SIGINT else -number)
        assert tab.log()[-2:] == [
            f"SIGTERM: writing down the {read} modules that were read",
            "written",
        ]
        assert tab.text("#end") == "The server is shutting down. Reason: the server has ended."
        until(lambda: "The server has ended." in tab.text("#gone"), lambda: tab.text("body"))
        assert "the server has ended" in tab.listed(run_id)


def test_narrow(tmp_path: Path, driver: webdriver.Chrome, open_tab: Callable[[str], Tab]) -> None:
    """At 360 px nothing sticks out, whatever the lines are; text is shown as it is."""
    with demo_server(tmp_path, "--", sys.executable, "-c", LONG) as demo:
        tab = open_tab(demo.url)
        screen = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        sticks_out = (
            "const right = (e) => e.getBoundingClientRect().right;"
            "return [...document.querySelectorAll('body *')].filter((e) => right(e) > 360)"
            ".map((e) => e.outerHTML.slice(0, 80))"
        )
        assert tab.do("return [innerWidth, document.documentElement.scrollWidth]") == [360, 360]
        assert tab.do(sticks_out) == []
        run_id = tab.start("check")
        tab.wait_for_state("completed")
        until(lambda: "completed" in tab.listed(run_id), lambda: tab.text("body"))
        assert tab.log() == ["<b>no markup</b>", "x" * 3000, "two words " * 100]
        assert tab.text("#end") == "The run is complete."
        assert sys.executable in tab.text("#command")
        tab.start("fail")
        tab.write("#reason", "y" * 200)
        tab.click("#stop button")
        tab.wait_for_state("cancelled")
        tab.start("fail")
        tab.wait_for_state("failed")
        assert tab.do("return [innerWidth, document.documentElement.scrollWidth]") == [360, 360]
        assert tab.do(sticks_out) == []


def test_many_lines(tmp_path: Path, open_tab: Callable[[str], Tab]) -> None:
    """A command that floods the page with lines can be stopped, and the last lines are kept."""
    with demo_server(tmp_path, "--", "yes") as demo:
        tab = open_tab(demo.url)
        tab.start("check")
        shown = "return document.querySelectorAll('#log div').length"
        until(lambda: tab.do(shown) == 500, lambda: tab.text("#numbers"))
        tab.click("#stop button")
        tab.wait_for_state("cancelled")
        assert tab.do(shown) == 500


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://elsewhere.example"}, {"host": "elsewhere.example:8000"}],
    ids=["origin", "host"],
)
def test_another_page(demo: DemoServer, headers: dict[str, str]) -> None:
    """No other page can start a process, also not one whose name leads to this computer."""
    before = demo.runs()
    url = f"{demo.url}/runs/check/0a1b2c3d"
    assert httpx.post(url, headers=headers, trust_env=False).status_code == 403
    assert demo.runs() == before


def test_too_many_runs(tmp_path: Path, children: Children) -> None:
    """There are eight runs at most, and an id is used once."""
    with demo_server(tmp_path, *children.command) as demo, httpx.Client(trust_env=False) as client:
        streams = [client.stream("POST", f"{demo.url}/runs/check/{n}") for n in range(8)]
        assert [stream.__enter__().status_code for stream in streams] == [200] * 8
        for again in "8", "0":
            assert client.post(f"{demo.url}/runs/check/{again}").status_code == 503
        for stream in streams:
            stream.__exit__(None, None, None)
        assert children.are_gone()
        until(lambda: {run["state"] for run in demo.runs()} == {"cancelled"}, demo.runs)
        with client.stream("POST", f"{demo.url}/runs/check/8") as response:
            assert response.status_code == 200
        assert children.are_gone()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--interval", "0"], "--interval must be a number of seconds > 0, not 0.0"),
        (["--port", "{port}"], "cannot listen on port {port}: Address already in use"),
        (["--", "no-such-command", "-x"], "there is no command no-such-command"),
    ],
)
def test_wrong_arguments(demo: DemoServer, arguments: list[str], error: str) -> None:
    """What cannot be served is an error of usage, and says what is wrong."""
    port = demo.url.rpartition(":")[2]
    result = subprocess.run(
        [sys.executable, str(EXAMPLE), *(each.format(port=port) for each in arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=environment(),
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert error.format(port=port) in result.stderr
