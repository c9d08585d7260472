import json
import math
import shutil

import pytest
import torch
from conftest import make_encoder

from nlpmeta.cli import main
from nlpmeta.encoder.lora import AdapterSettings, add_adapter, has_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.encoder.weights import DEFAULT_ENCODER
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.checkpoint import save_checkpoint
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.ridge import RidgeHead
from nlpmeta.learners.start import SHIPPED, checkpoint_folder, find_checkpoint, own_checkpoint, starting_learner
from nlpmeta.storage.manifest import read_manifest
from nlpmeta.storage.tensors import read_tensors
from nlpmeta.training import Recipe
from nlpmeta.training.engine import build_learner


@pytest.fixture(scope="session")
def checkpoint(encoder_folder, tmp_path_factory):
    """A checkpoint whose adapters move the small encoder's embeddings."""
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    add_adapter(encoder, AdapterSettings(rank=2, modules=("query", "value")), seed=0)
    with torch.no_grad():
        for weight in encoder.parameters():
            if weight.requires_grad:
                weight.normal_(generator=torch.Generator().manual_seed(1))
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(PrototypicalNetwork(encoder, metric="cosine", temperature=0.123), folder, {"steps": 1})
    return folder


def test_the_method_of_a_checkpoint_is_taken_with_all_that_it_learned(checkpoint):
    learner = starting_learner("prototypical", checkpoint=str(checkpoint))
    assert isinstance(learner, PrototypicalNetwork)
    assert learner.metric == "cosine"
    assert learner.log_temperature.exp().item() == pytest.approx(0.123)
    assert not any(weight.requires_grad for weight in learner.parameters())


def test_another_method_takes_the_encoder_of_the_checkpoint_alone(checkpoint):
    ridge = starting_learner("ridge", checkpoint=str(checkpoint))
    assert isinstance(ridge, RidgeHead)
    assert has_adapter(ridge.encoder)
    moved = (ridge.encoder.encode(["ball goal"]) - make_encoder().encode(["ball goal"])).abs().max()
    assert moved > 0.01


