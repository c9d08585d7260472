import json
import shutil

import pytest
import torch

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import DataWarning, ModelFolderError, NLPMetaError
from nlpmeta.learners.base import Support, Texts
from nlpmeta.learners.checkpoint import load_checkpoint, save_checkpoint
from nlpmeta.learners.prototypical import PrototypicalNetwork, SiameseNetwork
from nlpmeta.storage.manifest import describe

FACTS = {"recipe_digest": "0" * 64, "sets": ["massive"], "leave_out_langs": ["sw"], "steps": 7}


def perturbed(learner):
    """Away from the start, or forgetting to save a weight would go unnoticed."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in learner.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return learner.eval()


@pytest.fixture
def learner(encoder_folder):
    encoder = TextEncoder.from_pretrained(str(encoder_folder), prefix="say: ", max_length=32)
    add_adapter(encoder, AdapterSettings(rank=4), seed=0)
    return perturbed(PrototypicalNetwork(encoder, metric="cosine"))


@pytest.fixture
def saved(learner, tmp_path):
    save_checkpoint(learner, tmp_path / "saved", FACTS)
    return tmp_path / "saved"


def scores(learner, sampler):
    episode = sampler.episode(0)
    with torch.no_grad():
        return learner.logits(learner.adapt(Support.of(episode.support)), Texts(episode.query.texts))


def test_a_loaded_checkpoint_gives_the_same_scores_to_the_last_bit(learner, saved, sampler):
    loaded = load_checkpoint(saved)
    assert torch.equal(scores(loaded, sampler), scores(learner, sampler))
    assert loaded.encoder.prefix == "say: "
    assert loaded.config() == {"metric": "cosine", "names": False}
    assert not loaded.training


def test_the_adapter_counts(saved, sampler, learner):
    plain = PrototypicalNetwork(load_checkpoint(saved).encoder, metric="cosine").eval()
    for weight in adapter_weights(plain.encoder).values():
        weight.data.zero_()
    assert not torch.allclose(scores(plain, sampler), scores(learner, sampler))


def test_the_folder_holds_plain_files_and_says_how_it_was_trained(saved):
    assert {file.name for file in saved.iterdir()} == {
        "nlpmeta.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "learner.safetensors",
    }
    manifest = json.loads((saved / "nlpmeta.json").read_text())
    assert manifest["kind"] == "checkpoint"
    assert manifest["training"] == FACTS
    assert {"id", "revision", "digest", "prefix", "max_length"} <= set(manifest["encoder"])
    assert describe(saved)["kind"] == "checkpoint"


def test_saving_again_replaces_the_checkpoint_and_keeps_other_files(learner, saved, sampler):
    (saved / "metrics.jsonl").write_text("{}\n")
    perturbed(learner)
    save_checkpoint(learner, saved, FACTS)
    assert torch.equal(scores(load_checkpoint(saved), sampler), scores(learner, sampler))
    assert (saved / "metrics.jsonl").read_text() == "{}\n"
    assert not list(saved.glob(".*"))


def test_float16_halves_the_adapter(learner, tmp_path, sampler):
    for kind in ("exact", "float16"):
        save_checkpoint(learner, tmp_path / kind, FACTS, storage=kind)
    sizes = [(tmp_path / kind / "adapter_model.safetensors").stat().st_size for kind in ("exact", "float16")]
    assert sizes[1] < 0.7 * sizes[0]
    torch.testing.assert_close(
        scores(load_checkpoint(tmp_path / "float16"), sampler), scores(learner, sampler), rtol=0.02, atol=0.3
    )


def test_two_checkpoints_loaded_in_one_process_keep_their_own_adapters(learner, saved, tmp_path, sampler):
    first = load_checkpoint(saved)
    before = scores(first, sampler)
    save_checkpoint(perturbed(learner), tmp_path / "other", FACTS)
    other = load_checkpoint(tmp_path / "other")
    assert torch.equal(scores(first, sampler), before)
    assert not torch.equal(scores(other, sampler), before)


def test_an_adapted_model_carries_the_adapter(learner, sampler, tmp_path):
    episode = sampler.episode(0)
    classifier = FewShotClassifier(learner).fit(episode.support.texts, episode.support.names())
    classifier.save_pretrained(tmp_path / "model")
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    queries = list(episode.query.texts)
    assert (loaded.predict_proba(queries) == classifier.predict_proba(queries)).all()


def test_every_damage_is_named(saved, tmp_path):
    for file in list(saved.iterdir()):
        for damage in ("missing", "cut"):
            folder = tmp_path / f"{damage}-{file.name}"
            shutil.copytree(saved, folder)
            target = folder / file.name
            if damage == "missing":
                target.unlink()
            else:
                target.write_bytes(target.read_bytes()[:-7])
            with pytest.raises(ModelFolderError, match=r"missing|damaged|has no"):
                load_checkpoint(folder)


def test_a_newer_format_says_which_release_reads_it(saved):
    path = saved / "nlpmeta.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "format_version": 99, "nlpmeta": "7.1"}))
    with pytest.raises(ModelFolderError, match=r"format version 99.*7\.1"):
        load_checkpoint(saved)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(NLPMetaError, match="nowhere"):
        load_checkpoint(tmp_path / "nowhere")


def test_other_encoder_weights_are_noted(saved):
    path = saved / "nlpmeta.json"
    manifest = json.loads(path.read_text())
    manifest["encoder"]["digest"] = "f" * 64
    path.write_text(json.dumps(manifest))
    with pytest.warns(DataWarning, match="other weights"):
        load_checkpoint(saved)


def test_a_checkpoint_without_adapters_is_one_too(encoder_folder, tmp_path, sampler):
    encoder = TextEncoder.from_pretrained(str(encoder_folder), max_length=32)
    learner = perturbed(SiameseNetwork(encoder))
    save_checkpoint(learner, tmp_path / "plain", FACTS)
    assert not (tmp_path / "plain" / "adapter_config.json").exists()
    assert torch.equal(scores(load_checkpoint(tmp_path / "plain"), sampler), scores(learner, sampler))


def test_an_encoder_that_cannot_be_found_again_is_refused(encoder, tmp_path):
    with pytest.raises(NLPMetaError, match="built in memory"):
        save_checkpoint(PrototypicalNetwork(encoder), tmp_path / "x", FACTS)
    assert not (tmp_path / "x" / "nlpmeta.json").exists()
