"""A receive for two readers: the source that reads its request, and the response."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from streamkit import Outcome
from streamkit._http import connection
from streamkit.asgi import SharedReceive, StreamResponse
from support import Client, aiter_of, wait_all_blocked

PARTS = tuple(b"%d" % number * 1000 for number in range(30))


class Reader:
    """A source that reads its request, and then waits."""

    def __init__(self, receive: Any, *, pause: float = 0.0) -> None:
        self.body = b""
        self.told: object = None
        self._receive = receive
        self._pause = pause

    async def source(self) -> AsyncGenerator[bytes, None]:
        more = True
        while more:
            await anyio.sleep(self._pause)
            message = await self._receive()
            assert message["type"] == "http.request"
            self.body += message["body"]
            more = message["more_body"]
            yield b"%d" % len(message["body"])
        await anyio.sleep_forever()


class TestSharedReceive:
    @pytest.mark.parametrize("pause", [0.0, 1.0])
    @pytest.mark.parametrize("called", [False, True], ids=["option", "called with it"])
    async def test_both_read(
        self, pause: float, called: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Web: the source has the whole body, and the response learns that the client has gone."""
        outcomes: list[Outcome] = []

        async def on_end(outcome: Outcome) -> None:
            outcomes.append(outcome)

        client = Client("POST", body=PARTS, goes_after=99)
        body = SharedReceive(client.receive)
        reader = Reader(body, pause=pause)
        options: Any = {} if called else {"receive": body}
        response = StreamResponse(reader.source(), on_end=on_end, **options)
        await client.get(response, receive=body if called else None)
        assert reader.body == b"".join(PARTS)
        assert anyio.current_time() == 1099.0
        assert outcomes[0].kind == "cancelled"
        assert caplog.records == []

    async def test_disconnect_reaches_both(self) -> None:
        """Web: http.disconnect is told to the source, too, and as often as it asks."""
        client = Client("POST", body=(b"a",), goes_after=9)
        body, seen = SharedReceive(client.receive), list[Any]()

        async def source() -> AsyncGenerator[str, None]:
            yield "a"
            with anyio.CancelScope(shield=True):
                for _ in range(3):
                    seen.append((await body())["type"])

        await client.get(StreamResponse(source(), receive=body))
        assert seen == ["http.request", "http.disconnect", "http.disconnect"]

    async def test_seen_by_the_source_first(self) -> None:
        """Web: the one that is in receive tells the other one."""
        client = Client(goes_after=9)
        client.log.start()
        client._goes_at = anyio.current_time() + 9
        body = SharedReceive(client.receive)

        async def read() -> None:
            assert (await body())["type"] == "http.disconnect"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await wait_all_blocked()
            await body.wait_for_disconnect()
        assert anyio.current_time() == 1009.0

    @pytest.mark.parametrize("reader", [False, True], ids=["response", "reader"])
    async def test_cancelled(self, reader: bool) -> None:
        """Web: a cancellation of one loses no message for the other one."""
        arrived = anyio.Event()

        async def receive() -> Any:
            await arrived.wait()
            return {"type": "http.request", "body": b"a", "more_body": False}

        body = SharedReceive(receive)
        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(1):
                await (body() if reader else body.wait_for_disconnect())
            tasks.start_soon(body.wait_for_disconnect)
            await wait_all_blocked()
            arrived.set()
            assert (await body())["body"] == b"a"
            tasks.cancel_scope.cancel()

    async def test_error(self) -> None:
        """Web: where receive raises that the client has gone, the source sees it as it is."""

        async def receive() -> Any:
            raise ConnectionResetError

        body = SharedReceive(receive)
        with pytest.raises(ConnectionResetError):
            await body()
        client = Client()
        await client.get(StreamResponse(aiter_of("a"), receive=body))

    def test_wrong_type(self) -> None:
        """Web: anything else in its place is refused."""
        with pytest.raises(TypeError, match=r"receive=body"):
            StreamResponse(aiter_of("a"), receive=Client().receive)  # type: ignore[arg-type]


class TestWithoutIt:
    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connection, "_has_warned", False)

    async def test_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        """Web: a body that is dropped is a warning, once, that says what to write."""
        for _ in range(2):
            await Client("POST", body=(b"a", b"b")).get(StreamResponse(aiter_of("a")))
        [record] = caplog.records
        assert (record.name, record.levelno) == ("streamkit", logging.WARNING)
        assert "SharedReceive" in record.message

    async def test_no_body(self, caplog: pytest.LogCaptureFixture) -> None:
        """Web: an empty body is none."""
        await Client("POST", body=(b"",)).get(StreamResponse(aiter_of("a")))
        assert caplog.records == []
