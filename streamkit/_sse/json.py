"""
The JSON of what a source yields.

Besides what ``json`` takes, a fixed list of types is known, each with one form that a client can
read back. Nothing is guessed: a type that is not on the list is refused by its name, and is left to
the ``encoder`` of a profile. No library is imported: an object of a library can only be there if
that library is loaded.

Characters that many readers take for the end of a line, and that JSON leaves raw in text, are
escaped: ``str.splitlines()`` cuts there, and so do line readers built on it, such as
``aiter_lines()`` of httpx.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, time
from decimal import Decimal
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
)
from pathlib import PurePath
from typing import Any, TypeAlias, cast
from uuid import UUID

#: Makes JSON of a value.
ToJSON: TypeAlias = Callable[[object], str]

# What ends a line for ``str.splitlines()``, besides the control characters, which JSON escapes.
# They can only be within a text.
_ENDS = (("\x85", "\\u0085"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))

# An interface is an address, too. A Decimal is not sent as a number: the client would read a float,
# which is a different number.
_AS_TEXT = (
    UUID,
    PurePath,
    Decimal,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
)


def encoding_with(encoder: Callable[[Any], object] | None) -> ToJSON:
    """
    Return a function that makes JSON.

    :param encoder: called with a value whose type is not on the list, wherever it is; returns
        another value to encode instead. What it raises is raised.

    """

    def plain(value: object) -> object:
        """Convert what ``json`` does not know."""
        # A class has the attributes of its instances, but is not one of them.
        if not isinstance(value, type):
            known = _known(value, plain)
            if known is not _UNKNOWN:
                return known
        return refuse(value) if encoder is None else encoder(value)

    encode = json.JSONEncoder(
        ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain
    ).encode

    def encode_in_one_line(value: object) -> str:
        text = encode(value)
        # Known of any text without reading it.
        if not text.isascii():
            for end, escaped in _ENDS:
                text = text.replace(end, escaped)
        return text

    return encode_in_one_line


def refuse(value: object) -> object:
    """
    Refuse a value for which there is no JSON.

    :raises TypeError: always

    """
    raise TypeError(
        f"there is no JSON for {type(value).__qualname__}: yield what json.dumps() takes, a "
        "dataclass, a model of pydantic, or text that is JSON already, or write "
        "profile=dataclasses.replace(BROWSER, encoder=...) with a function that returns one of "
        "these for it"
    )


_UNKNOWN = object()


def _known(value: object, plain: Callable[[object], object]) -> object:
    dump: Any = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json", by_alias=True)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, _AS_TEXT):
        return str(value)
    if isinstance(value, AbstractSet):
        return list(cast("AbstractSet[object]", value))
    if is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in fields(cast("Any", value))}
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    attributes: Any = getattr(type(value), "__attrs_attrs__", None)
    if attributes is not None:
        return {a.name: getattr(value, a.name) for a in attributes}
    msgspec: Any = sys.modules.get("msgspec")
    if msgspec is not None and isinstance(value, msgspec.Struct):
        # It knows what its fields are called on the wire, and which are left out.
        return msgspec.to_builtins(value, enc_hook=plain)
    return _UNKNOWN


def fields_of(value: object) -> Mapping[str, object]:
    """Return the fields of a mapping, a model, a dataclass or the like, or none."""
    if isinstance(value, Mapping):
        return cast("Mapping[str, object]", value)
    known = _known(value, refuse)
    return cast("Mapping[str, object]", known) if isinstance(known, dict) else {}


to_json: ToJSON = encoding_with(None)
