"""The built-in page of ``n2v-scale view``, in a real browser."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import zarr

from n2v_scale.api import import_volume
from tests.viewing.conftest import serving

SHAPE = (12, 300, 400)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory, write_volume, client):
    """Two volumes of which every voxel is known; ``made`` has lower resolutions."""
    folder = tmp_path_factory.mktemp("viewer")
    z, y, x = np.indices(SHAPE)
    ramp = (1000 + z * 700 + y * 5 + x * 3).astype(np.uint16)
    scale = (2, 0.5, 0.5)
    plain = write_volume(folder / "plain.zarr", ramp, chunk=(4, 64, 64), scale=scale)
    other = write_volume(folder / "other.zarr", 9000 - ramp // 2, chunk=(4, 64, 64), scale=scale)
    import_volume(plain, folder / "made.zarr", client=client, chunk=(4, 32, 32))
    return folder / "made.zarr", other.address


@pytest.fixture(scope="module")
def url(volumes):
    with ExitStack() as stack:
        made, other = volumes
        yield f"{stack.enter_context(serving(made, noisy=other)).server.url}/"


@pytest.fixture
def viewer(page, url):
    page.requested = []
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(url)
    idle(page)
    return page


def idle(page):
    page.wait_for_selector("main[data-idle=true]")


def until(page, expression):
    """Playwright's own waiting evaluates text, which the page's policy forbids."""
    for _ in range(400):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(25)
    pytest.fail(f"never true: {expression}")


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)
    idle(page)


def stored(volumes, level=0):
    return [
        zarr.open_group(volumes[1], mode="r")["0"][:],
        zarr.open_group(volumes[0], mode="r")[str(level)][:],
    ]


def gray_at(page, pane, *voxel):
    """What is on the canvas where a voxel's centre is."""
    return page.evaluate(
        """([pane, z, y, x]) => {
          const canvas = document.querySelectorAll('.stage canvas')[pane];
          const [column, row] = n2vView.pixelOf(pane, z, y, x);
          const place = [Math.floor(column), Math.floor(row), 1, 1];
          return [...canvas.getContext('2d').getImageData(...place).data];
        }""",
        [pane, *voxel],
    )


def window_of(page):
    return tuple(float(page.input_value(f"#{name}number")) for name in ("low", "high"))


def gray_of(value, low, high):
    return round(min(max((float(value) - low) / (high - low), 0), 1) * 255)


def check_pixels(page, data, voxels):
    low, high = window_of(page)
    for pane, values in enumerate(data):
        for voxel in voxels:
            expected = gray_of(values[voxel], low, high)
            red, green, blue, alpha = gray_at(page, pane, *voxel)
            assert red == green == blue
            assert abs(red - expected) <= 1, (pane, voxel, red, expected)
            assert alpha == 255


def tiles_of(page):
    asked = [parse_qs(urlsplit(u).query) for u in page.requested if "/tile?" in u]
    page.requested.clear()
    return [{name: values[0] for name, values in one.items()} for one in asked]


def test_both_panes_show_their_volume(viewer, volumes):
    titles = viewer.locator(".pane h2").all_inner_texts()
    assert re.match("noisy", titles[0])
    assert re.match("made.zarr", titles[1])
    press(viewer, "1")  # a voxel is a pixel: nothing is interpolated
    check_pixels(viewer, stored(volumes), [(6, 100, 150), (6, 150, 200), (6, 220, 310)])


@pytest.mark.parametrize(("key", "normal"), [("z", 0), ("y", 1), ("x", 2)])
def test_every_plane_and_slice(viewer, volumes, key, normal):
    press(viewer, key, "1", *["+"] * 6)
    middle = [6, 150, 200]
    press(viewer, ".", ".", ",", ".")
    middle[normal] += 2
    beside = [a + (0 if axis == normal else 2) for axis, a in enumerate(middle)]
    check_pixels(viewer, stored(volumes), [tuple(middle), tuple(beside)])
    assert viewer.input_value("#slicenumber") == str(middle[normal])
    assert viewer.inner_text("#slicename") == "ZYX"[normal]


