"""The call: what it takes, what it refuses, and how it reports what was found."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Collection
from typing import Any, get_args

from .backend import Backend, Clock, on_trio
from .campaign import Campaign
from .loops import check_installed
from .report import Interrupted, Report
from .run import KINDS, Kind


class UnresolvedWarning(UserWarning):
    """Says that some points were not interrupted, because they wait for real time."""


def interrupt_everywhere(
    make: Callable[[], Any],
    check: Callable[..., Any] | None = None,
    *,
    kinds: Collection[Kind] = KINDS,
    backends: Collection[Backend] = ("asyncio", "trio"),
    clock: Clock = "virtual",
    again: bool = False,
    at: str | None = None,
    seeds: int = 1,
    steps: int = 10_000,
    max_runs: int = 5_000,
    max_seconds: float = 30.0,
    ignore: Collection[str] = (),
) -> Report:
    """
    Interrupt a source at each of its waits, in each way, and check the result.

    A run without interruptions shows the points: each ``await`` at which the source waits, and each
    ``yield``. Then there is one run for each point and each kind, each in an event loop of its own.
    The waits of tasks that the source starts are not points.

    :param make: called for each run, in its event loop: returns a source, a stream or an async
        function, or an async context manager that yields one; either alone, or in a tuple with an
        object for ``check``
    :param check: sync or async, called with the :class:`Run`, and with the object from ``make`` if
        there is one, when the run is over and before anything is torn down. An exception is a
        failure
    :param kinds: ``"stop"``, by a token; ``"cancel"``, by a scope around the consumer;
        ``"native"``, by :meth:`asyncio.Task.cancel`; ``"leave"`` and ``"error"``, by the consumer;
        ``"close"``, by ``aclose()`` from another task; ``"timeout"``, by a limit. Only ``"cancel"``
        and ``"native"`` apply to an async function
    :param backends: ``"asyncio"`` and ``"trio"``
    :param clock: ``"virtual"``: waiting takes no time. ``"real"``: for sources that use threads,
        sockets or processes
    :param again: for the first of ``kinds``, interrupt it a second time, at each point of its
        clean-up
    :param at: only the points with this name, as in a report: ``"answer.py:42#3"``
    :param seeds: how many orders of tasks to try on trio
    :param steps: how often the source may wait after it was told
    :param max_runs: how many runs there may be
    :param max_seconds: real seconds after which no further run begins, and one that still waits
        does not end
    :param ignore: qualified names of tasks, generators, streams and exceptions that are intended
    :return: what was done, and what was left out
    :raises Interrupted: if anything is wrong; an :exc:`AssertionError`
    :raises RuntimeError: in a running event loop
    """
    check_names("kind", kinds, KINDS)
    check_names("backend", backends, get_args(Backend))
    check_names("clock", (clock,), get_args(Clock))
    _check_no_loop()
    for backend in backends:
        check_installed(backend)
    report = Campaign(
        make=make,
        check=check,
        kinds=tuple(kind for kind in KINDS if kind in kinds),
        backends=tuple(backends),
        clock=clock,
        again=again,
        at=at,
        seeds=seeds,
        steps=steps,
        max_runs=max_runs,
        max_seconds=max_seconds,
        ignore=frozenset(ignore),
    ).run()
    _judge(report, at)
    return report


def _judge(report: Report, at: str | None) -> None:
    if at is not None and not report.points:
        raise ValueError(f"there is no point {at!r}: a report has their names")
    if report.failures:
        raise Interrupted(report)
    if report.unresolved:
        warnings.warn("; ".join(report.unresolved), UnresolvedWarning, stacklevel=3)


def check_names(what: str, given: Collection[str], known: Collection[str]) -> None:
    if isinstance(given, str):
        raise TypeError(f"expected several, got {given!r}: write {{{given!r}}}")
    for name in given:
        if name not in known:
            raise ValueError(f"there is no {what} {name!r}: it is one of {', '.join(known)}")


def _check_no_loop() -> None:
    if on_trio() or asyncio._get_running_loop() is not None:
        raise RuntimeError(
            "interrupt_everywhere() runs event loops of its own: call it in a plain function, or "
            "write 'async for case in interruptions(make):'"
        )
