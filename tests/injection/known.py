"""What the engine is known to do wrong: each check with the reason, until it is put right."""

from __future__ import annotations

KNOWN: dict[str, str] = {
    # One rule for the end: a blocked source whose consumer leaves is told natively.
    "told-natively": "a blocked source sees the backend's own when its consumer leaves",
    "clean-up-lost": "and has no grace then",
    "clean-end-of-failure": "a consumer that stays asks a stream that is closed, and sees an end",
    # No generator left behind.
    "generator-left": "inner generators are left to the backend when a source is closed at a yield",
    "wrong-task": "which closes them in a task of its own",
    "wrong-context": "and in another context",
    "live-task": "that is still at it when the block is over",
    "loop-error": "and may fail there",
    "clean-up-order": "from the outside in",
    "clean-up-once": "or never",
    "garbage": "or in a collection",
    # Nothing is lost, and nothing is wrapped that is one thing.
    "on-end": "it does not run, or too early, where scopes of an inner generator are left open",
    "outcome-missing": "nor is the outcome written then",
    "strange-error": "scopes of inner generators; cancellations and GeneratorExit as errors",
    "wrapped": "a cancellation and an error make a group, and so does one error",
    "error-lost": "a cancellation while the block is left takes the error of the clean-up away",
}
