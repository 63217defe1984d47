"""Checks of a stop that waits for a yield, and of a grace that is ended by hand."""

from __future__ import annotations

from .checks import Problems, check
from .record import SOFT, Record

#: Sources that yield again when they are told, or go on.
ANSWERING = {"handling", "swallowing", "group_handling"}
#: Those that hold a stream: when it is left, its source is told where it is. Merged ones do, too,
#: and each of them has one item ready.
WITH_STREAMS = {"inner_stream", "inner_chain"}
#: What a shield of a source's own may take, where it has one.
SHIELDED = {"shielded_clean_up", "group_handling", "native_group", "own_limits", "native_task"}
SHIELD = 0.5


@check("went-on")
def _went_on(record: Record) -> Problems:
    """Who is to stop at its yield goes no further than the next one; see a token for one more."""
    asked_at = record.produced_when_asked
    if asked_at is not None and not (record.source in ANSWERING or record.is_merged):
        more = len(record.produced) - asked_at
        if more > 1 + record.fired_any("token", "end-grace", "jump"):
            yield f"yielded {more} items more"


@check("told-in-a-step")
def _told_in_a_step(record: Record) -> Problems:
    """And it is told there, at no ``await``."""
    if not (record.source in WITH_STREAMS or record.is_merged):
        for frame in record.frames:
            if frame.told_at_await and not frame.child:
                yield f"{frame.name} was told {SOFT!r} where it was blocked"


@check("not-cut")
def _not_cut(record: Record) -> Problems:
    """When the grace was ended, whatever was told of it is over, but for shields of its own."""
    # See unbounded for the second. Of several, one may begin later, and has a grace of its own.
    if record.fired_any("jump", "source-native") or record.is_merged:
        return
    end = record.grace_ended_at + (SHIELD if record.source in SHIELDED else 0)
    for frame in record.frames:
        if frame.over_at > end:
            yield f"{frame.name} was over at {frame.over_at}, and should have been at {end}"
