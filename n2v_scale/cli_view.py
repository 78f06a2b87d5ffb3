"""The command that shows volumes."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from n2v_scale.options import remote


@click.command()
@click.argument("volumes", nargs=-1, required=True, metavar="VOLUME...")
@click.option("--noisy", metavar="ADDRESS", help="Beside it. Default: what it was made from.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="On 127.0.0.1. Default: a free one."
)
@click.option("--no-browser", is_flag=True, help="Only print the links.")
@remote
def view(
    volumes: tuple[str, ...],
    noisy: str | None,
    port: int,
    no_browser: bool,
    storage_options: dict[str, Any],
) -> None:
    """Look at volumes, noisy and denoised, in a web browser.

    Serves them read-only to this machine alone until Ctrl-C, and prints links for the built-in
    viewer, Neuroglancer, vizarr and napari. The noisy volume is found by the record of how the
    first one was made. Nothing is copied: what is on the screen is read, at its resolution.

    \b
    Example:
      n2v-scale view denoised.zarr
      n2v-scale view denoised.zarr other.zarr --noisy volume.zarr --no-browser
    """
    from n2v_scale.io.storage_options import StorageOptions
    from n2v_scale.viewing.choice import chosen_volumes
    from n2v_scale.viewing.session import serve

    storage = StorageOptions.of(storage_options)
    choice = chosen_volumes(volumes, noisy=noisy, storage_options=storage)
    serve(choice, port=port, browser=not no_browser, say=partial(click.echo, err=False))
