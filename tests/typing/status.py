"""``with_status``. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping
from typing import Literal, assert_type

from streamkit import Head, Outcome, OutcomeKind, StatusStream, Stream, with_keepalive, with_status


class Done:
    """A last item."""


def done(outcome: Outcome) -> Done:
    return Done()


def maybe_done(outcome: Outcome) -> Done | None:
    return Done() if outcome.error is None else None


def none(outcome: Outcome) -> None:
    return None


def a_list(outcome: Outcome) -> list[Done]:
    return [Done()]


def maybe_a_list(outcome: Outcome) -> list[Done] | None:
    return [Done()] if outcome.error is None else None


def a_tuple(outcome: Outcome) -> tuple[Done, ...]:
    return (Done(),)


def an_iterator(outcome: Outcome) -> Iterator[Done]:
    yield Done()


async def too_late(outcome: Outcome) -> Done:
    return Done()


async def take_note(outcome: Outcome) -> int:
    return outcome.items


async def with_head() -> AsyncGenerator[int | Head, None]:
    yield Head(409, {"Retry-After": "5"})
    yield 1


def head_in_the_type_of_the_source(source: AsyncIterable[int | Head]) -> None:
    assert_type(with_status(source), StatusStream[int])
    assert_type(with_status(with_head()), StatusStream[int])
    assert_type(with_status(with_head(), final=done), StatusStream[int | Done])
    # mypy joins several types of items to `object`, unless the variable is declared.
    stream: StatusStream[int | str] = with_status(with_keepalive(with_head(), 15, "beat"))
    del stream


def no_head_in_the_type_of_the_source(source: AsyncIterable[int]) -> None:
    assert_type(with_status(source), StatusStream[int])
    assert_type(with_status(source, first_item_within=5), StatusStream[int])
    assert_type(with_status(source, on_end=take_note, on_end_timeout=1), StatusStream[int])


def no_final(source: AsyncIterable[int]) -> None:
    assert_type(with_status(source, final=None), StatusStream[int])


def final_item(source: AsyncIterable[int]) -> None:
    assert_type(with_status(source, final=done), StatusStream[int | Done])
    assert_type(with_status(source, final=maybe_done), StatusStream[int | Done])
    assert_type(with_status(source, final=lambda _: "[DONE]"), StatusStream[int | str])
    assert_type(with_status(source, final=lambda outcome: outcome.kind), StatusStream[int | str])


def final_items(source: AsyncIterable[int]) -> None:
    assert_type(with_status(source, final=a_list), StatusStream[int | Done])
    assert_type(with_status(source, final=maybe_a_list), StatusStream[int | Done])
    assert_type(with_status(source, final=a_tuple), StatusStream[int | Done])
    assert_type(with_status(source, final=an_iterator), StatusStream[int | Done])


def final_is_async(source: AsyncIterable[int]) -> None:
    # For pyright it is the last item: it is where that is used that it does not fit.
    with_status(source, final=too_late)  # type: ignore[arg-type]
    with_status(source, final=lambda outcome: too_late(outcome))  # type: ignore[arg-type,return-value]


def final_none(source: AsyncIterable[int]) -> None:
    assert_type(with_status(source, final=none), StatusStream[int])


async def head(stream: StatusStream[int]) -> None:
    head = await stream.head()
    assert_type(head, Head)
    assert_type(head.status, int)
    assert_type(head.headers, Mapping[str, str])
    assert_type(head.decided_by, Literal["head", "item", "end", "error", "timeout"])
    async with stream as entered:
        assert_type(entered, StatusStream[int])


def outcome(stream: Stream[int]) -> None:
    outcome = stream.outcome
    assert_type(outcome, Outcome)
    assert_type(stream.ended, bool)
    assert_type(stream.outcome.kind, OutcomeKind)
    assert_type(outcome.kind, OutcomeKind)
    assert_type(outcome.reason, object)
    assert_type(outcome.error, BaseException | None)
    assert_type(outcome.cleanup_error, BaseException | None)
    assert_type(outcome.first_item_at, float | None)
    assert_type(outcome.ended_at, float)
    stream.outcome = outcome  # type: ignore[misc]
    stream.ended = True  # type: ignore[misc]
    outcome.items = 1  # type: ignore[misc]


def wrong_callbacks(source: AsyncIterable[int]) -> None:
    with_status(source, final="[DONE]")  # type: ignore[call-overload]
    with_status(source, on_end=done)  # type: ignore[arg-type]
