"""Meta-training on the embeddings of an encoder that does not train: the same numbers, each text computed once."""

import pytest
import torch
from conftest import make_encoder
from meta_task import noisy_encoder, samplers

from nlpmeta.encoder.lora import AdapterSettings, add_adapter
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.learners.mann import MemoryAugmentedNetwork
from nlpmeta.learners.prototypical import SiameseNetwork
from nlpmeta.training import TrainSettings
from nlpmeta.training.engine import meta_train
from nlpmeta.training.optimise import trainable
from nlpmeta.training.passes import KnownPass

TEXTS = ["ball goal", "rice", "bank loan cash", "team", "bread salt", "rate"]


def weights_after(learner, monkeypatch, *, cached):
    if not cached:  # the encoder is asked at every step, and as it does not train nothing goes back into it
        monkeypatch.setattr("nlpmeta.training.run.EmbeddingTable", lambda *_, **__: None)
        monkeypatch.setattr("nlpmeta.training.passes.TextPass.backward", lambda _: None)
    train, heldout = samplers()
    settings = TrainSettings(steps=4, episodes_per_step=2, eval_every=2, eval_episodes=2, warmup=0, ema=0)
    result = meta_train(learner, train, settings=settings, evaluate={"new": heldout})
    own = {name: w.detach().clone() for name, w in learner.named_parameters() if not name.startswith("encoder.")}
    return own, result.best_accuracy


@pytest.mark.parametrize("kind", [SiameseNetwork, MemoryAugmentedNetwork])
def test_training_on_cached_embeddings_gives_the_weights_of_training_without(kind, monkeypatch):
    found = []
    for cached in (True, False):
        torch.manual_seed(0)
        found.append(weights_after(kind(noisy_encoder()), monkeypatch, cached=cached))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1])


def test_each_text_is_encoded_once():
    encoder = make_encoder(dropout=0.0)
    known = EmbeddingTable(encoder, None)
    first, second = KnownPass(known, TEXTS[:4]), KnownPass(known, TEXTS)
    assert known.n_encoded == len(TEXTS)
    assert (first.n_texts, second.n_texts) == (4, 6)
    assert 0 < second.n_tokens < first.n_tokens + second.n_tokens == known.n_tokens
    torch.testing.assert_close(second.of(TEXTS[::-1]), encoder.encode(TEXTS[::-1]), rtol=1e-5, atol=1e-6)


def test_memory_stays_below_its_bound_and_nothing_is_mixed_up():
    encoder = make_encoder(dropout=0.0)
    known = EmbeddingTable(encoder, None, most_bytes=4 * encoder.dim * 3)
    expected = encoder.encode(TEXTS)
    for start in (0, 2, 4, 1, 3, 0):
        some = [*TEXTS[start:], *TEXTS[:start]][:4]
        torch.testing.assert_close(known(some), expected[[TEXTS.index(text) for text in some]], rtol=1e-5, atol=1e-6)
        assert known.nbytes <= 4 * encoder.dim * 3
    assert known.n_encoded > len(TEXTS)  # without a disk, what gave way is computed again


def test_what_gave_way_comes_back_from_disk_and_so_does_the_next_run(tmp_path, encoder_folder):
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    known = EmbeddingTable(encoder, tmp_path, most_bytes=4 * encoder.dim * 2)
    first = known(TEXTS).clone()
    torch.testing.assert_close(known(TEXTS), first, rtol=0, atol=0)
    assert known.n_encoded == len(TEXTS)
    again = EmbeddingTable(TextEncoder.from_pretrained(str(encoder_folder)), tmp_path)
    torch.testing.assert_close(again(TEXTS), first, rtol=0, atol=0)
    assert again.n_encoded == 0


def test_adapters_that_must_not_change_are_no_weights_to_train():
    encoder = make_encoder()
    add_adapter(encoder, AdapterSettings(rank=2), seed=0)
    learner = MemoryAugmentedNetwork(encoder, rows=8, max_way=4)
    assert trainable(learner)[0]
    encoder.requires_grad_(False)
    adapter, own = trainable(learner)
    assert not adapter
    assert own


def test_a_table_of_known_embeddings_asks_the_encoder_for_no_more_than_the_others():
    encoder = make_encoder(dropout=0.0)
    given = torch.arange(2.0 * encoder.dim).view(2, encoder.dim)
    table = EmbeddingTable.of(encoder, TEXTS[:2], given)
    assert torch.equal(table([TEXTS[1], TEXTS[0]]), given[[1, 0]])
    assert table.n_encoded == 0
    found = table([TEXTS[2], TEXTS[0], TEXTS[2]])
    assert table.n_encoded == 1
    assert torch.equal(found[1], given[0])
    torch.testing.assert_close(found[[0, 2]], encoder.encode([TEXTS[2]] * 2))
