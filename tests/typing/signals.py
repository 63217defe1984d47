"""Registries and polls. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Hashable
from contextlib import AbstractAsyncContextManager
from typing import assert_type

from streamkit import (
    CancelRegistry,
    CancelToken,
    Holder,
    PollFailed,
    RegistryStats,
    Released,
    Stream,
    poll,
    shared_poll,
    with_cancellation,
)


async def registries(registry: CancelRegistry, source: AsyncIterable[int]) -> None:
    assert_type(registry.open("run"), Holder)
    assert_type(with_cancellation(source, registry.open(("run", 1))), Stream[int])
    with registry.open("run") as token:
        assert_type(token, CancelToken)
    async with registry.open("run", exclusive=True) as token:
        assert_type(token, CancelToken)
    assert_type(registry.cancel("run"), int)
    assert_type(registry.cancel("run", {"any": "object"}), int)
    assert_type(await registry.cancel_and_wait("run", "reason", timeout=5), Released)
    assert_type(registry.keys(), list[Hashable])
    assert_type(len(registry), int)
    assert_type(registry.stats(), RegistryStats)
    assert_type("run" in registry, bool)
    CancelRegistry(remember=0, max_remembered=1)


def no_registries(registry: CancelRegistry) -> None:
    CancelRegistry(30)  # type: ignore[call-arg]
    registry.open([])  # type: ignore[arg-type]
    registry.cancel([])  # type: ignore[arg-type]


async def check() -> str | None:
    return None


def lazy_check() -> Awaitable[bool]:
    raise NotImplementedError


def sync_check() -> bool:
    return False


def told(error: Exception) -> None:
    pass


async def polls(source: AsyncIterable[int]) -> None:
    assert_type(poll(check, 0.5), AbstractAsyncContextManager[CancelToken, None])
    assert_type(with_cancellation(source, poll(check, 1, jitter=0.1)), Stream[int])
    assert_type(with_cancellation(source, shared_poll(("run", 1), lazy_check, 1)), Stream[int])
    poll(lambda: lazy_check(), 1, timeout=2, on_error=told, max_errors=None)
    async with poll(check, 1) as token:
        assert_type(token, CancelToken)
        if isinstance(token.reason, PollFailed):
            assert_type(token.reason.errors, int)
            assert_type(token.reason.last, Exception)


def no_polls() -> None:
    poll(sync_check, 1)  # type: ignore[arg-type]
    poll(check)  # type: ignore[call-arg]
    poll(check, 1, 2)  # type: ignore[call-arg]
    poll(check, 1, on_error="ignore")  # type: ignore[arg-type]
    shared_poll([], check, 1)  # type: ignore[arg-type]
