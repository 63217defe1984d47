"""Responses of Starlette and FastAPI: what both frameworks do with any response, with ours."""

from __future__ import annotations

import gzip
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.exceptions import FastAPIError
from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import streamkit.asgi
import streamkit.jsonlines
import streamkit.sse
from observing import blocked, call_later
from streamkit import Head, Outcome
from streamkit.asgi import Disconnected, StreamHost
from streamkit.sse import OPENAI_CHAT
from streamkit.starlette import EventStream, StreamResponse
from support import Client, Log, Probe, aiter_of

pytestmark = pytest.mark.one_of_each

Endpoint = Callable[[Request], Any]


class ConflictError(Exception):
    """What a source may raise, and an exception handler answers."""


async def answer_conflict(request: Request, exc: Exception) -> Response:
    return JSONResponse({"error": "busy"}, 409)


def on_starlette(endpoint: Endpoint, **options: Any) -> Starlette:
    return Starlette(routes=[Route("/", endpoint)], **options)


def on_fastapi(endpoint: Endpoint, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    app.add_api_route("/", endpoint, methods=["GET", "HEAD"])
    return app


each_framework = pytest.mark.parametrize("framework", [on_starlette, on_fastapi])


def returning(response: Response) -> Endpoint:
    """Make an endpoint that returns this."""

    async def endpoint(request: Request) -> Response:
        return response

    return endpoint


def noting(log: Log, event: str) -> BackgroundTask:
    async def note() -> None:
        log(event)

    return BackgroundTask(note)


@each_framework
class TestFramework:
    async def test_items(self, framework: Any) -> None:
        """Web: an endpoint returns a response, and the items go out as they come."""
        client, probe = Client(), Probe("a", "b", every=1.0)
        await client.get(framework(returning(StreamResponse(probe.source()))))
        assert client.log == [(1.0, 200), (1.0, "a"), (2.0, "b"), (2.0, "end")]
        assert client.headers == {
            "content-type": "text/plain; charset=utf-8",
            "cache-control": "no-cache, no-transform",
            "x-accel-buffering": "no",
        }
        assert probe.closed == 1

    async def test_events(self, framework: Any) -> None:
        """Web: an endpoint returns events, with beats while the source is silent."""
        client, probe = Client(), Probe("a", every=30.0)
        response = EventStream(probe.source(), profile=OPENAI_CHAT, first_item_within=10)
        await client.get(framework(returning(response)))
        assert client.log == [
            (10.0, 200),
            (10.0, ": ping\n"),
            (25.0, ": ping\n"),
            (30.0, "data: a\n\n"),
            (30.0, "data: [DONE]\n\n"),
            (30.0, "end"),
        ]
        assert client.headers["content-type"] == "text/event-stream; charset=utf-8"

    async def test_http_exception(self, framework: Any) -> None:
        """Web: an HTTPException before the first item is answered as if the endpoint raised it."""
        client, log = Client(), Log()
        probe = Probe[str](error=HTTPException(404, "no such run"))
        response = StreamResponse(probe.source(), background=noting(log, "background"))
        await client.get(framework(returning(response)))
        assert client.log.events[0] == 404
        assert "no such run" in str(client.log.events[1])
        assert (client.complete, probe.closed, log) == (True, 1, [])

    async def test_exception_handler(self, framework: Any) -> None:
        """Web: an exception before the first item is for the handler of its class."""
        client = Client()
        response = StreamResponse(Probe[str](error=ConflictError()).source())
        app = framework(returning(response), exception_handlers={ConflictError: answer_conflict})
        await client.get(app)
        assert client.log.events == [409, '{"error":"busy"}', "end"]

    async def test_unhandled(self, framework: Any) -> None:
        """Web: for any other one there is a 500, and the server gets the same object."""
        client, error = Client(), LookupError("secret")
        with pytest.raises(LookupError) as caught:
            await client.get(framework(returning(StreamResponse(Probe[str](error=error).source()))))
        assert caught.value is error
        assert client.log.events == [500, "Internal Server Error", "end"]

    async def test_error_in_the_middle(self, framework: Any) -> None:
        """Web: later, an error cuts the connection, also one that has a handler."""
        client, log, error = Client(), Log(), ConflictError()
        response = StreamResponse(
            Probe("a", error=error).source(), background=noting(log, "background")
        )
        app = framework(returning(response), exception_handlers={ConflictError: answer_conflict})
        with pytest.raises(RuntimeError, match="response already started") as caught:
            await client.get(app)
        assert caught.value.__cause__ is error
        assert client.log.events == [200, "a"]
        assert (client.complete, log) == (False, [])

    async def test_background(self, framework: Any) -> None:
        """Web: the background task runs when the answer is complete and the source is closed."""
        client = Client()
        response = StreamResponse(
            blocked(client.log, "a"),
            background=noting(client.log, "background"),
            grace=0,
            final=lambda outcome: "last",
        )
        host = StreamHost()
        client.scope["state"] = {"host": host}
        async with host, anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 2.0, host.shut_down)
            await client.get(framework(returning(response)))
        assert client.log.events == [
            *(200, "a"),
            *("source: told to Shutdown()", "closed"),
            *("last", "end", "background"),
        ]

    async def test_background_of_a_refused_one(self, framework: Any) -> None:
        """Web: the source of a refused response is closed, too, so the background task runs."""
        client = Client()
        source = aiter_of("never")
        response = StreamResponse(source, background=noting(client.log, "background"))
        async with StreamHost() as host:
            host.shut_down()
            client.scope["state"] = {"host": host}
            await client.get(framework(returning(response)))
        assert client.log.events[0] == 503
        assert client.log.events[-2:] == ["end", "background"]

    async def test_client_goes(self, framework: Any) -> None:
        """Web: the source of a client that has gone is told, then the background task runs."""
        client, log = Client(goes_after=3.0), Log()
        response = StreamResponse(blocked(log, "a"), background=noting(log, "background"))
        log.start()
        await client.get(framework(returning(response)))
        reason = f"source: told to {Disconnected()}"
        assert log == [(3.0, reason), (3.0, "closed"), (3.0, "background")]

    async def test_head_request(self, framework: Any) -> None:
        """Web: HEAD does not start the source; the background task runs."""
        client, probe, log = Client("HEAD"), Probe("a"), Log()
        response = StreamResponse(
            probe.source(), status_code=203, background=noting(log, "background")
        )
        await client.get(framework(returning(response)))
        assert client.log.events == [203, "end"]
        assert (probe.started, log.events) == (False, ["background"])


