"""The command line as a process: full and closed streams, places that cannot be written, signals."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from nlpmeta.cli import main
from nlpmeta.errors import NLPMetaError, WorkFailedError, reason_of, visible
from nlpmeta.storage.files import disk_errors_said_plainly, new_file, write_text
from nlpmeta.storage.folders import new_folder

IN_SHELL = f"{sys.executable} -m nlpmeta"


def shell(line):
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)  # noqa: S603, S607
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "--version",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("recipes list", "recipes keys", "data --help")),
    ],
)
def test_a_full_disk_at_standard_output_is_one_sentence_and_exit_code_1(command):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    done = shell(f"{IN_SHELL} {command} > /dev/full")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: Standard output cannot be written: the disk is full; free some space or choose another place.\n"
    )


def test_a_closed_standard_output_is_one_sentence_and_exit_code_1():
    done = shell(f"{IN_SHELL} recipes list >&-")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Standard output is closed" in done.stderr


@pytest.mark.slow
def test_closed_input_and_closed_notes_do_no_harm():
    assert shell(f"{IN_SHELL} recipes list 2>&- <&-").returncode == 0
    assert shell(f"{IN_SHELL} train no-such-thing 2>&-").returncode == 2


@pytest.mark.slow
def test_a_reader_that_has_had_enough_is_no_mistake():
    done = shell(f"{IN_SHELL} recipes keys | head -1; echo ${{PIPESTATUS[0]}}")
    assert done.stderr == "" and done.stdout.splitlines()[-1] in ("0", "1")


def test_labels_that_the_code_of_a_terminal_lacks_are_escaped():
    code = "import nlpmeta.cli as cli; from nlpmeta.cli.console import out\n"
    code += "cli.app.command('work')(lambda: out('habari \\u0101'))\ncli.entry()"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, "work"], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"habari \\u0101\n", b"")


CODE = """
import os, signal, sys, time
import nlpmeta.cli as cli
from nlpmeta.storage.folders import new_folder
from pathlib import Path

for name in ("SIGHUP", "SIGTERM"):  # whatever nohup or a shell's & made of them
    signal.signal(getattr(signal, name), signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

@cli.app.command()
def work(out: Path) -> None:
    with new_folder(out) as folder:
        (folder / "half").write_text("written")
        print("ready", flush=True)
        time.sleep(600)

cli.entry()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_with_one_sentence_and_leaves_no_temporary_file(tmp_path, number, code):
    command = [sys.executable, "-c", CODE, "work", str(tmp_path / "model")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:  # noqa: S603
        assert running.stdout is not None and running.stdout.readline() == "ready\n"
        assert any(tmp_path.iterdir())
        running.send_signal(number)
        _, said = running.communicate(timeout=250)  # by itself it would take longer
    assert (running.returncode, said) == (code, "Stopped; nothing half-written was left behind.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_keyboard_interrupt_inside_a_command_says_that_it_stopped(monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("nlpmeta.training.recipe_files.shipped_recipes", interrupted)
    assert main(["recipes", "list"]) == 130
    assert capsys.readouterr().err == "Stopped; nothing half-written was left behind.\n"


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_error_of_the_operating_system_is_a_sentence(number, tmp_path):
    if number in (errno.EPIPE, errno.ESHUTDOWN, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET):
        return
    if isinstance(OSError(number, ""), TimeoutError):
        return
    with pytest.raises(WorkFailedError, match="Cannot write") as caught, disk_errors_said_plainly(tmp_path / "x"):
        raise OSError(number, os.strerror(number))
    assert reason_of(OSError(number, os.strerror(number))) in str(caught.value)
    assert "Errno" not in str(caught.value)


def test_an_error_about_another_file_is_not_said_to_be_about_the_one_that_is_written(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "out" / "x") as stream:
        stream.write((tmp_path.parent / "missing" / "input.txt").read_text())


@pytest.mark.parametrize("place", ["file/x", "file", "x" * 300, "x" * 300 + "/x", "loop/x", "\x00"])
def test_places_that_cannot_be_written_are_refused_in_a_sentence(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for write in (lambda path: new_folder(path).__enter__(), lambda path: write_text(path / "y", "")):
        with pytest.raises((NLPMetaError, OSError, ValueError)):
            write(tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_error_of_the_system_that_nobody_expected_is_one_sentence(monkeypatch, capsys):
    def refused(*_):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), "a\x1b[31m\nb")

    monkeypatch.setattr("nlpmeta.training.recipe_files.shipped_recipes", refused)
    assert main(["recipes", "list"]) == 1
    assert capsys.readouterr().err == r"Error: a\x1b[31m\nb: transport endpoint is not connected." + "\n"


def test_no_message_carries_control_characters_or_a_novel():
    said = str(NLPMetaError("a\x1b[2Jb\nc\ud800\u202e" + "x" * 100_000 + " Do this."))
    assert said.startswith(r"a\x1b[2Jb\nc\ud800\u202exxx") and said.endswith("xx Do this.")
    assert said.isprintable() and len(said) < 4100
    assert visible("y" * 201) == "y" * 200 + "…"


@pytest.mark.parametrize("place", ["file", "file/x", "file/x/y", "x" * 300, "loop/x", "link"])
@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_place_where_no_run_can_be_is_refused_before_anything_is_loaded(tmp_path, place, resume, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link").symlink_to("/dev/null")
    monkeypatch.setattr("nlpmeta.training.engine.build_learner", lambda recipe: pytest.fail("it went on"))
    assert main(["train", "protonet-tiny", f"out={tmp_path / place}", "steps=1", "-q", *resume]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and said.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"
