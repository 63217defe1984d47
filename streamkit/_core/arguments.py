"""The checks of arguments that several combinators share."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from types import AsyncGeneratorType, CoroutineType

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

# Not as unions, which are made anew each time.
_NUMBERS = (int, float)
_AWAITED = (CoroutineType, AsyncGeneratorType)


def seconds(name: str, value: object, *, positive: bool = False) -> float:
    """
    Check a time in seconds.

    :raises TypeError: if it is not a number
    :raises ValueError: if it is not finite, negative, or zero where it must be positive

    """
    if type(value) is float and 0.0 < value < math.inf:
        # As nearly always.
        return value
    if isinstance(value, bool) or not isinstance(value, _NUMBERS):
        raise TypeError(_must_be_seconds(name, repr(value), positive))
    try:
        number = float(value)
    except OverflowError:
        given = "an int that is too large for a float"
        raise ValueError(_must_be_seconds(name, given, positive)) from None
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        raise ValueError(_must_be_seconds(name, repr(value), positive))
    return value


def _must_be_seconds(name: str, given: str, positive: bool) -> str:
    least = "> 0" if positive else ">= 0"
    return (
        f"{name} must be a finite number of seconds {least}, got {given}; write {name}=5.0, for "
        "instance"
    )


def positive(name: str, value: object) -> int:
    """
    Check a number of things.

    :raises TypeError: if it is not an integer
    :raises ValueError: if it is not positive

    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer > 0, got {value!r}; write {name}=100")
    if value <= 0:
        raise ValueError(f"{name} must be an integer > 0, got {value!r}; write {name}=100")
    return value


def check_status(name: str, value: object) -> None:
    """
    Check the status of an answer.

    :raises TypeError: if it is not an ``int``
    :raises ValueError: if it is not from 200 to 599

    """
    if type(value) is int and 200 <= value <= 599:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(_must_be_status(name, value))
    if not 200 <= value <= 599:
        raise ValueError(_must_be_status(name, value))


def _must_be_status(name: str, value: object) -> str:
    return f"{name} must be an int from 200 to 599, got {value!r}; write {name}=409, for instance"


def check_header(name: object, value: object) -> None:
    """
    Check an HTTP header.

    :raises TypeError: if its name or its value is not text
    :raises ValueError: if it cannot be sent

    """
    if not isinstance(name, str) or not isinstance(value, str):
        given = value if isinstance(name, str) else name
        raise TypeError(
            f"{name!r}: {value!r} is not a header: its name and its value must be str, got "
            f"{type(given).__qualname__}; write 'retry-after': '5', for instance"
        )
    if not _NAME.fullmatch(name) or _CONTROL.search(value):
        raise ValueError(
            f"{name!r}: {value!r} is not a header: a name has letters, digits and '-', and a "
            "value is one line, without control characters"
        )
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(
            f"the header {name!r} has a value outside latin-1, {value!r}: write it with "
            "urllib.parse.quote(), for instance"
        ) from None


def check_plain(name: str, function: object) -> None:
    """
    Check that a function, or an object that is called like one, is not async.

    :raises TypeError: if it is

    """
    # Functions and methods have it, and asking it is ten times as fast as asking inspect.
    code = getattr(function, "__code__", None)
    if code is None:
        called = getattr(type(function), "__call__", None)  # noqa: B004  its code is asked
        code = getattr(called, "__code__", None)
    if code is not None:
        is_async = bool(code.co_flags & _ASYNC)
    else:
        is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    if is_async:
        raise TypeError(_must_be_plain(name))


def check_made(name: str, value: object) -> None:
    """
    Check that the result of a function is not a coroutine, which nobody would await.

    :raises TypeError: if it is one, or an async generator

    """
    # As inspect tells, in fewer calls: it is asked after each beat, and several times at each end.
    if not isinstance(value, _AWAITED):
        return
    if isinstance(value, CoroutineType):
        value.close()
    raise TypeError(_must_be_plain(name))


def refuse_misplaced(name: str, options: Mapping[str, object], instead: Mapping[str, str]) -> None:
    """
    Refuse an option that exists elsewhere.

    :param name: of the callable that was given the option
    :param instead: what to write, for each known option
    :raises TypeError: if there is one

    """
    for option in options:
        if option in instead:
            raise TypeError(f"{name} takes no {option}: {instead[option]}")


def _must_be_plain(name: str) -> str:
    return (
        f"{name} must not be async: write 'def' in place of 'async def', and await what it needs "
        "in the source, or in on_end"
    )
