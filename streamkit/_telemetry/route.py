"""
Of which request a stream is the answer: the template of its path, which is the same for all ids.

FastAPI has it, where it measures itself. Starlette has none in the scope, but the values that it
has found in the path: put back in their places, they give it. Where one is not found there, nothing
is said, for each path would be a series of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def route_of(scope: Mapping[str, Any] | None) -> str | None:
    """Return the route of a request, or ``None`` if it is not known."""
    if scope is None:
        return None
    route = getattr(scope.get("fastapi.telemetry"), "route", None)
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
