"""``BROWSER``: for ``EventSource``, which reconnects after any end that it is not told of."""

from __future__ import annotations

import random

from .._core.outcome import OutcomeKind
from .events import MAX_RETRY, ServerSentEvent
from .json import to_json
from .profile import Profile

# Milliseconds until a client reconnects after a shutdown: they should not all come at once.
_SOON = (1000, 5000)


def _tail(kind: OutcomeKind, message: str) -> list[ServerSentEvent]:
    ending = {"kind": kind} if kind == "completed" else {"kind": kind, "message": message}
    return [ServerSentEvent(to_json(ending), event="end", retry=MAX_RETRY)]


def _shutdown(message: str) -> list[ServerSentEvent]:
    ending = {"kind": "shutdown", "message": message}
    return [ServerSentEvent(to_json(ending), event="end", retry=random.randint(*_SOON))]


def _resync(first: int, last: int) -> list[ServerSentEvent]:
    return [ServerSentEvent(to_json({"first": first, "last": last}), event="resync")]


def _gone(message: str) -> list[ServerSentEvent]:
    ending = {"kind": "gone", "message": message}
    return [ServerSentEvent(to_json(ending), event="end", retry=MAX_RETRY)]


#: For ``EventSource`` in a browser or in Node.js, and for ``fetch`` with a parser of events.
#:
#: The last event has the name ``end`` for every kind of end, and as its data
#: ``{"kind": "completed"}``, or ``"cancelled"``, ``"timed_out"`` or ``"failed"`` with a
#: ``"message"``. A page closes its source there. A page that does not would connect again after
#: any end, and start the run anew, so the event also says to wait for some 24 days before that. (It
#: is not named ``error``: ``EventSource`` has an event of that name, for a lost connection.)
#:
#: A stream that is ended by a shutdown has the kind ``"shutdown"``, and the advice to wait for one
#: to five seconds: a page that does not close its source comes back then. An ``EventSource`` never
#: comes back after a status like 503, so its ``errors`` are events.
#:
#: In a run, a page may also receive ``resync``, with ``{"first": ..., "last": ...}``: items are
#: missing, and the kept ones follow. An end of the kind ``"gone"`` says that there is no such run.
BROWSER = Profile(
    "BROWSER",
    tail=_tail,
    shutdown=_shutdown,
    errors="event",
    resync=_resync,
    gone=_gone,
    reconnects=True,
)
