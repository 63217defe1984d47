"""
Sources and functions with one bug each, in spite of streamkit; and clean ones, which hold scopes.

Each bug says what is found, and the line at which an interruption shows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import trio

from streamkit import CancelToken, StreamCancelled, with_cancellation, with_keepalive
from streamkit.testing import Run


@dataclass
class World:
    """What a source uses, and what is looked at when it is over."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    saved: list[str] = field(default_factory=list)
    connections: int = 0
    channel: Any = None

    async def model(self) -> AsyncGenerator[str, None]:
        for word in ("a", "b"):
            await anyio.sleep(1)  # the model
            yield word

    async def save(self, *words: str) -> None:
        await anyio.sleep(0.1)
        self.saved.extend(words)

    async def connect(self) -> None:
        await anyio.sleep(0.1)  # connecting
        self.connections += 1

    def disconnect(self) -> None:
        self.connections -= 1


Source = Callable[[World], Any]


@dataclass(frozen=True)
class Bug:
    """A bug: its source, what is found, and what is written in the line that is named."""

    source: Source
    found: str
    line: str
    check: Callable[[Run, World], None]
    kinds: tuple[str, ...] = ()

    @property
    def __name__(self) -> str:
        return self.source.__name__


BUGS: list[Bug] = []
FUNCTION_BUGS: list[Bug] = []
CLEAN: list[Source] = []


def bug(found: str, line: str, check: Any = None, *, function: bool = False) -> Any:
    def add(source: Source) -> Source:
        (FUNCTION_BUGS if function else BUGS).append(
            Bug(source, found, line, check or (lambda run, world: None))
        )
        return source

    return add


def clean(source: Source) -> Source:
    CLEAN.append(source)
    return source


def unlocked(run: Run, world: World) -> None:
    assert not world.lock.locked(), "the lock is held"


def all_saved(run: Run, world: World) -> None:
    if run.told:
        assert world.saved[: len(run.items)] == run.items, "partial save missing"


def disconnected(run: Run, world: World) -> None:
    assert world.connections == 0, "a connection is out"


# Ten bugs


@bug("the lock is held", "yield word", unlocked)
async def lock_held(world: World) -> AsyncIterator[str]:
    async for word in world.model():
        await world.lock.acquire()
        yield word
        world.lock.release()


@bug("partial save missing", "yield word", all_saved)
async def saved_after_the_yield(world: World) -> AsyncIterator[str]:
    async for word in world.model():
        yield word
        world.saved.append(word)


@bug("leaves behind: task World.save", "await anyio.sleep(1)  # the model")
async def task_not_awaited(world: World) -> AsyncIterator[str]:
    done = False
    try:
        async for word in world.model():
            yield word
        done = True
    finally:
        if not done:
            if asyncio._get_running_loop() is None:
                trio.lowlevel.spawn_system_task(world.save, "a")
            else:
                world.channel = asyncio.create_task(world.save("a"))


@bug("swallows it", "await anyio.sleep(1)  # each word")
async def swallowed(world: World) -> AsyncIterator[str]:
    for word in ("a", "b", "c"):
        with suppress(BaseException):
            await anyio.sleep(1)  # each word
        yield word


@bug("does not end", "await anyio.sleep(1)  # for ever")
async def retries_for_ever(world: World) -> AsyncIterator[str]:
    is_broken = False
    while True:
        try:
            await anyio.sleep(1)  # for ever
            if not is_broken:
                break
        except BaseException:
            is_broken = True
    yield "a"


@bug("is cut when its time to clean up is over", "await anyio.sleep(1)  # the model")
async def clean_up_too_long(world: World) -> AsyncIterator[str]:
    try:
        async for word in world.model():
            yield word
    except BaseException:
        await anyio.sleep(100)
        raise


@bug("raises AttributeError", "await anyio.sleep(0.1)  # connecting")
async def clean_up_hides_the_first(world: World) -> AsyncIterator[str]:
    connection: Any = None
    try:
        await world.connect()
        connection = world
        async for word in world.model():
            yield word
    finally:
        connection.disconnect()


@bug("leaves behind: open MemoryObject", "yield word")
async def stream_left_open(world: World) -> AsyncIterator[str]:
    send, receive = anyio.create_memory_object_stream[str](10)
    async for word in world.model():
        await send.send(word)
        yield word
    send.close()
    receive.close()


