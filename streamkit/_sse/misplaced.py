"""Advice for arguments of an event stream that are written as another library has them."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, TypeVar, cast

from .profile import Profile

Init = TypeVar("Init", bound=Callable[..., None])

#: What to do about an option that other libraries, or other classes here, have.
OF_EVENTS = {
    "background": "write streamkit.starlette.EventStream(..., background=...), or on_end=...",
    "beat": "write profile=dataclasses.replace(BROWSER, beat=Frame(...))",
    "content": "write EventStream(source)",
    "encoder": "write profile=dataclasses.replace(BROWSER, encoder=...)",
    "interval": "write keepalive=15, in seconds",
    "media_type": "write profile=dataclasses.replace(BROWSER, media_type=...)",
    "ping": "write keepalive=15, in seconds",
    "sep": "write nothing: lines end in LF, which every client takes",
    "status_code": "write streamkit.starlette.EventStream(..., status_code=...), or yield a Head "
    "first",
}

#: The same for options that say what becomes of a source.
OF_A_RUN = {
    "on_disconnect": "a reader that goes leaves the run alone; to stop it then, write "
    "runs.start(..., unwatched=30)",
    "drain_timeout": "a run goes on whoever leaves; to stop it when nobody reads it, write "
    "runs.start(..., unwatched=30)",
    "on_end": "there is one end, however many readers: write runs.start(..., on_end=...)",
}

#: The same for JSON lines.
OF_LINES = {
    "background": "write streamkit.starlette.JsonLines(..., background=...), or on_end=...",
    "interval": "write keepalive=15, in seconds",
    "media_type": "write headers={'content-type': '...'}",
    "ping": "write beat={'type': 'ping'}",
    "profile": "write nothing, or EventStream(source, profile=...)",
    "status_code": "write streamkit.starlette.JsonLines(..., status_code=...), or yield a Head "
    "first",
}


def by_name(init: Init) -> Init:
    """Hide the positional arguments that a constructor takes only to refuse them."""
    full = signature(init)
    several = Parameter.VAR_POSITIONAL
    shown = [each for each in full.parameters.values() if each.kind is not several]
    cast("Any", init).__signature__ = full.replace(parameters=shown)
    return init


def refuse_positional(name: str, given: tuple[object, ...]) -> None:
    """
    Refuse positional arguments after the source, and say how to write them.

    :param name: of the class that was given them
    :raises TypeError: always

    """
    raise TypeError(
        f"{name} takes the source alone without a name, got {type(given[0]).__qualname__} "
        f"after it: write {name}(source, {_named(given[0])})"
    )


def _named(value: object) -> str:
    if isinstance(value, Profile):
        return f"profile={value.name}"
    if isinstance(value, int | float):
        return f"keepalive={value}"
    return "profile=BROWSER, keepalive=15"
