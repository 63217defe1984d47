"""
B5: what a response costs, from the source to ``send``, compared with those that people use.

There is no server: each peer is called as an ASGI application, with a ``send`` that only takes
notes, and never suspends. All send the same bytes, an event for each piece of text, and add nothing
to them. A bare loop is the least, and notices no disconnect and sends no beat. The floors are those
of B1: what it takes to have the source in a task of its own.

An *open* response has sent one item, and waits for its source. Its tasks and its memory are counted
as those of a stream are, beside the task of the request.

The clock and the rounds are those of B1.
"""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from statistics import median
from typing import Any

import anyio
from fastapi import FastAPI
from fastapi.sse import (
    EventSourceResponse as FastAPIResponse,
    ServerSentEvent as FastAPIEvent,
)
from sse_starlette.sse import EventSourceResponse
from starlette.responses import StreamingResponse

from streamkit import with_buffer
from streamkit.asgi import StreamResponse
from streamkit.sse import EventStream

from .backends import installed
from .many_streams import HOLDER, Weight, hold_nothing, open_and_close, weigh
from .peers import BUFFERED_FLOOR, FLOOR, Peer as HandOver, peers_on as hand_overs_on
from .report import Ratio, Result, Table, number
from .rounds import Costs, in_turns
from .settling import Countdown

TITLE = "A response"

SUBJECT = "EventStream"
BUFFERED = "EventStream, buffer of 64"
BYTES = "StreamResponse"
BARE = "bare loop"
STARLETTE = "Starlette StreamingResponse"
SSE_STARLETTE = "sse-starlette"
FASTAPI = "FastAPI SSE"

App = Callable[[Any, Any, Any], Awaitable[None]]
#: Makes the items, of which each peer wants another form.
Source = Callable[[Callable[[str], Any]], AsyncGenerator[Any, None]]
#: Returns an application that answers with a new source each time.
Peer = Callable[[Source], App]


class Run:
    """A number of events on their way: when they set out, and which arrived."""

    def __init__(self, count: int) -> None:
        self.texts = [f"token {item}" for item in range(count)]
        self.sent: list[bytes] = []
        self.started_at = self.ended_at = 0.0
        self._last = event_of(self.texts[-1])

    async def send(self, message: Any) -> None:
        body = message.get("body")
        if body:
            self.sent.append(body)
            if body == self._last:
                self.ended_at = time.thread_time()

    def check(self, what: str) -> None:
        """Refuse what did not send the same bytes."""
        if b"".join(self.sent) != b"".join(map(event_of, self.texts)):
            raise RuntimeError(f"{what} did not send what it was given")

    @property
    def cost(self) -> float:
        """Microseconds per item."""
        return (self.ended_at - self.started_at) / len(self.texts) * 1e6


def event_of(text: str) -> bytes:
    return f"data: {text}\n\n".encode()


async def ready(run: Run, form: Callable[[str], Any]) -> AsyncGenerator[Any, None]:
    """Yield what is there already: never suspends."""
    run.started_at = time.thread_time()
    for text in run.texts:
        yield form(text)


async def suspending(run: Run, form: Callable[[str], Any]) -> AsyncGenerator[Any, None]:
    """Let the event loop run before each item, as what reads from a socket does."""
    run.started_at = time.thread_time()
    for text in run.texts:
        await anyio.sleep(0)  # noqa: ASYNC115  (what users write)
        yield form(text)


SOURCES = {"ready": ready, "suspending": suspending}


# The subject


def event_stream(source: Source) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        # Its last event is the one thing that the others do not send.
        response = EventStream(source(str), final=lambda outcome: None)
        await response(scope, receive, send)

    return app


def buffered(source: Source) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        response = EventStream(with_buffer(source(str), 64), final=lambda outcome: None)
        await response(scope, receive, send)

    return app


def stream_response(source: Source) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await StreamResponse(source(event_of))(scope, receive, send)

    return app


# What else there is


def bare(source: Source) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for event in source(event_of):
            await send(_body(event))

    return app


def floor(hand_over: HandOver, source: Source) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        def take(event: Any) -> None:
            # All of it at once, because it never suspends.
            with suppress(StopIteration):
                send(_body(event)).send(None)

        await send({"type": "http.response.start", "status": 200, "headers": []})
        await hand_over(partial(source, event_of), take)

    return app


def _body(event: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": event, "more_body": True}


def starlette(source: Source) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(source(event_of))(scope, receive, send)

    return app


def sse_starlette(source: Source) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await EventSourceResponse(source(str), sep="\n")(scope, receive, send)

    return app


def fastapi(source: Source) -> App:
    app = FastAPI(openapi_url=None)

    # Bare, the text would become JSON.
    @app.get("/", response_class=FastAPIResponse)
    async def events() -> AsyncGenerator[FastAPIEvent, None]:
        async for event in source(lambda text: FastAPIEvent(raw_data=text)):
            yield event

    return app


def peers_on(backend: str) -> dict[str, Peer]:
    """Return what can be measured on a backend, by name, so that what is compared is close by."""
    hand_overs = hand_overs_on(backend)
    peers: dict[str, Peer] = {
        BARE: bare,
        STARLETTE: starlette,
        BYTES: stream_response,
        FLOOR: partial(floor, hand_overs[FLOOR]),
        BUFFERED_FLOOR: partial(floor, hand_overs[BUFFERED_FLOOR]),
        FASTAPI: fastapi,
        SUBJECT: event_stream,
        BUFFERED: buffered,
    }
    # It asks the event loop of asyncio for a task that notices a shutdown.
    return peers if backend == "trio" else {**peers, SSE_STARLETTE: sse_starlette}


async def request(app: App, send: Callable[[Any], Awaitable[None]]) -> None:
    async def receive() -> Any:
        await anyio.sleep_forever()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "server": ("localhost", 80),
        "client": ("localhost", 50_000),
    }
    await app(scope, receive, send)