class TestResponse:
    def test_is_both(self) -> None:
        """Web: the classes are those of Starlette and of ASGI, so each finds what it looks for."""
        assert issubclass(StreamResponse, Response)
        assert issubclass(StreamResponse, streamkit.asgi.StreamResponse)
        assert issubclass(EventStream, StreamResponse)
        assert issubclass(EventStream, streamkit.sse.EventStream)

    @pytest.mark.parametrize("kind", [StreamResponse, EventStream])
    @pytest.mark.parametrize(
        ("status", "error"), [("409", TypeError), (True, TypeError), (99, ValueError)], ids=repr
    )
    async def test_wrong_status_code(self, kind: Any, status: Any, error: type[Exception]) -> None:
        """Web: a status that is none is refused where it is written, or when it is set later."""
        with pytest.raises(error, match=r"status_code must be an int .*; write status_code=409"):
            kind(aiter_of("a"), status_code=status)
        client, probe = Client(), Probe("a")
        response = kind(probe.source())
        response.status_code = status
        with pytest.raises(error, match="status_code must be an int"):
            await client.get(response)
        assert (client.log, probe.started) == ([], False)

    @pytest.mark.parametrize("kind", [StreamResponse, EventStream])
    async def test_status_code(self, kind: Any) -> None:
        """Web: the status may be given, and set until the response is called."""
        for response, status in (
            (kind(aiter_of("a"), status_code=202), 202),
            (kind(aiter_of(), status_code=202), 202),
            (kind(aiter_of("a")), 203),
        ):
            assert response.status_code in (200, 202)
            response.status_code = status
            client = Client()
            await client.get(response)
            assert client.log.events[0] == status

    async def test_status_of_a_head(self) -> None:
        """Web: what the source says is the status, whatever was given."""
        client = Client()
        await client.get(StreamResponse(aiter_of(Head(409), "a"), status_code=202))
        assert client.log.events == [409, "a", "end"]

    async def test_status_after_silence(self) -> None:
        """Web: the status that was given goes out when the first item takes too long."""
        client, probe = Client(), Probe("a", every=20.0)
        await client.get(StreamResponse(probe.source(), status_code=202))
        assert client.log == [(15.0, 202), (20.0, "a"), (20.0, "end")]

    async def test_headers(self) -> None:
        """Web: headers may be changed until the response is called; a Head has the last word."""
        source = aiter_of(Head(200, {"x-b": "of the source"}), "a")
        response = StreamResponse(source, headers={"X-A": "given", "x-b": "given"})
        assert response.headers["x-a"] == "given"
        response.headers["x-a"] = "set"
        del response.headers["cache-control"]
        client = Client()
        await client.get(response)
        assert client.headers == {
            "content-type": "text/plain; charset=utf-8",
            "x-accel-buffering": "no",
            "x-a": "set",
            "x-b": "of the source",
        }

    async def test_other_headers(self) -> None:
        """Web: all headers may be replaced, as the method that Starlette has for it does."""
        response = StreamResponse(aiter_of("a"))
        response.init_headers({"x-a": "1"})
        client = Client()
        await client.get(response)
        assert client.headers == {"x-a": "1", "content-type": "text/plain; charset=utf-8"}

    async def test_cookies(self) -> None:
        """Web: cookies may be set and deleted, and one in a Head comes on top of them."""
        sent: list[Any] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        response = EventStream(aiter_of(Head(200, {"set-cookie": "c=3"}), "a"))
        response.set_cookie("a", "1")
        response.delete_cookie("b")
        await Client().get(response, send=send)
        cookies = [value for name, value in sent[0]["headers"] if name == b"set-cookie"]
        assert [cookie.partition(b"=")[0] for cookie in cookies] == [b"a", b"b", b"c"]

    def test_media_type(self) -> None:
        """Web: the content type is given, or that of the class, as in all of Starlette."""

        class Lines(StreamResponse):
            media_type = "application/x-ndjson"

        class Untyped(StreamResponse):
            media_type = None

        def content_type(kind: type[StreamResponse], **options: Any) -> str | None:
            return kind(aiter_of("a"), **options).headers.get("content-type")

        assert content_type(StreamResponse) == "text/plain; charset=utf-8"
        assert content_type(StreamResponse, media_type="text/csv") == "text/csv; charset=utf-8"
        latin = "text/csv; Charset=latin-1"
        assert content_type(StreamResponse, media_type=latin) == latin
        assert content_type(Lines) == "application/x-ndjson"
        assert content_type(Untyped) is None
        assert StreamResponse(aiter_of("a"), media_type="text/csv").media_type == "text/csv"

    @pytest.mark.parametrize("kind", [StreamResponse, EventStream])
    def test_wrong(self, kind: Any) -> None:
        """Web: a wrong argument is refused at once, with advice."""
        with pytest.raises(ValueError, match=r"'cancel', 'drain' or 'close'"):
            kind(aiter_of("a"), on_disconnect="ignore")
        with pytest.raises(TypeError, match="async"):
            kind(["a"])

    async def test_error_of_the_background(self) -> None:
        """Web: what the background task raises is raised, when the answer is complete."""

        async def fail() -> None:
            raise LookupError

        client = Client()
        with pytest.raises(LookupError):
            await client.get(StreamResponse(aiter_of("a"), background=BackgroundTask(fail)))
        assert client.complete

    async def test_complete_on_a_host_that_drains(self) -> None:
        """Web: where the client stays, nothing is drained, and it runs all the same."""
        client = Client()

        async def background() -> None:
            client.log("background")

        async with StreamHost() as host:
            task = BackgroundTask(background)
            await client.get(
                StreamResponse(aiter_of("a"), background=task, on_disconnect="drain", host=host)
            )
            assert client.log.events == [200, "a", "end", "background"]

    @pytest.mark.parametrize("hosted", [True, False])
    async def test_drained(self, hosted: bool) -> None:
        """Web: the background task of a drained stream runs when its source is closed."""
        log, probe = Log(), Probe(*"abcde", every=1.0)

        async def background() -> None:
            log(f"background, closed {probe.closed} times")

        async with StreamHost() as host:
            response = StreamResponse(
                probe.source(),
                background=BackgroundTask(background),
                on_disconnect="drain",
                host=host if hosted else None,
            )
            log.start()
            await Client(goes_after=2.5).get(response)
            log("request ended")
            await anyio.sleep(10)
        drained = (5.0, "background, closed 1 times")
        assert log == ([(2.5, "request ended"), drained] if hosted else [drained, (5.0, log[1][1])])

    async def test_background_in_a_host_that_is_cancelled(self) -> None:
        """Web: the host waits for a background task; one without end is cancelled with the host."""
        log = Log()

        async def background() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                log("background ended")

        log.start()
        with anyio.move_on_after(9.0):
            async with StreamHost() as host:
                response = StreamResponse(
                    Probe("a", every=4.0).source(),
                    background=BackgroundTask(background),
                    on_disconnect="drain",
                    host=host,
                )
                await Client(goes_after=1.0).get(response)
        assert log == [(9.0, "background ended")]


