"""Where an encoder runs, in what precision, and how much at a time; there need not be an accelerator here."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.nn import functional

from nlpmeta import AdapterStore, FewShotClassifier, TextEncoder
from nlpmeta.encoder import device as devices
from nlpmeta.encoder.device import embed_in_batches, pass_cost, resolve_device, tokens_at_once
from nlpmeta.encoder.table import EmbeddingStore, EmbeddingTable
from nlpmeta.encoder.tokenizing import length_batches
from nlpmeta.episodes.kshot import KShotSampler
from nlpmeta.errors import NLPMetaError, WorkFailedError
from nlpmeta.learners.base import Texts, learners
from nlpmeta.learners.start import starting_learner
from nlpmeta.sources.loading import load_source
from nlpmeta.training import TrainSettings
from nlpmeta.training.engine import make_accelerator


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv("NLPMETA_DEVICE", raising=False)


def machine(monkeypatch, *, cuda=0, mps=False, xpu=0):
    """A machine with these devices, as far as PyTorch says."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: xpu > 0)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: xpu)


@pytest.mark.parametrize(
    ("there", "best"),
    [
        ({}, "cpu"),
        ({"xpu": 1}, "xpu:0"),
        ({"mps": True}, "mps:0"),
        ({"mps": True, "xpu": 1}, "mps:0"),
        ({"cuda": 2, "mps": True, "xpu": 1}, "cuda:0"),
    ],
)
def test_auto_is_cuda_then_mps_then_xpu_then_the_cpu(monkeypatch, there, best):
    machine(monkeypatch, **there)
    assert str(resolve_device("auto")) == best


@pytest.mark.parametrize(
    ("asked", "found"),
    [("cuda", "cuda:0"), ("cuda:1", "cuda:1"), (" CUDA:1 ", "cuda:1"), ("cpu", "cpu"), ("cpu:0", "cpu")],
)
def test_a_device_goes_by_its_name(monkeypatch, asked, found):
    machine(monkeypatch, cuda=2)
    assert str(resolve_device(asked)) == found
    assert str(resolve_device(torch.device(asked.strip().lower()))) == found


@pytest.mark.parametrize("asked", ["cuda:2", "mps", "xpu", "gpu", "tpu:x", "", "meta", torch.device("cuda:7")])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch, asked):
    machine(monkeypatch, cuda=2)
    with pytest.raises(NLPMetaError, match="cuda:0, cuda:1, cpu"):
        resolve_device(asked)


def test_the_variable_says_what_auto_is_and_nothing_else(monkeypatch):
    machine(monkeypatch, cuda=1)
    monkeypatch.setenv("NLPMETA_DEVICE", "cpu")
    assert resolve_device("auto").type == "cpu"
    assert resolve_device("cuda").type == "cuda"
    monkeypatch.setenv("NLPMETA_DEVICE", "mps")
    with pytest.raises(NLPMetaError, match="NLPMETA_DEVICE"):
        resolve_device("auto")


@pytest.mark.parametrize("asked", ["cuda", "nonsense"])
def test_everything_that_loads_an_encoder_refuses_an_absent_device(asked, encoder_folder, tmp_path, pool):
    FewShotClassifier("ridge", encoder=str(encoder_folder)).fit(pool.texts, pool.names()).save_pretrained(
        tmp_path / "model"
    )
    works = [
        lambda: TextEncoder.from_pretrained(str(encoder_folder), device=asked),
        lambda: FewShotClassifier("ridge", encoder=str(encoder_folder), device=asked).fit(pool.texts, pool.names()),
        lambda: FewShotClassifier.from_pretrained(tmp_path / "model", device=asked),
        lambda: AdapterStore(tmp_path / "users", device=asked),
        lambda: make_accelerator(TrainSettings(steps=1), None, device=asked),
    ]
    for work in works:
        with pytest.raises(NLPMetaError, match="this machine has: cpu"):
            work()


def test_a_given_encoder_stays_where_it_is_and_as_long_as_it_is(encoder, pool, monkeypatch):
    machine(monkeypatch, cuda=1)
    with pytest.raises(NLPMetaError, match="Move it first"):
        FewShotClassifier("ridge", encoder=encoder, device="cuda").fit(pool.texts, pool.names())
    with pytest.raises(NLPMetaError, match="reads 32 tokens"):
        FewShotClassifier("ridge", encoder=encoder, max_length=16).fit(pool.texts, pool.names())
    with pytest.raises(NLPMetaError, match="Move it first"):
        FewShotClassifier(learners["ridge"](encoder), device="cuda").fit(pool.texts, pool.names())
    assert FewShotClassifier("ridge", encoder=encoder, device="cpu", max_length=32).fit(pool.texts, pool.names())


