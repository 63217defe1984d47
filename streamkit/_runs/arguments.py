"""The options of a run, given for this run or for all of them, and their checks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from .._core.arguments import seconds
from .log import RunLog
from .options import Options

#: The most bytes of UTF-8 in an id, and in the name of an owner.
MAX_ID = 1024

# What a URL may have, besides letters, digits and what quote() never changes.
_OF_A_URL = "%:/?#[]@!$&'()*+,;="


class Defaults:
    """
    The options of each run that is not given others.

    :param log: where the runs are kept
    :param given: the fields of :class:`Options`
    :raises TypeError: if one is of the wrong type
    :raises ValueError: if one is out of its range

    """

    def __init__(self, log: RunLog, **given: Any) -> None:
        self._reconcile = log.reconcile
        self.options: Options = Options(**self._checked(given))

    def replaced(self, **given: Any) -> Options:
        """Return these options with those that a run is given. ``None`` means: not given."""
        said = {name: value for name, value in given.items() if value is not None}
        return replace(self.options, **self._checked(said)) if said else self.options

    def limit(self, name: str, value: Any) -> Any:
        """Check a limit, which is a number of things, or ``None`` for none."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int > 0, got {value!r}; write {name}=1000")
        if value <= 0:
            raise ValueError(f"{name} must be an int > 0, got {value!r}; write {name}=1000")
        return value

    def _checked(self, given: dict[str, Any]) -> dict[str, Any]:
        checked = dict(given)
        for name, value in given.items():
            if name in ("keep", "grace", "on_end_timeout"):
                checked[name] = seconds(name, value)
            elif name in ("max_items", "max_bytes"):
                checked[name] = self.limit(name, value)
            elif name == "unwatched":
                checked[name] = self._unwatched(value)
            elif value not in ("trim", "end"):
                raise ValueError(f"when_full is 'trim' or 'end', got {value!r}")
        return checked

    def _unwatched(self, value: Any) -> float | None:
        if value is None or value == math.inf:
            return None
        unwatched = seconds("unwatched", value, positive=True)
        least = 2 * self._reconcile
        if unwatched < least:
            raise ValueError(
                f"unwatched must be at least {least} seconds, got {value!r}, because readers "
                f"report to this log every {self._reconcile} seconds: write unwatched={least}"
            )
        return unwatched


def url_of(location: object, run_id: str) -> str:
    """
    Return the URL of a run, in the form for a header.

    :param location: the URL, with ``{run_id}`` for the id
    :raises TypeError: if it is not text

    """
    if not isinstance(location, str):
        raise TypeError(
            f"location must be a str, got {type(location).__qualname__}: write "
            'location="/chat/{run_id}", or str(...) of a URL'
        )
    # An id may be any text. The rest may also have characters that a URL must not have.
    url = location.replace("{run_id}", quote(run_id, safe="", errors="replace"))
    return quote(url, safe=_OF_A_URL, errors="replace")


def check_text(name: str, value: object) -> str:
    """
    Check an id, or the name of an owner.

    :raises TypeError: if it is not text
    :raises ValueError: if it is empty or too long

    """
    if not isinstance(value, str):
        raise TypeError(
            f"{name} must be a str, got {type(value).__qualname__}: write {name}=str(...), for "
            "instance"
        )
    if not 0 < len(value.encode(errors="replace")) <= MAX_ID:
        raise ValueError(f"{name} must have from 1 to {MAX_ID} bytes: write a short one")
    return value
