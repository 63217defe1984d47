"""
Of which request a stream is the answer: its span, and the template of its path, which is the same
for all ids.

FastAPI has both, where it measures itself. Starlette has no template in the scope, but the values
that it has found in the path: put back in their places, they give it. Where one is not found there,
nothing is said, for each path would be a series of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import Span

# Where FastAPI has what it knows of a request, if it measures itself.
_FASTAPI = "fastapi.telemetry"


def route_of(scope: Mapping[str, Any] | None) -> str | None:
    """Return the route of a request, or ``None`` if it is not known."""
    if scope is None:
        return None
    route = getattr(scope.get(_FASTAPI), "route", None)
    if isinstance(route, str):
        return route
    if "endpoint" not in scope or "path_params" not in scope:
        return None
    path = str(scope["path"])
    values: dict[str, Any] = dict(scope["path_params"])
    # The last one first: two of them may be alike.
    for name in reversed(values):
        found = list(re.finditer(rf"(?<=/){re.escape(str(values[name]))}(?=/|$)", path))
        if not found:
            return None
        path = f"{path[: found[-1].start()]}{{{name}}}{path[found[-1].end() :]}"
    return path


def span_of(scope: Mapping[str, Any] | None) -> Span | None:
    """
    Return the span of a request, or ``None`` if it is not known. In the endpoint of a WebSocket it
    is not the current one, for FastAPI has another one for each endpoint.
    """
    span = None if scope is None else getattr(scope.get(_FASTAPI), "span", None)
    return span if isinstance(span, Span) else None