def test_all_ways_through_the_slices(viewer):
    def number():
        idle(viewer)
        return int(viewer.input_value("#slicenumber"))

    box = viewer.locator(".stage").first.bounding_box()
    viewer.mouse.move(box["x"] + 50, box["y"] + 50)
    assert number() == 6
    viewer.mouse.wheel(0, 100)
    until(viewer, "document.querySelector('#slicenumber').value === '7'")
    for _ in range(4):
        viewer.mouse.wheel(0, 10)  # a touchpad
    until(viewer, "document.querySelector('#slicenumber').value === '8'")
    viewer.mouse.wheel(0, -50)
    until(viewer, "document.querySelector('#slicenumber').value === '7'")
    viewer.click("#next")
    assert number() == 8
    viewer.click("#previous")
    assert number() == 7
    press(viewer, "Home")
    assert number() == 0
    press(viewer, "PageUp")
    assert number() == 0
    press(viewer, "End")
    assert number() == 11
    viewer.fill("#slicenumber", "3")
    viewer.keyboard.press("Enter")
    assert number() == 3
    viewer.focus("#slice")
    viewer.keyboard.press("ArrowRight")
    assert number() == 4


def test_the_level_is_the_one_for_the_zoom(viewer, volumes):
    """Coarse when all is seen in a small pane, the finest when voxels are large, nothing unseen."""
    viewer.set_viewport_size({"width": 560, "height": 620})
    idle(viewer)
    tiles_of(viewer)
    press(viewer, "-", "-", "-", "-", ".")
    pixel = viewer.evaluate("n2vView.view.pixel")
    asked = [tile for tile in tiles_of(viewer) if tile["volume"] == "made.zarr"]
    last = int(asked[-1]["level"])
    group = zarr.open_group(volumes[0], mode="r")
    sizes = [400 / group[str(n)].shape[2] * 0.5 for n in range(len(list(group.array_keys())))]
    assert last == max(n for n, size in enumerate(sizes) if size <= pixel) > 0
    assert viewer.inner_text(".pane:nth-child(2) .level") == f"level {last}"
    press(viewer, "0", "1", *["+"] * 8)
    asked = [tile for tile in tiles_of(viewer) if tile["volume"] == "made.zarr"]
    assert asked[-1]["level"] == "0"
    assert viewer.inner_text(".pane:nth-child(2) .level") == "full resolution"
    press(viewer, ".")
    asked = [tile for tile in tiles_of(viewer) if tile["volume"] == "made.zarr"]
    seen = {(tile["box"], tile["index"]) for tile in asked if tile["level"] == "0"}
    assert {index for _, index in seen} == {"8"}
    assert len(seen) < 4  # of the four that the slice has, those in the middle


def test_contrast(viewer, volumes):
    press(viewer, "1")
    low, high = window_of(viewer)
    everything = stored(volumes, 3)[1]
    assert everything.min() <= low < high <= everything.max()
    viewer.fill("#lownumber", "2000")
    viewer.keyboard.press("Enter")
    viewer.fill("#highnumber", "8000")
    viewer.keyboard.press("Enter")
    idle(viewer)
    assert window_of(viewer) == (2000, 8000)
    check_pixels(viewer, stored(volumes), [(6, 150, 200), (6, 100, 120)])
    before = gray_at(viewer, 0, 6, 150, 200)[0]
    viewer.focus(".stage canvas")
    press(viewer, "i")
    assert gray_at(viewer, 0, 6, 150, 200)[0] == 255 - before
    press(viewer, "i", "a")
    assert window_of(viewer) == (low, high)


def test_each_volume_may_have_its_own_contrast(viewer, volumes):
    press(viewer, "1")
    shared = window_of(viewer)
    viewer.uncheck("#shared")
    viewer.select_option("#whose", label="noisy")
    viewer.fill("#lownumber", "0")
    viewer.keyboard.press("Enter")
    viewer.fill("#highnumber", "20000")
    viewer.keyboard.press("Enter")
    idle(viewer)
    noisy, made = stored(volumes)
    voxel = (6, 150, 200)
    assert abs(gray_at(viewer, 0, *voxel)[0] - gray_of(noisy[voxel], 0, 20000)) <= 1
    assert abs(gray_at(viewer, 1, *voxel)[0] - gray_of(made[voxel], *shared)) <= 1


