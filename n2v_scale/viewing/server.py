"""The server: read-only, on 127.0.0.1, behind a random token.

A web page elsewhere can make a browser ask this server, and other users of the machine can ask it
themselves. So it answers on the loopback alone, to names that mean the loopback alone (a foreign
name that was made to point here is refused), and only below a path that nobody can guess. Below
``data`` any page may read, as viewers on the web must: they know the token from their link.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from n2v_scale.errors import InputError, N2VScaleError
from n2v_scale.viewing.byte_ranges import UnsatisfiableError, byte_range
from n2v_scale.viewing.links import neuroglancer_link, vizarr_link
from n2v_scale.viewing.shown import Region, ShownVolume
from n2v_scale.viewing.tree import content_type, key_of

HOST = "127.0.0.1"
METHODS = "GET, HEAD, OPTIONS"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
IDLE_S = 120.0
"""After so long without a request a connection is closed."""
LARGEST_TILE = 2048
"""Voxels along an edge."""
PAGE_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}
PAGE_FILES = ("viewer.css", "viewer.js", "geometry.js", "tiles.js", "drawing.js", "contrast.js")
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SHARED = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Content-Length, Content-Range, Accept-Ranges",
}

log = logging.getLogger(__name__)


@dataclass
class Viewing:
    """What is served."""

    volumes: Sequence[ShownVolume]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(18))

    def volume(self, name: str) -> ShownVolume:
        """By its name in URLs; InputError where there is none."""
        for volume in self.volumes:
            if volume.name == name:
                return volume
        raise InputError(f"no volume is called {name!r}")

    @cached_property
    def served(self) -> list[ShownVolume]:
        """Those that other viewers can read."""
        return [volume for volume in self.volumes if volume.tree is not None]

    def describe(self) -> dict[str, Any]:
        """What the page needs to know."""
        return {"volumes": [volume.describe() for volume in self.volumes]}


class Server(ThreadingHTTPServer):
    """One thread a connection; connections stay open between requests."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, viewing: Viewing, port: int = 0) -> None:
        self.viewing = viewing
        super().__init__((HOST, port), Handler)

    @property
    def url(self) -> str:
        """Of the built-in page, token included, without a slash at its end."""
        return f"http://{HOST}:{self.server_address[1]}/{self.viewing.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A viewer that goes away in the middle of an answer is no error."""
        del request, client_address
        log.debug("a request ended early", exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    disable_nagle_algorithm = True
    wbufsize = 1 << 16  # the headers and a small body leave together
    server: Server

    def version_string(self) -> str:
        """Of the ``Server`` header."""
        return "n2v-scale"

    def do_GET(self) -> None:
        """A page, a tile, a key."""
        self._guarded(self._route)

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self._guarded(self._route)

    def do_OPTIONS(self) -> None:
        """What a browser asks before a page elsewhere may read: ranges are allowed."""
        self._guarded(self._preflight)

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._read_only
        raise AttributeError(name)

    def _read_only(self) -> None:
        self.close_connection = True  # a body may follow, which nobody reads
        self._refuse(405, "read-only", {"Allow": METHODS})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Into the log, without the token."""
        log.debug("%s", (format % args).replace(self.server.viewing.token, "TOKEN"))

    def _guarded(self, answer: Callable[[str], None]) -> None:
        """Answer with what lies behind the token, to whom it is meant for."""
        if not _is_loopback(self.headers.get("Host", "")):
            self._refuse(403, "this server is called 127.0.0.1 or localhost")
            return
        path = urlsplit(self.path).path
        token, slash, rest = path.removeprefix("/").partition("/")
        if not compare_digest(token.encode(), self.server.viewing.token.encode()):
            self._refuse(404, "nothing here: the link that was printed holds a token")
        elif not slash:
            self._send(302, headers={"Location": f"/{token}/"})
        else:
            answer(rest)

    def _route(self, rest: str) -> None:
        first, _, more = rest.partition("/")
        viewing = self.server.viewing
        try:
            if first == "data":
                self._send_key(more)
            elif not rest or rest in PAGE_FILES:
                self._send_page(rest or "viewer.html")
            elif rest == "volumes.json":
                self._send_json(viewing.describe())
            elif rest == "tile":
                self._send_tile()
            elif rest == "window":
                asked = self._asked()
                volume = viewing.volume(asked["volume"])
                self._send_json(volume.window(int(asked["t"]), int(asked["c"])))
            elif first == "open":
                self._redirect(more)
            else:
                self._refuse(404, "nothing here")
        except (KeyError, ValueError) as error:
            self._refuse(400, f"{error} is missing or makes no sense")
        except InputError as error:
            self._refuse(400 if first in ("tile", "window", "open") else 502, str(error))
        except N2VScaleError as error:
            self._refuse(502, str(error))

    def _asked(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}

    def _send_page(self, name: str) -> None:
        body = files("n2v_scale").joinpath("pages", "viewer", name).read_bytes()
        kind = PAGE_TYPES[name.rpartition(".")[2]]
        self._send(200, body, {"Content-Type": kind, "Content-Security-Policy": PAGE_POLICY})

    def _send_json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send_tile(self) -> None:
        asked = self._asked()
        volume = self.server.viewing.volume(asked["volume"])
        rows, columns, below, right = (int(n) for n in asked["box"].split(","))
        axis = "zyx".index(asked["axis"])
        if max(below - rows, right - columns) > LARGEST_TILE:
            raise ValueError(f"a tile of more than {LARGEST_TILE} voxels along an edge")
        level, t, c, index = (int(asked[name]) for name in ("level", "t", "c", "index"))
        region = Region(level, t, c, axis, index, (rows, columns), (below, right))
        body = volume.tile(region).tobytes()
        self._send(200, body, {"Content-Type": "application/octet-stream"})

    def _redirect(self, viewer: str) -> None:
        """To another viewer, with the address that this server has for who asks."""
        base = f"http://{self.headers['Host']}/{self.server.viewing.token}"
        volumes = self.server.viewing.served
        if viewer == "neuroglancer" and volumes:
            self._send(302, headers={"Location": neuroglancer_link(base, volumes)})
        elif viewer == "vizarr" and volumes:
            name = self._asked().get("volume", volumes[-1].name)
            link = vizarr_link(base, self.server.viewing.volume(name))
            self._send(302, headers={"Location": link})
        else:
            self._refuse(404, "no such viewer, or no volume that it can read")

    def _send_key(self, rest: str) -> None:
        name, _, path = rest.partition("/")
        tree = next((v.tree for v in self.server.viewing.served if v.name == name), None)
        key = key_of(path)
        size = tree.size(key) if tree and key else None
        if tree is None or key is None or size is None:
            self._refuse(404, "no such key", SHARED)
            return
        asked = None if self.headers.get("If-Range") else self.headers.get("Range")
        try:
            part = byte_range(asked, size) if self.command == "GET" else None
        except UnsatisfiableError:
            self._refuse(416, "no such bytes", SHARED | {"Content-Range": f"bytes */{size}"})
            return
        start, stop = part or (0, size)
        headers = SHARED | {"Accept-Ranges": "bytes", "Content-Type": content_type(key)}
        if part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        pieces = tree.read(key, start, stop) if self.command == "GET" else iter(())
        self._stream(206 if part else 200, pieces, stop - start, headers)

    def _stream(
        self, code: int, pieces: Iterator[bytes], length: int, headers: dict[str, str]
    ) -> None:
        """The status is sent when the first piece is there: what cannot be read is an error.

        After that, an end that comes too early is all that can be told.
        """
        try:
            first = next(pieces, b"")
        except FileNotFoundError:
            self._refuse(404, "no such key", SHARED)
            return
        self._begin(code, length, headers)
        self.wfile.write(first)
        try:
            sent = len(first) + sum(self.wfile.write(piece) for piece in pieces)
        except (N2VScaleError, FileNotFoundError):
            sent = 0
        if self.command == "GET" and sent != length:
            self.close_connection = True

    def _preflight(self, rest: str) -> None:
        headers = {"Allow": METHODS}
        if rest.startswith("data/"):
            headers |= SHARED | {
                "Access-Control-Allow-Methods": METHODS,
                "Access-Control-Allow-Headers": "Range, If-Range, Content-Type, Cache-Control",
                "Access-Control-Max-Age": "600",
            }
            if self.headers.get("Access-Control-Request-Private-Network") == "true":
                headers["Access-Control-Allow-Private-Network"] = "true"
        self._send(204, headers=headers)

    def _refuse(self, code: int, why: str, headers: dict[str, str] | None = None) -> None:
        kind = {"Content-Type": "text/plain; charset=utf-8"}
        self._send(code, f"{why}\n".encode(), kind | (headers or {}))

    def _send(self, code: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self._begin(code, len(body), headers or {})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, code: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        if code != 204:
            self.send_header("Content-Length", str(length))
        for name, value in {
            **headers,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }.items():
            self.send_header(name, value)
        self.end_headers()


def _is_loopback(host: str) -> bool:
    """Whether a ``Host`` header names this machine, with or without a port.

    >>> _is_loopback("localhost:8000"), _is_loopback("[::1]"), _is_loopback("evil.example:8000")
    (True, True, False)
    """
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, "0"
    return name.lower() in LOOPBACK_NAMES and port.isdecimal()
