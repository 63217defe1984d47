"""Checks of the outcome: it is there, and it says what the consumer saw."""

from __future__ import annotations

from streamkit import Outcome, StreamCancelled, StreamTimeout

from .checks import Problems, check
from .error_checks import leaves
from .record import Record, SourceError, text


@check("outcome-missing")
def _outcome_missing(record: Record) -> Problems:
    if record.entered and record.outcome is None:
        yield "the block is over, and there is no outcome"


@check("on-end")
def _on_end(record: Record) -> Problems:
    """``on_end`` runs once, with the outcome."""
    if record.entered and record.chain == "full":
        told = [outcome.kind for outcome in record.outcomes_told]
        if len(told) != 1:
            yield f"on_end ran {len(told)} times: {told}"
        elif record.outcomes_told[0] is not record.outcome:
            yield f"on_end was told {record.outcomes_told[0]}, but it is {record.outcome}"


@check("outcome-kind")
def _outcome_kind(record: Record) -> Problems:
    """The kind is one that something was a reason for."""
    outcome = record.outcome
    if outcome is not None and not _has_reason(record, outcome):
        yield f"{outcome.kind!r} after {record.fired}, error {text(outcome.error)}"


def _has_reason(record: Record, outcome: Outcome) -> bool:
    match outcome.kind:
        case "completed":
            return record.completed
        case "cancelled":
            return record.fired_any("token", "at-yield", "end-grace", "inner-token", "stop")
        case "timed_out":
            return record.chain == "limited" and (
                record.fired_any("jump") or record.source == "hanging_clean_up"
            )
        case "failed":
            return bool(record.raised) or record.fired_any("source-native")
        case "closed":
            return record.left or record.fired_any("aclose", "other-aclose", "scope", "native")


@check("outcome-items")
def _outcome_items(record: Record) -> Problems:
    """``items`` is the number of those that were handed over."""
    outcome = record.outcome
    if outcome is None:
        return
    received = len(record.received)
    if not received <= outcome.items <= len(record.produced):
        yield f"{outcome.items} items, but {received} received of {len(record.produced)}"
    elif record.saw_end and outcome.items != received:
        yield f"{outcome.items} items, but {received} received up to the end"
    if outcome.beats < record.beats:
        yield f"{outcome.beats} beats, but {record.beats} received"


@check("outcome-stuck")
def _stuck(record: Record) -> Problems:
    """Where a source was when its grace was over is in that source, and said only then."""
    outcome = record.outcome
    if outcome is None:
        return
    if outcome.stuck_at is not None and "/injection/" not in outcome.stuck_at.replace("\\", "/"):
        yield f"the source was in {outcome.stuck_at}"
    # What is merged has places of its own, which its outcome does not tell.
    if outcome.grace_exceeded != (outcome.stuck_at is not None) and not record.is_merged:
        yield f"the grace was exceeded: {outcome.grace_exceeded}, at {outcome.stuck_at}"


@check("clean-end-of-failure")
def _clean_end(record: Record) -> Problems:
    """Nobody sees a clean end of a stream that failed, or of one that was closed half way."""
    outcome = record.outcome
    if outcome is None or not record.saw_end or record.asked_errors:
        return
    if outcome.kind == "failed":
        yield f"the consumer saw the end, and nothing of {text(outcome.error)}"
    elif outcome.kind == "closed" and not record.completed:
        yield "the consumer saw the end of a source that was closed"


@check("outcome-error")
def _outcome_error(record: Record) -> Problems:
    """What an ask raises is what the outcome says."""
    outcome = record.outcome
    if outcome is None:
        return
    said = [
        leaf
        for error in (outcome.error, outcome.cleanup_error)
        if error is not None
        for leaf in leaves(error)
    ]
    for error in record.asked_errors:
        if isinstance(error, StreamCancelled) and outcome.kind != "cancelled":
            yield f"raised {text(error)}, but the outcome is {outcome.kind!r}"
        if isinstance(error, StreamTimeout) and outcome.kind != "timed_out":
            yield f"raised {text(error)}, but the outcome is {outcome.kind!r}"
        if isinstance(error, SourceError) and not any(error is leaf for leaf in said):
            yield f"raised {text(error)}, which the outcome does not have: {outcome}"
