"""Sockets: the handshake, what is said over them, how they are closed."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from observing import call_later
from streamkit import (
    CancelToken,
    Head,
    Outcome,
    StreamTimeout,
    with_cancellation,
    with_keepalive,
    with_status,
    with_timeout,
)
from streamkit._websocket.connection import SocketConnection
from streamkit.asgi import Disconnected, Shutdown, StreamHost, WebSocketStream
from support import Client, Probe, Socket, aiter_of, live_tasks, wait_all_blocked
from support.socket import STOP, Told

GONE = [
    BrokenPipeError(),
    ConnectionResetError(),
    anyio.ClosedResourceError(),
    anyio.BrokenResourceError(),
]


def last_word(outcome: Outcome) -> object:
    return {"end": outcome.kind}


class Noted(WebSocketStream):
    """A stream that notes its outcomes."""

    def __init__(self, source: Any, **options: Any) -> None:
        self.outcomes: list[Outcome] = []

        async def on_end(outcome: Outcome) -> None:
            self.outcomes.append(outcome)

        super().__init__(source, on_end=on_end, **options)

    @property
    def outcome(self) -> Outcome:
        [outcome] = self.outcomes
        return outcome


class TestHandshake:
    async def test_items(self) -> None:
        """WS60: the handshake waits for the first item; the close comes after the last word."""
        socket, probe = Socket(), Probe("a", b"b", {"c": 1}, every=1.0)
        stream = Noted(probe.source(), final=last_word)
        await socket.open(stream)
        assert socket.log == [
            (1.0, 101),
            (1.0, "a"),
            (2.0, b"b"),
            (3.0, '{"c":1}'),
            (3.0, '{"end":"completed"}'),
            (3.0, (1000, "completed")),
        ]
        assert (stream.outcome.kind, stream.outcome.items) == ("completed", 3)
        assert probe.closed == 1

    async def test_empty(self) -> None:
        """WS60: a source without items ends in a handshake and a close."""
        socket = Socket()
        await socket.open(WebSocketStream(aiter_of()))
        assert socket.log.events == [101, (1000, "completed")]

    async def test_headers(self) -> None:
        """WS60: headers are those of the handshake, and so are those of a Head that says yes."""

        async def source() -> AsyncGenerator[Any, None]:
            yield Head(204, {"x-run": "12", "set-cookie": "a=b"})
            await anyio.sleep(1)
            yield "a"

        socket = Socket()
        await socket.open(WebSocketStream(source(), headers={"x-run": "7", "x-more": "1"}))
        assert socket.log == [(0.0, 101), (1.0, "a"), (1.0, (1000, "completed"))]
        assert socket.headers == {"x-more": "1", "x-run": "12", "set-cookie": "a=b"}

    @pytest.mark.parametrize(
        ("offered", "chosen"),
        [((), None), (("x",), None), (("b", "a"), "b"), (("x", "a"), "a")],
    )
    async def test_subprotocols(self, offered: tuple[str, ...], chosen: str | None) -> None:
        """WS60: the first that the client offers, and that is spoken here."""
        socket = Socket(subprotocols=offered)
        await socket.open(WebSocketStream(aiter_of("x"), subprotocols=["a", "b"]))
        assert socket.subprotocol == chosen

    async def test_no_subprotocols_in_the_scope(self) -> None:
        """WS60: a server need not say what the client offers."""
        socket = Socket()
        del socket.scope["subprotocols"]
        await socket.open(WebSocketStream(aiter_of("x"), subprotocols=["a"]))
        assert socket.subprotocol is None

    async def test_handshake_without_an_item(self) -> None:
        """WS60: a client does not wait for longer than some seconds."""

        async def source() -> AsyncGenerator[Any, None]:
            await anyio.sleep(60)
            yield "late"

        socket = Socket()
        await socket.open(WebSocketStream(source()))
        assert socket.log == [(5.0, 101), (60.0, "late"), (60.0, (1000, "completed"))]
        socket = Socket()
        await socket.open(WebSocketStream(source(), first_item_within=1))
        assert socket.log[0] == (1.0, 101)

    async def test_beats(self) -> None:
        """WS60: beats go out after the handshake, if there are any."""

        async def source() -> AsyncGenerator[Any, None]:
            await anyio.sleep(25)
            yield "item"

        socket = Socket()
        stream = WebSocketStream(source(), beat={"type": "ping"}, keepalive=10)
        await socket.open(stream)
        assert socket.log == [
            (5.0, 101),
            (15.0, '{"type":"ping"}'),
            (25.0, "item"),
            (25.0, (1000, "completed")),
        ]
        socket = Socket()
        await socket.open(WebSocketStream(with_keepalive(source(), 10, lambda idle: idle.count)))
        assert socket.log.events == [101, "1", "item", (1000, "completed")]


class TestRefusal:
    @staticmethod
    async def source() -> AsyncGenerator[Any, None]:
        yield Head(409, {"x-why": "busy"})
        await anyio.sleep(3)
        yield "somebody "
        yield b"else"

    async def test_status(self) -> None:
        """WS61: a Head that says no is the answer, with what the source yields, in one piece."""
        socket = Socket()
        stream = Noted(self.source(), final=last_word, headers={"x-a": "b"})
        await socket.open(stream)
        assert socket.log == [(3.0, 409), (3.0, "somebody else")]
        assert socket.headers == {
            "content-type": "text/plain; charset=utf-8",
            "x-a": "b",
            "x-why": "busy",
            "content-length": "13",
        }
        assert stream.outcome.kind == "completed"
        assert stream.outcome.head is not None
        assert stream.outcome.head.status == 409

    async def test_content_type(self) -> None:
        """WS61: the body is of the type that the source says."""

        async def source() -> AsyncGenerator[Any, None]:
            yield Head(404, {"content-type": "application/json"})
            yield {"code": "run_not_found"}

        socket = Socket()
        await socket.open(WebSocketStream(source()))
        assert socket.log.events == [404, '{"code":"run_not_found"}']
        assert socket.headers["content-type"] == "application/json"

    async def test_no_extension(self) -> None:
        """WS61: where the server takes no answer, it is told to refuse, and says 403."""
        socket = Socket(deniable=False)
        await socket.open(WebSocketStream(self.source(), final=last_word))
        assert socket.log == [(3.0, 403)]

    async def test_close(self) -> None:
        """WS61: a browser is told in the socket: by the items, and by the code."""
        socket = Socket()
        await socket.open(WebSocketStream(self.source(), errors="close", final=last_word))
        assert socket.log == [
            (0.0, 101),
            (3.0, "somebody "),
            (3.0, b"else"),
            (3.0, (1008, "refused")),
        ]

    async def test_accepted_before(self) -> None:
        """WS61: after a handshake that somebody else has made, there is the code alone."""
        socket = Socket(is_accepted=True)
        await socket.open(WebSocketStream(self.source(), accepted=True))
        assert socket.log.events == ["somebody ", b"else", (1008, "refused")]

    async def test_too_late(self, caplog: pytest.LogCaptureFixture) -> None:
        """WS61: a Head that comes after the handshake is told by the code."""

        async def source() -> AsyncGenerator[Any, None]:
            await anyio.sleep(7)
            yield Head(403)

        socket = Socket()
        await socket.open(WebSocketStream(source()))
        assert socket.log == [(5.0, 101), (7.0, (1008, "refused"))]
        assert "came too late" in caplog.text

    @pytest.mark.parametrize("waits", [0, 7])
    async def test_status_of_the_users_own(self, waits: float) -> None:
        """WS61: a Head is heard, in time or too late, if the stream has a status of its own."""

        async def source() -> AsyncGenerator[Any, None]:
            await anyio.sleep(waits)
            yield Head(403)

        socket, own = Socket(), with_status(source())
        await socket.open(WebSocketStream(own, errors="close", final=last_word))
        assert socket.log.events == [101, (1008, "refused")]

    async def test_no_body(self) -> None:
        """WS61: a status that has no body has none here either."""

        async def source() -> AsyncGenerator[Any, None]:
            yield Head(304)

        socket = Socket()
        await socket.open(WebSocketStream(source(), beat="ping"))
        assert socket.log.events == [304, ""]
        assert "content-type" not in socket.headers

    async def test_no_beats(self) -> None:
        """WS61: a beat has no place in an answer."""

        async def source() -> AsyncGenerator[Any, None]:
            yield Head(409)
            await anyio.sleep(60)
            yield "busy"

        socket = Socket()
        await socket.open(WebSocketStream(source(), beat="ping", keepalive=1))
        assert socket.log == [(60.0, 409), (60.0, "busy")]

    async def test_too_much(self) -> None:
        """WS61: an answer is in one piece, so there is an end to it."""

        async def source() -> AsyncGenerator[Any, None]:
            yield Head(409)
            for _ in range(17):
                yield b"x" * 65536

        socket = Socket()
        with pytest.raises(RuntimeError, match="1 MiB"):
            await socket.open(WebSocketStream(source()))
        assert socket.log.events == []

    @pytest.mark.parametrize("deniable", [True, False])
    async def test_error_after_it(self, deniable: bool) -> None:
        """WS61: a source that refuses and then fails has not refused: the server answers."""
        error = LookupError()

        async def source() -> AsyncGenerator[Any, None]:
            yield Head(409)
            yield "a"
            raise error

        socket = Socket(deniable=deniable)
        with pytest.raises(LookupError) as caught:
            await socket.open(WebSocketStream(source()))
        assert caught.value is error
        assert socket.log.events == []

    async def test_stop_after_it(self) -> None:
        """WS61: a source that refuses and is then stopped has refused."""
        token = CancelToken()

        async def source() -> AsyncGenerator[Any, None]:
            yield Head(409)
            yield "a"
            token.cancel()
            await anyio.sleep_forever()

        socket = Socket()
        await socket.open(WebSocketStream(with_cancellation(source(), token), final=last_word))
        assert socket.log.events == [409, "a"]

    async def test_error(self) -> None:
        """WS61: an error before the first item is raised, with nothing on the wire."""
        error, socket = LookupError(), Socket()
        stream = Noted(Probe[str](error=error).source())
        with pytest.raises(LookupError) as caught:
            await socket.open(stream)
        assert caught.value is error
        assert socket.log.events == []
        assert stream.outcome.kind == "failed"


class TestStop:
    async def test_stop(self) -> None:
        """WS62: the client says stop; the source is told its reason, and has its grace."""
        told, socket = Told(reaction=2, last="last item"), Socket(says={2.5: STOP})
        stream = Noted(told.source(), final=last_word)
        await socket.open(stream)
        assert told.log == [(2.5, "enough"), (4.5, "closed")]
        assert socket.log == [
            (1.0, 101),
            (1.0, "0"),
            (2.0, "1"),
            (4.5, "last item"),
            (4.5, '{"end":"cancelled"}'),
            (4.5, (1000, "cancelled")),
        ]
        assert (stream.outcome.kind, stream.outcome.reason) == ("cancelled", "enough")

    async def test_no_last_word(self) -> None:
        """WS62: the code tells that it was stopped, so nothing is raised."""
        told, socket = Told(), Socket(says={1.5: STOP})
        await socket.open(WebSocketStream(told.source()))
        assert socket.log.events == [101, "0", (1000, "cancelled")]

    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            ('{"type":"stop"}', None),
            (b'{"type":"stop","reason":"bytes"}', "bytes"),
            ('{"type":"stop","reason":7}', None),
            ('{"type":"stop","reason":""}', None),
            ('{"type":"stop","reason":"\\ud83d"}', "?"),
            ('{"type":"stop","reason":"' + "x" * 2000 + '"}', "x" * 1000),
        ],
    )
    async def test_reasons(self, message: str | bytes, reason: str | None) -> None:
        """WS62: the reason is text, and no long one."""
        told, socket = Told(), Socket(says={1.5: message})
        await socket.open(WebSocketStream(told.source()))
        assert told.log.events == [reason, "closed"]

    @pytest.mark.parametrize(
        "message",
        [
            "",
            "stop",
            '"stop"',
            "[" * 8000,
            b"\xff",
            '{"type":"go"}',
            '{"stop":true}',
            "9" * 8000,
            '{"type":"stop","reason":"' + "x" * 9000 + '"}',
        ],
        ids=range(9),
    )
    async def test_what_is_none(self, message: str | bytes) -> None:
        """WS62: whatever else the client says is dropped, and does no harm."""
        socket = Socket(says={1.5: message, 3.5: STOP})
        await socket.open(WebSocketStream(Told().source()))
        assert socket.log.events == [101, "0", "1", "2", (1000, "cancelled")]

    async def test_own_stop(self) -> None:
        """WS62: what a stop is can be said; ``True`` is one without a reason."""
        heard: list[object] = []

        def stop(message: str | bytes) -> object:
            heard.append(message)
            return message == "quit"

        told, socket = Told(), Socket(says={0.5: "early", 1.5: STOP, 2.5: "quit"})
        await socket.open(WebSocketStream(told.source(), stop=stop))
        # A client has nothing to say before there is a handshake.
        assert heard == ["early", STOP, "quit"]
        assert told.log == [(2.5, None), (2.5, "closed")]

    async def test_no_stop(self) -> None:
        """WS62: a stream that no client may stop."""
        socket = Socket(says={0.5: STOP})
        await socket.open(WebSocketStream(Probe("a", every=1.0).source(), stop=None))
        assert socket.log.events == [101, "a", (1000, "completed")]

    async def test_second_stop(self) -> None:
        """WS62: the first stop counts, and its grace goes on."""
        told = Told(reaction=2, last="last item")
        socket = Socket(says={1.5: STOP, 2: '{"type":"stop","reason":"now"}'})
        await socket.open(WebSocketStream(told.source()))
        assert told.log == [(1.5, "enough"), (3.5, "closed")]
        assert socket.log.events[-2:] == ["last item", (1000, "cancelled")]

    async def test_error_in_stop(self) -> None:
        """WS62: what tells the stops raises: the stream has failed, and the client is told."""
        error = LookupError()

        def stop(message: str | bytes) -> object:
            raise error

        socket = Socket(says={1.5: "a", 1.6: "b"})
        with pytest.raises(LookupError) as caught:
            await socket.open(WebSocketStream(Told().source(), stop=stop))
        assert caught.value is error
        assert socket.log == [(1.0, 101), (1.0, "0"), (1.5, (1011, "failed"))]

    async def test_late_error_in_stop(self) -> None:
        """WS62: an error that comes while the last word is sent is raised, and loses no word."""

        def stop(message: str | bytes) -> object:
            raise LookupError

        socket = Socket(says={1.5: "a"}, takes={2: 3.0})
        with pytest.raises(LookupError):
            await socket.open(WebSocketStream(aiter_of("a"), stop=stop, final=last_word))
        assert socket.log.events[-2:] == ['{"end":"completed"}', (1000, "completed")]

    async def test_late_stop(self) -> None:
        """WS62: a stop that comes while the last word is sent changes nothing."""
        socket = Socket(says={1.5: STOP}, takes={2: 3.0})
        stream = Noted(aiter_of("a"), final=last_word)
        await socket.open(stream)
        assert stream.outcome.kind == "completed"
        assert socket.log.events[-2:] == ['{"end":"completed"}', (1000, "completed")]

    async def test_async_stop(self) -> None:
        """WS62: a stop that turns out to be async is said to be."""

        async def later() -> bool:
            return True

        socket = Socket(says={1.5: "a"})
        with pytest.raises(TypeError, match="must not be async"):
            await socket.open(WebSocketStream(Told().source(), stop=lambda message: later()))

    async def test_grace(self) -> None:
        """WS62: a source that takes too long over a stop is cut when its grace is over."""
        told, socket = Told(reaction=math.inf), Socket(says={1.5: STOP})
        stream = Noted(told.source(), grace=3)
        await socket.open(stream)
        assert stream.outcome.grace_exceeded
        assert socket.log[-1] == (4.5, (1000, "cancelled"))

    async def test_while_it_is_sent(self) -> None:
        """WS62: a client that does not read is heard all the same."""
        told = Told(last="last item")
        socket = Socket(says={1.5: STOP}, takes={1: 10.0})
        await socket.open(WebSocketStream(told.source()))
        assert told.log.events[0] == "enough"
        assert told.log[0][0] == 1.5
        assert socket.log == [
            (1.0, 101),
            (11.0, "0"),
            (11.0, "last item"),
            (11.0, (1000, "cancelled")),
        ]

    async def test_flood(self) -> None:
        """WS62: a client that says more than anybody can read keeps nobody else from running."""

        class Endless(Socket):
            async def _receive(self) -> dict[str, Any]:
                if not self._is_connected:
                    return await super()._receive()
                self.read += 1
                return {"type": "websocket.receive", "text": "x"}

        async def source() -> AsyncGenerator[str, None]:
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
                yield "item"

        socket = Endless()
        with anyio.fail_after(5):
            await socket.open(WebSocketStream(source()))
        assert socket.log.events == [101, *["item"] * 5, (1000, "completed")]
        assert socket.read < 200

    async def test_token(self) -> None:
        """WS62: a token from elsewhere is a stop like that of the client."""
        token, told, socket = CancelToken(), Told(last="last item"), Socket()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 1.5, token.cancel, "elsewhere")
            await socket.open(WebSocketStream(with_cancellation(told.source(), token)))
        assert socket.log.events == [101, "0", "last item", (1000, "cancelled")]

    @pytest.mark.parametrize("final", [None, last_word])
    async def test_before_it_started(self, final: Any) -> None:
        """WS62: a stream that was stopped before its first item is no error: a socket is closed."""
        token, socket, probe = CancelToken(), Socket(), Probe("a")
        token.cancel()
        await socket.open(WebSocketStream(with_cancellation(probe.source(), token), final=final))
        said = [] if final is None else ['{"end":"cancelled"}']
        assert socket.log.events == [101, *said, (1000, "cancelled")]
        assert not probe.started

    async def test_accepted_before(self) -> None:
        """WS62: over a socket that was opened before, a stop may come before the first item."""
        told, socket = Told(every=5), Socket(is_accepted=True, says={1.0: STOP})
        await socket.open(WebSocketStream(told.source(), accepted=True))
        assert socket.log == [(1.0, (1000, "cancelled"))]


class TestEnd:
    @pytest.mark.parametrize("final", [None, last_word])
    async def test_failure(self, final: Any, caplog: pytest.LogCaptureFixture) -> None:
        """WS63: a failure is told by 1011, and is raised or logged, never both."""
        error, socket = LookupError("secret"), Socket()
        stream = Noted(Probe("a", error=error).source(), final=final)
        if final is None:
            with pytest.raises(LookupError) as caught:
                await socket.open(stream)
            assert caught.value is error
            said = []
        else:
            await socket.open(stream)
            said = ['{"end":"failed"}']
        assert socket.log.events == [101, "a", *said, (1011, "failed")]
        logged = [record for record in caplog.records if record.name == "streamkit"]
        assert len(logged) == (final is not None)

    async def test_timeout(self) -> None:
        """WS63: a limit of time is a failure of its own kind."""
        socket = Socket()
        stream = WebSocketStream(with_timeout(Told().source(), total=1.5))
        with pytest.raises(StreamTimeout):
            await socket.open(stream)
        assert socket.log == [(1.0, 101), (1.0, "0"), (1.5, (1011, "timed_out"))]

    @pytest.mark.parametrize("final", [None, last_word])
    async def test_on_end_fails(self, final: Any) -> None:
        """WS63: an ``on_end`` that fails makes a failure of a success, for the client, too."""
        error, socket = LookupError(), Socket()

        async def on_end(outcome: Outcome) -> None:
            raise error

        stream = WebSocketStream(aiter_of("a"), on_end=on_end, final=final)
        if final is None:
            with pytest.raises(LookupError):
                await socket.open(stream)
        else:
            await socket.open(stream)
        assert socket.log.events[-1] == (1011, "failed")

    @pytest.mark.parametrize("takes", [math.inf, ValueError("server"), BrokenPipeError()])
    async def test_close_fails(self, takes: Any) -> None:
        """WS63: an error is not lost with a close that takes too long, or that the server or the
        client does not take."""
        error = LookupError()

        async def on_end(outcome: Outcome) -> None:
            raise error

        socket = Socket(takes={2: takes})
        with pytest.raises((LookupError, ExceptionGroup)) as caught:
            await socket.open(WebSocketStream(aiter_of("a"), on_end=on_end, send_timeout=4))
        if isinstance(takes, ValueError):
            assert isinstance(caught.value, ExceptionGroup)
            assert caught.value.exceptions == (error, takes)
        else:
            assert caught.value is error
        assert socket.log.events == [101, "a"]
        assert anyio.current_time() == (1004.0 if takes == math.inf else 1000.0)

    async def test_close_of_a_stop_fails(self) -> None:
        """WS63: a stop is no error, also where its close takes too long."""
        socket = Socket(takes={2: math.inf}, says={1.5: STOP})
        await socket.open(WebSocketStream(Told().source(), send_timeout=4))
        assert socket.log.events == [101, "0"]

    async def test_no_json(self) -> None:
        """WS63: an item that there is no JSON for fails the stream by its name."""
        socket = Socket()
        with pytest.raises(TypeError, match="no JSON for object: yield str, bytes"):
            await socket.open(WebSocketStream(aiter_of("a", object())))
        assert socket.log.events == [101, "a", (1011, "failed")]

    async def test_no_json_in_the_end(self) -> None:
        """WS63: so does a last word."""
        socket = Socket()
        with pytest.raises(TypeError, match="no JSON for object"):
            await socket.open(WebSocketStream(aiter_of("a"), final=lambda outcome: object()))
        assert socket.log.events == [101, "a", (1011, "failed")]

    async def test_encoder(self) -> None:
        """WS63: an encoder says what becomes of it."""
        socket = Socket()
        stream = WebSocketStream(
            aiter_of({"a": 1j}), encoder=str, final=lambda outcome: [1j, b"bytes"]
        )
        await socket.open(stream)
        assert socket.log.events == [101, '{"a":"1j"}', '"1j"', b"bytes", (1000, "completed")]

    async def test_final_says_nothing(self) -> None:
        """WS63: a last word that is none, of a success, is no error."""
        socket = Socket()
        await socket.open(WebSocketStream(aiter_of("a"), final=lambda outcome: None))
        assert socket.log.events == [101, "a", (1000, "completed")]

    async def test_contents(self) -> None:
        """WS63: text of any kind is text, bytes of any kind are bytes."""

        class Word(StrEnum):
            A = "ä"

        @dataclass
        class Item:
            text: str

        class Bytes(bytes):
            pass

        socket = Socket()
        await socket.open(
            WebSocketStream(
                aiter_of(Word.A, "\ud83d", memoryview(b"m"), Bytes(b"b"), Item("\ud83d"), None)
            )
        )
        assert socket.log.events[1:-1] == ["ä", "?", b"m", b"b", '{"text":"?"}', "null"]

    async def test_error_of_send(self) -> None:
        """WS63: an error of the server's own is raised, and with it that of the close, if any."""
        told, error = Told(), ValueError("server")
        socket = Socket(takes={1: error})
        with pytest.raises(ValueError, match="server"):
            await socket.open(WebSocketStream(told.source()))
        assert told.log.events == ["closed"]
        assert socket.log.events == [101, (1011, "failed")]

    async def test_cancelled(self) -> None:
        """WS63: a request that is cancelled closes the stream, and goes on."""
        told, socket = Told(), Socket()
        stream = Noted(told.source())
        with anyio.move_on_after(2.5) as scope:
            await socket.open(stream)
        assert scope.cancelled_caught
        assert stream.outcome.kind == "closed"
        assert socket.log.events == [101, "0", "1"]

    async def test_reader_that_is_kept(self) -> None:
        """WS63: a server that lets nobody out of ``receive`` is not waited for for long."""
        socket = Socket(keeps=True, is_strict=False, goes_after=10)
        await socket.open(WebSocketStream(Probe("a", every=1.0).source()))
        assert socket.log == [(1.0, 101), (1.0, "a"), (2.0, (1000, "completed"))]

    async def test_no_cycle(self) -> None:
        """WS63: nothing refers to ``send`` when the call has returned: granian waits for that."""

        class Send:
            def __init__(self, socket: Socket) -> None:
                self._socket = socket

            async def __call__(self, message: Any) -> None:
                await self._socket.send(message)

        async def broken(*items: str) -> AsyncGenerator[str, None]:
            for item in items:
                yield item
            raise LookupError

        for source, final in (
            (aiter_of("a"), None),
            (broken("a"), last_word),
            (broken("a"), None),
            (broken(), None),
        ):
            socket = Socket()
            socket.log.start()
            send = Send(socket)
            found = weakref.ref(send)
            gc.disable()
            try:
                with suppress(LookupError):
                    await WebSocketStream(source, final=final)(socket.scope, socket.receive, send)
                del send
                assert found() is None
            finally:
                gc.enable()


