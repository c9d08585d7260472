"""Exported models give the same probabilities in the libraries that they are for."""

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TOPICS
from safetensors.torch import load_file, save_file

from nlpmeta.auto.method import AutoHead
from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.cli import main
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import DataWarning, NLPMetaError
from nlpmeta.export import export
from nlpmeta.export.head import exported_heads, linear_heads, plain_encoders
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.maml import MAML
from nlpmeta.learners.prototypical import MatchingNetwork, NearestNeighbours, PrototypicalNetwork
from nlpmeta.learners.ridge import RidgeHead

pytestmark = pytest.mark.filterwarnings("ignore:.* longer than the 16 tokens")
TEXTS = ["ball rice", "  loan goal ", "bread", "team match goal ball " * 20, "nothing known"]
KINDS = {
    "logistic": lambda encoder: LogisticHead(encoder),
    "ridge": lambda encoder: RidgeHead(encoder),
    "euclidean": lambda encoder: PrototypicalNetwork(encoder, temperature=0.1),
    "cosine": lambda encoder: PrototypicalNetwork(encoder, metric="cosine", temperature=0.1, names=True),
    "maml": lambda encoder: MAML(encoder, inner_steps=2, adapter_rate=0.5),
    "auto": lambda encoder: AutoHead(encoder),
}


def adapted_encoder(encoder_folder, **options):
    encoder = TextEncoder.from_pretrained(str(encoder_folder), prefix="ball: ", max_length=16, **options)
    add_adapter(encoder, AdapterSettings(rank=4), seed=0)
    generator = torch.Generator().manual_seed(1)
    for weight in adapter_weights(encoder).values():
        weight.data += 0.2 * torch.randn(weight.shape, generator=generator)
    return encoder


def classifier(kind, encoder_folder, pool):
    encoder = adapted_encoder(encoder_folder)
    return FewShotClassifier(KINDS[kind](encoder)).fit(pool.texts[::3], pool.names()[::3])


MIXED = {
    "on both": {"logistic on both": 1.0},
    "in all views": {"logistic on both": 0.4, "regularised logistic on lower layers": 0.6},
    "on lower layers": {"regularised logistic on lower layers": 1.0},
}


def mixed(heads, encoder_folder, pool):
    """``auto`` with these heads and shares: the state is put there, as a choice may fall so."""
    from nlpmeta.auto.heads import seen
    from nlpmeta.learners.base import Support

    made, mixture = classifier("auto", encoder_folder, pool), {}
    encoder = made.learner_.encoder
    support = Support(tuple(pool.texts), encoder.encode(pool.texts), torch.tensor(pool.labels), pool.n_way)
    for name, share in heads.items():
        candidate = made.learner_._every[name]
        state = candidate.head.adapt(seen(encoder, support, candidate))
        facts = {"scores_over": torch.tensor(0.7), "share": torch.tensor(share)}
        mixture |= {f"{name}/{key}": value for key, value in {**state, **facts}.items()}
    mixture["mixture/leads"] = torch.linspace(0, 2, pool.n_way)  # as with unequal numbers of examples
    mixture["mixture/temperature"] = torch.tensor(0.6)
    return FewShotClassifier.from_state(made.learner_, mixture, made.classes_, made.examples_)


@pytest.fixture(params=[*KINDS, *MIXED])
def made(request, encoder_folder, pool):
    if request.param in MIXED:
        return mixed(MIXED[request.param], encoder_folder, pool)
    return classifier(request.param, encoder_folder, pool)


def close(theirs, made):
    np.testing.assert_allclose(np.asarray(theirs), made.predict_proba(TEXTS), atol=1e-4, rtol=0)


