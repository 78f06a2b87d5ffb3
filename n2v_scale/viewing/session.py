"""Serving until Ctrl-C: what is said, and the browser that is opened."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Thread

from n2v_scale.errors import ConfigError
from n2v_scale.viewing.choice import Choice
from n2v_scale.viewing.links import napari_command
from n2v_scale.viewing.server import Server, Viewing

Say = Callable[[str], None]


def serve(choice: Choice, *, port: int = 0, browser: bool = True, say: Say = print) -> None:
    """Serve the volumes on 127.0.0.1 until Ctrl-C or SIGTERM, after saying where.

    Parameters
    ----------
    choice
        What is shown.
    port
        0 for one that is free.
    browser
        Open the built-in page, where there is a browser with a window.
    say
        Is given each line for the user.

    Raises
    ------
    ConfigError
        When the port is taken.
    """
    try:
        server = Server(Viewing(choice.volumes), port)
    except OSError as error:
        raise ConfigError(
            f"port {port} cannot be had ({error.strerror}): choose another, or leave out --port"
        ) from error
    with server:
        for line in what_to_say(choice, server):
            say(line)
        if browser and has_window(os.environ):
            Thread(target=_open, args=(f"{server.url}/",), daemon=True).start()
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def what_to_say(choice: Choice, server: Server) -> list[str]:
    """The volumes, the remarks and the links, line by line."""
    volumes = server.viewing.volumes
    width = max(len(volume.role) for volume in volumes)
    lines = []
    for volume in volumes:
        t, c, z, y, x = volume.volume.shape
        more = "".join(f", {n} {what}" for n, what in ((c, "channels"), (t, "times")) if n > 1)
        size = f"{volume.volume.dtype}, {z} × {y} × {x}{more}"
        lines.append(f"{volume.role:{width}}  {volume.volume.address}  ({size})")
    lines += [f"note: {remark}" for remark in choice.remarks]
    served = server.viewing.served
    lines += ["", f"viewer        {server.url}/"]
    if served:
        lines += [
            f"Neuroglancer  {server.url}/open/neuroglancer",
            f"vizarr        {server.url}/open/vizarr",
            f"napari        {napari_command(server.url, served)}",
        ]
    for volume in volumes:
        if volume.tree is None:
            lines.append(f"note: {volume.name} is no zarr: only the viewer here can show it")
    return [*lines, "", "Who has a link can read these volumes, on this machine. Ctrl-C ends it."]


def has_window(environment: Mapping[str, str]) -> bool:
    """Whether a browser would open a window, and not take the terminal over.

    >>> has_window({"SSH_CONNECTION": "10.0.0.1 22"})
    False
    """
    if "BROWSER" in environment:
        return True
    if sys.platform in ("win32", "darwin"):
        return "SSH_CONNECTION" not in environment
    return any(environment.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _open(url: str) -> None:
    with suppress(webbrowser.Error):
        webbrowser.open(url)
