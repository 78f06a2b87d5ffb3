"""Every command and every example of every page runs, from top to bottom, as it stands there.

Each page has a folder of its own. What a block reads and nothing before it has written is given
by the world (:mod:`conftest`); what a section writes is deleted first, so that its commands do
their work again where an earlier section has done the same. The lines that cannot run here are
in :data:`ELSEWHERE`; the words of these are checked all the same.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from n2v_scale.cli import cli
from n2v_scale.cluster_settings import ClusterSettings, read_cluster
from n2v_scale.config import PredictSettings, TrainSettings, read_settings
from n2v_scale.errors import ConfigError

ROOT = Path(__file__).parents[2]
ADDED = {"demo": ["--shape", "24,64,64"], "simulate": ["--shape", "24,64,64"]}
"""Words at the end of commands that would take minutes."""
ENDPOINT = "https://storage.example.org"
"""Any S3 service in the docs; here one on the loopback."""
ELSEWHERE = {
    r"^(train|predict|cluster check) (?!.*--submit-only).*--cluster (slurm|gpu)\b": (
        "jobs of a SLURM: tests/slurm, on a real one"
    ),
    r"--cluster (tls://|tcp://|scheduler\.json)": (
        "a scheduler that somebody else started: tests/integration/test_existing_scheduler.py"
    ),
    r"^train .*--devices": "four processes: tests/test_parallel.py",
    r"^view ": "a server that runs until Ctrl-C: tests/viewing and tests/browser",
}
"""Commands that cannot run here, and who runs them."""
NEEDED = {"docs/start.md": {"stack.tif"}}
"""All that a tutorial may ask its reader to have."""
READERS = {"verify", "pyramid"}
"""Commands whose OUTPUT was written by another."""
WRITTEN = {"output", "noisy", "clean"}
"""Parameters that name what a command writes; of evaluate, ``noisy`` is read."""
HARMLESS = {"cd", "source", "ssh", "tmux", "exit"}
"""What a reader does at the shell, which says nothing of this package."""
SHELL = {"sh", "bash", "console"}


class Line:
    """One logical line of a shell block: ``NAME=value … program words``."""

    def __init__(self, text, number):
        self.text, self.number = text, number
        words = shlex.split(text, comments=True)
        self.environment = {}
        while words and re.match(r"[A-Z_][A-Z0-9_]*=", words[0]):
            name, _, value = words.pop(0).partition("=")
            self.environment[name] = value
        self.words = words
        self.expected = []

    @property
    def program(self):
        return Path(self.words[0]).name if self.words else ""


def lines_of(block):
    """The commands of a shell block; in ``console`` those after ``$``, and the errors shown."""
    found, pending, start = [], "", 0
    for number, line in enumerate(block.text.splitlines(), block.line):
        if block.language == "console" and not pending:
            if not line.startswith("$ "):
                if line.startswith(("error:", "incomplete:", "Error:", "warning:")):
                    found[-1].expected.append(line)
                elif found and found[-1].expected and line.strip():
                    found[-1].expected[-1] += f" {line.strip()}"
                continue
            line = line.removeprefix("$ ")
        start = start or number
        if line.endswith("\\"):
            pending += line.removesuffix("\\") + " "
            continue
        text, pending = (pending + line).strip(), ""
        if text and not text.startswith("#"):
            found.append(Line(text, start))
        start = 0
    return found


def kind_of(block):
    """The language; a block without one is shell where it begins with a program of RULES."""
    if block.language:
        return block.language
    first = re.sub(r"^([A-Z_]+=\S+ )*", "", block.text.strip()).split()
    return "sh" if first and Path(first[0]).name in RULES else "text"


class Reader:
    """Somebody who follows a page."""

    def __init__(self, page, folder, world, run, storage):
        self.page, self.folder, self.world = page, folder, world
        self.run, self.storage = run, storage
        self.given = set()

    def read(self):
        for section in self.page.sections():
            self.forget(section)
            for block in section.blocks:
                kind = kind_of(block)
                if kind in SHELL:
                    for line in lines_of(block):
                        self.do(line)
                else:
                    KINDS[kind](self, block)

    def at(self, number):
        return f"{self.page.name}:{number}"

    def forget(self, section):
        """Delete what this section is about to write."""
        for block in section.blocks:
            try:
                names = written(block)
            except (click.ClickException, AssertionError, ConfigError, SyntaxError):
                continue  # told with the line, when it is read
            for name in names:
                path = self.folder / name
                if path.is_dir():
                    shutil.rmtree(path)
                path.unlink(missing_ok=True)
                shutil.rmtree(f"{path}.filter", ignore_errors=True)

    def provide(self, text, *, but=()):
        """Files of the world that a block names and does not write itself."""
        for name in self.world.names:
            if name not in but and re.search(rf"(?<![\w/.-]){re.escape(name)}(?![\w.])", text):
                if not (self.folder / name).exists():
                    self.given.add(name)
                self.world.give(name, self.folder)

    def do(self, line):
        where = f"{self.at(line.number)}: {line.text}"
        assert line.program in RULES, f"{where}: nobody knows how to check {line.program!r}"
        try:
            RULES[line.program](self, line)
        except (click.ClickException, AssertionError, ConfigError) as error:
            told = error.format_message() if isinstance(error, click.ClickException) else error
            raise AssertionError(f"{where}\n{told}") from error

    def n2v_scale(self, line):
        words = line.words[1:]
        parsed(words)
        words += ADDED.get(words[0], []) if words else []
        if elsewhere(words):
            self.cluster(words)
            return
        if any("s3://" in word for word in words):
            endpoint = self.storage(self.world)
            words = [word.replace(ENDPOINT, endpoint) for word in words]
        self.provide(" ".join(words), but=outputs(words))
        said = self.run(*words)
        assert "Traceback" not in said.err
        for expected in line.expected:
            assert said.code, "an error is shown, and there is none"
            assert re.search(pattern_of(expected), " ".join(said.err.split())), said.err
        assert line.expected or said.code == 0, f"{said.code}: {said.err}"

    def cluster(self, words):
        """The settings of a cluster that is not there are valid all the same."""
        _, given = parsed(words)
        self.provide(" ".join(words), but=outputs(words))
        names = ("jobs", "tls_ca", "tls_cert", "tls_key", "insecure")
        told = {name: given.get(name) for name in names}
        read_cluster(given.get("cluster"), given.get("cluster_config"), **told)

    def python(self, block):
        self.provide(block.text, but=written_by_python(block.text))
        code = compile("\n" * (block.line - 1) + block.text, str(self.page.name), "exec")
        exec(code, {"__name__": "__main__"})

    def toml(self, block):
        """Valid for what it is for; its first line may name the file as which it is kept."""
        values = tomllib.loads(block.text)
        named = re.match(r"# ([\w.-]+\.toml)", block.text)
        file = self.folder / (named[1] if named else "example.toml")
        file.write_text(block.text)
        kinds = {kind.table: kind for kind in (TrainSettings, PredictSettings, ClusterSettings)}
        if set(values) & set(kinds):
            for name in values:
                assert name in kinds, f"{self.at(block.line)}: there is no table [{name}]"
                read_settings(kinds[name], file)
            return
        wrong = {}
        for name, kind in kinds.items():
            try:
                read_settings(kind, file)
            except ConfigError as error:
                wrong[name] = str(error)
        assert len(wrong) < len(kinds), f"{self.at(block.line)}: no settings: {wrong}"

    def text(self, block):
        names = "|".join(cli.commands)
        commands = re.findall(rf"^(?:\$ )?n2v-scale (?:{names})\b.*", block.text, re.MULTILINE)
        assert not commands, f"{self.at(block.line)}: mark this block as sh: {commands[0]}"

    def json(self, block):
        json.loads(block.text)

    def jsonl(self, block):
        assert [json.loads(line) for line in block.text.splitlines()]

    def yaml(self, block):
        assert yaml.safe_load(block.text)

    # programs other than ours

    def make(self, line):
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(line.words[1:]) <= set(targets)

    def pip(self, line):
        """Extras that there are, versions that were tested, files that exist."""
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        pinned = (ROOT / "constraints.txt").read_text().lower().splitlines()
        for word in line.words[1:]:
            if named := re.fullmatch(r"(?:\.|n2v-scale)\[([\w,-]+)\]", word):
                assert set(named[1].split(",")) <= set(extras["optional-dependencies"])
            if "==" in word:
                assert word in pinned
            if word.endswith(".txt"):
                assert (ROOT / word).is_file()

    def interpreter(self, line):
        """Of our scripts, lazy_step.py and those of ``-m n2v_scale`` run; tests run the others."""
        if line.words[1:3] == ["-m", "n2v_scale"]:
            line.words = ["n2v-scale", *line.words[3:]]
            self.n2v_scale(line)
        elif line.words[1] != "-m":
            script, *words = line.words[1:]
            assert (ROOT / script).is_file(), f"there is no {script}"
            source = (ROOT / script).read_text()
            for option in re.findall(r"--[\w-]+", " ".join(words)):
                assert f'"{option}"' in source, f"{script} has no {option}"

    def sbatch(self, line):
        script = next(word for word in line.words[1:] if not word.startswith("-"))
        source = (ROOT / script).read_text()
        for name, options in line.environment.items():
            assert f"{name}" in source
            command = name.removesuffix("_OPTIONS").lower()
            parsed([command, *shlex.split(options)], whole=False)

    def launcher(self, line):
        """torchrun and srun: what they launch is checked."""
        found = {"n2v_scale", "n2v-scale"} & set(line.words)
        assert found, "it launches nothing of ours"
        parsed(line.words[line.words.index(found.pop()) + 1 :])

    def snakemake(self, line):
        known = yaml.safe_load((ROOT / "workflows/snakemake/config.yaml").read_text())
        for word in line.words[1:]:
            if word.startswith("workflows/"):
                assert (ROOT / word).exists()
            if "=" in word:
                assert word.partition("=")[0] in known

    def export(self, line):
        assert all("=" in word for word in line.words[1:])

    def mkdir(self, line):
        for word in line.words[1:]:
            if not word.startswith("-"):
                Path(word).expanduser().mkdir(parents=True, exist_ok=True)

    def nano(self, line):
        """A file that this page shows, its name in the first line."""
        file = Path(line.words[1]).expanduser()
        blocks = [block for section in self.page.sections() for block in section.blocks]
        shown = [block.text for block in blocks if block.text.startswith(f"# {file.name}")]
        assert shown, f"no block of this page begins with # {file.name}"
        file.write_text(shown[0])

    def nothing(self, line):
        """Of no concern."""


RULES = {
    "n2v-scale": Reader.n2v_scale,
    "make": Reader.make,
    "pip": Reader.pip,
    "python": Reader.interpreter,
    "python3": Reader.interpreter,
    "sbatch": Reader.sbatch,
    "torchrun": Reader.launcher,
    "srun": Reader.launcher,
    "snakemake": Reader.snakemake,
    "export": Reader.export,
    "mkdir": Reader.mkdir,
    "nano": Reader.nano,
    **dict.fromkeys(HARMLESS, Reader.nothing),
}
"""What is done with a line of each program. A program that is not here fails the test."""
KINDS = {
    name: getattr(Reader, name) for name in ("python", "toml", "text", "json", "jsonl", "yaml")
}
"""What is done with a block that is no shell. A language that is not here fails the test."""


def parsed(words, *, whole=True):
    """(command's words, its parameters): options that exist and values that can be.

    ``whole``: nothing that is needed is left out.
    """
    command, path, rest = cli, [], list(words)
    if rest[:1] == ["--version"]:
        return ["--version"], {}
    while isinstance(command, click.Group):
        name = rest.pop(0) if rest else ""
        assert name in command.commands, f"there is no command {' '.join([*path, name])}"
        path, command = [*path, name], command.commands[name]
    context = click.Context(command, info_name=name)
    if whole:
        context = command.make_context(name, rest)
        values = context.params
    else:
        given, _, _ = command.make_parser(context).parse_args(rest)
        values = {
            param.name: param.type_cast_value(context, given[param.name])
            for param in command.params
            if param.name in given and isinstance(param, click.Option)
        }
    return path, values


def outputs(words):
    """Names that a command writes."""
    path, values = parsed(words)
    if path[0] in READERS:
        return set()
    names = WRITTEN if path == ["simulate"] else {"output"}
    return {str(values[name]) for name in names if values.get(name)}


def elsewhere(words):
    """The patterns of ELSEWHERE that a command is under."""
    return [pattern for pattern in ELSEWHERE if re.search(pattern, " ".join(words))]


def written(block):
    """Names that a block writes."""
    if block.language == "python":
        return written_by_python(block.text)
    if kind_of(block) not in SHELL:
        return set()
    ours = [line for line in lines_of(block) if line.program == "n2v-scale" and not line.expected]
    return {name for line in ours for name in outputs(line.words[1:])} - {""}


def written_by_python(code):
    """What calls of ours are given as ``output``."""
    found = set()
    for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        place = {"train": 1, "baseline": 1, "import_volume": 1, "predict": 2}.get(name)
        if place is not None and isinstance(call.args[place], ast.Constant):
            found.add(call.args[place].value)
    return found


def pattern_of(message):
    """What is written in a page of an error: … stands for anything."""
    return ".*?".join(re.escape(part) for part in " ".join(message.split()).split("…"))


def test_a_reader_who_follows_the_page(page, here, world, run, storage):
    reader = Reader(page, here, world, run, storage)
    reader.read()
    assert reader.given <= NEEDED.get(page.name, set(world.names))


def test_what_runs_elsewhere_is_in_some_page(pages):
    """No entry of the table that is there for nothing."""
    lines = [
        line
        for page in pages
        for section in page.sections()
        for block in section.blocks
        if kind_of(block) in SHELL
        for line in lines_of(block)
        if line.program == "n2v-scale"
    ]
    used = {pattern for line in lines for pattern in elsewhere(line.words[1:])}
    assert used == set(ELSEWHERE)


def test_a_line_that_is_wrong_is_found(here, world, run, storage):
    """Of the mechanism itself: options, values, programs, exit codes, TOML."""
    from types import SimpleNamespace

    def follow(language, text):
        block = SimpleNamespace(language=language, text=text, line=7)
        page = SimpleNamespace(name="p", sections=lambda: [SimpleNamespace(blocks=[block])])
        Reader(page, here, world, run, storage).read()

    for language, text, message in (
        ("sh", "n2v-scale info volume.zarr --nope\n", "No such option"),
        ("sh", "n2v-scale train volume.zarr -o m --method best\n", "best"),
        ("sh", "n2v-scale info nothing.zarr\n", "nothing.zarr"),
        ("sh", "n2v-scale predikt\n", "no command predikt"),
        ("sh", "n2v-scale predict v m o --cluster slurm --tls-ca ca.pem\n", "tls-ca"),
        ("sh", "n2v-scale predict v m o --cluster slurm --jobs 0\n", "jobs"),
        ("sh", "denoise everything\n", "nobody knows"),
        ("sh", "pip install 'n2v-scale[everything]'\n", "everything"),
        ("console", "$ n2v-scale info volume.zarr\nerror: it is gone\n", "there is none"),
        ("toml", 'system = "slurm"\njob = 4\n', "no settings"),
        ("text", "n2v-scale info volume.zarr\n", "mark this block as sh"),
    ):
        with pytest.raises(AssertionError, match=message):
            follow(language, text)