def test_the_values_under_the_pointer(viewer, volumes):
    press(viewer, "1")
    noisy, made = stored(volumes)
    canvas = viewer.locator(".stage canvas").first
    box = canvas.bounding_box()
    column, row = viewer.evaluate("n2vView.pixelOf(0, 6, 140, 190)")
    viewer.mouse.move(box["x"] + column, box["y"] + row)
    values = [f'[data-volume="{name}"]' for name in ("other.zarr", "made.zarr")]
    assert viewer.inner_text("#readout .position") == "z 6, y 140, x 190"
    assert [int(viewer.inner_text(v)) for v in values] == [noisy[6, 140, 190], made[6, 140, 190]]
    press(viewer, *["-"] * 6)  # a coarser level is on the screen: the voxel itself is read
    viewer.mouse.move(box["x"] + box["width"] / 2 + 3, box["y"] + box["height"] / 2 + 2)
    until(viewer, "!document.querySelector('#readout').innerText.includes('≈')")
    at = [int(n) for n in re.findall(r"\d+", viewer.inner_text("#readout .position"))]
    assert [int(viewer.inner_text(v)) for v in values] == [noisy[tuple(at)], made[tuple(at)]]
    viewer.mouse.move(box["x"] + 3, box["y"] + 3)
    assert viewer.inner_text("#readout .position") == "outside"


def test_zoom_and_move_are_linked(viewer):
    press(viewer, "1")
    box = viewer.locator(".stage canvas").nth(1).bounding_box()
    x, y = box["x"] + 100, box["y"] + 200
    place = "n2vView.pixelOf(0, 6, 150, 200)"
    before = viewer.evaluate(place)
    viewer.mouse.move(x, y)
    viewer.mouse.down()
    viewer.mouse.move(x + 30, y - 20)
    viewer.mouse.up()
    idle(viewer)
    assert viewer.evaluate(place) == pytest.approx([before[0] + 30, before[1] - 20])
    pixel = viewer.evaluate("n2vView.view.pixel")
    viewer.keyboard.down("Control")
    viewer.mouse.wheel(0, -60)
    viewer.keyboard.up("Control")
    until(viewer, f"n2vView.view.pixel < {pixel}")
    assert viewer.input_value("#slicenumber") == "6"


def test_swipe(viewer, volumes):
    press(viewer, "1", "s")
    noisy, made = stored(volumes)
    low, high = window_of(viewer)
    assert viewer.locator(".pane").count() == 1
    for column, values in ((150, noisy), (250, made)):
        red = gray_at(viewer, 0, 6, 150, column)[0]
        assert abs(red - gray_of(values[6, 150, column], low, high)) <= 1
    viewer.focus(".edge")
    press(viewer, "End")
    assert viewer.get_attribute(".edge", "aria-valuenow") == "100"
    assert abs(gray_at(viewer, 0, 6, 150, 250)[0] - gray_of(noisy[6, 150, 250], low, high)) <= 1
    press(viewer, "Home", "s")
    assert viewer.locator(".pane").count() == 2


def test_the_scale_bar_is_as_long_as_it_says(viewer):
    for key in ("1", "+", "+"):
        press(viewer, key)
        said = viewer.inner_text(".scale")
        length, unit = float(said.split()[0]), said.split()[1]
        assert unit == "µm"
        width = viewer.locator(".scale i").first.bounding_box()["width"]
        assert width * viewer.evaluate("n2vView.view.pixel") == pytest.approx(length, rel=0.02)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dark_and_light(open_page, url, scheme):
    page = open_page(color_scheme=scheme)
    page.goto(url)
    idle(page)

    def brightness():
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    assert (brightness() > 128) == (scheme == "light")
    page.keyboard.press("d")
    assert (brightness() > 128) != (scheme == "light")
    page.reload()
    idle(page)
    assert (brightness() > 128) != (scheme == "light")  # it is kept


CONTRAST = """() => {
  const channel = (c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) =>
    0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.5) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const texts = 'button, h1, h2, h2 span, label, dt, dd, summary, #readout *';
  for (const node of document.querySelectorAll(texts)) {
    if (!node.innerText || !node.checkVisibility()) continue;
    const pair = [numbers(getComputedStyle(node).color), behind(node)].map(luminance);
    found.push([(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), node.innerText]);
  }
  return found.sort((a, b) => a[0] - b[0])[0];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_and_everything_has_a_name(open_page, url, scheme):
    """Contrast of 4.5 at least (WCAG AA), and a name for each control."""
    page = open_page(color_scheme=scheme)
    page.goto(url)
    idle(page)
    ratio, text = page.evaluate(CONTRAST)
    assert ratio >= 4.5, text
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, textarea, canvas')]
          .filter((n) => n.checkVisibility() && !(n.innerText || n.ariaLabel || n.labels?.length))
          .map((n) => n.id)"""
    )
    assert nameless == []


