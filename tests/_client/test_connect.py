"""The stream of a client: where it goes on, when it ends, and what its reader is told."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from observing import call_later
from streamkit import CancelToken, Head, StreamCancelled, with_cancellation
from streamkit.client import Event, Refused, StreamCut, TooLong, connect, json_lines_end
from streamkit.sse import RAW, EventStream
from support import Client
from support.event_stream import parse
from support.scripted import EVENTS, LINES, SILENCE, Script, events, script

A, B, C = (b"id: %d\ndata: %b\n\n" % pair for pair in ((1, b"a"), (2, b"b"), (3, b"c")))
END = b"id: 4\nevent: end\ndata: {}\n\n"
URL = "http://example.com/runs/1"
WHOLE = ["a", "b", "c", "{}"]

CUT = httpx2.RemoteProtocolError("peer closed connection")


async def read(server: Script, url: str = URL, **options: Any) -> list[str]:
    """Return the data that a client reads."""
    return [event.data for event in await read_events(server, url, **options)]


async def read_events(server: Script, url: str = URL, **options: Any) -> list[Any]:
    try:
        async with server.client() as client:
            async with connect(client, url, **options) as stream:
                return [event async for event in stream]
    finally:
        assert all(body.is_closed and len(body.tasks) == 1 for body in server.bodies)


class TestReads:
    async def test_events(self) -> None:
        """Web: the events of one answer, and the last word, after which nothing is read."""
        server = script(events(A, b"event: x\ndata: y\n\n", END, b"data: late\n\n", SILENCE))
        assert await read_events(server) == [
            Event("a", id="1"),
            Event("y", event="x", id="1"),
            Event("{}", event="end", id="4"),
        ]
        [asked] = server.asked
        assert asked.request.method == "GET"
        assert asked.request.headers["accept"] == "text/event-stream, application/x-ndjson"
        assert asked.cursor is None

    async def test_records(self) -> None:
        """Web: JSON lines have records in place of events, and a last one."""
        body = b'{"n":1}\n"x"\n{"end":{"kind":"completed"}}\n'
        found = await read_events(script((200, LINES, body)))
        assert [event.json() for event in found] == list(map(json.loads, body.splitlines()))
        assert found[0] == Event('{"n":1}', event=None)

    async def test_another_key(self) -> None:
        """Web: the key of the last record may be another one."""
        server = script((200, LINES, b'{"end":1}\n{"done":true}'))
        assert len(await read(server, last_word=json_lines_end("done"))) == 2

    async def test_no_last_word(self) -> None:
        """Web: where there is none, the end of a body is the end, and a cut is one still."""
        server = script(events(A, CUT), events(B))
        assert await read(server, last_word=None) == ["a", "b"]
        assert server.cursors == [None, "1"]

    async def test_head(self) -> None:
        """Web: any status of success may have a stream; 204 is the end."""
        assert await read(script((201, EVENTS, A, END))) == ["a", "{}"]
        server = script(events(A), (204, {}))
        assert await read(server) == ["a"]
        assert server.cursors == [None, "1"]

    async def test_settings_of_the_client(self) -> None:
        """Web: the client's own settings hold, but for the time to read."""
        server = script(events(END))
        timeout = httpx2.Timeout(1, connect=2, read=3, write=4, pool=5)
        options: Any = {
            "base_url": "http://example.com/v1",
            "headers": {"x-a": "1"},
            "timeout": timeout,
        }
        async with server.client(**options) as client:
            reading = connect(
                client, "runs", params={"q": "x"}, headers={"X-B": "2"}, auth=("me", "secret")
            )
            async with reading as stream:
                assert [event.data async for event in stream] == ["{}"]
        [asked] = server.asked
        assert str(asked.request.url) == "http://example.com/v1/runs?q=x"
        assert (asked.request.headers["x-a"], asked.request.headers["x-b"]) == ("1", "2")
        assert asked.request.headers["authorization"].startswith("Basic")
        assert asked.request.extensions["timeout"] == {
            "connect": 2,
            "read": 45.0,
            "write": 4,
            "pool": 5,
        }

    async def test_cancelled(self) -> None:
        """C1: it is a stream like any other: a token ends it, and the answer is closed."""
        server, token = script(events(A, 40.0, B)), CancelToken()
        async with server.client() as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call_later, 1, token.cancel)
                with pytest.raises(StreamCancelled):
                    async with with_cancellation(connect(client, URL), token) as stream:
                        assert [event.data async for event in stream] == ["a"]
        assert server.bodies[0].is_closed

    async def test_left(self) -> None:
        """X1: so it is when the block is left."""
        server = script(events(A, B, SILENCE))
        async with server.client() as client:
            async with connect(client, URL) as stream:
                async for _ in stream:
                    break
            assert server.bodies[0].is_closed
            assert len(server.bodies[0].tasks) == 1

    async def test_passed_on(self) -> None:
        """Web: in a response of one's own an event is what it was: its name, its id, its lines."""
        body = b"id: 1\ndata: a\ndata: b\n\nid:\nevent: x\ndata: c\n\nevent: end\ndata: {}\n\n"
        for answer, expected in (
            (events(body), body.replace(b"id:\n", b"")),
            ((200, LINES, b'"a"\n{"end":1}\n'), b'data: "a"\n\ndata: {"end":1}\n\n'),
        ):
            ours = Client()
            async with script(answer).client() as client:
                await ours.get(EventStream(connect(client, URL), profile=RAW))
            sent = "".join(map(str, ours.log.events[1:-1])).encode()
            assert parse(sent).events == parse(expected).events
            assert ours.complete


