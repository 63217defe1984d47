"""Real clients read real bytes. ``nox -s clients`` installs them: plain ``pytest`` leaves this out.

Nothing here is skipped: where a client is missing, its tests fail.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from clients.browser import chromium
from clients.demo import Tab
from support.event_server import EventServer, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium import webdriver


@pytest.fixture(scope="session")
def server() -> Iterator[EventServer]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def open_tab(driver: webdriver.Chrome) -> Iterator[Callable[[str], Tab]]:
    """Open tabs, which are closed after the test."""
    blank = driver.current_window_handle
    yield partial(Tab, driver)
    for handle in driver.window_handles:
        if handle != blank:
            driver.switch_to.window(handle)
            driver.close()
    driver.switch_to.window(blank)
    # What went wrong in a page, or was refused by its policy.
    assert [entry for entry in driver.get_log("browser") if "javascript" in entry["source"]] == []
