"""Responses: their status, their end, clients that go, requests that are cancelled."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import weakref
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from observing import call_later
from streamkit import (
    CancelToken,
    Head,
    Outcome,
    StreamCancelled,
    StreamTimeout,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_status,
    with_timeout,
)
from streamkit.asgi import Disconnected, ResponseCancelled, StreamResponse
from support import Client, Log, Middleware, Probe, aiter_of, wait_all_blocked

POLICIES = ["cancel", "drain", "close"]

GONE = [
    BrokenPipeError(),
    ConnectionResetError(),
    anyio.ClosedResourceError(),
    anyio.BrokenResourceError(),
]


def last_word(outcome: Outcome) -> str:
    return f"[{outcome.kind}]"


class Noted(StreamResponse):
    """A response that notes its outcomes."""

    def __init__(self, source: Any, **options: Any) -> None:
        self.outcomes: list[Outcome] = []

        async def on_end(outcome: Outcome) -> None:
            self.outcomes.append(outcome)

        super().__init__(source, on_end=on_end, **options)


def outcome_of(response: Noted) -> Outcome:
    """Return the one outcome that there is to be."""
    [outcome] = response.outcomes
    return outcome


class Notes:
    """A source that notes what it is told, and in which tasks it runs."""

    def __init__(self, *, every: float = 1.0, reaction: float = 0.0, last: str | None = None):
        self.log = Log()
        self.every = every
        self.reaction = reaction
        self.last = last
        self.tasks: set[int] = set()

    async def source(self) -> AsyncGenerator[str, None]:
        self._note("started")
        number = 0
        try:
            while True:
                await anyio.sleep(self.every)
                yield str(number)
                number += 1
        except StreamCancelled as stop:
            self._note(f"told {stop.reason!r}")
            await anyio.sleep(self.reaction)
            if self.last is None:
                raise
            yield self.last
        except BaseException as exc:
            self._note("cancelled" if not isinstance(exc, GeneratorExit) else "closed early")
            raise
        finally:
            self._note("closed")

    def _note(self, event: str) -> None:
        self.tasks.add(anyio.get_current_task().id)
        self.log(event)


class TestAnswer:
    async def test_items(self) -> None:
        """Web: items go out as they come, after the status, and one last message ends them."""
        client, probe = Client(), Probe("a", "b", every=1.0)
        response = Noted(probe.source())
        await client.get(response)
        assert client.log == [(1.0, 200), (1.0, "a"), (2.0, "b"), (2.0, "end")]
        assert (outcome_of(response).kind, outcome_of(response).items) == ("completed", 2)
        assert probe.closed == 1

    async def test_head_of_the_source(self) -> None:
        """Web: a Head decides status and headers, before there is an item."""

        async def source() -> AsyncGenerator[Any, None]:
            yield Head(409, {"Retry-After": "7", "Cache-Control": "no-store"})
            await anyio.sleep(3)
            yield "busy"

        client = Client()
        await client.get(StreamResponse(source(), headers={"x-run": "12"}))
        assert client.log == [(0.0, 409), (3.0, "busy"), (3.0, "end")]
        assert client.headers == {
            "x-accel-buffering": "no",
            "content-type": "text/plain; charset=utf-8",
            "x-run": "12",
            "retry-after": "7",
            "cache-control": "no-store",
        }

    @pytest.mark.parametrize("first", [Head(), None], ids=["head", "timeout"])
    async def test_start_without_an_item(self, first: Head | None) -> None:
        """Web: a status that comes without an item is followed by an empty message at once."""

        async def source() -> AsyncGenerator[Any, None]:
            if first is not None:
                yield first
            await anyio.sleep(60)
            yield "late"

        sent = Log()

        async def send(message: dict[str, Any]) -> None:
            sent(message["type"].rpartition(".")[2])

        client = Client()
        sent.start()
        await client.get(StreamResponse(source()), send=send)
        at = 15.0 if first is None else 0.0
        assert sent == [(at, "start"), (at, "body"), (60.0, "body"), (60.0, "body")]

    async def test_empty(self) -> None:
        """Web: a stream without items is a complete answer without a body."""
        client = Client()
        await client.get(StreamResponse(aiter_of()))
        assert client.log.events == [200, "end"]

    async def test_kinds_of_items(self) -> None:
        """Web: bytes, text and memoryview; half a surrogate pair does not end the stream."""
        client = Client()
        await client.get(StreamResponse(aiter_of(b"a", "\u00fc\ud83d", memoryview(b"abc")[1:2])))
        assert client.log.events == [200, "a", "\u00fc?", "b", "end"]

    async def test_item_of_another_type(self) -> None:
        """Web: an item that cannot be sent ends the stream as a failure, and says what to write."""
        client = Client()
        response = Noted(aiter_of("a", {"text": "b"}, "c"))
        with pytest.raises(TypeError, match=r"bytes, str or memoryview, got dict: .*json\.dumps"):
            await client.get(response)
        assert client.log.events == [200, "a"]
        outcome = outcome_of(response)
        assert (outcome.kind, type(outcome.error)) == ("failed", TypeError)

    async def test_beat_of_another_type(self) -> None:
        """Web: a beat that cannot be sent is such a failure, too."""
        client = Client()
        beats: Any = with_keepalive(Probe("a", every=5).source(), 1.0, 7)
        response = Noted(beats, first_item_within=2)
        with pytest.raises(TypeError, match="got int"):
            await client.get(response)
        assert client.log == [(2.0, 200)]
        assert outcome_of(response).kind == "failed"

    async def test_beats(self) -> None:
        """Web: beats do not decide the status; after first_item_within they flow."""
        client = Client()
        source = with_keepalive(Probe("a", every=22).source(), 5.0, b": ping\n")
        await client.get(StreamResponse(source))
        assert client.log == [
            (15.0, 200),
            (20.0, ": ping\n"),
            (22.0, "a"),
            (22.0, "end"),
        ]

    async def test_nothing_is_read_ahead(self) -> None:
        """Web: a client that is slow keeps the source waiting."""
        client, probe = Client(takes={1: 10.0}), Probe("a", "b", "c")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.get, StreamResponse(probe.source()))
            await anyio.sleep(5)
            assert probe.produced == ["a"]
        assert probe.produced == ["a", "b", "c"]

    async def test_body_of_the_request(self) -> None:
        """Web: what is left of the request's body is no sign that the client has gone."""
        client = Client("POST", body=(b"a", b"b"))
        await client.get(StreamResponse(aiter_of("c")))
        assert client.log.events == [200, "c", "end"]

    async def test_request_body_without_end(self) -> None:
        """Web: a receive() that always has something, and never suspends, freezes nobody."""
        client = Client()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def source() -> AsyncGenerator[str, None]:
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            yield "a"

        await client.get(StreamResponse(source()), receive=receive)
        assert client.log.events == [200, "a", "end"]

    async def test_used_twice(self) -> None:
        """Web: a response answers one request."""
        response = StreamResponse(aiter_of("a"))
        await Client().get(response)
        client = Client()
        with pytest.raises(RuntimeError, match=r"StreamResponse used> answers one request: make"):
            await client.get(response)
        assert client.log == []

    async def test_never_called(self) -> None:
        """Web: a response that nobody calls has started nothing, and leaves nothing."""
        probe = Probe("a")
        response = StreamResponse(probe.source())
        assert repr(response) == "<StreamResponse with <StatusStream of Probe.source, new>>"
        del response
        assert not probe.started

    async def test_contexts(self) -> None:
        """Web: the source sees the context variables of the request."""
        user: ContextVar[str] = ContextVar("user")
        user.set("ada")

        async def source() -> AsyncGenerator[str, None]:
            yield user.get()

        client = Client()
        await client.get(StreamResponse(source()))
        assert client.log.events == [200, "ada", "end"]


