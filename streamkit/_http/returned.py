"""
What FastAPI is told about a response that is not its own.

If a returned object is not a Starlette response, FastAPI takes it for a value to turn into JSON. It
asks pydantic for a schema if the return is annotated, or for a serializer if the annotation is
``Any``. Otherwise it tries one attribute after another, down to the generator. All of these come by
here first, and are told what to return.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

_ADVICE = (
    "FastAPI takes no response of streamkit.asgi, streamkit.sse or streamkit.jsonlines from an "
    "endpoint: return the one of the same name from streamkit.starlette"
)


class _Unserializable:
    """The first attribute of a response, which cannot be turned into JSON."""

    __slots__ = ()

    def __iter__(self) -> Iterator[object]:
        raise TypeError(_ADVICE)


UNSERIALIZABLE = _Unserializable()


class _Serializer:
    """The attribute of an instance by which pydantic would make JSON without a schema."""

    __slots__ = ()

    def __get__(self, instance: object, owner: type) -> Any:
        core: Any = sys.modules.get("pydantic_core")
        if instance is None or core is None:
            # Not asked for, or the class itself is asked for a schema.
            raise AttributeError("__pydantic_serializer__")
        schemas = core.core_schema
        refusing = schemas.plain_serializer_function_ser_schema(_to_json)
        return core.SchemaSerializer(schemas.any_schema(serialization=refusing))


def _to_json(value: object) -> object:
    raise TypeError(_ADVICE)


class Returned:
    """The base of the objects that an endpoint returns."""

    __pydantic_serializer__: _Serializer = _Serializer()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
        responses: Any = sys.modules.get("starlette.responses")
        if responses is not None and issubclass(cls, responses.Response):
            # The right one, in an annotation for which FastAPI has advice.
            return handler(source)
        raise TypeError(_ADVICE)
