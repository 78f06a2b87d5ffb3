"""The page of the command line, from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import click

from n2v_scale.cli import EXIT_CODES, cli
from n2v_scale.options import camera, division, on_cluster, selection, storage

PROGRAM = "n2v-scale"
INTRODUCTION = f"""# The command line

Made from the program itself: `{PROGRAM} COMMAND --help` says the same. Results go to stdout,
progress and messages to stderr. Sizes are voxels along `z,y,x`; one number means all three.

"""


def group_of(decorator: Callable[..., Any]) -> frozenset[str]:
    """The names of the options that a decorator adds."""

    def nothing(**_: Any) -> None:
        pass

    decorated = click.command()(decorator(nothing))
    return frozenset(option.name for option in decorated.params if option.name)


GROUPS = {
    "What of the volume": group_of(selection),
    "How the output is stored": group_of(storage),
    "The camera, where it is known": group_of(camera),
    "How the work is divided": group_of(division),
    "Where to compute": group_of(on_cluster),
}
"""Options that several commands share, by the title under which they are folded."""


def cli_page() -> str:
    """Markdown: every command, argument and option, and the exit codes."""
    codes = "".join(f"| {code} | {what} |\n" for code, what in EXIT_CODES.items())
    exits = f"## Exit codes\n\n| code | meaning |\n|---|---|\n{codes}"
    own = "\n".join(_table([param for param in cli.params if isinstance(param, click.Option)]))
    before = f"## Options before the command\n\n{own}\n"
    return INTRODUCTION + "\n".join([_list(), exits, before, *map(_section, commands())])


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its words, such as ``cluster check``."""
    yield from _inside(cli, "")


def _inside(group: click.Group, before: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _inside(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def _list() -> str:
    lines = [
        f"| [`{name}`](#{PROGRAM}-{name.replace(' ', '-')}) | {command.get_short_help_str(200)} |"
        for name, command in commands()
    ]
    return "\n".join(["| command | |", "|---|---|", *lines, ""])


def _section(named: tuple[str, click.Command]) -> str:
    name, command = named
    context = click.Context(command, info_name=f"{PROGRAM} {name}")
    text, example = _help(command)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## {PROGRAM} {name}", "", text, "", f"```text\n{usage}\n```", ""]
    if example:
        parts += [f"```sh\n{example}\n```", ""]
    options = [param for param in command.params if isinstance(param, click.Option)]
    there = {option.name for option in options}
    shared = {
        title: [option for option in options if option.name in names]
        for title, names in GROUPS.items()
        if names <= there
    }
    own = [o for o in options if not any(o in some for some in shared.values())]
    parts += [*_table(own), ""]
    for title, some in shared.items():
        if some:
            parts += [f'??? info "{title}"', "", *(f"    {row}" for row in _table(some)), ""]
    return "\n".join(parts)


def _help(command: click.Command) -> tuple[str, str]:
    """The text and the example's lines."""
    text, _, example = inspect.cleandoc(command.help or "").partition("\b\nExample:\n")
    lines = [line.strip() for line in example.splitlines() if line.strip()]
    return text.replace("\b\n", "").strip(), "\n".join(lines)


def _table(options: list[click.Option]) -> list[str]:
    return [
        "| option | meaning | default |",
        "|---|---|---|",
        *(
            f"| {_names(option)} | {_meaning(option)} | {default_of(option)} |"
            for option in options
        ),
    ]


def _names(option: click.Option) -> str:
    names = " ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if option.is_flag or option.count:
        return names
    context = click.Context(click.Command("none"))
    return f"{names} {_escaped(option.make_metavar(context))}"


def _meaning(option: click.Option) -> str:
    said = re.sub(r"\s*\[default: [^\]]*\]", "", option.help or "")
    return _escaped(said) + (" Needed." if option.required else "")


def default_of(option: click.Option) -> str:
    """What holds when the option is not given: as click knows it, or as the help says it."""
    if said := re.search(r"\[default: ([^\]]*)\]", option.help or ""):
        return _escaped(said[1])
    if option.required or option.multiple or option.count:
        return ""
    if option.secondary_opts:
        return "" if option.default is not True else f"`{option.opts[0]}`"
    if option.is_flag:
        return ""
    return "" if not isinstance(option.default, str | int | float) else f"{option.default}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("[", "\\[")