def test_a_clone_keeps_device_and_length():
    copy = clone(FewShotClassifier(device="cuda:1", max_length=256))
    assert (copy.device, copy.max_length) == ("cuda:1", 256)


def test_training_refuses_another_than_the_first_device(monkeypatch):
    machine(monkeypatch, cuda=2)
    with pytest.raises(NLPMetaError, match="CUDA_VISIBLE_DEVICES=1"):
        make_accelerator(TrainSettings(steps=1), None, device="cuda:1")


@pytest.mark.slow
def test_all_learners_work_on_another_device_and_make_no_tensor_on_the_default_one():
    tests = Path(__file__).parent
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        str(tests / "on_another_device.py"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tests.parent, timeout=1500, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout[-8000:]


# How much goes through at a time.


class Memory:
    """A device on which no more than ``room`` padded tokens fit."""

    def __init__(self, lengths, room):
        self.lengths, self.room, self.asked = lengths, room, []

    def embed(self, rows):
        size = len(rows) * max(self.lengths[row] for row in rows)
        self.asked.append(size)
        if size > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return torch.tensor([[float(row)] for row in rows])


@pytest.mark.parametrize("n_texts", [1, 10, 25, 300])
def test_a_group_ends_where_its_padding_costs_more_than_one_more_pass(n_texts):
    lengths = np.random.default_rng(n_texts).geometric(0.05, size=n_texts).clip(3, 128).tolist()
    groups = length_batches(lengths, batch_tokens=512, pass_cost=24)
    assert sorted(row for group in groups for row in group) == list(range(n_texts))
    longest = [max(lengths[row] for row in group) for group in groups]
    assert longest == sorted(longest)
    padding = [len(g) * most - sum(lengths[row] for row in g) for g, most in zip(groups, longest, strict=True)]
    assert max(padding) <= 24 and all(len(g) * most <= 512 for g, most in zip(groups, longest, strict=True))
    few = length_batches(lengths, batch_tokens=512, pass_cost=512)
    assert len(few) <= len(groups) and sum(map(len, few)) == n_texts


def test_a_pass_costs_little_on_a_core_and_a_whole_batch_on_an_accelerator(monkeypatch):
    for n_threads in (1, 4):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n_threads: n)
        assert pass_cost(torch.device("cpu")) == 24 * n_threads
    assert pass_cost(torch.device("cuda")) >= devices.BATCH_TOKENS


@torch.no_grad()
def test_a_batch_that_is_too_large_is_halved_until_it_fits_and_rows_keep_their_order():
    lengths = np.random.default_rng(0).integers(2, 30, size=200).tolist()
    memory, done = Memory(lengths, room=130), []
    found = embed_in_batches(lengths, memory.embed, batch_tokens=4096, pass_cost=4096, advance=done.append)
    assert found.squeeze(1).tolist() == list(range(200))
    assert sum(done) == 200
    failed = [size for size in memory.asked if size > 130]
    assert 1 < len(failed) <= 8  # the smaller size is kept for what is left
    assert all(later <= earlier / 2 + 30 for earlier, later in zip(failed, failed[1:], strict=False))


@torch.no_grad()
def test_a_single_text_that_does_not_fit_is_said():
    memory = Memory([500], room=130)
    with pytest.raises(WorkFailedError, match=r"500 tokens.*--max-length"):
        embed_in_batches([500], memory.embed, batch_tokens=4096)


@torch.no_grad()
@pytest.mark.parametrize("message", ["MPS backend out of memory (MPS allocated: 1 GB)", "can't allocate memory: you"])
def test_devices_that_say_it_otherwise_are_understood(message):
    asked = []

    def embed(rows):
        asked.append(len(rows))
        if len(rows) > 2:
            raise RuntimeError(message)
        return torch.zeros(len(rows), 1)

    assert len(embed_in_batches([3] * 8, embed, batch_tokens=100)) == 8
    assert asked[:3] == [8, 4, 2]


@torch.no_grad()
def test_another_error_is_no_lack_of_memory():
    def embed(rows):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        embed_in_batches([3] * 8, embed, batch_tokens=100)


def test_with_gradients_nothing_is_tried_again():
    memory = Memory([10] * 40, room=130)
    with pytest.raises(torch.OutOfMemoryError):
        embed_in_batches([10] * 40, memory.embed, batch_tokens=4096)
    assert len(memory.asked) == 1