# The cost of an item


async def measure_all(backend: str, source: str, count: int, rounds: int) -> Costs:
    """Measure every peer in every round, in the running event loop."""
    peers = peers_on(backend)

    async def measure_one(name: str) -> float:
        return await _measure_one(name, peers[name], source, count)

    return await in_turns(list(peers), rounds, measure_one)


async def _measure_one(name: str, peer: Peer, source: str, count: int) -> float:
    run = Run(count)
    app = peer(partial(SOURCES[source], run))
    gc.collect()
    await request(app, run.send)
    run.check(f"{name!r}, with the {source} source,")
    return run.cost


# An open response


async def weigh_all(backend: str, count: int) -> dict[str, Weight]:
    """Return bytes and tasks of each peer's open response, without those of its request."""
    weights = {}
    # First, and without the task that sse-starlette leaves running.
    peers: dict[str, Peer | None] = {HOLDER: None, **peers_on(backend)}
    for name, peer in peers.items():
        shape = hold_nothing if peer is None else _holding(peer)
        # What the first one loads or caches is not weighed.
        await open_and_close(shape, 1)
        weights[name] = await weigh(shape, count)
    holder = weights.pop(HOLDER)
    return {
        name: Weight((weight.heap - holder.heap) / count, (weight.tasks - holder.tasks) / count)
        for name, weight in weights.items()
    }


def _holding(peer: Peer) -> Callable[[Countdown], Awaitable[None]]:
    opened: Countdown

    async def source(form: Callable[[str], Any]) -> AsyncGenerator[Any, None]:
        yield form("token")
        opened.arrive()
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        pass

    app = peer(source)

    async def hold(countdown: Countdown) -> None:
        nonlocal opened
        opened = countdown
        await request(app, send)

    return hold


def measure(*, quick: bool = False) -> Result:
    count, rounds, open_at_once = (100, 5, 10) if quick else (500, 51, 300)
    result = Result("B5", TITLE)
    for backend in installed():
        costs = {
            source: backend.run(measure_all, backend.name, source, count, rounds)
            for source in SOURCES
        }
        weights = backend.run(weigh_all, backend.name, open_at_once)
        result.tables.append(_table(backend.name, costs, weights))
        result.ratios += _ratios(backend.name, costs, weights)
        result.data[backend.name] = {
            source: {peer: median(numbers) for peer, numbers in costs[source].items()}
            for source in SOURCES
        }
    return result


def _table(title: str, costs: dict[str, Costs], weights: dict[str, Weight]) -> Table:
    columns = ["µs per item"]
    rows = [[peer] for peer in weights]
    for source in SOURCES:
        columns += [source, "per second"]
        for row in rows:
            cost = median(costs[source][row[0]])
            row += [number(cost), f"{round(1e6 / cost, -2):,.0f}"]
    columns += ["KiB, open", "tasks"]
    for row in rows:
        weight = weights[row[0]]
        row += [number(weight.heap / 1024), f"{weight.tasks:.3g}"]
    return Table(title, columns, rows)


def _ratios(backend: str, costs: dict[str, Costs], weights: dict[str, Weight]) -> list[Ratio]:
    ratios = []

    def by(source: str, other: str, subject: str, must: float | None = None) -> None:
        what = f"{backend}, {source}: {subject} / {other}"
        ratios.append(Ratio.of(what, costs[source][subject], costs[source][other], must))

    for source in SOURCES:
        by(source, FASTAPI, SUBJECT, _must_of_fastapi(backend, source))
        by(source, FASTAPI, FLOOR)
        by(source, STARLETTE, BYTES)
        if SSE_STARLETTE in weights:
            by(source, SSE_STARLETTE, SUBJECT, 1.15)
            by(source, SSE_STARLETTE, FLOOR)
            by(source, SSE_STARLETTE, BUFFERED, 0.7)
            by(source, SSE_STARLETTE, BUFFERED_FLOOR)
    # The task that timers have on trio is one for all of a run.
    tasks = round(weights[SUBJECT].tasks, 1)
    ratios.append(Ratio.once(f"{backend}: tasks per response", tasks, 2))
    if SSE_STARLETTE in weights:
        heap = weights[SUBJECT].heap / weights[SSE_STARLETTE].heap
        ratios.append(Ratio.once(f"{backend}: heap / {SSE_STARLETTE}", heap, 0.9))
    return ratios


def _must_of_fastapi(backend: str, source: str) -> float:
    # With a source that suspends, two bare tasks that hand over are at 0.27 and 0.31 already.
    if source == "ready":
        return 0.25
    return 0.46 if backend == "trio" else 0.32
