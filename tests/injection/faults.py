"""What is injected: each fault is done in one go, between two steps of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio

from .record import INNER, SOFT, Record
from .streams import JUMP

Do = Callable[[Record, Any], bool]


@dataclass(frozen=True)
class Fault:
    """
    One kind of fault.

    :ivar do: does it, and tells whether there was anything to do it to
    :ivar asyncio_only: whether trio has no such thing
    :ivar chains: the chains in which it makes sense, or none for all of them

    """

    do: Do
    asyncio_only: bool = False
    consumers: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


def _order(order: str) -> Fault:
    def do(record: Record, clock: Any) -> bool:
        record.order = order
        return True

    return Fault(do)


def _token(record: Record, clock: Any) -> bool:
    return record.token.cancel("the token")


def _at_yield(record: Record, clock: Any) -> bool:
    record.produced_when_asked = len(record.produced)
    return record.token.cancel(SOFT, at_yield=True)


def _end_grace(record: Record, clock: Any) -> bool:
    record.grace_ended_at = anyio.current_time()
    return record.token.end_grace("the end of the grace")


def _inner_token(record: Record, clock: Any) -> bool:
    return record.inner_token.cancel(INNER)


def _scope(name: str) -> Do:
    def do(record: Record, clock: Any) -> bool:
        scope = getattr(record, name)
        if scope is None or scope.cancel_called:
            return False
        scope.cancel()
        return True

    return do


def _native(name: str) -> Do:
    def do(record: Record, clock: Any) -> bool:
        task: asyncio.Task[Any] | None = getattr(record, name)
        # Once the block is left, nothing can be wrong with it any more.
        return task is not None and not record.block_over and task.cancel()

    return do


def _aclose(record: Record, clock: Any) -> bool:
    if not record.entered or record.block_over:
        return False
    record.close_requested.set()
    return True


def _jump(record: Record, clock: Any) -> bool:
    clock.jump(JUMP)
    return True


FAULTS: dict[str, Fault] = {
    "token": Fault(_token),
    "at-yield": Fault(_at_yield),
    "end-grace": Fault(_end_grace),
    "inner-token": Fault(_inner_token, sources=("inner_stream", "inner_chain", "merged_streams")),
    "scope": Fault(_scope("block_scope")),
    "ask-scope": Fault(_scope("ask_scope"), consumers=("patient",)),
    "body-scope": Fault(_scope("body_scope"), consumers=("slow",)),
    "own-scope": Fault(
        _scope("own_scope"), sources=("in_scope", "own_limits", "in_group", "two_deep_holding")
    ),
    "native": Fault(_native("consumer_task"), asyncio_only=True),
    "source-native": Fault(_native("source_task"), asyncio_only=True),
    "break": _order("break"),
    "raise": _order("raise"),
    "stop": _order("stop"),
    "aclose": _order("aclose"),
    "other-aclose": Fault(_aclose),
    "jump": Fault(_jump),
}


def inject(record: Record, name: str, clock: Any) -> None:
    """Do what a fault is, as another task would: it must never raise."""
    as_task = record.closer_task if record.backend != "trio" else None
    loop = asyncio.get_running_loop() if as_task is not None else None
    if loop is not None:
        # A callback is no task. What a task does is another case for a token than what a callback
        # does. (On trio the task is the one whose step comes next.)
        asyncio._enter_task(loop, as_task)
    try:
        done = FAULTS[name].do(record, clock)
    except BaseException as exc:
        record.problem("fault-raises", f"{name}: {exc!r}")
    else:
        if done:
            record.fired.append(name)
            record.note(f"== {name} ==")
    finally:
        if loop is not None:
            asyncio._leave_task(loop, as_task)
