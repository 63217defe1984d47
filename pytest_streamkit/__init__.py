"""
Markers for pytest, which imports this on its own; nothing of streamkit before a test has one.

``@pytest.mark.leaves_nothing_behind``
    An async test fails that leaves a task, a generator, an open stream of anyio or an error that
    nobody took.

``@pytest.mark.virtual_time``
    Nobody waits in an async test: time jumps to the next timer.

A test is wrapped where it is collected, so it does not matter who runs it: the plugin of anyio,
pytest-asyncio or pytest-trio.
"""

from __future__ import annotations

import pytest

_MARKERS = {
    "leaves_nothing_behind": "fail if an async test leaves a task, a generator or a stream behind",
    "virtual_time": "let an async test run in virtual time",
}


def pytest_configure(config: pytest.Config) -> None:
    """Say what the markers are."""
    for name, text in _MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {text}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Wrap the tests that have a marker."""
    for item in items:
        names = [name for name in _MARKERS if item.get_closest_marker(name) is not None]
        if names and isinstance(item, pytest.Function):
            from streamkit._testing.marked import run_trio, wrap

            wrap(item, names)
            if "virtual_time" in names and item.get_closest_marker("trio") is not None:
                # pytest-trio asks its marker how to run a test.
                item.add_marker(pytest.mark.trio(run=run_trio), append=False)
