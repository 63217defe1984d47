"""``RunEvents``, read by ``EventSource`` in Chromium: cut, reloaded, told what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from in_thread import serving

from clients.browser import chromium
from streamkit.asgi import StreamResponse
from streamkit.runs import LogUnavailable, MemoryLog, Page, Runs
from streamkit.sse import RunEvents, ServerSentEvent
from support.cutting_proxy import cutting_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from selenium import webdriver

WATCH = Path(__file__).with_name("events.js").read_text(encoding="utf-8")
NUMBERS = [str(number) for number in range(40)]


async def numbers(pause: float) -> AsyncGenerator[Any, None]:
    yield ServerSentEvent(retry=50)
    for number in NUMBERS:
        yield number
        await anyio.sleep(pause)


class Log(MemoryLog):
    """A log whose next reads fail."""

    away = 0

    async def read(self, run_id: str, after: int, limit: int = 200) -> Page:
        if self.away:
            self.away -= 1
            raise LogUnavailable
        return await super().read(run_id, after, limit)


class Application:
    """A page, and runs: ``/start/ID``, ``/read/ID`` and ``/cut/ID``, which ends after a while."""

    def __init__(self) -> None:
        self.log = Log()
        self.runs = Runs(self.log, max_items=10_000)
        self.requests: list[tuple[str, str | None]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with self.runs:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        _, what, *rest = scope["path"].split("/")
        if what == "start":
            await self.runs.start(numbers(0.15 if rest[0] == "steady" else 0.03), id=rest[0])
        if what in ("read", "cut"):
            seen = dict(scope["headers"]).get(b"last-event-id")
            self.requests.append((rest[0], None if seen is None else seen.decode()))
            answer: Any = RunEvents(self.runs, rest[0], max_age=0.3 if what == "cut" else None)
        else:
            answer = StreamResponse(page(), media_type="text/html")
        await answer(scope, receive, send)


async def page() -> AsyncGenerator[str, None]:
    yield "<!DOCTYPE html><title>test</title>"


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Application, str]]:
    application = Application()
    with serving(application) as url:
        yield application, url


@pytest.fixture(scope="module")
def driver(
    served: tuple[Application, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        driver.get(served[1])
        yield driver


def watch(driver: webdriver.Chrome, url: str, **options: Any) -> list[Any]:
    program = "watch(EventSource, arguments[0], arguments[1]).then(arguments[2]);"
    return [
        note
        for note in driver.execute_async_script(WATCH + program, url, options)
        if note[0] != "onerror"
    ]


def test_cut_again_and_again(served: tuple[Application, str], driver: webdriver.Chrome) -> None:
    """Runs: an EventSource that is cut off several times has every item once, and the end."""
    application, url = served
    driver.get(f"{url}/start/cut")
    *items, end = watch(driver, f"{url}/cut/cut")
    assert [item[1] for item in items] == NUMBERS
    assert (end[0], json.loads(end[1])) == ("end", {"kind": "completed"})
    asked = [seen for run_id, seen in application.requests if run_id == "cut"]
    assert len(asked) > 2
    assert asked[0] is None
    assert all(asked[1:])


def test_behind_a_proxy_that_cuts(
    served: tuple[Application, str], driver: webdriver.Chrome
) -> None:
    """Runs: an EventSource behind a proxy that cuts every connection every two seconds."""
    application, url = served
    with cutting_proxy(int(url.rpartition(":")[2]), every=2.0) as proxy:
        driver.get(f"{url}/start/steady")
        driver.get(f"http://127.0.0.1:{proxy.port}")
        *items, end = watch(driver, f"http://127.0.0.1:{proxy.port}/read/steady")
    assert [item[1] for item in items] == NUMBERS
    assert (end[0], json.loads(end[1])) == ("end", {"kind": "completed"})
    asked = [seen for run_id, seen in application.requests if run_id == "steady"]
    assert len(asked) > 2
    assert all(asked[1:])


def test_reloads(served: tuple[Application, str], driver: webdriver.Chrome) -> None:
    """Runs: a page that is reloaded says where it was in the address, or gets all of it again."""
    _, url = served
    driver.get(f"{url}/start/reload")
    first = watch(driver, f"{url}/read/reload", until=400)
    assert 1 <= len(first) < len(NUMBERS)
    driver.get(url)
    rest = watch(driver, f"{url}/read/reload?starting_after={first[-1][2]}")
    assert [item[1] for item in [*first, *rest][:-1]] == NUMBERS
    assert [item[1] for item in watch(driver, f"{url}/read/reload")][:-1] == NUMBERS


def test_stops(served: tuple[Application, str], driver: webdriver.Chrome) -> None:
    """Runs: a page that closes nothing is told nothing twice, and one without a run that there is
    none, and neither asks for ever.
    """
    application, url = served
    driver.get(f"{url}/start/open")
    notes = watch(driver, f"{url}/read/open", closes=False, until=2500)
    assert [note[0] for note in notes] == ["message"] * len(NUMBERS) + ["end"]
    (end,) = watch(driver, f"{url}/read/unknown")
    assert json.loads(end[1])["kind"] == "gone"
    assert len([None for run_id, _ in application.requests if run_id == "unknown"]) == 1


def test_what_is_missing(served: tuple[Application, str], driver: webdriver.Chrome) -> None:
    """Runs: a page that has seen another run of this id is told so, and gets what is there."""
    _, url = served
    driver.get(f"{url}/start/other")
    resync, *items, _ = watch(driver, f"{url}/read/other?starting_after=ab:3", names=["resync"])
    assert resync[0] == "resync"
    assert json.loads(resync[1])["first"] == 1
    assert [item[1] for item in items] == NUMBERS


def test_log_is_away(
    served: tuple[Application, str], driver: webdriver.Chrome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs: a page that reads a run whose log is away comes back until it is there, which it would
    not after a status.
    """
    monkeypatch.setattr("streamkit._runs.answer._SOON", (200, 300))
    application, url = served
    driver.get(f"{url}/start/away")
    application.log.away = 3
    *items, end = watch(driver, f"{url}/read/away")
    assert [item[1] for item in items] == NUMBERS
    assert (end[0], json.loads(end[1])) == ("end", {"kind": "completed"})
    assert len([None for run_id, _ in application.requests if run_id == "away"]) == 4
