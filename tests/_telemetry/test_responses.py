"""``telemetry=`` of responses and of their host: what is told of an answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from streamkit import CancelToken, Head, StreamCancelled, with_cancellation, with_timeout
from streamkit._telemetry import safely
from streamkit.asgi import StreamHost, StreamResponse
from streamkit.jsonlines import JsonLines
from streamkit.opentelemetry import OpenTelemetry
from streamkit.sse import EventStream
from streamkit.starlette import EventStream as StarletteEventStream
from support import Client, Probe, aiter_of
from support.telemetry import ACTIVE, BEATS, DURATION, ITEMS, Broken, Told, errors_in

if TYPE_CHECKING:
    from starlette.requests import Request

NAME = "streamkit.stream.name"
OUTCOME = "streamkit.outcome"


class OwnError(Exception):
    """What a source may raise."""


def last_word(outcome: Any) -> str:
    return f"[{outcome.kind}]"


async def test_response() -> None:
    """Telemetry: a response tells of its stream, with its beats, on the span of the request."""
    told, client = Told(), Client()
    with told.span():
        source = Probe("a", "b", every=10).source()
        await client.get(EventStream(source, telemetry=told.telemetry("chat"), keepalive=4))
    said = {NAME: "chat", OUTCOME: "completed"}
    assert told.sums(DURATION) == [(said, 20.0)]
    assert told.said == [("UNSET", {**said, ITEMS: 2, BEATS: 3})]
    assert told.active == 0
    assert client.complete


@pytest.mark.parametrize("response", [StreamResponse, EventStream, JsonLines])
async def test_each_response(response: Any) -> None:
    """Telemetry: each kind of response takes it, and has the name of its source without one."""
    told = Told()
    await Client().get(response(aiter_of("a"), telemetry=told.telemetry()))
    assert told.sums(ITEMS) == [({NAME: "aiter_of", OUTCOME: "completed"}, 1)]


async def test_host() -> None:
    """Telemetry: a host tells of all its streams; a response that says another is told there."""
    told, own = Told(), Told()
    async with StreamHost(telemetry=told.telemetry()) as host:
        await Client().get(StreamResponse(aiter_of("a"), host=host))
        await Client(state={"host": host}).get(StreamResponse(Probe("a").source()))
        await Client().get(StreamResponse(aiter_of("a"), host=host, telemetry=own.telemetry("own")))
    assert [attributes[NAME] for attributes, _ in told.sums(ITEMS)] == ["aiter_of", "Probe.source"]
    assert [attributes[NAME] for attributes, _ in own.sums(ITEMS)] == ["own"]


async def test_order_of_on_end() -> None:
    """S7: the user's on_end comes first, then telemetry, then the host's, then the last word."""
    told, seen = Told(), []

    async def on_end(*_: Any) -> None:
        seen.append(len(told.ends))

    def final(outcome: Any) -> str:
        seen.append(len(told.ends))
        return "last"

    async with StreamHost(telemetry=told.telemetry(), on_end=on_end) as host:
        client = Client()
        await client.get(StreamResponse(aiter_of("a"), host=host, on_end=on_end, final=final))
    assert seen == [0, 1, 1]
    assert client.log.events == [200, "a", "last", "end"]


class TestEnds:
    async def test_failed_in_band(self) -> None:
        """Telemetry: a failure of which the client is told by the last word is a failure."""
        told, client = Told(), Client()
        response = StreamResponse(
            Probe("a", error=OwnError()).source(), final=last_word, telemetry=told.telemetry()
        )
        with told.span():
            await client.get(response)
        assert client.complete
        assert told.ends == [("failed", f"{__name__}.OwnError")]
        assert told.said[0][0] == "ERROR"

    async def test_failed_before_the_start(self) -> None:
        """Telemetry: a failure before the first item, which is raised to the framework."""
        told = Told()
        response = StreamResponse(Probe(error=OwnError()).source(), telemetry=told.telemetry())
        with told.span(), pytest.raises(OwnError):
            await Client().get(response)
        assert told.ends == [("failed", f"{__name__}.OwnError")]

    async def test_on_end_failed(self) -> None:
        """E12: on_end has failed, and the client is told of that."""
        told = Told()

        async def on_end(outcome: Any) -> None:
            raise OwnError

        with told.span():
            await Client().get(
                StreamResponse(
                    aiter_of("a"), on_end=on_end, final=last_word, telemetry=told.telemetry()
                )
            )
        assert told.ends == [("failed", f"{__name__}.OwnError")]
        assert told.said[0][0] == "ERROR"

    async def test_timed_out(self) -> None:
        """Telemetry: a limit of time is an error."""
        told = Told()
        source = with_timeout(Probe("a", block=True).source(), total=5)
        with told.span():
            await Client().get(StreamResponse(source, final=last_word, telemetry=told.telemetry()))
        assert told.ends == [("timed_out", "streamkit.StreamTimeout")]
        assert told.said[0][0] == "ERROR"

    async def test_cancelled(self) -> None:
        """Telemetry: a user has pressed Stop: no error."""
        told, token = Told(), CancelToken()
        source = with_cancellation(Probe("a", block=True).source(), token)
        with told.span():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(
                    Client().get,
                    StreamResponse(source, final=last_word, telemetry=told.telemetry()),
                )
                await anyio.sleep(1)
                token.cancel("stop")
        assert told.ends == [("cancelled", None)]
        assert told.said[0][0] == "UNSET"

    @pytest.mark.parametrize(
        ("on_disconnect", "kind"),
        [("cancel", "cancelled"), ("drain", "completed"), ("close", "closed")],
    )
    async def test_disconnect(self, on_disconnect: Any, kind: str) -> None:
        """Telemetry: the client has gone: no error, whatever becomes of the source."""
        told = Told()
        response = StreamResponse(
            Probe("a", "b", every=2).source(),
            on_disconnect=on_disconnect,
            telemetry=told.telemetry(),
        )
        with told.span():
            await Client(goes_after=3).get(response)
        assert told.ends == [(kind, None)]
        assert told.said[0][0] == "UNSET"
        assert told.active == 0

    async def test_shutdown(self) -> None:
        """Telemetry: the program ends while a stream is open: no error."""
        told = Told()
        with told.span():
            async with (
                StreamHost(telemetry=told.telemetry()) as host,
                anyio.create_task_group() as tasks,
            ):
                response = StreamResponse(
                    Probe("a", block=True).source(), host=host, final=last_word
                )
                tasks.start_soon(Client().get, response)
                await anyio.sleep(1)
                assert told.active == 1
                host.shut_down()
        assert told.ends == [("cancelled", None)]
        assert told.said[0][0] == "UNSET"
        assert told.active == 0

    @pytest.mark.parametrize("reason", ["shut down", "full"])
    async def test_refused(self, reason: str) -> None:
        """Telemetry: a stream that is refused never starts, and is told of as cancelled."""
        told, client, probe = Told(), Client(), Probe("a")
        async with StreamHost(telemetry=told.telemetry("chat"), max_streams=1) as host:
            async with anyio.create_task_group() as tasks:
                if reason == "full":
                    open_one = Probe(block=True)
                    other = StreamResponse(
                        open_one.source(), host=host, telemetry=Told().telemetry()
                    )
                    tasks.start_soon(Client().get, other)
                    await anyio.sleep(1)
                else:
                    host.shut_down()
                with told.span():
                    await client.get(StreamResponse(probe.source(), host=host))
                tasks.cancel_scope.cancel()
        assert client.log.events[0] == 503
        assert not probe.started
        assert told.sums(ITEMS) == [({NAME: "chat", OUTCOME: "cancelled"}, 0)]
        assert told.said[0][0] == "UNSET"
        assert told.active == 0

    async def test_request_is_cancelled(self) -> None:
        """C2: the task of the request is cancelled: the stream is left."""
        told = Told()
        with anyio.move_on_after(2):
            await Client().get(
                StreamResponse(Probe("a", block=True).source(), telemetry=told.telemetry())
            )
        assert told.ends == [("closed", None)]
        assert told.active == 0

    async def test_head(self) -> None:
        """Telemetry: HEAD starts no source: the stream has no item, and was closed."""
        told = Told()
        await Client("HEAD").get(StreamResponse(Probe("a").source(), telemetry=told.telemetry()))
        assert told.ends == [("closed", None)]

    async def test_head_of_a_source(self) -> None:
        """S1: a Head is no item, and what it says does not change the end."""
        told = Told()
        await Client().get(
            StreamResponse(aiter_of(Head(409), "busy"), telemetry=told.telemetry("chat"))
        )
        assert told.sums(ITEMS) == [({NAME: "chat", OUTCOME: "completed"}, 1)]

    async def test_drained(self, caplog: pytest.LogCaptureFixture) -> None:
        """Telemetry: a stream that lives on in its host ends when its request has ended: it is
        measured, and nothing is said on a span that is over."""
        told = Told()
        async with StreamHost(telemetry=told.telemetry()) as host:
            with told.span():
                await Client(goes_after=3).get(
                    StreamResponse(
                        Probe("a", "b", every=2).source(), on_disconnect="drain", host=host
                    )
                )
            assert told.active == 1
            await anyio.sleep(10)
            assert told.ends == [("completed", None)]
            assert told.active == 0
        assert told.said == [("UNSET", {})]
        assert errors_in(caplog) == []


class TestRoute:
    async def ask(self, path: str, app: Any, *, root: str = "") -> list[Any]:
        told = Told()

        async def endpoint(request: Request) -> StarletteEventStream:
            return StarletteEventStream(aiter_of("a"), telemetry=told.telemetry("chat"))

        client = Client()
        client.scope.update(path=path, root_path=root, app_root_path=root)
        await client.get(app(endpoint))
        assert client.log.events[0] == 200
        return [attributes.get("http.route") for attributes, _ in told.sums(ITEMS)]

    @pytest.mark.parametrize(
        ("path", "template"),
        [
            ("/chat", "/chat"),
            ("/chat/7", "/chat/{id:int}"),
            ("/chat/chat", "/chat/{name}"),
            ("/files/a/b.txt", "/files/{file:path}"),
            ("/a/b/a", "/{first}/b/{second}"),
            ("/posts/posts", "/{name}/posts"),
            ("/7/7/7", "/{a:int}/7/{b:int}"),
        ],
    )
    async def test_starlette(self, path: str, template: str) -> None:
        """Telemetry: the route of Starlette: its template, without the values."""
        found = await self.ask(path, lambda endpoint: Starlette(routes=[Route(template, endpoint)]))
        expected = template.replace(":int", "").replace(":path", "")
        assert found == [expected]

    async def test_mount(self) -> None:
        """Telemetry: what a route is mounted at belongs to it, with values in it, too."""
        found = await self.ask(
            "/tenants/42/chat/7",
            lambda endpoint: Starlette(
                routes=[Mount("/tenants/{tenant}", routes=[Route("/chat/{id}", endpoint)])]
            ),
        )
        assert found == ["/tenants/{tenant}/chat/{id}"]

    @pytest.mark.parametrize("root", ["", "/api"])
    async def test_value_with_several_places(self, root: str) -> None:
        """Telemetry: a value that is found twice is where the route of the endpoint has it."""

        async def other(request: Request) -> None:
            raise AssertionError("must not be called")

        def app(endpoint: Any) -> Starlette:
            routes = [
                Route("/{name}", other),
                Mount("/chats", routes=[Route("/{id}/chats", endpoint)]),
                Route("/chats/chats/{id}", endpoint),
            ]
            return Starlette(routes=[Route("/chats/{id}/chats", other, methods=["PUT"]), *routes])

        found = await self.ask(f"{root}/chats/chats/chats", app, root=root)
        assert found == [f"{root}/chats/{{id}}/chats"]

    async def test_value_with_several_places_but_no_routes(self) -> None:
        """Telemetry: where the routes are not known, it is in the last place."""

        def app(endpoint: Any) -> Any:
            async def call(scope: Any, receive: Any, send: Any) -> None:
                scope.update(endpoint=endpoint, path_params={"id": "a"})
                await (await endpoint(None))(scope, receive, send)

            return call

        assert await self.ask("/a/a", app) == ["/a/{id}"]

    @pytest.mark.parametrize(
        ("path", "template"), [("/chat/007", "/chat/{id:int}"), ("/a.txt", "/{name}.txt")]
    )
    async def test_value_is_not_found(self, path: str, template: str) -> None:
        """Telemetry: a value that the path does not have as it is: no route, not one for each."""
        found = await self.ask(path, lambda endpoint: Starlette(routes=[Route(template, endpoint)]))
        assert found == [None]

    async def test_no_framework(self) -> None:
        """Telemetry: an application without routes has none."""
        told = Told()
        await Client().get(StreamResponse(aiter_of("a"), telemetry=told.telemetry("chat")))
        assert ["http.route" in attributes for attributes, _ in told.sums(DURATION)] == [False]
        assert [list(attributes) for attributes, _ in told.sums(ACTIVE)] == [[NAME]]


@pytest.mark.parametrize("call", ["get_meter", "add", "record"])
async def test_broken_meter(
    call: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Telemetry: what counts is broken: the answer is complete."""
    monkeypatch.setattr(safely, "_has_warned", False)
    client, provider = Client(), Broken(call)
    await client.get(
        StreamResponse(aiter_of("a"), telemetry=OpenTelemetry(meter_provider=provider))
    )
    assert client.log.events == [200, "a", "end"]
    assert len(errors_in(caplog)) == 1


