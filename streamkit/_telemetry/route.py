"""
Which request a stream answers: the request's span, and the template of its path, which is the same
for all ids.

FastAPI provides both, if its own telemetry is on. Starlette has no template in the scope, only the
values that it has found in the path. Putting the names in their places gives the template. If a
value has several places in the path, the routes of the application tell which is meant. If it is
not found in the path, no route is given, because each path would be a series of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from opentelemetry.trace import Span

# Where FastAPI keeps what it knows about a request, if its own telemetry is on.
_FASTAPI = "fastapi.telemetry"

# A name in a template, and its convertor.
_NAME = re.compile(r"\{(\w+)(?::\w+)?\}")


def route_of(scope: Mapping[str, Any] | None) -> str | None:
    """Return the route of a request, or ``None`` if it is not known."""
    if scope is None:
        return None
    route = getattr(scope.get(_FASTAPI), "route", None)
    if isinstance(route, str):
        return route
    if "endpoint" not in scope or "path_params" not in scope:
        return None
    path = template = str(scope["path"])
    values: dict[str, Any] = dict(scope["path_params"])
    is_certain = True
    # The last one first: two values may be equal.
    for name in reversed(values):
        found = list(re.finditer(rf"(?<=/){re.escape(str(values[name]))}(?=/|$)", template))
        if not found:
            return None
        is_certain = is_certain and len(found) == 1
        template = f"{template[: found[-1].start()]}{{{name}}}{template[found[-1].end() :]}"
    return template if is_certain else _declared(scope, path, values) or template


def _declared(scope: Mapping[str, Any], path: str, values: Mapping[str, Any]) -> str | None:
    """Return the template of a route of the endpoint that these values make the path of."""
    root = str(scope.get("app_root_path", scope.get("root_path", "")))
    prefix = root if path.startswith(root) else ""
    for template, endpoint in _templates(getattr(scope.get("router"), "routes", ()), prefix):
        made = _NAME.sub(lambda found: str(values.get(found[1])), template)
        if made == path and endpoint is scope["endpoint"]:
            return _NAME.sub(r"{\1}", template)
    return None


def _templates(routes: Iterable[Any], prefix: str) -> Iterator[tuple[str, object]]:
    """Yield the templates of routes and of those mounted in them, and their endpoints."""
    for route in routes:
        template = f"{prefix}{getattr(route, 'path', '')}"
        yield template, getattr(route, "endpoint", None)
        yield from _templates(getattr(route, "routes", ()) or (), template)


def span_of(scope: Mapping[str, Any] | None) -> Span | None:
    """
    Return the span of a request, or ``None`` if it is not known. In the endpoint of a WebSocket it
    is not the current span, because FastAPI opens another one for each endpoint.
    """
    span = None if scope is None else getattr(scope.get(_FASTAPI), "span", None)
    return span if isinstance(span, Span) else None
