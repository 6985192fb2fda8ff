"""Chromium without a window, in which tests look at reports."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-dev-shm-usage"),
)


def paths() -> tuple[str, str] | None:
    """The browser and its driver, where both are installed."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


needs_browser = pytest.mark.skipif(
    paths() is None,
    reason="no chromium with chromedriver: apt-get install chromium chromium-driver",
)


class Page:
    """A page as a person meets it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, file: Path) -> None:
        """Show a file."""
        self.driver.get(file.resolve().as_uri())

    def text(self, selector: str) -> str:
        """What the first element of a CSS selector says."""
        return self.one(selector).text

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def put(self, selector: str, value: float | str, event: str) -> None:
        """Set an input's value and tell the page so."""
        script = (
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event(arguments[2]))"
        )
        self.driver.execute_script(script, self.one(selector), value, event)

    def problems(self) -> list[str]:
        """What the console complains of."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def widest(self) -> int:
        """How wide the content is, in pixels."""
        return self.driver.execute_script("return document.documentElement.scrollWidth")

    def resize(self, width: int, height: int = 900, scheme: str = "light") -> None:
        """Have a window of this size, which prefers dark or light."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with a profile of its own in a folder."""
    found = paths()
    assert found is not None, "tests that need a browser are marked with needs_browser"
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for option in (*OPTIONS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(found[1]))
    try:
        yield Page(driver)
    finally:
        driver.quit()
