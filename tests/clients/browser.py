"""Chromium, without a window."""

from __future__ import annotations

from contextlib import contextmanager
from shutil import which
from typing import TYPE_CHECKING

from selenium import webdriver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium(profile: Path, *flags: str) -> Iterator[webdriver.Chrome]:
    """Run a browser, which keeps all that it writes in an empty directory."""
    options = webdriver.ChromeOptions()
    browser, its_driver = which("chromium"), which("chromedriver")
    assert browser, "chromium must be on PATH: run 'nox -s clients'"
    assert its_driver, "chromedriver must be on PATH: run 'nox -s clients'"
    options.binary_location = browser
    for flag in [*FLAGS, *flags, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    with webdriver.Chrome(options, webdriver.ChromeService(its_driver)) as driver:
        driver.set_script_timeout(30)
        yield driver
