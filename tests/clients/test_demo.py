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
from typing import TYPE_CHECKING

import httpx
import pytest

from clients.demo import EXAMPLE, PATIENCE, DemoServer, Tab, demo_server, until
from support import environment
from support.cutting_proxy import cutting_proxy

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
AWAY = "The server does not answer."
BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
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
    assert tab.numbers() == ["1", "2", "~"]
    assert tab.log() == ["one", "two"]
    assert tab.text("#numbers").startswith("2 lines · ")
    tab.click("#stop button")
    tab.wait_for_state("stopped")


def test_beats_on_the_wire(demo: DemoServer, children: Children) -> None:
    """A line has its place in the run as its id. A beat has none: it does not move the client.

    The first line tells how soon to come back.
    """
    run_id = httpx.post(f"{demo.url}/runs/check", trust_env=False).json()["id"]
    with httpx.stream("GET", f"{demo.url}/runs/{run_id}/events", trust_env=False) as response:
        lines = response.iter_lines()
        one, two, beat = [list(iter(lambda: next(lines), "")) for _ in range(3)]
    assert json.loads(one[0].removeprefix("data: "))["text"] == "one"
    assert one[1].startswith("id: ")
    # Advice is heeded at once, so it follows what the client is not to lose.
    assert two[0] == "retry: 500"
    assert beat == ["event: beat", "data: "]
    demo.stop(run_id)
    assert children.are_gone()


def test_stop(demo: DemoServer, open_tab: Callable[[str], Tab], children: Children) -> None:
    """Stop ends a run with the reason that is written there, and its last lines arrive."""
    tab = open_tab(demo.url)
    run_id = tab.start("check")
    tab.wait_for_line("two")
    tab.write("#reason", "enough of “it”, <b>now</b>")
    tab.click("#stop button")
    tab.wait_for_state("stopped")
    assert children.are_gone()
    assert tab.log() == ["one", "two", "saving", "saved"]
    reason = "“enough of “it”, <b>now</b>”"
    assert tab.text("#end") == f"The run was stopped. Reason: {reason}."
    numbers = tab.text("#numbers")
    assert re.fullmatch(r"4 lines · \d+\.\d s", numbers)
    until(lambda: "stopped" in tab.listed(run_id), lambda: tab.text("body"))
    assert reason in tab.listed(run_id)
    assert numbers in tab.listed(run_id)
    assert demo.runs()[-1]["state"] == "cancelled"


def test_reload(demo: DemoServer, open_tab: Callable[[str], Tab], children: Children) -> None:
    """A page that is reloaded in the middle of a run has every line of it once, also the silence.

    So it has when the run has ended.
    """
    tab = open_tab(demo.url)
    tab.start("check")
    tab.wait_for_line("two")
    tab.wait_for_state("silent")
    tab.reload()
    tab.wait_for_line("two")
    assert tab.log() == ["one", "two"]
    tab.wait_for_state("silent")
    tab.click("#stop button")
    tab.wait_for_state("stopped")
    assert children.are_gone()
    end = tab.text("#end"), tab.text("#numbers")
    tab.reload()
    tab.wait_for_state("stopped")
    assert tab.log() == ["one", "two", "saving", "saved"]
    assert tab.numbers() == ["1", "2", "~", "3", "4"]
    assert (tab.text("#end"), tab.text("#numbers")) == end


def test_second_tab(demo: DemoServer, open_tab: Callable[[str], Tab], children: Children) -> None:
    """A second tab finds the run in the list and watches it as well; both see the same end."""
    first = open_tab(demo.url)
    run_id = first.start("check")
    first.wait_for_line("two")
    second = open_tab(demo.url)
    assert second.text("#state") == "no run"
    second.click(f"#runs [data-id='{run_id}'] a")
    second.wait_for_line("two")
    assert second.address == first.address
    second.click("#stop button")
    for tab in first, second:
        tab.wait_for_state("stopped")
        assert tab.log() == ["one", "two", "saving", "saved"]
        assert "“no longer needed”" in tab.text("#end")
    assert first.text("#numbers") == second.text("#numbers")
    assert children.are_gone()