class TestClient:
    @pytest.mark.parametrize("code", [1000, 1001, 1006])
    async def test_goes(self, code: int) -> None:
        """WS64: the client goes; the source is told, and nobody hears what it still says."""
        told = Told(reaction=1, last="last item")
        socket = Socket(goes_after=2.5, code=code)
        stream = Noted(told.source(), final=last_word)
        await socket.open(stream)
        assert told.log == [(2.5, Disconnected()), (3.5, "closed")]
        assert socket.log.events == [101, "0", "1"]
        assert socket.late == []
        assert stream.outcome.reason == Disconnected()

    async def test_goes_before_the_handshake(self) -> None:
        """WS64: nobody is there for an answer, and the server is told that there is none."""
        told, socket = Told(every=3), Socket(goes_after=1.5)
        await socket.open(WebSocketStream(told.source()))
        assert told.log == [(1.5, Disconnected()), (1.5, "closed")]
        assert socket.late == ["websocket.close"]

    async def test_goes_while_it_is_refused(self) -> None:
        """WS64: a client that does not wait for its refusal."""
        socket = Socket(goes_after=1.5)
        await socket.open(WebSocketStream(TestRefusal.source()))
        assert socket.log.events == []
        assert socket.late == ["websocket.close"]

    @pytest.mark.parametrize("error", GONE, ids=lambda error: type(error).__name__)
    async def test_send_raises(self, error: Exception) -> None:
        """WS64: so it is when ``send`` tells."""
        told, socket = Told(), Socket(takes={2: error})
        await socket.open(WebSocketStream(told.source()))
        assert told.log.events == [Disconnected(), "closed"]

    async def test_goes_as_it_ends(self) -> None:
        """WS64: a client goes just before the close: a server that has told so takes no close."""
        gone, sent = anyio.Event(), list[Any]()

        async def receive() -> Any:
            await gone.wait()
            return {"type": "websocket.disconnect", "code": 1006}

        async def send(message: Any) -> None:
            sent.append(message)

        connection = SocketConnection(
            receive,
            send,
            send_timeout=None,
            on_lost=lambda: False,
            stop=None,
            on_stop=sent.append,
            on_error=sent.append,
            is_accepted=True,
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.wait_until_gone)
            await wait_all_blocked()
            # The reading task is about to hear of it.
            gone.set()
            await connection.end({"type": "websocket.close"})
            assert connection.is_gone
            assert sent == []
            tasks.cancel_scope.cancel()

    async def test_close_raises(self) -> None:
        """WS63: a server that does not take the close is asked once, and its error is raised."""
        error = RuntimeError("not taken")
        socket = Socket(takes={2: error})
        with pytest.raises(RuntimeError) as caught:
            await socket.open(WebSocketStream(aiter_of("a")))
        assert caught.value is error
        assert socket.log.events == [101, "a"]
        assert socket.sends == 3

    async def test_receive_raises(self) -> None:
        """WS64: and when ``receive`` raises it."""

        class Broken(Socket):
            async def _receive(self) -> dict[str, Any]:
                if self.log.events:
                    await anyio.sleep(0.5)
                    raise BrokenPipeError
                return await super()._receive() if not self._is_connected else await self._wait()

            async def _wait(self) -> dict[str, Any]:
                await anyio.sleep(1.5)
                raise BrokenPipeError

        told, socket = Told(), Broken()
        await socket.open(WebSocketStream(told.source()))
        assert told.log == [(1.5, Disconnected()), (1.5, "closed")]

    async def test_fails_when_it_has_gone(self, caplog: pytest.LogCaptureFixture) -> None:
        """WS64: a source that fails over it is raised to the server, and nobody is told."""
        error = LookupError("secret")

        async def source() -> AsyncGenerator[str, None]:
            yield "a"
            try:
                await anyio.sleep_forever()
            finally:
                raise error

        socket = Socket(goes_after=1.5)
        with pytest.raises(LookupError) as caught:
            await socket.open(WebSocketStream(source()))
        assert caught.value is error
        assert socket.log.events == [101, "a"]
        assert socket.late == []

    async def test_fails_as_it_goes(self) -> None:
        """WS64: so is one that fails while a client that has gone takes its item."""
        error = LookupError()

        async def source() -> AsyncGenerator[str, None]:
            yield "a"
            raise error

        socket = Socket(goes_after=1.5, takes={1: 1.5})
        with pytest.raises(LookupError) as caught:
            await socket.open(WebSocketStream(source()))
        assert caught.value is error

    async def test_goes_at_once(self) -> None:
        """WS64: a client that has gone before anything was read of it holds nobody up."""

        class Gone(Socket):
            async def _receive(self) -> dict[str, Any]:
                self.gone.set()
                raise BrokenPipeError

        told, socket = Told(), Gone()
        with anyio.fail_after(5):
            await socket.open(WebSocketStream(told.source()))
        assert socket.log.events == []
        assert socket.late == ["websocket.close"]

    @pytest.mark.parametrize("policy", ["drain", "close"])
    async def test_policies(self, policy: Any) -> None:
        """WS64: what becomes of the source is as for any response."""
        told, socket = Told(), Socket(goes_after=2.5)
        await socket.open(WebSocketStream(told.source(), on_disconnect=policy, drain_timeout=3))
        if policy == "drain":
            assert told.log == [(5.5, Disconnected()), (5.5, "closed")]
        else:
            assert told.log[-1] == (2.5, "closed")

    async def test_drained_by_a_host(self) -> None:
        """WS64: with a host, the request ends when the client goes, and the source goes on."""
        probe, socket = Probe("a", "b", "c", every=1.0), Socket(goes_after=1.5)
        async with StreamHost() as host:
            await socket.open(WebSocketStream(probe.source(), on_disconnect="drain", host=host))
            assert host.stats().drained == 1
            await anyio.sleep(5)
            assert probe.produced == ["a", "b", "c"]

    async def test_slow(self, caplog: pytest.LogCaptureFixture) -> None:
        """WS65: nothing is read ahead of a client; one that takes too long counts as gone."""
        told, socket = Told(every=0.1), Socket(takes={2: math.inf})
        stream = Noted(told.source(), send_timeout=3)
        await socket.open(stream)
        assert told.log == [(3.2, Disconnected()), (3.2, "closed")]
        assert socket.log.events == [101, "0"]
        assert "was cut off" in caplog.text
        assert stream.outcome.items == 2

    async def test_slow_in_a_shield(self) -> None:
        """WS65: a server that shields what it sends keeps no source."""
        told = Told(every=0.1)
        socket = Socket(takes={2: math.inf}, shields=True)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_later, 10, socket.go)
            await socket.open(WebSocketStream(told.source(), send_timeout=3))
        assert told.log == [(3.2, Disconnected()), (3.2, "closed")]

    async def test_slow_close(self) -> None:
        """WS65: so is one that does not take the close."""
        socket = Socket(takes={2: math.inf})
        with anyio.fail_after(10):
            await socket.open(WebSocketStream(aiter_of("a"), send_timeout=3))
        assert socket.log == [(0.0, 101), (0.0, "a")]

    async def test_goes_at_the_close(self) -> None:
        """WS65: a client that goes while the socket is closed has had its stream."""
        socket = Socket(takes={2: BrokenPipeError()})
        stream = Noted(aiter_of("a"))
        await socket.open(stream)
        assert stream.outcome.kind == "completed"

    async def test_idle(self) -> None:
        """WS66: a socket that waits is two tasks beside its own, whatever the client says."""
        before = len(live_tasks())
        socket = Socket(says={t / 10: "x" for t in range(10, 90)})
        async with anyio.create_task_group() as tasks:
            stream = WebSocketStream(Probe("a", block=True).source())
            tasks.start_soon(socket.open, stream)
            await wait_all_blocked()
            assert len(live_tasks()) - before == 3
            await anyio.sleep(10)
            assert len(live_tasks()) - before == 3
            assert socket.read == 80
            tasks.cancel_scope.cancel()


