"""
What streams tell those who count them: when each begins and how it ends, and nothing of its items.

This package knows when that is, and no library that takes it: what knows one is given as
``telemetry``, and is asked for a stage. So nothing is paid for where nothing is given, and nothing
else is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeAlias

from .outcome import Outcome
from .stage import Stage

#: What a reader that comes back finds: nothing that it has missed, what it has missed, or less.
Resumed: TypeAlias = Literal["live", "log", "gap"]


class RunTold(Protocol):
    """What a run tells. Called in the task of the run; none of it blocks or raises."""

    def begin(self) -> None:
        """Take note of a run that is to be created, and is what goes on here from now on."""
        ...

    @property
    def note(self) -> Mapping[str, str]:
        """What is to be kept with the run, for those who read it or bury it elsewhere."""
        ...

    def start(self) -> None:
        """Take note that the source is to start."""
        ...

    def end(self, outcome: Outcome, *, fenced: bool = False) -> None:
        """Take note of how it ended. What comes first counts."""
        ...

    def close(self) -> None:
        """Take note that nothing more is told."""
        ...


class RunsTold(Protocol):
    """What all runs of a program tell. None of it blocks or raises."""

    def run(self, source_name: str) -> RunTold:
        """Return what a run tells that is to be created."""
        ...

    def read(self, note: Mapping[str, str]) -> None:
        """Take note that a run is read in the current task."""
        ...

    def resumed(self, note: Mapping[str, str], found: Resumed) -> None:
        """Take note that a reader has come back."""
        ...

    def buried(self, note: Mapping[str, str], seconds: float, items: int) -> None:
        """Take note that a run was lost, how long it went on and how many items are left of it."""
        ...


class Hooks(Protocol):
    """Where it is told."""

    def stage(
        self,
        name: str | None,
        scope: Mapping[str, Any] | None,
        told: Callable[[], BaseException | None] | None,
    ) -> Stage[Any, Any]:
        """
        Return a stage that tells of one stream.

        :param name: of the stream, if the hooks have none; ``None`` for that of its source
        :param scope: that of the request
        :param told: returns what the stream has told its client of, if its outcome does not say so

        """
        ...

    def runs(self, held: Callable[[], int]) -> RunsTold:
        """
        Return what runs tell.

        :param held: returns how many items are not in the log yet, from any thread

        """
        ...


class Telemetry:
    """
    Where streams tell how they go: a :class:`~streamkit.opentelemetry.OpenTelemetry`, for instance.

    Given as ``telemetry`` to a response, to a :class:`~streamkit.asgi.StreamHost` for all responses
    of an application, or to :class:`~streamkit.runs.Runs`.
    """

    def __init__(self, hooks: Hooks) -> None:
        #: What is called.
        self.hooks: Hooks = hooks


def check_telemetry(given: object) -> None:
    """
    Check what is given as ``telemetry``.

    :raises TypeError: if it is none

    """
    if given is not None and not isinstance(given, Telemetry):
        raise TypeError(
            f"telemetry must be a Telemetry, got {type(given).__qualname__}: write "
            "telemetry=OpenTelemetry('chat'), with the class from streamkit.opentelemetry"
        )
