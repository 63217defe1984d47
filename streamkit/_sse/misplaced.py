"""What is said to who writes the arguments of an event stream as another library has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from .profile import Profile

Init = TypeVar("Init", bound=Callable[..., None])

# What to write in place of an option that there is elsewhere, or next door.
_INSTEAD = {
    "background": "streamkit.starlette.EventStream(..., background=...), or on_end=...",
    "beat": "profile=dataclasses.replace(BROWSER, beat=Frame(...))",
    "content": "EventStream(source)",
    "encoder": "profile=dataclasses.replace(BROWSER, encoder=...)",
    "interval": "keepalive=15, in seconds",
    "media_type": "profile=dataclasses.replace(BROWSER, media_type=...)",
    "ping": "keepalive=15, in seconds",
    "sep": "nothing: lines end in LF, which every client takes",
    "status_code": "streamkit.starlette.EventStream(..., status_code=...), or yield a Head first",
}


# What to do about an option that says what becomes of a source.
_OF_A_RUN = {
    "on_disconnect": "a reader that goes leaves the run alone; for one that is to stop then, write "
    "runs.start(..., unwatched=30)",
    "drain_timeout": "a run goes on whoever leaves; for one that is to stop when nobody reads it, "
    "write runs.start(..., unwatched=30)",
    "on_end": "there is one end, however many readers: write runs.start(..., on_end=...)",
}


# The same for JSON lines.
_IN_LINES = {
    "background": "streamkit.starlette.JsonLines(..., background=...), or on_end=...",
    "interval": "keepalive=15, in seconds",
    "media_type": "headers={'content-type': '...'}",
    "ping": "beat={'type': 'ping'}",
    "profile": "nothing, or EventStream(source, profile=...)",
    "status_code": "streamkit.starlette.JsonLines(..., status_code=...), or yield a Head first",
}


def check_options(name: str, options: Mapping[str, object]) -> None:
    """
    Refuse an option that there is elsewhere.

    :param name: of the response
    :raises TypeError: if there is one

    """
    for option in options:
        if option in _INSTEAD:
            raise TypeError(f"{name} takes no {option}: write {_INSTEAD[option]}")


def check_line_options(name: str, options: Mapping[str, object]) -> None:
    """
    Refuse an option of JSON lines that there is elsewhere.

    :param name: of the response
    :raises TypeError: if there is one

    """
    for option in options:
        if option in _IN_LINES:
            raise TypeError(f"{name} takes no {option}: write {_IN_LINES[option]}")


def check_reader_options(name: str, options: Mapping[str, object]) -> None:
    """
    Refuse an option that would be about the source, which a reader has none of.

    :param name: of the response
    :raises TypeError: if there is one

    """
    for option in options:
        if option in _OF_A_RUN:
            raise TypeError(f"{name} takes no {option}: {_OF_A_RUN[option]}")


def by_name(init: Init) -> Init:
    """Let a constructor say how to write what was given to it without a name, after the source."""

    @wraps(init)
    def checked(self: object, *args: Any, **kwargs: Any) -> None:
        if len(args) > 1:
            name = type(self).__qualname__
            raise TypeError(
                f"{name} takes the source alone without a name, got {type(args[1]).__qualname__} "
                f"after it: write {name}(source, {_named(args[1])})"
            )
        init(self, *args, **kwargs)

    return cast("Init", checked)


def _named(value: object) -> str:
    if isinstance(value, Profile):
        return f"profile={value.name}"
    if isinstance(value, int | float):
        return f"keepalive={value}"
    return "profile=BROWSER, keepalive=15"