class TestArguments:
    def test_source(self) -> None:
        """Web: what is no source is refused where the response is made."""
        source: Any = Probe("a").source
        with pytest.raises(TypeError, match="call the async generator function"):
            StreamResponse(source)

    @pytest.mark.parametrize(
        ("arguments", "error", "advice"),
        [
            ({"on_disconnect": "ignore"}, ValueError, "'cancel', 'drain' or 'close'"),
            ({"host": "localhost"}, TypeError, "async with StreamHost"),
            ({"grace": -1}, ValueError, "grace=5.0"),
            ({"drain_timeout": math.inf}, ValueError, "drain_timeout=5.0"),
            ({"send_timeout": 0}, ValueError, "send_timeout=5.0"),
            ({"first_item_within": "15"}, TypeError, "first_item_within=5.0"),
            ({"final": "[DONE]"}, TypeError, "final=lambda"),
            ({"headers": {"a b": "c"}}, ValueError, "'a b': 'c' is not a header"),
            ({"headers": {"": "c"}}, ValueError, "is not a header"),
            ({"headers": {"a": "b\r\nc: d"}}, ValueError, "a value is one line"),
            ({"headers": {"a": "\u20ac"}}, ValueError, "outside latin-1"),
            ({"media_type": "text/plain\n"}, ValueError, "a value is one line"),
        ],
    )
    def test_wrong(self, arguments: dict[str, Any], error: type[Exception], advice: str) -> None:
        """Web: a wrong argument is refused at once, with advice."""
        with pytest.raises(error, match=advice):
            StreamResponse(aiter_of("a"), **arguments)

    async def test_headers_of_one_name(self) -> None:
        """Web: pairs may repeat a name; a later set takes the place of an earlier one."""
        sent: list[Any] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        cookies = [("Set-Cookie", "a=1"), ("Set-Cookie", " b=2 "), ("X-Accel-Buffering", "yes")]
        response = StreamResponse(aiter_of("a"), headers=cookies, media_type=None)
        client = Client()
        await client.get(response, send=send)
        assert sent[0]["headers"] == [
            (b"cache-control", b"no-cache, no-transform"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"x-accel-buffering", b"yes"),
        ]

    async def test_headers_of_a_head(self) -> None:
        """Web: a header that would end the line is not sent when it comes from a Head, either."""
        client = Client()
        headers: dict[str, str] = {}
        source = aiter_of(Head(200, headers), "a")
        # Past the check where it is written.
        headers["location"] = "a\r\nb: c"
        with pytest.raises(ValueError, match="is not a header"):
            await client.get(StreamResponse(source))
        assert client.log == []

    @pytest.mark.parametrize("kind", ["websocket", "lifespan"])
    async def test_scope(self, kind: str) -> None:
        """Web: what is no HTTP request is refused, before the source starts."""
        client, probe = Client(), Probe("a")
        client.scope["type"] = kind
        with pytest.raises(RuntimeError, match=f"type '{kind}': return it from an HTTP endpoint"):
            await client.get(StreamResponse(probe.source()))
        assert (client.log, probe.started) == ([], False)


async def fails_when_told(error: Exception) -> AsyncGenerator[str, None]:
    """Yield, wait, and fail over a cancellation."""
    yield "a"
    try:
        await anyio.sleep_forever()
    except StreamCancelled:
        raise error from None


