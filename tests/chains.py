"""Chains of combinators, for what must hold in any of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import permutations
from typing import Any, TypeAlias

import pytest

from streamkit import (
    CancelToken,
    Stream,
    with_buffer,
    with_cancellation,
    with_keepalive,
    with_status,
    with_timeout,
)

Chain: TypeAlias = tuple[str, ...]

# Without "buffer", which wrap() knows as well: most of what must hold in any chain is that nothing
# is read ahead. What holds with a buffer is in test_buffer.py.
NAMES = ("cancellation", "keepalive", "status")
ALONE: list[Chain] = [(name,) for name in NAMES]
ORDERS: list[Chain] = list(permutations(NAMES))
TWICE: list[Chain] = [(name, other, name) for name, other in permutations(NAMES, 2)]

# Far beyond what a test takes, so that a beat is a mistake unless the test wants some, and so is a
# limit that is reached.
NEVER = 1e6

# Each alone, all three in two opposite orders, once with a timeout, and one twice: enough for what
# does not depend on the order. That every order works at all is in test_combinators.py.
WITH_TIMEOUT: Chain = ("timeout", *ORDERS[-1])
CHAINS: list[Chain] = [*ALONE, ORDERS[0], WITH_TIMEOUT, TWICE[0]]

any_chain = pytest.mark.parametrize("chain", CHAINS, ids="+".join)


def wrap(
    source: Any,
    chain: Chain,
    *,
    token: CancelToken | None = None,
    interval: float = NEVER,
    beat: Any = "beat",
    size: float = 0,
    **status: Any,
) -> Any:
    """Put combinators on a source, the innermost first; those of one name get the same arguments.

    Typed loosely, for what a chain yields depends on its names.
    """
    signal = CancelToken() if token is None else token
    combinators: dict[str, Callable[[Any], Stream[Any]]] = {
        "buffer": lambda inner: with_buffer(inner, size),
        "cancellation": lambda inner: with_cancellation(inner, signal),
        "keepalive": lambda inner: with_keepalive(inner, interval, beat),
        "status": lambda inner: with_status(inner, **status),
        "timeout": lambda inner: with_timeout(inner, first=NEVER, idle=NEVER, total=NEVER),
    }
    return reduce(lambda inner, name: combinators[name](inner), chain, source)
