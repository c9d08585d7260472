"""An encoder that was compiled does without its transformer until something needs the weights themselves."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import save_encoder

from nlpmeta import AdapterSettings, FewShotClassifier, TextEncoder, add_adapter
from nlpmeta.encoder import files
from nlpmeta.encoder.compiling import compile_encoder, embedding_with
from nlpmeta.encoder.engines import CompiledEncoder
from nlpmeta.encoder.lora import adapter_weights, has_adapter
from nlpmeta.encoder.merged import INNER
from nlpmeta.encoder.views import VIEWS, ScaledEncoder
from nlpmeta.encoder.vocabulary import pieces_of
from nlpmeta.errors import ModelFolderError
from nlpmeta.evaluation import adapt_and_measure
from nlpmeta.evaluation.request import AdaptRequest
from nlpmeta.learners import start
from nlpmeta.learners.checkpoint import load_checkpoint, save_checkpoint
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.serve.learning import Embedder
from nlpmeta.storage.manifest import MANIFEST

TEXTS = ["ball goal", "rice soup bread", "team", "bank loan cash rate bank"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NLPMETA_CACHE", str(tmp_path / "cache"))
    forget()
    return tmp_path / "cache"


def forget():
    """As in a new process."""
    start._started.cache_clear()
    start._loaded.cache_clear()


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "encoder").mkdir()
    save_encoder(tmp_path / "encoder")
    encoder = TextEncoder.from_pretrained(str(tmp_path / "encoder"), max_length=32)
    add_adapter(encoder, AdapterSettings(rank=4), seed=0)
    with torch.no_grad():
        for number, weight in enumerate(adapter_weights(encoder).values()):
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) * 0.3)
    save_checkpoint(PrototypicalNetwork(encoder, names=True).eval(), tmp_path / "checkpoint", {})
    return tmp_path / "checkpoint"


@pytest.fixture
def compiled(checkpoint):
    """The checkpoint, of which all views were compiled, and those of few examples."""
    encoder = load_checkpoint(checkpoint).requires_grad_(False).encoder
    for views in (VIEWS, VIEWS[:2]):
        compile_encoder(ScaledEncoder(encoder, views), "float32")
    return checkpoint


@pytest.fixture
def nothing_loads(monkeypatch):
    def refused(folder):
        raise AssertionError("the transformer was loaded")

    monkeypatch.setattr("nlpmeta.encoder.text_encoder.load_folder", refused)


def late(checkpoint):
    return load_checkpoint(checkpoint, compiled=True).requires_grad_(False).eval()


def test_an_encoder_without_a_compiled_form_is_loaded_at_once(checkpoint):
    assert late(checkpoint).encoder.pending is None


def test_what_the_compiled_form_can_do_needs_no_transformer(compiled, nothing_loads):
    encoder = late(compiled).encoder
    assert encoder.pending is not None and has_adapter(encoder) and encoder.device.type == "cpu"
    views = ScaledEncoder(encoder.reading(16), VIEWS)
    with embedding_with("auto") as used:
        found = views.encode(TEXTS)
    assert found.shape == (4, 3 * encoder.dim) and used == {"onnx"}


def test_the_transformer_is_loaded_once_for_all_views_when_it_is_needed(compiled, monkeypatch):
    usual, n_loaded = files.load_folder, []
    monkeypatch.setattr("nlpmeta.encoder.text_encoder.load_folder", lambda at: n_loaded.append(at) or usual(at))
    plain, encoder = load_checkpoint(compiled).encoder, late(compiled).encoder
    twin, views = encoder.reading(16), ScaledEncoder(encoder, VIEWS)
    n_loaded.clear()
    assert torch.equal(views.encode(TEXTS), ScaledEncoder(plain, VIEWS).encode(TEXTS))
    assert torch.equal(twin.encode(TEXTS), plain.reading(16).encode(TEXTS))
    assert len(n_loaded) == 1 and encoder.pending is twin.pending is views.pending is None
    assert encoder.backbone is twin.backbone is views.backbone
    assert [name for name, _ in encoder.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert not any(module.training for module in encoder.modules())


def test_what_is_moved_or_copied_is_loaded_first(compiled):
    learner = late(compiled)
    learner.double()
    assert {weight.dtype for weight in learner.encoder.parameters()} == {torch.float64}
    encoder = late(compiled).encoder
    other = copy.deepcopy(encoder)
    assert encoder.pending is other.pending is None and encoder.backbone is not other.backbone
    torch.testing.assert_close(other.encode(TEXTS), load_checkpoint(compiled).encoder.encode(TEXTS))


def adapted(table, checkpoint, **more):
    forget()
    request = AdaptRequest(data=str(table), n_shot=2, n_draws=2, checkpoint=str(checkpoint), engine="auto", **more)
    return adapt_and_measure(request)


def saved_facts(found, folder):
    """The bytes of a saved model, and its report without seconds."""
    found.classifier.save_pretrained(folder, report=found.json(None))
    report = json.loads((folder / "report.json").read_text())
    del report["seconds"]
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["files"]["report.json"]
    rest = {file.name: file.read_bytes() for file in folder.iterdir() if file.name not in ("report.json", MANIFEST)}
    return rest, report, manifest


@pytest.mark.parametrize("method", ["auto", "prototypical"])
def test_adapting_twice_gives_the_same_model_and_report_without_transformer(
    compiled, table, tmp_path, monkeypatch, method
):
    compile_encoder(load_checkpoint(compiled).requires_grad_(False).encoder, "float32")
    compile_encoder(ScaledEncoder(load_checkpoint(compiled).requires_grad_(False).encoder, [0.0]), "float32")
    monkeypatch.setattr("nlpmeta.learners.checkpoint.Deferred.of", lambda *_: None)
    whole = saved_facts(adapted(table, compiled, method=method), tmp_path / "whole")
    monkeypatch.undo()
    monkeypatch.setenv("NLPMETA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("nlpmeta.encoder.text_encoder.load_folder", None)
    first = saved_facts(adapted(table, compiled, method=method), tmp_path / "first")
    if method == "auto":
        monkeypatch.setattr(CompiledEncoder, "embed", None)  # all embeddings are on disk
    again = saved_facts(adapted(table, compiled, method=method), tmp_path / "again")
    assert whole == first == again
    assert whole[1]["engine"] == "onnx"


def test_a_model_that_was_made_so_predicts_by_pytorch_too(compiled, table):
    found = adapted(table, compiled)
    assert found.classifier.learner_.encoder.pending is not None
    assert found.classifier.predict_proba(TEXTS).shape == (4, len(found.classifier.classes_))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"None": 3}', b"\xff"])
def test_a_damaged_note_only_costs_time(compiled, cache, content):
    (note,) = (cache / "views").iterdir()
    note.write_bytes(content)
    assert late(compiled).encoder.pending is None


def test_the_note_of_a_release_that_saw_fewer_views_is_completed(compiled, cache):
    (note,) = (cache / "views").iterdir()
    whole = json.loads(note.read_text())
    note.write_text(json.dumps({view: name for view, name in whole.items() if view != str(INNER)}))
    assert late(compiled).encoder.pending is None  # which loaded it, and so knows what its views are called
    assert json.loads(note.read_text()) == whole
    assert late(compiled).encoder.pending is not None


def test_a_damaged_vocabulary_is_never_read(compiled, cache):
    for i, folder in enumerate((cache / "compiled").iterdir()):
        content = (folder / "tokenizer.json").read_text()
        (folder / "tokenizer.json").write_text(content.replace('"ball"', '"bowl"'))
        assert (late(compiled).encoder.pending is None) == (i == 1)  # the other form is sound


def test_a_missing_file_of_the_adapters_is_named(compiled, tmp_path):
    (compiled / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelFolderError, match="adapter_model.safetensors"):
        late(compiled)


def test_adapters_that_were_changed_are_not_those_that_were_compiled(compiled, tmp_path):
    other = load_checkpoint(compiled)
    with torch.no_grad():
        next(iter(adapter_weights(other.encoder).values())).add_(1)
    save_checkpoint(other, tmp_path / "other", {})
    assert late(tmp_path / "other").encoder.pending is None
    assert late(compiled).encoder.pending is not None


def test_adapters_that_were_exchanged_meanwhile_are_neither_loaded_nor_saved(compiled, table, tmp_path):
    found, encoder = adapted(table, compiled), late(compiled).encoder
    other = load_checkpoint(compiled)
    with torch.no_grad():
        next(iter(adapter_weights(other.encoder).values())).add_(1)
    save_checkpoint(other, compiled, {})
    with pytest.raises(ModelFolderError, match="was changed since"):
        found.classifier.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(ModelFolderError, match="was changed since"):
        encoder.backbone  # noqa: B018


def test_pieces_are_those_of_the_tokenizer(compiled):
    encoder = late(compiled).encoder
    texts = ["ball goal", "unheard-of ball", ""]
    known = encoder.pending.vocabulary.pieces(texts)
    assert known == pieces_of(encoder.tokenizer, texts)
    assert known[:3] == [("ball", True), ("goal", True), ("unheard", False)]


def test_once_loaded_it_still_embeds_by_its_compiled_form(compiled):
    views = ScaledEncoder(late(compiled).encoder, VIEWS)
    assert views.backbone is not None and views.pending is None
    with embedding_with("auto") as used:
        views.encode(TEXTS)
    assert used == {"onnx"}


def test_a_saved_model_is_opened_and_fitted_anew_without_transformer(compiled, table, tmp_path, monkeypatch):
    adapted(table, compiled).classifier.save_pretrained(tmp_path / "model", include_support=True)
    usual = FewShotClassifier.from_pretrained(tmp_path / "model").predict_proba(TEXTS)
    monkeypatch.setattr("nlpmeta.encoder.text_encoder.load_folder", None)
    opened = FewShotClassifier.from_pretrained(tmp_path / "model", engine="onnx")
    np.testing.assert_allclose(opened.predict_proba(TEXTS), usual, atol=1e-5)
    opened.add_class("music", ["ball bread", "goal soup"])
    assert "music" in opened.classes_
    fresh = FewShotClassifier(checkpoint=str(compiled), engine="onnx").fit(["ball", "goal", "rice"], [0, 0, 1])
    assert fresh.predict(["ball"]).tolist() == [0]


def test_a_server_embeds_and_compares_encoders_without_the_transformer(compiled, nothing_loads, monkeypatch):
    encoder = late(compiled).encoder
    served = Embedder(ScaledEncoder(encoder, VIEWS), "auto", most_bytes=1 << 20)
    with served.embedding():
        first = ScaledEncoder(encoder, VIEWS).encode(TEXTS)
        assert all(served.knows(TEXTS))
        other = ScaledEncoder(late(compiled).encoder, VIEWS).encode(TEXTS)  # of another that was opened: not from there
        monkeypatch.setattr("nlpmeta.serve.learning.embedded_by", None)
        assert torch.equal(ScaledEncoder(encoder, VIEWS).encode(TEXTS), first)
    torch.testing.assert_close(other, first)