def test_an_encoder_on_a_full_device_gives_the_same_embeddings(encoder, pool, monkeypatch):
    expected, whole, sizes = encoder.encode(pool.texts), TextEncoder.embed_batch, []

    def little_room(self, tokens, adapter=None):
        sizes.append(len(tokens))
        if len(tokens) > 5:
            raise torch.OutOfMemoryError("XPU out of memory.")
        return whole(self, tokens, adapter)

    monkeypatch.setattr(TextEncoder, "embed_batch", little_room)
    torch.testing.assert_close(encoder.encode(pool.texts), expected)
    assert max(sizes) > 5


def test_batches_grow_with_the_free_memory_of_an_accelerator_and_not_on_the_cpu(encoder, monkeypatch):
    assert tokens_at_once(encoder) == devices.BATCH_TOKENS
    sizes = []
    for free in (0, 10**7, 10**11):
        monkeypatch.setattr(devices, "_free_bytes", lambda device, free=free: free)
        sizes.append(tokens_at_once(encoder))
    assert sizes[0] == devices.BATCH_TOKENS
    assert sizes[0] < sizes[1] < sizes[2] == devices._MOST_TOKENS


# Precision.


@pytest.fixture
def rounds(monkeypatch):
    """The CPU embeds in bfloat16, as accelerators do."""
    monkeypatch.setattr(devices, "embeds_in_bf16", lambda device: True)
    monkeypatch.setattr("nlpmeta.encoder.table.embeds_in_bf16", lambda device: True)


def test_the_transformer_rounds_and_what_comes_out_is_float32_of_unit_length(encoder, pool, rounds):
    seen = []
    encoder.backbone.encoder.layer[0].output.dense.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    vectors = encoder.encode(pool.texts)
    assert set(seen) == {torch.bfloat16}
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)), rtol=0, atol=1e-6)


def test_what_is_trained_and_what_has_gradients_is_not_rounded(encoder, pool, rounds):
    seen = []
    encoder.backbone.encoder.layer[0].output.dense.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    encoder(pool.texts[:4])
    with torch.no_grad():
        encoder.train()(pool.texts[:4])
    assert set(seen) == {torch.float32}


def test_rounded_embeddings_are_kept_apart_from_exact_ones(encoder_folder, tmp_path, monkeypatch):
    encoder = TextEncoder.from_pretrained(str(encoder_folder), device="cpu")
    exact = EmbeddingStore.of(encoder, tmp_path)
    monkeypatch.setattr("nlpmeta.encoder.table.embeds_in_bf16", lambda device: True)
    rounded = EmbeddingStore.of(encoder, tmp_path)
    assert exact is not None
    assert rounded is not None
    assert exact.path != rounded.path


@contextmanager
def rounded_products(monkeypatch):
    """What autocast computes, without the CPU's slow bfloat16: products of rounded numbers, summed in float32."""

    def rounded(value):
        return value.bfloat16().float() if value is not None else None

    linear, attention = functional.linear, functional.scaled_dot_product_attention
    with monkeypatch.context() as patch:
        patch.setattr(functional, "linear", lambda x, w, b=None: rounded(linear(*map(rounded, (x, w, b)))))
        patch.setattr(
            functional,
            "scaled_dot_product_attention",
            lambda q, k, v, **options: rounded(attention(*map(rounded, (q, k, v)), **options)),
        )
        yield


def test_products_of_rounded_numbers_stand_for_autocast(encoder, pool, monkeypatch):
    exact = encoder.encode(pool.texts)
    with rounded_products(monkeypatch):
        found = encoder.encode(pool.texts)
    monkeypatch.setattr(devices, "embeds_in_bf16", lambda device: True)
    cast = encoder.encode(pool.texts)
    distance = (cast - exact).norm()
    assert distance > 0
    assert 0.5 < (found - exact).norm() / distance < 2


@pytest.mark.slow
def test_bfloat16_changes_at_most_one_prediction_in_a_hundred_on_the_starter_corpus(monkeypatch):
    learner = starting_learner("auto", device="cpu")
    data = load_source("starter").load("sw")
    texts = list(dict.fromkeys(learner.texts_of(data)))
    exact, rounded = EmbeddingTable(learner.encoder), EmbeddingTable(learner.encoder)
    exact.prime(texts)
    with rounded_products(monkeypatch):
        rounded.prime(texts)
    changed = total = 0
    for seed in range(3):
        episode, found = KShotSampler(data, n_shot=5, seed=seed).episode(0), []
        queries = episode.query.texts
        with torch.no_grad():
            for table in (exact, rounded):
                state = learner.adapt(learner.support(episode.support, table))
                found.append(learner.logits(state, Texts(queries, table(queries))).argmax(1))
        changed, total = changed + int((found[0] != found[1]).sum()), total + len(queries)
    assert not torch.equal(exact(texts), rounded(texts))
    assert total == 612
    assert changed <= total / 100