@pytest.mark.parametrize("width", [320, 700, 1920])
def test_nothing_runs_over_the_edge(open_page, url, width):
    page = open_page(viewport={"width": width, "height": 800})
    page.goto(url)
    idle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for stage in page.locator(".stage").all():
        box = stage.bounding_box()
        assert box["width"] > 200
        assert box["height"] > 150


def test_the_keyboard_reaches_everything(viewer):
    reached = set()
    for _ in range(60):
        viewer.keyboard.press("Tab")
        name = viewer.evaluate(
            "document.activeElement.id || document.activeElement.dataset.axis "
            "|| document.activeElement.dataset.mode || document.activeElement.tagName"
        )
        outline = viewer.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert name == "BODY" or outline != "none", name
        reached.add(name)
    wanted = {
        "x",
        "y",
        "z",
        "side",
        "swipe",
        "in",
        "out",
        "fit",
        "theme",
        "help",
        "CANVAS",
        "slice",
    }
    assert wanted | {"low", "high", "lownumber", "highnumber", "auto", "shared"} <= reached
    press(viewer, "?")
    assert viewer.locator("dialog[open]").count() == 1
    press(viewer, "Escape")
    assert viewer.locator("dialog[open]").count() == 0


def test_channels_and_times(page, tmp_path, write_volume):
    data = (np.arange(2 * 3)[:, None, None, None] * 1000 + np.zeros((6, 4, 40, 50))).astype(
        np.uint16
    )
    data = data.reshape(2, 3, 4, 40, 50)
    data[..., :5, :5] += 500
    write_volume(tmp_path / "many.zarr", data, "tczyx")
    with serving(tmp_path / "many.zarr") as served:
        page.goto(f"{served.server.url}/")
        idle(page)
        assert not page.locator("#modes").is_visible()
        page.select_option("#channel", "2")
        idle(page)
        page.focus("#time")
        page.keyboard.press("ArrowRight")
        idle(page)
        assert page.inner_text('[data-volume="many.zarr"]') == "5000"


def test_what_cannot_be_read_is_said(open_page, volumes, tmp_path, write_volume):
    """The answer 400 is in the console, as in any browser, and on the page in words."""
    volume = write_volume(
        tmp_path / "torn.zarr", np.ones((4, 300, 300), np.uint8), chunk=(4, 64, 64)
    )
    for shard in (tmp_path / "torn.zarr" / "0" / "c" / "0" / "0").iterdir():
        shard.write_bytes(b"torn")
    with serving(volume.address) as served:
        page = open_page(complain=False)
        page.goto(f"{served.server.url}/")
        page.wait_for_selector("#alert:not([hidden])")
        assert "cannot read box" in page.inner_text("#alert")


def test_a_large_volume_opens_with_little(page, tmp_path):
    """Of 60 gigavoxels some dozen tiles are asked for."""
    levels = [(2048, 6144, 5120), (512, 1536, 1280), (128, 384, 320)]
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    datasets = [
        {
            "path": str(n),
            "coordinateTransformations": [{"type": "scale", "scale": [0.5 * 4**n] * 3}],
        }
        for n in range(3)
    ]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    zarr.create_group(str(tmp_path / "large.zarr"), attributes={"ome": ome})
    for n, shape in enumerate(levels):
        zarr.create_array(
            str(tmp_path / "large.zarr" / str(n)), shape=shape, chunks=(64, 64, 64), dtype="uint16"
        )
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    with serving(tmp_path / "large.zarr") as served:
        page.goto(f"{served.server.url}/")
        idle(page)
        tiles = [parse_qs(urlsplit(u).query) for u in asked if "/tile?" in u]
        assert {tile["level"][0] for tile in tiles} <= {"1", "2"}
        assert tiles[0]["level"] == ["2"]
        assert len(tiles) <= 40
        assert json.dumps(page.evaluate("n2vView.levelOf(0)")) == "1"
