"""The command that teaches a shell our commands."""

from __future__ import annotations

import click

from n2v_scale.completion import SHELLS, completion_script


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands, options, paths.

    Its first lines say how to install it.

    \b
    Example:
      n2v-scale completion bash
      eval "$(n2v-scale completion bash)"
    """
    click.echo(completion_script(context.find_root().command, shell))
