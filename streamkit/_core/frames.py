"""
What a suspended generator holds, read from its frame.

A generator that is suspended at a ``yield`` keeps the iterators of its open loops on the value
stack of its frame, and nowhere else. The garbage collector can see that
stack: what :func:`gc.get_referents` finds in a generator are the locals of its frame and then, from
the bottom to the top, its stack. This is how it is in CPython 3.11 to 3.14.
"""

from __future__ import annotations

import gc
from collections import deque
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CodeType,
    FunctionType,
    MethodType,
)
from typing import Any, TypeAlias, TypeGuard

Generator: TypeAlias = AsyncGeneratorType[Any, Any]

# No usual object has more attributes: it is a cache or the like.
_MANY = 200
# Set for classes that are not part of the interpreter.
_HEAP_TYPE = 1 << 9
# They may be large.
_CONTAINERS = (list, tuple, dict, set, frozenset, deque)


def open_loops(generator: Generator, held: list[Any]) -> list[tuple[object, bool]]:
    """
    Return the iterators of the loops that a suspended generator is in, the innermost first.

    :param held: what the garbage collector finds in it
    :return: each iterator, with whether the body of its loop holds a context

    """
    return _loops_on(_stack(generator, held))


def _loops_on(stack: list[Any]) -> list[tuple[object, bool]]:
    loops: list[tuple[object, bool]] = []
    is_covered = False
    for below, value in reversed([*zip([None, *stack[:-1]], stack, strict=False)]):
        if _is_exit(value):
            is_covered = True
        elif is_async_iterator(value) and not (_is_exit(below) and type(below) is FunctionType):
            # From Python 3.14 on, the context itself is there, above its exit.
            loops.append((value, is_covered))
    return loops


def _stack(generator: Generator, held: list[Any]) -> list[Any]:
    """Return what is on the stack of a suspended generator, and whatever else is not a local."""
    frame: Any = generator.ag_frame
    code: CodeType = generator.ag_code
    before = {**held[0]} if _is_dict(held[0]) else {}
    values: Any = frame.f_locals
    # The content of a cell is not in the frame itself.
    names = set(code.co_varnames).difference(code.co_cellvars)
    local = count([value for name, value in values.items() if name in names])
    # Until Python 3.12 the frame keeps this copy, once somebody has asked for it. Put back as it
    # was: it would hold on to all that is in there, and to itself, if that is a local, too.
    copy = values if _is_dict(values) else {}
    copy.clear()
    copy.update(before)
    stack: list[Any] = []
    for value in held:
        # The locals come first.
        if local.get(id(value)):
            local[id(value)] -= 1
        else:
            stack.append(value)
    return stack


def held_by(holder: object) -> list[Any]:
    """Return what the garbage collector finds in something."""
    held = gc.get_referents(holder)
    if not is_generator(holder):
        return held
    # What belongs to the generator and not to its frame comes before its function, as does a copy
    # of its locals, if it has asked for one.
    code = holder.ag_code
    for number, value in enumerate(held):
        if type(value) is FunctionType and value.__code__ is code:
            return [*filter(_is_dict, held[:number]), *held[number + 1 :]]
    return []


def is_generator(value: object) -> TypeGuard[Generator]:
    """Tell whether something is an async generator."""
    return type(value) is AsyncGeneratorType


def is_async_iterator(value: object) -> bool:
    """Tell whether something can be what an ``async for`` steps."""
    return hasattr(type(value), "__anext__")


def _is_exit(value: object) -> bool:
    # Of a `with` or an `async with`: nothing else puts such a thing on the stack.
    if not isinstance(value, (MethodType, FunctionType, BuiltinMethodType)):
        return False
    return value.__name__ in ("__exit__", "__aexit__")


def has_attributes(value: object) -> bool:
    """Tell whether something is an object with attributes, and not one that may hold a lot."""
    kind = type(value)
    return bool(kind.__flags__ & _HEAP_TYPE) and not isinstance(value, (*_CONTAINERS, type))


def is_dictionary_of(holder: object, value: Any) -> bool:
    """Tell whether something is where an object has its attributes, or a generator its locals."""
    return _is_dict(value) and not _is_dict(holder) and len(value) < _MANY


def _is_dict(value: Any) -> TypeGuard[dict[Any, Any]]:
    return type(value) is dict


def count(values: list[Any]) -> dict[int, int]:
    """Count how often each object is there, by its address."""
    counts: dict[int, int] = {}
    for value in values:
        counts[id(value)] = counts.get(id(value), 0) + 1
    return counts
