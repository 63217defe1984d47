"""
Which generators a suspended one iterates: read from its frame, when it is told or closed and only
then.

A generator that is suspended at a ``yield`` keeps the iterators of its open loops on the value
stack of its frame, and there is no other place to learn of them. The garbage collector can see that
stack: what :func:`gc.get_referents` finds in a generator are the locals of its frame and then, from
the bottom to the top, its stack.

With ``yield from`` in async generators (PEP 828, Python 3.16), one that delegates will close what
it delegates to by itself, and the chain is closed by the interpreter. This is for ``async for``.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CodeType,
    FunctionType,
    MethodType,
)
from typing import Any, TypeAlias, TypeGuard

Generator: TypeAlias = AsyncGeneratorType[Any, Any]

#: Tells which generators may be closed, by whoever looks after them.
IsOurs: TypeAlias = Callable[[Generator], bool]

# How many attributes lie between an iterator of a library and the generator inside it, at most.
_DEPTH = 2
# So many objects are looked at. It is reached where a local leads to half of an application, and
# then what cannot be told counts as somebody else's.
_LIMIT = 1000
# More attributes has no object: that is a cache or the like.
_MANY = 200


class Chain:
    """
    What hangs on some suspended generators, frames or library iterators.

    Holds on to all that it has seen: drop it before any of that runs.

    :param roots: where to begin
    :param given: what is nobody else's either
    :param is_ours: which generators may be closed, if nobody else holds them

    """

    def __init__(self, roots: Sequence[object], given: Sequence[object], is_ours: IsOurs) -> None:
        self._is_ours = is_ours
        self._roots = roots
        self._given = given
        self._held: dict[int, list[Any]] = {}
        self._ordered: set[int] = set()
        self._ours: set[int] = set()
        if _COUNTS_REFERENCES:
            self._look(0)
            self._ours = self._held_by_nobody_else()
            # The attributes of what is there only matter if a library iterates, or if something
            # seems to be held by somebody: in most chains, neither is so.
            if any(map(self._is_open_question, self._values())):
                self._look(_DEPTH)
                self._ours = self._held_by_nobody_else()

    def inner(self, holder: object) -> list[tuple[Generator, bool]]:
        """
        Return the generators that another one iterates, the innermost first.

        :return: each with whether the body of its loop holds a context: that one is to be left
            before the loop, so the body has to be unwound first

        """
        found: list[tuple[Generator, bool]] = []
        if not self._ours:
            return found
        if not is_generator(holder):
            return [(generator, False) for generator in self._inside(holder, _DEPTH)]
        if holder.ag_frame is None:
            return found
        for iterator, is_covered in open_loops(holder, self._held[id(holder)]):
            found += [(generator, is_covered) for generator in self._inside_loop(iterator)]
        return found

    def to_close(self, holder: object) -> list[Any]:
        """Return what to close in its place, one after the other: the holder is among it."""
        if id(holder) in self._ordered:
            return []
        self._ordered.add(id(holder))
        order: list[Any] = []
        covered: list[Any] = []
        for generator, is_covered in self.inner(holder):
            (covered if is_covered else order).extend(self.to_close(generator))
        return [*order, holder, *covered]

    def to_tell(self, holder: object) -> list[tuple[Generator, bool]]:
        """
        Return what is inside a generator that is told something at its ``yield``.

        :return: each generator, the innermost first, with whether it is told or only closed: what
            is told goes through the loop that the ``yield`` is in, as it would at an ``await``

        """
        order: list[tuple[Generator, bool]] = []
        for generator, is_covered in self.inner(holder):
            if is_covered:
                break
            is_told = not order
            inside = self.to_tell(generator) if is_told else _closed(self.to_close(generator)[:-1])
            order += [*inside, (generator, is_told)]
        return order

    def held_by_frames(self) -> list[Generator]:
        """Return what the roots, which are frames that have ended, still hold in their locals."""
        found: list[Generator] = []
        for frame in self._roots:
            for value in self._held.get(id(frame), ()):
                found += self._inside_loop(value)
        return found

    def _inside_loop(self, iterator: object) -> list[Generator]:
        if is_generator(iterator):
            return [iterator] if id(iterator) in self._ours else []
        return list(self._inside(iterator, _DEPTH)) if is_async_iterator(iterator) else []

    def _inside(self, holder: object, depth: int) -> Iterator[Generator]:
        """Find the generators that an iterator of a library has as its attributes."""
        for value in self._held.get(id(holder), ()):
            if id(value) in self._ours:
                if is_generator(value):
                    yield value
                elif _is_dictionary_of(holder, value):
                    yield from self._inside(value, depth)
                elif depth > 1:
                    yield from self._inside(value, depth - 1)

    def _look(self, limit: int) -> None:
        """Note who holds what: the generators, and the attributes of what they hold."""
        todo = deque((root, 0) for root in [*self._roots, *self._given])
        depths: dict[int, int] = {}
        while todo and len(depths) < _LIMIT:
            holder, depth = todo.popleft()
            if depths.get(id(holder), limit + 1) <= depth:
                continue
            depths[id(holder)] = depth
            if id(holder) not in self._held:
                self._held[id(holder)] = _held_by(holder)
            for value in self._held[id(holder)]:
                if is_generator(value):
                    if self._is_ours(value):
                        # Before anything else, lest the limit is reached.
                        todo.appendleft((value, 0))
                elif depth < limit and _has_attributes(value):
                    todo.append((value, depth + 1))
                elif type(value) is MethodType or _is_dictionary_of(holder, value):
                    todo.append((value, depth))

    def _values(self) -> list[Any]:
        return [value for held in self._held.values() for value in held]

    def _is_open_question(self, value: Any) -> bool:
        if is_generator(value):
            return id(value) not in self._ours and self._is_ours(value)
        return is_async_iterator(value)

    def _held_by_nobody_else(self) -> set[int]:
        """Return what is held by the roots, by each other, and by nothing that was not seen."""
        roots = {id(root) for root in [*self._roots, *self._given]}
        values = self._values()
        listed = _count(values)
        seen = list({id(value): value for value in values if id(value) in self._held}.values())
        del values
        # The last one is held by this list alone.
        *counts, only_seen = map(sys.getrefcount, [*seen, object()])
        holds = {
            # It is in both lists.
            id(value): count - only_seen - 1 - listed[id(value)]
            for value, count in zip(seen, counts, strict=True)
            if id(value) not in roots
        }
        ours = set(holds)
        others = {key for key in ours if holds[key] != listed[key]}
        while others:
            ours -= others
            # What these hold is held by somebody else, and so on.
            holders = (ours | roots) & self._held.keys()
            known = _count([value for key in holders for value in self._held[key]])
            others = {key for key in ours if holds[key] != known.get(key)}
        return ours


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
    for value, below in zip(reversed(stack), [*reversed(stack[:-1]), None], strict=True):
        if _is_exit(value):
            is_covered = True
        elif is_async_iterator(value) and not (_is_exit(below) and type(below) is FunctionType):
            # From Python 3.14 on, what is to be left is there itself, above its exit.
            loops.append((value, is_covered))
    return loops


def _stack(generator: Generator, held: list[Any]) -> list[Any]:
    """Return what is on the stack of a suspended generator, and what else is no local of it."""
    frame: Any = generator.ag_frame
    code: CodeType = generator.ag_code
    before = {**held[0]} if _is_dict(held[0]) else {}
    values: Any = frame.f_locals
    # What a cell holds is not in the frame itself.
    names = set(code.co_varnames).difference(code.co_cellvars)
    local = _count([value for name, value in values.items() if name in names])
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


def _held_by(holder: object) -> list[Any]:
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


def _has_attributes(value: object) -> bool:
    kind = type(value)
    return bool(kind.__flags__ & _HEAP_TYPE) and not isinstance(value, (*_CONTAINERS, type))


def _is_dictionary_of(holder: object, value: Any) -> bool:
    # Where the attributes of an object are, or a copy of locals, if not in the object itself.
    return _is_dict(value) and not _is_dict(holder) and len(value) < _MANY


def _is_dict(value: Any) -> TypeGuard[dict[Any, Any]]:
    return type(value) is dict


def _count(values: list[Any]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for value in values:
        counts[id(value)] = counts.get(id(value), 0) + 1
    return counts


def _closed(generators: list[Any]) -> list[tuple[Generator, bool]]:
    return [(generator, False) for generator in generators]


# Set for classes that are not part of the interpreter.
_HEAP_TYPE = 1 << 9
# They may be large.
_CONTAINERS = (list, tuple, dict, set, frozenset, deque)
# Elsewhere nobody can tell who holds what. What was abandoned is closed all the same.
_COUNTS_REFERENCES = sys.implementation.name == "cpython"
