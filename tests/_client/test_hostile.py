"""Servers that a client must survive, and readers that leave it at any moment."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import httpx2
import pytest

from observing import call_later
from streamkit import CancelToken, StreamCancelled, StreamTimeout, with_cancellation, with_timeout
from streamkit.client import Event, Refused, StreamCut, TooLong, connect
from support.scripted import EVENTS, LINES, SILENCE, Script, events, script

if TYPE_CHECKING:
    from collections.abc import Callable

A, B, C = (b"id: %d\ndata: %b\n\n" % pair for pair in ((1, b"a"), (2, b"b"), (3, b"c")))
END = b"id: 4\nevent: end\ndata: {}\n\n"
GOING = b'id: 2.end\nevent: end\nretry: 2000\ndata: {"kind":"shutdown"}\n\n'
URL = "http://example.com/runs/1"
WHOLE = ["a", "b", "c", "{}"]
BUSY = (503, {"retry-after": "1"}, b"later")


async def read(server: Script, **options: Any) -> list[Event]:
    async with server.client() as client:
        async with connect(client, URL, **options) as stream:
            found = [event async for event in stream]
    assert all(body.is_closed and len(body.tasks) == 1 for body in server.bodies)
    return found


def data_of(found: list[Event]) -> list[str]:
    return [event.data for event in found]


TIMES = [0.0, 0.25, 0.5, 1.75, 2.25, 2.5]


class TestLeft:
    """At each step of an answer, of a wait between two, and of the next request."""

    @pytest.fixture(autouse=True)
    def no_jitter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have everything happen at the times above."""
        monkeypatch.setattr(
            "streamkit._client.connection.pause", lambda fruitless, retry, after: 0.25 + after
        )

    def server(self) -> Script:
        return script(
            events(A, B[:5]),
            httpx2.ConnectError("down"),
            BUSY,
            events(B, b": ping\n", 0.5, C, httpx2.ReadError("cut")),
            events(END),
        )

    async def check(self, at: float, leave: Callable[[Any, list[str]], Any]) -> int:
        """Leave at a time, and go on from there."""
        server, seen = self.server(), list[str]()
        async with server.client() as client:
            await leave(connect(client, URL), seen)
            assert all(body.is_closed and len(body.tasks) == 1 for body in server.bodies)
            assert seen == WHOLE[: len(seen)]
            asked = len(server.asked)
            await anyio.sleep(100)
            assert len(server.asked) == asked
        rest = script(events(*[A, B, C, END][len(seen) :]))
        if len(seen) < len(WHOLE):
            cursor = str(len(seen)) if seen else ""
            assert seen + data_of(await read(rest, last_event_id=cursor)) == WHOLE
        return len(seen)

    @pytest.mark.one_of_each
    async def test_by_a_token(self) -> None:
        """C1: told to stop after so many steps, or so many seconds, it has closed all."""
        found = set[int]()
        for steps in range(25):
            for seconds in TIMES:

                async def leave(
                    stream: Any, seen: list[str], steps: int = steps, seconds: float = seconds
                ) -> None:
                    token = CancelToken()

                    async def stop() -> None:
                        if seconds:
                            await anyio.sleep(seconds)
                        for _ in range(steps):
                            await anyio.lowlevel.checkpoint()
                        token.cancel()

                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(stop)
                        try:
                            async with with_cancellation(stream, token) as reading:
                                async for event in reading:
                                    seen.append(event.data)
                        except StreamCancelled:
                            pass

                found.add(await self.check(seconds, leave))
        assert found >= {1, 2, 3, 4}

    @pytest.mark.one_of_each
    async def test_by_a_scope(self) -> None:
        """X1: so it is when a scope around the reader ends it."""
        found = set[int]()
        for steps in range(25):
            for seconds in TIMES:

                async def leave(
                    stream: Any, seen: list[str], steps: int = steps, seconds: float = seconds
                ) -> None:
                    async with anyio.create_task_group() as tasks:

                        async def stop() -> None:
                            if seconds:
                                await anyio.sleep(seconds)
                            for _ in range(steps):
                                await anyio.lowlevel.checkpoint()
                            tasks.cancel_scope.cancel()

                        tasks.start_soon(stop)
                        async with stream as reading:
                            async for event in reading:
                                seen.append(event.data)

                found.add(await self.check(seconds, leave))
        assert found >= {1, 2, 3, 4}

    async def test_while_a_server_says_nothing(self) -> None:
        """Web: not even the head of an answer: it is a cut, and one that is left is closed."""
        asked, left = 0, 0

        async def never(request: httpx2.Request) -> httpx2.Response:
            nonlocal asked, left
            asked += 1
            try:
                # As the network does.
                await anyio.sleep(request.extensions["timeout"]["read"])
                raise httpx2.ReadTimeout("silent")
            finally:
                left += 1

        async with httpx2.AsyncClient(transport=httpx2.MockTransport(never)) as client:
            with pytest.raises(StreamCut, match="3 attempts have brought nothing"):
                async with connect(client, URL, idle=10, attempts=3) as stream:
                    await stream.receive()
            assert (asked, left) == (3, 3)
            began = anyio.current_time()
            with pytest.raises(StreamTimeout):
                async with with_timeout(connect(client, URL, idle=100), first=20) as stream:
                    await stream.receive()
            assert anyio.current_time() - began == 20
            assert (asked, left) == (4, 4)