class TestFastAPI:
    async def test_annotation_and_response_class(self) -> None:
        """Web: a return annotation or response_class tells the documentation what is sent."""
        app = FastAPI()

        @app.get("/a", response_class=EventStream)
        async def events() -> Any:
            return EventStream(aiter_of("a"))

        @app.get("/b")
        async def annotated() -> EventStream:
            return EventStream(aiter_of("a"))

        paths = app.openapi()["paths"]
        assert list(paths["/a"]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]
        for path in "/a", "/b":
            client = Client()
            client.scope["path"] = path
            await client.get(app)
            assert client.log.events[:2] == [200, "data: a\n\n"]

    @pytest.mark.parametrize("goes_after", [1.5, 9.0])
    async def test_dependency(self, goes_after: float) -> None:
        """Web: what an endpoint depends on is closed after the source, also if the client goes."""
        log = Log()

        async def session() -> AsyncIterator[str]:
            log("opened")
            yield "session"
            log("closed")

        async def source(session: str) -> AsyncGenerator[str, None]:
            try:
                for number in range(3):
                    await anyio.sleep(1)
                    yield f"{number} of {session}"
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.25)
                log("source closed")

        app = FastAPI()

        async def endpoint(session: Annotated[str, Depends(session)]) -> StreamResponse:
            return StreamResponse(source(session))

        # Not by the name in the annotation, which is local here.
        endpoint.__annotations__["session"] = Annotated[str, Depends(session)]
        app.add_api_route("/", endpoint)
        client = Client(goes_after=goes_after)
        await client.get(app)
        assert log.events == ["opened", "source closed", "closed"]
        assert client.log.events[:2] == [200, "0 of session"]

    async def test_dependency_sees_the_error(self) -> None:
        """Web: what is raised before the first item is raised in the dependencies, and answered."""
        seen: list[BaseException] = []
        error = HTTPException(404)

        async def session() -> AsyncIterator[None]:
            try:
                yield
            except HTTPException as exc:
                seen.append(exc)
                raise

        app = FastAPI(dependencies=[Depends(session)])
        app.add_api_route("/", returning(StreamResponse(Probe[str](error=error).source())))
        client = Client()
        await client.get(app)
        assert client.log.events[0] == 404
        assert seen == [error]

    async def test_background_tasks(self) -> None:
        """Web: tasks that an endpoint adds to BackgroundTasks run when the source is closed."""
        probe, closed = Probe("a"), []

        async def note() -> None:
            closed.append(probe.closed)

        async def endpoint(tasks: BackgroundTasks) -> StreamResponse:
            tasks.add_task(note)
            return StreamResponse(probe.source())

        app = FastAPI()
        app.add_api_route("/", endpoint)
        await Client().get(app)
        assert closed == [1]


