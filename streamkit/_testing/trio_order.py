"""
The order in which trio runs tasks that are ready: random, unless it is seeded.

Seeding uses a private object of trio, here and nowhere else: ``trio._core._run._r``, a
:class:`random.Random`. It exists in trio 0.31 to 0.35. If it is missing, the order stays random.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def seed_trio(seed: int) -> bool:
    """
    Seed the order of tasks in the next run, as far as trio chooses it.

    :return: whether that is possible
    """
    run: Any = import_module("trio._core._run")
    random: Any = getattr(run, "_r", None)
    if random is None:
        return False
    random.seed(seed)
    return True
