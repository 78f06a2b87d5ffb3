"""What the fixture ``page`` promises to notice, it notices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CASES = {
    "console error: mine": "console.error('mine')",
    "page error: thrown": "setTimeout(() => { throw new Error('thrown') })",
    "leaves this machine: http://192.0.2.1/": "fetch('http://192.0.2.1/').catch(() => 0)",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory, browser):
    folder = tmp_path_factory.mktemp("watched")
    (folder / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = browser\n")
    tests = [
        f"def test_{k}(page):\n    page.evaluate({script!r})\n    page.wait_for_timeout(50)\n"
        for k, script in enumerate([*CASES.values(), "console.log('all is well')"])
    ]
    (folder / "test_it.py").write_text("\n".join(tests))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_each_mistake_fails_its_test(report):
    assert "4 passed, 3 errors" in report
    for complaint in CASES:
        assert complaint in report


def test_dark_is_dark(open_page):
    asks = "matchMedia('(prefers-color-scheme: dark)').matches"
    assert open_page(color_scheme="dark").evaluate(asks)
    assert not open_page().evaluate(asks)
