"""Commands, options and functions that the text of a page names, outside its blocks."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from n2v_scale import config
from n2v_scale.cli import cli

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
ARGUMENT = re.compile(r"^[A-Z][A-Z.…]*$")
OTHERS = {
    "--configfile": "snakemake",
    "--cores": "snakemake",
    "--constraint": "sbatch",
    "--gres": "sbatch",
    "--signal": "sbatch",
    "--help": "every command",
    "--plugin": "napari",
}
"""Options that are not ours, and whose they are."""
SETTINGS = ("TrainSettings", "PredictSettings", "CameraSettings", "ClusterSettings")


def spans(page):
    """What stands between single backticks, on one line or two."""
    return [" ".join(found.split()) for found in CODE.findall(page.prose())]


def every(group, before=()):
    """(words, command) of every command."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every(command, (*before, name))
        else:
            yield (*before, name), command


def options():
    known = {name for param in cli.params for name in param.opts}
    for _, command in every(cli):
        for param in command.params:
            known |= {*param.opts, *param.secondary_opts}
    return known


def check_command(words):
    """Its options exist and their values can be; arguments may be missing, and ``…`` is any."""
    command, rest = cli, [word for word in words if word != "…"]
    context = click.Context(cli)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"there is no command {rest[0]}"
        command = command.commands[rest.pop(0)]
    if isinstance(command, click.Group):
        assert set(rest) <= options() | {"-vv", "COMMAND", "--help"}, rest
        return
    context = click.Context(command)
    kept, values = [], {name for param in command.params for name in param.opts}
    for word, following in zip(rest, [*rest[1:], "--"], strict=False):
        if word in values and following.startswith("--") and takes_a_value(command, word):
            continue  # named alone, without its value
        kept.append(word)
    given, _, _ = command.make_parser(context).parse_args(kept)
    for param in command.params:
        value = given.get(param.name)
        if isinstance(param, click.Option) and isinstance(value, str) and "…" not in value:
            param.type_cast_value(context, value)


def takes_a_value(command, word):
    (option,) = (param for param in command.params if word in param.opts)
    return not option.is_flag


def without_alternatives(text):
    """``a|b|c`` is its first."""
    return re.sub(r"\|[\w:/.…]+", "", text)


def test_commands_that_are_named_exist(page):
    for span in spans(page):
        if span.startswith("n2v-scale "):
            words = shlex.split(without_alternatives(span))[1:]
            words = [word for word in words if not ARGUMENT.match(word)]
            try:
                check_command(words)
            except (click.ClickException, AssertionError) as error:
                pytest.fail(f"{page.name}: `{span}`: {error}")


def of_scripts():
    """Options of benchmarks and workflows."""
    scripts = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "workflows").rglob("*.py")]
    return {o for path in scripts for o in re.findall(r'"(--[\w-]+)"', path.read_text())}


def test_options_that_are_named_exist(page):
    known = options() | set(OTHERS) | of_scripts()
    found = {
        option for span in spans(page) for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)
    }
    assert found <= known, f"{page.name}: {sorted(found - known)}"


def test_scripts_that_are_named_exist(page):
    for span in spans(page):
        if found := re.match(r"python ((?:docs|benchmarks|workflows)/\S+\.py)(.*)", span):
            script = ROOT / found[1]
            assert script.is_file(), f"{page.name}: {script}"
            source = script.read_text()
            for option in re.findall(r"--[\w-]+", found[2]):
                named = f'"{option}"' in source or "from bm_" in source
                assert named, f"{page.name}: {found[1]} has no {option}"


def test_functions_that_are_named_take_what_they_are_given(page, verbs):
    fields = {name for kind in SETTINGS[:3] for name in getattr(config, kind).model_fields}
    for span in spans(page):
        found = re.match(r"(?:n2v_scale\.)?(\w+)\(.+\)$", span)
        if not found or found[1] not in verbs:
            continue
        call = ast.parse(span, mode="eval").body
        names = {keyword.arg for keyword in call.keywords}
        unknown = names - set(verbs[found[1]].parameters) - fields
        assert not unknown, f"{page.name}: {span}: {unknown}"


def test_an_option_that_is_not_there_is_found():
    with pytest.raises(click.NoSuchOption):
        check_command(["predict", "…", "--everywhere"])
    with pytest.raises(click.BadParameter):
        check_command(["train", "--method", "best"])
    with pytest.raises(AssertionError, match="predikt"):
        check_command(["predikt"])


@pytest.mark.parametrize(("words", "command"), list(every(cli)), ids=lambda value: str(value))
def test_a_command_and_its_options_have_help(words, command):
    assert command.help
    assert f"n2v-scale {' '.join(words)}" in command.help, "an example"
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, f"{' '.join(words)} {param.opts[0]}"


def test_every_command_is_in_a_page_that_somebody_wrote(pages):
    said = "\n".join(page.text for page in pages)
    for words, _ in every(cli):
        assert re.search(rf"n2v-scale {' '.join(words)}\b", said), words