class TestHead:
    @pytest.mark.parametrize("status", [200, 204])
    async def test_first(self, status: int) -> None:
        """Web: the status of the first answer that is one, and the named headers that it has."""
        told = {**EVENTS, "x-request-id": "7", "secret": "x"}
        server = script((503, {}), (status, told, A), (201, {**told, "x-request-id": "8"}, END))
        async with server.client() as client:
            async with connect(client, URL, head=["X-Request-ID", "retry-after"]) as stream:
                head, *events = [item async for item in stream]
        assert head == Head(status, {"X-Request-ID": "7"})
        assert len(events) == (2 if status == 200 else 0)

    async def test_of_a_response(self) -> None:
        """Web: a response that passes it on answers as the server does, before any event."""
        ours = Client()
        async with script((201, {**EVENTS, "x-a": "1"}, 5.0, END)).client() as client:
            stream = connect(client, URL, head=["content-type", "x-a"])
            await ours.get(EventStream(stream, profile=RAW))
        assert ours.log[0] == (0.0, 201)
        assert (ours.headers["x-a"], ours.headers["content-type"]) == ("1", EVENTS["content-type"])
        assert ours.complete

    async def test_is_no_event(self) -> None:
        """Web: where there is nothing else, the client comes less and less often, and nothing was
        read of records.
        """
        server = script((200, LINES, CUT), (200, LINES, b'{"end":1}\n'))
        assert len(await read_events(server, head=[])) == 2
        server = script(*[events(b": ping\n")] * 20, events(END))
        assert len(await read_events(server, head=[])) == 2
        assert max(server.pauses) > 10


