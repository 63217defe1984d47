"""``whole_events``: the bytes of an event stream that come in any pieces."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import anyio
import pytest
from hypothesis import given, strategies as st

from odd_text import texts
from streamkit import Head
from streamkit.sse import BROWSER, RAW, EventStream, Frame, ServerSentEvent, whole_events
from support import Client, Log, Probe, aiter_of
from support.event_stream import parse

T = TypeVar("T")

# Lines of events, and what is between them, in no order, with any line end.
wild = st.lists(
    st.tuples(
        st.sampled_from(
            ["data: a", "data: é\u2028", "id: 7", "event: x", ": c", ":", "", "retry: 5"]
        )
        | texts.map(lambda text: re.sub("[\r\n]", "", text)),
        st.sampled_from(["\n", "\r", "\r\n"]),
    ),
    max_size=15,
).map(lambda lines: "".join(map("".join, lines)).encode(errors="replace"))


def cut(stream: bytes, data: st.DataObject) -> list[bytes]:
    """Cut a stream into pieces, some of them empty."""
    pieces: list[bytes] = []
    while stream:
        size = data.draw(st.integers(0, 8))
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


async def split(source: AsyncIterable[bytes]) -> list[Frame]:
    return [frame async for frame in whole_events(source)]


def is_whole(stream: bytes) -> bool:
    """Tell whether no event of a stream is begun and not complete."""
    *lines, rest = stream.split(b"\n")
    while lines and lines[-1].startswith(b":"):
        lines.pop()
    return not rest and (not lines or not lines[-1])


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run what waits for nothing, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits for something")


@given(wild, st.data())
def test_any_pieces(stream: bytes, data: st.DataObject) -> None:
    """Split: the same events, comments and ids arrive, and a beat after each frame is none of them.

    Each frame but what is left at the end is of whole events.
    """
    frames = run(split(aiter_of(*cut(stream, data))))
    assert all(frames)
    joined, whole = parse(*frames), parse(stream)
    assert joined.events == whole.events
    assert (joined.comments, joined.retries) == (whole.comments, whole.retries)
    assert joined.last_event_id == whole.last_event_id
    beating = parse(*(part for frame in frames for part in (frame, RAW.beat)))
    assert beating.events == whole.events
    if frames and not is_whole(b"".join(frames)):
        assert b"\n\n" not in frames.pop()
    for number in range(len(frames)):
        assert is_whole(b"".join(frames[: number + 1]))


@given(wild)
def test_at_once(stream: bytes) -> None:
    """Split: an event arrives with the byte that completes it, and not with a later one."""
    given, taken = bytearray(), bytearray()

    async def source() -> AsyncGenerator[bytes, None]:
        for byte in stream:
            assert parse(bytes(given)).events == parse(bytes(taken)).events
            given.append(byte)
            yield bytes((byte,))

    async def take() -> None:
        async for frame in whole_events(source()):
            taken.extend(frame)

    run(take())


@pytest.mark.parametrize(
    ("pieces", "frames"),
    [
        ([b"data: a\n\ndata: b\n\nda", b"ta: c\n\n"], [b"data: a\n\ndata: b\n\n", b"data: c\n\n"]),
        ([b"data: a\r", b"\n\r", b"\ndata: b"], [b"data: a\n\n", b"data: b"]),
        ([b"data: a\r\r", b"\n", b"\n"], [b"data: a\n\n", b"\n"]),
        ([b"data: a\r", b"", b"\n", b"\n"], [b"data: a\n\n"]),
        ([b"data: a\rdata: b\r\r"], [b"data: a\ndata: b\n\n"]),
        (
            [b": pi", b"ng\n", b"data: a\n", b": ping\n", b"\n: x"],
            [b": ping\n", b"data: a\n: ping\n\n", b": x"],
        ),
        ([b"\xef", b"\xbb\xbfdata: a\n\n"], [b"data: a\n\n"]),
        ([b"\xef\xbb\xbf", b"\n", b"\xef\xbb\xbf\n\n"], [b"\n", b"\xef\xbb\xbf\n\n"]),
        ([b"\xef\xbb"], [b"\xef\xbb"]),
        ([b"", b"\n\n"], [b"\n\n"]),
        ([bytearray(b"data: a\n\n")], [b"data: a\n\n"]),
        ([], []),
    ],
)
async def test_pieces(pieces: list[bytes], frames: list[bytes]) -> None:
    """Split: line ends in two bytes, comments between events, a byte order mark, what is left."""
    split_up = await split(aiter_of(*pieces))
    assert split_up == frames
    assert {type(frame) for frame in split_up} <= {Frame}


async def test_beats_in_between() -> None:
    """Split: in a response, a beat comes between two events and not into one."""

    async def upstream() -> AsyncGenerator[bytes, None]:
        yield b"data: a\n\nda"
        await anyio.sleep(20)
        yield b"ta: b"
        await anyio.sleep(20)
        yield b"\n\n"

    client = Client()
    await client.get(
        EventStream(whole_events(upstream()), profile=RAW, final=lambda outcome: "!\n")
    )
    assert client.log.events == [
        *(200, "data: a\n\n", ": ping\n", ": ping\n", "data: b\n\n", "!\n", "end")
    ]


async def test_fails() -> None:
    """Split: an upstream that breaks off in an event: what is whole arrives, then the error."""
    log, error = Log(), LookupError("broken")

    async def upstream() -> AsyncGenerator[bytes, None]:
        yield b"data: a\n\ndata: b"
        raise error

    with pytest.raises(LookupError) as caught:
        async for frame in whole_events(upstream()):
            log(frame.decode())
    assert (caught.value, log.events) == (error, ["data: a\n\n"])


async def test_closed_with_the_stream() -> None:
    """Split: a client that goes takes the upstream along, in the task of the source."""
    client, probe = Client(goes_after=5), Probe(b"data: a\n\n", b"da", every=3.0)

    async def source() -> AsyncGenerator[Head | bytes, None]:
        yield Head(200)
        async for frame in whole_events(probe.source()):
            yield frame

    await client.get(EventStream(source(), profile=RAW))
    assert probe.closed == 1


async def test_plain_iterator() -> None:
    """Split: what cannot be closed is iterated all the same."""

    class Plain:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return pieces

    pieces = aiter_of(b"data: a\n", b"\n")
    assert await split(Plain()) == [b"data: a\n\n"]


async def test_closed_by_itself() -> None:
    """Split: without a stream around it, it closes what it iterates."""
    probe = Probe(b"data: a\n\n", b"data: b\n\n")
    async with aclosing(whole_events(probe.source())) as events:
        async for _ in events:
            break
    assert probe.closed == 1


@pytest.mark.parametrize("given", [b"data: a\n\n", [b"data: a\n\n"], None, whole_events])
def test_no_source(given: Any) -> None:
    """Misuse: what cannot be iterated asynchronously is refused at the call."""
    what = type(given).__name__
    with pytest.raises(TypeError, match=f"got {what}: write whole_events\\(response.aiter_bytes"):
        whole_events(given)


@pytest.mark.parametrize("given", ["data: a\n\n", Head(200), 7])
async def test_no_bytes(given: Any) -> None:
    """Misuse: what is no bytes is refused by the name of its type."""
    with pytest.raises(TypeError, match=f"yielded {type(given).__name__}: write whole_events"):
        await split(aiter_of(given))


@pytest.mark.parametrize("line", [b"data: a", b": a", b"data: a\n", b": a\n", b"\r"])
def test_linear_time(line: bytes) -> None:
    """Split: 200,000 pieces of one event are put together in a fraction of a second.

    In quadratic time it would take minutes, of the processor and not of the clock.
    """

    async def pieces() -> AsyncGenerator[bytes, None]:
        for _ in range(200_000):
            yield line
        yield b"\n\n"

    start = time.thread_time()
    frames = run(split(pieces()))
    assert time.thread_time() - start < 10
    assert sum(map(len, frames)) == 200_000 * len(line) + 2 - (line == b"\r")


class TestBeatsOfRaw:
    @pytest.mark.parametrize(
        ("piece", "beats"),
        [
            (b"data: a\n\n", 2),
            (b"data: a\n", 2),
            (b"data: a", 0),
            ("data: a", 0),
            (Frame(b"data: a"), 0),
            (b"data: a\r", 0),
            (b"data: a\r\n", 2),
            (ServerSentEvent("a"), 2),
        ],
    )
    async def test_after_a_piece(self, piece: Any, beats: int) -> None:
        """RAW: a beat that would get into a line is dropped; when the line has ended, it is not."""

        async def source() -> AsyncGenerator[Any, None]:
            yield piece
            yield b""
            await anyio.sleep(35)
            yield b"\n"
            await anyio.sleep(20)
            yield b"data: b\n\n"

        client = Client()
        await client.get(EventStream(source(), profile=RAW))
        at = [when for when, event in client.log if event == ": ping\n"]
        assert at == [*([15, 30] if beats else []), 50]

    async def test_pieces_of_text(self) -> None:
        """RAW: text passes as it is, also after a piece that has ended a line."""
        client = Client()
        await client.get(
            EventStream(aiter_of("data: ", "a", "\n\n", "data: b", "\n\n"), profile=RAW)
        )
        assert client.log.events == [200, "data: ", "a", "\n\n", "data: b", "\n\n", "end"]

    async def test_under_another_profile(self) -> None:
        """RAW: the same for a frame under any profile, until something else is yielded."""

        async def source() -> AsyncGenerator[Any, None]:
            yield Frame(b"data: a")
            await anyio.sleep(20)
            yield "text of one line"
            await anyio.sleep(20)

        client = Client()
        await client.get(EventStream(source(), profile=BROWSER))
        assert [when for when, event in client.log if event == ": ping\n"] == [35]
