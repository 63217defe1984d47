"""What streamkit is made of, interrupted everywhere: combinators, sources, answers and runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from streamkit import (
    CancelRegistry,
    CancelToken,
    Head,
    Outcome,
    merge,
    poll,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_status,
    with_timeout,
)
from streamkit.asgi import StreamHost, StreamResponse
from streamkit.jsonlines import JsonLines
from streamkit.runs import MemoryLog, Runs
from streamkit.sse import EventStream
from streamkit.testing import AsgiClient, Run, interrupt_everywhere

Notes = list[str]
Chain = Callable[[AsyncIterator[Any]], Any]


async def words(notes: Notes, *first: Any) -> AsyncIterator[Any]:
    """Yield words, and note what was shown when it is over."""
    shown: Notes = []
    try:
        for item in first:
            yield item
        for word in ("a", "b"):
            await anyio.sleep(1)
            shown.append(word)
            yield word
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.5)
            notes += shown


async def nobody_stops() -> bool:
    await anyio.sleep(0)
    return False


CHAINS: dict[str, Chain] = {
    "cancellation": lambda source: with_cancellation(source, CancelToken()),
    "registry": lambda source: with_cancellation(source, CancelRegistry().open("key")),
    "poll": lambda source: with_cancellation(source, poll(nobody_stops, every=0.3)),
    "keepalive": lambda source: with_keepalive(source, 0.4, "beat"),
    "timeout": lambda source: with_timeout(source, first=30, idle=20, total=60),
    "buffer": lambda source: with_buffer(source, 3),
    "status": lambda source: with_status(source, final=lambda outcome: [outcome.kind]),
    "all": lambda source: with_status(
        with_keepalive(
            with_timeout(with_buffer(with_cancellation(source, CancelToken()), 2), idle=20),
            0.4,
            "beat",
        )
    ),
    "merge": lambda source: merge(source, words([])),
    "stream in a stream": lambda source: inside(with_cancellation(source)),
}


async def inside(stream: Any) -> AsyncIterator[Any]:
    async with stream:
        async for item in stream:
            yield item


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_combinators(chain: Chain) -> None:
    """L1, L2, L6: wherever and however a chain is ended, its source has cleaned up by then."""

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Any, Notes]]:
        notes: Notes = []
        yield chain(words(notes)), notes

    def check(run: Run, notes: Notes) -> None:
        shown = [item for item in run.items if item in ("a", "b")]
        if chain is not CHAINS["merge"]:
            assert notes[: len(shown)] == shown

    report = interrupt_everywhere(make, check, max_seconds=600)
    assert report.points
    assert not report.unresolved


ANSWERS: dict[str, Callable[..., Any]] = {
    "StreamResponse": StreamResponse,
    "EventStream": EventStream,
    "JsonLines": JsonLines,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_answers(answer: Callable[..., Any]) -> None:
    """L1: wherever the task of a request is cancelled, the source of its answer has cleaned up."""

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Any, tuple[Notes, list[Outcome]]]]:
        notes: Notes = []
        outcomes: list[Outcome] = []

        async def on_end(outcome: Outcome) -> None:
            outcomes.append(outcome)

        async with StreamHost() as host:

            async def app(scope: Any, receive: Any, send: Any) -> None:
                source = words(notes, Head(status=201))
                await answer(source, on_end=on_end, host=host)(scope, receive, send)

            async def request() -> None:
                sent: list[Any] = []
                await app(
                    {"type": "http", "method": "GET", "headers": []},
                    anyio.sleep_forever,
                    collect(sent),
                )
                assert sent[0]["status"] == 201

            yield request, (notes, outcomes)

    def check(run: Run, seen: tuple[Notes, list[Outcome]]) -> None:
        notes, outcomes = seen
        # An answer whose request is cancelled before it begins has no source that could end.
        assert len(outcomes) <= 1
        if outcomes and outcomes[0].items > 1:
            assert notes == ["a", "b"][: len(notes)]

    report = interrupt_everywhere(make, check, max_seconds=600)
    assert report.points


def collect(sent: list[Any]) -> Callable[[Any], Any]:
    async def send(message: Any) -> None:
        sent.append(message)

    return send


def test_answer_and_client() -> None:
    """L1: wherever the client of an answer is cancelled, it has gone, and the source is closed."""

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Any, Notes]]:
        notes: Notes = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await StreamResponse(words(notes))(scope, receive, send)

        async def read() -> bytes:
            async with AsgiClient(app).get("/") as response:
                return await response.read()

        yield read, notes

    def check(run: Run, notes: Notes) -> None:
        assert run.told or (run.result, notes) == (b"ab", ["a", "b"])

    assert interrupt_everywhere(make, check).points


def test_runs() -> None:
    """L1: wherever who starts and reads a run is cancelled, the run goes on to its end."""

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Any, Notes]]:
        notes: Notes = []
        async with Runs(MemoryLog()) as runs:

            async def start_and_read() -> list[Any]:
                info = await runs.start(words(notes))
                async with runs.attach(info.id) as entries:
                    return [entry.item async for entry in entries]

            yield start_and_read, notes
            # Whoever goes, it does not: it may end in its time.
            await anyio.sleep(10)
            assert notes in (["a", "b"], [])

    def check(run: Run, notes: Notes) -> None:
        assert run.told or run.result == ["a", "b"]

    # The source of the run is not at its end, and is not meant to be.
    report = interrupt_everywhere(make, check, ignore=["words"])
    assert report.points
