"""Models and tables of strangers: refused in one line, whatever is wrong with them."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from fuzzing import bounded, cases, outcome, prepare
from fuzzing_signed import prepare_signed, signed_cases
from safetensors.torch import load_file, save_file

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.cli import main
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError
from nlpmeta.learners.base import learners
from nlpmeta.sources import form as table_form
from nlpmeta.sources.file import FileSource
from nlpmeta.storage.files import sha256
from nlpmeta.storage.tensors import read_tensors


@pytest.fixture(scope="module")
def ground(encoder_folder, tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("ground"), encoder_folder)


@pytest.fixture
def folder(ground, tmp_path):
    return shutil.copytree(ground.folder / "adapted", tmp_path / "model")


def signed(folder):
    """With the checksums of what is there: what follows is about files that a stranger made on purpose."""
    manifest = json.loads((folder / "nlpmeta.json").read_text())
    manifest["files"] = {path.name: sha256(path) for path in folder.iterdir() if path.name != "nlpmeta.json"}
    (folder / "nlpmeta.json").write_text(json.dumps(manifest))
    return folder


def change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return signed(folder)


def refused(folder, message, kind=NLPMetaError):
    with pytest.raises(kind, match=message) as caught:
        FewShotClassifier.from_pretrained(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "files"),
    [("model folder", 120), ("model folder with adapters", 60), ("table", 120), ("encoder folder", 20)],
)
@pytest.mark.filterwarnings("ignore")
def test_mutated_files_are_loaded_or_refused_and_nothing_else(ground, tmp_path, kind, files):
    load = cases(ground)[kind]
    with bounded():
        found = {number: outcome(load, number, tmp_path / "mutated") for number in range(10**6, 10**6 + files)}
    assert {number: said for number, said in found.items() if said not in ("loaded", "refused")} == {}
    assert list(found.values()).count("refused") > files / 2


@pytest.fixture(scope="module")
def signed_ground(encoder_folder, tmp_path_factory):
    ground = prepare(tmp_path_factory.mktemp("signed"), encoder_folder)
    prepare_signed(ground)
    return ground


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::nlpmeta.errors.DataWarning")  # the texts are long on purpose
@pytest.mark.parametrize(
    ("kind", "files"),
    [("model", 40), ("checkpoint", 12), ("stream", 20), ("tasks", 40), ("head", 20), ("user", 20)],
)
def test_content_that_was_changed_and_signed_is_refused_or_keeps_every_promise(signed_ground, tmp_path, kind, files):
    load = signed_cases(signed_ground)[f"signed {kind}"]
    found = {number: outcome(load, number, tmp_path / "mutated") for number in range(10**6, 10**6 + files)}
    assert {number: said for number, said in found.items() if said not in ("loaded", "refused")} == {}
    assert {"loaded", "refused"} <= set(found.values())  # or the digests are wrong, or nothing was changed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer_norm_eps": float("nan")}, "not finite"),
        ({"layer_norm_eps": -1e6}, "not finite"),
        ({"_attn_implementation": "somebody/kernel"}, "code from the Hub"),
        ({"attn_implementation": "somebody/kernel@main:run"}, "code from the Hub"),
    ],
)
def test_settings_that_make_an_encoder_none_are_refused_when_it_is_loaded(encoder_folder, tmp_path, change, said):
    copy = shutil.copytree(encoder_folder, tmp_path / "encoder")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelFolderError, match=said):
        TextEncoder.from_pretrained(str(copy), max_length=32)


def test_a_weight_that_is_no_number_is_found_when_a_text_meets_it(encoder_folder, tmp_path):
    copy = shutil.copytree(encoder_folder, tmp_path / "encoder")
    weights = load_file(copy / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][5] = float("inf")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    encoder = TextEncoder.from_pretrained(str(copy), max_length=32)
    word = encoder.tokenizer.convert_ids_to_tokens(5)
    with pytest.raises(ModelFolderError, match="not finite"):
        encoder.encode([word])


def test_a_pickle_is_not_loaded_whatever_it_is_called(folder):
    ran = folder.parent / "ran"
    pickle = b"cos\nsystem\n(S'touch " + str(ran).encode() + b"'\ntR."
    for name in ("task.safetensors", "adapter_model.safetensors", "learner.safetensors", "labels.json"):
        copy = shutil.copytree(folder, folder.parent / name)
        (copy / name).write_bytes(pickle)
        refused(signed(copy), "damaged", ModelFolderError)
    assert not ran.exists()


def test_code_that_comes_with_an_encoder_is_not_run_and_nobody_is_asked(encoder_folder, tmp_path):
    folder = shutil.copytree(encoder_folder, tmp_path / "encoder")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoTokenizer": ["evil.T", None]}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": auto_map}))
    with pytest.raises(ModelFolderError, match="cannot be loaded"):
        TextEncoder.from_pretrained(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["labels.json", "task.safetensors", "adapter_config.json", "support.json"])
def test_links_out_of_the_folder_are_not_followed(folder, name, tmp_path):
    outside = shutil.move(folder / name, tmp_path / name)
    (folder / name).symlink_to(outside)
    refused(folder, "leads out of")
    (folder / name).unlink()
    (folder / name).symlink_to(name)  # to itself
    refused(folder, "leads nowhere|missing|leads out")


def test_a_manifest_that_is_a_link_or_lists_paths_outside_is_refused(folder, tmp_path):
    for path in ("../outside.json", "/etc/passwd", "a/../../b", "a\x00b"):
        manifest = json.loads((folder / "nlpmeta.json").read_text())
        manifest["files"][path] = "0" * 64
        copy = shutil.copytree(folder, tmp_path / f"copy{len(path)}")
        (copy / "nlpmeta.json").write_text(json.dumps(manifest))
        refused(copy, "leads out of|leads nowhere")
    moved = shutil.move(folder / "nlpmeta.json", tmp_path / "nlpmeta.json")
    (folder / "nlpmeta.json").symlink_to(moved)
    refused(folder, "leads out of")


def test_a_file_that_nobody_listed_is_not_read(folder):
    manifest = json.loads((folder / "nlpmeta.json").read_text())
    del manifest["files"]["support.json"]
    (folder / "nlpmeta.json").write_text(json.dumps(manifest))
    refused(folder, "does not list", ModelFolderError)


def test_a_pipe_in_the_place_of_a_file_does_not_hang(folder):
    (folder / "labels.json").unlink()
    os.mkfifo(folder / "labels.json")
    refused(folder, "not a regular file", ModelFolderError)


def test_another_version_says_which_release_reads_it(folder):
    manifest = json.loads((folder / "nlpmeta.json").read_text())
    later = rf"format version 7.*reads up to 1.*nlpmeta>={re.escape(manifest['nlpmeta'])}"
    for version, message in ((7, later), (0, "damaged"), ("1", "damaged")):
        (folder / "nlpmeta.json").write_text(json.dumps({**manifest, "format_version": version}))
        refused(folder, message, ModelFolderError)
    (folder / "nlpmeta.json").write_text(json.dumps({**manifest, "format_version": 9, "nlpmeta": "1; rm -rf /"}))
    refused(folder, "damaged", ModelFolderError)


def test_shapes_that_do_not_fit_are_refused(folder):
    state = load_file(folder / "task.safetensors")
    for name, odd in {
        "narrow": {"prototypes": state["prototypes"][:, :-1].contiguous()},
        "few": {"prototypes": state["prototypes"][:1].contiguous()},
        "none": {"other": state["prototypes"]},
        "whole": {"prototypes": state["prototypes"].to(torch.int64)},
        "not finite": {"prototypes": state["prototypes"] * float("nan")},
    }.items():
        copy = shutil.copytree(folder, folder.parent / name)
        save_file(odd, copy / "task.safetensors")
        refused(signed(copy), "does not fit|is for 1 classes|not finite", ModelFolderError)


def _in_memory(name, make):
    """The state of a stream with another tensor of that name."""
    return lambda state: {**state, name: make(state[name]).contiguous()}


@pytest.mark.parametrize("method", ["mann", "rnn", "snail"])
def test_a_memory_that_could_not_be_written_on_is_refused_when_it_is_loaded(method, ground, tmp_path):
    torch.manual_seed(0)
    made = FewShotClassifier(learners[method](ground.encoder).eval()).fit(["ball", "goal", "rice"], ["a", "a", "b"])
    made.save_pretrained(tmp_path / "whole")
    FewShotClassifier.from_pretrained(tmp_path / "whole").partial_fit(["loan"], ["c"])
    state, changes = load_file(tmp_path / "whole" / "task.safetensors"), {}
    for name, value in state.items():
        changes[f"{name} of two streams"] = _in_memory(name, lambda tensor: torch.cat([tensor, tensor]))
        changes[f"{name} with one dimension more"] = _in_memory(name, lambda tensor: tensor.unsqueeze(0))
        changes[f"{name} flat and without its end"] = _in_memory(name, lambda tensor: tensor.flatten()[:-1])
        changes[f"{name} of another kind"] = _in_memory(name, lambda tensor: tensor.to(torch.float64))
        changes[f"{name} not there"] = lambda state, name=name: {k: v for k, v in state.items() if k != name}
        if not value.is_floating_point():
            changes[f"{name} below all"] = _in_memory(name, lambda tensor: tensor * 0 - 2)
    changes["one place for two"] = _in_memory("slots", lambda tensor: tensor * 0)
    for case, changed in changes.items():
        copy = shutil.copytree(tmp_path / "whole", tmp_path / case)
        save_file(changed(state), copy / "task.safetensors")
        refused(signed(copy), "does not fit|is for . classes|is damaged", ModelFolderError)


def test_a_text_of_half_a_character_is_refused_where_it_is_read(folder):
    for name, key in (("adapter_config.json", "base_model_name_or_path"), ("nlpmeta.json", "nlpmeta")):
        refused(change(folder, name, **{key: "\ud800"}), "damaged", ModelFolderError)
    refused(change(folder, "nlpmeta.json", nlpmeta="0.1.0"), "damaged", ModelFolderError)
    change(folder, "adapter_config.json", base_model_name_or_path="\N{GRINNING FACE}")  # written as two halves
    FewShotClassifier.from_pretrained(folder).predict(["ball"])


def test_a_giant_header_and_a_header_that_lies_take_no_memory(tmp_path):
    path = tmp_path / "x.safetensors"
    for content, message in {
        (2**40).to_bytes(8, "little") + b"{}": "claims",
        (100).to_bytes(8, "little") + b"{}": "claims",
        b"\x02": "claims",
        _header({"a": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 4]}}): "does not fit",
        _header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**12]}}): "does not fit",
        _header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}): "impossible",
        _header({"a": {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 4]}}): "unknown kind",
        _header(["a"]): "not an object",
    }.items():
        path.write_bytes(content)
        with bounded(), pytest.raises(ModelFolderError, match=message):
            read_tensors(path)


def _header(value):
    text = json.dumps(value).encode()
    return len(text).to_bytes(8, "little") + text + b"\x00\x00\x80?"


@pytest.mark.parametrize(
    "values",
    [
        {"target_modules": "(a+)+$"},
        {"target_modules": ["(a+)+$"]},
        {"rank_pattern": {"(a+)+$": 4}},
        {"megatron_config": {}, "megatron_core": "os"},
        {"auto_mapping": None, "init_lora_weights": "pissa"},
        {"r": 10**9},
        {"r": 8},
        {"peft_type": "PREFIX_TUNING"},
        {"use_dora": True},
        {"modules_to_save": ["embeddings"]},
        {"lora_alpha": float("inf")},
    ],
    ids=str,
)
def test_an_adapter_that_is_more_than_plain_lora_is_refused(folder, values):
    refused(
        change(folder, "adapter_config.json", **values), "damaged|plain LoRA|not fit|not the config", ModelFolderError
    )


def test_options_and_encoders_of_strangers_are_bounded(folder, encoder_folder, tmp_path):
    for learner in (
        {"name": "maml", "options": {"inner_steps": 10**9}},
        {"name": "x"},
        {"name": "knn", "options": {"k": []}},
    ):
        refused(change(folder, "nlpmeta.json", learner=learner), "no method named|does not describe", NLPMetaError)
    config = json.loads((encoder_folder / "config.json").read_text())
    for odd in (
        {"hidden_size": 10**6},
        {"num_hidden_layers": 10**9},
        {"vocab_size": 10**12},
        {"intermediate_size": -1},
    ):
        copy = shutil.copytree(encoder_folder, tmp_path / str(odd))
        (copy / "config.json").write_text(json.dumps({**config, **odd}))
        with bounded(), pytest.raises(ModelFolderError, match="does not fit|damaged"):
            TextEncoder.from_pretrained(str(copy))


def test_labels_that_could_drive_a_terminal_are_shown_and_not_obeyed(ground, tmp_path, capsys):
    labels = ["\x1b[2Jgone", "\x9b31mred", "tab\there\nline"]
    classifier = FewShotClassifier("ridge", encoder=ground.encoder).fit(["ball", "rice", "loan"], labels)
    classifier.save_pretrained(tmp_path / "model")
    folder = str(tmp_path / "model")
    for arguments in (["predict", folder, "ball", "\x1b[5mx"], ["info", folder]):
        for form in ([], ["--json"]):
            assert main([*arguments, *form]) == 0
            written = capsys.readouterr().out
            assert all(c.isprintable() or c in "\n\t" for c in written), repr(written)
            if form:
                for line in written.splitlines():
                    assert set(json.loads(line).get("labels", labels)) <= set(labels)
    assert FewShotClassifier.from_pretrained(folder).classes_.tolist() == sorted(labels)


def test_classes_that_are_none_are_refused(folder):
    for labels in ([], ["a"], ["a", "a"], ["a", 1], "ab", [["a"], ["b"]], ["a", "\ud800"]):
        refused(change(folder, "labels.json", labels=labels), "damaged", ModelFolderError)


def test_odd_tables_are_read_or_refused_by_line(tmp_path, monkeypatch):
    monkeypatch.setattr(table_form, "LONGEST_LINE", 1 << 20)

    def table(name, content):
        (tmp_path / name).write_bytes(content)
        return FileSource(tmp_path / name).load()

    assert table("q.csv", b'text,label\n"a ""b"", c\nd",x\ne,y\n').texts == ('a "b", c\nd', "e")
    assert table("nul.csv", b"text,label\na\x00b,x\nc,y\n").texts[0] == "a\x00b"
    assert (
        table("nul.jsonl", b'{"text": "a\\u0000b", "label": "x"}\n{"text": "c", "label": "y"}\n').texts[0] == "a\x00b"
    )
    assert table("utf16.csv", "text,label\na,x\nb,y\n".encode("utf-16")).texts == ("a", "b")
    for name, content, message in (
        ("open.csv", b'text,label\n"a,x\n' + b"b,y\n" * 60_000, "field larger|unexpected end"),
        ("long.csv", b"text,label\n" + b"a" * (2 << 20) + b",x\n", "line 2: longer|field larger"),
        ("long.jsonl", b'{"text": "' + b"a" * (2 << 20) + b'", "label": "x"}\n', "line 1: longer"),
        ("mixed.csv", "text,label\nhé,x\n".encode() + "hé,y\n".encode("latin-1"), "line 3: byte 0xe9 is not UTF-8"),
        ("wide.csv", "text,label\na,x\nb,y\n".encode("utf-16") + b"\x00\xd8", "is not utf-16 throughout"),
        ("half.jsonl", b'{"text": "\\ud800", "label": "x"}\n', "line 1: not valid JSON"),
        ("huge.jsonl", b'{"text": "a", "label": ' + b"9" * 5000 + b"}\n", "line 1: not valid JSON"),
        ("deep.jsonl", b"[" * 100_000 + b"\n", "line 1: not valid JSON"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            table(name, content)
        assert "\n" not in str(caught.value)


def test_a_line_of_fifty_megabytes_is_refused_without_taking_that_much(tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_bytes(b'{"text": "' + b"a" * (50 << 20) + b'", "label": "x"}\n')
    with bounded(), pytest.raises(DataError, match="line 1: longer than 16 million characters"):
        FileSource(path).load()


def test_half_a_character_is_no_text(ground):
    classifier = FewShotClassifier("ridge", encoder=ground.encoder)
    with pytest.raises(DataError, match="row 1 is not Unicode text"):
        classifier.fit(["a", "b\ud800"], ["x", "y"])
    with pytest.raises(DataError, match="a label that is not Unicode"):
        classifier.fit(["a", "b"], ["x", "\udfff"])
    assert np.isfinite(classifier.fit(["a\x00", "b"], ["x", "y"]).predict_proba(["\x00\x1b"])).all()


def test_weights_that_transformers_would_make_up_are_refused(encoder_folder, tmp_path):
    weights = load_file(encoder_folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("query.weight"))
    for kind, odd in (("missing", None), ("another shape", weights[name][:, :-1].contiguous())):
        copy = shutil.copytree(encoder_folder, tmp_path / kind)
        changed = {**weights, name: odd} if odd is not None else {k: v for k, v in weights.items() if k != name}
        save_file(changed, copy / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelFolderError, match="do not fit its config.json; 1 are missing|cannot be loaded"):
            TextEncoder.from_pretrained(str(copy))


@pytest.mark.parametrize("memory", ["much", {"n_bytes": "\x1b[5m"}, {"n_bytes": 1}, None])
def test_a_memory_that_is_no_size_is_refused(folder, memory, capsys):
    manifest = json.loads((folder / "nlpmeta.json").read_text())
    (folder / "nlpmeta.json").write_text(json.dumps({**manifest, "memory": memory}))
    assert main(["info", str(folder)]) == 1
    said = capsys.readouterr()
    assert "is damaged" in said.err
    assert "\x1b" not in said.err + said.out
