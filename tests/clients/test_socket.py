"""``examples/websocket.py`` in Chromium, on every server: what a page sees of a socket."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from support import environment
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium import webdriver

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

# Real seconds.
PATIENCE = 20.0


COMMANDS = {
    "uvicorn-sansio": ["uvicorn", "--ws", "websockets-sansio", "--port", "{port}"],
    "uvicorn-websockets": ["uvicorn", "--ws", "websockets", "--port", "{port}"],
    "uvicorn-wsproto": ["uvicorn", "--ws", "wsproto", "--port", "{port}"],
    "hypercorn-asyncio": ["hypercorn", "--bind", "127.0.0.1:{port}"],
    "hypercorn-trio": ["hypercorn", "--worker-class", "trio", "--bind", "127.0.0.1:{port}"],
    "granian": ["granian", "--interface", "asgi", "--port", "{port}"],
}


class Server:
    """The example, on a server that runs."""

    def __init__(self, name: str, directory: Path) -> None:
        port = free_port()
        self._written = directory / "output.txt"
        self.url = f"http://127.0.0.1:{port}/"
        with self._written.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    *(part.replace("{port}", str(port)) for part in COMMANDS[name]),
                    "websocket:app",
                ],
                cwd=EXAMPLES,
                env={**environment(), "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=output,
                stderr=output,
            )
        give_up = time.monotonic() + PATIENCE
        while True:
            assert self._process.poll() is None
            assert time.monotonic() < give_up
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)

    def output(self) -> str:
        return self._written.read_text(encoding="utf-8")

    def terminate(self) -> None:
        self._process.terminate()

    def end(self) -> None:
        """Have it end, with nothing to say about errors."""
        self._process.terminate()
        self._process.wait(PATIENCE)
        assert "Traceback" not in self.output()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def serving(name: str, directory: Path) -> Iterator[Server]:
    server = Server(name, directory)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module", params=list(COMMANDS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def server(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(name, tmp_path_factory.mktemp(name)) as server:
        yield server
        server.end()


@pytest.fixture
def url(server: Server) -> str:
    return server.url


def ask(driver: webdriver.Chrome, url: str) -> None:
    driver.get(url)
    driver.find_element(By.ID, "ask").click()


def wait_for(driver: webdriver.Chrome, name: str, text: str) -> str:
    """Wait until an element has a text in it, and return all of it."""
    found = driver.find_element(By.ID, name)
    WebDriverWait(driver, PATIENCE, 0.05).until(lambda _: text in found.text)
    return found.text


def test_answer(driver: webdriver.Chrome, server: Server) -> None:
    """WS60: a page gets every word, and is told that these are all."""
    ask(driver, server.url)
    assert wait_for(driver, "end", "1") == "1000 completed"
    text = driver.find_element(By.ID, "answer").text
    assert text.startswith("To be, or not to be,")
    assert text.endswith("in the mind to suffer")
    assert "completed after 19 words" in server.output()


def test_stop(driver: webdriver.Chrome, url: str) -> None:
    """WS62: its Stop button is heard in the socket: the last word arrives, and the reason."""
    ask(driver, url)
    wait_for(driver, "answer", "To be,")
    driver.find_element(By.ID, "stop").click()
    assert wait_for(driver, "end", "1") == "1000 cancelled"
    assert driver.find_element(By.ID, "answer").text.endswith("[stopped by the button]")


def test_refused(driver: webdriver.Chrome, url: str) -> None:
    """WS61: it sees why it was refused, which a status would not tell it."""
    ask(driver, f"{url}?question=busy")
    assert wait_for(driver, "end", "1") == "1008 refused"
    assert driver.find_element(By.ID, "answer").text == "Somebody else is asking."


def test_status(driver: webdriver.Chrome, url: str) -> None:
    """WS61: a page sees nothing of a status: that is what ``errors="close"`` is for."""
    driver.get(url)
    script = """
        const done = arguments[arguments.length - 1];
        const socket = new WebSocket(location.href.replace("http", "ws") + "nowhere");
        socket.onclose = ({ code, reason }) => done(code + reason);
    """
    assert driver.execute_async_script(script) == "1006"


def test_leaves(driver: webdriver.Chrome, url: str) -> None:
    """WS64: a page that is left is a client that has gone."""
    ask(driver, url)
    wait_for(driver, "answer", "To be,")
    driver.get("about:blank")
    ask(driver, url)
    wait_for(driver, "answer", "To be,")


def test_sigterm(driver: webdriver.Chrome, name: str, tmp_path: Path) -> None:
    """WS67: a page is told the last word of a server that ends, and that it is to come back."""
    with serving(name, tmp_path) as server:
        ask(driver, server.url)
        wait_for(driver, "answer", "To be,")
        server.terminate()
        found = wait_for(driver, "end", "1")
        if name == "granian":
            # It cuts its sockets while the streams end.
            assert found in ("1006", "1001 shutdown")
        else:
            assert found == "1001 shutdown"
            assert driver.find_element(By.ID, "answer").text.endswith("[stopped by the server]")
        server.end()
        assert "cancelled after" in server.output()
