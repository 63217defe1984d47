"""The runs of a program, as a response that reads one of them sees them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from .._core.metadata import Head
from .._sse.profile import Profile
from .cursor import Cursor
from .frames import Frames, Stretch
from .info import RunInfo
from .log import Page
from .reader import ReadAhead


class Readable(Protocol):
    """Runs, as a response sees them."""

    @property
    def is_shut_down(self) -> bool:
        """Whether the program ends: new requests are refused."""
        ...

    async def get(self, run_id: str, *, owner: str | None = None) -> RunInfo:
        """Return what is known of a run."""
        ...

    def entries(
        self,
        ahead: ReadAhead,
        run_id: str,
        *,
        owner: str | None,
        after: Cursor | None,
        until: float,
    ) -> AsyncGenerator[Head | Stretch, None]:
        """Return the status of a run and its entries as they are kept, as :func:`read` does."""
        ...

    async def page(self, run_id: str, after: int) -> Page:
        """Return some of the entries after a position."""
        ...

    def frames(self, run_id: str, epoch: str, profile: Profile, about: Mapping[str, Any]) -> Frames:
        """Return the frames of a run for a kind of client, which all readers share."""
        ...
