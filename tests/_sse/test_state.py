"""Profiles with a beginning and a memory, in a response."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from streamkit import Head, StreamCancelled, with_status
from streamkit.asgi import Shutdown
from streamkit.sse import BROWSER, EventStream, Frame, Profile, RunEvents, ServerSentEvent
from streamkit.starlette import EventStream as StarletteEventStream
from support import Client, Probe
from support.event_stream import parse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping


def begin(about: Mapping[str, Any]) -> list[str]:
    return [f"begin {about.get('name', 'none')}"]


def event_of(item: str, state: str | None) -> ServerSentEvent:
    return ServerSentEvent(f"{state}+{item}")


def fold(state: str | None, item: object) -> str:
    # Without what was before, so that the tests can read it.
    return str(item)[-3:]


def tail(kind: str, message: str, state: str | None) -> Iterator[Any]:
    yield kind
    yield ServerSentEvent(f"{state}={message}")


#: Says with each item what came before it.
TELLING = Profile("TELLING", begin=begin, event_of=event_of, fold=fold, tail=tail)


async def answered(source: Any, **options: Any) -> list[str]:
    client = Client("GET")
    options = {"keepalive": None, "profile": TELLING, **options}
    await client.get(EventStream(source, **options))
    assert client.log.events[0] == 200
    pieces = [str(event).encode() for event in client.log.events[1:] if event != "end"]
    return [event.data for event in parse(*pieces).events]


async def ending(error: BaseException | None = None) -> AsyncGenerator[str, None]:
    yield "a"
    yield "b"
    if error is not None:
        raise error


async def test_order() -> None:
    """What begins comes before the first item, in the same piece, and all is folded."""
    client = Client("GET")
    await client.get(EventStream(ending(), profile=TELLING, about={"name": "x"}, keepalive=None))
    status, first, *_ = client.log.events
    assert (status, str(first)) == (200, "data: None+begin x\n\ndata: n x+a\n\n")
    assert await answered(ending()) == [
        "None+begin none",
        "one+a",
        "a+b",
        "b+completed",
        "b=The stream is complete.",
    ]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("secret"), "failed", "The stream failed."),
        (StreamCancelled("enough"), "cancelled", "The stream was cancelled."),
        (StreamCancelled(Shutdown()), "shutdown", "The server is shutting down."),
    ],
)
async def test_ends(error: BaseException, kind: str, message: str) -> None:
    """With a fold, each end is told by the tail, in the state that the last item has left."""
    *_, said, last = await answered(ending(error))
    assert said == f"b+{kind}"
    assert last == f"b={message}"
    # A shutdown by an event is for who is refused.
    profile = replace(TELLING, shutdown=lambda message: [ServerSentEvent("x")])
    assert (await answered(ending(error), profile=profile))[-2:] == [said, last]


async def test_final_knows_the_state() -> None:
    """The final of a user that asks the profile gets the end of this stream."""
    said = await answered(ending(), final=lambda outcome: TELLING.final(outcome, message="Bye."))
    assert said[-2:] == ["b+completed", "b=Bye."]
    assert (await answered(ending(), final=lambda outcome: ["c", "d"]))[-2:] == ["b+c", "c+d"]


async def test_no_item() -> None:
    """A stream without items begins all the same, before its end."""
    assert (await answered(Probe().source()))[:2] == ["None+begin none", "one+completed"]
    beats = await answered(Probe("a", every=40).source(), keepalive=10)
    assert beats[:2] == ["None+begin none", "one+a"]
    # Nobody says anything.
    assert await answered(Probe().source(), final=lambda outcome: None) == []


async def test_refused() -> None:
    """A status of 400 or more: the text of the source, and nothing of the protocol."""

    async def refusing(*items: Any) -> AsyncGenerator[Any, None]:
        yield Head(409, {"content-type": "text/plain"})
        for item in items:
            yield item

    for items, body in [(("busy", b"!"), "busy!"), (({"a": 1},), '{"a":1}'), ((), "")]:
        client = Client("GET")
        await client.get(EventStream(refusing(*items), profile=TELLING))
        status, *pieces, _ = client.log.events
        assert status == 409
        assert "".join(map(str, pieces)) == body
    client = Client("GET")
    await client.get(StarletteEventStream(ending(), profile=TELLING, status_code=418))
    assert "".join(map(str, client.log.events[1:-1])) == "ab"


async def test_refused_by_a_status_of_the_users_own() -> None:
    """Nothing of the protocol either where the stream has a status of its own."""

    async def refusing() -> AsyncGenerator[Any, None]:
        yield Head(409, {"content-type": "text/plain"})
        yield "busy"

    client = Client("GET")
    await client.get(EventStream(with_status(refusing()), profile=TELLING))
    assert client.log.events[0] == 409
    assert "".join(map(str, client.log.events[1:-1])) == "busy"


@pytest.mark.parametrize("status", [409, None])
async def test_refused_before_the_text(status: int | None) -> None:
    """No beat comes with the status of a refusal, whatever the content type is."""

    async def refusing() -> AsyncGenerator[Any, None]:
        if status is not None:
            yield Head(status)
        await anyio.sleep(20)
        yield "busy"

    client = Client("GET")
    await client.get(StarletteEventStream(refusing(), profile=TELLING, status_code=418))
    assert client.log == [
        (15.0 if status is None else 0.0, status or 418),
        (20.0, "busy"),
        (20.0, "end"),
    ]


async def test_refused_and_silent() -> None:
    """No beat is put into the text of a refusal, and a failure cuts it."""

    async def refusing() -> AsyncGenerator[Any, None]:
        yield Head(409, {"content-type": "text/plain"})
        async for item in Probe("busy", every=40).source():
            yield item
        raise LookupError

    client = Client("GET")
    with pytest.raises(LookupError):
        await client.get(EventStream(refusing(), profile=TELLING, keepalive=10))
    assert "".join(map(str, client.log.events[1:])) == "busy"


async def test_a_beginning_alone() -> None:
    """Without a fold, the beginning is all that there is, and text takes the shorter way."""
    profile = replace(BROWSER, begin=lambda about: [{"begin": dict(about)}])
    said = await answered(ending(), profile=profile, about={"a": 1})
    assert said[:-1] == ['{"begin":{"a":1}}', "a", "b"]
    assert json.loads(said[-1]) == {"kind": "completed"}


async def test_a_memory_alone() -> None:
    """Without a beginning, the state before the first item is ``None``."""
    assert (await answered(ending(), profile=replace(TELLING, begin=None)))[0] == "None+a"


async def test_part_of_a_line() -> None:
    """A frame that ends in the middle of a line is not broken by a beat."""

    async def source() -> AsyncGenerator[Any, None]:
        yield Frame(b"data: a")
        async for _ in Probe("b", every=40).source():
            yield Frame(b"b\n\n")

    assert (await answered(source(), keepalive=10))[1] == "ab"


def test_encode_alone() -> None:
    """A profile can be asked for a state, with nothing around it."""
    assert TELLING.encode_in("s", "a") == b"data: s+a\n\n"
    assert TELLING.encode("a") == b"data: None+a\n\n"
    opening, state = TELLING.begun({})
    assert (opening, state) == (b"data: None+begin none\n\n", "one")
    assert BROWSER.begun({}) == (b"", None)
    assert BROWSER.encode_in(None, "a") == b"data: a\n\n"
    event = ServerSentEvent("x")
    assert TELLING.encode_in("s", event) == TELLING.encode(event) == b"data: x\n\n"
    assert TELLING.encode(Frame(b"x")) == b"x"


def test_misuse() -> None:
    """What is no mapping, and what nobody makes anything of, is refused early."""
    about: Any = "x"
    with pytest.raises(TypeError, match="about must be a mapping, got str: write about="):
        EventStream(ending(), profile=TELLING, about=about)
    with pytest.raises(ValueError, match="BROWSER has none: leave it out"):
        EventStream(ending(), about={"name": "x"})
    for name, given in ("begin", "about"), ("fold", "state, item"):
        options: Any = {name: "x"}
        with pytest.raises(TypeError, match=f"write {name}=lambda {given}: "):
            Profile("MINE", **options)
    runs: Any = None
    with pytest.raises(TypeError, match="RunEvents takes runs"):
        RunEvents(runs, "x")


async def test_a_late_status() -> None:
    """A status that comes too late changes nothing of what is said."""

    async def source() -> AsyncGenerator[Any, None]:
        async for _ in Probe("x", every=40).source():
            yield Head(200)
        yield "a"

    assert (await answered(source(), keepalive=10))[:2] == ["None+begin none", "one+a"]