def test_stop_from_the_list(
    demo: DemoServer, open_tab: Callable[[str], Tab], children: Children
) -> None:
    """A tab that watches nothing stops the run of another one, which shows why."""
    first = open_tab(demo.url)
    run_id = first.start("check")
    first.wait_for_line("two")
    second = open_tab(demo.url)
    second.click(f"#runs [data-id='{run_id}'] .stop")
    assert children.are_gone()
    until(lambda: "stopped" in second.listed(run_id), lambda: second.text("body"))
    first.wait_for_state("stopped")
    assert first.log() == ["one", "two", "saving", "saved"]
    assert "“stopped from another tab”" in first.text("#end")


def test_another_run(demo: DemoServer, open_tab: Callable[[str], Tab]) -> None:
    """A tab goes from run to run, by the list and by the browser's own way back."""
    tab = open_tab(demo.url)
    first = tab.start("check")
    tab.wait_for_line("two")
    tab.start("fail")
    tab.wait_for_state("failed")
    tab.do("history.back()")
    tab.wait_for_line("two")
    assert tab.log() == ["one", "two"]
    assert tab.address.endswith(first)
    tab.click("#stop button")
    tab.wait_for_state("stopped")


def test_closed_tab(tmp_path: Path, open_tab: Callable[[str], Tab]) -> None:
    """A run goes on when its tab is closed. Its address leads back to it, and to all its lines."""
    code = "import time\nfor n in range(600): print('step', n); time.sleep(0.1)"
    with demo_server(tmp_path, "--", sys.executable, "-uc", code) as demo:
        first = open_tab(demo.url)
        run_id = first.start("check")
        first.wait_for_line("step 2")
        address = first.address
        first.close()
        # Long after the server has noticed.
        until(lambda: demo.run(run_id)["items"] > 25, lambda: demo.run(run_id))
        second = open_tab(address)
        second.wait_for_line("step 26")
        second.wait_for_state("running")
        assert second.log()[:26] == [f"step {number}" for number in range(26)]
        second.close()
        demo.stop(run_id)
        until(lambda: demo.run(run_id)["state"] == "cancelled", lambda: demo.run(run_id))
        third = open_tab(address)
        third.wait_for_state("stopped")
        assert third.numbers() == [str(number + 1) for number in range(len(third.log()))]
        assert f"{run_id} check: cancelled (enough)" in demo.output()


def test_nobody_watches(
    demo: DemoServer, open_tab: Callable[[str], Tab], children: Children
) -> None:
    """With the switch, a run is stopped when its last tab was closed. A reload does not count."""
    second = open_tab(demo.url)
    first = open_tab(demo.url)
    first.click("#unwatched")
    run_id = first.start("check")
    first.wait_for_line("two")
    first.reload()
    first.wait_for_line("two")
    first.close()
    assert demo.run(run_id)["state"] == "running"
    assert children.are_gone()
    until(lambda: "nobody watched it" in second.listed(run_id), lambda: second.text("body"))
    assert f"{run_id} check: cancelled (Unwatched)" in demo.output()
    assert demo.run(run_id)["items"] == 4


def test_cut_every_two_seconds(tmp_path: Path, open_tab: Callable[[str], Tab]) -> None:
    """Behind a proxy that cuts every two seconds, a page gets every line once, and the end."""
    steps = 60
    code = f"import time\nfor n in range({steps}): print('step', n); time.sleep(0.1)"
    with demo_server(tmp_path, "--", sys.executable, "-uc", code) as demo:
        with cutting_proxy(int(demo.url.rpartition(":")[2]), every=2) as proxy:
            tab = open_tab(f"http://127.0.0.1:{proxy.port}")
            tab.start("check")
            tab.wait_for_state("reconnecting")
            assert tab.text("#note").startswith("The connection is cut. This page is on its way")
            tab.wait_for_state("completed")
            assert tab.text("#note") == ""
            assert tab.log() == [f"step {number}" for number in range(steps)]
            assert [n for n in tab.numbers() if n != "~"] == [str(n + 1) for n in range(steps)]
            assert proxy.cuts > 2


