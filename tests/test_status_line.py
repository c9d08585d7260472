"""Something to see on a terminal before large libraries are imported, and nothing of it anywhere else."""

import io
import os
import pty
import subprocess
import sys
import time
from inspect import signature
from types import SimpleNamespace

import pytest
from typer.main import get_command

from nlpmeta import progress
from nlpmeta.cli import app, console
from nlpmeta.cli.process import LOADING

WITHOUT_ENCODER = {"info", "push", "report", "recipes", "data"}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    stream = Terminal()
    for module in (progress, console):
        monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=stream, stdout=stream))
    yield stream
    progress.clear_status()


def seen(stream):
    """What stands on the last line: a carriage return writes over it."""
    line = ""
    for part in stream.getvalue().rpartition("\n")[2].split("\r"):
        line = part + line[len(part) :]
    return line.strip()


def test_the_line_stands_until_it_is_taken_away(terminal):
    progress.show_status("Loading")
    assert seen(terminal) == "Loading"
    progress.clear_status()
    assert seen(terminal) == ""
    written = terminal.getvalue()
    progress.clear_status()
    assert terminal.getvalue() == written


@pytest.mark.parametrize(
    "speak", [lambda: console.say("found"), lambda: console.out("found"), lambda: console.out_json(1)]
)
def test_whatever_else_is_said_takes_its_place(terminal, speak):
    progress.show_status("Loading the encoder")
    speak()
    assert "Loading" not in seen(terminal)


def test_it_needs_no_escape_codes(terminal):
    progress.show_status("Loading")
    progress.clear_status()
    assert "\x1b" not in terminal.getvalue()


def test_it_is_not_shown_where_nobody_looks(monkeypatch, terminal):
    progress.show_status("Loading", show=False)
    assert not terminal.getvalue()
    plain = io.StringIO()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=plain))
    progress.show_status("Loading")
    assert not plain.getvalue()


def test_every_command_that_loads_the_encoder_has_it():
    commands = get_command(app).commands
    shown = {name for name, command in commands.items() if "loads_encoder" in _wrappers(command.callback)}
    assert set(commands) - shown <= WITHOUT_ENCODER


def _wrappers(callback):
    found = set()
    while callback is not None:
        found.add(callback.__code__.co_qualname.partition(".")[0])
        callback = getattr(callback, "__wrapped__", None)
    return found


def test_a_wrapped_command_keeps_its_options():
    from nlpmeta.cli.predict import predict
    from nlpmeta.cli.process import loads_encoder

    assert signature(loads_encoder(predict)) == signature(predict)


@pytest.mark.parametrize(("more", "expected"), [([], True), (["--quiet"], False), (["--json"], False)])
def test_a_terminal_shows_it_within_two_seconds_and_before_torch_is_there(more, expected, tmp_path):
    """``torch`` is one that reports when it is imported and never comes."""
    (tmp_path / "torch.py").write_text(
        "import sys\nsys.stderr.write('IMPORTED')\nsys.stderr.flush()\nraise SystemExit(7)\n"
    )
    ours, theirs = pty.openpty()
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "nlpmeta", "predict", "no-such-model", "a text", *more],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])},
    )
    os.close(theirs)
    text = b""
    while b"IMPORTED" not in text:
        try:
            more_text = os.read(ours, 1000)
        except OSError:
            break
        if not more_text:
            break
        text += more_text
    process.wait(timeout=60)
    os.close(ours)
    before = text.decode().partition("IMPORTED")[0]
    assert (LOADING in before) == expected
    assert time.monotonic() - start < 60
