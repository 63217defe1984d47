"""The ASGI client: it streams, leaves, is slow, never reads, and sends its body in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from streamkit import current_cancellation
from streamkit.asgi import StreamHost, StreamResponse
from streamkit.testing import AsgiClient


class Chat:
    """An application that keeps what it has said."""

    def __init__(self, *, every: float = 1.0, size: int = 1) -> None:
        self.said: list[str] = []
        self.saved: list[str] | None = None
        self.reason: object = None
        self.every = every
        self.size = size

    async def answer(self) -> AsyncIterator[str]:
        try:
            for word in "abcdefgh":
                self.said.append(word)
                yield word * self.size
                await anyio.sleep(self.every)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
                self.saved = self.said.copy()
                self.reason = current_cancellation()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await StreamResponse(self.answer())(scope, receive, send)


async def test_streams() -> None:
    """L1: a response comes in pieces, as they are sent; its beginning comes first."""
    chat = Chat()
    async with AsgiClient(chat).get("/") as response:
        assert response.status == 200
        assert response.headers["x-accel-buffering"] == "no"
        began = anyio.current_time()
        assert await anext(response) == b"a"
        assert await anext(response) == b"b"
        assert anyio.current_time() - began == 1
        assert not response.is_complete
        assert await response.read() == b"cdefgh"
        assert response.is_complete


async def test_leaves() -> None:
    """L1: a client that leaves disconnects; the source is told, and saves what it has."""
    chat = Chat()
    async with AsgiClient(chat).get("/") as response:
        async for piece in response:
            if piece == b"b":
                break
    assert chat.saved == ["a", "b"]
    assert chat.reason is not None
    assert response.late == [b""]


async def test_is_slow() -> None:
    """B1: a client that takes its time is waited for, once more has been sent than it takes."""
    chat = Chat(every=0.0, size=10)
    async with AsgiClient(chat, buffer=20).get("/") as response:
        taken = 0
        async for _ in response:
            taken += 1
            await anyio.sleep(10)
            assert len(chat.said) == min(taken + 3, 8)
    assert chat.saved == [*"abcdefgh"]


async def test_never_reads() -> None:
    """B1: a client that never reads holds the source up, and may go all the same."""
    chat = Chat(every=0.0, size=10)
    async with AsgiClient(chat, buffer=20).get("/"):
        await anyio.sleep(1000)
        assert chat.said == [*"abc"]
    assert chat.saved is not None


@pytest.mark.parametrize("raises", [True, False])
async def test_sending_to_nobody(raises: bool) -> None:
    """L1: what is sent to a client that has gone is kept, and raises where that is asked for."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"late"})

    client = AsgiClient(app, raises_when_gone=raises)
    if raises:
        with pytest.raises(OSError, match="has gone"):
            async with client.get("/") as response:
                pass
    else:
        async with client.get("/") as response:
            pass
    assert response.late == [b"late"]


