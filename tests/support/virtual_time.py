"""The virtual time of ``streamkit.testing`` on uvloop, too."""

from __future__ import annotations

import sys

from streamkit.testing import VirtualTime

# A deadline that is taken for a duration shows. The same on every backend.
START = 1000.0

if sys.platform != "win32":
    import uvloop

    # uvloop itself ignores the same complaint about its bases.
    class VirtualUvloop(VirtualTime, uvloop.Loop):  # type: ignore[misc]
        """uvloop in virtual time."""
