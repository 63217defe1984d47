"""The stage of a response: how it tells the source."""

from __future__ import annotations

import pytest

from streamkit import StreamCancelled, with_stage
from streamkit._http.outlet import Outlet
from support import Probe


async def test_told_before_it_is_open() -> None:
    """Web: a response that is shut down before its stream is open never starts its source."""
    outlet, probe = Outlet(), Probe("a")
    outlet.end_within("deploy", 1.0)
    async with with_stage(probe.source(), outlet) as stream:
        with pytest.raises(StreamCancelled) as caught:
            await anext(stream)
    assert caught.value.reason == "deploy"
    assert not probe.started
