"""The checks of arguments that several combinators share."""

from __future__ import annotations

import math


def seconds(name: str, value: object, *, positive: bool = False) -> float:
    """
    Check a time in seconds.

    :raises TypeError: if it is no number
    :raises ValueError: if it is not finite, negative, or zero where it must be positive

    """
    what = "a finite number of seconds > 0" if positive else "a finite number of seconds >= 0"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be {what}, got {value!r}; write {name}=5.0, for instance")
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        raise ValueError(f"{name} must be {what}, got {value!r}; write {name}=5.0, for instance")
    return value


def positive(name: str, value: object) -> int:
    """
    Check a number of things.

    :raises TypeError: if it is no integer
    :raises ValueError: if it is not positive

    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer > 0, got {value!r}; write {name}=100")
    if value <= 0:
        raise ValueError(f"{name} must be an integer > 0, got {value!r}; write {name}=100")
    return value
