"""Nothing but the keys of one image is ever given."""

from __future__ import annotations

import zipfile

import pytest

from n2v_scale.io.stores import Location
from n2v_scale.viewing import tree as tree_module
from n2v_scale.viewing.tree import Tree, key_of

CONTENT = bytes(range(256)) * 40


@pytest.fixture(params=["folder", "zip", "url"])
def tree(request, tmp_path):
    folder = tmp_path / "store" / "image"
    (folder / "0" / "c").mkdir(parents=True)
    (folder / "zarr.json").write_text("{}")
    (folder / "0" / "c" / "0").write_bytes(CONTENT)
    (tmp_path / "store" / "secret").write_text("s")
    root = tmp_path / "store"
    if request.param == "zip":
        with zipfile.ZipFile(tmp_path / "store.zip", "w") as archive:
            for file in sorted(p for p in root.rglob("*") if p.is_file()):
                archive.write(file, file.relative_to(root))
        root = tmp_path / "store.zip"
    if request.param == "url":
        import fsspec

        root = f"memory://tree-{tmp_path.name}"
        fs = fsspec.filesystem("memory")
        for name in ("image/zarr.json", "image/0/c/0", "secret"):
            data = (tmp_path / "store" / name).read_bytes()
            fs.pipe_file(f"/tree-{tmp_path.name}/{name}", data)
    return Tree(Location(str(root), "image"))


def test_sizes_and_bytes(tree, monkeypatch):
    monkeypatch.setattr(tree_module, "PIECE", 1000)
    assert tree.size("0/c/0") == len(CONTENT)
    pieces = list(tree.read("0/c/0", 5, 5000))
    assert b"".join(pieces) == CONTENT[5:5000]
    assert max(map(len, pieces)) == 1000


@pytest.mark.parametrize(
    "key", ["0/c/1", "0/c", "0", "zarr.json/x", "n" * 300, "zarr.json.partial"]
)
def test_what_is_absent_or_a_folder_has_no_size(tree, key):
    assert tree.size(key) is None


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "..", "../secret", "0/../../secret", "%2e%2e/secret", "..%2fsecret", "0//c",
        "/etc/passwd", "%2fetc/passwd", "a%00b", "..\\secret", "..%5csecret", "c:/x", "./0",
    ],
)  # fmt: skip
def test_no_path_leads_up(path):
    assert key_of(path) is None


def test_links_out_of_the_image_are_not_followed(tmp_path):
    outside, image = tmp_path / "outside", tmp_path / "image"
    outside.mkdir()
    (outside / "secret").write_text("s")
    (image / "0").mkdir(parents=True)
    (image / "0" / "real").write_text("r")
    (image / "file").symlink_to(outside / "secret")
    (image / "folder").symlink_to(outside)
    (image / "own").symlink_to(image / "0" / "real")
    (tmp_path / "alias").symlink_to(image)
    for address in (image, tmp_path / "alias"):
        tree = Tree(Location(str(address), ""))
        assert tree.size("file") is tree.size("folder/secret") is None
        assert tree.size("own") == tree.size("0/real") == 1


def test_documents_are_json():
    kinds = {name: tree_module.content_type(name) for name in ("zarr.json", "0/.zarray", "0/c/1")}
    assert kinds == {
        "zarr.json": "application/json",
        "0/.zarray": "application/json",
        "0/c/1": "application/octet-stream",
    }
