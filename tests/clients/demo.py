"""``examples/web.py`` as a process, and its page in the tabs of a browser."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import httpx

from support import environment
from support.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium import webdriver

EXAMPLE = ROOT / "examples" / "web.py"

# Real seconds for anything that is to happen on the page.
PATIENCE = 15.0


class DemoServer:
    """The server, its address and what it prints."""

    def __init__(self, written: Path, *arguments: str) -> None:
        self._written = written
        self.command = shlex.join(
            arguments[arguments.index("--") + 1 :] if "--" in arguments else ()
        )
        with written.open("wb") as output:
            # Out of the reach of a Ctrl-C for the tests, and with the default for SIGINT.
            self.process = subprocess.Popen(
                [sys.executable, str(EXAMPLE), "--port", "0", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(),
                start_new_session=True,
            )
        until(lambda: "\n" in self.output(), self.output)
        self.url = self.output().split()[1]

    def output(self) -> str:
        return self._written.read_text()

    def runs(self) -> list[dict[str, Any]]:
        """Return what the server tells of its runs, the oldest first."""
        return httpx.get(f"{self.url}/runs", trust_env=False).json()["runs"]

    def run(self, run_id: str) -> dict[str, Any]:
        """Return what the server tells of one run."""
        return httpx.get(f"{self.url}/runs/{run_id}", trust_env=False).json()

    def stop(self, run_id: str) -> None:
        """Stop a run, as a tab does."""
        answer = httpx.post(f"{self.url}/runs/{run_id}/cancel", content="enough", trust_env=False)
        assert answer.status_code == 200


@contextmanager
def demo_server(directory: Path, *arguments: str) -> Iterator[DemoServer]:
    """Run the demo until the end of the block; its runs end with it."""
    server = DemoServer(directory / "output.txt", *arguments)
    try:
        yield server
    finally:
        server.process.terminate()
        try:
            server.process.wait(PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.process.pid, signal.SIGKILL)  # with its workers
            server.process.wait()
    assert "Traceback" not in server.output()


class Tab:
    """A tab with the page of the demo."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self._driver = driver
        driver.switch_to.new_window("tab")
        driver.get(url)
        self._handle = driver.current_window_handle

    def reload(self) -> None:
        self._driver.switch_to.window(self._handle)
        self._driver.refresh()

    @property
    def address(self) -> str:
        """Return what is to be seen in the address bar: it leads back to the run."""
        address: str = self.do("return location.href")
        return address

    def do(self, script: str, *arguments: object) -> Any:
        """Run a script in the tab, and return what it returns."""
        self._driver.switch_to.window(self._handle)
        return self._driver.execute_script(script, *arguments)

    def click(self, selector: str) -> None:
        """Click on an element, as soon as it is there, to be seen and enabled."""
        self._driver.switch_to.window(self._handle)

        def clicks() -> bool:
            found = self._driver.find_elements("css selector", selector)
            if found and found[0].is_displayed() and found[0].is_enabled():
                found[0].click()
                return True
            return False

        until(clicks, lambda: (selector, self.text("body")))

    def write(self, selector: str, text: str) -> None:
        """Write into a field, in place of what is in it."""
        self._driver.switch_to.window(self._handle)
        field = self._driver.find_element("css selector", selector)
        field.clear()
        field.send_keys(text)

    def text(self, selector: str) -> str:
        """Return the text of an element, as it is to be seen."""
        text: str = self.do("return document.querySelector(arguments[0])?.innerText", selector)
        return text or ""

    def log(self, kind: str = "message") -> list[str]:
        """Return the lines of the output, those of the run or those of another kind."""
        lines: list[str] = self.do(
            "return [...document.querySelectorAll(`#log .${arguments[0]} span`)]"
            ".map((line) => line.textContent)",
            kind,
        )
        return lines

    def numbers(self) -> list[str]:
        """Return what is before the lines of the output: the number of each, or a sign."""
        numbers: list[str] = self.do(
            "return [...document.querySelectorAll('#log [data-id]')].map((row) => row.dataset.id)"
        )
        return numbers

    def start(self, name: str) -> str:
        """Start a run and return its id."""
        before = self.address
        self.click(f"[data-name={name}]")
        until(lambda: self.address != before, lambda: self.text("body"))
        return self.address.partition("#")[2]

    def wait_for_state(self, state: str) -> None:
        until(lambda: self.text("#state") == state, lambda: (state, self.text("body")))

    def wait_for_line(self, start: str) -> None:
        """Wait until there is a line that begins so."""
        until(
            lambda: any(line.startswith(start) for line in self.log()),
            lambda: (start, self.text("body")),
        )

    def listed(self, run_id: str) -> str:
        """Return the row of a run in the list of all."""
        return self.text(f"#runs [data-id='{run_id}']")

    def close(self) -> None:
        """Close the tab, as its user does. One is left for the browser to live on."""
        self._driver.switch_to.window(self._handle)
        self._driver.close()
        self._driver.switch_to.window(self._driver.window_handles[0])


def until(condition: Callable[[], object], what: Callable[[], object]) -> None:
    """Wait until something is so, and fail with what there is instead."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)