class TestEnd:
    @pytest.mark.parametrize("final", [None, last_word])
    async def test_error_first(self, final: Any) -> None:
        """Web: an error before the first item is raised, bare, with nothing on the wire."""
        client, error = Client(), LookupError("no such run")
        with pytest.raises(LookupError) as caught:
            await client.get(StreamResponse(Probe[str](error=error).source(), final=final))
        assert caught.value is error
        assert client.log == []

    async def test_error_in_the_middle(self) -> None:
        """Web: an error after the start is raised, bare, and the answer does not look complete."""
        client, error = Client(), LookupError("lost")
        with pytest.raises(LookupError) as caught:
            await client.get(StreamResponse(Probe("a", error=error).source()))
        assert caught.value is error
        assert client.log.events == [200, "a"]

    async def test_error_with_final(self, caplog: pytest.LogCaptureFixture) -> None:
        """Web: the last word takes the place of an error, and the answer is complete."""
        client = Client()
        source = Probe("a", error=LookupError("secret")).source()
        response = Noted(source, final=lambda _: ["error", b"[DONE]"], log_failures=False)
        await client.get(response)
        assert client.log.events == [200, "a", "error", "[DONE]", "end"]
        assert outcome_of(response).kind == "failed"
        assert caplog.records == []

    @pytest.mark.parametrize("make", [StreamResponse, Noted])
    async def test_error_is_logged(
        self, make: type[StreamResponse], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Web: an error of which only the client is told is logged, with its traceback."""
        client, error = Client(), LookupError("secret")
        await client.get(make(Probe("a", error=error).source(), final=last_word))
        assert client.log.events == [200, "a", "[failed]", "end"]
        [record] = caplog.records
        assert (record.name, record.levelno) == ("streamkit", logging.ERROR)
        assert "told its client so" in record.getMessage()
        assert record.exc_info is not None
        assert record.exc_info[1] is error

    async def test_error_of_a_cancelled_source(self, caplog: pytest.LogCaptureFixture) -> None:
        """Web: a source that is cancelled, and fails over it, is logged like any that fails."""
        client, token, error = Client(), CancelToken(), LookupError("secret")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel)
            stream = with_cancellation(fails_when_told(error), token)
            await client.get(StreamResponse(stream, final=last_word))
        assert client.log.events == [200, "a", "[cancelled]", "end"]
        [record] = caplog.records
        assert "told its client so" in record.getMessage()
        assert record.exc_info is not None
        assert record.exc_info[1] is error

    async def test_error_after_the_client_has_gone(self, caplog: pytest.LogCaptureFixture) -> None:
        """Web: the log does not say that a client was told which had gone by then."""
        client, error = Client(goes_after=1), LookupError("secret")
        await client.get(StreamResponse(fails_when_told(error), final=last_word))
        assert client.log.events == [200, "a"]
        [record] = caplog.records
        assert record.getMessage().endswith("failed, and its client has gone")

    @pytest.mark.parametrize("log_failures", [True, False])
    async def test_error_that_is_not_raised(
        self, log_failures: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Web: an error that has no place in what is raised is logged: here ``final`` speaks for
        it, and what it says cannot be sent."""
        error, other = LookupError(), KeyError()
        client = Client(takes={2: other})
        source = Probe("a", error=error).source()
        with pytest.raises(KeyError):
            await client.get(StreamResponse(source, final=last_word, log_failures=log_failures))
        logged = [record.exc_info[1] for record in caplog.records if record.exc_info]
        assert logged == ([error] if log_failures else [])

    async def test_final_fails_after_its_first_item(self) -> None:
        """E12: the error that the last items were to stand for is not lost with them."""
        error, other = LookupError(), KeyError()

        def final(outcome: Outcome) -> Iterator[str]:
            yield "last"
            raise other

        client = Client()
        with pytest.raises(ExceptionGroup) as caught:
            await client.get(StreamResponse(Probe("a", error=error).source(), final=final))
        assert caught.value.exceptions == (error, other)
        assert client.log.events == [200, "a", "last"]

    @pytest.mark.parametrize("end", ["completed", "cancelled", "disconnected"])
    async def test_nothing_to_log(self, end: str, caplog: pytest.LogCaptureFixture) -> None:
        """Web: no other end is logged."""
        client, token = Client(goes_after=1 if end == "disconnected" else math.inf), CancelToken()
        source = with_cancellation(Probe("a", "b", every=2.0).source(), token)
        async with anyio.create_task_group() as tasks:
            if end == "cancelled":
                tasks.start_soon(call_later, 1, token.cancel)
            await client.get(StreamResponse(source, final=last_word))
        assert caplog.records == []

    async def test_final_of_an_empty_stream(self) -> None:
        """Web: the last word may be all there is."""
        client = Client()
        await client.get(StreamResponse(aiter_of(), final=last_word))
        assert client.log.events == [200, "[completed]", "end"]

    async def test_final_of_another_type(self) -> None:
        """Web: a last word that cannot be sent does not look like a complete answer."""
        client = Client()

        def final(outcome: Outcome) -> Any:
            return outcome

        with pytest.raises(TypeError, match="got Outcome"):
            await client.get(StreamResponse(aiter_of("a"), final=final))
        assert client.log.events == [200, "a"]

    async def test_order_at_the_end(self) -> None:
        """Web: the source is closed, then on_end runs, then the last word is sent."""
        log, client = Log(), Client()
        client.log = log

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "a"
            finally:
                log("closed")

        async def on_end(outcome: Outcome) -> None:
            await anyio.sleep(1)
            log(f"on_end {outcome.kind}")

        await client.get(StreamResponse(source(), on_end=on_end, final=last_word))
        assert log == [
            (0.0, 200),
            (0.0, "a"),
            (0.0, "closed"),
            (1.0, "on_end completed"),
            (1.0, "[completed]"),
            (1.0, "end"),
        ]

    async def test_on_end_timeout(self) -> None:
        """Web: on_end has its time and no more; after the start, that cuts the answer."""
        client = Client()

        async def on_end(_: Outcome) -> None:
            await anyio.sleep_forever()

        with pytest.raises(TimeoutError, match="on_end took longer than 2"):
            await client.get(StreamResponse(aiter_of("a"), on_end=on_end, on_end_timeout=2))
        assert client.log == [(0.0, 200), (0.0, "a")]

    async def test_cancelled_in_the_middle(self) -> None:
        """Web: a stream that is cancelled without a last word does not look complete, and what is
        raised is no BaseException that a server does not expect."""
        client, token = Client(), CancelToken()
        notes = Notes()
        response = Noted(with_cancellation(notes.source(), token))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1.5, token.cancel, "stop")
            with pytest.raises(ResponseCancelled, match=r"'stop'.*give the response a final") as e:
                await client.get(response)
        assert e.value.reason == "stop"
        assert isinstance(e.value.__cause__, StreamCancelled)
        assert client.log == [(1.0, 200), (1.0, "0")]
        assert outcome_of(response).kind == "cancelled"

    async def test_cancelled_in_the_middle_with_final(self) -> None:
        """Web: with a last word, it is complete."""
        client, token = Client(), CancelToken()
        source = with_cancellation(Notes().source(), token)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1.5, token.cancel, "stop")
            await client.get(StreamResponse(source, final=last_word))
        assert client.log == [(1.0, 200), (1.0, "0"), (1.5, "[cancelled]"), (1.5, "end")]

    async def test_last_item_after_a_cancellation(self) -> None:
        """Web: what the source says when it is told to stop still goes out."""
        client, token = Client(), CancelToken()
        source = with_cancellation(Notes(reaction=1, last="[stopped]").source(), token)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1.5, token.cancel, "stop")
            await client.get(StreamResponse(source))
        assert client.log == [(1.0, 200), (1.0, "0"), (2.5, "[stopped]"), (2.5, "end")]

    async def test_cancelled_first(self) -> None:
        """Web: a cancellation before the first item is raised with nothing on the wire, as
        something that an exception handler of a framework catches."""
        client, token = Client(), CancelToken()
        token.cancel("stop")
        with pytest.raises(ResponseCancelled):
            await client.get(StreamResponse(with_cancellation(Notes().source(), token)))
        assert client.log == []

    async def test_cancelled_first_with_final(self) -> None:
        """Web: it is no error, so the last word answers it, with status 200."""
        client, token = Client(), CancelToken()
        token.cancel("stop")
        source = with_cancellation(Notes().source(), token)
        await client.get(StreamResponse(source, final=lambda _: ["one", "two"]))
        assert client.log == [(0.0, 200), (0.0, "one"), (0.0, "two"), (0.0, "end")]

    async def test_timed_out(self) -> None:
        """Web: a limit that is reached before the first item is an error like any other."""
        client = Client()
        source = with_timeout(Notes(every=9).source(), first=2)
        with pytest.raises(StreamTimeout):
            await client.get(StreamResponse(source, final=last_word))
        assert client.log == []

    async def test_cancelled_and_failed(self) -> None:
        """Web: of a cancellation and a failure of the clean-up, the failure is raised, bare."""
        token, error = CancelToken(), OSError("disk full")

        class Source:
            def __aiter__(self) -> Source:
                return self

            async def __anext__(self) -> str:
                await anyio.sleep_forever()
                raise AssertionError

            async def aclose(self) -> None:
                raise error

        source = with_cancellation(Source(), token)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel, "stop")
            with pytest.raises(OSError, match="disk full") as caught:
                await Client().get(StreamResponse(source))
        assert caught.value is error

    async def test_of_the_users_own_status(self) -> None:
        """Web: a stream that has a status of its own keeps it, and its last word."""
        client = Client()
        own = with_status(aiter_of(Head(202), "a"), final=last_word)
        await client.get(StreamResponse(own, final=lambda _: "[DONE]"))
        assert client.log.events == [202, "a", "[completed]", "[DONE]", "end"]

    @pytest.mark.parametrize(
        "first", ["a", Head(204), None], ids=["item", "without body", "nothing"]
    )
    async def test_an_aborted_answer_is_let_go(self, first: Any) -> None:
        """Web: after an error, no reference cycle holds on to send(): granian ends the connection
        when it has gone."""
        client = Client()

        class Send:
            async def __call__(self, message: object) -> None:
                pass

        async def source() -> AsyncGenerator[Any, None]:
            if first is not None:
                yield first
            raise LookupError

        async def endpoint(scope: Any, receive: Any, send: Any) -> None:
            response = StreamResponse(source())
            await response(scope, receive, send)

        send = Send()
        gone = weakref.ref(send)
        gc.disable()
        try:
            try:
                await client.get(endpoint, send=send)
            except LookupError:
                del send
            assert gone() is None
        finally:
            gc.enable()


