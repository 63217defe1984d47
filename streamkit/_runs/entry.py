"""An entry: one item of a run, and where it is."""

from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Entry(NamedTuple, Generic[T]):
    """One item of a run, at its position. It cannot be changed."""

    # A tuple, because it is made for each item and each reader, and a frozen dataclass takes twice
    # as long to make.

    #: 1 for the first item of the run, 2 for the second, without a hole.
    position: int
    item: T
    #: A random name that distinguishes its run from others of the same id.
    epoch: str

    @property
    def cursor(self) -> str:
        """What to attach with to go on after this entry: text for an ``id:``, opaque to clients."""
        return f"{self.epoch}:{self.position}"
