"""Runs one case, and returns what was noted."""

from __future__ import annotations

import asyncio
import sys
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import trio

from .cases import Case
from .consumers import consume
from .faults import inject
from .loops import live_tasks, run, together
from .record import Record, current_task, text
from .sources import SOURCES
from .steps import Steps
from .streams import STREAMS


def execute(case: Case) -> Record:
    """Run a case on a fresh loop. Whatever goes wrong is in the record."""
    plan: dict[int, list[Any]] = {}
    steps = Steps(plan)
    record = Record(case, steps)
    for name, step in case.faults:
        plan.setdefault(step, []).append(partial(_strike, record, name))
    with listening() as heard:
        try:
            run(
                case.backend,
                partial(_main, case, record),
                steps,
                case.seed,
                partial(record.problem, "loop-error"),
            )
        except BaseException as exc:
            if not steps.hung:
                record.problem("loop-fails", f"{exc!r}, because of {exc.__cause__!r}")
    plan.clear()
    record.problems += heard
    record.problems += [("generator-left", f"collected: {name}") for name in record.abandoned]
    if steps.hung:
        record.problems = [("hang", steps.hung)]
    return record


def _strike(record: Record, name: str) -> None:
    inject(record, name, record.clock)


@contextmanager
def listening() -> Iterator[list[tuple[str, str]]]:
    """Take every warning for a problem, and every error that has nobody else to go to."""
    problems: list[tuple[str, str]] = []

    def on_unraisable(unraisable: Any) -> None:
        problems.append(("unraisable", f"{unraisable.err_msg}: {text(unraisable.exc_value)}"))

    hook, sys.unraisablehook = sys.unraisablehook, on_unraisable
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield problems
    finally:
        sys.unraisablehook = hook
    for warning in caught:
        problems.append(("warning", f"{warning.category.__name__}: {warning.message}"))


async def _main(case: Case, record: Record) -> None:
    before = live_tasks()
    record.clock = _clock()
    record.block_scope = anyio.CancelScope()
    record.close_requested = anyio.Event()
    with _watched_generators(record.abandoned) as started:
        await together(partial(_closer, record), partial(_consumer, case, record, before, started))
        await _let_end(live_tasks() - before)


async def _closer(record: Record) -> None:
    """Be the other task: it closes the stream when it is told to."""
    record.closer_task = current_task()
    await record.close_requested.wait()
    if record.block_over:
        return
    assert record.stream is not None
    try:
        await record.stream.aclose()
    except BaseException as exc:
        record.closer_error = exc


async def _consumer(
    case: Case, record: Record, before: set[Any], started: weakref.WeakSet[Any]
) -> None:
    record.consumer_task = current_task()
    stream = record.stream = STREAMS[case.chain](record, SOURCES[case.source](record))
    record.steps.active = True
    try:
        with record.block_scope:
            await consume(record, stream, case.consumer)
    except BaseException as exc:
        record.block_error = exc
        record.note(f"out of the block: {text(exc)}")
    record.steps.active = False
    record.block_over = True
    record.note("the block is over")
    record.outcome = stream.outcome if stream.ended else None
    if case.backend != "trio":
        record.cancelling = record.consumer_task.cancelling()
    for task in live_tasks() - before - {record.consumer_task, record.closer_task}:
        record.problem("live-task", repr(getattr(task, "name", None) or task.get_coro()))
    for generator in started:
        if generator.ag_frame is not None:
            record.problem("generator-left", f"open: {generator.__qualname__}")
    record.close_requested.set()


async def _let_end(tasks: set[Any]) -> None:
    """Wait for what was left over, so that it does not disturb the next run."""
    if tasks:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(500)


@contextmanager
def _watched_generators(abandoned: list[str]) -> Iterator[weakref.WeakSet[Any]]:
    """Yield the generators that have begun, and name those that are left to the interpreter."""
    started: weakref.WeakSet[Any] = weakref.WeakSet()
    hooks = sys.get_asyncgen_hooks()

    def begin(generator: Any) -> None:
        started.add(generator)
        if hooks.firstiter is not None:
            hooks.firstiter(generator)

    def finalize(generator: Any) -> None:
        abandoned.append(generator.__qualname__)
        if hooks.finalizer is not None:
            with warnings.catch_warnings():
                # trio warns of the same thing.
                warnings.simplefilter("ignore", ResourceWarning)
                hooks.finalizer(generator)

    sys.set_asyncgen_hooks(begin, finalize)
    try:
        yield started
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _clock() -> Any:
    if trio.lowlevel.in_trio_task():
        return trio.lowlevel.current_clock()
    return asyncio.get_running_loop()