class TestHost:
    async def test_shutdown(self) -> None:
        """WS67: each source is told, each client has its last items and the code 1001."""
        told, socket = Told(reaction=1, last="last item"), Socket()
        async with anyio.create_task_group() as tasks:
            async with StreamHost() as host:
                tasks.start_soon(
                    socket.open, WebSocketStream(told.source(), host=host, final=last_word)
                )
                await anyio.sleep(1.5)
        assert told.log == [(1.5, Shutdown()), (2.5, "closed")]
        assert socket.log.events == [
            101,
            "0",
            "last item",
            '{"end":"cancelled"}',
            (1001, "shutdown"),
        ]

    async def test_no_last_word(self, caplog: pytest.LogCaptureFixture) -> None:
        """WS67: without a last word the code is enough, and nothing is logged."""
        told, socket = Told(), Socket()
        async with anyio.create_task_group() as tasks:
            async with StreamHost() as host:
                tasks.start_soon(socket.open, WebSocketStream(told.source(), host=host))
                await anyio.sleep(1.5)
        assert socket.log.events == [101, "0", (1001, "shutdown")]
        # asyncio says so of itself where a step takes long.
        assert [record for record in caplog.records if record.name == "streamkit"] == []

    async def test_found_in_the_state(self) -> None:
        """WS67: a host is found in the state of the lifespan, and told of each outcome."""
        ended: list[tuple[str, object]] = []

        async def on_end(outcome: Outcome, scope: Any) -> None:
            ended.append((outcome.kind, scope["type"]))

        async with StreamHost(on_end=on_end) as host:
            await Socket(state={"streams": host}).open(WebSocketStream(aiter_of("a")))
            assert ended == [("completed", "websocket")]
            assert host.stats().completed == 1

    @pytest.mark.parametrize("reaction", [0, math.inf])
    async def test_slow_client(self, reaction: float) -> None:
        """WS67: a client that does not read holds up no shutdown."""
        told, socket = Told(every=0.1, reaction=reaction), Socket(takes={3: math.inf})
        async with anyio.create_task_group() as tasks:
            async with StreamHost(grace=2) as host:
                tasks.start_soon(socket.open, WebSocketStream(told.source(), host=host))
                await anyio.sleep(1)
            assert told.log[-1] in [(1.0, "closed"), (3.0, "closed")]

    async def test_closed_by_the_server(self) -> None:
        """WS67: a server that closes with 1012 is to be started again: the source is told that."""
        told, socket = Told(reaction=1), Socket(goes_after=1.5, code=1012)
        stream = Noted(told.source())
        await socket.open(stream)
        assert told.log == [(1.5, Shutdown()), (2.5, "closed")]
        assert stream.outcome.reason == Shutdown()

    @pytest.mark.parametrize("deniable", [True, False])
    async def test_refused(self, deniable: bool) -> None:
        """WS68: when too many are open, or the program ends, no source starts; 503, or 403."""
        probe = Probe("a")
        async with StreamHost(max_streams=1) as host:
            async with anyio.create_task_group() as tasks:
                first = Socket()
                tasks.start_soon(first.open, WebSocketStream(Told().source(), host=host))
                await wait_all_blocked()
                socket = Socket(deniable=deniable)
                stream = Noted(probe.source(), host=host)
                await socket.open(stream)
                self.check_refused(socket, deniable)
                assert type(stream.outcome.reason).__name__ == "Overloaded"
                host.shut_down()
            socket = Socket(deniable=deniable)
            stream = Noted(probe.source(), host=host)
            await socket.open(stream)
            self.check_refused(socket, deniable)
            assert stream.outcome.reason == Shutdown()
        assert not probe.started

    @staticmethod
    def check_refused(socket: Socket, deniable: bool) -> None:
        if deniable:
            assert socket.log.events == [503, ""]
            assert 0 < int(socket.headers["retry-after"]) < 60
        else:
            assert socket.log.events == [403]

    @pytest.mark.parametrize("accepted", [True, False])
    async def test_refused_by_a_close(self, accepted: bool) -> None:
        """WS68: by a close, for browsers, and where the handshake was made before."""
        options: Any = {"accepted": True} if accepted else {"errors": "close"}
        opening = [] if accepted else [101]
        async with StreamHost(max_streams=1) as host:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Socket().open, WebSocketStream(Told().source(), host=host))
                await wait_all_blocked()
                socket = Socket(is_accepted=accepted)
                await socket.open(WebSocketStream(aiter_of("a"), host=host, **options))
                assert socket.log.events == [*opening, (1013, "overloaded")]
                host.shut_down()
            socket = Socket(is_accepted=accepted)
            await socket.open(WebSocketStream(aiter_of("a"), host=host, **options))
            assert socket.log.events == [*opening, (1001, "shutdown")]

    async def test_refused_and_gone(self) -> None:
        """WS68: a client that has gone when it is refused is no error."""

        class Broken(Socket):
            async def _receive(self) -> dict[str, Any]:
                self._is_connected = True
                raise BrokenPipeError

        async with StreamHost() as host:
            host.shut_down()
            socket = Broken()
            await socket.open(WebSocketStream(aiter_of("a"), host=host))
            assert socket.log.events == [503, ""]

    async def test_shutdown_before_the_first_item(self) -> None:
        """WS68: a stream that is ended before its first item is refused like one that comes."""
        told, socket = Told(every=3), Socket()
        async with anyio.create_task_group() as tasks:
            async with StreamHost() as host:
                tasks.start_soon(socket.open, WebSocketStream(told.source(), host=host))
                await anyio.sleep(1)
        assert told.log == [(1.0, Shutdown()), (1.0, "closed")]
        assert socket.log.events == [503, ""]