@pytest.mark.parametrize("says", [b"", BAD_GATEWAY], ids=["cut", "502"])
def test_server_away(says: bytes, tmp_path: Path, open_tab: Callable[[str], Tab]) -> None:
    """While there is no way to the server, the page says so, and comes back when there is one.

    Where the proxy answers for the server, the browser gives up, and the page does it by itself.
    """
    with demo_server(tmp_path, "--interval", "0.3") as demo:
        with cutting_proxy(int(demo.url.rpartition(":")[2])) as proxy:
            tab = open_tab(f"http://127.0.0.1:{proxy.port}")
            run_id = tab.start("check")
            tab.wait_for_line("json.tool: ")
            proxy.says, proxy.is_closed = says, True
            proxy.cut()
            tab.wait_for_state("reconnecting")
            demo.stop(run_id)
            # Whatever the browser makes of it, it is not taken for the end.
            until(lambda: demo.run(run_id)["state"] == "cancelled", lambda: demo.run(run_id))
            assert tab.text("#state") == "reconnecting"
            until(lambda: tab.text("#note").startswith(AWAY), lambda: tab.text("body"))
            proxy.is_closed = False
            tab.wait_for_state("stopped")
            assert tab.log()[-1] == "written"
            numbers = [number for number in tab.numbers() if number != "~"]
            assert numbers == [str(number + 1) for number in range(len(numbers))]


def test_gone(demo: DemoServer, open_tab: Callable[[str], Tab]) -> None:
    """The address of a run that is not kept any more says so, and does not ask for ever."""
    tab = open_tab(f"{demo.url}/#0123456789abcdef")
    tab.wait_for_state("gone")
    assert tab.text("#end").startswith("There is no such run.")
    assert not tab.do("return document.querySelector('#stop').checkVisibility()")
    tab.start("fail")
    tab.wait_for_state("failed")


def test_failure(demo: DemoServer, open_tab: Callable[[str], Tab]) -> None:
    """A run that fails is shown as failed, after its lines. Why is for the server's terminal."""
    tab = open_tab(demo.url)
    run_id = tab.start("fail")
    tab.wait_for_state("failed")
    assert tab.log() == [f"step {number} of 5" for number in (1, 2, 3)]
    assert tab.text("#end").startswith("The run has failed.")
    until(lambda: "failed" in tab.listed(run_id), lambda: tab.text("body"))
    assert "exit status" not in tab.do("return document.documentElement.outerHTML")
    assert f"{run_id} fail: failed (exit status 3)" in demo.output()


def test_refused(demo: DemoServer, open_tab: Callable[[str], Tab]) -> None:
    """A run that has to wait before it may start is answered with a status, 409, to each reader."""
    tab = open_tab(demo.url)
    run_id = tab.start("locked")
    tab.wait_for_state("starting")
    tab.wait_for_state("409 refused")
    assert tab.text("#end").startswith("409 Conflict: somebody else holds the lock.")
    assert tab.log() == []
    until(lambda: "409 refused" in tab.listed(run_id), lambda: tab.text("body"))
    tab.reload()
    tab.wait_for_state("409 refused")
    assert httpx.get(f"{demo.url}/runs/{run_id}/events", trust_env=False).status_code == 409


def test_stop_before_the_first_line(demo: DemoServer, open_tab: Callable[[str], Tab]) -> None:
    """Stop works before there is a status, too; being told to stop is no failure."""
    tab = open_tab(demo.url)
    tab.start("locked")
    tab.click("#stop button")
    tab.wait_for_state("stopped")
    assert tab.text("#numbers").startswith("0 lines · ")


def test_deaf(demo: DemoServer, open_tab: Callable[[str], Tab]) -> None:
    """A run that ignores SIGTERM is killed when its grace is over, with beats until then."""
    tab = open_tab(demo.url)
    tab.start("deaf")
    until(tab.log, lambda: tab.text("body"))
    tab.click("#stop button")
    tab.wait_for_state("stopping")
    tab.wait_for_state("stopped")
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
        tab.wait_for_state("stopped")
        assert demo.process.wait(PATIENCE) == (0 if number == signal.SIGINT else -number)
        assert tab.log()[-2:] == [
            f"SIGTERM: writing down the {read} modules that were read",
            "written",
        ]
        assert tab.text("#end") == "The run was stopped. Reason: the server has ended."
        until(lambda: tab.text("#note").startswith(AWAY), lambda: tab.text("body"))
        assert "the server has ended" in tab.listed(run_id)


def test_narrow(tmp_path: Path, driver: webdriver.Chrome, open_tab: Callable[[str], Tab]) -> None:
    """At 360 px nothing sticks out, whatever the lines are; text is shown as it is."""
    with demo_server(tmp_path, "--", sys.executable, "-c", LONG) as demo:
        tab = open_tab(demo.url)
        show_on(driver, 360, 740)
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
        assert tab.do("return document.querySelector('#command').textContent") == demo.command
        tab.start("deaf")
        tab.write("#reason", "y" * 200)
        tab.click("#stop button")
        tab.wait_for_state("stopped")
        tab.start("fail")
        tab.wait_for_state("failed")
        assert tab.do("return [innerWidth, document.documentElement.scrollWidth]") == [360, 360]
        assert tab.do(sticks_out) == []