class TestComesBack:
    @pytest.mark.parametrize(
        "ends",
        [[], [CUT], [httpx2.ReadError("reset")], [SILENCE]],
        ids=["end", "cut", "reset", "idle"],
    )
    async def test_cut(self, ends: list[Any]) -> None:
        """Web: however a body ends before its last word, it goes on after the last event."""
        server = script(events(A, B[:-1], *ends), events(B, *ends), events(C, END))
        assert await read(server) == WHOLE
        assert server.cursors == [None, "1", "2"]

    @pytest.mark.parametrize("at", range(len(A + B + END) + 1))
    @pytest.mark.one_of_each
    async def test_cut_anywhere(self, at: int) -> None:
        """Web: a cut after any byte: nothing is lost, and nothing doubled."""
        whole = A + B + END
        seen = parse_ids(whole[:at])
        rest = {None: whole, "1": B + END, "2": END}
        answers = [events(whole[:at])]
        if seen != "4":
            answers.append(events(rest[seen]))
        server = script(*answers)
        assert await read(server) == ["a", "b", "{}"]
        assert server.cursors == [None, seen][: len(answers)]

    async def test_idle(self) -> None:
        """Web: beats keep an answer alive; a silence that is too long does not."""
        server = script(events(*[b": ping\n", 9.0] * 100, A, SILENCE), events(END))
        assert await read(server, idle=10) == ["a", "{}"]
        assert 910 <= server.pauses[0] <= 910.5

    async def test_no_connection(self) -> None:
        """Web: a server that is not there is asked again, less and less often."""
        down = httpx2.ConnectError("refused")
        server = script(events(A), *[down] * 9, events(END))
        assert await read(server) == ["a", "{}"]
        assert server.pauses[0] <= 0.5
        assert sum(server.pauses) > 5
        assert max(server.pauses) <= 30

    async def test_no_connection_for_long(self) -> None:
        """Web: it is given up after some attempts, whatever was read before."""
        down = httpx2.ConnectError("refused")
        server = script(events(A), *[down] * 3)
        with pytest.raises(StreamCut, match="3 attempts have brought nothing") as caught:
            await read(server, attempts=3)
        assert caught.value.last_event_id == "1"
        assert caught.value.__cause__ is down
        with pytest.raises(StreamCut, match="an empty body"):
            await read(script(*[events()] * 2), attempts=2)

    async def test_beats_only(self) -> None:
        """Web: answers with beats alone are no reason to give up, but to come less often."""
        server = script(*[events(b": ping\n")] * 20, events(A), events(END))
        assert await read(server, attempts=2) == ["a", "{}"]
        assert max(server.pauses) > 10
        assert server.pauses[-1] <= 0.5

    async def test_retry(self) -> None:
        """Web: who is told how long to wait waits so long, each time."""
        server = script(events(b"retry: 7000\n", A), events(B), events(END))
        assert await read(server) == ["a", "b", "{}"]
        assert all(7 <= pause <= 7.5 for pause in server.pauses)

    async def test_503(self) -> None:
        """Web: a server that has no time is asked when it says, as often as it takes."""
        busy = (503, {"retry-after": "20"})
        server = script(busy, events(A), busy, (500, {}), events(END))
        assert await read(server) == ["a", "{}"]
        assert server.cursors == [None, None, "1", "1", "1"]
        assert [20 <= pause <= 22 for pause in server.pauses] == [True, False, True, False]

    async def test_shutdown(self) -> None:
        """Web: a shutdown that BROWSER tells is no end, and nothing for the reader."""
        going = b'event: end\nretry: 2000\ndata: {"kind":"shutdown"}\n\n'
        server = script(events(A, going), events(END))
        assert await read(server) == ["a", "{}"]
        assert server.cursors == [None, "1"]
        assert 2 <= server.pauses[0] <= 2.5

    async def test_empty_id(self) -> None:
        """Web: an empty id clears the cursor, and an event without one leaves it."""
        server = script(
            events(A, b"data: x\n\n"), events(b"id:\ndata: y\n\n"), events(b"id: \xc3\xa9\n\n"),
            events(END),
        )  # fmt: skip
        assert await read(server) == ["a", "x", "y", "{}"]
        assert server.cursors[:3] == [None, "1", None]
        assert dict(server.asked[3].request.headers.raw)[b"last-event-id"] == "é".encode()

    async def test_from_a_place(self) -> None:
        """Web: who knows where it was begins there."""
        server = script(events(B), events(END))
        assert await read(server, last_event_id="1") == ["b", "{}"]
        assert server.cursors == ["1", "2"]

    async def test_redirects(self) -> None:
        """Web: a redirect is followed anew each time."""
        moved = (307, {"location": "/elsewhere"})
        server = script(moved, events(A), moved, events(END))
        assert await read(server) == ["a", "{}"]
        paths = [asked.request.url.path for asked in server.asked]
        assert paths == ["/runs/1", "/elsewhere"] * 2
        assert server.cursors == [None, None, "1", "1"]

    @pytest.mark.parametrize("end", [b"\n", b""], ids=["line", "body"])
    async def test_shutdown_of_records(self, end: bytes) -> None:
        """Web: a record that asks to come back is not passed on, also without the end of its line,
        and its client comes back where it has read nothing.
        """

        def last_word(event: Event) -> bool | None:
            return None if "going" in event.data else "end" in event.data

        server = script((200, LINES, b'{"going":1}' + end), (200, LINES, b'{"end":1}\n'))
        assert await read(server, last_word=last_word) == ['{"end":1}']
        server = script((200, LINES, b'{"going":1}' + end), (204, {}))
        assert await read(server, last_word=last_word) == ['{"going":1}']

    async def test_records_cannot(self) -> None:
        """Web: in the middle of JSON lines there is no way to go on; before them there is."""
        server = script((200, LINES, CUT), (200, LINES, b'1\n{"en'))
        with pytest.raises(StreamCut, match="JSON lines have no ids"):
            await read(server)
        assert len(server.asked) == 2


