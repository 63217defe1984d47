"""
Why runs end, in a form that passes from one process to another, and how they ended.

Nothing that comes out of a log is run or unpickled: text stays text, and a reason of streamkit's
own is made anew from its name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from .._combinators.timeout import TimedOut
from .._core.signal import Left
from .._signals.poll import PollFailed

# The one place in this wing that knows where Shutdown is defined.
from .._signals.shutdown import Shutdown as Shutdown
from .errors import LogFull
from .info import RunOutcome

#: The most bytes of UTF-8 in the text of a reason.
MAX_REASON = 4096


@dataclass(frozen=True, slots=True)
class Unwatched:
    """The reason of a run to which nobody was attached for ``unwatched`` seconds."""

    def __str__(self) -> str:
        return "nobody watches the run any more"


@dataclass(frozen=True, slots=True)
class Fenced:
    """
    The reason of a source whose run others have ended or removed: it can no longer write.

    Its process was taken for dead, or the log has lost the run.
    """

    def __str__(self) -> str:
        return "the run was ended elsewhere"


@dataclass(frozen=True, slots=True)
class LogLost:
    """The reason of a source whose log could not be reached for too long."""

    def __str__(self) -> str:
        return "the log could not be reached"


_PLAIN = {cls.__name__: cls for cls in (Fenced, Left, LogFull, LogLost, Shutdown, Unwatched)}


def check_reason(reason: object) -> None:
    """
    Check a reason before it is stored.

    :raises ValueError: if it is text that is too long

    """
    if isinstance(reason, str) and len(_utf8(reason)) > MAX_REASON:
        raise ValueError(
            f"a reason has at most {MAX_REASON} bytes: write a short one, and keep the rest "
            "elsewhere"
        )


def encode_reason(reason: object) -> bytes:
    """Return a reason as bytes: the name of its class if it has no form of its own."""
    return _dump(_form_of(reason))


def decode_reason(data: bytes) -> object:
    """Return the reason that :func:`encode_reason` has encoded."""
    return _reason_of(json.loads(data))


def encode_outcome(outcome: RunOutcome) -> bytes:
    """Return the outcome of a run as bytes."""
    # Not with asdict(), which copies the reason: that may be any object, even one without a copy.
    form = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
    return _dump({**form, "reason": _form_of(outcome.reason)})


def decode_outcome(data: bytes) -> RunOutcome:
    """Return the outcome that :func:`encode_outcome` has encoded."""
    form: dict[str, Any] = json.loads(data)
    form["reason"] = _reason_of(form["reason"])
    return RunOutcome(**form)


def _form_of(reason: object) -> Any:
    if reason is None:
        return None
    if isinstance(reason, str):
        return {"text": _utf8(reason)[:MAX_REASON].decode(errors="ignore")}
    if isinstance(reason, TimedOut):
        return {"is": "TimedOut", "limit": reason.limit, "seconds": reason.seconds}
    if isinstance(reason, PollFailed):
        last = type(reason.last).__qualname__
        return {"is": "PollFailed", "errors": reason.errors, "last": last}
    name = type(reason).__name__
    if _PLAIN.get(name) is type(reason):
        return {"is": name}
    return {"text": type(reason).__qualname__}


def _reason_of(form: Any) -> object:
    if form is None:
        return None
    if "text" in form:
        return form["text"]
    name = form["is"]
    if name == "TimedOut":
        return TimedOut(form["limit"], form["seconds"])
    if name == "PollFailed":
        return PollFailed(form["errors"], RuntimeError(form["last"]))
    # A reason of a later release is text to this one.
    return _PLAIN[name]() if name in _PLAIN else name


def _dump(form: object) -> bytes:
    return json.dumps(form, separators=(",", ":")).encode()


def _utf8(text: str) -> bytes:
    return text.encode(errors="replace")
