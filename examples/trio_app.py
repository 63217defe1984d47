"""
Follow a file over HTTP, on trio: the source keeps a nursery and a process open across its yields.

Needs ``hypercorn[trio]`` and ``anyio-streamkit[starlette,trio]``, and a system with ``tail``. Start
it in this directory with ``FOLLOWED=/var/log/syslog hypercorn --worker-class trio trio_app:app``,
and then, as often as you like: ``curl --no-buffer http://127.0.0.1:8000/lines``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streamkit.asgi import StreamHost
from streamkit.starlette import EventStream

FOLLOWED = os.environ.get("FOLLOWED", "/var/log/syslog")


async def follow(path: str) -> AsyncGenerator[bytes, None]:
    async with trio.open_nursery() as nursery:
        command = ["tail", "-n", "10", "-F", path]
        tail = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE))
        rest = b""
        async for chunk in tail.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line


async def lines(request: Request) -> Response:
    return EventStream(follow(FOLLOWED))


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, StreamHost], None]:
    async with StreamHost() as host:
        yield {"host": host}


app = Starlette(routes=[Route("/lines", lines)], lifespan=lifespan)
