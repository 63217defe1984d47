"""
The order in which trio runs tasks that are ready: by chance, unless it is seeded.

For that, it reads what trio does not document, here and nowhere else: ``trio._core._run._r``, a
:class:`random.Random`. Seen from trio 0.31 to 0.35. Where it is not there, the order is by chance.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def seed_trio(seed: int) -> bool:
    """
    Let the orders of the next run be those of a seed, as far as they are trio's choice.

    :return: whether that is so
    """
    run: Any = import_module("trio._core._run")
    random: Any = getattr(run, "_r", None)
    if random is None:
        return False
    random.seed(seed)
    return True
