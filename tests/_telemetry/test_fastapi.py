"""
FastAPI measures its requests itself. It ends their span within the send of the last message, and
calls a client that has gone an error where there is none. What is told in the body is nothing to
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from fastapi import APIRouter, FastAPI, HTTPException

from streamkit import CancelToken, Head, StreamTimeout, with_cancellation, with_timeout
from streamkit.asgi import StreamHost
from streamkit.runs import Runs
from streamkit.starlette import EventStream, RunEvents, StreamResponse
from support import Client, Probe, aiter_of
from support.telemetry import DURATION, ITEMS, Told

if TYPE_CHECKING:
    from collections.abc import Callable

REQUESTS = "http.server.request.duration"


class OwnError(Exception):
    """What a source may raise."""


def application(told: Told, make: Callable[[], Any], **options: Any) -> FastAPI:
    """An application that measures itself, with one endpoint."""
    app = FastAPI(
        telemetry={"tracer_provider": told.tracers, "meter_provider": told.meters}, **options
    )

    async def endpoint(id: int) -> Any:
        return make()

    app.add_api_route("/chat/{id}", endpoint, methods=["GET", "HEAD"], response_model=None)
    return app


async def ask(app: FastAPI, client: Client, **calls: Any) -> None:
    client.scope.update(path="/chat/7", root_path="", http_version="1.1", scheme="http")
    await client.get(app, **calls)


def requests_of(told: Told) -> list[dict[str, Any]]:
    """What FastAPI has measured: the errors and the status of each request."""
    return [
        {name: attributes.get(name) for name in ("error.type", "http.response.status_code")}
        for attributes, _ in told.sums(REQUESTS)
    ]


def request_span(told: Told) -> Any:
    (span,) = [span for span in told.spans if span.kind.name == "SERVER"]
    return span


GOOD = [{"error.type": None, "http.response.status_code": 200}]


async def test_completed() -> None:
    """Telemetry: the end is told on the span of FastAPI, before the last message ends that."""
    told, client = Told(), Client()
    make = lambda: EventStream(Probe("a", every=1).source(), telemetry=told.telemetry("chat"))  # noqa: E731
    await ask(application(told, make), client)
    span = request_span(told)
    assert span.name == "GET /chat/{id}"
    assert span.status.status_code.name == "UNSET"
    assert span.attributes["streamkit.outcome"] == "completed"
    assert span.attributes[ITEMS] == 1
    assert [attributes["http.route"] for attributes, _ in told.sums(DURATION)] == ["/chat/{id}"]
    assert requests_of(told) == GOOD


@pytest.mark.parametrize("has_telemetry", [True, False])
@pytest.mark.parametrize("on_disconnect", ["cancel", "drain", "close"])
@pytest.mark.parametrize("shields", [True, False])
async def test_disconnect(has_telemetry: bool, on_disconnect: Any, shields: bool) -> None:
    """Telemetry: a tab was closed: neither the span nor the metric of FastAPI calls it an error,
    whether or not streamkit has telemetry; also where the server keeps its send in a shield."""
    told = Told()
    client = Client(goes_after=3, takes={2: 10.0} if shields else None, shields=shields)
    telemetry = told.telemetry() if has_telemetry else None

    def make() -> StreamResponse:
        return StreamResponse(
            Probe("a", "b", "c", every=2).source(),
            on_disconnect=on_disconnect,
            telemetry=telemetry,
        )

    await ask(application(told, make), client)
    span = request_span(told)
    assert span.status.status_code.name == "UNSET"
    assert "error.type" not in span.attributes
    assert ("streamkit.outcome" in span.attributes) == has_telemetry
    assert requests_of(told) == GOOD


async def test_disconnect_before_the_first_item() -> None:
    """Telemetry: the client goes before anything was sent: the answer that nobody gets says 499."""
    told = Told()
    make = lambda: StreamResponse(Probe(block=True).source(), telemetry=told.telemetry())  # noqa: E731
    await ask(application(told, make), Client(goes_after=1))
    assert request_span(told).status.status_code.name == "UNSET"
    assert requests_of(told) == [{"error.type": None, "http.response.status_code": 499}]


@pytest.mark.parametrize("error", [OSError("gone"), anyio.BrokenResourceError()])
async def test_server_raises(error: Exception) -> None:
    """Telemetry: a server whose send raises once the client has gone: what it raises for the last
    message goes nowhere. FastAPI then says so itself, on its span; the outcome stays."""
    told, client = Told(), Client(goes_after=1)

    async def send(message: Any) -> None:
        if client.gone.is_set():
            raise error
        await client.send(message)

    source = Probe("a", "b", every=0.6)
    make = lambda: StreamResponse(source.source(), telemetry=told.telemetry())  # noqa: E731
    await ask(application(told, make), client, send=send)
    assert request_span(told).attributes["streamkit.outcome"] == "cancelled"
    assert told.ends == [("cancelled", None)]


async def test_drained() -> None:
    """Telemetry: a stream goes on in its host: its request has ended well, and is over."""
    told = Told()
    async with StreamHost(telemetry=told.telemetry()) as host:
        make = lambda: StreamResponse(  # noqa: E731
            Probe("a", "b", every=2).source(), on_disconnect="drain", host=host
        )
        await ask(application(told, make), Client(goes_after=3))
        assert request_span(told).status.status_code.name == "UNSET"
        assert requests_of(told) == GOOD
        await anyio.sleep(5)
    assert told.ends == [("completed", None)]


@pytest.mark.parametrize("tells", [True, False])
async def test_failed(tells: bool) -> None:
    """Telemetry: a failure that is told in the body is one on the span; one that is raised, too."""
    told, client = Told(), Client()
    final = {"final": lambda outcome: "[failed]"} if tells else {}

    def make() -> StreamResponse:
        return StreamResponse(
            Probe("a", error=OwnError()).source(), telemetry=told.telemetry(), **final
        )

    if tells:
        await ask(application(told, make), client)
    else:
        with pytest.raises(OwnError):
            await ask(application(told, make), client)
    assert client.complete == tells
    span = request_span(told)
    assert span.status.status_code.name == "ERROR"
    assert span.attributes["streamkit.outcome"] == "failed"
    assert span.attributes["error.type"] == f"{__name__}.OwnError"
    # What cannot be had: FastAPI's own metric does not ask the span.
    assert [found["error.type"] is None for found in requests_of(told)] == [tells]


@pytest.mark.parametrize("tells", [True, False])
async def test_timed_out(tells: bool) -> None:
    """Telemetry: so is a limit of time, which is an error of the kind that a consumer would get."""
    told, client = Told(), Client()
    final = {"final": lambda outcome: f"[{outcome.kind}]"} if tells else {}

    def make() -> StreamResponse:
        stream = with_timeout(Probe("a", block=True).source(), idle=2)
        return StreamResponse(stream, telemetry=told.telemetry(), **final)

    if tells:
        await ask(application(told, make), client)
    else:
        with pytest.raises(StreamTimeout):
            await ask(application(told, make), client)
    assert client.complete == tells
    span = request_span(told)
    assert span.status.status_code.name == "ERROR"
    assert span.attributes["streamkit.outcome"] == "timed_out"
    assert span.attributes["error.type"] == "streamkit.StreamTimeout"
    assert [found["error.type"] is None for found in requests_of(told)] == [tells]


async def test_stopped() -> None:
    """Telemetry: a stop is no error, neither for who pressed it nor for FastAPI."""
    told, client, token = Told(), Client(), CancelToken()

    def make() -> StreamResponse:
        stream = with_cancellation(Probe("a", block=True).source(), token)
        return StreamResponse(stream, telemetry=told.telemetry(), final=lambda outcome: "[stopped]")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, application(told, make), client)
        await anyio.sleep(1)
        token.cancel("stop")
    assert client.log.events == [200, "a", "[stopped]", "end"]
    span = request_span(told)
    assert span.status.status_code.name == "UNSET"
    assert span.attributes["streamkit.outcome"] == "cancelled"
    assert requests_of(told) == GOOD


async def test_shut_down() -> None:
    """Telemetry: a stream that the end of the program ends, with its last word, is no error."""
    told, client = Told(), Client()
    async with (
        StreamHost(telemetry=told.telemetry()) as host,
        anyio.create_task_group() as tasks,
    ):
        make = lambda: StreamResponse(  # noqa: E731
            Probe("a", block=True).source(), host=host, final=lambda outcome: "[over]"
        )
        tasks.start_soon(ask, application(told, make), client)
        await anyio.sleep(1)
        host.shut_down()
    assert client.log.events == [200, "a", "[over]", "end"]
    assert request_span(told).status.status_code.name == "UNSET"
    assert request_span(told).attributes["streamkit.outcome"] == "cancelled"
    assert requests_of(told) == GOOD


async def test_http_exception() -> None:
    """Telemetry: an HTTPException before the first item is answered by FastAPI, with its status."""
    told, client = Told(), Client()
    source = Probe(error=HTTPException(404, "no such chat"))
    make = lambda: StreamResponse(source.source(), telemetry=told.telemetry())  # noqa: E731
    await ask(application(told, make), client)
    assert client.log.events[0] == 404
    assert told.ends == [("failed", "fastapi.exceptions.HTTPException")]


async def test_refused() -> None:
    """Telemetry: a request that is refused is an error of the server, by its status, to FastAPI."""
    told, client = Told(), Client()
    async with StreamHost(telemetry=told.telemetry()) as host:
        host.shut_down()
        make = lambda: StreamResponse(aiter_of("a"), host=host)  # noqa: E731
        await ask(application(told, make), client)
    assert client.log.events[0] == 503
    assert told.ends == [("cancelled", None)]
    assert request_span(told).attributes["streamkit.outcome"] == "cancelled"


async def test_head() -> None:
    """Telemetry: HEAD, and a status without a body, end well."""
    told = Told()
    make = lambda: StreamResponse(aiter_of(Head(204)), telemetry=told.telemetry())  # noqa: E731
    await ask(application(told, make), Client("HEAD"))
    await ask(application(told, make), Client())
    assert [found["error.type"] for found in requests_of(told)] == [None, None]


@pytest.mark.parametrize("is_on", [True, False])
async def test_route_of_a_router(is_on: bool) -> None:
    """Telemetry: a route of an included router has its prefix, whether or not FastAPI measures."""
    told, client = Told(), Client()
    app = FastAPI(
        telemetry={"tracer_provider": told.tracers} if is_on else {"exclude": lambda scope: True}
    )
    router = APIRouter(prefix="/chats")

    @router.get("/{id}/messages/{number}", response_model=None)
    async def endpoint(id: str, number: int) -> StreamResponse:
        return StreamResponse(aiter_of("a"), telemetry=told.telemetry())

    app.include_router(router, prefix="/v1")
    client.scope.update(path="/v1/chats/x/messages/3", root_path="", scheme="http")
    await client.get(app)
    assert client.log.events[0] == 200
    ((attributes, _),) = told.sums(ITEMS)
    assert attributes["http.route"] == "/v1/chats/{id}/messages/{number}"


@pytest.mark.parametrize(("is_on", "route"), [(True, "/chat/{id}"), (False, None)])
async def test_route_that_converts(is_on: bool, route: str | None) -> None:
    """Telemetry: a value that the path does not have as it is: FastAPI knows the route, if it
    measures itself."""
    told, client = Told(), Client()
    app = FastAPI(
        telemetry={"tracer_provider": told.tracers} if is_on else {"exclude": lambda scope: True}
    )

    @app.get("/chat/{id:int}", response_model=None)
    async def endpoint(id: int) -> StreamResponse:
        return StreamResponse(aiter_of("a"), telemetry=told.telemetry())

    client.scope.update(path="/chat/007", root_path="", scheme="http")
    await client.get(app)
    assert client.log.events[0] == 200
    assert [attributes.get("http.route") for attributes, _ in told.sums(ITEMS)] == [route]


async def test_run() -> None:
    """Telemetry: a request that starts a run and reads it: the run has a span of its own, a child
    of that of the request, which links to it."""
    told, client = Told(), Client()
    app = FastAPI(telemetry={"tracer_provider": told.tracers, "meter_provider": told.meters})
    async with StreamHost(telemetry=told.telemetry()) as host:
        async with Runs(host=host, telemetry=told.telemetry("answer")) as runs:

            @app.get("/chat/{id}", response_model=None)
            async def endpoint(id: int) -> RunEvents:
                run = await runs.start(Probe("a", every=1, error=OwnError()).source())
                return RunEvents(runs, run.id)

            await ask(app, client)
    request = request_span(told)
    (run,) = [span for span in told.spans if span.name == "run answer"]
    # FastAPI has one for the endpoint in between.
    (endpoint_span,) = [span for span in told.spans if span.name == "fastapi.endpoint"]
    assert run.parent == endpoint_span.context
    assert endpoint_span.parent == request.context
    assert [link.context.span_id for link in request.links] == [run.context.span_id]
    for span, error in (run, f"{__name__}.OwnError"), (request, "streamkit.runs.RunFailed"):
        assert span.status.status_code.name == "ERROR"
        assert span.attributes["streamkit.outcome"] == "failed"
        assert span.attributes["error.type"] == error
    names = sorted(attributes["streamkit.stream.name"] for attributes, _ in told.sums(ITEMS))
    assert names == ["RunEvents", "answer"]