def test_a_method_is_built_once_and_read_again_once_its_checkpoint_is_saved_again(checkpoint, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(checkpoint, folder)
    first = {name: starting_learner(name, checkpoint=str(folder)) for name in ("prototypical", "ridge")}
    assert all(starting_learner(name, checkpoint=str(folder)) is each for name, each in first.items())
    other = PrototypicalNetwork(first["prototypical"].encoder, metric="cosine", temperature=0.5)
    save_checkpoint(other, folder, {"steps": 2})
    again = starting_learner("prototypical", checkpoint=str(folder))
    assert again.log_temperature.exp().item() == pytest.approx(0.5)
    assert starting_learner("ridge", checkpoint=str(folder)) is not first["ridge"]


def test_none_is_the_frozen_encoder_and_so_is_default_with_another_encoder(encoder_folder):
    assert find_checkpoint("none", encoder=DEFAULT_ENCODER) is None
    assert find_checkpoint("default", encoder=str(encoder_folder)) is None
    assert find_checkpoint("default", encoder=DEFAULT_ENCODER) == SHIPPED


@pytest.mark.parametrize("method", ["mann", "rnn", "snail"])
def test_a_method_with_a_checkpoint_of_its_own_starts_from_that(method):
    folder = find_checkpoint("default", encoder=DEFAULT_ENCODER, method=method)
    assert folder == own_checkpoint(method) == SHIPPED.parent / method
    assert find_checkpoint("default", encoder=DEFAULT_ENCODER, method="ridge") == SHIPPED
    assert checkpoint_folder(method) == folder
    assert own_checkpoint(f"../{method}") is None
    assert read_manifest(folder)["learner"]["name"] == method
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_000_000


def test_the_checkpoints_of_streams_left_out_the_languages_that_they_are_measured_on():
    for method in ("mann", "rnn", "snail"):
        training = read_manifest(SHIPPED.parent / method)["training"]
        assert {"sw", "rw", "zu", "yo"} <= set(training["leave_out_langs"])
        assert all(part["split"] != "test" for part in training["recipe"]["data"])
        assert [part["part"] for part in training["recipe"]["data"] if part["fold"] == 4] == ["train"]


def test_the_adapters_of_a_start_without_an_adapter_stay_as_they_are(checkpoint, encoder_folder):
    data = [{"source": "starter", "n_way": 2}]
    recipe = Recipe(
        learner="mann",
        adapter=None,
        start=str(checkpoint),
        data=data,
        encoder={"name": str(encoder_folder), "max_length": 32},
    )
    encoder = build_learner(recipe).encoder
    assert has_adapter(encoder)
    assert not any(weight.requires_grad for weight in encoder.parameters())


def test_a_checkpoint_that_is_not_there_or_has_another_encoder_is_refused(checkpoint, encoder_folder):
    with pytest.raises(NLPMetaError, match="no checkpoint folder 'nowhere'"):
        find_checkpoint("nowhere", encoder=DEFAULT_ENCODER)
    with pytest.raises(NLPMetaError, match="brings its own encoder"):
        find_checkpoint(str(checkpoint), encoder=str(encoder_folder))


@pytest.mark.parametrize("folder", [SHIPPED, own_checkpoint("maml")], ids=lambda folder: folder.name)
def test_the_shipped_checkpoint_is_whole_small_and_left_out_the_held_out_languages(folder):
    manifest = read_manifest(folder)
    assert manifest["kind"] == "checkpoint"
    assert manifest["encoder"]["id"] == DEFAULT_ENCODER
    assert {"sw", "rw", "zu", "yo"} <= set(manifest["training"]["leave_out_langs"])
    assert not {"banking77", "sms-spam", "youtube-spam", "popquorn"} & set(manifest["training"]["sets"])
    assert sum(file.stat().st_size for file in folder.iterdir()) < 4_000_000


def test_maml_starts_from_a_checkpoint_of_its_own_and_its_relatives_from_the_one_of_all():
    assert find_checkpoint("default", encoder=DEFAULT_ENCODER, method="maml") == SHIPPED.parent / "maml"
    assert find_checkpoint("default", encoder=DEFAULT_ENCODER, method="anil") == SHIPPED
    own = read_tensors(SHIPPED.parent / "maml" / "learner.safetensors")
    assert own["log_adapter_rates"].shape == (3, 1)
    assert float((own["log_adapter_rates"] - math.log(0.03)).abs().max()) > 0.01  # rates that were trained


@pytest.mark.slow
def test_adapt_starts_from_a_checkpoint_and_its_baseline_stays_on_the_frozen_encoder(
    checkpoint, encoder_folder, table, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    def adapt(*more):
        place = ("--out", str(tmp_path / "model"), "--overwrite")
        assert main(["adapt", "--data", str(table), "--shots", "1", "--json", *place, *more]) == 0
        return json.loads(capsys.readouterr().out)

    moved, frozen = adapt("--checkpoint", str(checkpoint)), adapt("--encoder", str(encoder_folder))
    assert moved["accuracy"]["mean"] < frozen["accuracy"]["mean"]  # random adapters: what the note below is for
    assert moved["baseline"] == frozen["baseline"]
    assert adapt("--checkpoint", str(checkpoint))["accuracy"] == moved["accuracy"]
    assert main(["adapt", "--data", str(table), "--shots", "1", "--checkpoint", str(checkpoint), "--quiet"]) == 0
    assert "the frozen encoder did better here" in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "model"), "ball goal"]) == 0
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()


def test_evaluate_takes_a_method_on_a_checkpoint(checkpoint, table, capsys):
    methods = f"ridge@{checkpoint},{checkpoint}"
    code = main(["evaluate", methods, "--data", str(table), "--shots", "2", "--episodes", "3", "--json", "--quiet"])
    assert code == 0
    assert [row["method"] for row in json.loads(capsys.readouterr().out)["rows"]] == methods.split(",")
    assert main(["evaluate", "ridge@nowhere", "--data", str(table)]) == 2
    assert "no checkpoint folder 'nowhere'" in capsys.readouterr().err