@bug("a connection is out", "await anyio.sleep(0.1)  # before the try", disconnected)
async def taken_before_its_try(world: World) -> AsyncIterator[str]:
    await world.connect()
    await anyio.sleep(0.1)  # before the try
    try:
        async for word in world.model():
            yield word
    finally:
        world.disconnect()


def said_last(run: Run, world: World) -> None:
    if run.told and run.kind == "stop":
        assert "[stopped]" in run.items, "the last word is lost"


@bug("the last word is lost", "await anyio.sleep(1)  # the model", said_last)
async def last_word_lost(world: World) -> AsyncIterator[str]:
    async for word in world.model():
        yield word
        try:
            await world.save(word)
        except StreamCancelled:
            yield "[stopped]"
            return


# Three in plain async functions, where streamkit shields nothing


def saved_if_told(run: Run, world: World) -> None:
    if run.told:
        assert world.saved, "nothing was saved"


@bug("nothing was saved", "await anyio.sleep(1)  # the work", saved_if_told, function=True)
async def unshielded_await(world: World) -> None:
    try:
        await anyio.sleep(1)  # the work
    finally:
        await world.save("a")


@bug("raises RuntimeError", "await anyio.sleep(1)  # in the scope", function=True)
async def scope_left_in_another_task(world: World) -> None:
    scope = anyio.CancelScope()
    scope.__enter__()
    try:
        await anyio.sleep(1)  # in the scope
    except BaseException:

        async def leave() -> None:
            scope.__exit__(None, None, None)

        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(leave)
        raise
    scope.__exit__(None, None, None)


@bug("leaves behind: generator World.model", "await anyio.sleep(1)  # on each", function=True)
async def generator_left_open(world: World) -> None:
    async for _ in world.model():
        await anyio.sleep(1)  # on each


# Ten clean ones


@clean
async def plain(world: World) -> AsyncIterator[str]:
    async for word in world.model():
        yield word


@clean
async def saves(world: World) -> AsyncIterator[str]:
    words = []
    try:
        async for word in world.model():
            words.append(word)
            yield word
    finally:
        with anyio.CancelScope(shield=True):
            await world.save(*words)


@clean
async def last_word(world: World) -> AsyncIterator[str]:
    try:
        async for word in world.model():
            yield word
    except StreamCancelled as stop:
        yield f"[{stop.reason}]"


@clean
async def locks(world: World) -> AsyncIterator[str]:
    async for word in world.model():
        async with world.lock:
            await world.save(word)
        yield word


@clean
async def connects(world: World) -> AsyncIterator[str]:
    await world.connect()
    try:
        async for word in world.model():
            yield word
    finally:
        world.disconnect()


@clean
async def holds_a_scope(world: World) -> AsyncIterator[str]:
    with anyio.move_on_after(10):
        async for word in world.model():
            yield word


@clean
async def holds_a_group(world: World) -> AsyncIterator[str]:
    async def beside() -> None:
        await anyio.sleep(1.5)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beside)
        async for word in world.model():
            yield word


@clean
async def nested(world: World) -> AsyncIterator[str]:
    async def inner() -> AsyncIterator[str]:
        with anyio.fail_after(20):
            async for word in world.model():
                yield word

    async for word in inner():
        yield word.upper()


@clean
async def group_in_nested(world: World) -> AsyncIterator[str]:
    async def inner() -> AsyncIterator[str]:
        send, receive = anyio.create_memory_object_stream[str]()
        with send, receive:
            async with anyio.create_task_group() as tasks:

                async def fill() -> None:
                    with send:
                        async for word in world.model():
                            await send.send(word)

                tasks.start_soon(fill)
                async for word in receive:
                    yield word

    async with aclosing(inner()) as words:
        async for word in words:
            yield word


@clean
async def streams_inside(world: World) -> AsyncIterator[str]:
    async with with_keepalive(with_cancellation(world.model(), CancelToken()), 30, "beat") as words:
        async for word in words:
            yield word
            with suppress(TimeoutError):
                with anyio.fail_after(0.5):
                    await anyio.sleep(0.25)


def make_of(source: Source, made: list[World] | None = None) -> Callable[[], Any]:
    """Return what makes a source, and a world for it."""

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Any, World]]:
        world = World()
        yield source(world), world

    return make
