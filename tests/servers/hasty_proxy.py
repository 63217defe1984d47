"""The proxy of ``examples/proxy.py``, with an interval for tests."""

from __future__ import annotations

import proxy

proxy.KEEPALIVE = 0.05  # seconds
app = proxy.app
