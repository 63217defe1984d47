"""Sources of streamkit's own, interrupted everywhere: a thread, a client, what has telemetry."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from streamkit import StreamCancelled, from_thread
from streamkit.client import connect
from streamkit.opentelemetry import with_telemetry
from streamkit.testing import Run, interrupt_everywhere
from support.scripted import LINES, Script, events, script
from support.telemetry import ACTIVE, DURATION, ITEMS, Told

Notes = list[str]

END = b"id: 4\nevent: end\ndata: {}\n\n"
A, B, C = (b"id: %d\ndata: %b\n\n" % pair for pair in ((1, b"a"), (2, b"b"), (3, b"c")))


@pytest.mark.parametrize("waits", [True, False], ids=["waits", "ready"])
def test_from_thread(waits: bool) -> None:
    """L1, H2: wherever who reads it is ended, a generator in a thread is closed, in its thread."""

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Any, Notes]]:
        notes: Notes = []
        threads: set[int] = set()

        def blocking() -> Iterator[str]:
            threads.add(threading.get_ident())
            try:
                for word in ("a", "b"):
                    if waits:
                        threading.Event().wait(0.002)
                    yield word
            except StreamCancelled:
                notes.append("told")
                raise
            finally:
                threads.add(threading.get_ident())
                notes.append("closed")
                assert len(threads) == 1

        yield from_thread(blocking), notes

    def check(run: Run, notes: Notes) -> None:
        # Not begun, it is not told, and has nothing to close.
        assert notes in ([], ["closed"], ["told", "closed"])
        assert notes or not run.items

    report = interrupt_everywhere(make, check, clock="real", max_seconds=600)
    assert report.points
    assert not report.unresolved


SCRIPTS: dict[str, list[Any]] = {
    "at once": [events(A, B, C, END)],
    "slowly": [events(1, A, 2, B, C, END)],
    "cut twice": [events(A), events(B, ConnectionResetError()), events(C, END)],
    "records": [(200, LINES, b'{"n":1}\n', 1, b'{"end":{"kind":"completed"}}\n')],
}


@pytest.mark.parametrize("answers", SCRIPTS.values(), ids=SCRIPTS)
def test_client(answers: list[Any]) -> None:
    """L1, L7: wherever a client is ended, also between two requests, its response is closed."""

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Any, Script]]:
        server = script(*answers)
        async with server.client() as client:
            yield connect(client, "http://example.com/runs/1"), server

    def check(run: Run, server: Script) -> None:
        assert all(body.is_closed and len(body.tasks) == 1 for body in server.bodies)
        ids = [event.id for event in run.items if event.id]
        assert ids == sorted({*ids})

    report = interrupt_everywhere(make, check, max_seconds=600)
    assert len(report.points) > 2
    assert not report.unresolved


def test_telemetry() -> None:
    """L1: wherever a stream is ended, telemetry is told of it once, and no stream is open then."""

    async def words() -> AsyncIterator[str]:
        for word in ("a", "b"):
            await anyio.sleep(1)
            yield word

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Any, Told]]:
        told = Told()
        yield with_telemetry(words(), "chat", meter_provider=told.meters, item_gaps=True), told

    def check(run: Run, told: Told) -> None:
        assert run.outcome is not None
        assert [value for _, value in told.sums(ACTIVE)] == [0]
        [(said, _)] = told.sums(DURATION)
        assert said["streamkit.outcome"] == run.outcome.kind
        assert sum(value for _, value in told.sums(ITEMS)) == run.outcome.items

    report = interrupt_everywhere(make, check, max_seconds=600)
    assert report.points
    assert not report.unresolved
