"""Recipes of strangers: plain values within limits, refused at once and in words that repeat no other file."""

import os
import time
from typing import get_args

import pytest
from annotated_types import Ge, Gt, Le, Lt

from nlpmeta.cli import main
from nlpmeta.errors import NLPMetaError
from nlpmeta.online.meta_files import OnlineTaskSettings
from nlpmeta.settings import Settings, SettingsError
from nlpmeta.training.recipe_files import LARGEST, load_recipe, plain_value

DATA = "data: [{source: injongo}]\n"


def write(folder, content, name="mine.yaml"):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def refused(name, changes=(), kind=NLPMetaError):
    began = time.thread_time()
    with pytest.raises(kind) as caught:
        load_recipe(name, changes)
    assert time.thread_time() - began < 5
    message = str(caught.value)
    assert len(message) < 1500
    return message


def billions():
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (billions(), "aliases"),
        ("a: &a {b: *a}", "aliases"),
        ("base: &x protonet\nout: *x", "aliases"),
        ("x: &x {steps: 1}\n<<: *x", "aliases"),
        ("<<: {steps: 1}\n" + DATA, "<< is not a setting"),
        ("a: " + "[" * 5000, "inside one another"),
        ("a: " + "{a: " * 5000, "inside one another"),
        ("\n".join(" " * i + "a:" for i in range(300)), "inside one another"),
        ("steps: " + "9" * 5000 + "\n" + DATA, "4300 digits"),
        ("steps: 0x" + "f" * 5000 + "\n" + DATA, "thousands of digits"),
        ("steps: 1\nsteps: 2\n" + DATA, "'steps' is there twice"),
        (DATA + "encoder: {name: a, name: b}", "'name' is there twice"),
        ("? [a, b]\n: 1", "is no text"),
        ("? {a: b}\n: 1", "unhashable|is no text"),
        ("true: 1\n" + DATA, "is no text"),
        ("out: !!python/object/apply:os.system [id]", "tag"),
        ("out: !!binary aGk=\n" + DATA, "tag"),
        ("out: !!timestamp 2024-01-01\n" + DATA, "tag"),
        ("out: !!set {a, b}\n" + DATA, "tag"),
        ("out: !mine x\n" + DATA, "tag"),
        ("steps: 2024-01-01\n" + DATA, "steps: should be a valid integer"),
        ("out: ${oc.env:HOME}/x\n" + DATA, "no variables"),
        ("${a}: 1\n" + DATA, "no variables"),
        ("data: [{source: '${oc.decode:x}'}]", "no variables"),
        ('out: "a\\0b"\n' + DATA, "does not print"),
        ('out: "a\\x1b[2J"\n' + DATA, "does not print"),
        ('out: "\\ud800"\n' + DATA, "not print|not a recipe"),
        ("a: 1\n---\nb: 2", "line 2"),
        ("%YAML 9.9\n---\na: 1", "not a recipe"),
        (b"\xff\xfea\x00:\x001\x00", "not UTF-8"),
        (b"PK\x03\x04" + bytes(range(256)), "not UTF-8|not a recipe"),
        (b"a: \x00", "not a recipe"),
        ("x" * (LARGEST + 1), "the limit"),
        ("[" + "1," * 30_000 + "]", "more than 20000 values"),
        ("", "holds no keys"),
        ("just text", "holds no keys"),
    ],
)
def test_what_a_stranger_may_write_into_a_recipe_is_refused_at_once(tmp_path, content, message):
    import re

    said = refused(write(tmp_path, content))
    assert re.search(message, said), said


