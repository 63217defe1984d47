"""What stands between a source and its consumer, as the source task knows it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, Final, Literal, Protocol, TypeAlias

from .outcome import Outcome


class _Skip(Enum):
    SKIP = "SKIP"


#: Returned by :meth:`Stage.on_item` for an item that the consumer should not receive.
SKIP: Final = _Skip.SKIP
Skip: TypeAlias = Literal[_Skip.SKIP]


class Pipeline(Protocol):
    """The stages of a stream, to the pump."""

    def transform(self, item: Any) -> Any:
        """Return the item as the consumer receives it, or :data:`SKIP`."""
        ...

    @property
    def is_transparent(self) -> bool:
        """Whether it leaves every item as it is."""
        ...

    async def end(self, outcome: Outcome) -> None:
        """Run the hooks that run once the source is closed."""
        ...

    def final(self, outcome: Outcome) -> Iterable[Any] | None:
        """Return the items to hand over last; they replace an error. ``None``: there are none."""
        ...
