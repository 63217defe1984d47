"""What a source may yield that describes its stream and is not an item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from .arguments import check_header, check_status


class Metadata:
    """
    The base of what a source may yield that describes the stream and is not an item.

    Stages see it in :meth:`Stage.on_metadata`. If none takes it, it is an item like any other.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Head(Metadata):
    """
    The status of a stream, as a source may yield it before its first item.

    It is metadata, not an item: a consumer gets it from :meth:`StatusStream.head`.

    :raises TypeError: if ``status`` is not an ``int``, ``headers`` is not a mapping, or a name or a
        value in it is not text
    :raises ValueError: if ``status`` is not from 200 to 599, or a header cannot be sent

    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    #: What decided it: a ``Head`` from the source, the first ``"item"``, the ``"end"`` of a stream
    #: without items, an ``"error"`` before the first item, or the time that ``first_item_within``
    #: allows for it.
    decided_by: Literal["head", "item", "end", "error", "timeout"] = "head"

    def __post_init__(self) -> None:
        check_status("status", self.status)
        headers: Any = self.headers
        if headers == {}:
            return
        if not isinstance(headers, Mapping):
            raise TypeError(
                f"headers must be a mapping of names to values, got {type(headers).__qualname__}: "
                'write Head(409, {"retry-after": "5"}), for instance'
            )
        for name, value in cast("Mapping[object, object]", headers).items():
            check_header(name, value)