def test_a_folder_a_pipe_a_device_and_a_long_name_are_no_recipes(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for path in (tmp_path / "pipe.yaml", tmp_path / "folder.yaml", "/dev/zero"):
        assert "not a regular file" in refused(str(path))
    assert "not a regular file" in refused(write(tmp_path, f"base: {tmp_path / 'pipe.yaml'}"))
    assert main(["train", "x" * 5000, "-q"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and len(said) < 400 and "too long" in said


def test_a_base_that_is_another_file_of_this_machine_is_not_shown(tmp_path):
    secret = write(tmp_path, "user: [me, 'my password", "secret")
    assert "password" not in refused(write(tmp_path, f"base: {secret}"))


def test_recipes_that_are_one_anothers_base_end_in_a_sentence(tmp_path):
    write(tmp_path, "base: two.yaml", "one.yaml")
    write(tmp_path, f"base: ../{tmp_path.name}/one.yaml", "two.yaml")
    assert "its own base" in refused(str(tmp_path / "one.yaml"))
    for i in range(12):
        write(tmp_path, f"base: {i + 1}.yaml", f"{i}.yaml")
    assert "in a row" in refused(str(tmp_path / "0.yaml"))


@pytest.mark.parametrize(
    ("change", "bound"),
    [
        ("episodes_per_step=999999999", "4096"),
        ("seed=" + str(10**23), "4294967295"),
        ("seed=10**23", "4294967295"),
        ("seed=0x" + "f" * 9000, "4294967295"),
        ("steps=1.e+400", "finite"),
        ("learning_rate=1e30", "finite number less than or equal to 10 "),
        ("learning_rate=nan", "finite"),
        ("head_learning_rate=.inf", "finite"),
        ("max_grad_norm=.nan", "finite"),
        ("max_grad_norm=1e400", "finite"),
        ("weight_decay=-.inf", "finite"),
        ("ema=.nan", "finite"),
        ("contrastive_temperature=1e-300", "0.001"),
        ("data.language_temperature=1e-9", "0.01"),
        ("data.0.weight=1e300", "1000000"),
        ("data.0.n_way=[0,3]", "n_way.0: should be greater than or equal to 1"),
        ("data.n_shot=1000000000000", "10000"),
        ("learner_options.temperature=.inf", "finite"),
        ("learner_options.temperature=1e300", "1000000"),
        ("adapter.rank=99999999", "4096"),
        ("adapter.alpha=1e39", "1000000"),
        ("encoder.max_length=99999999999", "100000"),
    ],
)
def test_numbers_beyond_all_use_name_their_bound(change, bound):
    said = refused("protonet", [change], SettingsError)
    assert bound in said and change.partition("=")[0].rpartition(".")[2] in said


@pytest.mark.parametrize(
    "change",
    ["a" * 5000 + "=1", "a.b.c.d.e.f.g.h.i.j.k=1", "steps=[1", "steps=&a [*a]", "out=${oc.env:HOME}", "a b=1", "a[0]=1",
     "steps.a.b=1", "data.999999999.weight=1", "data.-1.weight=1", "out=" + "x" * 5000, "data=" + "[" * 3000],
)  # fmt: skip
def test_changes_on_the_command_line_are_read_with_the_same_limits(change):
    said = refused("protonet", [change])
    assert os.environ.get("HOME", "/root") not in said.replace(os.getcwd(), "")


def test_only_what_is_wrong_is_named(tmp_path):
    said = refused(write(tmp_path, "data: [{source: injongo, n_way: [1, x]}]\nsteps: [1, 2, 3]\nzzz: 1\n"))
    assert said.splitlines()[0].endswith("3 settings are wrong:")
    assert "injongo" not in said and "learning_rate" not in said
    many = refused(write(tmp_path, DATA + "".join(f"wrong_{i}: 1\n" for i in range(500))))
    assert "500 settings are wrong" in many and "and 480 more" in many


def test_plain_values_are_read_as_they_always_were():
    assert plain_value("{a: 1, b: 1.5, c: yes, d: null, e: [x, 'y'], f: 1e-3, g: -2.0E+1, h: 2024-01-01}") == {
        "a": 1, "b": 1.5, "c": True, "d": None, "e": ["x", "y"], "f": 0.001, "g": -20.0, "h": "2024-01-01",
    }  # fmt: skip
    assert plain_value("") is None and plain_value("1.2.3") == "1.2.3" and plain_value("'a\tb'") == "a\tb"


def every_settings_class(base=Settings):
    import nlpmeta.online.meta_files
    import nlpmeta.online.stream
    import nlpmeta.training  # noqa: F401

    for kind in base.__subclasses__():
        yield kind
        yield from every_settings_class(kind)


def test_every_number_that_can_be_set_is_bounded_on_both_sides():
    checked = 0
    for kind in every_settings_class():
        for name, field in kind.model_fields.items():
            for part in (field.annotation, *get_args(field.annotation)):
                if part in (int, float) and not (part is int and bool in get_args(field.annotation)):
                    marks = {type(each) for each in field.metadata}
                    assert marks & {Ge, Gt} and marks & {Le, Lt}, f"{kind.__name__}.{name}"
                    checked += 1
    assert checked > 50


def test_wrong_settings_in_a_saved_file_are_one_line():
    """Only a person who wrote a recipe needs them as a list."""
    wrong = {"buffer": [0], "seed": 1e308, "unknown": 1}
    with pytest.raises(SettingsError) as refused:
        OnlineTaskSettings.parse(wrong, where="online.json", saved=True)
    message = str(refused.value)
    assert message.startswith("online.json: 3 settings are wrong: buffer: ") and "\n" not in message
    assert "seed: " in message and "unknown is not a setting." in message
