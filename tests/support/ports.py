"""Ports for servers that are started a moment later."""

from __future__ import annotations

import random
import socket

# Below those that a system gives to who connects: nobody comes in between.
PORTS = range(12_000, 22_000)

# By which the port of a cluster's bus is higher than that of its node.
TO_THE_BUS = 10_000


def free_port() -> int:
    """Return a port that is free, and whose bus port is."""
    while True:
        # Each process draws for itself, whatever seeds its tests have.
        port = random.SystemRandom().choice(PORTS)
        if is_free(port) and is_free(port + TO_THE_BUS):
            return port


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
