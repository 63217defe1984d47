"""
The trampoline of an async function: it sees each wait, and passes on what the event loop sends.

asyncio *throws* a cancellation, trio *sends* an ``outcome.Error`` that holds it. Where it comes
from cannot be seen. So one that comes where the undisturbed run has one, too, counts as the
function's own.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar, cast

from .._core.exceptions import is_backend_cancellation, leaves
from .abandoned import Abandoned, abandon
from .eye import Eye
from .loops import running_task
from .places import Place, place_of

T = TypeVar("T")


def has_cancellation(exc: BaseException) -> bool:
    """Tell whether this is the backend's cancellation, or a group with one."""
    return any(map(is_backend_cancellation, leaves(exc)))


def _is_cancellation(given: object) -> bool:
    if not isinstance(given, BaseException) or not is_backend_cancellation(given):
        return False
    # On trio, a sleep ends this way.
    return getattr(given, "source", None) != "deadline"


@coroutine
def watched(work: Coroutine[Any, Any, T], eye: Eye) -> Generator[Any, Any, T]:
    """Await a coroutine, and show each of its waits to the eye."""
    task = running_task()
    value: Any = None
    exc: BaseException | None = None
    place: Place | None = None
    told_at: Place | None = None
    told_after = -1
    try:
        while True:
            eye.is_running = True
            try:
                yielded = work.send(value) if exc is None else work.throw(exc)
            except StopIteration as stop:
                return cast("T", stop.value)
            except BaseException as raised:
                # A nursery holds back a cancellation until its tasks have ended.
                if place is not None and eye.asked_at and has_cancellation(raised):
                    eye.told(place)
                raise
            finally:
                eye.is_running = False
                eye.pulse += 1
            value = exc = None
            place = place_of(work)
            is_same = place == told_at and len(eye.trace) == told_after
            if is_same and not (place.is_an_exit or eye.swallowed_at):
                eye.swallowed_at = place
            try:
                eye.suspended(place, task)
                value = yield yielded
            except BaseException as thrown:
                exc = thrown
            if eye.is_over:
                abandon(work)
                raise Abandoned
            given = exc if exc is not None else getattr(value, "error", None)
            if _is_cancellation(given) and eye.cancelled(place) and told_at is None:
                told_at, told_after = place, len(eye.trace)
    finally:
        value = exc = yielded = given = None
