"""The page holds all that it shows, and nothing in it can be anything but text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from n2v_scale.errors import OutputError
from n2v_scale.reporting import page as pages
from n2v_scale.reporting.page import page_text
from n2v_scale.reporting.places import Place
from n2v_scale.reporting.plots import PIXELS

EVIL = "</script><img src=x onerror=alert(1)>$\\frac"
LARGEST = 15_000_000


def references(page):
    """What a browser would fetch."""
    links = [
        attrs[name]
        for tag, attrs in page.tags
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster", "data")
        if name in attrs and tag != "a"
    ]
    links += re.findall(r"url\(([^)]*)\)", page.text) + re.findall(r"@import[^;]*", page.text)
    return [link.strip("'\" ") for link in links]


def test_it_asks_nobody_for_anything(case):
    found = references(case.page)
    assert found  # there are plots, whose parts refer to one another
    assert [link for link in found if not link.startswith(("#", "data:"))] == []
    policies = [a["content"] for t, a in case.page.tags if t == "meta" and "http-equiv" in a]
    assert policies == [
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    ]
    assert not [a for t, a in case.page.tags if t in ("iframe", "object", "embed", "link", "form")][
        1:
    ]


def test_references_within_it_lead_somewhere(case):
    ids = [attrs["id"] for _, attrs in case.page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    asked = {link[1:] for link in references(case.page) if link.startswith("#")}
    asked |= {a["href"][1:] for t, a in case.page.tags if t == "a"}
    assert asked <= set(ids)
    labelled = {a["aria-labelledby"] for _, a in case.page.tags if "aria-labelledby" in a}
    assert labelled <= set(ids)


def test_headings_are_in_order_and_pictures_have_names(case):
    levels = [int(tag[1]) for tag, _ in case.page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    pictures = [attrs for tag, attrs in case.page.tags if tag == "svg"]
    assert len(pictures) >= 5
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in pictures)


def test_slices_are_the_voxels(case, sheet):
    slices = type(case.slices)(case.page.scripts[0])
    data = slices.data
    assert data["volumes"] == ["noisy", "denoised", "reference"]
    assert data["voxel"] == [2, 0.4, 0.4]
    assert data["unit"] == "µm"
    for number, described in enumerate(data["places"]):
        z, y, x = described["centre"]
        starts, shape = described["start"], described["shape"]
        z0, y0, x0 = starts
        z1, y1, x1 = (a + n for a, n in zip(starts, shape, strict=True))
        for name, values in (("noisy", sheet.noisy), ("reference", sheet.clean)):
            step = data["scales"]["0"][1]
            for plane, truth in (
                ("xy", values[z, y0:y1, x0:x1]),
                ("xz", values[z0:z1, y, x0:x1]),
                ("yz", values[z0:z1, y0:y1, x]),
            ):
                found = slices.plane(number, name, plane)
                assert found.shape == truth.shape
                assert np.abs(found - truth).max() <= (0 if name == "noisy" else step / 2 + 1e-3)


def test_names_are_text_wherever_they_stand(case):
    axes = tuple(replace(axis, unit=EVIL) for axis in case.found.noisy.axes)
    evil = replace(case.found.noisy, name=EVIL, address=f"/{EVIL}", axes=axes)
    plan = replace(case.found.plan, volume=evil, no_posterior=EVIL)
    blocks = replace(case.found.blocks, failed={3: EVIL})
    places = [replace(place, why=EVIL) for place in case.found.places]
    missing = {"model": EVIL, "estimate": EVIL, "diagnosis": EVIL}
    found = replace(
        case.found, noisy=evil, plan=plan, blocks=blocks, places=places, missing=missing, model=EVIL
    )
    page = type(case.page)(page_text(found))
    assert [attrs for tag, attrs in page.tags if tag == "img"] == []
    assert not any("onerror" in attrs for _, attrs in page.tags)
    assert page.text.count("</script>") == 2
    assert json.loads(page.scripts[0])["places"][0]["why"] == EVIL
    assert any(EVIL in word for word in page.words)
    assert json.loads(page.scripts[0])["unit"] == EVIL
    assert page.text.count("onerror=") >= 6


def test_the_largest_slices_of_pure_noise_fit(case, monkeypatch):
    rng = np.random.default_rng(0)
    place = Place(0, 0, (5, 6, 7), case.found.places[0].box, "")
    shapes = {"xy": (256, 256), "xz": (128, 256), "yz": (128, 256)}
    planes = [
        {
            name: {p: rng.normal(0, 1, s).astype("f4") for p, s in shapes.items()}
            for name in ("noisy", "denoised", "reference")
        }
        for _ in range(8)
    ]
    channels = [
        replace(c, cells=rng.random((2, 10**6), "f4")) for c in case.found.diagnosis.channels
    ]
    diagnosis = replace(case.found.diagnosis, channels=tuple(channels) * 4)
    state = rng.integers(0, 3, (40, 100, 100)).astype("u1")
    blocks = replace(
        case.found.blocks,
        state=state,
        seconds=rng.random(state.shape),
        rmse=rng.random(state.shape),
        failed=dict.fromkeys(range(1000), "cannot be read " * 9),
        missing=9,
    )
    found = replace(
        case.found,
        places=[replace(place, c=n % 4) for n in range(8)],
        planes=planes,
        diagnosis=diagnosis,
        blocks=blocks,
        overview=rng.random((2048, 2048), "f4"),
    )
    text = page_text(found)
    assert len(text.encode()) < LARGEST
    assert len(text) > 5_000_000
    assert text.count("cannot be read") == 9 * pages.MOST_FAILURES


def test_plots_follow_the_theme_and_keep_their_size(case):
    pictures = re.findall(r"<svg.*?</svg>", case.page.text, re.DOTALL)
    for picture in pictures:
        assert "currentColor" in picture
        assert not re.search(r"fill: ?#000000|stroke: ?#000000", picture)
        assert re.search(r"--wide: \d+px", picture)
    assert PIXELS * 9 >= 12  # CSS pixels of the smallest labels


def test_a_failure_while_writing_leaves_nothing(case, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "page_text", lambda *_, **__: "<!doctype html>")
    pages.write_page(tmp_path / "r.html", case.found)
    assert (tmp_path / "r.html").read_text() == "<!doctype html>"

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OutputError, match="No space left"):
        pages.write_page(tmp_path / "s.html", case.found)
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]