class TestGoesOn:
    async def test_retry_of_0_in_a_loop(self) -> None:
        """Web: a server that wants its clients at once, and has nothing, is asked ever less often,
        and as soon as it wants if it has something.
        """
        server = script(*[events(b"retry: 0\n\n")] * 20, events(END))
        assert data_of(await read(server)) == ["{}"]
        assert sum(server.pauses) > 20
        assert max(server.pauses) <= 30
        server = script(*[events(b"retry: 0\n", A)] * 20, events(END))
        await read(server)
        assert max(server.pauses) <= 0.5

    async def test_far_away(self) -> None:
        """Web: who is told to wait for ever does, and can be told to stop."""
        for answer in (
            events(b"retry: 99999999999999999999\n"),
            (503, {"retry-after": "9" * 12}),
            (503, {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}),
        ):
            server, token = script(answer), CancelToken()
            async with server.client() as client, anyio.create_task_group() as tasks:
                tasks.start_soon(call_later, 10**6, token.cancel)
                with pytest.raises(StreamCancelled):
                    async with with_cancellation(connect(client, URL), token) as stream:
                        await stream.receive()

    @pytest.mark.parametrize("codec", ["gzip", "deflate"])
    async def test_compressed(self, codec: str) -> None:
        """Web: nothing compressed is asked for, but it is read, wherever it is cut."""
        pack = gzip.compress if codec == "gzip" else zlib.compress
        headers = {**EVENTS, "content-encoding": codec}
        packed = pack(A + B + C + END)
        for at in range(0, len(packed) + 1, 3):
            server = script((200, headers, packed[:at], packed[at:]))
            assert data_of(await read(server)) == WHOLE
            assert server.asked[0].request.headers["accept-encoding"] == "identity"
        server = script((200, headers, pack(A)[:-3]), (200, headers, b"no gzip"), events(B, C, END))
        assert data_of(await read(server)) == WHOLE
        given = script(events(END))
        await read(given, headers={"Accept-Encoding": "gzip"})
        assert given.asked[0].request.headers["accept-encoding"] == "gzip"

    async def test_what_packs_well(self) -> None:
        """Web: what becomes large when it is unpacked is bounded, too."""
        packed = gzip.compress(b"data: " + b"x" * 2**24)
        pieces = [packed[at : at + 1024] for at in range(0, len(packed), 1024)]
        with pytest.raises(TooLong):
            await read(
                script((200, {**EVENTS, "content-encoding": "gzip"}, *pieces)), max_size=2**20
            )

    @pytest.mark.parametrize(
        ("id_", "sent"),
        [
            (b"x" * 100_000, b"x" * 100_000),
            (b" 7 \t", b"7"),
            (b"a b", b"a b"),
            (b"\xff", "\ufffd".encode()),
            (b"  ", None),
            (b"\x01\x7f", b"\x01\x7f"),
        ],
    )
    async def test_odd_ids(self, id_: bytes, sent: bytes | None) -> None:
        """Web: an id comes back as it was, as far as a header can say it."""
        server = script(events(b"id: %b\ndata: a\n\n" % id_), events(END))
        found = await read(server)
        assert found[0].id == id_.decode(errors="replace")
        raw = [
            value for name, value in server.asked[1].request.headers.raw if name == b"last-event-id"
        ]
        assert raw == ([] if sent is None else [sent])

    @pytest.mark.parametrize("id_", [b"a\x0bb", b"\x0c"])
    async def test_an_id_that_no_header_can_have(self, id_: bytes) -> None:
        """Web: where there is no way to say where to go on, that is an error, and no loss."""
        with pytest.raises(StreamCut, match="cannot be sent as a header") as caught:
            await read(script(events(b"id: %b\ndata: a\n\n" % id_)))
        assert caught.value.last_event_id == id_.decode()

    async def test_an_end_at_a_shutdown(self) -> None:
        """Runs: a run that a shutdown has ended has no other end: who comes back and is told that
        there is nothing more has that one.
        """
        server = script(events(A, B, GOING), BUSY, (204, {}))
        found = await read(server)
        assert [event.event for event in found] == ["message", "message", "end"]
        assert found[-1].json() == {"kind": "shutdown"}
        assert server.cursors == [None, "2.end", "2.end"]
        # If there is something, it was no end.
        server = script(events(A, GOING), events(B), (204, {}))
        assert data_of(await read(server)) == ["a", "b"]

    async def test_half_a_record(self) -> None:
        """Web: half a record at the end of a body is a cut, also where there is no last word."""
        with pytest.raises(StreamCut, match="JSON lines have no ids"):
            await read(script((200, LINES, b'1\n{"a"')), last_word=None)
        assert data_of(await read(script((200, LINES, b"1\n2")), last_word=None)) == ["1", "2"]


