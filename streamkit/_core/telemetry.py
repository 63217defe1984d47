"""
What streams report to telemetry: when each begins and how it ends, and nothing of its items.

This package knows the moments, but no library that records them. An object that knows one is given
as ``telemetry``, and is asked for a stage. Without it, nothing is paid and nothing else is
imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeAlias

from .outcome import Outcome
from .stage import Stage

#: What a returning reader finds: nothing that it has missed, all that it has missed, or less.
Resumed: TypeAlias = Literal["live", "log", "gap"]


class RunTold(Protocol):
    """What a run reports. Called in the task of the run; none of it blocks or raises."""

    def begin(self) -> None:
        """A run is about to be created, and goes on here from now on."""
        ...

    @property
    def note(self) -> Mapping[str, str]:
        """What to keep with the run, for readers and those who bury it elsewhere."""
        ...

    def start(self) -> None:
        """The source is about to start."""
        ...

    def end(self, outcome: Outcome, *, fenced: bool = False) -> None:
        """The run has ended. The first call counts."""
        ...

    def close(self) -> None:
        """Nothing more will be told."""
        ...


class RunsTold(Protocol):
    """What all runs of a program report. None of it blocks or raises."""

    def run(self, source_name: str) -> RunTold:
        """Return the hooks of a run that is about to be created."""
        ...

    def read(self, note: Mapping[str, str]) -> None:
        """A run is being read in the current task."""
        ...

    def resumed(self, note: Mapping[str, str], found: Resumed) -> None:
        """A reader has come back."""
        ...

    def buried(self, note: Mapping[str, str], seconds: float, items: int) -> None:
        """A run was lost: how long it went on, and how many of its items are left."""
        ...


class Hooks(Protocol):
    """The hooks that a telemetry has."""

    def stage(
        self,
        name: str | None,
        scope: Mapping[str, Any] | None,
        told: Callable[[], BaseException | None] | None,
    ) -> Stage[Any, Any]:
        """
        Return a stage that reports on one stream.

        :param name: the name of the stream, if the hooks have none; ``None`` for that of its source
        :param scope: the scope of the request
        :param told: returns what the stream has told its client, if its outcome does not say it

        """
        ...

    def runs(self, held: Callable[[], int]) -> RunsTold:
        """
        Return the hooks for runs.

        :param held: returns how many items are not in the log yet, from any thread

        """
        ...


class Telemetry:
    """
    Receives how streams go: a :class:`~streamkit.opentelemetry.OpenTelemetry`, for instance.

    Given as ``telemetry`` to a response, to a :class:`~streamkit.asgi.StreamHost` for all responses
    of an application, or to :class:`~streamkit.runs.Runs`.
    """

    def __init__(self, hooks: Hooks) -> None:
        #: The hooks.
        self.hooks: Hooks = hooks


def check_telemetry(given: object) -> None:
    """
    Check what is given as ``telemetry``.

    :raises TypeError: if it is not a telemetry

    """
    if given is not None and not isinstance(given, Telemetry):
        raise TypeError(
            f"telemetry must be a Telemetry, got {type(given).__qualname__}: write "
            "telemetry=OpenTelemetry('chat'), with the class from streamkit.opentelemetry"
        )