RESPONSES = [
    streamkit.asgi.StreamResponse,
    streamkit.sse.EventStream,
    streamkit.jsonlines.JsonLines,
]


class TestTheWrongClass:
    @pytest.mark.parametrize("kind", RESPONSES)
    async def test_returned(self, kind: Any) -> None:
        """Misuse: FastAPI is given a response that is none of Starlette: it says which one is."""

        async def endpoint(request: Request) -> Any:
            return kind(aiter_of("a"))

        del endpoint.__annotations__["return"]
        client = Client()
        with pytest.raises(ValueError, match=r"the one of the same name from streamkit\.starlette"):
            await client.get(on_fastapi(endpoint))
        assert client.log.events == [500, "Internal Server Error", "end"]

    @pytest.mark.parametrize("kind", RESPONSES)
    def test_annotated(self, kind: Any) -> None:
        """Misuse: the endpoint says that it returns such a response: the same, before it starts."""

        class Mine(kind):  # type: ignore[misc]
            pass

        async def endpoint() -> Any: ...

        for annotation in kind, Mine, kind | dict[str, str]:
            endpoint.__annotations__["return"] = annotation
            with pytest.raises(TypeError, match=r"the one of the same name from streamkit\.starl"):
                FastAPI().get("/")(endpoint)

    @pytest.mark.parametrize("kind", RESPONSES)
    async def test_annotated_with_any(self, kind: Any) -> None:
        """Misuse: the endpoint says that it returns anything: the same, when it returns it."""

        async def endpoint(request: Request) -> Any:
            return kind(aiter_of("a"))

        endpoint.__annotations__["return"] = Any
        client = Client()
        with pytest.raises(
            PydanticSerializationError, match="the one of the same name from stream"
        ):
            await client.get(on_fastapi(endpoint))
        assert client.log.events == [500, "Internal Server Error", "end"]
        with pytest.raises(PydanticSerializationError, match="FastAPI takes no response"):
            TypeAdapter(Any).dump_json([kind(aiter_of("a"))])

    @pytest.mark.parametrize("kind", RESPONSES)
    def test_without_pydantic(self, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Misuse: where there is no pydantic, and of the class, there is no serializer."""
        assert not hasattr(kind, "__pydantic_serializer__")
        monkeypatch.delitem(sys.modules, "pydantic_core")
        assert not hasattr(kind(aiter_of("a")), "__pydantic_serializer__")

    @pytest.mark.parametrize("kind", RESPONSES)
    def test_without_starlette(self, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Misuse: pydantic alone, without Starlette, is told so as well."""
        monkeypatch.delitem(sys.modules, "starlette.responses")
        with pytest.raises(TypeError, match="FastAPI takes no response"):
            TypeAdapter(kind)

    def test_the_right_class(self) -> None:
        """Misuse: of the right class, in an annotation that FastAPI takes for no response, it says
        what to write instead of that."""

        async def endpoint() -> StreamResponse | dict[str, str]:
            raise AssertionError("must not be called")

        with pytest.raises(FastAPIError, match="response_model=None"):
            FastAPI().get("/")(endpoint)

    @pytest.mark.parametrize("kind", RESPONSES)
    async def test_on_starlette(self, kind: Any) -> None:
        """Web: Starlette takes any application from an endpoint, so these, too."""

        async def endpoint(request: Request) -> Any:
            return kind(aiter_of("a"))

        client = Client()
        await client.get(on_starlette(endpoint))
        assert (client.log.events[0], client.complete) == (200, True)


class Stamp:
    """A middleware of nothing but ASGI."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def stamped(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-stamp", b"1"))
            await send(message)

        await self.app(scope, receive, stamped)


class PassOn(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-passed-on"] = "1"
        return response


class TestMiddleware:
    async def test_plain(self) -> None:
        """Web: a plain middleware changes the headers of this answer, and of no other."""
        response = StreamResponse(aiter_of("a"))
        client = Client()
        await client.get(on_starlette(returning(response), middleware=[Middleware(Stamp)]))
        assert client.headers["x-stamp"] == "1"
        assert "x-stamp" not in response.headers

    async def test_base_http_middleware(self) -> None:
        """Web: under BaseHTTPMiddleware items go out as they come, with its headers."""
        client, log = Client(), Log()
        response = StreamResponse(
            Probe("a", "b", every=1.0).source(), background=noting(log, "background")
        )
        await client.get(on_fastapi(returning(response), middleware=[Middleware(PassOn)]))
        assert client.log == [(1.0, 200), (1.0, "a"), (2.0, "b"), (2.0, "end")]
        assert client.headers["x-passed-on"] == "1"
        assert log.events == ["background"]

    async def test_error_below_base_http_middleware(self) -> None:
        """Web: an error before the first item is answered below it, with nothing sent before."""
        client = Client()
        response = StreamResponse(Probe[str](error=ConflictError()).source())
        app = on_fastapi(
            returning(response),
            exception_handlers={ConflictError: answer_conflict},
            middleware=[Middleware(PassOn)],
        )
        await client.get(app)
        assert client.log.events == [409, '{"error":"busy"}', "end"]

    @pytest.mark.parametrize("items", [(), ("a",)])
    async def test_client_goes_below_base_http_middleware(self, items: tuple[str, ...]) -> None:
        """Web: the source is told there, too, before the first item and after it."""
        client, log = Client(goes_after=3.0), Log()
        log.start()
        app = on_fastapi(
            returning(StreamResponse(blocked(log, *items))), middleware=[Middleware(PassOn)]
        )
        await client.get(app)
        assert log == [(3.0, f"source: told to {Disconnected()}"), (3.0, "closed")]

    async def test_last_word_below_base_http_middleware(self) -> None:
        """Web: what ``final`` says of an error is seen there, where a cut would not be."""

        def last_word(outcome: Outcome) -> str:
            return f"[{outcome.kind}]"

        client = Client()
        response = StreamResponse(Probe("a", error=LookupError()).source(), final=last_word)
        await client.get(on_starlette(returning(response), middleware=[Middleware(PassOn)]))
        assert client.log.events == [200, "a", "[failed]", "end"]

    async def test_gzip(self) -> None:
        """Web: a response is compressed; events are not, for they must not be held back."""
        sent: list[Any] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        client = Client()
        client.scope["headers"] = [(b"accept-encoding", b"gzip")]
        texts = StreamResponse(aiter_of("a", "b"))
        await client.get(
            on_starlette(returning(texts), middleware=[Middleware(GZipMiddleware)]), send=send
        )
        assert (b"content-encoding", b"gzip") in sent[0]["headers"]
        assert gzip.decompress(b"".join(message["body"] for message in sent[1:])) == b"ab"

        events = EventStream(Probe("a", every=1.0).source())
        await client.get(on_starlette(returning(events), middleware=[Middleware(GZipMiddleware)]))
        assert client.log[:2] == [(1.0, 200), (1.0, "data: a\n\n")]

    async def test_cors(self) -> None:
        """Web: a page of another origin may read the answer, where CORS allows it."""
        client = Client()
        client.scope["headers"] = [(b"origin", b"https://example.com")]
        cors = Middleware(CORSMiddleware, allow_origins=["https://example.com"])
        await client.get(on_starlette(returning(EventStream(aiter_of("a"))), middleware=[cors]))
        assert client.headers["access-control-allow-origin"] == "https://example.com"
        assert client.log.events[:2] == [200, "data: a\n\n"]

    async def test_host_in_the_lifespan(self) -> None:
        """Web: a host that the lifespan puts into the state is found."""
        client = Client()
        app = on_fastapi(returning(StreamResponse(blocked(client.log, "a"))), lifespan=lifespan)
        async with lifespan(app) as state:
            client.scope["state"] = state
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call_later, 2.0, state["streams"].shut_down)
                await client.get(app)
        assert (2.0, "source: told to Shutdown()") in client.log


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
    async with StreamHost() as host:
        yield {"streams": host}
