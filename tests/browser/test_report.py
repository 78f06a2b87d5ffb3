"""The report in a browser: what is seen, and what every control does."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import zarr
from matplotlib.image import imread

import n2v_scale
from n2v_scale.io.open import open_volume
from n2v_scale.local_cluster import thread_client
from n2v_scale.reporting import find_out
from n2v_scale.reporting.page import page_text
from n2v_scale.simulate import simulate_light_sheet

SHAPE = (20, 48, 64)
CANVAS = "canvas[data-plane={}]"


@pytest.fixture(scope="module")
def written(tmp_path_factory, write_volume):
    """The file of a report with a reference, some voxels of it NaN."""
    folder = tmp_path_factory.mktemp("report")
    made = simulate_light_sheet(SHAPE, seed=1)
    values = made.noisy.astype("f4")
    noisy = write_volume(folder / "noisy.zarr", values, chunk=(20, 24, 32), scale=(2, 0.4, 0.4))
    clean = zarr.create_array(folder / "clean.zarr", data=made.clean)
    del clean
    n2v_scale.train(noisy, folder / "m.n2v", method="linear", device="cpu", threads=1)
    sizes = {"block": (20, 24, 32), "shard": (20, 24, 32), "chunk": (20, 24, 32)}
    with thread_client(2) as client:
        n2v_scale.predict(noisy, folder / "m.n2v", folder / "d.zarr", client=client, **sizes)
    zarr.open_array(str(folder / "noisy.zarr/0"), mode="r+")[:, 20, 10:14] = np.nan
    denoised = open_volume(folder / "d.zarr")
    found = find_out(denoised, reference=open_volume(folder / "clean.zarr"), camera=(2.2, 100, 3.5))
    (folder / "report.html").write_text(page_text(found), encoding="utf-8")
    return folder / "report.html"


class Report:
    """A page that shows the report, and what is seen on it."""

    def __init__(self, page, file: Path) -> None:
        self.page = page
        page.goto(file.as_uri())
        page.wait_for_selector("#planes[data-zoom]")
        self.data = json.loads(page.locator("#slices-data").text_content())

    def state(self, name):
        self.settle()
        return float(self.page.locator("#planes").get_attribute(f"data-{name}"))

    def settle(self):
        self.page.evaluate(
            "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
        )

    def canvas(self, plane="xy"):
        return self.page.locator(CANVAS.format(plane))

    def pixels(self, plane="xy"):
        """What a canvas shows, (y, x, rgb)."""
        self.settle()
        url = self.canvas(plane).evaluate("c => c.toDataURL('image/png')")
        seen = imread(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        return np.rint(255 * seen[..., :3]).astype(int)

    def voxels(self, plane="xy"):
        """The middle pixel of every voxel (y, x, rgb), fitted and without what is drawn on top."""
        seen = self.pixels(plane)
        z, y, x = self.data["places"][0]["shape"]
        high, wide = {"xy": (y, x), "xz": (z, x), "yz": (y, z)}[plane]
        rows = ((np.arange(high) + 0.5) * seen.shape[0] / high).astype(int)
        columns = ((np.arange(wide) + 0.5) * seen.shape[1] / wide).astype(int)
        return seen[rows][:, columns]

    def values(self, volume, plane="xy", place=0):
        """What the file holds, as the plane shows it."""
        raw = zlib.decompress(base64.b64decode(self.data["places"][place]["data"][volume][plane]))
        codes = np.frombuffer(raw, np.uint8).reshape(2, -1).astype(int)
        z, y, x = self.data["places"][place]["shape"]
        shape = {"xy": (y, x), "xz": (z, x), "yz": (z, y)}[plane]
        codes = (codes[0] + 256 * codes[1]).reshape(shape)
        return codes.T if plane == "yz" else codes

    def choose(self, control, value):
        self.page.select_option(f"#{control}", value)

    def slide(self, control, value):
        self.page.locator(f"#{control}").evaluate(
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})) }", value
        )

    def grays(self, codes):
        """What the window maps codes to."""
        low, high = (float(self.page.input_value(f"#{name}")) for name in ("dark", "bright"))
        gamma = float(self.page.input_value("#gamma")) / 100
        return 255 * np.clip((codes - low) / (high - low), 0, 1) ** gamma


@pytest.fixture
def report(page, written):
    return Report(page, written)


@pytest.mark.parametrize("plane", ["xy", "yz", "xz"])
def test_a_canvas_shows_the_values_in_the_window(report, plane):
    for side, volume in ((1000, "noisy"), (0, "denoised")):
        report.slide("split", side)
        report.choose("which", plane)
        codes = report.values(volume, plane)
        seen = report.voxels(plane)
        known = codes != 4095
        inner = np.zeros(codes.shape, bool)
        inner[4:-6, 3:-3] = True
        ours = known & inner
        assert np.ptp(seen, axis=2)[ours].max() == 0
        assert np.abs(seen[..., 0] - report.grays(codes))[ours].max() <= 1
        assert seen[..., 0][ours].std() > 10


def test_what_has_no_value_is_violet(report):
    report.choose("which", "xy")
    report.choose("right", "noisy")
    report.slide("split", 0)
    codes, seen = report.values("noisy"), report.voxels()
    unknown = codes == 4095
    unknown[:6] = unknown[-8:] = False  # where labels are
    assert 0 < unknown.sum() < 20
    assert (seen[unknown] == [86, 52, 110]).all()
    report.choose("right", "residual")
    assert (report.voxels()[unknown] == [86, 52, 110]).all()


def test_the_slider_says_what_is_left_and_right(report):
    report.choose("which", "xy")
    report.slide("split", 250)
    seen = report.voxels()[..., 0]
    noisy, denoised = (report.grays(report.values(name)) for name in ("noisy", "denoised"))
    known = report.values("noisy")[8:-10, 3:15] != 4095
    assert np.abs(seen - noisy)[8:-10, 3:15][known].max() <= 1
    assert np.abs(seen - denoised)[8:-10, 17:-4].max() <= 1
    report.choose("left", "reference")
    reference = report.grays(report.values("reference"))
    assert np.abs(report.voxels()[..., 0] - reference)[8:-10, 3:15].max() <= 1
    assert "reference left of the line" in report.canvas().get_attribute("aria-label")


def drag(report, start, end, plane="xy"):
    box = report.canvas(plane).bounding_box()
    (x0, y0), (x1, y1) = (
        (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)
    )
    report.page.mouse.move(x0, y0)
    report.page.mouse.down()
    report.page.mouse.move((x0 + x1) / 2, (y0 + y1) / 2)
    report.page.mouse.move(x1, y1)
    report.page.mouse.up()


def test_the_line_is_dragged_in_any_plane(report):
    drag(report, (0.5, 0.3), (0.2, 0.3))
    assert report.state("split") == pytest.approx(0.2, abs=0.01)
    assert (
        report.page.input_value("#split") == pytest.approx("200", abs=0)
        or abs(int(report.page.input_value("#split")) - 200) <= 10
    )
    drag(report, (0.2, 0.5), (0.9, 0.5), "yz")
    assert report.state("split") == pytest.approx(0.9, abs=0.02)
    assert report.state("zoom") == 1


def test_the_image_is_dragged_and_the_planes_stay_together(report):
    for _ in range(3):
        report.page.click("#in")
    before = {plane: report.pixels(plane) for plane in ("xy", "xz", "yz")}
    drag(report, (0.7, 0.6), (0.8, 0.6))
    after = {plane: report.pixels(plane) for plane in before}
    moved = round(0.1 * before["xy"].shape[1])
    for plane in ("xy", "xz"):
        old, new = before[plane][30:-30, :, 0], after[plane][30:-30, :, 0]
        left = slice(moved + 20, int(0.45 * old.shape[1]))
        shifted = slice(left.start - moved, left.stop - moved)
        errors = {
            d: np.abs(new[:, left] - old[:, shifted.start + d : shifted.stop + d]).mean()
            for d in range(-2, 3)
        }
        assert min(errors.values()) < 0.25 * np.abs(new[:, left] - old[:, left]).mean()
    assert (after["yz"] == before["yz"]).mean() > 0.99


def test_the_wheel_zooms_at_the_pointer(report):
    box = report.canvas().bounding_box()
    at = (box["x"] + 48.5 / 64 * box["width"], box["y"] + 12.5 / 48 * box["height"])
    report.page.mouse.move(*at)
    before = report.page.locator("#status").text_content()
    report.page.mouse.wheel(0, -300)
    assert report.state("zoom") == pytest.approx(2)
    assert report.page.locator("#zoom").text_content() == "200%"
    report.page.mouse.move(at[0] + 1, at[1])
    report.page.mouse.move(*at)
    assert report.page.locator("#status").text_content() == before
    report.page.mouse.wheel(0, 3000)
    assert report.state("zoom") == 1
    assert report.page.evaluate("scrollY") == 0
    report.page.mouse.wheel(0, 300)
    for _ in range(100):  # at the end of its range the page scrolls
        if report.page.evaluate("scrollY") > 0:
            break
        report.page.wait_for_timeout(20)
    assert report.page.evaluate("scrollY") > 0


def test_the_pointer_tells_the_values(report):
    place = report.data["places"][0]
    _, high, wide = place["shape"]
    box = report.canvas().bounding_box()
    column, row = wide // 3, high // 2
    report.page.mouse.move(
        box["x"] + (column + 0.5) * box["width"] / wide,
        box["y"] + (row + 0.5) * box["height"] / high,
    )
    text = report.page.locator("#status").text_content()
    (z, _, _), (_, y0, x0) = place["centre"], place["start"]
    assert text.startswith(f"z {z}, y {y0 + row}, x {x0 + column}: ")
    low, step = report.data["scales"]["0"][:2]
    for name in ("noisy", "denoised", "reference"):
        told = float(re.search(rf"{name} [≤≥ ]*([-\d.]+)", text)[1])
        assert told == pytest.approx(low + step * report.values(name)[row, column], rel=1e-4)


def test_buttons_and_keys(report):
    page = report.page
    page.click("#in")
    page.click("#in")
    assert report.state("zoom") == pytest.approx(2.25)
    page.click("#out")
    assert report.state("zoom") == pytest.approx(1.5)
    page.click("#fit")
    assert report.state("zoom") == 1
    page.focus("#planes")
    page.keyboard.press("+")
    assert report.state("zoom") == pytest.approx(1.25)
    for plane, key in (
        ("xy", "ArrowRight"),
        ("xy", "ArrowUp"),
        ("xz", "ArrowDown"),
        ("yz", "ArrowLeft"),
    ):
        report.choose("which", plane)
        page.focus("#planes")
        before = report.pixels(plane)
        page.keyboard.press(key)
        assert (report.pixels(plane) != before).mean() > 0.1
    page.keyboard.press("-")
    page.keyboard.press("0")
    assert report.state("zoom") == 1
    page.keyboard.press("[")
    assert report.state("split") == pytest.approx(0.45)
    page.keyboard.press("]")
    page.keyboard.press("]")
    assert report.state("split") == pytest.approx(0.55)
    count = len(report.data["places"])
    for _ in range(count + 1):  # faster than slices are unpacked
        page.keyboard.press("n")
    page.wait_for_selector("#planes[data-place='1']")
    assert page.input_value("#place") == "1"
    page.keyboard.press("Control+0")
    assert report.state("place") == 1


def test_the_planes_that_are_asked_for(report):
    shown = [plane for plane in ("xy", "xz", "yz") if report.canvas(plane).is_visible()]
    assert shown == ["xy", "xz", "yz"]
    for plane in shown:
        report.choose("which", plane)
        report.settle()
        assert [p for p in shown if report.canvas(p).is_visible()] == [plane]
    z, y, _ = report.data["places"][0]["shape"]
    box = report.canvas("yz").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(2 * z / (0.4 * y), rel=0.02)


def test_contrast_gamma_and_reset(report):
    report.choose("which", "xy")
    report.slide("split", 0)
    first = report.pixels()
    dark, bright = report.page.input_value("#dark"), report.page.input_value("#bright")
    low, step, black, white = report.data["scales"]["0"][:4]
    assert float(dark) == pytest.approx((black - low) / step, abs=1)
    assert float(bright) == pytest.approx((white - low) / step, abs=1)
    assert float(report.page.locator("#bright-value").text_content()) == pytest.approx(
        white, rel=0.01
    )
    assert float(report.page.get_attribute("#bright", "max")) > 1.5 * float(bright)
    report.slide("bright", float(bright) * 2)
    report.slide("gamma", 50)
    codes = report.values("denoised")
    inner = np.s_[8:-10, 4:-4]
    assert np.abs(report.voxels()[..., 0] - report.grays(codes))[inner].max() <= 1
    report.page.focus("#planes")
    report.page.keyboard.press("n")
    report.page.wait_for_selector("#planes[data-place='1']")
    assert float(report.page.input_value("#gamma")) == 50  # it stays, so that places compare
    report.choose("place", "0")
    report.page.wait_for_selector("#planes[data-place='0']")
    report.page.click("#auto")
    assert (report.page.input_value("#dark"), report.page.input_value("#bright")) == (dark, bright)
    assert (report.pixels() == first).all()


def test_the_residual_is_gray_where_nothing_was_taken_away(report):
    report.choose("which", "xy")
    report.slide("split", 0)
    report.choose("right", "residual")
    noisy, denoised = report.values("noisy"), report.values("denoised")
    seen = report.voxels()[..., 0]
    difference = noisy - denoised
    most = 3 * np.sqrt((difference[noisy != 4095] ** 2.0).mean())
    expected = np.clip(127.5 + 127.5 * difference / most, 0, 255)
    inner = np.s_[8:-10, 4:-4]
    assert np.abs(seen - expected)[inner][noisy[inner] != 4095].max() <= 1
    step = report.data["scales"]["0"][1]
    told = re.search(r"black is −([\d.]+)", report.page.locator("#status").text_content())
    assert float(told[1]) == pytest.approx(most * step, rel=0.01)
    report.choose("right", "error")
    error = report.values("denoised") - report.values("reference")
    most = 3 * np.sqrt((error**2.0).mean())
    expected = np.clip(127.5 + 127.5 * error / most, 0, 255)
    assert np.abs(report.voxels()[..., 0] - expected)[inner].max() <= 1


def colours(page, *names):
    style = "getComputedStyle(document.documentElement).getPropertyValue('--{}').trim()"
    return [page.evaluate(style.format(name)) for name in names]


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_both_themes_however_they_are_chosen(open_page, written, scheme):
    page = open_page(color_scheme=scheme)
    Report(page, written)
    names = ("page", "card", "ink", "soft", "accent", "warn", "warn-page")
    for _ in range(2):
        shown = dict(zip(names, colours(page, *names), strict=True))
        assert (luminance(shown["page"]) > 0.5) == (scheme == "light")
        for ground in ("page", "card"):
            assert contrast(shown["ink"], shown[ground]) >= 7
            assert contrast(shown["soft"], shown[ground]) >= 4.5
        assert contrast(shown["accent"], shown["page"]) >= 4.5
        assert contrast(shown["warn"], shown["warn-page"]) >= 4.5
        ink = page.evaluate("getComputedStyle(document.querySelector('#noise svg text')).fill")
        body = page.evaluate("getComputedStyle(document.body).color")
        assert ink == body
        page.click("#theme")
        scheme = "dark" if scheme == "light" else "light"


def test_a_narrow_window_needs_no_scrolling_sideways(open_page, written):
    page = open_page(viewport={"width": 390, "height": 800})
    report = Report(page, written)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert report.canvas("xy").is_visible()
    assert not report.canvas("xz").is_visible()
    box = report.canvas("xy").bounding_box()
    assert box["width"] > 300
    sizes = page.evaluate(
        "[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect().width)"
    )
    assert min(sizes) > 300


def test_on_paper_it_is_light_and_without_controls(open_page, written):
    page = open_page(color_scheme="dark")
    Report(page, written)
    page.emulate_media(media="print")
    assert colours(page, "page") == ["#ffffff"]
    assert not page.locator("header").is_visible()
    assert not page.locator(".tools").first.is_visible()
    assert page.locator("canvas[data-plane=xy]").is_visible()


def test_without_scripts_the_figures_remain(open_page, written):
    page = open_page(java_script_enabled=False)
    page.goto(written.as_uri())
    assert "your browser does not run" in page.locator("noscript").text_content()
    assert not page.locator("#viewer").is_visible()
    assert page.locator("#noise svg").is_visible()


def test_an_old_browser_is_told(open_page, written):
    page = open_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(written.as_uri())
    page.wait_for_selector("#too-old:not([hidden])")
    assert not page.locator("#viewer").is_visible()


def test_every_control_has_a_name_and_shows_its_focus(report):
    page = report.page
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, select, input, [tabindex="0"], a')].filter(e =>
          !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)
        ).map(e => e.outerHTML)"""
    )
    assert nameless == []
    assert page.locator("canvas").count() == 3
    assert all(
        "plane through" in page.locator("canvas").nth(i).get_attribute("aria-label")
        for i in range(3)
    )
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    assert skip.evaluate("e => e === document.activeElement")
    assert skip.bounding_box()["x"] >= 0
    seen = set()
    for _ in range(24):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "[document.activeElement].map(e => [e.id || e.textContent,"
            " getComputedStyle(e).outlineStyle])[0]"
        )
        assert outline == "solid", name
        seen.add(name)
    assert {"theme", "place", "left", "right", "which", "in", "planes", "split", "auto"} <= seen
