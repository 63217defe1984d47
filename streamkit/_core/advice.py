"""The messages about a stream that is used wrongly: what came, and what to write instead."""

from __future__ import annotations

import anyio

IN_ANOTHER_LOOP = (
    "the stream was entered in another event loop or thread: iterate and leave it there; from a "
    "worker thread of anyio, ask by anyio.from_thread.run(stream.receive)"
)
END_OF_STREAM = (
    "the source raised EndOfStream: end it by 'return', or ask for its items by 'async for', which "
    "passes it on"
)
LEFT = "the stream has been closed: its block was left"
NOT_OPEN = (
    "the stream is not open: start tasks beside it in a hook that is called while it is open, "
    "such as on_item, and not in on_open, lifespan or on_close"
)


def busy() -> anyio.BusyResourceError:
    """Return the error of a task that asks while another one waits."""
    error = anyio.BusyResourceError("waiting for the next item of")
    error.args = (
        "Another task is already waiting for the next item of this stream: let one task iterate "
        "it, and pass the items on, through anyio.create_memory_object_stream() for instance",
    )
    return error


def not_entered(stream: object) -> str:
    return (
        f"{stream!r} was not entered: write 'async with stream:' around 'async for item in stream:'"
    )


def used_once(stream: object) -> str:
    return f"{stream!r} is used once: wrap a new source in a new stream"


def wrapped_too_late(stream: object) -> str:
    return (
        f"{stream!r} was entered before it was wrapped: wrap it first, and enter the outermost, "
        "'async with with_keepalive(stream, 15, beat) as stream:'"
    )


def left_in_another_task(stream: object) -> str:
    return (
        f"the block of {stream!r} is left in another task than it was entered in: close an async "
        "generator that holds a stream, with contextlib.aclosing(); if you cannot close it, as in "
        "a fixture of pytest-asyncio, let it return the stream, and enter it where it is "
        "iterated"
    )


def no_outcome_yet(stream: object, *, is_new: bool) -> str:
    why = "it was not entered" if is_new else "its source is not closed"
    return (
        f"{stream!r} has no outcome yet: {why}; read it after 'async with stream:', or ask "
        "'if stream.ended:' before"
    )


def never_open(stream: object) -> str:
    return f"{stream!r} has no outcome: it was closed without having been open"


def no_attribute(stream: object, name: str) -> str:
    advice = ""
    if name == "head":
        advice = (
            ": it belongs to with_status, which must be the outermost; write "
            "with_status(stream), and enter that"
        )
    return f"{type(stream).__name__!r} object has no attribute {name!r}{advice}"
