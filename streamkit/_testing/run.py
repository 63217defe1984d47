"""One run, as its check sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from .._core.outcome import Outcome
from .backend import Backend

Kind: TypeAlias = Literal["stop", "cancel", "native", "leave", "error", "close", "timeout"]

#: The kinds of interruptions, and those that apply to an async function that is not a source.
KINDS: tuple[Kind, ...] = ("stop", "cancel", "native", "leave", "error", "close", "timeout")
OF_FUNCTIONS: tuple[Kind, ...] = ("cancel", "native")


class ConsumerError(Exception):
    """The error that the consumer raises in an interruption of the kind ``"error"``."""


@dataclass
class Run:
    """
    One run of a source or of an async function, interrupted at one point.

    It is given to ``check`` when the block of the stream has been left, or the function has ended.
    """

    #: The kind of its interruption, or ``None``: the undisturbed run is checked, too.
    kind: Kind | None
    #: ``"asyncio"`` or ``"trio"``.
    backend: Backend
    #: Where it was asked to stop, as ``"file:line#n"``, for the n-th wait there, or ``None``.
    asked_at: str | None = None
    #: Where that arrived, as ``"file:line"``: another place, if the wait was over or shielded.
    arrived_at: str | None = None
    #: Whether it was told before it ended: by :exc:`~streamkit.StreamCancelled`, by the backend's
    #: own cancellation, or by ``GeneratorExit``.
    told: bool = False
    #: What the consumer received.
    items: list[Any] = field(default_factory=list[Any])
    #: What it receives without an interruption.
    undisturbed: list[Any] = field(default_factory=list[Any])
    #: How the stream ended, or ``None`` for a function.
    outcome: Outcome | None = None
    #: The exception in the consumer, or in the caller of the function.
    error: BaseException | None = None
    #: What the function returned.
    result: Any = None

    def __str__(self) -> str:
        if self.kind is None:
            return f"undisturbed ({self.backend})"
        return f"{self.kind} at {self.asked_at} ({self.backend})"
