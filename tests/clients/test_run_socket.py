"""``examples/read_run.js`` in Chromium: a run over WebSockets that are cut again and again."""

from __future__ import annotations

from itertools import dropwhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from in_thread import serving

from clients.browser import chromium
from streamkit import StreamCancelled
from streamkit.asgi import StreamResponse
from streamkit.runs import Runs
from streamkit.websocket import RunMessages
from support.cutting_proxy import cutting_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from selenium import webdriver

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "read_run.js"
READ = """
    const [url, stops, done] = arguments;
    const found = [];
    const run = readRun(url.replace("http", "ws"), (item) => {
      found.push(item);
      if (item === stops) run.stop("the button");
    });
    run.ended.then((end) => done([found, end]));
"""
NUMBERS = list(range(40))


async def numbers(pause: float) -> AsyncGenerator[int | str, None]:
    try:
        for number in NUMBERS:
            yield number
            await anyio.sleep(pause)
    except StreamCancelled as stop:
        yield f"stopped by {stop.reason}"


class Application:
    """A page at ``/PAUSE/ID``, which starts a run; at ``/runs/ID`` it is read."""

    def __init__(self) -> None:
        self.runs = Runs()
        self.asked: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with self.runs:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        _, pause, run_id = scope["path"].split("/")
        if scope["type"] == "websocket":
            self.asked.append(scope["query_string"])
            answer: Any = RunMessages(self.runs, run_id, errors="close")
        else:
            await self.runs.start(numbers(float(pause)), id=run_id)
            answer = StreamResponse(page(), media_type="text/html")
        await answer(scope, receive, send)


async def page() -> AsyncGenerator[str, None]:
    yield "<!DOCTYPE html><title>test</title>"


@pytest.fixture
def served() -> Iterator[tuple[Application, str]]:
    application = Application()
    with serving(application) as url:
        yield application, url


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


def read(driver: webdriver.Chrome, url: str, *, stops: int | None = None) -> Any:
    return driver.execute_async_script(EXAMPLE.read_text(encoding="utf-8") + READ, url, stops)


def test_behind_a_proxy_that_cuts(
    served: tuple[Application, str], driver: webdriver.Chrome
) -> None:
    """WS70: a page behind a proxy that cuts every second has every item once, and the end."""
    application, url = served
    with cutting_proxy(int(url.rpartition(":")[2]), every=1.0) as proxy:
        driver.get(f"{url}/0.1/cut")
        found, end = read(driver, f"http://127.0.0.1:{proxy.port}/runs/cut")
    assert (found, end) == (NUMBERS, "completed")
    # A socket may be cut before it has said anything.
    further = list(dropwhile(lambda query: query == b"", application.asked))
    assert application.asked[0] == b""
    assert further
    assert all(query.startswith(b"starting_after=") for query in further)


def test_stop(served: tuple[Application, str], driver: webdriver.Chrome) -> None:
    """WS71: a page stops the run in its socket, and gets the last item of the run."""
    _, url = served
    driver.get(f"{url}/0.05/stopped")
    found, end = read(driver, f"{url}/runs/stopped", stops=3)
    assert found[-1] == "stopped by the button"
    assert found[:-1] == NUMBERS[: len(found) - 1]
    assert end == "cancelled"


def test_not_found(served: tuple[Application, str], driver: webdriver.Chrome) -> None:
    """WS73: a page asks once for a run that is not there, and sees why, which no status tells."""
    application, url = served
    driver.get(f"{url}/0/other")
    assert read(driver, f"{url}/runs/unknown") == [[], "run_not_found"]
    assert len(application.asked) == 1
