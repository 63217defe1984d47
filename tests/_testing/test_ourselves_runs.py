"""Answers of runs, and sockets, interrupted everywhere: whoever reads goes, and the run goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from streamkit import Outcome, StreamCancelled
from streamkit.asgi import StreamHost, WebSocketStream
from streamkit.runs import MemoryLog, Runs
from streamkit.sse import BROWSER, OPENAI_CHAT, RunEvents
from streamkit.testing import Run, interrupt_everywhere
from streamkit.websocket import RunMessages
from support import Client, Socket
from support.socket import STOP

Notes = list[str]
App = Callable[[Any, Any, Any], Awaitable[None]]


async def words(notes: Notes) -> AsyncIterator[str]:
    """Yield words, and note what was shown, and whether it was told to stop."""
    shown: Notes = []
    try:
        for word in ("a", "b"):
            await anyio.sleep(1)
            shown.append(word)
            yield word
    except StreamCancelled as stop:
        notes.append(f"told {stop.reason}")
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.5)
            notes += shown


READERS: dict[str, Callable[[Runs, str], App]] = {
    "RunEvents": RunEvents,
    "RunEvents for browsers": lambda runs, id: RunEvents(runs, id, profile=BROWSER, keepalive=0.4),
    "RunEvents as of OpenAI": lambda runs, id: RunEvents(runs, id, profile=OPENAI_CHAT),
    "RunMessages": RunMessages,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("has_ended", [False, True], ids=["goes on", "has ended"])
def test_readers(reader: Callable[[Runs, str], App], has_ended: bool) -> None:
    """L1: wherever the request of a reader is cancelled, the run goes on to its end."""

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Any, Notes]]:
        notes: Notes = []
        async with Runs(MemoryLog()) as runs:
            info = await runs.start(words(notes))
            if has_ended:
                await anyio.sleep(10)

            async def read() -> None:
                answer = reader(runs, info.id)
                if isinstance(answer, RunMessages):
                    await Socket().open(answer)
                else:
                    await Client().get(answer)

            yield read, notes
            await anyio.sleep(10)
            assert (await runs.get(info.id)).state == "ended"
            assert notes == ["a", "b"]

    # The source of the run is not at its end when its reader is.
    report = interrupt_everywhere(make, ignore=["words"], max_seconds=600)
    assert len(report.points) > (0 if has_ended else 2)
    assert not report.unresolved


@pytest.mark.parametrize(
    "says", [{}, {1.5: STOP}, {0.5: "anything"}], ids=["silent", "stops", "says something else"]
)
def test_socket(says: dict[float, str]) -> None:
    """L1: wherever the task of a socket is cancelled, its source has cleaned up by then."""

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Any, tuple[Notes, list[Outcome]]]]:
        notes: Notes = []
        outcomes: list[Outcome] = []

        async def on_end(outcome: Outcome) -> None:
            outcomes.append(outcome)

        async with StreamHost() as host:

            async def serve() -> None:
                stream = WebSocketStream(words(notes), on_end=on_end, host=host, keepalive=0.4)
                await Socket(says=says).open(stream)

            yield serve, (notes, outcomes)
        assert host.stats().open == 0

    def check(run: Run, seen: tuple[Notes, list[Outcome]]) -> None:
        notes, outcomes = seen
        assert len(outcomes) <= 1
        shown = [note for note in notes if not note.startswith("told")]
        if outcomes:
            assert shown[: outcomes[0].items] == ["a", "b"][: outcomes[0].items]
        if run.kind is None:
            assert outcomes[0].kind == ("cancelled" if STOP in says.values() else "completed")

    report = interrupt_everywhere(make, check, max_seconds=600)
    assert len(report.points) > 2
    assert not report.unresolved


def test_run_stopped_by_a_socket() -> None:
    """L1, WS71: a reader stops a run and is cancelled anywhere: the run ends, told or not."""

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Any, Notes]]:
        notes: Notes = []
        async with Runs(MemoryLog()) as runs:
            info = await runs.start(words(notes))

            async def read() -> None:
                await Socket(says={1.5: STOP}).open(RunMessages(runs, info.id))

            yield read, notes
            await anyio.sleep(20)
            assert (await runs.get(info.id)).state == "ended"
            assert notes in (["told enough", "a"], ["a", "b"])

    report = interrupt_everywhere(make, ignore=["words"], max_seconds=600)
    assert len(report.points) > 2
    assert not report.unresolved
