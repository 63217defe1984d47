"""Take the pictures of the demo for the docs: ``nox -s demo-web -- --screenshots DIR``."""

from __future__ import annotations

import sys
from base64 import b64decode
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

# For what the tests share, where this runs as a script.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clients.browser import chromium
from clients.demo import Tab, demo_server, until

if TYPE_CHECKING:
    from selenium import webdriver


def main(directory: Path) -> None:
    with TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        profile = Path(temporary) / "profile"
        with demo_server(Path(temporary)) as demo, chromium(profile) as driver:
            tab = Tab(driver, demo.url)
            for name, state in ("fail", "failed"), ("locked", "409 refused"):
                tab.start(name)
                tab.wait_for_state(state)
            tab.start("deaf")
            tab.start("check")
            wait_for_silence(tab, 1, seconds=4.0)
            # As it is for who comes later.
            tab.reload()
            wait_for_silence(tab, 2, seconds=2.0)
            picture(driver, directory / "demo.png", width=1366, height=768)
            tab.click("#stop button")
            tab.wait_for_state("stopped")
            until(lambda: "stopped" in tab.text("#runs"), lambda: tab.text("body"))
            picture(driver, directory / "demo-phone.png", width=390, height=844, scheme="dark")


def wait_for_silence(tab: Tab, number: int, *, seconds: float) -> None:
    def lasts() -> bool:
        silences = [float(line.split()[2]) for line in tab.log("silence")]
        return len(silences) == number and silences[-1] >= seconds

    until(lasts, lambda: tab.text("body"))


def picture(
    driver: webdriver.Chrome, path: Path, *, width: int, height: int, scheme: str = "light"
) -> None:
    """Take a picture of what a screen shows."""
    is_phone = width < 500
    screen = {"width": width, "height": height, "deviceScaleFactor": 1.5, "mobile": is_phone}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    # The log follows its last line at the new size, too.
    driver.execute_script("const log = document.getElementById('log'); log.scrollTop = 1e6")
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    path.write_bytes(b64decode(taken["data"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
