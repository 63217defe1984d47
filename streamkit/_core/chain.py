"""
Which generators a suspended generator iterates, and which of them nobody else holds.

This is looked up only when a source is told or closed. Reference counts tell whether somebody else
holds something: every reference that was not seen here is somebody else's.

With ``yield from`` in async generators (PEP 828, Python 3.16), a generator will itself close what
it delegates to, and the interpreter closes the chain. This is for ``async for``.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import MethodType
from typing import Any, TypeAlias

from .frames import (
    Generator,
    count,
    has_attributes,
    held_by,
    is_async_iterator,
    is_dictionary_of,
    is_generator,
    open_loops,
)

#: Tells whether a generator is ours to close.
IsOurs: TypeAlias = Callable[[Generator], bool]

# At most this many attributes lie between an iterator of a library and the generator inside it.
_DEPTH = 2
# At most this many objects are looked at. The limit is reached if a local leads to half of an
# application. Then anything uncertain counts as somebody else's.
_LIMIT = 1000


class Chain:
    """
    The objects that some suspended generators, frames or library iterators lead to.

    It holds everything that it has seen: drop it before any of that runs.

    :param roots: where to begin
    :param given: objects that nobody else holds either
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
            # Attributes matter only if a library iterates, or if something seems to be held by
            # somebody else. In most chains, neither is the case.
            if any(map(self._is_open_question, self._values())):
                self._look(_DEPTH)
                self._ours = self._held_by_nobody_else()

    def inner(self, holder: object) -> list[tuple[Generator, bool]]:
        """
        Return the generators that a holder iterates, the innermost first.

        :return: each with whether the body of its loop holds a context: that must be left before
            the loop, so the body is unwound first

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
        """Return what to close in place of a holder, in order. The holder is among them."""
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

        :return: each generator, the innermost first, with whether it is told or only closed: the
            signal goes through the loop that contains the ``yield``, as it would at an ``await``

        """
        order: list[tuple[Generator, bool]] = []
        for generator, is_covered in self.inner(holder):
            if is_covered:
                break
            if order:
                order += [(each, False) for each in self.to_close(generator)]
            else:
                order += [*self.to_tell(generator), (generator, True)]
        return order

    def held_by_frames(self) -> list[Generator]:
        """Return the generators in the locals of the roots, which are frames that have ended."""
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
        """Find the generators among the attributes of a library's iterator."""
        for value in self._held.get(id(holder), ()):
            if id(value) in self._ours:
                if is_generator(value):
                    yield value
                elif is_dictionary_of(holder, value):
                    yield from self._inside(value, depth)
                elif depth > 1:
                    yield from self._inside(value, depth - 1)

    def _look(self, limit: int) -> None:
        """Note what is held by the generators, and by the attributes of what they hold."""
        todo = deque((root, 0) for root in [*self._roots, *self._given])
        depths: dict[int, int] = {}
        while todo and len(depths) < _LIMIT:
            holder, depth = todo.popleft()
            if depths.get(id(holder), limit + 1) <= depth:
                continue
            depths[id(holder)] = depth
            if id(holder) not in self._held:
                self._held[id(holder)] = held_by(holder)
            for value in self._held[id(holder)]:
                if is_generator(value):
                    if self._is_ours(value):
                        # Before anything else, in case the limit is reached.
                        todo.appendleft((value, 0))
                elif depth < limit and has_attributes(value):
                    todo.append((value, depth + 1))
                elif type(value) is MethodType or is_dictionary_of(holder, value):
                    todo.append((value, depth))

    def _values(self) -> list[Any]:
        return [value for held in self._held.values() for value in held]

    def _is_open_question(self, value: Any) -> bool:
        if is_generator(value):
            return id(value) not in self._ours and self._is_ours(value)
        return is_async_iterator(value)

    def _held_by_nobody_else(self) -> set[int]:
        """Return what is held only by the roots and by each other."""
        roots = {id(root) for root in [*self._roots, *self._given]}
        values = self._values()
        listed = count(values)
        seen = list({id(value): value for value in values if id(value) in self._held}.values())
        del values
        # The last object is held by this list alone.
        *totals, only_seen = map(sys.getrefcount, [*seen, object()])
        holds = {
            # It is in both lists.
            id(value): total - only_seen - 1 - listed[id(value)]
            for value, total in zip(seen, totals, strict=True)
            if id(value) not in roots
        }
        ours = set(holds)
        others = {key for key in ours if holds[key] != listed[key]}
        while others:
            ours -= others
            # So what these hold is held by somebody else, too, and so on.
            holders = (ours | roots) & self._held.keys()
            known = count([value for key in holders for value in self._held[key]])
            others = {key for key in ours if holds[key] != known.get(key)}
        return ours


# Other interpreters cannot tell who holds what. There, abandoned generators are still closed.
_COUNTS_REFERENCES = sys.implementation.name == "cpython"