@pytest.mark.parametrize("given", ["chat", OpenTelemetry, 3])
def test_misuse(given: Any) -> None:
    """Misuse: what is given as telemetry is none."""
    for use in (
        lambda: StreamResponse(aiter_of("a"), telemetry=given),
        lambda: EventStream(aiter_of("a"), telemetry=given),
        lambda: StreamHost(telemetry=given),
    ):
        with pytest.raises(TypeError, match=r"telemetry=OpenTelemetry\('chat'\)"):
            use()


# What is left to say when the client has gone


class TestEndForNobody:
    async def test_gone(self) -> None:
        """Web: receive has told: the last message is sent, for who measures the answer."""
        client = Client(goes_after=1)
        await client.get(StreamResponse(Probe("a", "b", every=0.6).source()))
        assert (client.complete, client.late) == (False, [b""])

    @pytest.mark.parametrize("is_told", [True, False])
    async def test_send_has_told(self, is_told: bool) -> None:
        """Web: send has failed, and receive says so, too, or not: then whoever is there is cut."""
        client = Client(takes={2: OSError("gone")})
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)
            await client.send(message)

        async def receive() -> Any:
            if not (is_told and client.gone.is_set()):
                await anyio.sleep_forever()
            return {"type": "http.disconnect"}

        await client.get(
            StreamResponse(Probe("a", "b", every=1).source()), receive=receive, send=send
        )
        last = {"type": "http.response.body", "body": b"", "more_body": False}
        assert (sent[-1] == last) == is_told

    async def test_too_slow(self) -> None:
        """Web: a client that was too slow may be there: a cut must not look complete."""
        client = Client(takes={1: math.inf})
        await client.get(StreamResponse(Probe("a").source(), send_timeout=2))
        assert (client.complete, client.late) == (False, [])

    @pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("closed"), KeyError()])
    async def test_send_raises(self, error: Exception) -> None:
        """Web: a server that raises for what comes too late: nothing comes of it."""
        client = Client(goes_after=1)

        async def send(message: Any) -> None:
            if client.gone.is_set():
                raise error
            await client.send(message)

        await client.get(StreamResponse(Probe("a", "b", every=0.6).source()), send=send)
        assert client.log.events == [200, "a"]

    async def test_send_hangs(self) -> None:
        """Web: a server that takes no end: it is waited for a second."""
        client = Client(goes_after=1)

        async def send(message: Any) -> None:
            if client.gone.is_set():
                await anyio.sleep_forever()
            await client.send(message)

        begun = anyio.current_time()
        await client.get(StreamResponse(Probe("a", "b", every=0.6).source()), send=send)
        assert anyio.current_time() - begun == 2.0

    async def test_cancelled_meanwhile(self) -> None:
        """C2: the request is cancelled while the end is sent for nobody: it ends there."""
        client, probe = Client(goes_after=1), Probe("a", "b", every=0.6)

        async def send(message: Any) -> None:
            if client.gone.is_set():
                await anyio.sleep_forever()
            await client.send(message)

        with anyio.move_on_after(1.5) as scope:
            await client.get(StreamResponse(probe.source()), send=send)
        assert scope.cancelled_caught
        assert probe.closed == 1

    async def test_kept_in_send(self) -> None:
        """Web: a drained stream whose task is kept in send, as on hypercorn with trio: there are
        never two in it."""
        client = Client(takes={2: math.inf}, shields=True)
        within: list[Any] = []
        most = 0

        async def send(message: Any) -> None:
            nonlocal most
            within.append(message)
            most = max(most, len(within))
            try:
                await client.send(message)
            finally:
                within.remove(message)

        async def receive() -> Any:
            await anyio.sleep(5)
            return {"type": "http.disconnect"}

        async with StreamHost() as host:
            response = StreamResponse(
                Probe("a", "b", "c", every=1).source(), on_disconnect="drain", host=host
            )
            await client.get(response, receive=receive, send=send)
            assert within
            client.go()
        assert most == 1

    async def test_failed_source(self) -> None:
        """Web: a source that fails when its client has gone is an error of the request."""
        client = Client(goes_after=1)

        async def source() -> Any:
            yield "a"
            try:
                await anyio.sleep_forever()
            except StreamCancelled:
                raise OwnError from None

        with pytest.raises(OwnError):
            await client.get(StreamResponse(source()))
        assert client.late == []
