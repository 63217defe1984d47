"""``examples/websocket.py`` in Chromium: what a page sees of a socket."""

from __future__ import annotations

import subprocess
import sys
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


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = free_port()
    command = ["-m", "uvicorn", "--no-access-log", "--port", str(port), "websocket:app"]
    server = subprocess.Popen(
        [sys.executable, *command],
        cwd=EXAMPLES,
        env={**environment(), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if "running on" in line:
                break
        yield f"http://127.0.0.1:{port}/"
        server.terminate()
        said, _ = server.communicate(timeout=PATIENCE)
        assert "Traceback" not in said
        assert "completed after 19 words" in said
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def ask(driver: webdriver.Chrome, url: str) -> None:
    driver.get(url)
    driver.find_element(By.ID, "ask").click()


def wait_for(driver: webdriver.Chrome, name: str, text: str) -> str:
    """Wait until an element has a text in it, and return all of it."""
    found = driver.find_element(By.ID, name)
    WebDriverWait(driver, PATIENCE, 0.05).until(lambda _: text in found.text)
    return found.text


def test_answer(driver: webdriver.Chrome, url: str) -> None:
    """WS60: a page gets every word, and is told that these are all."""
    ask(driver, url)
    assert wait_for(driver, "end", "1") == "1000 completed"
    text = driver.find_element(By.ID, "answer").text
    assert text.startswith("To be, or not to be,")
    assert text.endswith("in the mind to suffer")


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
