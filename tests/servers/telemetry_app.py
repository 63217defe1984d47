"""An application of FastAPI that measures itself, and so do its streams; ``/told`` says what."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastapi import FastAPI
from opentelemetry.trace import SpanKind

from streamkit.asgi import StreamHost
from streamkit.starlette import EventStream, StreamResponse
from support.telemetry import DURATION, Told, ours

told = Told()
REQUESTS = "http.server.request.duration"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    async with StreamHost(telemetry=told.telemetry()) as host:
        yield {"host": host}


app = FastAPI(
    lifespan=lifespan, telemetry={"tracer_provider": told.tracers, "meter_provider": told.meters}
)


async def answer(kind: str) -> AsyncGenerator[str, None]:
    yield "first"
    if kind == "failed":
        raise ValueError("of the source")
    if kind == "kept in send":
        while True:
            await anyio.sleep(0.01)
            yield "x" * 1_000_000
    if kind != "completed":
        await anyio.sleep_forever()


@app.get("/streams/{kind}/{id}", response_model=None)
async def stream(kind: str, id: int, on_disconnect: str = "cancel") -> StreamResponse:
    policy: Any = on_disconnect
    return EventStream(
        answer(kind), keepalive=0.1, on_disconnect=policy, drain_timeout=0.5, log_failures=False
    )


@app.get("/told")
async def what_was_told() -> dict[str, Any]:
    spans = [span for span in told.spans if span.kind is SpanKind.SERVER]
    return {
        "spans": [
            {"status": span.status.status_code.name, **ours(span.attributes)}
            for span in spans
            if (span.attributes or {}).get("url.path", "").startswith("/streams/")
        ],
        "requests": [
            {**attributes, "count": count}
            for attributes, count in told.counts(REQUESTS)
            if attributes.get("http.route", "").startswith("/streams/")
        ],
        "ends": told.ends,
        "routes": [attributes.get("http.route") for attributes, _ in told.sums(DURATION)],
        "active": told.active,
    }
