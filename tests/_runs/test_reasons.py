"""Reasons and outcomes, from one process to another."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from streamkit import Left, PollFailed, TimedOut
from streamkit._runs.reasons import (
    decode_outcome,
    decode_reason,
    encode_outcome,
    encode_reason,
)
from streamkit.asgi import Shutdown
from streamkit.runs import MAX_REASON, Fenced, LogFull, LogLost, RunOutcome, Unwatched


@pytest.mark.parametrize(
    "reason",
    [
        None,
        "",
        "stop",
        "\u00fc",
        Fenced(),
        Left(),
        LogLost(),
        Shutdown(),
        Unwatched(),
        TimedOut("idle", 3.5),
    ],
)
def test_rebuilt(reason: object) -> None:
    """Text, and streamkit's own reasons, are what they were."""
    assert decode_reason(encode_reason(reason)) == reason


def test_rebuilt_with_an_error() -> None:
    """Of an error in a reason, the name of its class is told."""
    failed = decode_reason(encode_reason(PollFailed(3, ConnectionError("secret"))))
    assert isinstance(failed, PollFailed)
    assert failed.errors == 3
    assert "ConnectionError" in str(failed)
    assert "secret" not in str(failed)
    assert isinstance(decode_reason(encode_reason(LogFull("of secrets"))), LogFull)


class Mine:
    """A reason of a user's."""


class Shutdown_:
    """Not streamkit's, whatever it is called."""


Shutdown_.__name__ = "Shutdown"


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (Mine(), "Mine"),
        (Shutdown_(), "Shutdown_"),
        (17, "int"),
        ("x" * 5000, "x" * MAX_REASON),
        ("\u00fc" * 2049, "\u00fc" * 2048),
        ("a" + "\u00fc" * 2048, "a" + "\u00fc" * 2047),
        ("\ud800", "?"),
    ],
)
def test_told_as_text(reason: object, told: str) -> None:
    """Any other is told as the name of its class, and text that is too long is cut."""
    assert decode_reason(encode_reason(reason)) == told


def test_of_a_later_release() -> None:
    """A reason that this release does not know is told by its name."""
    assert decode_reason(b'{"is":"Tired"}') == "Tired"


def test_outcome() -> None:
    """An outcome is what it was, and nothing of an error but its class."""
    outcome = RunOutcome(kind="cancelled", reason=Fenced(), grace_exceeded=True, ended_at=12.5)
    assert decode_outcome(encode_outcome(outcome)) == outcome
    failed = RunOutcome(kind="failed", error="ValueError", ended_at=0.0)
    assert decode_outcome(encode_outcome(failed)) == failed


def test_outcome_with_a_reason_without_a_copy() -> None:
    """A reason of a user's may be any object, even one that cannot be copied."""
    outcome = RunOutcome(kind="cancelled", reason=threading.Lock(), ended_at=12.5)
    assert decode_outcome(encode_outcome(outcome)) == replace(outcome, reason="lock")


@pytest.mark.parametrize("reason", [Fenced(), LogLost(), Unwatched(), LogFull(), LogFull("why")])
def test_says_what_happened(reason: object) -> None:
    """Each reads as a sentence."""
    assert str(reason)
