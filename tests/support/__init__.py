"""What the tests share: backends in virtual time, leak checks, sources that take notes."""

from __future__ import annotations

from .asgi import Client, Middleware
from .backends import BACKENDS, Backend
from .leaks import LeakError, live_tasks, on_trio, wait_all_blocked
from .programs import environment
from .socket import Socket
from .sources import Log, PlainSource, Probe, aiter_of
from .virtual_time import START

__all__ = [
    "BACKENDS",
    "START",
    "Backend",
    "Client",
    "LeakError",
    "Log",
    "Middleware",
    "PlainSource",
    "Probe",
    "Socket",
    "aiter_of",
    "environment",
    "live_tasks",
    "on_trio",
    "wait_all_blocked",
]