class TestDisconnect:
    async def test_cancel(self) -> None:
        """Web: the source is told that the client has gone, where it is blocked, in its task."""
        client, notes = Client(goes_after=1.5), Notes(reaction=2.0, last="[saved]")
        response = Noted(notes.source(), final=last_word)
        await client.get(response)
        assert notes.log == [(0.0, "started"), (1.5, "told Disconnected()"), (3.5, "closed")]
        assert client.log == [(1.0, 200), (1.0, "0")]
        assert client.late == [b""]
        outcome = outcome_of(response)
        assert (outcome.kind, outcome.reason) == ("cancelled", Disconnected())
        assert len(notes.tasks) == 1
        assert anyio.get_current_task().id not in notes.tasks

    async def test_cancel_beyond_the_grace(self) -> None:
        """Web: a source that takes longer than its grace is cut."""
        client, notes = Client(goes_after=1.5), Notes(reaction=60)
        response = Noted(notes.source(), grace=2)
        await client.get(response)
        assert notes.log[-1] == (3.5, "closed")
        assert outcome_of(response).grace_exceeded

    async def test_cancel_leaves_the_grace_of_the_source(self) -> None:
        """Web: a stream's own grace for its signals is not changed by that for a disconnect."""
        client, token, notes = Client(), CancelToken(), Notes(reaction=60)
        source = with_cancellation(notes.source(), token, grace=7)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1, token.cancel)
            with pytest.raises(ResponseCancelled):
                await client.get(StreamResponse(source, grace=2))
        assert notes.log[-1] == (8.0, "closed")

    async def test_drain(self) -> None:
        """Web: with "drain" the source runs on to its end, in the same task, with no one there."""
        client, probe = Client(goes_after=1.5), Probe("a", "b", "c", every=1.0)
        response = Noted(probe.source(), on_disconnect="drain", final=last_word)
        await client.get(response)
        assert anyio.current_time() == 1003.0
        assert client.log == [(1.0, 200), (1.0, "a")]
        assert client.late == [b""]
        assert (probe.produced, probe.seen) == (["a", "b", "c"], [])
        assert (outcome_of(response).kind, len(probe.task_ids)) == ("completed", 1)

    async def test_drain_timeout(self) -> None:
        """Web: a source that runs on for too long is told, and then has its grace."""
        client, notes = Client(goes_after=1.5), Notes(reaction=2.0)
        response = Noted(notes.source(), on_disconnect="drain", drain_timeout=10)
        await client.get(response)
        assert notes.log[1:] == [(11.5, "told Disconnected()"), (13.5, "closed")]
        assert outcome_of(response).kind == "cancelled"

    async def test_close(self) -> None:
        """Web: with "close" the stream is left at once, as by any consumer."""
        client, notes = Client(goes_after=1.5), Notes()
        response = Noted(notes.source(), on_disconnect="close", final=last_word)
        await client.get(response)
        assert notes.log[1:] == [(1.5, "told Left()"), (1.5, "closed")]
        assert outcome_of(response).kind == "closed"

    async def test_close_within_the_grace_of_the_source(self) -> None:
        """Web: what bounds the closing is the stream's own, and not the response's."""
        client, log = Client(goes_after=1, takes={1: math.inf}), Log()

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "a"
            finally:
                try:
                    await anyio.sleep(60)
                finally:
                    log("closed")

        stream = with_cancellation(source(), CancelToken(), grace=7)
        log.start()
        await client.get(StreamResponse(stream, on_disconnect="close", grace=2))
        assert log == [(8.0, "closed")]

    @pytest.mark.parametrize("policy", POLICIES)
    async def test_before_the_first_item(self, policy: Any) -> None:
        """Web: a client that goes before there is a status is noticed, too. Nobody reads the 499,
        but middleware takes no answer at all for an error."""
        client, probe = Client(goes_after=3), Probe("a", every=10.0)
        response = Noted(probe.source(), on_disconnect=policy)
        await client.get(response)
        assert client.log == []
        assert client.late == [499, b""]
        at, kind = {"cancel": (3, "cancelled"), "drain": (10, "completed"), "close": (3, "closed")}[
            policy
        ]
        assert (anyio.current_time(), outcome_of(response).kind) == (1000 + at, kind)
        assert len(probe.task_ids) == 1

    async def test_before_the_call(self) -> None:
        """Web: for a client that has gone already, the source never starts."""
        client, probe = Client(), Probe("a")
        client.go()
        response = Noted(probe.source())
        await client.get(response)
        assert (client.log, client.late) == ([], [499, b""])
        assert not probe.started or outcome_of(response).kind == "cancelled"

    @pytest.mark.parametrize("policy", POLICIES)
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_before_the_call_without_a_word(self, policy: Any, method: str) -> None:
        """Web: nor does it matter what becomes of the source, if the request was read before, and
        ``receive()`` tells of the client at once."""
        client, probe = Client(method), Probe("a", "b", every=1.0)
        client.go()
        response = Noted(probe.source(), on_disconnect=policy)
        with anyio.fail_after(60):
            await client.get(response)
        assert (client.log, client.late) == ([], [499, b""])
        is_drained = policy == "drain" and method == "GET"
        assert probe.produced == (["a", "b"] if is_drained else [])
        assert (outcome_of(response).kind == "completed") == is_drained

    async def test_receive_fails_at_once(self) -> None:
        """Web: an error of the first call of receive() is raised, too, and the source is closed."""
        client, notes, error = Client(), Notes(), RuntimeError("unexpected message")

        async def receive() -> Any:
            raise error

        response = Noted(notes.source())
        with pytest.raises(RuntimeError) as caught, anyio.fail_after(60):
            await client.get(response, receive=receive)
        assert caught.value is error
        assert outcome_of(response).kind == "closed"

    async def test_answer_for_nobody_fails(self) -> None:
        """Web: what a server makes of an answer to a client that has gone is of no interest."""
        client = Client(goes_after=1)

        async def send(_: object) -> None:
            raise RuntimeError("the connection is closed")

        await client.get(StreamResponse(Notes(every=9).source()), send=send)
        assert anyio.current_time() == 1001.0

    async def test_answer_for_nobody_hangs(self) -> None:
        """Web: nor is it waited for."""
        client = Client(goes_after=1)

        async def send(_: object) -> None:
            await anyio.sleep_forever()

        await client.get(StreamResponse(Notes(every=9).source()), send=send)
        assert anyio.current_time() == 1002.0

    @pytest.mark.parametrize("policy", POLICIES)
    async def test_blocked_in_send(self, policy: Any) -> None:
        """Web: a send to a client that no longer reads ends when that client goes."""
        client, probe = Client(goes_after=9, takes={2: math.inf}), Probe("a", "b", "c", every=1.0)
        await client.get(StreamResponse(probe.source(), on_disconnect=policy))
        assert client.log == [(1.0, 200), (1.0, "a")]
        assert client.late == [b""]
        assert anyio.current_time() == (1010.0 if policy == "drain" else 1009.0)
        assert probe.produced == (["a", "b", "c"] if policy == "drain" else ["a", "b"])

    async def test_blocked_after_the_end_of_the_source(self) -> None:
        """Web: also when the source has ended before, and its items wait in a buffer."""
        client = Client(goes_after=9, takes={1: math.inf})
        response = Noted(with_buffer(aiter_of("a", "b"), 8))
        await client.get(response)
        assert client.late == [b""]
        assert not client.complete
        assert anyio.current_time() == 1009.0
        assert outcome_of(response).kind == "completed"

    @pytest.mark.parametrize(("send_timeout", "more"), [(None, 1.0), (60.0, 60.0)])
    async def test_in_the_last_message(self, send_timeout: float | None, more: float) -> None:
        """Web: from the last message on, a client that goes cancels nothing: a server may say so
        while it closes the connection in there. The time for that is bounded."""
        client = Client(goes_after=9, takes={2: math.inf})
        response = Noted(aiter_of("a"), send_timeout=send_timeout)
        await client.get(response)
        assert not client.complete
        assert anyio.current_time() == (1000.0 + send_timeout if send_timeout else 1009.0 + more)
        assert outcome_of(response).kind == "completed"

    @pytest.mark.parametrize("error", GONE, ids=lambda error: type(error).__name__)
    async def test_error_of_send(self, error: Exception) -> None:
        """Web: an error of send() is a disconnect: the source is told, and nothing is raised."""
        client, notes = Client(takes={2: error}), Notes()
        await client.get(StreamResponse(notes.source()))
        assert notes.log == [(0.0, "started"), (2.0, "told Disconnected()"), (2.0, "closed")]
        assert client.log == [(1.0, 200), (1.0, "0")]
        assert client.late == []

    async def test_error_of_the_first_send(self) -> None:
        """Web: also of the very first."""
        client, notes = Client(takes={0: BrokenPipeError()}), Notes()
        await client.get(StreamResponse(notes.source()))
        assert notes.log[1:] == [(1.0, "told Disconnected()"), (1.0, "closed")]
        assert (client.log, client.late) == ([], [])

    async def test_other_error_of_send(self) -> None:
        """Web: any other error of send() is one, and is raised."""
        client, notes = Client(takes={1: RuntimeError("wrong message")}), Notes()
        response = Noted(notes.source())
        with pytest.raises(RuntimeError, match="wrong message"):
            await client.get(response)
        assert outcome_of(response).kind == "closed"

    @pytest.mark.parametrize("error", GONE[:2], ids=lambda error: type(error).__name__)
    async def test_disconnect_as_error_of_receive(self, error: Exception) -> None:
        """Web: receive() may raise it as well."""
        client, notes = Client(), Notes()

        async def receive() -> Any:
            await anyio.sleep(1.5)
            raise error

        await client.get(StreamResponse(notes.source()), receive=receive)
        assert notes.log[1] == (1.5, "told Disconnected()")

    async def test_other_error_of_receive(self) -> None:
        """Web: any other error of receive() closes the stream, and is raised, bare."""
        client, notes, error = Client(), Notes(), RuntimeError("unexpected message")

        async def receive() -> Any:
            await anyio.sleep(1.5)
            raise error

        with pytest.raises(RuntimeError) as caught:
            await client.get(StreamResponse(notes.source()), receive=receive)
        assert caught.value is error
        assert notes.log[1:] == [(1.5, "told Left()"), (1.5, "closed")]

    async def test_error_of_the_source_is_no_disconnect(self) -> None:
        """Web: an OSError of the source's upstream is the source's."""
        client, error = Client(), ConnectionResetError("upstream")
        with pytest.raises(ConnectionResetError) as caught:
            await client.get(StreamResponse(Probe("a", error=error).source()))
        assert caught.value is error

    async def test_both_at_once(self) -> None:
        """Web: receive() and send() tell in the same tick: the source is told once."""
        client, notes = Client(), Notes(reaction=1)

        async def receive() -> Any:
            await anyio.sleep(1)
            await wait_all_blocked()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body":
                await wait_all_blocked()
                raise BrokenPipeError

        await client.get(StreamResponse(notes.source()), receive=receive, send=send)
        assert notes.log[1:] == [(1.0, "told Disconnected()"), (2.0, "closed")]

    async def test_token_and_disconnect_at_once(self) -> None:
        """Web: a token that fires with the disconnect wins, and nobody is left to be told."""
        client, token, notes = Client(), CancelToken(), Notes()

        async def both() -> None:
            await anyio.sleep(1.5)
            token.cancel("stop")
            client.go()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(both)
            await client.get(StreamResponse(with_cancellation(notes.source(), token)))
        assert notes.log[1:] == [(1.5, "told 'stop'"), (1.5, "closed")]

    async def test_disconnect_after_a_cancellation(self) -> None:
        """Web: a client that goes while a stopped stream is left needs no telling."""
        client, token = Client(), CancelToken()

        @asynccontextmanager
        async def signal() -> AsyncGenerator[CancelToken, None]:
            try:
                yield token
            finally:
                client.go()
                await anyio.sleep(1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1.5, token.cancel, "stop")
            await client.get(StreamResponse(with_cancellation(Notes().source(), signal())))
        assert client.log == [(1.0, 200), (1.0, "0")]
        assert client.late == [b""]

    async def test_disconnect_with_the_first_item(self) -> None:
        """Web: no item is sent if the client goes just when the first one is there."""
        client = Client()

        async def source() -> AsyncGenerator[str, None]:
            await anyio.sleep(1)
            client.go()
            yield "a"

        await client.get(StreamResponse(source()))
        assert client.log == []
        # Who is first to know is the loop's to decide.
        assert client.late in ([499, b""], [200, b""])

    async def test_token_after_the_disconnect(self) -> None:
        """Web: a run that is drained can still be stopped, and that is no error of the request."""
        client, token, notes = Client(goes_after=1.5), CancelToken(), Notes()
        source = with_cancellation(notes.source(), token)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 5, token.cancel, "stop")
            await client.get(StreamResponse(source, on_disconnect="drain"))
        assert notes.log[1:] == [(5.0, "told 'stop'"), (5.0, "closed")]

    @pytest.mark.parametrize("policy", ["cancel", "drain"])
    async def test_error_after_the_disconnect(self, policy: Any) -> None:
        """Web: an error of the source is not lost because the client has gone."""
        client, error = Client(goes_after=0.5), LookupError("could not save")

        async def source() -> AsyncGenerator[str, None]:
            yield "a"
            try:
                await anyio.sleep(1)
            finally:
                raise error

        with pytest.raises(LookupError) as caught:
            await client.get(StreamResponse(source(), on_disconnect=policy))
        assert caught.value is error

    async def test_after_the_end(self) -> None:
        """Web: servers tell of a disconnect when the answer is complete. It is none."""
        client = Client()
        response = Noted(aiter_of("a"), on_disconnect="close")
        await client.get(response)
        assert client.complete
        assert outcome_of(response).kind == "completed"

    async def test_hot_source(self) -> None:
        """Web: neither the source nor send() ever suspends, and others still get their turn."""
        client, turns = Client(), 0

        async def source() -> AsyncGenerator[str, None]:
            number = 0
            while True:
                number += 1
                assert number < 1000, "the disconnect was not noticed"
                yield str(number)

        async def other() -> None:
            nonlocal turns
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
                turns += 1
            client.go()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            await client.get(StreamResponse(source()))
        assert turns == 50

    @pytest.mark.parametrize(
        ("size", "in_a_row"), [(0, 1), (500, 4)], ids=["read-ahead 0", "buffered"]
    )
    async def test_turns(self, size: int, in_a_row: int) -> None:
        """Web: other tasks get a turn for each item; where many are ready, for every 4th."""
        client, turns = Client(), 0

        async def other() -> None:
            nonlocal turns
            while not client.complete:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            await client.get(StreamResponse(with_buffer(aiter_of(*"a" * 300), size)))
        assert turns >= 300 // in_a_row

    @pytest.mark.parametrize("policy", ["cancel", "drain"])
    async def test_hot_source_that_runs_on(self, policy: Any) -> None:
        """Web: nor does it freeze anybody when it does not stop, or is drained."""
        client, turns = Client(takes={9: BrokenPipeError()}), 0

        async def source() -> AsyncGenerator[str, None]:
            for _ in range(400):
                yield "a"

        async def other() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            response = StreamResponse(with_buffer(source(), 500), on_disconnect=policy)
            await client.get(response)
            tasks.cancel_scope.cancel()
        # Of those that are told, what had been read ahead by then.
        assert turns >= (300 if policy == "drain" else 128) // 4


