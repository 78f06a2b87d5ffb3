"""Completion of commands, options, choices and paths in a shell."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from n2v_scale.errors import ConfigError

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "n2v-scale"
VARIABLE = "_N2V_SCALE_COMPLETE"
"""That click looks for, when it is asked to complete."""
ADDRESSES = {"ADDRESS", "FOLDER", "MASK", "MODEL", "VOLUME"}
"""Options with one of these for a value are completed as paths, as every argument is."""
_HOW = {
    "bash": 'put into ~/.bashrc: eval "$(n2v-scale completion bash)"',
    "zsh": 'put into ~/.zshrc, after compinit: eval "$(n2v-scale completion zsh)"',
    "fish": "run once: n2v-scale completion fish > ~/.config/fish/completions/n2v-scale.fish",
}


class Address(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """A path or a URL; the shell completes paths."""

    name = "text"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 (click gives it)
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Whatever files and folders there are: the shell knows them."""
        return [CompletionItem(incomplete, type="file")]


class ClusterWord(click.ParamType):  # type: ignore[type-arg]
    """A batch system, a preset, or a scheduler's address or file."""

    name = "WORD"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Batch systems and the user's presets; files where none begins so."""
        from n2v_scale.cluster_settings import BATCH_SYSTEMS, preset_names

        words = [w for w in ("local", *BATCH_SYSTEMS, *preset_names()) if w.startswith(incomplete)]
        return [CompletionItem(word) for word in words] or [CompletionItem(incomplete, type="file")]


def complete_addresses(group: click.Group) -> None:
    """Let the shell complete paths for every argument, and every option that takes an address."""
    for command in group.commands.values():
        if isinstance(command, click.Group):
            complete_addresses(command)
        for parameter in command.params:
            address = isinstance(parameter, click.Argument) or parameter.metavar in ADDRESSES
            if address and parameter.type is click.STRING:
                parameter.type = Address()


def completion_script(program: click.Command, shell: str) -> str:
    """What ``shell`` runs to complete our commands; it begins by saying how to install it.

    Raises
    ------
    ConfigError
        When click knows no such shell.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise ConfigError(f"no completion for {shell}: choose {', '.join(SHELLS)}")
    script = kind(program, {}, PROGRAM, VARIABLE).source().strip()
    first, _, rest = script.partition("\n")
    how = f"# {_HOW[shell]}"
    if first.startswith("#compdef"):  # zsh reads this in the first line only
        return f"{first}\n{how}\n{rest}"
    return f"{how}\n{script}"
