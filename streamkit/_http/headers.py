"""Headers of HTTP, as ASGI has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias, cast

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ENDS_LINE = re.compile(r"[\r\n\0]")


def raw(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> RawHeaders:
    """
    Return headers as ASGI has them.

    :raises ValueError: if one of them is none, or would be more than one

    """
    pairs = cast("Mapping[str, str]", headers).items() if isinstance(headers, Mapping) else headers
    result: RawHeaders = []
    for name, value in pairs:
        if not _NAME.fullmatch(name) or _ENDS_LINE.search(value):
            raise ValueError(
                f"{name!r}: {value!r} is no header: a name is of letters, digits and '-', and a "
                "value is one line"
            )
        try:
            result.append((name.lower().encode("ascii"), value.strip(" \t").encode("latin-1")))
        except UnicodeEncodeError:
            raise ValueError(
                f"the header {name!r} has a value outside latin-1, {value!r}: write it with "
                "urllib.parse.quote(), for instance"
            ) from None
    return result


def merged(headers: RawHeaders, later: RawHeaders) -> RawHeaders:
    """
    Return headers of which the later ones take the place of those of the same name.

    Cookies are the exception: there may be several.
    """
    names = {name for name, _ in later} - {b"set-cookie"}
    return [(name, value) for name, value in headers if name not in names] + later
