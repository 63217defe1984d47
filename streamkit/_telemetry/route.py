"""
Which request a stream answers: the request's span, and the template of its path, which is the same
for all ids.

FastAPI provides both, if its own telemetry is on. Starlette has no template in the scope, only the
values that it has found in the path. Putting the names in their places gives the template. If a
value is not found in the path, no route is given, because each path would be a series of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import Span

# Where FastAPI keeps what it knows about a request, if its own telemetry is on.
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
    # The last one first: two values may be equal.
    for name in reversed(values):
        found = list(re.finditer(rf"(?<=/){re.escape(str(values[name]))}(?=/|$)", path))
        if not found:
            return None
        path = f"{path[: found[-1].start()]}{{{name}}}{path[found[-1].end() :]}"
    return path


def span_of(scope: Mapping[str, Any] | None) -> Span | None:
    """
    Return the span of a request, or ``None`` if it is not known. In the endpoint of a WebSocket it
    is not the current span, because FastAPI opens another one for each endpoint.
    """
    span = None if scope is None else getattr(scope.get(_FASTAPI), "span", None)
    return span if isinstance(span, Span) else None
