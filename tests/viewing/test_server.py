"""What the server gives, to whom, and what it keeps to itself."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import zarr

from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.viewing.links import NEUROGLANCER, VIZARR
from tests.viewing.conftest import serving

TILE = "tile?volume=denoised.zarr&level=0&t=0&c=0&axis=z&index=3&box=0,0,96,80"
SHARD = "data/denoised.zarr/0/c/0/0/0"


def shard_of(pair):
    return (pair.denoised / "0" / "c" / "0" / "0" / "0").read_bytes()


def test_it_listens_on_the_loopback_alone(served):
    assert served.server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("path", ["", "viewer.js", "volumes.json", TILE, SHARD, "open/vizarr"])
def test_nothing_is_given_without_the_token(served, path):
    tokens = ("", "x", served.viewing.token[:-1], f"{served.viewing.token}x", "%C3%A9")
    with closing(HTTPConnection("127.0.0.1", served.server.server_address[1])) as connection:
        for token in tokens:
            connection.request("GET", f"/{token}/{path}")
            answer = connection.getresponse()
            assert answer.status == 404
            assert served.viewing.token.encode() not in answer.read()
    assert served.ask(path).status in (200, 302)


def test_tokens_are_long_and_never_the_same(served):
    assert len(served.viewing.token) >= 22
    assert type(served.viewing)([]).token != served.viewing.token


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200), ("localhost", 200), ("LOCALHOST:8080", 200), ("[::1]:80", 200),
        ("evil.example", 403), ("127.0.0.1.evil.example:80", 403), ("localhost.evil.example", 403),
        ("0.0.0.0", 403), ("", 403), ("evil.example:127.0.0.1", 403),
    ],
)  # fmt: skip
def test_a_foreign_name_for_this_machine_is_refused(served, host, status):
    assert served.ask("volumes.json", Host=host).status == status


def test_the_page_asks_nobody_else(served):
    answer = served.ask("")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert b"https://" not in answer.body
    assert served.ask("viewer.js").headers["Content-Type"].startswith("text/javascript")
    assert served.ask("../server.py").status == served.ask("viewer/../viewer.js").status == 404


def test_keys_are_given_as_they_are(served, pair):
    answer = served.ask("data/denoised.zarr/zarr.json", Origin="https://vizarr.example")
    assert answer.body == (pair.denoised / "zarr.json").read_bytes()
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Cache-Control"] == "no-store"
    whole = served.ask(SHARD)
    assert whole.body == shard_of(pair)
    assert whole.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("header", "part"),
    [("bytes=0-3", slice(0, 4)), ("bytes=7-", slice(7, None)), ("bytes=-68", slice(-68, None))],
)
def test_ranges(served, pair, header, part):
    content = shard_of(pair)
    answer = served.ask(SHARD, Range=header)
    assert answer.status == 206
    assert answer.body == content[part]
    start, stop, _ = part.indices(len(content))
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(content)}"
    assert "Content-Range" in answer.headers["Access-Control-Expose-Headers"]


def test_a_range_behind_the_end(served, pair):
    answer = served.ask(SHARD, Range="bytes=99999999-")
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(shard_of(pair))}"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_head_says_what_get_would(served, pair):
    answer = served.ask(SHARD, "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) == len(shard_of(pair))
    assert served.ask("data/denoised.zarr/0/c/9/9/9", "HEAD").status == 404


@pytest.mark.parametrize(
    "path",
    [
        "data/denoised.zarr/0/c/9/9/9", "data/denoised.zarr", "data/denoised.zarr/", "data/",
        "data", "data/other.zarr/zarr.json", "data/denoised.zarr/0",
        "data/denoised.zarr/../noisy.zarr/zarr.json",
        "data/denoised.zarr/%2e%2e/noisy.zarr/zarr.json", "data/denoised.zarr//etc/passwd",
        "data/denoised.zarr/..%2fnoisy.zarr%2fzarr.json", "nothing", "open/paraview",
    ],
)  # fmt: skip
def test_what_is_absent_is_404(served, path):
    answer = served.ask(path)
    assert answer.status == 404
    if path.startswith("data/"):  # else a page elsewhere could not tell it from a failure
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_preflight(served):
    asked = {
        "Origin": "https://neuroglancer.example",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "range",
        "Access-Control-Request-Private-Network": "true",
    }
    answer = served.ask(SHARD, "OPTIONS", **asked)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Range" in answer.headers["Access-Control-Allow-Headers"]
    assert answer.headers["Access-Control-Allow-Private-Network"] == "true"
    assert "Access-Control-Allow-Private-Network" not in served.ask(SHARD, "OPTIONS").headers
    assert "Access-Control-Allow-Origin" not in served.ask("tile", "OPTIONS", **asked).headers


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH"])
def test_nothing_can_be_written(served, pair, method):
    before = shard_of(pair)
    answer = served.ask(SHARD, method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"
    assert shard_of(pair) == before


def test_a_tile(served, pair):
    answer = served.ask(TILE)
    tile = np.frombuffer(answer.body, "<u2").reshape(96, 80)
    np.testing.assert_array_equal(tile, zarr.open_group(pair.denoised, mode="r")["0"][3])


@pytest.mark.parametrize(
    "change",
    [
        ("level=0", "level=99"), ("level=0", "level=x"), ("axis=z", "axis=t"), ("axis=z", "axis="),
        ("index=3", "index=-1"), ("box=0,0,96,80", "box=0,0,96"), ("&c=0", ""), ("&c=0", "&c=1"),
        ("box=0,0,96,80", "box=0,0,99999,80"), ("volume=denoised", "volume=x"),
    ],
)  # fmt: skip
def test_a_tile_that_makes_no_sense_is_400(served, change):
    answer = served.ask(TILE.replace(*change))
    assert answer.status == 400
    assert answer.body.endswith(b"\n")


def test_what_the_page_is_told(served):
    told = json.loads(served.ask("volumes.json").body)["volumes"]
    assert [volume["role"] for volume in told] == ["noisy", "denoised"]
    assert told[1]["levels"][0] == {
        "shape": [20, 96, 80], "scale": [2.0, 0.4, 0.4], "origin": [0.0, 0.0, 0.0], "made": False,
    }  # fmt: skip
    assert told[1]["unit"] == "micrometer"
    window = json.loads(served.ask("window?volume=noisy.zarr&t=0&c=0").body)
    assert window["min"] <= window["low"] < window["high"] <= window["max"]


def test_a_connection_stays_and_several_are_answered_at_once(served):
    port = served.server.server_address[1]
    connections = [HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(8)]

    def ask(connection):
        connection.request("GET", f"/{served.viewing.token}/{TILE}")
        sock = connection.sock
        body = connection.getresponse().read()
        assert connection.sock is sock is not None
        return body

    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert len(set(pool.map(ask, connections))) == 1
    for connection in connections:
        connection.close()


def test_who_goes_away_early_does_no_harm(served, capfd):
    for _ in range(3):
        with socket.create_connection(served.server.server_address[:2]) as sock:
            request = f"GET /{served.viewing.token}/{SHARD} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            sock.sendall(request.encode())
    assert served.ask("volumes.json").status == 200
    assert capfd.readouterr().err == ""


def test_a_chunk_that_cannot_be_read_is_said(pair, moved):
    denoised = moved(noisy=True)
    for shard in (denoised / "0" / "c").rglob("*"):
        if shard.is_file():
            shard.write_bytes(b"torn")
    with serving(denoised) as served:
        answer = served.ask(TILE)
        assert answer.status == 400
        assert b"cannot read box" in answer.body


def test_links_lead_to_the_name_that_was_asked(served):
    base = f"localhost:9000/{served.viewing.token}/data"
    answer = served.ask("open/neuroglancer", Host="localhost:9000")
    assert answer.status == 302
    link = answer.headers["Location"]
    assert link.startswith(f"{NEUROGLANCER}#!")
    state = json.loads(unquote(urlsplit(link).fragment[1:]))
    assert [(layer["name"], layer["source"]) for layer in state["layers"]] == [
        ("noisy", f"zarr3://http://{base}/noisy.zarr/"),
        ("denoised", f"zarr3://http://{base}/denoised.zarr/"),
    ]
    assert [child["layers"] for child in state["layout"]["children"]] == [["noisy"], ["denoised"]]
    assert state["displayDimensions"] == ["x", "y", "z"]
    sizes = {"x": [pytest.approx(4e-7), "m"], "y": [pytest.approx(4e-7), "m"], "z": [2e-6, "m"]}
    assert state["dimensions"] == sizes
    low, high = state["layers"][0]["shaderControls"]["normalized"]["range"]
    assert low < high
    link = served.ask("open/vizarr", Host="localhost:9000").headers["Location"]
    assert link.startswith(f"{VIZARR}?source=")
    assert unquote(link).endswith(f"http://{base}/denoised.zarr")


def test_what_lies_behind_a_url_is_served_the_same_way(served, pair, s3):
    """The page's tiles and the keys, with ranges; the credentials stay here."""
    import s3fs

    url = s3.url("denoised.zarr")
    options = {name: s3.options[name] for name in ("key", "secret", "endpoint_url")}
    s3fs.S3FileSystem(**options).put(str(pair.denoised), url, recursive=True)
    with serving(url, noisy=str(pair.noisy), storage_options=StorageOptions.of(s3.options)) as far:
        assert far.ask(TILE).body == served.ask(TILE).body
        for path in (SHARD, "data/denoised.zarr/zarr.json"):
            near = served.ask(path, Range="bytes=-68")
            answer = far.ask(path, Range="bytes=-68")
            assert (answer.status, answer.body) == (206, near.body)
            assert answer.headers["Content-Range"] == near.headers["Content-Range"]
        assert far.ask("data/denoised.zarr/0/c/9/9/9").status == 404
        assert far.ask("data/denoised.zarr/0").status == 404
        told = far.ask("volumes.json").body.decode()
        assert s3.options["secret"] not in told
