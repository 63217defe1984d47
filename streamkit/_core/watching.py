"""
Who watches a source: nobody, except in tests.

A relay that looks where its source waits costs far more than one that does not. So it is another
class, and it is made only in the streams that are opened in a context in which somebody watches,
and in the streams inside of their sources.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from .relay import Relay
from .scopes import Scopes
from .source import Source
from .stepping import Steps


class Watcher(Protocol):
    """Makes the relay of a source that is watched, in the source task."""

    def __call__(
        self,
        kind: type[Relay],
        scopes: Scopes,
        consumer: object,
        source: Source[object],
        steps: Steps,
    ) -> Relay: ...


watcher: ContextVar[Watcher | None] = ContextVar("streamkit_watcher", default=None)
