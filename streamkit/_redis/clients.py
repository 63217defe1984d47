"""
Make coredis clients, a new one for each attempt to connect.

A wrong address or option is an error where it is given, not at the first connection.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeAlias, cast

import coredis
from coredis.retry import NoRetryPolicy

from .server import ANSWER_WITHIN, checked

_SCHEMES = ("redis://", "rediss://", "unix://")

#: Makes a client, which connects when it is entered.
Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]


def by_url(url: object, patience: float, options: dict[str, Any]) -> Connect:
    """
    Return a function that makes clients for an address.

    :param patience: seconds in which a connection must be made
    :param options: further arguments of ``coredis.Redis.from_url()``, which take precedence
    :raises TypeError: if ``url`` is not a string, or coredis does not know an option
    :raises ValueError: if ``url`` has another scheme, or cannot be read

    """
    if not isinstance(url, str):
        raise TypeError(
            f"the address must be a string, got {type(url).__qualname__}: write "
            "'redis://localhost:6379/0', for instance. For clients of your own write "
            "Redis(connect=lambda: coredis.Redis(host, port)), which makes a new one each time"
        )
    if not url.startswith(_SCHEMES):
        # Not the whole address, which may hold a password.
        raise ValueError(
            f"the address must begin with one of {', '.join(_SCHEMES)}, got "
            f"{url.partition(':')[0]!r}: write 'redis://localhost:6379/0', for instance"
        )
    connect = partial(
        coredis.Redis[bytes].from_url,
        url,
        **{
            "connect_timeout": patience,
            "stream_timeout": ANSWER_WITHIN,
            "retry_policy": NoRetryPolicy(),
            **options,
        },
    )
    _try_out(connect)
    return connect


def _try_out(connect: Callable[[], coredis.Redis[bytes]]) -> None:
    """Make a client, to check the address and the options. It does not connect."""
    try:
        pool = checked(connect()).connection_pool
    except ValueError:
        # Python's error names the wrong part, which may be the password.
        raise ValueError(
            "the address cannot be read: write 'redis://user@localhost:6379/0', and a password "
            "that contains one of :/?#[]@ as password='...'"
        ) from None
    known = {
        name
        for cls in pool.connection_class.__mro__
        if "__init__" in vars(cls)
        for name in inspect.signature(cls).parameters
    }
    if unknown := [repr(name) for name in pool.connection_kwargs if name not in known]:
        raise TypeError(
            f"unknown options: {', '.join(unknown)}; write those of coredis.Redis.from_url()"
        )


def by_factory(connect: object) -> Connect:
    """
    Return a function that makes clients by calling the user's.

    :raises TypeError: if ``connect`` is not a plain function

    """
    if not callable(connect) or inspect.iscoroutinefunction(connect):
        raise TypeError(
            "connect must be a plain function that makes a new client, got "
            f"{type(connect).__qualname__}: write Redis(connect=lambda: coredis.Redis(host, port))"
        )
    return partial(_make, connect)


def _make(connect: Callable[[], object]) -> AbstractAsyncContextManager[Any]:
    made = connect()
    if not isinstance(made, AbstractAsyncContextManager):
        raise TypeError(
            f"connect must return a new client, got {type(made).__qualname__}: write "
            "Redis(connect=lambda: coredis.Redis(host, port))"
        )
    return cast("AbstractAsyncContextManager[Any]", made)
