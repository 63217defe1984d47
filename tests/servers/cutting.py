"""A proxy that cuts each connection after so many bytes of the body of its answer."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
from anyio.abc import SocketAttribute, SocketStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LOST = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream, OSError)


@asynccontextmanager
async def cutting(to: int, limit: Callable[[], float]) -> AsyncIterator[int]:
    """
    Run a proxy.

    :param to: the port of the server
    :param limit: called for each connection: how many bytes of the body pass
    :return: the port of the proxy

    """

    async def requests(client: SocketStream, server: SocketStream) -> None:
        with suppress(*LOST):
            async for data in client:
                await server.send(data)

    async def answers(client: SocketStream, server: SocketStream, left: float) -> None:
        head = b""
        async for data in server:
            if b"\r\n\r\n" not in head:
                head += data
                before, end, body = head.partition(b"\r\n\r\n")
                if not end:
                    continue
                await client.send(before + end)
            else:
                body = data
            await client.send(body[: int(min(left, len(body)))])
            left -= len(body)
            if left <= 0:
                return

    async def serve(client: SocketStream) -> None:
        with suppress(*LOST):
            async with client, await anyio.connect_tcp("127.0.0.1", to) as server:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(requests, client, server)
                    with suppress(*LOST):
                        await answers(client, server, limit())
                    tasks.cancel_scope.cancel()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        yield listener.extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()
