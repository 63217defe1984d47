"""
What FastAPI is told of a response that is none of its own.

It takes what an endpoint returns, and is no response of Starlette, for a value to make JSON of: it
asks pydantic for a schema where that is annotated, and else tries one attribute after the other,
down to the generator. Both come by here first, and say what to return.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

_ADVICE = (
    "FastAPI takes no response of streamkit.asgi or streamkit.sse from an endpoint: return the one "
    "of the same name from streamkit.starlette"
)


class _Unserializable:
    """The first attribute of a response, of which no JSON can be made."""

    __slots__ = ()

    def __iter__(self) -> Iterator[object]:
        raise TypeError(_ADVICE)


UNSERIALIZABLE = _Unserializable()


class Returned:
    """The base of what an endpoint returns."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
        responses: Any = sys.modules.get("starlette.responses")
        if responses is not None and issubclass(cls, responses.Response):
            # The right one, in an annotation that FastAPI has advice for.
            return handler(source)
        raise TypeError(_ADVICE)
