"""Responses of server-sent events: what the client of a profile reads."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from inspect import Parameter, signature
from typing import Any

import anyio
import pytest

from observing import call_later
from streamkit import CancelToken, Head, Idle, Outcome, with_cancellation, with_keepalive
from streamkit.asgi import StreamHost
from streamkit.sse import (
    BROWSER,
    OPENAI_CHAT,
    RAW,
    EventStream,
    Frame,
    Profile,
    ServerSentEvent,
)
from streamkit.starlette import EventStream as StarletteEventStream
from support import Client, Probe, aiter_of, wait_all_blocked
from support.event_stream import Event, EventStreamParser, parse


def read(client: Client) -> EventStreamParser:
    """Return what the client has read."""
    assert client.log.events[-1] == "end"
    return parse(*(str(event).encode() for event in client.log.events[1:-1]))


class TestItems:
    async def test_items(self) -> None:
        """Web: items are encoded by the profile, and the end is told."""
        client = Client()
        await client.get(EventStream(aiter_of("a\nb", {"c": 1})))
        assert client.headers == {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache, no-transform",
            "x-accel-buffering": "no",
        }
        assert read(client).events == [
            Event("a\nb"),
            Event('{"c":1}'),
            Event('{"kind":"completed"}', "end"),
        ]
        assert client.complete

    async def test_any_text(self) -> None:
        """Web: whatever a text holds, what goes out is what the profile makes of it."""
        texts = ["a", "", "a\nb", "a\rb", "a\r\n", "\ud800", "\ufeff\u2028\0", "é"]
        client, sent = Client(), bytearray()

        async def send(message: dict[str, Any]) -> None:
            sent.extend(message.get("body", b""))

        await client.get(EventStream(aiter_of(*texts), final=lambda outcome: None), send=send)
        assert bytes(sent) == b"".join(map(BROWSER.encode, texts))

    async def test_text_of_another_profile(self) -> None:
        """Web: text is encoded by the profile that has a way of its own."""
        profile = Profile("mine", event_of=lambda item: ServerSentEvent(item, event="mine"))
        client = Client()
        await client.get(EventStream(aiter_of("a"), profile=profile))
        assert read(client).events == [Event("a", "mine")]

    @pytest.mark.one_of_each
    async def test_profile_that_makes_no_frame(self) -> None:
        """Web: what a profile of one's own makes is an item of a response, or a failure."""

        class Careless(Profile):
            __slots__ = ()

            def encode(self, item: Any) -> Any:
                return item

        with pytest.raises(TypeError, match="an item of a response is bytes, str or memoryview"):
            await Client().get(EventStream(aiter_of(7), profile=Careless("careless")))

    async def test_events_and_frames(self) -> None:
        """Web: what is an event or a frame already passes as it is."""
        client = Client()
        await client.get(
            EventStream(aiter_of(ServerSentEvent("a", id="7"), Frame(b"data: b\n\n")), profile=RAW)
        )
        assert read(client).events == [Event("a", last_event_id="7"), Event("b", last_event_id="7")]

    async def test_head(self) -> None:
        """Web: the status of the source is that of the response."""
        client = Client()
        await client.get(EventStream(aiter_of(Head(409, headers={"retry-after": "7"}), "busy")))
        assert client.log.events[0] == 409
        assert client.headers["retry-after"] == "7"

    async def test_item_of_another_type(self) -> None:
        """Web: an item that the profile cannot encode is a failure, which the client is told of."""
        client = Client()
        await client.get(EventStream(aiter_of("a", object()), profile=OPENAI_CHAT))
        first, error = read(client).events
        assert first == Event("a")
        assert json.loads(error.data)["error"]["code"] == "failed"

    async def test_headers(self) -> None:
        """Web: headers may replace those of the profile, whatever their case."""
        client = Client()
        await client.get(EventStream(aiter_of(), headers=[("CACHE-control", "no-store")]))
        assert client.headers == {
            "content-type": "text/event-stream; charset=utf-8",
            "x-accel-buffering": "no",
            "cache-control": "no-store",
        }
        client = Client()
        await client.get(EventStream(aiter_of(), headers={"x-run": "7"}))
        assert client.headers["x-run"] == "7"
        assert client.headers["cache-control"] == "no-cache, no-transform"


async def silent() -> AsyncGenerator[Any, None]:
    yield ServerSentEvent("a", id="7")
    await anyio.sleep(40)
    yield "b"


