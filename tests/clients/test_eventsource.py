"""``EventSource`` in Chromium, and the one for Node.js."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from clients.browser import chromium
from clients.scripts import CUT, script, shut_down
from streamkit.sse import BROWSER, RAW, ServerSentEvent, last_event_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium import webdriver

    from streamkit import OutcomeKind
    from support.event_server import EventServer

WATCH = Path(__file__).with_name("events.js").read_text(encoding="utf-8")
ITEMS = ({"text": "a"}, "b\nc", {"text": " d"})
ODD = "a\u2028b\x85c\x0bd\0e\ufeff\U0001d11e"


class Watch(Protocol):
    """Opens a source and returns its notes: each event, with its data and the last id."""

    def __call__(self, url: str, **options: Any) -> list[Any]: ...


@pytest.fixture(scope="module")
def driver(
    server: EventServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        driver.get(server.answer([b"<!DOCTYPE html><title>test</title>"]).url)
        yield driver


@pytest.fixture
def in_chromium(driver: webdriver.Chrome) -> Watch:
    def watch(url: str, **options: Any) -> list[Any]:
        program = "watch(EventSource, arguments[0], arguments[1]).then(arguments[2]);"
        return driver.execute_async_script(WATCH + program, url, options)

    return watch


@pytest.fixture
def in_node() -> Watch:
    where = os.environ.get("EVENTSOURCE")
    assert where, "EVENTSOURCE must be where npm has installed eventsource: run 'nox -s clients'"

    def watch(url: str, **options: Any) -> list[Any]:
        program = f"""
            const {{ EventSource }} = require("eventsource");
            const [url, options] = {json.dumps([url, options])};
            watch(EventSource, url, options).then((log) => console.log(JSON.stringify(log)));
        """
        result = subprocess.run(
            ["node", "--eval", WATCH + program],
            cwd=where,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        # Also no warning, as of a timer that is too long.
        assert result.stderr == ""
        log = json.loads(result.stdout)
        assert isinstance(log, list)
        return log

    return watch


@pytest.fixture(params=["in_chromium", "in_node"])
def watch(request: pytest.FixtureRequest) -> Watch:
    found: Watch = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("kind", ["completed", *CUT])
def test_events(server: EventServer, watch: Watch, kind: OutcomeKind) -> None:
    """Every item arrives with its id, nothing for the beats, and the kind of the end last.

    No error is seen, and the client does not connect again.
    """
    answer = server.answer(script(BROWSER, ITEMS, kind), BROWSER)
    *items, end = watch(answer.url)
    assert items == [
        ["message", '{"text": "a"}', "evt-0"],
        ["message", "b\nc", "evt-0"],
        ["message", '{"text": " d"}', "evt-2"],
    ]
    assert end[0] == "end"
    assert json.loads(end[1])["kind"] == kind
    assert len(answer.requests) == 1


def test_odd_text(server: EventServer, watch: Watch) -> None:
    """What other encoders take for the end of a line is text, also in a name and an id."""
    name = ODD.replace("\0", "")
    frames = [
        ServerSentEvent(f" {ODD}\ud800\r\n", event=name, id="é\u2028").encode(),
        ServerSentEvent("z" * 300_000).encode(),
        *script(BROWSER, []),
    ]
    odd, huge, _ = watch(server.answer(frames, BROWSER).url, names=[name])
    assert odd == [name, f" {ODD}\ufffd\n", "é\u2028"]
    assert huge[1] == "z" * 300_000


SOON = ServerSentEvent(retry=20).encode()


def test_a_page_that_does_not_close(server: EventServer, watch: Watch) -> None:
    """A page that ignores the last event does not start the run anew: it is told to wait.

    It sees that the connection has ended.
    """
    answer = server.answer([SOON, *script(BROWSER, ITEMS)], BROWSER)
    notes = watch(answer.url, closes=False, until=1500)
    assert [note[0] for note in notes] == ["message"] * 3 + ["end", "onerror"]
    assert len(answer.requests) == 1


def test_shut_down(server: EventServer, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that closes its source on every end but that of a shutdown comes back after it.

    It says which event it has seen, and one that closes at once does not come back.
    """
    monkeypatch.setattr("streamkit._sse.browser._SOON", (50, 60))
    frames = [*script(BROWSER, ITEMS)[:-1], *shut_down(BROWSER, [])[1:]]
    answer = server.answer(frames, BROWSER)
    notes = watch(answer.url, staysOpen=["shutdown"], opens=2)
    assert [note[0] for note in notes[:5]] == ["message"] * 3 + ["end", "onerror"]
    assert json.loads(notes[3][1]) == {"kind": "shutdown", "message": "Sorry."}
    first, second = answer.requests
    assert (last_event_id(first), last_event_id(second)) == (None, "evt-2")
    answer = server.answer(frames, BROWSER)
    watch(answer.url)
    assert len(answer.requests) == 1


@pytest.mark.parametrize("status", [204, 500, 502, 503])
def test_a_status(server: EventServer, watch: Watch, status: int) -> None:
    """After any status but 200 it never comes back: why a refusal is an event by default."""
    answer = server.answer([SOON], BROWSER, status=status)
    notes = watch(answer.url, until=1500)
    closed = 2
    assert [(note[0], note[2]) for note in notes] == [("onerror", closed)]
    assert len(answer.requests) == 1
    assert BROWSER.errors == "event"


def test_a_connection_that_is_lost(server: EventServer, watch: Watch) -> None:
    """Without a last event the client connects again, and says which event it has seen."""
    frames = [SOON, *script(BROWSER, ITEMS)[:-1], ServerSentEvent("", id=" ключ 7").encode()]
    answer = server.answer([*frames, BROWSER.beat], RAW, aborts=True)
    notes = watch(answer.url, opens=2)
    assert "onerror" in [note[0] for note in notes]
    first, second = answer.requests
    assert last_event_id(first) is None
    assert (last_event_id(second) or "").strip() == "ключ 7"


def test_an_event_named_error_is_mistaken(server: EventServer, watch: Watch) -> None:
    """A page can't tell an event named ``error`` from a lost connection: why there is none."""
    frames = [ServerSentEvent("mine", event="error").encode(), *script(BROWSER, [])]
    assert watch(server.answer(frames, BROWSER).url)[0] == ["onerror", "mine", 1]