class TestSendTimeout:
    async def test_slow_client(self, caplog: pytest.LogCaptureFixture) -> None:
        """Web: who does not take a message in time counts as gone, and the server is told to cut
        the connection."""
        client, notes = Client(takes={2: math.inf}), Notes(reaction=1)
        await client.get(StreamResponse(notes.source(), send_timeout=4))
        [record] = caplog.records
        assert record.levelname == "WARNING"
        assert "did not take a message within 4 seconds" in record.message
        assert record.exc_info is None
        assert not client.complete
        assert notes.log[1:] == [(6.0, "told Disconnected()"), (7.0, "closed")]
        assert client.log == [(1.0, 200), (1.0, "0")]
        assert client.late == []

    async def test_slow_end(self, caplog: pytest.LogCaptureFixture) -> None:
        """Web: also if it is the very last message, when the source has ended."""
        client = Client(takes={2: math.inf})
        response = Noted(aiter_of("a"), send_timeout=4)
        await client.get(response)
        assert anyio.current_time() == 1004.0
        assert client.log == [(0.0, 200), (0.0, "a")]
        [record] = caplog.records
        assert "did not take a message within 4 seconds" in record.message
        assert outcome_of(response).kind == "completed"

    async def test_gone_before_the_limit_of_the_last_message(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Web: a client that goes while the last message waits is no slow one."""
        client = Client(takes={2: math.inf}, goes_after=2)
        await client.get(StreamResponse(aiter_of("a"), send_timeout=4))
        assert caplog.records == []

    async def test_slow_start(self) -> None:
        """Web: also if it is the very first message; that is not answered with another one."""
        client, notes = Client(takes={0: math.inf}), Notes()
        await client.get(StreamResponse(notes.source(), send_timeout=4))
        assert anyio.current_time() == 1005.0
        assert client.log == []

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            ("cancel", [(6.0, "told Disconnected()"), (7.0, "closed")]),
            ("drain", [(16.0, "told Disconnected()"), (17.0, "closed")]),
            ("close", [(6.0, "closed early"), (6.0, "closed")]),
        ],
    )
    async def test_server_that_shields(self, policy: Any, expected: list[Any]) -> None:
        """Web: the source is told and closed in time where the server sends in a shield, too. The
        request lasts until the server lets go."""
        client = Client(takes={2: math.inf}, shields=True, goes_after=60)
        notes = Notes(reaction=1, last="saved")
        await client.get(
            StreamResponse(notes.source(), send_timeout=4, on_disconnect=policy, drain_timeout=10)
        )
        assert notes.log[1:] == expected
        assert len(notes.tasks) == 1
        assert anyio.current_time() == 1060.0
        assert (client.log, client.late) == ([(1.0, 200), (1.0, "0")], [])

    @pytest.mark.parametrize("number", [0, 1, 2])
    @pytest.mark.parametrize("first", [Head(), Head(204), "a"], ids=["head", "no body", "item"])
    @pytest.mark.parametrize("policy", POLICIES)
    async def test_server_that_shields_and_says_nothing(
        self, policy: Any, first: Any, number: int
    ) -> None:
        """Web: nor does it matter if the server lets go as if the client had taken the message,
        whichever it was, and while the source is still being closed."""
        client, sent, reason = Client(goes_after=3), list[Any](), Log()

        async def source() -> AsyncGenerator[Any, None]:
            yield first
            try:
                await anyio.sleep(60)
            except StreamCancelled as stop:
                reason(repr(stop.reason))
                await anyio.sleep(4)

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) == number + 1 and not client.gone.is_set():
                with anyio.CancelScope(shield=True):
                    await client.gone.wait()
                    await anyio.sleep(1)

        response = Noted(with_buffer(source(), 2), on_disconnect=policy, grace=5)
        await client.get(response, send=send)
        told = {"cancel": "Disconnected()", "drain": None, "close": "Left()"}[policy]
        assert reason.events == ([] if told is None else [told])
        assert anyio.current_time() == (1060.0 if policy == "drain" else 1007.0)
        # The last one is for nobody.
        has_second = first != Head(204) and number > 0
        assert len(sent) == (3 if has_second else 2)
        assert len(response.outcomes) == 1

    async def test_server_that_shields_the_start_of_a_last_word(self) -> None:
        """Web: the last word of a stream that was stopped before its first item is not sent to a
        client that went while the status was sent, either."""
        client, token, sent = Client(goes_after=3), CancelToken(), list[Any]()
        token.cancel()

        async def send(message: Any) -> None:
            sent.append(message.get("status") or message["body"])
            if len(sent) == 1:
                with anyio.CancelScope(shield=True):
                    await client.gone.wait()
                    await anyio.sleep(1)

        stream = with_cancellation(Notes().source(), token)
        await client.get(StreamResponse(stream, final=last_word), send=send)
        assert sent == [200, b""]

    async def test_error_under_a_shield(self) -> None:
        """Web: an error that comes meanwhile is raised when the server lets go."""
        client, error = Client(takes={1: math.inf}, shields=True, goes_after=60), LookupError()
        with pytest.raises(LookupError) as caught:
            await client.get(StreamResponse(fails_when_told(error), send_timeout=4))
        assert caught.value is error
        assert anyio.current_time() == 1060.0

    async def test_gone_with_the_last_message(self, caplog: pytest.LogCaptureFixture) -> None:
        """Web: a client that goes in the last message has read of the failure."""
        client = Client(takes={3: BrokenPipeError()})
        await client.get(StreamResponse(Probe("a", error=KeyError()).source(), final=last_word))
        assert client.log.events == [200, "a", "[failed]"]
        [record] = caplog.records
        assert record.getMessage().endswith("told its client so")

    async def test_nobody_hears_of_it(self) -> None:
        """Web: ``final`` is not asked when the client has gone."""
        asked: list[Outcome] = []
        client = Client(goes_after=1.5)
        await client.get(StreamResponse(Notes().source(), final=asked.append))
        assert asked == []

    async def test_error_under_a_shield_of_a_request_that_is_cancelled(self) -> None:
        """Web: the error is not lost if the request is cancelled while the server shields."""
        error = LookupError()

        async def on_end(outcome: Outcome) -> None:
            raise error

        async def send(message: Any) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(9)

        response = StreamResponse(
            Notes().source(), send_timeout=4, on_disconnect="close", on_end=on_end
        )
        with anyio.move_on_after(7), pytest.raises(LookupError) as caught:
            await Client().get(response, send=send)
        assert caught.value is error
        assert anyio.current_time() == 1010.0

    async def test_only_sends_count(self) -> None:
        """Web: the limit is for each message, and not for the source."""
        client = Client(takes={0: 3.0, 1: 3.0, 2: 3.0, 3: 3.0})
        probe = Probe("a", "b", every=9.0)
        await client.get(StreamResponse(probe.source(), send_timeout=4))
        assert client.complete
        assert anyio.current_time() == 1000 + 9 + 3 + 3 + 9 + 3 + 3

    async def test_gone_before_the_limit(self) -> None:
        """Web: a client that goes while a message waits is no slow one."""
        client = Client(takes={1: math.inf}, goes_after=2)
        await client.get(StreamResponse(Notes().source(), send_timeout=4))
        assert anyio.current_time() == 1002.0

    async def test_error_of_the_source(self) -> None:
        """Web: an error of the source comes first."""
        client = Client(takes={1: math.inf})

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "a"
                await anyio.sleep(1)
            finally:
                raise LookupError

        with pytest.raises(LookupError):
            await client.get(StreamResponse(source(), send_timeout=4))


STATUSES = [204, 205, 304]


class TestWithoutBody:
    @pytest.mark.parametrize("status", STATUSES)
    async def test_head(self, status: int) -> None:
        """Web: no beat, no last word and no content type for a status that has no body."""

        async def source() -> AsyncGenerator[Any, None]:
            yield Head(status, {"x-run": "12"})
            await anyio.sleep(60)

        client = Client()
        response = Noted(with_keepalive(source(), 15, ": ping\n"), final=last_word)
        await client.get(response)
        assert client.log == [(0.0, status), (60.0, "end")]
        assert "content-type" not in client.headers
        assert client.headers["x-run"] == "12"
        assert outcome_of(response).kind == "completed"

    async def test_status_of_the_users_own(self) -> None:
        """Web: no last word either where the stream has a status of its own, which takes the Head,
        and where the source ends before the status is sent."""
        client = Client()
        own = with_status(aiter_of(Head(204)))
        await client.get(StreamResponse(own, final=last_word))
        assert client.log.events == [204, "end"]

    @pytest.mark.parametrize("status", STATUSES)
    async def test_item(self, status: int) -> None:
        """Web: an item after such a Head is an error."""
        probe = Probe(Head(status), "a")
        client, response = Client(), Noted(probe.source())
        with pytest.raises(RuntimeError, match="yield nothing after such a Head"):
            await client.get(response)
        assert client.log.events == [status]
        assert outcome_of(response).kind == "failed"
        assert probe.closed == 1

    async def test_failure(self) -> None:
        """Web: a failure is raised, for there is no place to tell it."""
        client, error = Client(), LookupError()
        with pytest.raises(LookupError) as caught:
            source = Probe(Head(204), error=error).source()
            await client.get(StreamResponse(source, final=last_word))
        assert caught.value is error
        assert client.log.events == [204]

    async def test_status_of_the_response(self) -> None:
        """Web: an item is refused before a status is sent that would have no body."""
        client, response = Client(), Noted(aiter_of("a"))
        response._terms = replace(response._terms, status=204)
        with pytest.raises(RuntimeError, match="yield nothing after such a Head"):
            await client.get(response)
        assert client.log.events == []

    @pytest.mark.parametrize("items", ["a", "abc"])
    async def test_item_of_a_source_that_has_ended(self, items: str) -> None:
        """Web: so is one that comes when its source has ended, for it was read ahead; nothing is
        sent before the error, or the client would take it for an empty answer."""

        async def source() -> AsyncGenerator[Any, None]:
            yield Head(204)
            for item in items:
                yield item

        client = Client()
        with pytest.raises(RuntimeError, match="yield nothing after such a Head"):
            await client.get(StreamResponse(with_buffer(source(), 4)))
        assert not client.complete

    async def test_late_head(self) -> None:
        """Web: a Head that comes too late does not take the body away."""

        async def source() -> AsyncGenerator[Any, None]:
            await anyio.sleep(20)
            yield Head(204)
            yield "a"

        client = Client()
        await client.get(StreamResponse(source(), final=last_word))
        assert client.log.events == [200, "a", "[completed]", "end"]


class TestOnEnd:
    """An on_end that fails: the client has every item by then."""

    @pytest.mark.parametrize("hangs", [False, True], ids=["raises", "hangs"])
    async def test_told(self, hangs: bool, caplog: pytest.LogCaptureFixture) -> None:
        """Web: the last word says that it failed, the answer is complete, and it is logged."""
        told: list[Outcome] = []
        error = LookupError("the database is away")

        async def on_end(outcome: Outcome) -> None:
            if hangs:
                await anyio.sleep_forever()
            raise error

        def final(outcome: Outcome) -> str:
            told.append(outcome)
            return f"[{outcome.kind}]"

        client = Client()
        await client.get(
            StreamResponse(aiter_of("a"), on_end=on_end, final=final, on_end_timeout=3)
        )
        assert client.log.events == [200, "a", "[failed]", "end"]
        assert told[0].on_end_error is error or isinstance(told[0].on_end_error, TimeoutError)
        [record] = caplog.records
        assert record.exc_info is not None
        assert record.exc_info[1] is told[0].on_end_error

    async def test_of_another_end(self) -> None:
        """Web: every other kind stays what it was."""

        async def on_end(outcome: Outcome) -> None:
            raise LookupError

        client, error = Client(), ValueError()
        await client.get(
            StreamResponse(
                Probe("a", error=error).source(),
                on_end=on_end,
                final=lambda outcome: f"{outcome.error is error} {outcome.on_end_error!r}",
            )
        )
        assert client.log.events == [200, "a", "True LookupError()", "end"]

    async def test_not_told(self) -> None:
        """Web: where there is no last word it is raised, and the answer is cut."""

        async def on_end(outcome: Outcome) -> None:
            raise LookupError

        client = Client()
        with pytest.raises(LookupError):
            await client.get(StreamResponse(aiter_of("a"), on_end=on_end))
        assert client.log.events == [200, "a"]

    async def test_without_a_client(self, caplog: pytest.LogCaptureFixture) -> None:
        """Web: it is logged as well when the client has gone."""

        async def on_end(outcome: Outcome) -> None:
            raise LookupError

        client = Client(goes_after=1.5)
        await client.get(
            StreamResponse(
                Probe("a", "b", every=1.0).source(),
                on_end=on_end,
                final=last_word,
                on_disconnect="drain",
            )
        )
        assert "failed, and its client has gone" in caplog.text


class TestHeadRequest:
    async def test_source_never_starts(self) -> None:
        """Web: a HEAD is answered with the headers, and the source is closed unstarted."""
        client, probe = Client("HEAD"), Probe("a")
        response = Noted(probe.source(), headers={"x-run": "12"})
        await client.get(response)
        assert client.log == [(0.0, 200), (0.0, "end")]
        assert client.sends == 2
        assert client.headers["x-run"] == "12"
        assert (probe.started, outcome_of(response).kind) == (False, "closed")

    async def test_closed_unstarted(self) -> None:
        """Web: a source that is to be closed is, also then."""
        send, receive = anyio.create_memory_object_stream[str]()
        await Client("HEAD").get(StreamResponse(receive))
        with pytest.raises(anyio.BrokenResourceError):
            await send.send("a")
        send.close()

    async def test_slow_client(self) -> None:
        """Web: a HEAD has the same limit."""
        client, probe = Client("HEAD", takes={0: math.inf}), Probe("a")
        await client.get(StreamResponse(probe.source(), send_timeout=4))
        assert (client.log, probe.started) == ([], False)

    @pytest.mark.parametrize("policy", POLICIES)
    @pytest.mark.parametrize("shields", [False, True])
    async def test_gone_meanwhile(self, policy: Any, shields: bool) -> None:
        """Web: and one of which it is told while the headers are sent does not, either."""
        client, probe = Client("HEAD", goes_after=1), Probe("a")

        async def send(message: Any) -> None:
            with anyio.CancelScope(shield=shields):
                await anyio.sleep(50)

        await client.get(StreamResponse(probe.source(), on_disconnect=policy), send=send)
        assert (client.log, probe.started) == ([], False)

    @pytest.mark.parametrize("policy", POLICIES)
    async def test_disconnect(self, policy: Any) -> None:
        """Web: a client of a HEAD that goes does not start the source, either."""
        client, probe = Client("HEAD", takes={0: BrokenPipeError()}), Probe("a")
        await client.get(StreamResponse(probe.source(), on_disconnect=policy))
        assert (client.log, probe.started) == ([], False)


POINTS: dict[str, dict[str, Any]] = {
    "before the first item": {"at": 0.5},
    "between two items": {"at": 1.5},
    "in send": {"at": 3.0, "takes": {2: math.inf}},
    "in the grace": {"at": 3.0, "goes_after": 1.5},
    "while draining": {"at": 3.0, "goes_after": 1.5, "on_disconnect": "drain"},
}


at_any_point = pytest.mark.parametrize("point", POINTS)


class TestRequestIsCancelled:
    """Web: a cancellation of the request closes the source, in its own task, and goes on."""

    def start(self, point: str) -> tuple[float, Notes, Client, StreamResponse]:
        how = dict(POINTS[point])
        at, notes = how.pop("at"), Notes(reaction=3)
        client = Client(goes_after=how.pop("goes_after", math.inf), takes=how.pop("takes", None))
        return at, notes, client, StreamResponse(notes.source(), **how)

    def check(self, point: str, at: float, notes: Notes, client: Client) -> None:
        # A source that is blocked is told, and has its grace; one that has it already keeps it.
        told_at = {"before the first item": at, "between two items": at, "in the grace": 1.5}
        closed_at = told_at[point] + 3 if point in told_at else at
        assert notes.log[-1] == (closed_at, "closed")
        assert len(notes.tasks) == 1
        assert client.late == []
        assert not client.complete

    @at_any_point
    async def test_by_a_scope(self, point: str) -> None:
        """Web: the request is cancelled by a scope around it."""
        at, notes, client, response = self.start(point)
        with anyio.move_on_after(at) as scope:
            await client.get(response)
        assert scope.cancelled_caught
        self.check(point, at, notes, client)

    @pytest.mark.asyncio_only
    @at_any_point
    async def test_by_its_task(self, point: str) -> None:
        """Web: the request is cancelled by Task.cancel()."""
        at, notes, client, response = self.start(point)
        task = asyncio.get_running_loop().create_task(client.get(response))
        await anyio.sleep(at)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        self.check(point, at, notes, client)

    @pytest.mark.parametrize("error", [LookupError(), StreamCancelled()])
    async def test_sending_fails_in_that_moment(self, error: BaseException) -> None:
        """Web: an error of ``send`` is not lost in a cancellation of the same moment, which a stop
        does not hide."""
        client, scope, raised = Client(), anyio.CancelScope(), None

        async def send(message: dict[str, Any]) -> None:
            await client.send(message)
            if message.get("body"):
                scope.cancel()
                raise error

        with scope:
            try:
                await client.get(StreamResponse(aiter_of("a", "b")), send=send)
            except LookupError as exc:
                raised = exc
        is_stop = isinstance(error, StreamCancelled)
        assert raised is (None if is_stop else error)
        assert scope.cancelled_caught == is_stop
        assert not client.complete

    async def test_send_ends_in_that_moment(self) -> None:
        """Web: a request that is cancelled in the moment in which ``send`` ends is only
        cancelled."""
        client, scope, taken = Client(), anyio.CancelScope(), anyio.Event()

        async def send(message: dict[str, Any]) -> None:
            await client.send(message)
            if message.get("body"):
                await taken.wait()

        async def cancel() -> None:
            await anyio.sleep(1)
            scope.cancel()
            taken.set()

        response = Noted(aiter_of("a", "b"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel)
            with scope:
                await client.get(response, send=send)
        assert scope.cancelled_caught
        assert outcome_of(response).kind == "closed"
        assert not client.complete

    @pytest.mark.asyncio_only
    async def test_only_the_task_that_sends(self) -> None:
        """Web: somebody cancels the task that sends, and no other: the answer is not complete."""
        log, client = Log(), Client()

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "a"
                await anyio.sleep_forever()
            finally:
                log("closed")

        async def cancel_it() -> None:
            await anyio.sleep(1)
            (sender,) = (each for each in asyncio.all_tasks() if "sender of" in each.get_name())
            sender.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_it)
            with pytest.raises(anyio.BrokenResourceError, match="sends an answer was cancelled"):
                await client.get(StreamResponse(source()))
        assert not client.complete
        assert log.events == ["closed"]

    async def test_closing_fails(self) -> None:
        """Web: what the closing raises then is not lost."""

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "a"
                await anyio.sleep_forever()
            finally:
                raise LookupError

        with pytest.raises(LookupError):
            with anyio.move_on_after(1):
                await Client().get(StreamResponse(source()))

    async def test_closing_fails_after_an_error_of_receive(self) -> None:
        """Web: nor is it when receive() has failed."""

        async def receive() -> Any:
            await anyio.sleep(1)
            raise RuntimeError

        async def source() -> AsyncGenerator[str, None]:
            try:
                yield "a"
                await anyio.sleep_forever()
            finally:
                raise LookupError

        with pytest.raises(ExceptionGroup) as caught:
            await Client().get(StreamResponse(source()), receive=receive)
        assert caught.group_contains(LookupError)
        assert caught.group_contains(RuntimeError)


class TestMiddleware:
    """Web: between server and response is something that works like Starlette's BaseHTTPMiddleware:
    it calls the application in a task of its own, passes its messages on through a stream, and
    cancels it when the server's send() fails."""

    async def test_complete(self) -> None:
        """Web: an answer passes."""
        client = Client()
        await client.get(Middleware(StreamResponse(Probe("a", every=1).source())))
        assert client.log == [(1.0, 200), (1.0, "a"), (1.0, "end")]

    async def test_error_first(self) -> None:
        """Web: an error before the first item passes, bare."""
        client, error = Client(), LookupError()
        with pytest.raises(LookupError) as caught:
            await client.get(Middleware(StreamResponse(Probe[str](error=error).source())))
        assert caught.value is error
        assert client.log == []

    async def test_error_in_the_middle(self) -> None:
        """Web: an error after the start looks like a good end there: only a last word tells."""
        client = Client()
        source = Probe("a", error=LookupError()).source()
        await client.get(Middleware(StreamResponse(source, final=last_word)))
        assert client.log.events == [200, "a", "[failed]", "end"]
        client = Client()
        with pytest.raises(LookupError):
            await client.get(Middleware(StreamResponse(Probe("a", error=LookupError()).source())))
        assert client.log.events == [200, "a", "end"]

    @pytest.mark.parametrize("at", [0.5, 1.5], ids=["before the first item", "idle"])
    async def test_disconnect(self, at: float) -> None:
        """Web: a client that goes is noticed, and nothing is raised that the server would log."""
        client, notes = Client(goes_after=at), Notes(reaction=1)
        await client.get(Middleware(StreamResponse(notes.source())))
        assert notes.log[1:] == [(at, "told Disconnected()"), (at + 1, "closed")]
        assert len(notes.tasks) == 1

    async def test_blocked_in_send(self) -> None:
        """Web: also while the server waits for a client that no longer reads."""
        client, notes = Client(goes_after=9), Notes()

        async def send(message: dict[str, Any]) -> None:
            await client.send(message)
            if message["type"] == "http.response.body":
                await client.gone.wait()

        await client.get(Middleware(StreamResponse(notes.source())), send=send)
        assert notes.log[1:] == [(9.0, "told Disconnected()"), (9.0, "closed")]

    async def test_error_of_send(self) -> None:
        """Web: an error of the server's send() cancels the request: the source is closed in its own
        task."""
        client, notes = Client(takes={2: BrokenPipeError()}), Notes()
        with pytest.raises(BrokenPipeError):
            await client.get(Middleware(StreamResponse(notes.source())))
        assert notes.log[1][1] in ("told Left()", "closed early")
        assert notes.log[2:] == [(2.0, "closed")]
        assert len(notes.tasks) == 1
