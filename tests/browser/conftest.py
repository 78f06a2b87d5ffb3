"""A headless Chromium for pages that this package makes: ``page`` is what a test drives.

A test sets how the page is opened by a fixture or a parameter ``page_options``, which are keywords
of Playwright's ``new_context``: ``{"color_scheme": "dark", "viewport": {"width": 420, "height":
800}}``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",  # root, as in a container, cannot have one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
LOCAL_SCHEMES = ("file", "data", "blob", "about")
DEFAULTS: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Playwright's browser, running the Chromium of this machine."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is missing: pip install 'n2v-scale[browser]'"
    )
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no Chromium is installed: none of {', '.join(NAMES)} is on the PATH")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def page_options() -> dict[str, Any]:
    """Keywords of ``new_context``, for tests to override."""
    return {}


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """A function that opens an empty page with keywords of ``new_context``.

    When the test is over it fails if any page wrote an error to the console, threw one, or asked
    for anything outside 127.0.0.1 and files.
    """
    contexts, complaints = [], []

    def open_one(**options: Any) -> Any:
        context = browser.new_context(**{**DEFAULTS, **options})
        contexts.append(context)
        made = context.new_page()
        made.set_default_timeout(20_000)
        watch(made, complaints)
        return made

    yield open_one
    for context in contexts:
        context.close()
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def page(open_page: Callable[..., Any], page_options: dict[str, Any]) -> Any:
    """An empty page, watched as :func:`open_page` says."""
    return open_page(**page_options)


def watch(page: Any, complaints: list[str]) -> None:
    """Write down what a page does wrong."""

    def console(message: Any) -> None:
        if message.type == "error":
            complaints.append(f"console error: {message.text} ({message.location.get('url')})")

    def request(asked: Any) -> None:
        parts = urlsplit(asked.url)
        if parts.scheme not in LOCAL_SCHEMES and parts.hostname != "127.0.0.1":
            complaints.append(f"request that leaves this machine: {asked.url}")

    page.on("console", console)
    page.on("pageerror", lambda error: complaints.append(f"page error: {error}"))
    page.on("request", request)
