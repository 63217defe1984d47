"""What blocks, in a thread: the sync SDK of OpenAI, a cursor of sqlite3, a file."""

from __future__ import annotations

import socket
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from openai import OpenAI

from streamkit import (
    CancelToken,
    StreamCancelled,
    from_thread,
    merge,
    with_cancellation,
    with_keepalive,
    with_timeout,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from libraries.upstream import Upstream

pytestmark = [pytest.mark.real_time, pytest.mark.one_of_each]

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
# Never comes to a row.
ENDLESS = (
    "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n where i < 1"
)
# Real seconds.
LOOKS_EVERY = 0.01


@pytest.fixture
def client(upstream: Upstream) -> Iterator[OpenAI]:
    # Closed before the server looks whether all have left.
    with OpenAI(base_url=f"{upstream.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await anyio.sleep(LOOKS_EVERY)


class TestOpenAI:
    @pytest.mark.parametrize("end", ["break", "token"])
    async def test_at_a_yield(self, upstream: Upstream, client: OpenAI, end: str) -> None:
        """Y8: a chat as most write it: the response is closed, though nobody has closed it."""
        token = CancelToken()
        chats = []

        def chat() -> Any:
            chats.append(client.chat.completions.create(**ASK, stream=True))
            return chats[0]

        async with with_cancellation(from_thread(chat), token) as stream:
            chunk = await anext(stream)
            assert chunk.choices[0].delta.content == "To"
            await until(lambda: upstream.waiting)
            if end == "token":
                token.cancel("stop")
                with pytest.raises(StreamCancelled):
                    while True:
                        await anext(stream)
        assert chats[0].response.is_closed
        await until(lambda: not upstream.waiting)

    @pytest.mark.parametrize("end", ["token", "limit", "scope"])
    async def test_blocked(self, upstream: Upstream, client: OpenAI, end: str) -> None:
        """L7, C21: the model is silent: what interrupts it is to shut the connection down."""
        token, texts = CancelToken(), []
        chats: list[Any] = []

        def chat() -> Iterator[str]:
            chats.append(client.chat.completions.create(**ASK, stream=True))
            for chunk in chats[0]:
                yield chunk.choices[0].delta.content

        def shut_down() -> None:
            network = chats[0].response.extensions["network_stream"]
            network.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

        async def consume() -> None:
            source = with_cancellation(from_thread(chat, interrupt=shut_down), token)
            limited = with_timeout(source, first=30, idle=0.3 if end == "limit" else 30)
            async with with_keepalive(limited, 0.05, None) as stream:
                async for text in stream:
                    texts.append(text)

        async with anyio.create_task_group() as tasks:

            async def stop() -> None:
                # There are beats while the thread is blocked.
                await until(lambda: texts[2:])
                if end == "token":
                    token.cancel("stop")
                elif end == "scope":
                    tasks.cancel_scope.cancel()

            tasks.start_soon(stop)
            if end == "scope":
                await consume()
            else:
                with pytest.raises((StreamCancelled, TimeoutError)):
                    await consume()
        assert [text for text in texts if text is not None] == ["To", " be"]
        assert chats[0].response.is_closed
        await until(lambda: not upstream.waiting)

    async def test_merged(self, upstream: Upstream, client: OpenAI) -> None:
        """Two chats at a time, and the consumer leaves."""

        def chat() -> Any:
            return client.chat.completions.create(**ASK, stream=True)

        def texts() -> Iterator[str]:
            chunks = chat()
            try:
                for _ in range(2):
                    yield next(chunks).choices[0].delta.content
            finally:
                chunks.close()

        async with merge(from_thread(texts), from_thread(texts)) as stream:
            received = [await anext(stream) for _ in range(4)]
        assert sorted(received) == [" be", " be", "To", "To"]
        await until(lambda: not upstream.waiting)


class TestSqlite:
    @pytest.mark.parametrize("end", ["token", "limit", "scope"])
    async def test_interrupt(self, end: str) -> None:
        """L7: a query that finds nothing for ever is interrupted; the connection can be used."""
        token = CancelToken()
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        begun = threading.Event()

        def rows() -> sqlite3.Cursor:
            begun.set()
            return connection.execute(ENDLESS)

        async def consume() -> None:
            source = from_thread(rows, interrupt=connection.interrupt)
            limits = {"first": 0.2 if end == "limit" else 30.0}
            async with with_timeout(with_cancellation(source, token), **limits) as stream:
                async for _ in stream:
                    raise AssertionError("there is no row")

        async with anyio.create_task_group() as tasks:

            async def stop() -> None:
                # It may not have come to the query yet.
                await anyio.to_thread.run_sync(begun.wait)
                if end == "token":
                    token.cancel("stop")
                elif end == "scope":
                    tasks.cancel_scope.cancel()

            tasks.start_soon(stop)
            if end == "scope":
                await consume()
            else:
                with pytest.raises((StreamCancelled, TimeoutError)):
                    await consume()
        assert connection.execute("select 1").fetchone() == (1,)
        connection.close()

    async def test_in_its_thread(self) -> None:
        """A connection that may be used in one thread alone is made, used and closed there."""

        def rows() -> Iterator[tuple[int, ...]]:
            connection = sqlite3.connect(":memory:")
            try:
                yield from connection.execute("select 1 union select 2 union select 3")
            finally:
                connection.close()

        async with from_thread(rows) as stream:
            assert await anext(stream) == (1,)
            assert await anext(stream) == (2,)

    async def test_cursor(self) -> None:
        """A cursor is closed with the stream."""
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        cursor = connection.execute("select 1 union select 2")
        async with from_thread(cursor) as stream:
            assert [row async for row in stream] == [(1,), (2,)]
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            cursor.fetchone()
        connection.close()


async def test_file(tmp_path: Path) -> None:
    """A file that is read while another one is."""
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_text("".join(f"{path.name}{number}\n" for number in range(100)))
    files = [path.open() for path in paths]
    lines = []
    async with merge(*map(from_thread, files)) as stream:
        async for line in stream:
            lines.append(line.strip())
            if len(lines) == 150:
                break
    for name in "ab":
        own = [line for line in lines if line.startswith(name)]
        assert own == [f"{name}{number}" for number in range(len(own))]
    assert all(file.closed for file in files)
