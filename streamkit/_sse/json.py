"""
JSON of what a source yields.

Beside what ``json`` takes, a fixed list of types is known, each with one form that a client can
read back. Nothing is guessed: what is not on the list is refused by its name, and is for the
``encoder`` of a profile. Of libraries, none is imported: what they have made can only be there if
they are.

What many take for the end of a line, and JSON has raw in a text, is escaped: ``str.splitlines()``
cuts there, and so do the readers of lines that are made of it, such as ``aiter_lines()`` of httpx.
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

# What ends a line for ``str.splitlines()``, beside the control characters, which JSON escapes.
# It can only be within a text.
_ENDS = (("\x85", "\\u0085"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))

# An interface is an address, too. Not a number for a Decimal, which would be a float to the client,
# and another number.
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
    Return what makes JSON.

    :param encoder: called with a value that is of no type of the list, wherever it is; returns
        another one in its place. What it raises is raised.

    """

    def plain(value: object) -> object:
        """Take apart what ``json`` does not know."""
        # A class has what its instances have, and is none of them.
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
        # Which is known of any text without a look at it.
        if not text.isascii():
            for end, escaped in _ENDS:
                text = text.replace(end, escaped)
        return text

    return encode_in_one_line


def refuse(value: object) -> object:
    """
    Say that there is no JSON for a value.

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
