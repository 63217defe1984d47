"""
How a client asks over its socket for its stream to stop.

A client may send anything, and its reason reaches sources, hooks and logs. So a stop must be short,
and so must its reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias, cast

from .._core.arguments import check_made, check_plain

#: Tells what a message means: falsy, nothing; ``True``, stop; anything else, stop for this reason.
Stop: TypeAlias = Callable[[str | bytes], object]

# Characters, or bytes. A longer message is not a stop.
_LONGEST = 8192

# Characters of a reason that are kept.
_MOST = 1000


def stop_in(message: str | bytes) -> object:
    """
    Return what a message asks for, if it is the JSON ``{"type": "stop"}``: the ``"reason"`` in it,
    where that is text, or ``True``. For any other message, it is ``False``.
    """
    if len(message) > _LONGEST:
        return False
    try:
        read: Any = json.loads(message)
    except (ValueError, RecursionError):
        return False
    if not isinstance(read, dict):
        return False
    asked = cast("dict[str, object]", read)
    if asked.get("type") != "stop":
        return False
    reason = asked.get("reason")
    if not isinstance(reason, str) or not reason:
        return True
    # JSON may contain half of a surrogate pair, which cannot be encoded.
    return reason[:_MOST].encode("utf-8", "replace").decode()


def asked_by(stop: Stop, message: str | bytes) -> tuple[bool, object]:
    """
    Return whether a message asks for a stop, and the reason.

    :raises TypeError: if ``stop`` is an async function

    """
    found = stop(message)
    check_made("stop", found)
    return bool(found), None if found is True else found


def check_stop(given: object) -> None:
    """Check the function that tells a stop from other messages."""
    if given is not None and not callable(given):
        raise TypeError(
            f"stop must be callable, got {type(given).__qualname__}: write stop=lambda message: "
            "message == 'stop', or stop=None if no message is one"
        )
    check_plain("stop", given)
