"""Every option that README, docs or a help text names is one that the command has."""

import inspect
import itertools
import os
import re
import subprocess
import sys
import typing
from functools import cache

import pytest
import typer
from documents import ROOT, documents

from nlpmeta.cli import app, main

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9_-]*[a-z0-9]")
DECLARED = re.compile(r"[\"'](--[a-z][a-z0-9-]*[a-z0-9])[\"']")
COMMAND = re.compile(r"\bnlpmeta ((?:[a-z]+ )?[a-z]+)")
ELSEWHERE = {  # hf download, accelerate launch
    "docs/data.md": {"--repo-type"},
    "docs/cli.md": {"--num_processes"},
    "docs/guides/scale.md": {
        *("--multi_gpu", "--num_machines", "--num_processes"),
        *("--machine_rank", "--main_process_ip", "--main_process_port"),
    },
}
"""Options of programs that are not ours, by page."""


def of_our_scripts():
    """What the scripts of benchmarks and tools take."""
    sources = [
        path.read_text(encoding="utf-8") for name in ("benchmarks", "tools") for path in (ROOT / name).glob("*.py")
    ]
    return {option for source in sources for option in DECLARED.findall(source)}


@cache
def commands():
    """The options of each command, by its words."""
    found = {}

    def walk(command, words):
        names = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
        found[words] = {name for name in names if name.startswith("--")} | {"--help"}
        for name, each in getattr(command, "commands", {}).items():
            walk(each, (*words, name))

    walk(typer.main.get_command(app), ())
    return found


GUNICORN = {"--workers", "--threads", "--preload"}
"""What the guide to serving in threads gives to that program."""


def of_no_command(line):
    """The options in a line that the command before them lacks; none where the line shows no command of ours."""
    shown = COMMAND.search(line)
    words = tuple(shown[1].split()) if shown else ()
    own = next((commands()[some] for some in (words, words[:1]) if some and some in commands()), None)
    return [] if own is None or shown is None else sorted(set(OPTION.findall(line[shown.end() :])) - own)


def pages():
    return [*documents(), *sorted((ROOT / "recipes").rglob("*.yaml"))]


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_that_a_page_names_exists(path):
    every = set().union(*commands().values(), of_our_scripts(), ELSEWHERE.get(str(path.relative_to(ROOT)), set()))
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        named = set(OPTION.findall(line))
        named -= GUNICORN
        assert named <= every, f"{path.name}, line {number}: {sorted(named - every)} is an option of no command"
        if line.lstrip().startswith(("$ ", "nlpmeta ", "# nlpmeta ")):
            assert not (wrong := of_no_command(line)), f"{path.name}, line {number}: the command has no {wrong}"


@pytest.mark.parametrize("words", sorted(commands()), ids=lambda words: " ".join(words) or "nlpmeta")
def test_every_option_that_a_help_text_names_exists(words):
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    said = [command.help or "", *(str(getattr(each, "help", "") or "") for each in command.params)]
    for text in said:
        assert set(OPTION.findall(text)) <= set().union(*commands().values()), (words, text)
    for line in (command.epilog or "").splitlines():
        assert not of_no_command(line), line


sys.path.insert(0, str(ROOT / "docs"))


def of_several_commands():
    """The options that more than one command has, with the commands that have them."""
    found = {}
    for words, options in commands().items():
        for name in options - {"--help", "--install-completion", "--show-completion"}:
            found.setdefault(name, []).append(words)
    return {name: words for name, words in found.items() if len(words) > 1}


def test_the_table_of_options_has_each_that_several_commands_have_and_no_other():
    from make_cli import SHARED

    assert set(SHARED) == set(of_several_commands())


def test_an_option_takes_the_same_kind_of_value_in_every_command():
    def kind(words, name):
        command = typer.main.get_command(app)
        for word in words:
            command = command.commands[word]
        given = next(each for each in command.params if name in each.opts)
        taken, *_ = typing.get_args(inspect.signature(command.callback).parameters[given.name].annotation)
        kinds = [each for each in typing.get_args(taken) if each is not type(None)]
        return str(kinds[0] if len(kinds) == 1 else taken)

    for name, every in of_several_commands().items():
        kinds = {kind(words, name) for words in every}
        assert len(kinds) == 1 or name == "--ways", (name, kinds)  # of evaluate it may be 'all' as well


OTHER_SPELLINGS = {
    "--license", "--language", "--languages", "--langs", "--output", "--out-dir", "--output-dir", "--input", "--force",
    "--verbose", "--max-tokens", "--random-seed", "--n-shots", "--k-shot", "--label-names", "--data-folder", "--format",
    "--no-progress", "--model-name", "--batch-size",
}  # fmt: skip
"""What others call what has a name here already, or what is chosen by itself."""


def test_no_command_calls_by_another_name_what_has_one():
    every = set().union(*commands().values())
    assert not every & OTHER_SPELLINGS
    assert not [name for name in every if "_" in name]


@pytest.mark.parametrize("words", sorted(words for words in commands() if words), ids=" ".join)
def test_every_command_has_examples_in_its_help(words):
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    assert "nlpmeta " in (command.epilog or ""), "give it examples: app.command(epilog=EXAMPLES)"


def test_every_option_of_a_command_says_what_it_is():
    def walk(command):
        for each in command.params:
            assert getattr(each, "hidden", False) or (getattr(each, "help", None) or "").strip(), (
                command.name,
                each.name,
            )
        for each in getattr(command, "commands", {}).values():
            walk(each)

    walk(typer.main.get_command(app))


def test_the_first_page_of_help_fits_a_screen_and_loads_nothing_heavy():
    code = (
        "import sys; from nlpmeta.cli import main; main(['--help']); "
        "heavy = {'torch', 'numpy', 'transformers', 'sklearn', 'huggingface_hub'} & set(sys.modules); "
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.rstrip().splitlines()
    assert 24 <= len(lines) <= 40, len(lines)
    for name in {words[0] for words in commands() if words}:
        assert sum(line.startswith(f"│ {name} ") for line in lines) == 1, name


def test_paragraphs_of_help_are_wrapped_to_the_terminal_and_not_where_the_source_is(capsys):
    assert main(["teach", "--help"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("Accuracy is cross-validated"))
    paragraph = lines[start : lines.index("", start)]
    following = [len(f"{line} {after.split()[0]}") for line, after in itertools.pairwise(paragraph)]
    assert following and min(following) > max(map(len, paragraph)) - 2, paragraph