@pytest.mark.parametrize("how", ["at once", "in pieces", "by and by", "a stream"])
async def test_body(how: str) -> None:
    """B1: a body comes at once or in pieces, which may take their time."""
    got: list[tuple[bytes, float]] = []
    began = anyio.current_time()

    async def by_and_by() -> AsyncIterator[bytes]:
        for piece in (b"a", b"b"):
            await anyio.sleep(1)
            yield piece

    send_piece, stream = anyio.create_memory_object_stream[bytes](2)
    for piece in (b"a", b"b"):
        send_piece.send_nowait(piece)
    send_piece.close()
    bodies: dict[str, Any] = {
        "at once": b"ab",
        "in pieces": [b"a", b"b"],
        "by and by": by_and_by(),
        "a stream": stream,
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["method"] == "POST"
        assert scope["path"] == "/a b"
        assert scope["query_string"] == b"c=d"
        assert scope["headers"] == [(b"x-who", b"me")]
        more = True
        while more:
            message = await receive()
            got.append((message["body"], anyio.current_time() - began))
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    client = AsgiClient(app)
    async with client.request(
        "post", "/a%20b?c=d", headers={"X-Who": "me"}, body=bodies[how]
    ) as response:
        assert response.status == 204
        assert await response.read() == b""
    stream.close()
    if how == "by and by":
        assert got == [(b"a", 1), (b"b", 2), (b"", 2)]
    else:
        await bodies["by and by"].aclose()
        assert b"".join(piece for piece, _ in got) == b"ab"


@pytest.mark.parametrize("place", ["blocked", "at a yield"])
async def test_goes_while_it_sends(place: str) -> None:
    """L1: a client may go while it sends its body; the rest is closed."""
    closed = []

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            if place == "blocked":
                await anyio.sleep_forever()
            yield b"b"
        finally:
            closed.append(True)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if place == "blocked":
            assert (await receive())["type"] == "http.disconnect"

    async with AsgiClient(app).request("POST", "/", body=body()):
        await anyio.sleep(1)
    assert closed


class Broken(Exception):
    pass


async def test_application_raises() -> None:
    """E1: what the application raises is raised bare: before its response, in it, or after it."""

    async def before(scope: Any, receive: Any, send: Any) -> None:
        raise Broken

    async def within(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise Broken

    with pytest.raises(Broken):
        async with AsgiClient(before).get("/"):
            raise AssertionError("must not begin")
    with pytest.raises(Broken):
        async with AsgiClient(within).get("/") as response:
            await response.read()
    with pytest.RaisesGroup(ValueError, Broken):
        async with AsgiClient(within).get("/") as response:
            await anext(response)
            raise ValueError


async def test_application_just_ends() -> None:
    """E1: an application that ends without a response, or within it, is an error."""

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        pass

    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    with pytest.raises(RuntimeError, match="without a response"):
        async with AsgiClient(nothing).get("/"):
            raise AssertionError("must not begin")
    with pytest.raises(ConnectionError, match="in the middle"):
        async with AsgiClient(half).get("/") as response:
            await response.read()


async def test_what_no_server_takes() -> None:
    """E1: messages in a wrong order are refused."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.body", "body": b"a"})

    with pytest.raises(RuntimeError, match="no server takes"):
        async with AsgiClient(app).get("/"):
            raise AssertionError("must not begin")


async def test_cancelled() -> None:
    """C2: a client that is cancelled goes."""
    chat = Chat()
    with anyio.move_on_after(1.5) as scope:
        async with AsgiClient(chat).get("/") as response:
            await response.read()
    assert scope.cancelled_caught
    assert chat.saved == ["a", "b"]


async def test_lifespan() -> None:
    """Z1: an application has its lifespan in the block of the client, with its state."""
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        log.append("up")
        async with StreamHost() as host:
            yield {"host": host}
        log.append("down")

    async def endpoint(request: Request) -> Any:
        async def source() -> AsyncIterator[str]:
            yield "a"

        return StreamResponse(source())

    app = Starlette(routes=[Route("/", endpoint)], lifespan=lifespan)
    client = AsgiClient(app)
    async with client:
        with pytest.raises(RuntimeError, match="runs already"):
            await client.__aenter__()
        async with client.get("/") as response:
            assert await response.read() == b"a"
        assert log == ["up"]
    assert log == ["up", "down"]


async def test_lifespan_fails() -> None:
    """Z1: an application that cannot start says why; one that cannot end, too."""

    async def no_start(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def no_end(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed"})

    async def breaks(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise Broken

    with pytest.raises(RuntimeError, match="no database"):
        async with AsgiClient(no_start):
            raise AssertionError("must not be entered")
    with pytest.raises(RuntimeError, match=r"lifespan\.shutdown\.failed"):
        async with AsgiClient(no_end):
            pass
    with pytest.RaisesGroup(Broken):
        async with AsgiClient(breaks):
            await anyio.sleep(1)


@pytest.mark.parametrize("when", ["start", "end"])
async def test_lifespan_of_a_framework_fails(when: str) -> None:
    """Z1: an application that reports a failure, and raises after that: what it has reported."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        if when == "start":
            raise Broken("no database")
        yield
        raise Broken("no database")

    with pytest.raises(RuntimeError, match="no database") as caught:
        async with AsgiClient(Starlette(lifespan=lifespan)):
            assert when == "end"
    assert isinstance(caught.value.__cause__, Broken)


async def test_lifespan_breaks_at_its_end() -> None:
    """Z1: an application that raises at its shutdown, and reports nothing: that is not lost."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise Broken

    with pytest.RaisesGroup(Broken):
        async with AsgiClient(app):
            pass


@pytest.mark.parametrize("last", ["shutdown.complete", "startup.failed"])
async def test_lifespan_asks_on(last: str) -> None:
    """Z1: an application that asks for a message after the last one is not waited for."""
    left = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            while True:
                kind = (await receive())["type"].rpartition(".")[2]
                failed = last == "startup.failed"
                await send({"type": f"lifespan.{last if failed else f'{kind}.complete'}"})
        finally:
            left.append(True)

    with anyio.fail_after(10):
        if last == "startup.failed":
            with pytest.raises(RuntimeError, match="has failed"):
                async with AsgiClient(app):
                    raise AssertionError("must not be entered")
        else:
            async with AsgiClient(app):
                assert not left
    assert left


async def test_no_lifespan() -> None:
    """Z1: an application that knows no lifespan is taken as it is."""

    async def returns(scope: Any, receive: Any, send: Any) -> None:
        pass

    async def raises(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"

    for app in (returns, raises):
        async with AsgiClient(app):
            pass


@pytest.mark.parametrize("begins", [False, True])
async def test_cancelled_with_its_application(begins: bool) -> None:
    """C2: what is cancelled together with its application sees that, and no broken response."""
    with anyio.CancelScope() as scope:

        async def app(_: Any, receive: Any, send: Any) -> None:
            if begins:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await receive()
            scope.cancel()

        async with AsgiClient(app).get("/") as response:
            await response.read()
        raise AssertionError("must not be reached")
    assert scope.cancelled_caught
