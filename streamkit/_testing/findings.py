"""
What is wrong with a run, besides what the user's check says: a list of small checks.

Each says what is wrong, and names its cause, a line or a name. Wherever the runs were interrupted,
findings with the same cause are one fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .places import Place, name_of, text_of
from .points import Point
from .record import Fault, Record


@dataclass(frozen=True)
class Finding:
    """
    What is wrong with a run.

    :ivar what: the text
    :ivar cause: the same for all findings of one fault
    :ivar names: the names by which it can be ignored
    """

    what: str
    cause: str
    names: tuple[str, ...] = ()


@dataclass
class Undisturbed:
    """
    What the undisturbed runs have in common.

    :ivar records: the record of each
    """

    records: list[Record]

    @property
    def items(self) -> list[Any]:
        """What the consumer receives."""
        return self.records[0].run.items

    @property
    def order(self) -> str:
        """What can be said of the items: ``"same"``, ``"any"`` or ``"different"``."""
        lists = [record.run.items for record in self.records]
        if all(items == lists[0] for items in lists):
            return "same"
        same_ones = all(
            _is_within(items, lists[0]) and len(items) == len(lists[0]) for items in lists
        )
        return "any" if same_ones else "different"

    @property
    def left(self) -> Counter[str]:
        """The most that any of them has left."""
        left: Counter[str] = Counter()
        for record in self.records:
            left |= Counter(record.left)
        return left

    @property
    def cancelled_at(self) -> frozenset[Point]:
        """Where any of them cancels itself."""
        return frozenset(point for record in self.records for point in record.cancelled_at)

    @property
    def errors(self) -> set[str]:
        """What they raise without an interruption."""
        return {str(r.unexpected) for r in self.records if r.unexpected is not None}


def findings(record: Record, undisturbed: Undisturbed) -> Iterator[Finding]:
    """Yield what is wrong with an interrupted run. A fault that causes others stands alone."""
    if record.stuck_at is not None:
        yield Finding(
            f"does not end{_after(record)}: it goes on at {_where(record.stuck_at)}",
            f"stuck {_where(record.stuck_at)}",
        )
        return
    if record.check_error is not None:
        yield of_check(record.check_error)
    if record.teardown_error is not None:
        fault = record.teardown_error
        yield Finding(f"what make gave does not close: {fault}", f"teardown {fault.at}")
    swallowed = record.swallowed_at
    if swallowed is not None and not record.let_out:
        yield Finding(
            f"swallows it, and goes on at {_where(swallowed)}", f"swallowed {_where(swallowed)}"
        )
    elif record.goes_on(undisturbed.items):
        cause = f"swallowed {record.run.arrived_at}"
        yield Finding("swallows it, and goes on with the next item", cause)
    elif record.has_returned and not record.let_out:
        cause = f"swallowed {record.run.arrived_at}"
        yield Finding("swallows it: returns as if nothing had happened", cause)
    if record.cut_at is not None:
        at = record.cut_at
        yield Finding(f"is cut when its time to clean up is over, at {at}", f"grace {at}")
    yield from _errors(record, undisturbed)
    yield from _items(record, undisturbed)
    yield from _left(record, undisturbed)


def of_check(fault: Fault) -> Finding:
    """Return the finding of a check that has raised."""
    text = fault.text if fault.is_assertion else str(fault)
    if not text:
        text = "assert failed" if fault.at is None else f"assert failed: {text_of(fault.at)}"
    return Finding(text, f"check {fault.at} {fault.name}", (fault.name,))


def of_undisturbed(undisturbed: Undisturbed) -> Iterator[Finding]:
    """Yield what is wrong even where nothing interrupts it."""
    for record in undisturbed.records:
        if record.stuck_at is not None:
            yield Finding(f"does not end: it waits at {_where(record.stuck_at)}", "stuck")
            return
        if record.check_error is not None:
            yield of_check(record.check_error)
            break
    yield from _of_left(undisturbed.left.keys())


def _errors(record: Record, undisturbed: Undisturbed) -> Iterator[Finding]:
    fault = record.unexpected
    if fault is not None and str(fault) not in undisturbed.errors:
        where = "" if fault.at is None else f" at {name_of(fault.at)}"
        yield Finding(f"raises {fault}{where}", f"raises {fault.at} {fault.name}", (fault.name,))
    if record.has_lost_error:
        yield Finding("loses the error of the consumer", "lost error")


def _items(record: Record, undisturbed: Undisturbed) -> Iterator[Finding]:
    before = record.run.items[: record.made_before]
    whole = undisturbed.items
    order = undisturbed.order
    if order == "different":
        return
    is_right = before == whole[: len(before)] if order == "same" else _is_within(before, whole)
    if not is_right:
        yield Finding(f"has given {before}, and gives {whole} if nothing interrupts it", "items")


def _left(record: Record, undisturbed: Undisturbed) -> Iterator[Finding]:
    yield from _of_left((Counter(record.left) - undisturbed.left).keys())


def _of_left(names: Iterable[str]) -> Iterator[Finding]:
    for name in sorted(names):
        # Both ends of a stream are one cause.
        cause = name.replace("SendStream", "Stream").replace("ReceiveStream", "Stream")
        yield Finding(f"leaves behind: {name}", f"left {cause}", (name, name.rpartition(" ")[2]))


def _is_within(items: list[Any], others: list[Any]) -> bool:
    rest = list(others)
    for item in items:
        if item not in rest:
            return False
        rest.remove(item)
    return True


def _after(record: Record) -> str:
    return " after that" if record.was_told else ""


def _where(place: Place) -> str:
    return name_of(place.spot)
