import errno

import numpy as np
import pytest
import torch
from conftest import make_encoder
from meta_task import noisy_encoder, samplers

from nlpmeta.encoder.frozen_layers import SplitBackbone, StateStore, bytes_of, frozen_layer_cache
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter, freeze_below
from nlpmeta.errors import NLPMetaError, WorkFailedError
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.training import TrainSettings
from nlpmeta.training.engine import meta_train

TEXTS = ["ball goal", "rice soup bread salt", "bank", "loan cash rate team match", "ball goal"]


def top_layer_encoder():
    encoder = make_encoder()
    add_adapter(encoder, AdapterSettings(rank=4, layers=1), seed=0)
    with torch.no_grad():
        for weight in adapter_weights(encoder).values():
            weight += 0.1
    return encoder


def noisy_adapters():
    """Adapters in every layer that change what the encoder says."""
    encoder = make_encoder()
    add_adapter(encoder, AdapterSettings(rank=4), seed=0)
    with torch.no_grad():
        for weight in adapter_weights(encoder).values():
            weight += 0.1
    return encoder


def test_the_two_parts_are_the_whole_and_share_its_weights():
    encoder = top_layer_encoder()
    split = SplitBackbone(encoder.backbone, 1)
    ids, mask = encoder.pad(encoder.tokenize(TEXTS))
    whole = encoder.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(split.upper(split.lower(ids, mask), mask), whole)
    assert len(encoder.backbone.encoder.layer) == 2
    with torch.no_grad():
        next(iter(adapter_weights(encoder).values())).add_(1.0)
    moved = encoder.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(split.upper(split.lower(ids, mask), mask), moved)
    assert not torch.allclose(moved, whole)


def test_embeddings_and_gradients_are_those_without_the_cache(tmp_path):
    encoder = top_layer_encoder()
    tokens = encoder.tokenize(TEXTS)

    def results():
        encoder.zero_grad()
        vectors = encoder.embed_tokens(tokens)
        vectors.cos().sum().backward()
        return vectors.detach(), torch.cat([w.grad.flatten() for w in adapter_weights(encoder).values()])

    plain = results()
    with frozen_layer_cache(encoder, "float32", folder=tmp_path / "states") as states:
        for _ in range(2):
            torch.testing.assert_close(results(), plain)
        assert states.computed == 4  # distinct texts, each once
    assert encoder.frozen_layers is None


def test_adapters_below_the_cut_that_stay_are_part_of_the_cached_states(tmp_path):
    encoder = noisy_adapters()
    freeze_below(encoder, 1)
    tokens = encoder.tokenize(TEXTS)

    def results():
        encoder.zero_grad()
        vectors = encoder.embed_tokens(tokens)
        vectors.cos().sum().backward()
        trained = [w.grad.flatten() for w in adapter_weights(encoder).values() if w.requires_grad]
        return vectors.detach(), torch.cat(trained), encoder.merged(0.0).embed_tokens(tokens)

    plain = results()
    with frozen_layer_cache(encoder, "float32", folder=tmp_path / "states") as states:
        torch.testing.assert_close(results(), plain)
        assert states.computed == 4


def test_replaced_weights_are_replaced_above_the_cut_too(tmp_path):
    encoder = top_layer_encoder()
    other = {name: weight.detach() * 2 for name, weight in adapter_weights(encoder).items()}
    with torch.no_grad():
        plain = encoder(TEXTS, adapter=other)
        with frozen_layer_cache(encoder, "float32", folder=tmp_path / "states"):
            torch.testing.assert_close(encoder(TEXTS, adapter=other), plain)


def test_the_cache_outlives_the_run_and_float16_is_close(tmp_path):
    encoder, folder = top_layer_encoder(), tmp_path / "states"
    plain = encoder.encode(TEXTS)
    with frozen_layer_cache(encoder, "float16", folder=folder) as states:
        first = encoder.encode(TEXTS)
        assert states.computed == 4
    with frozen_layer_cache(encoder, "float16", folder=folder) as states:
        assert torch.equal(encoder.encode(TEXTS), first)
        assert states.computed == 0
    torch.testing.assert_close(first, plain, rtol=0, atol=2e-3)
    sparse = sum(file.stat().st_blocks * 512 for file in folder.glob("states-*"))
    assert sparse < 100_000  # segments take the space of what is in them