class TestMisuse:
    @pytest.mark.parametrize(
        ("options", "error", "advice"),
        [
            ({"stop": 1}, TypeError, "stop must be callable"),
            ({"errors": "event"}, ValueError, "'status' or 'close'"),
            ({"subprotocols": "chat"}, TypeError, "sequence of str"),
            ({"subprotocols": 1}, TypeError, "sequence of str"),
            ({"encoder": 1}, TypeError, "encoder must be callable"),
            ({"final": 1}, TypeError, "final must be callable"),
            ({"keepalive": 0}, ValueError, "keepalive"),
            ({"send_timeout": 0}, ValueError, "send_timeout"),
            ({"media_type": "text/plain"}, TypeError, "takes no media_type"),
            ({"receive": None}, TypeError, "takes no receive"),
            ({"headers": {"a\n": "b"}}, ValueError, "not a header"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    async def test_arguments(self, options: Any, error: type[Exception], advice: str) -> None:
        """WS69: a wrong argument is told where it is written."""
        with pytest.raises(error, match=advice):
            WebSocketStream(aiter_of("a"), **options)

    async def test_async_stop(self) -> None:
        """WS69: an async function is none that tells a stop."""

        async def stop(message: str | bytes) -> bool:
            return True

        with pytest.raises(TypeError, match="must not be async"):
            WebSocketStream(aiter_of("a"), stop=stop)

    async def test_http(self) -> None:
        """WS69: a request of HTTP is none for a socket."""
        with pytest.raises(RuntimeError, match="answers a WebSocket"):
            await Client().get(WebSocketStream(aiter_of("a")))

    async def test_twice(self) -> None:
        """WS69: it is used once, like any response."""
        stream = WebSocketStream(aiter_of("a"))
        await Socket().open(stream)
        with pytest.raises(RuntimeError, match="answers one request"):
            await Socket().open(stream)
