"""What a suspended generator iterates, and what of it nobody else holds (scenarios Y)."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, nullcontext
from typing import Any, Self

import pytest

from streamkit._core import chain as chain_module
from streamkit._core.chain import Chain
from streamkit._core.frames import _loops_on, held_by, open_loops

# What is only read here is left to the event loop.
pytestmark = pytest.mark.allow_gc_generators


class Iterates:
    """An async iterator of a library, with something in it."""

    def __init__(self, inner: Any = None) -> None:
        self.inner = inner

    def __aiter__(self) -> Iterates:
        return self

    async def __anext__(self) -> int:
        return await anext(self.inner)


class Holds:
    """An object that is no iterator."""

    def __init__(self, inner: Any = None) -> None:
        self.inner = inner


async def numbers() -> AsyncGenerator[int, None]:
    for number in range(10):
        yield number


async def over(items: AsyncIterator[int]) -> AsyncGenerator[int, None]:
    async for item in items:
        yield item


def names(generators: list[Any]) -> list[str]:
    return [getattr(each, "__name__", type(each).__name__) for each in generators]


def everything(_: object) -> bool:
    return True


async def closed(*generators: Any) -> None:
    for generator in generators:
        await generator.aclose()


class TestOrder:
    async def test_a_loop_in_a_body_that_is_left_before_it(self) -> None:
        """Y2: generators with loops below a context, next to others: each in its place."""

        async def inner(name: str) -> AsyncGenerator[int, None]:
            async for _ in numbers():
                with nullcontext(name):
                    yield 1

        async def outer() -> AsyncGenerator[int, None]:
            async for _ in inner("first"):
                async for item in inner("second"):
                    yield item

        generator = outer()
        await anext(generator)
        chain = Chain([generator], [], everything)
        # After one that is closed comes what it iterates below a context.
        assert names(chain.to_close(generator)) == [*["inner", "numbers"] * 2, "outer"]
        del chain
        told = Chain([generator], [], everything).to_tell(generator)
        assert [(each.__name__, is_told) for each, is_told in told] == [
            ("inner", True),
            ("inner", False),
            ("numbers", False),
        ]
        del told
        await closed(generator)

    async def test_twice(self) -> None:
        """Y1: what is found in two ways is closed once."""
        inner = numbers()
        await anext(inner)
        generator = over(Iterates(inner))
        held = Iterates(Holds(inner))
        del inner
        await anext(generator)
        chain = Chain([generator], [held], everything)
        assert names([*chain.to_close(generator), *chain.to_close(held)]) == [
            "numbers",
            "over",
            "Iterates",
        ]
        del chain
        await closed(generator)

    def test_from_python_3_14_on(self) -> None:
        """Y2: an iterator that is entered as well is there twice from Python 3.14 on."""

        class Entered(Iterates):
            async def __aenter__(self) -> Self:
                return self

            async def __aexit__(self, *args: object) -> None:
                pass

        first, second = Iterates(), Entered()
        assert _loops_on([Entered.__aexit__, second, first]) == [(first, False)]
        assert _loops_on([first, Entered.__aexit__, second]) == [(first, True)]
        assert _loops_on([second.__aexit__, second]) == [(second, False)]
        assert _loops_on([]) == []


class TestHeldBySomebodyElse:
    async def test_attributes(self) -> None:
        """Y8: found one and two attributes deep, no deeper, if nobody holds what is between."""

        class Deep(Iterates):
            async def __anext__(self) -> int:
                inner = self.inner
                while isinstance(inner, Holds):
                    inner = inner.inner
                return await anext(inner)

        def one(inner: Any) -> Any:
            return Deep(inner)

        def two(inner: Any) -> Any:
            return Deep(Holds(inner))

        def three(inner: Any) -> Any:
            return Deep(Holds(Holds(inner)))

        for make, expected in (one, 2), (two, 2), (three, 1):
            iterator = make(numbers())
            generator = over(iterator)
            await anext(generator)
            assert len(Chain([generator], [], everything).to_close(generator)) == 1
            del iterator
            assert len(Chain([generator], [], everything).to_close(generator)) == expected
            await closed(generator)

    async def test_attributes_of_what_is_inside(self) -> None:
        """Y8: objects of libraries, each with a generator inside that iterates the next one."""

        class Deep(Iterates):
            async def __anext__(self) -> int:
                return await anext(self.inner.inner)

        generator: Any = numbers()
        for _ in range(4):
            generator = over(Deep(Holds(generator)))
        await anext(generator)
        assert len(Chain([generator], [], everything).to_close(generator)) == 5
        await closed(generator)

    async def test_what_they_hold_is_theirs(self) -> None:
        """Y4: somebody holds one in the middle: what is inside of that is theirs as well."""
        middle = over(numbers())
        generator = over(over(middle))
        await anext(generator)
        assert len(Chain([generator], [], everything).to_close(generator)) == 2
        del middle
        assert len(Chain([generator], [], everything).to_close(generator)) == 4
        await closed(generator)

    async def test_what_is_given(self) -> None:
        """Y4: what was handed over is nobody else's, whoever has a name for it."""
        given = Iterates(numbers())
        generator = over(given)
        await anext(generator)
        assert len(Chain([generator], [], everything).to_close(generator)) == 1
        assert len(Chain([generator], [given], everything).to_close(generator)) == 2
        await closed(generator)

    async def test_aclosing(self) -> None:
        """Y6: what aclosing() holds is held by the frame that it is in."""

        async def source() -> AsyncGenerator[int, None]:
            async with aclosing(numbers()) as items:
                async for item in items:
                    yield item

        generator = source()
        await anext(generator)
        chain = Chain([generator], [], everything)
        assert names(chain.to_close(generator)) == ["numbers", "source"]
        del chain
        await closed(generator)

    async def test_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Y4: so much hangs on it that not all is looked at: then it counts as somebody's."""
        generator = over(over(over(numbers())))
        await anext(generator)
        monkeypatch.setattr(chain_module, "_LIMIT", 2)
        assert len(Chain([generator], [], everything).to_close(generator)) == 2
        await closed(generator)

    async def test_only_some_are_ours(self) -> None:
        """Y4: one that may not be closed is left alone, with all that it iterates."""
        foreign = over(numbers())
        generator = over(foreign)
        await anext(generator)
        address = id(foreign)
        del foreign
        chain = Chain([generator], [], lambda each: id(each) != address)
        assert names(chain.to_close(generator)) == ["over"]
        del chain
        await closed(generator)