class TestBeats:
    @pytest.mark.parametrize("within", [0.0, 2.0])
    async def test_status_first(self, within: float) -> None:
        """Web: a status that comes before the first item is followed by a beat at once."""
        client = Client()
        source = Probe("a", every=20.0).source()
        await client.get(EventStream(source, first_item_within=within))
        assert client.log[:2] == [(within, 200), (within, ": ping\n")]

    async def test_before_the_first_item(self) -> None:
        """Web: beats begin after their own interval, also before the first item."""
        client = Client()
        await client.get(EventStream(Probe("a", every=7.0).source(), keepalive=3))
        assert client.log[:4] == [
            (3.0, 200),
            (3.0, ": ping\n"),
            (6.0, ": ping\n"),
            (7.0, "data: a\n\n"),
        ]

    async def test_no_beats(self) -> None:
        """Web: without beats there is none here, and the status comes after 15 seconds."""
        client = Client()
        await client.get(EventStream(Probe("a", every=20.0).source(), keepalive=None))
        assert client.log[:2] == [(15.0, 200), (20.0, "data: a\n\n")]

    async def test_beats(self) -> None:
        """Web: a beat in each 15 seconds of silence, which is no event and carries no id."""
        client = Client()
        await client.get(EventStream(silent()))
        assert [(at, event) for at, event in client.log if event == ": ping\n"] == [
            (15, ": ping\n"),
            (30, ": ping\n"),
        ]
        assert read(client).events[:2] == [
            Event("a", last_event_id="7"),
            Event("b", last_event_id="7"),
        ]

    async def test_interval(self) -> None:
        """Web: the user says how long a silence may be, or that there are no beats."""
        beats = []
        for keepalive in 10, None:
            client = Client()
            await client.get(EventStream(silent(), keepalive=keepalive))
            beats.append(client.log.events.count(": ping\n"))
        assert beats == [3, 0]

    async def test_beats_of_the_source(self) -> None:
        """Web: beats of the user's own are encoded like items."""

        def beat(idle: Idle[Any]) -> ServerSentEvent:
            return ServerSentEvent(f"{idle.silent_for:g}", event="silence")

        client = Client()
        await client.get(EventStream(with_keepalive(silent(), 30, beat), keepalive=None))
        assert read(client).events[1] == Event("30", "silence", "7")


class TestEnds:
    async def test_cancelled(self) -> None:
        """Web: the client of a stream that was stopped is told so, and not why."""
        token, client = CancelToken(), Client()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel, "by the admin")
            await client.get(EventStream(with_cancellation(silent(), token), profile=OPENAI_CHAT))
        last = read(client).events[-1]
        assert json.loads(last.data)["error"]["code"] == "cancelled"
        assert "admin" not in last.data

    async def test_fails_first(self) -> None:
        """Web: an error before the first item is raised, and nothing is on the wire."""

        async def source() -> AsyncGenerator[str, None]:
            raise LookupError("first")
            yield

        client = Client()
        with pytest.raises(LookupError, match="first"):
            await client.get(EventStream(source()))
        assert client.log == []

    @pytest.mark.parametrize("last", ["a", ["a"], ("a",)], ids=["item", "list", "tuple"])
    async def test_final(self, last: object) -> None:
        """Web: the last word is the user's, and encoded like an item."""
        client = Client()
        await client.get(EventStream(aiter_of(), final=lambda _: last))
        assert read(client).events == [Event("a")]

    async def test_final_says_nothing(self) -> None:
        """Web: where it returns ``None``, nothing is added, and an error is raised."""

        async def source() -> AsyncGenerator[str, None]:
            yield "a"
            raise LookupError("later")

        client = Client()
        with pytest.raises(LookupError, match="later"):
            await client.get(EventStream(source(), final=lambda _: None))
        assert not client.complete

    async def test_message(self) -> None:
        """Web: the message for the public can be changed alone."""

        async def source() -> AsyncGenerator[str, None]:
            yield "a"
            raise LookupError("secret")

        def final(outcome: Outcome) -> object:
            return OPENAI_CHAT.final(outcome, message="Try again.")

        client = Client()
        await client.get(EventStream(source(), profile=OPENAI_CHAT, final=final))
        assert json.loads(read(client).events[-1].data)["error"]["message"] == "Try again."


