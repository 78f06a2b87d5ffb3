"""The command as a user meets it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from n2v_scale.errors import ConfigError
from n2v_scale.viewing import session
from n2v_scale.viewing.choice import chosen_volumes
from n2v_scale.viewing.session import has_window, serve


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_end_and_is_quiet_then(pair, number):
    command = [sys.executable, "-m", "n2v_scale", "view", str(pair.denoised), "--no-browser"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said += line
        url = re.search(r"^viewer +(http://127\.0\.0\.1:\d+/\S+/)$", said, re.MULTILINE)[1]
        with urllib.request.urlopen(url) as answer:
            assert answer.status == 200
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest, errors) == (0, "", "")
    assert re.search(rf"^noisy +{re.escape(str(pair.noisy))} ", said, re.MULTILINE)
    assert f"Neuroglancer  {url}open/neuroglancer\n" in said
    assert f"vizarr        {url}open/vizarr\n" in said
    line = f"napari        napari --plugin napari-ome-zarr {url}data/noisy.zarr {url}data/denoised"
    assert line in said


def interrupt(monkeypatch):
    def stop(self, poll_interval=0.5):
        raise KeyboardInterrupt

    monkeypatch.setattr(session.Server, "serve_forever", stop)


@pytest.mark.parametrize(("browser", "window"), [(True, True), (True, False), (False, True)])
def test_a_browser_is_opened_where_there_is_one(pair, monkeypatch, browser, window):
    class Now:
        def __init__(self, target, args, **_):
            self.start = lambda: target(*args)

    opened, said = [], []
    interrupt(monkeypatch)
    monkeypatch.setattr(session, "has_window", lambda _: window)
    monkeypatch.setattr(session, "Thread", Now)
    monkeypatch.setattr(session.webbrowser, "open", opened.append)
    serve(chosen_volumes([str(pair.denoised)]), browser=browser, say=said.append)
    links = [line.split()[1] for line in said if line.startswith("viewer")]
    assert opened == (links if browser and window else [])


def test_windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert has_window({"DISPLAY": ":0"})
    assert has_window({"WAYLAND_DISPLAY": "wayland-0"})
    assert has_window({"BROWSER": "firefox"})
    assert not has_window({"TERM": "xterm"})
    monkeypatch.setattr(sys, "platform", "darwin")
    assert has_window({})
    assert not has_window({"SSH_CONNECTION": "10.0.0.1"})


def test_a_port_that_is_taken_is_said(pair):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} cannot be had .*another"):
            serve(chosen_volumes([str(pair.denoised)]), port=port)


def test_what_only_the_page_can_show_is_said(pair, moved, monkeypatch, tmp_path):
    import tifffile

    from tests.viewing.conftest import values

    tifffile.imwrite(tmp_path / "noisy.tif", values(), metadata={"axes": "ZYX"})
    said = []
    interrupt(monkeypatch)
    choice = chosen_volumes([str(pair.denoised)], noisy=str(tmp_path / "noisy.tif"))
    serve(choice, browser=False, say=said.append)
    assert "note: noisy.tif is no zarr: only the viewer here can show it" in said
    assert "noisy.tif" not in next(line for line in said if line.startswith("napari"))


def test_help_says_that_nobody_else_can_look():
    command = [sys.executable, "-m", "n2v_scale", "view", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert "to this machine alone" in done.stdout