class TestRefused:
    @pytest.mark.parametrize("status", [400, 401, 404, 409, 410, 429])
    async def test_4xx(self, status: int) -> None:
        """Web: what asking again would not mend is an error, with what the server says."""
        with pytest.raises(Refused, match=f"status {status}, text/plain") as caught:
            await read(script(events(A), (status, {"content-type": "text/plain"}, b"no ", b"more")))
        assert (caught.value.status, caught.value.body) == (status, b"no more")
        assert caught.value.headers["Content-Type"] == "text/plain"

    @pytest.mark.parametrize("kind", ["text/html", "application/json", "", "text/event-streams"])
    async def test_content_type(self, kind: str) -> None:
        """Web: another content type is no stream, whatever is in it."""
        with pytest.raises(Refused, match="status 200"):
            await read(script((200, {"content-type": kind} if kind else {}, A)))

    async def test_bounds(self) -> None:
        """Web: of an answer that is none not too much is read, and not for too long."""
        server = script((404, {}, *[b"x" * 1000] * 1000))
        with pytest.raises(Refused) as caught:
            await read(server)
        assert len(caught.value.body) == 64 * 1024
        assert server.bodies[0].sent < 70
        server = script((404, {}, *[b"x", 5.0] * 1000))
        with pytest.raises(Refused) as caught:
            await read(server, idle=10)
        assert len(caught.value.body) <= 3

    async def test_what_the_client_itself_refuses(self) -> None:
        """Web: what could not be sent is not tried again."""
        with pytest.raises(httpx2.UnsupportedProtocol):
            await read(script(httpx2.UnsupportedProtocol("x")))

    async def test_too_long(self) -> None:
        """Web: a line without an end ends the stream."""
        with pytest.raises(TooLong):
            await read(script(events(A, *[b"x" * 1000] * 100)), max_size=5000)

    async def test_last_word_fails(self) -> None:
        """Web: an error of the user's function is the stream's."""
        server = script(events(A))
        with pytest.raises(ZeroDivisionError):
            await read(server, last_word=lambda event: bool(1 / 0))