class TestReading:
    async def test_leaves_no_trace(self) -> None:
        """Y1: reading a frame keeps nothing alive: not what its locals were at that time."""

        class Thing:
            pass

        async def source() -> AsyncGenerator[int, None]:
            thing: Any = Thing()
            yield 1
            del thing
            yield 2

        generator = source()
        await anext(generator)
        assert open_loops(generator, held_by(generator)) == []
        gc.collect()
        before = [each for each in gc.get_objects() if type(each) is Thing]
        assert len(before) == 1
        del before
        await anext(generator)
        assert [each for each in gc.get_objects() if type(each) is Thing] == []
        await closed(generator)

    async def test_locals_stay_as_they_were(self) -> None:
        """Y1: a generator that has called locals() keeps what it got, and no cycle is made."""

        async def source() -> AsyncGenerator[Any, None]:
            first = 1
            mine = locals()
            second = 2
            yield mine
            yield (first, second)

        generator = source()
        mine = await anext(generator)
        assert mine == {"first": 1}
        assert open_loops(generator, held_by(generator)) == []
        assert mine == {"first": 1}
        await closed(generator)

    async def test_cells(self) -> None:
        """Y1: what a nested function uses is in a cell: the loop over it is seen all the same."""

        async def source(items: Any) -> AsyncGenerator[int, None]:
            def use() -> Any:
                return items

            async for item in items:
                yield item
                use()

        generator = source(numbers())
        await anext(generator)
        ((loop, is_covered),) = open_loops(generator, held_by(generator))
        assert (names([loop]), is_covered) == (["numbers"], False)
        del loop
        await closed(generator)

    async def test_ended(self) -> None:
        """Y1: one that has ended holds nothing."""
        generator = over(numbers())
        await closed(generator)
        assert held_by(generator) == []
        assert Chain([generator], [], everything).to_close(generator) == [generator]