def test_damaged_states_are_computed_again(tmp_path):
    encoder, folder = top_layer_encoder(), tmp_path / "states"
    with frozen_layer_cache(encoder, "float32", folder=folder):
        whole = encoder.encode(TEXTS)
    segment = folder / "states-0000.bin"
    content = np.memmap(segment, np.uint8, "r+")
    content[10] ^= 255
    content.flush()
    with (folder / "index.bin").open("ab") as index:
        index.write(b"half a record")
    with frozen_layer_cache(encoder, "float32", folder=folder) as states:
        torch.testing.assert_close(encoder.encode(TEXTS), whole)
        assert states.computed == 1


def test_a_second_process_at_once_gets_a_cache_of_its_own(tmp_path):
    one, two = top_layer_encoder(), top_layer_encoder()
    with (
        frozen_layer_cache(one, "float32", folder=tmp_path / "s"),
        frozen_layer_cache(two, "float32", folder=tmp_path / "s") as other,
    ):
        one.encode(TEXTS)
        two.encode(TEXTS)
        assert other.computed == 4
        place = other._store.folder
    assert not place.exists()


def test_arrays_that_do_not_fit_open_a_new_file(tmp_path, monkeypatch):
    monkeypatch.setattr("nlpmeta.encoder.frozen_layers.SEGMENT_TOKENS", 8)
    store = StateStore(tmp_path, 2, "float32")
    arrays = {bytes([i]) * 16: np.full((3, 2), i, np.float32) for i in range(5)}
    for key, array in arrays.items():
        store.put(key, array)
    store.close()
    again = StateStore(tmp_path, 2, "float32")
    for key, array in arrays.items():
        np.testing.assert_array_equal(again.get(key), array)
    assert len(list(tmp_path.glob("states-*"))) == 3
    assert len(again) == 5
    again.close()


def test_adapters_in_every_layer_leave_nothing_to_cache(tmp_path):
    encoder = make_encoder()
    add_adapter(encoder, AdapterSettings(), seed=0)
    with (
        pytest.raises(NLPMetaError, match="every layer, so none below"),
        frozen_layer_cache(encoder, "float32"),
    ):
        pass


def test_a_backbone_of_another_make_is_refused():
    backbone = make_encoder().backbone
    backbone.config.num_hidden_layers = 7
    with pytest.raises(NLPMetaError, match="cannot be cached"):
        SplitBackbone(backbone, 1)


def test_training_on_cached_states_takes_the_same_steps(tmp_path):
    found = []
    for kind in ("off", "float32"):
        encoder = noisy_encoder()
        add_adapter(encoder, AdapterSettings(rank=4, layers=1), seed=0)
        learner = PrototypicalNetwork(encoder, temperature=0.1)
        said = []
        settings = TrainSettings(
            steps=4, lower_states=kind, learning_rate=5e-3, warmup=0, eval_every=2, eval_episodes=2
        )
        train, heldout = samplers()
        meta_train(learner, train, settings=settings, evaluate={"classes": heldout}, say=said.append)
        found.append(torch.cat([weight.detach().flatten() for weight in adapter_weights(encoder).values()]))
        assert any(line.startswith("Cache of the lower layers") for line in said) == (kind != "off")
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert "texts" in said[0] and "MB" in said[0]


def test_the_forecast_is_checked_against_the_disk(monkeypatch):
    encoder = noisy_encoder()
    add_adapter(encoder, AdapterSettings(rank=4, layers=1), seed=0)
    monkeypatch.setattr("nlpmeta.training.passes.free_bytes", lambda folder: 1000)
    with pytest.raises(NLPMetaError, match=r"would take .* but .* are free"):
        meta_train(PrototypicalNetwork(encoder), samplers()[0], settings=TrainSettings(steps=4, lower_states="float32"))


def test_the_size_is_tokens_times_width():
    assert bytes_of(1000, 384, "float16") == 1000 * 384 * 2


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path, monkeypatch):
    """Writing through memory where the disk has no room is answered by a signal: room is asked for before."""
    store, rows = StateStore(tmp_path / "states", 4, "float32"), np.ones((3, 4), np.float32)
    store.put(b"a" * 16, rows)

    def full(descriptor, start, length):
        assert (start, length) == (48, 48)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full, raising=False)
        with pytest.raises(WorkFailedError, match="the disk is full"):
            store.put(b"b" * 16, rows)
    assert store.get(b"b" * 16) is None and np.array_equal(store.get(b"a" * 16), rows)
    store.put(b"b" * 16, rows * 2)
    store.close()
    again = StateStore(tmp_path / "states", 4, "float32")
    assert np.array_equal(again.get(b"b" * 16), rows * 2)
    again.close()