class TestPost:
    async def test_location(self) -> None:
        """Web: what it has started is read where its answer says, and it is never sent again."""
        started = (200, {**EVENTS, "location": "/runs/7?x=1"}, A)
        server = script(started, httpx2.ConnectError("down"), events(B), events(C, END))
        found = await read(
            server, method="post", json={"q": 1}, params={"p": 1},
            headers={"x-a": "1", "content-type": "application/json"},
            auth=("me", "secret"),
        )  # fmt: skip
        assert found == WHOLE
        first, *later = [asked.request for asked in server.asked]
        assert (first.method, first.content, first.url.query) == ("POST", b'{"q":1}', b"p=1")
        assert server.cursors == [None, "1", "1", "2"]
        for request in later:
            assert (request.method, request.content) == ("GET", b"")
            assert str(request.url) == "http://example.com/runs/7?x=1"
            assert request.headers["x-a"] == "1"
            assert "content-type" not in request.headers
            assert request.headers["authorization"] == first.headers["authorization"]

    async def test_resume(self) -> None:
        """Web: its user may know where, also when there was no answer at all."""
        for lost in httpx2.ReadError("lost"), (503, {}), events():
            server = script(lost, events(A, END))
            url = "http://example.com/elsewhere"
            assert await read(server, method="POST", content="x", resume=url) == ["a", "{}"]
            assert server.asked[1].request.method == "GET"
            assert server.asked[1].request.url.path == "/elsewhere"

    @pytest.mark.parametrize("status", [301, 302, 303, 503])
    async def test_elsewhere(self, status: int) -> None:
        """Web: an answer that only says where it is, is read there."""
        server = script((status, {"location": "/runs/7"}), events(A, END))
        assert await read(server, method="POST") == ["a", "{}"]
        assert [asked.request.method for asked in server.asked] == ["POST", "GET"]

    @pytest.mark.parametrize("status", [307, 308, 400, 503])
    async def test_refused(self, status: int) -> None:
        """Web: it is not sent to another place either, nor when the server has no time."""
        headers = {} if status == 503 else {"location": "/elsewhere"}
        server = script((status, headers))
        with pytest.raises(Refused, match=f"status {status}"):
            await read(server, method="POST")
        assert len(server.asked) == 1

    @pytest.mark.parametrize("lost", [httpx2.ReadError("lost"), events(A)], ids=["all", "rest"])
    async def test_nowhere(self, lost: Any) -> None:
        """Web: without a place to go on, a cut is an error."""
        with pytest.raises(StreamCut, match=r"has no Location: write resume="):
            await read(script(lost), method="POST")

    @pytest.mark.parametrize(
        "location", ["https://example.com/", "http://example.org/", "//example.com:81/"]
    )
    async def test_other_origin(self, location: str) -> None:
        """Web: a place at another origin is not believed, for what authorizes would go there."""
        started = (200, {**EVENTS, "location": location}, A)
        with pytest.raises(StreamCut, match="another origin, or none: write resume="):
            await read(script(started), method="POST")

    async def test_no_ids(self) -> None:
        """Web: nor would it begin anew where the events have no ids."""
        started = (200, {**EVENTS, "location": "/runs/7"}, b"data: a\n\n")
        with pytest.raises(StreamCut, match="its events have no ids"):
            await read(script(started), method="POST")


class TestMisuse:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"last_word": "end"}, TypeError, "got str: write last_word=browser_end"),
            ({"idle": 0}, ValueError, "idle must be a finite number of seconds > 0"),
            ({"attempts": 0}, ValueError, "attempts must be an integer > 0"),
            ({"max_size": 0}, ValueError, "max_size must be an integer > 0"),
            ({"json": {}}, ValueError, r"write connect\(\.\.\., method='POST', json="),
            ({"resume": "/"}, ValueError, "write resume=... for a POST alone"),
            ({"head": "x-a"}, TypeError, r"got str: write head=\['x-a'\]"),
            ({"headers": {"Last-Event-ID": "1"}}, ValueError, "write last_event_id='...'"),
        ],
    )
    async def test_options(self, options: Any, error: Any, message: str) -> None:
        """M1: what is wrong is refused at once, with what to write."""
        async with script().client() as client:
            with pytest.raises(error, match=message):
                connect(client, URL, **options)

    def test_client(self) -> None:
        """M1: a client of another library, or one that is not async."""
        for cls in httpx.AsyncClient, httpx2.Client:
            with pytest.raises(TypeError, match=rf"got {cls.__module__}\.\w+: write 'async with"):
                connect(cls(verify=False), URL)  # type: ignore[arg-type]


def parse_ids(stream: bytes) -> str | None:
    """Return the id of the last event that is whole."""
    *whole, _ = stream.split(b"\n\n")
    return whole[-1].split(b"\n")[0].removeprefix(b"id: ").decode() if whole else None
