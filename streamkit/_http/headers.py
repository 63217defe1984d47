"""HTTP headers, in ASGI's form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeAlias, cast

from .._core.arguments import check_header

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]

# What keeps proxies from holding back or changing what is meant to be seen at once.
_DEFAULT_HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


def raw(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> RawHeaders:
    """
    Return headers in ASGI's form.

    :raises TypeError: if a name or a value is not text
    :raises ValueError: if one of them is not valid, or would be several headers

    """
    if headers in ((), {}):
        return []
    pairs = cast("Mapping[str, str]", headers).items() if isinstance(headers, Mapping) else headers
    result: RawHeaders = []
    for name, value in pairs:
        check_header(name, value)
        result.append((name.lower().encode("ascii"), value.strip(" \t").encode("latin-1")))
    return result


@lru_cache(maxsize=64)
def default_headers(media_type: str | None) -> RawHeaders:
    """Return the default headers of a response. Do not change them."""
    own = raw(_DEFAULT_HEADERS)
    return own if media_type is None else own + raw({"content-type": media_type})


def merged(headers: RawHeaders, later: RawHeaders) -> RawHeaders:
    """
    Merge headers: later ones replace earlier ones of the same name.

    Cookies are the exception: there may be several.
    """
    if not later:
        return headers.copy()
    names = {name for name, _ in later} - {b"set-cookie"}
    return [(name, value) for name, value in headers if name not in names] + later