class TestElsewhere:
    async def test_redirected(self) -> None:
        """Web: to another origin goes where the reader is, and nothing that authorizes it."""
        moved = (302, {"location": "https://example.org/x"})
        server = script(events(A), moved, events(B, C, END))
        options: Any = {"headers": {"authorization": "Bearer x"}}
        assert data_of(await read(server, **options)) == WHOLE
        last = server.asked[-1].request
        assert (last.url.host, last.headers["last-event-id"]) == ("example.org", "1")
        assert "authorization" not in last.headers

    async def test_in_a_circle(self) -> None:
        """Web: a redirect without an end is an error, and is not tried for ever."""
        moved = (302, {"location": "/x"})
        with pytest.raises(httpx2.TooManyRedirects):
            await read(script(*[moved] * 100))

    @pytest.mark.parametrize("location", ["//[::1", "\x07", "http://[::1"])
    async def test_no_place(self, location: str) -> None:
        """Web: a Location that is none is as good as one that is not believed."""
        headers = {**EVENTS, "location": location}
        server = script((200, headers, A, END))
        assert data_of(await read(server, method="POST")) == ["a", "{}"]
        with pytest.raises(StreamCut, match="write resume="):
            await read(script((200, headers, A)), method="POST")
        server = script((200, headers, A), events(B, C, END))
        assert data_of(await read(server, method="POST", resume="/x")) == WHOLE


class TestTold:
    async def test_last_refusal(self) -> None:
        """Web: who gives up says what the last answer was, and has its text."""
        server = script(*[(503, {"x-secret": "s"}, b"maintenance")] * 2)
        with pytest.raises(StreamCut, match="status 503, no content type") as caught:
            await read(server, attempts=2)
        assert "secret" not in str(caught.value)
        assert isinstance(caught.value.__cause__, Refused)
        assert caught.value.__cause__.body == b"maintenance"

    async def test_half_a_refusal(self) -> None:
        """Web: a refusal is one, also where its text is cut, or no text."""
        for headers, ending in ({}, httpx2.ReadError("cut")), ({"content-encoding": "gzip"}, b"x"):
            with pytest.raises(Refused, match="status 404") as caught:
                await read(script((404, headers, b"" if headers else b"no", ending)))
            assert caught.value.body == (b"" if headers else b"no")

    async def test_misuse(self) -> None:
        """M1: a last word that nobody would await, and an id that is none."""

        async def is_last(event: Event) -> bool:
            return True

        async with script().client() as client:
            bad: Any = is_last
            with pytest.raises(TypeError, match="last_word must not be async"):
                connect(client, URL, last_word=bad)
            for id_ in "a\nb", "a\0b", "a\rb":
                with pytest.raises(ValueError, match="last_event_id must be one line"):
                    connect(client, URL, last_event_id=id_)

    async def test_silence_within_a_refusal(self) -> None:
        """Web: the text of a refusal that is tried again is not waited for, for long."""
        server = script((503, {}, b"x", SILENCE), events(END))
        assert data_of(await read(server, idle=10)) == ["{}"]
        assert server.pauses[0] <= 11.5
