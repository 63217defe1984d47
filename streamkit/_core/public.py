"""Public names show where they are imported from: in tracebacks, in ``repr`` and in pickles."""

from __future__ import annotations

from inspect import get_annotations
from types import FunctionType
from typing import Any


def name_publicly(namespace: dict[str, Any]) -> None:
    """
    Give what a public module exports from private modules the name of the public one.

    :param namespace: of the public module, with ``__all__`` and ``__name__``

    """
    for name in namespace["__all__"]:
        value = namespace[name]
        if isinstance(value, type | FunctionType) and "._" in value.__module__:
            if isinstance(value, type):
                # typing.get_type_hints() looks into the module that a class names, and would not
                # find there what is written as text here.
                value.__annotations__ = get_annotations(value, eval_str=True)
            value.__module__ = namespace["__name__"]