class TestMisuse:
    def test_profile(self) -> None:
        """M1: something else in the place of the profile."""
        with pytest.raises(TypeError, match=r"got str: write EventStream\(source, profile=BROWSER"):
            EventStream(aiter_of(), profile="BROWSER")  # type: ignore[arg-type]

    @pytest.mark.parametrize("kind", [EventStream, StarletteEventStream])
    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("media_type", r"write profile=dataclasses.replace\(BROWSER, media_type="),
            ("interval", "write keepalive=15"),
            ("ping", "write keepalive=15"),
            ("encoder", r"write profile=dataclasses.replace\(BROWSER, encoder="),
            ("beat", r"write profile=dataclasses.replace\(BROWSER, beat="),
            ("sep", "write nothing: lines end in LF"),
        ],
    )
    def test_option_of_another_library(self, kind: Any, option: str, message: str) -> None:
        """M1: an option that there is elsewhere: what to write instead."""
        with pytest.raises(TypeError, match=f"EventStream takes no {option}: {message}"):
            kind(aiter_of(), **{option: 1})

    @pytest.mark.parametrize("option", ["status_code", "background"])
    def test_option_of_starlette(self, option: str) -> None:
        """M1: an option of the response for Starlette: where it is."""
        options: Any = {option: 202}
        with pytest.raises(TypeError, match=r"write streamkit\.starlette\.EventStream"):
            EventStream(aiter_of(), **options)

    def test_unknown_option(self) -> None:
        """M1: an option that there is nowhere is refused as by any function."""
        with pytest.raises(TypeError, match="unexpected keyword argument 'keep_alive'"):
            EventStream(aiter_of(), keep_alive=15)  # type: ignore[call-arg]

    @pytest.mark.parametrize("kind", [EventStream, StarletteEventStream])
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (
                OPENAI_CHAT,
                r"got Profile after it: write EventStream\(source, profile=OPENAI_CHAT\)",
            ),
            (15, r"got int after it: write EventStream\(source, keepalive=15\)"),
            ("", r"got str after it: write EventStream\(source, profile=BROWSER, keepalive=15\)"),
        ],
    )
    def test_without_a_name(self, kind: Any, value: object, message: str) -> None:
        """M1: a profile, or an interval, that is given without its name."""
        with pytest.raises(TypeError, match=f"takes the source alone without a name, {message}"):
            kind(aiter_of(), value)

    def test_signature(self) -> None:
        """Its signature says what it takes all the same."""
        for kind in EventStream, StarletteEventStream:
            parameters = signature(kind).parameters
            assert list(parameters)[:2] == ["source", "profile"]
            assert parameters["profile"].kind is Parameter.KEYWORD_ONLY
        kept = EventStream(source=aiter_of())
        assert repr(kept).startswith("<EventStream")

    def test_final(self) -> None:
        """M1: a last word in the place of the function that makes it."""
        with pytest.raises(TypeError, match=r"got str: write final=lambda outcome: \.\.\."):
            EventStream(aiter_of(), final="[DONE]")  # type: ignore[arg-type]

    def test_profile_of_ones_own(self) -> None:
        """Web: any profile will do."""
        assert repr(EventStream(aiter_of(), profile=Profile("MINE"))).startswith("<EventStream")


REFUSED = pytest.mark.parametrize("full", [False, True], ids=["shut down", "full"])


class TestRefusal:
    @staticmethod
    async def refused(make: Any, full: bool, method: str = "GET") -> tuple[Client, Probe[str]]:
        """Return a client that was refused, and the source that did not start."""
        client, probe = Client(method), Probe("a")
        async with StreamHost(max_streams=1) as host:
            async with anyio.create_task_group() as tasks:
                if full:
                    tasks.start_soon(Client().get, EventStream(silent(), host=host))
                    await wait_all_blocked()
                else:
                    host.shut_down()
                await client.get(make(probe.source(), host))
                tasks.cancel_scope.cancel()
        return client, probe

    @REFUSED
    @pytest.mark.parametrize("make", [EventStream, StarletteEventStream])
    async def test_in_an_event(self, make: Any, full: bool) -> None:
        """Web: an EventSource takes none but 200, so it is told by an event to come back soon."""
        client, probe = await self.refused(lambda source, host: make(source, host=host), full)
        assert client.log.events[0] == 200
        assert client.complete
        assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert client.headers["connection"] == "close"
        [event] = read(client).events
        assert (event.type, json.loads(event.data)["kind"]) == ("end", "shutdown")
        [retry] = read(client).retries
        assert 1000 <= retry <= 5000
        assert not probe.started

    @REFUSED
    @pytest.mark.parametrize(
        "options",
        [{"profile": OPENAI_CHAT}, {"errors": "status"}, {"profile": RAW}],
        ids=["OPENAI_CHAT", "status", "RAW"],
    )
    async def test_by_status(self, options: Any, full: bool) -> None:
        """Web: other clients are told by a status, and when to try again."""
        client, probe = await self.refused(
            lambda source, host: EventStream(source, host=host, **options), full
        )
        assert client.log.events == [503, "end"]
        assert 1 <= int(client.headers["retry-after"]) <= 5
        assert not probe.started

    async def test_head_request(self) -> None:
        """Web: a HEAD has the same status, and no body."""
        client, _ = await self.refused(
            lambda source, host: EventStream(source, host=host), False, "HEAD"
        )
        assert client.log.events == [200, "end"]

    def test_nothing_to_say(self) -> None:
        """Web: an event that there is none of is refused, where it is asked for."""
        assert RAW.refusal() is None
        with pytest.raises(ValueError, match="errors='status'"):
            EventStream(aiter_of("a"), profile=RAW, errors="event")
        with pytest.raises(ValueError, match="'status' or 'event'"):
            EventStream(aiter_of("a"), errors="body")  # type: ignore[arg-type]
