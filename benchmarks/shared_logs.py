"""B8: what runs cost in logs that several processes share: in a file, and in Redis or Valkey."""

from __future__ import annotations

from . import runs_in_a_file, runs_in_redis
from .report import Result

TITLE = "Logs across processes"


def measure(*, quick: bool = False) -> Result:
    tables, ratios = runs_in_a_file.measure(quick=quick)
    return Result("B8", TITLE, tables, [*ratios, *runs_in_redis.ratios(quick=quick)])