def test_a_folder_of_transformers_gives_the_same_probabilities(made, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    before = made.predict_proba(TEXTS)
    export(made, tmp_path / "out", "transformers")
    assert np.array_equal(made.predict_proba(TEXTS), before)  # exporting changes nothing
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()  # ours is registered here
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        for options in ({}, {"truncation": True}):
            close(model(**tokenizer(TEXTS, return_tensors="pt", padding=True, **options)).logits.softmax(1), made)
        for row, text in enumerate(TEXTS):  # alone, without padding
            alone = model(**tokenizer([text], return_tensors="pt")).logits.softmax(1)
            np.testing.assert_allclose(alone[0], made.predict_proba(TEXTS)[row], atol=1e-4, rtol=0)
    assert [model.config.id2label[i] for i in range(3)] == made.classes_.tolist()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["transformers", "sentence-transformers"])
def test_an_export_names_no_folder_of_this_machine(form, encoder_folder, pool, tmp_path):
    if form != "transformers":
        pytest.importorskip("sentence_transformers")
    export(mixed(MIXED["in all views"], encoder_folder, pool), tmp_path / "out", form)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path.name for path in files if str(encoder_folder.parent.parent).encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_pipeline_without_nlpmeta_gives_the_same_labels(encoder_folder, pool, tmp_path):
    made = classifier("cosine", encoder_folder, pool)
    export(made, tmp_path / "out", "transformers")
    program = (
        "import sys, json; sys.modules['nlpmeta'] = None\nfrom transformers import pipeline\n"
        f"run = pipeline('text-classification', {str(tmp_path / 'out')!r}, trust_remote_code=True)\n"
        f"print(json.dumps(run({TEXTS!r}, top_k=None)))"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-1000:]
    found = [{each["label"]: each["score"] for each in row} for row in json.loads(run.stdout.splitlines()[-1])]
    close([[row[label] for label in made.classes_] for row in found], made)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_sentence_transformers_gives_the_same_probabilities(made, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    export(made, tmp_path / "out", "sentence-transformers")
    parts = [tmp_path / "out", tmp_path / "out" / "second", tmp_path / "out" / "third"]
    encoders = [sentence_transformers.SentenceTransformer(str(part)) for part in parts if part.exists()]
    features = np.concatenate([each.encode(TEXTS, show_progress_bar=False) for each in encoders], axis=1)
    head = {name: tensor.numpy() for name, tensor in load_file(tmp_path / "out" / "head.safetensors").items()}
    if "shares" in head:
        scores = torch.from_numpy(np.einsum("nd,hwd->hnw", features, head["weight"]) + head["bias"][:, None])
        mean = (scores.softmax(2) * torch.from_numpy(head["shares"])[:, None, None]).sum(0)
        close((mean.log() / torch.from_numpy(head["temperature"])).softmax(1), made)
    else:
        close(torch.from_numpy(features @ head["weight"].T + head["bias"]).softmax(1), made)
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["labels"] == made.classes_.tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_onnx_file_gives_the_same_probabilities(encoder_folder, pool, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from transformers import AutoTokenizer

    made = mixed(MIXED["in all views"], encoder_folder, pool)
    export(made, tmp_path / "out", "onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    batch = tokenizer(TEXTS, return_tensors="np", padding=True, truncation=True)
    names = ("input_ids", "attention_mask")
    close(session.run(None, {name: batch[name].astype(np.int64) for name in names})[0], made)
    for row, text in enumerate(TEXTS):
        alone = tokenizer([text], return_tensors="np", truncation=True)
        found = session.run(None, {name: alone[name].astype(np.int64) for name in names})[0]
        np.testing.assert_allclose(found[0], made.predict_proba(TEXTS)[row], atol=1e-4, rtol=0)


ALONE = """import importlib.abc, runpy, sys
class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "nlpmeta", "sklearn", "scipy", "safetensors", "pandas"}:
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["onnx", "onnx-int8"])
def test_the_program_in_an_onnx_folder_needs_no_other_package_and_gives_the_same_labels(
    form, encoder_folder, pool, tmp_path
):
    pytest.importorskip("onnxruntime")
    made = mixed(MIXED["in all views"], encoder_folder, pool)
    export(made, tmp_path / "out", form)
    program = tmp_path / "out" / "predict.py"
    assert len(program.read_text().splitlines()) <= 60
    run = subprocess.run(
        [sys.executable, "-c", ALONE, str(program), *TEXTS], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert run.returncode == 0, run.stderr[-1000:]
    rows = [line.split("\t") for line in run.stdout.splitlines()]
    assert [row[0] for row in rows] == made.predict(TEXTS).tolist()
    assert [row[2] for row in rows] == TEXTS
    theirs = np.asarray([float(row[1]) for row in rows])
    atol = 0.0006 if form == "onnx" else 0.05
    np.testing.assert_allclose(theirs, made.predict_proba(TEXTS).max(1), atol=atol, rtol=0)


def test_int8_goes_with_onnx_alone(tmp_path, capsys):
    assert main(["export", str(tmp_path), str(tmp_path / "out"), "--int8"]) == 2
    assert "--int8 goes with --to onnx, not with --to transformers" in capsys.readouterr().err


@pytest.mark.parametrize("head", [NearestNeighbours, MatchingNetwork])
def test_a_head_that_is_not_linear_is_refused_before_anything_is_written(head, encoder_folder, pool, tmp_path):
    encoder = TextEncoder.from_pretrained(str(encoder_folder), max_length=16)
    made = FewShotClassifier(head(encoder)).fit(pool.texts, pool.names())
    with pytest.raises(NLPMetaError, match="is not linear"):
        export(made, tmp_path / "out", "transformers")
    assert not (tmp_path / "out").exists()


def test_an_export_says_that_it_reads_one_window(encoder_folder, pool, tmp_path):
    encoder = TextEncoder.from_pretrained(str(encoder_folder), max_length=60, window=16)
    model = FewShotClassifier("ridge", encoder=encoder).fit(pool.texts[::3], pool.names()[::3])
    with pytest.warns(DataWarning, match="reads the first 16 tokens of a text; this model reads 60, in windows"):
        export(model, tmp_path / "out", "transformers")
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(tmp_path / "out").model_max_length == 16


def test_a_wrong_head_would_be_noticed(encoder_folder, pool):
    from nlpmeta.errors import WorkFailedError
    from nlpmeta.export import sequence_classifier

    made = classifier("ridge", encoder_folder, pool)
    head = linear_heads(made.learner_, made.state_)
    wrong = replace(head, weight=head.weight * 1.01)
    with pytest.raises(WorkFailedError, match="off; nothing was written"):
        sequence_classifier(made, wrong, plain_encoders(made.learner_, made.state_))


def test_the_command_exports_and_says_where(encoder_folder, pool, tmp_path, capsys):
    classifier("cosine", encoder_folder, pool).save_pretrained(tmp_path / "model")
    arguments = ["export", str(tmp_path / "model"), str(tmp_path / "out"), "--to", "transformers"]
    assert main(arguments) == 0
    assert str(tmp_path / "out") in capsys.readouterr().out
    assert main(arguments) == 2
    assert "exists and was kept" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    assert main([*arguments[:-1], "tensorflow"]) == 2
    assert "Known: onnx, onnx-int8, sentence-transformers, transformers" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["ridge", "on lower layers"])
def test_what_was_exported_to_sentence_transformers_is_taken_in_again(kind, encoder_folder, pool, tmp_path):
    from nlpmeta.export.head import import_setfit

    pytest.importorskip("sentence_transformers")
    made = mixed(MIXED[kind], encoder_folder, pool) if kind in MIXED else classifier(kind, encoder_folder, pool)
    export(made, tmp_path / "out", "sentence-transformers")
    taken = import_setfit(tmp_path / "out")
    close(taken.predict_proba(TEXTS), made)
    assert taken.predict(TEXTS).tolist() == made.predict(TEXTS).tolist()


@pytest.mark.filterwarnings("ignore")
def test_the_pickle_of_a_setfit_model_is_never_read(encoder_folder, pool, tmp_path):
    from nlpmeta.errors import ModelFolderError
    from nlpmeta.export.head import import_setfit

    pytest.importorskip("sentence_transformers")
    export(classifier("ridge", encoder_folder, pool), tmp_path / "out", "sentence-transformers")
    (tmp_path / "out" / "head.safetensors").unlink()
    (tmp_path / "out" / "model_head.pkl").write_bytes(
        b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    )
    with pytest.raises(ModelFolderError, match="only model_head.pkl, a pickle, which is never loaded"):
        import_setfit(tmp_path / "out")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("weight", "bias"), [((0, 16), (0,)), ((2, 16), (3,)), ((16,), (16,)), ((0, 0), (0,))])
def test_a_head_without_classes_or_of_the_wrong_form_is_not_taken_in(encoder_folder, tmp_path, weight, bias):
    from nlpmeta.errors import ModelFolderError
    from nlpmeta.export.head import import_setfit

    folder = tmp_path / "body"
    shutil.copytree(encoder_folder, folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    kinds = [{"path": "", "type": "m.Transformer"}, {"path": "1_Pooling", "type": "m.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(kinds))
    save_file({"weight": torch.zeros(weight), "bias": torch.zeros(bias)}, folder / "head.safetensors")
    with pytest.raises(ModelFolderError, match="does not hold a linear head"):
        import_setfit(folder)


ALARMS = ("MISSING", "newly initialized", "LOAD REPORT")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["transformers", "sentence-transformers"])
def test_an_export_prints_nothing_but_where_it_is(encoder_folder, pool, tmp_path, capfd, form):
    if form != "transformers":
        pytest.importorskip("sentence_transformers")
    classifier("logistic", encoder_folder, pool).save_pretrained(tmp_path / "model")
    capfd.readouterr()
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--to", form, "-q"]) == 0
    said = capfd.readouterr()
    assert said.out.startswith(str(tmp_path / "out"))
    assert said.err == ""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers_finds_nothing_missing_in_an_export(encoder_folder, pool, tmp_path, capfd):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    export(mixed(MIXED["in all views"], encoder_folder, pool), tmp_path / "out", "sentence-transformers")
    capfd.readouterr()
    for part in (tmp_path / "out", tmp_path / "out" / "second", tmp_path / "out" / "third"):
        sentence_transformers.SentenceTransformer(str(part))
    said = capfd.readouterr()
    assert not any(alarm in said.out + said.err for alarm in ALARMS)


@pytest.fixture
def exported(encoder_folder, pool, tmp_path):
    classifier("ridge", encoder_folder, pool).save_pretrained(tmp_path / "model")
    export(FewShotClassifier.from_pretrained(tmp_path / "model"), tmp_path / "out", "transformers")
    return tmp_path / "out"


@pytest.mark.parametrize("theirs", ["thesis.txt", "photos/a.jpg", "onnx/model.onnx"])
def test_an_export_that_somebody_added_to_is_not_replaced_and_no_model_is_loaded_for_it(
    exported, tmp_path, capsys, monkeypatch, theirs
):
    (exported / theirs).parent.mkdir(exist_ok=True)
    (exported / theirs).write_text("years")
    monkeypatch.setattr(FewShotClassifier, "from_pretrained", None)
    assert main(["export", str(tmp_path / "model"), str(exported), "--overwrite"]) == 2
    assert theirs.split("/")[0] in capsys.readouterr().err
    assert (exported / theirs).read_text() == "years"


@pytest.mark.parametrize("place", ["model/nlpmeta.json/x", "n" * 300, "model"])
def test_a_place_that_an_export_cannot_have_is_refused_before_a_model_is_loaded(
    exported, tmp_path, capsys, monkeypatch, place
):
    monkeypatch.setattr(FewShotClassifier, "from_pretrained", None)
    assert main(["export", str(tmp_path / "model"), str(tmp_path / place)]) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_an_export_says_what_it_is_where_a_model_is_expected(exported, capsys):
    with pytest.raises(NLPMetaError, match="is an export for transformers, which is what loads it"):
        FewShotClassifier.from_pretrained(exported)
    assert main(["info", str(exported)]) == 1
    assert "is an export for transformers" in capsys.readouterr().err


WORDS = [(topic, word) for topic, words in TOPICS.items() for word in words.split()]
PAIRS = [(f"{a} {b}", sorted({first, second})) for first, a in WORDS[::2] for second, b in WORDS[1::2]]
SEVERAL = [*PAIRS, ("unheard of", []), ("of nothing", []), ("or so", [])]
SEVERAL_KINDS = ["two views", "one view", "not unit length", "without texts of no label", "older", "names alone"]


def giving_several(kind, encoder_folder):
    """A model that gives several labels per text, with the heads that ``kind`` says."""
    if kind == "one view":
        encoder = TextEncoder.from_pretrained(str(encoder_folder), prefix="ball: ", max_length=16)
    else:
        encoder = adapted_encoder(encoder_folder, normalise=kind != "not unit length")
    examples = PAIRS if kind == "without texts of no label" else SEVERAL
    if kind == "names alone":
        head = AutoHead(encoder)
        data = MultiLabelTexts((), (), tuple(TOPICS))
        return FewShotClassifier.from_state(head, head.adapt_several(data, head.encoder), np.array(list(TOPICS)))
    made = FewShotClassifier(AutoHead(encoder)).fit(*map(list, zip(*examples, strict=True)))
    if kind != "older":
        return made
    state = {name: each for name, each in made.state_.items() if name not in ("several/weight 1", "several/bias 1")}
    state["several/prototypes 0"] = made.state_["several/prototypes 1"].flip(1)
    return FewShotClassifier.from_state(made.learner_, state, made.classes_, made.examples_)


def given(probabilities, thresholds, classes):
    rows = np.asarray(probabilities, np.float32) >= np.asarray(thresholds, np.float32)
    return [[label for label, there in zip(classes, row, strict=True) if there] for row in rows]


def program_in(folder):
    specification = importlib.util.spec_from_file_location("exported_program", folder / "predict.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.Model(folder)


@pytest.fixture(params=SEVERAL_KINDS)
def several(request, encoder_folder):
    return giving_several(request.param, encoder_folder)


def test_several_labels_in_transformers_have_the_same_probabilities_and_thresholds(several, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts, before = [*TEXTS, *(text for text, _ in SEVERAL)], several.predict_proba(TEXTS)
    export(several, tmp_path / "out", "transformers")
    assert np.array_equal(several.predict_proba(TEXTS), before)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    batch = AutoTokenizer.from_pretrained(tmp_path / "out")(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        found = model(**batch, labels=torch.ones(len(texts), 3))
    theirs = found.logits.sigmoid()
    np.testing.assert_allclose(theirs, several.predict_proba(texts), atol=1e-5, rtol=0)
    assert model.config.problem_type == "multi_label_classification"
    labels = [model.config.id2label[i] for i in range(3)]
    assert labels == several.classes_.tolist() and model.config.label2id == {name: i for i, name in enumerate(labels)}
    assert given(theirs, model.config.thresholds, labels) == several.predict(texts)
    assert float(found.loss) == pytest.approx(-np.log(several.predict_proba(texts)).mean(), rel=1e-3)


def test_names_alone_are_exported_with_the_one_view_that_they_read(encoder_folder):
    made = giving_several("names alone", encoder_folder)
    assert len(plain_encoders(made.learner_, made.state_)) == 1
    assert exported_heads(made.learner_, made.state_).n_views == 1


def test_wrong_heads_of_several_labels_would_be_noticed(encoder_folder):
    from nlpmeta.errors import WorkFailedError
    from nlpmeta.export import sequence_classifier

    made = giving_several("two views", encoder_folder)
    heads, encoders = (read(made.learner_, made.state_) for read in (exported_heads, plain_encoders))
    for part in ("weight", "bias", "prototypes", "shares"):
        with pytest.raises(WorkFailedError, match="off; nothing was written"):
            sequence_classifier(made, replace(heads, **{part: getattr(heads, part) * 1.05}), encoders)


@pytest.mark.filterwarnings("ignore")
def test_several_labels_in_onnx_are_those_of_the_model(several, tmp_path):
    pytest.importorskip("onnxruntime")
    texts = [*TEXTS, *(text for text, _ in SEVERAL)]
    export(several, tmp_path / "out", "onnx")
    program = program_in(tmp_path / "out")
    np.testing.assert_allclose(program.predict_proba(texts), several.predict_proba(texts), atol=1e-5, rtol=0)
    assert program.predict(texts) == several.predict(texts)
    facts = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert facts == {"labels": several.classes_.tolist(), "thresholds": several.thresholds_.tolist()}


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_answers_with_a_matrix_gives_lists_in_onnx(encoder_folder, tmp_path):
    pytest.importorskip("onnxruntime")
    texts, sets = zip(*SEVERAL, strict=True)
    marks = np.array([[topic in each for topic in TOPICS] for each in sets], int)
    made = FewShotClassifier("auto", encoder=str(encoder_folder)).fit(list(texts), marks, classes=[3, 5, 7])
    export(made, tmp_path / "out", "onnx")
    found = program_in(tmp_path / "out").predict(texts)
    assert found == [
        [label for label, there in zip((3, 5, 7), row, strict=True) if there] for row in made.predict(texts)
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["onnx", "onnx-int8"])
def test_the_program_in_an_onnx_folder_prints_the_labels_of_each_text_with_semicolons_between(
    form, encoder_folder, tmp_path
):
    pytest.importorskip("onnxruntime")
    made, texts = giving_several("two views", encoder_folder), [text for text, _ in SEVERAL]
    export(made, tmp_path / "out", form)
    program = str(tmp_path / "out" / "predict.py")
    run = subprocess.run(
        [sys.executable, "-c", ALONE, program, *texts], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert run.returncode == 0, run.stderr[-1000:]
    rows = [line.split("\t") for line in run.stdout.splitlines()]
    assert [row[2] for row in rows] == texts
    expected = [";".join(labels) for labels in made.predict(texts)]
    right = [row[0] == labels for row, labels in zip(rows, expected, strict=True)]
    assert all(right) if form == "onnx" else np.mean(right) > 0.7
    assert "" in expected and any(";" in labels for labels in expected)
    assert all(len(row[0].split(";")) == len(row[1].split(";")) for row in rows)


@pytest.mark.slow
def test_a_pipeline_without_nlpmeta_gives_each_of_several_labels_its_probability(encoder_folder, tmp_path):
    made = giving_several("two views", encoder_folder)
    export(made, tmp_path / "out", "transformers")
    program = (
        "import sys, json; sys.modules['nlpmeta'] = None\nfrom transformers import pipeline\n"
        f"run = pipeline('text-classification', {str(tmp_path / 'out')!r}, trust_remote_code=True)\n"
        f"print(json.dumps(run({TEXTS!r}, top_k=None)))"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-1000:]
    found = [{each["label"]: each["score"] for each in row} for row in json.loads(run.stdout.splitlines()[-1])]
    theirs = [[row[label] for label in made.classes_] for row in found]
    np.testing.assert_allclose(theirs, made.predict_proba(TEXTS), atol=1e-5, rtol=0)


def test_sentence_transformers_has_no_form_for_several_labels_and_the_command_says_which_have(
    encoder_folder, tmp_path, capsys
):
    pytest.importorskip("sentence_transformers")
    texts, sets = map(list, zip(*SEVERAL, strict=True))
    FewShotClassifier("auto", encoder=str(encoder_folder)).fit(texts, sets).save_pretrained(tmp_path / "model")
    arguments = ["export", str(tmp_path / "model"), str(tmp_path / "out"), "--to"]
    assert main([*arguments, "sentence-transformers"]) == 2
    said = capsys.readouterr().err
    assert "several labels per text" in said and "--to transformers, onnx and onnx-int8 can" in said
    assert len(said.splitlines()) == 1 and not (tmp_path / "out").exists()
    assert main([*arguments, "transformers"]) == 0
    assert str(tmp_path / "out") in capsys.readouterr().out
