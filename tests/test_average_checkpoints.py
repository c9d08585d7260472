"""The average of checkpoints: every weight, what it says of its training, and what cannot be averaged."""

import pytest
import torch
from average_checkpoints import average
from conftest import save_encoder
from safetensors.torch import load_file

from nlpmeta.encoder.lora import AdapterSettings, add_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.checkpoint import load_checkpoint, save_checkpoint
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.ridge import RidgeHead
from nlpmeta.storage.manifest import read_manifest


def a_checkpoint(folder, encoder_folder, *, seed, rank=2, kind=PrototypicalNetwork, **facts):
    """A checkpoint whose weights, adapters' and learner's, are random numbers of this seed."""
    encoder = TextEncoder.from_pretrained(str(encoder_folder), device="cpu")
    add_adapter(encoder, AdapterSettings(rank=rank), seed=seed)
    learner = kind(encoder)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in learner.named_parameters():
            if weight.requires_grad or not name.startswith("encoder."):
                weight.copy_(torch.rand(weight.shape, generator=draw))
    save_checkpoint(learner, folder, facts)
    return folder


@pytest.fixture
def encoder_folder(tmp_path):
    return save_encoder(tmp_path / "encoder")


def test_every_weight_is_the_mean_and_the_checkpoint_can_be_loaded(tmp_path, encoder_folder):
    parts = [a_checkpoint(tmp_path / f"part-{seed}", encoder_folder, seed=seed) for seed in (1, 2, 3)]
    average(parts, tmp_path / "out")
    for file, least in (("adapter_model.safetensors", 24), ("learner.safetensors", 1)):
        found, each = load_file(tmp_path / "out" / file), [load_file(part / file) for part in parts]
        assert len(found) >= least
        for name, value in found.items():
            mean = torch.stack([weights[name] for weights in each]).mean(0)
            assert torch.allclose(value.float(), mean, atol=1e-3), name  # adapters are stored in half precision
            assert not torch.allclose(each[0][name], mean, atol=1e-3), name
    assert isinstance(load_checkpoint(tmp_path / "out"), PrototypicalNetwork)


def test_all_datasets_are_named_and_a_language_is_left_out_only_if_all_stages_left_it_out(tmp_path, encoder_folder):
    first = a_checkpoint(
        tmp_path / "a", encoder_folder, seed=1, sets=["massive"], leave_out_langs=["sw", "af"], steps=5
    )
    second = a_checkpoint(
        tmp_path / "b",
        encoder_folder,
        seed=2,
        sets=["liu", "massive"],
        leave_out_langs=["sw"],
        steps=9,
        provenance={"liu": {"licence": "CC BY 4.0"}},
    )
    before = a_checkpoint(
        tmp_path / "c", encoder_folder, seed=3, sets=["injongo"], leave_out_langs=["sw", "zu"], steps=70
    )
    average([first, second], tmp_path / "out", earlier=[before])
    training = read_manifest(tmp_path / "out")["training"]
    assert training["sets"] == ["injongo", "liu", "massive"]
    assert training["leave_out_langs"] == ["sw"]
    assert training["provenance"] == {"liu": {"licence": "CC BY 4.0"}}
    assert [each["steps"] for each in training["average_of"]] == [5, 9]
    assert [each["steps"] for each in training["continued_from"]] == [70]


def test_one_checkpoint_or_checkpoints_of_other_shapes_or_learners_cannot_be_averaged(tmp_path, encoder_folder):
    one = a_checkpoint(tmp_path / "one", encoder_folder, seed=1)
    with pytest.raises(NLPMetaError, match="needs two checkpoints or more; got 1"):
        average([one], tmp_path / "out")
    for other in (
        a_checkpoint(tmp_path / "wider", encoder_folder, seed=1, rank=4),
        a_checkpoint(tmp_path / "ridge", encoder_folder, seed=1, kind=RidgeHead),
    ):
        with pytest.raises(NLPMetaError, match="have other weights"):
            average([one, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()
