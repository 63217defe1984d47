"""Stages that a user writes. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import asynccontextmanager
from typing import assert_type

from streamkit import (
    SKIP,
    Control,
    Outcome,
    Skip,
    Stage,
    Stream,
    Timer,
    with_stage,
    with_status,
)


class Text(Stage[int, str]):
    """Overrides every hook."""

    def on_item(self, item: int) -> str | Skip:
        return str(item) if item else SKIP

    def on_beat(self, beat: object) -> object:
        return beat

    def on_open(self, control: Control) -> None:
        assert_type(control.now(), float)
        assert_type(control.timer(self.on_close), Timer)

    def on_close(self) -> None: ...

    @asynccontextmanager
    async def lifespan(self, control: Control) -> AsyncGenerator[None, None]:
        assert_type(control.cancel("stop", grace=5), bool)
        assert_type(control.beat("beat"), bool)
        assert_type(control.waiting_since, float | None)
        assert_type(control.outcome, Outcome | None)
        yield

    async def run(self, control: Control) -> None:
        control.fail(ValueError())

    async def on_end(self, outcome: Outcome) -> None:
        assert_type(outcome.items, int)

    def final(self, outcome: Outcome) -> Iterable[str] | None:
        return ["last"]


class Audit(Stage[object, str]):
    """Takes items of any type."""


class Nothing(Stage[int, int]):
    """Overrides no hook."""


def with_text(source: AsyncIterable[int]) -> Stream[str]:
    return with_stage(source, Text())


def stages(source: AsyncIterable[int], stream: Stream[int]) -> None:
    assert_type(with_stage(source, Text()), Stream[str])
    assert_type(with_stage(stream, Text()), Stream[str])
    assert_type(with_stage(source, Nothing()), Stream[int])
    assert_type(with_stage(with_stage(source, Nothing()), Text()), Stream[str])
    with_stage(with_stage(source, Audit()), Audit())
    with_status(with_text(source))


def wrong_stages(source: AsyncIterable[str]) -> None:
    with_stage(source, Text())  # type: ignore[misc]
    with_stage(source, Text)  # type: ignore[arg-type]
    with_stage(source, len)  # type: ignore[arg-type]