# The heights are what a browser leaves of the screen, where it is less.
@pytest.mark.parametrize("height", [664, 844])
def test_phone(
    height: int, demo: DemoServer, driver: webdriver.Chrome, open_tab: Callable[[str], Tab]
) -> None:
    """On a phone, the run and its Stop are on the first screen, however much it has said."""
    tab = open_tab(demo.url)
    show_on(driver, 390, height)
    tab.start("deaf")
    until(tab.log, lambda: tab.text("body"))
    fill_log(tab)
    assert tab.do("return scrollY") == 0
    assert box(tab, "#state")["bottom"] < box(tab, "#log")["top"]
    assert box(tab, "#log")["bottom"] - box(tab, "#log")["top"] >= 140
    assert box(tab, "#stop button")["bottom"] <= height
    tab.click("#stop button")
    tab.wait_for_state("stopped")
    assert box(tab, "#end")["bottom"] <= height


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (1366, 633), (1440, 900)])
def test_laptop(
    width: int,
    height: int,
    demo: DemoServer,
    driver: webdriver.Chrome,
    open_tab: Callable[[str], Tab],
) -> None:
    """On a laptop, all of the page is on one screen, however much the run has said.

    Beside the run and its Stop, there are the starts and the first of all runs.
    """
    tab = open_tab(demo.url)
    show_on(driver, width, height, mobile=False)
    run_id = tab.start("check")
    tab.wait_for_line("two")
    fill_log(tab)
    row = f"#runs [data-id='{run_id}']"
    until(lambda: tab.listed(run_id), lambda: tab.text("body"))
    for selector in "#log", "#stop button", "#unwatched", "#all-title", row:
        assert 0 <= box(tab, selector)["top"] < box(tab, selector)["bottom"] <= height, selector
    assert box(tab, "#all")["right"] < box(tab, "#log")["left"]
    size = tab.do("const e = document.documentElement; return [e.scrollWidth, e.scrollHeight]")
    assert size == [width, height]
    tab.click("#stop button")
    tab.wait_for_state("stopped")
    assert box(tab, "#end")["bottom"] <= height


def show_on(driver: webdriver.Chrome, width: int, height: int, *, mobile: bool = True) -> None:
    """Show the page on a screen of another size, until its tab is closed."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def fill_log(tab: Tab) -> None:
    tab.do("for (let n = 0; n < 300; n++) add('message', n, `line ${n}`); flush()")


def box(tab: Tab, selector: str) -> dict[str, float]:
    found: dict[str, float] = tab.do(
        "return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()", selector
    )
    return found


def test_many_lines(tmp_path: Path, open_tab: Callable[[str], Tab]) -> None:
    """A command that floods the page with lines can be stopped, and the last lines are kept."""
    with demo_server(tmp_path, "--", "yes") as demo:
        tab = open_tab(demo.url)
        tab.start("check")
        until(lambda: len(tab.numbers()) == 500, lambda: tab.text("#numbers"))
        tab.click("#stop button")
        tab.wait_for_state("stopped")
        assert len(tab.numbers()) == 500


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://elsewhere.example"}, {"host": "elsewhere.example:8000"}],
    ids=["origin", "host"],
)
def test_another_page(demo: DemoServer, headers: dict[str, str]) -> None:
    """No other page can start a process, also not one whose name leads to this computer."""
    before = demo.runs()
    url = f"{demo.url}/runs/check"
    assert httpx.post(url, headers=headers, trust_env=False).status_code == 403
    assert demo.runs() == before


def test_too_many_runs(tmp_path: Path, children: Children) -> None:
    """There are eight runs at most, and the page shows why there is no more."""
    with demo_server(tmp_path, *children.command) as demo, httpx.Client(trust_env=False) as client:
        ids = [client.post(f"{demo.url}/runs/check").json()["id"] for _ in range(8)]
        assert client.post(f"{demo.url}/runs/check").status_code == 503
        for run_id in ids:
            demo.stop(run_id)
        assert children.are_gone()
        until(lambda: {run["state"] for run in demo.runs()} == {"cancelled"}, demo.runs)
        answer = client.post(f"{demo.url}/runs/fail")
        assert answer.status_code == 201
        until(lambda: demo.run(answer.json()["id"])["state"] == "failed", demo.runs)


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
