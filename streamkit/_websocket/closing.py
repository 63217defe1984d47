"""
The code and the word with which a socket is closed: they tell the client how its stream has ended.

A browser learns nothing else about the end of a socket, and nothing at all about a status.
"""

from __future__ import annotations

from .._core.outcome import Outcome
from .._http.refusal import Overloaded
from .._signals.shutdown import Shutdown

# The codes are those of RFC 6455, and of the IANA registry that it created.
DONE = 1000
GOING_AWAY = 1001
REFUSED = 1008
FAILED = 1011
#: The code of a server that restarts.
RESTART = 1012
LATER = 1013


def closing_of(outcome: Outcome, *, is_refused: bool, has_failed: bool) -> tuple[int, str]:
    """
    Return the code and the reason with which a socket is closed.

    :param is_refused: whether the source has refused the client
    :param has_failed: whether something has gone wrong that is not in the outcome

    """
    if isinstance(outcome.reason, Shutdown):
        return GOING_AWAY, "shutdown"
    if isinstance(outcome.reason, Overloaded):
        return LATER, "overloaded"
    if outcome.kind == "timed_out":
        return FAILED, "timed_out"
    if outcome.kind == "failed" or has_failed:
        return FAILED, "failed"
    return (REFUSED, "refused") if is_refused else (DONE, outcome.kind)
