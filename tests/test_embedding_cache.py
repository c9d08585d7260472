"""Embeddings are computed once per text, and the store on disk is never wrong and never in the way."""

import sqlite3
import subprocess
import sys
import textwrap

import pytest
import torch
from conftest import scale_adapter

from nlpmeta.encoder import table as cache
from nlpmeta.encoder import table as store
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import DataWarning

TEXTS = ("ball goal", "rice soup salt", "bank", "loan cash rate ball", "ball goal")


@pytest.fixture
def on_disk(encoder_folder):
    return TextEncoder.from_pretrained(str(encoder_folder))


def filled(encoder, folder, texts=TEXTS):
    table = EmbeddingTable(encoder, folder)
    table.prime(texts)
    return table


def database(folder):
    (path,) = folder.glob("*.sqlite")
    return path


def test_a_table_gives_what_the_encoder_gives_in_any_order(encoder):
    table = EmbeddingTable(encoder)
    torch.testing.assert_close(table(TEXTS), encoder(TEXTS))
    torch.testing.assert_close(table(TEXTS[::-1]), encoder(TEXTS[::-1]))


def test_each_distinct_text_is_encoded_once(encoder):
    table = EmbeddingTable(encoder)
    table.prime(TEXTS)
    table(TEXTS)
    assert table.n_encoded == 4


def test_embeddings_of_a_table_can_be_trained_on(encoder):
    head = torch.nn.Linear(encoder.dim, 2)
    head(EmbeddingTable(encoder)(TEXTS)).sum().backward()
    assert head.weight.grad.abs().sum() > 0


def test_the_next_run_reads_what_this_one_wrote(on_disk, tmp_path):
    first = filled(on_disk, tmp_path)
    second = filled(on_disk, tmp_path, [*TEXTS, "match team"])
    assert (first.n_encoded, second.n_encoded) == (4, 1)
    assert torch.equal(first(TEXTS), second(TEXTS))


def test_a_text_with_a_lone_surrogate_can_be_kept(tmp_path):
    kept = store.EmbeddingStore(tmp_path / "x.sqlite", 2)
    kept.write(["a\ud800"], torch.tensor([[1.0, 2.0]]))
    assert kept.read(["a\ud800"])[1].tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("change", [{"prefix": "query: "}, {"max_length": 16}, {"normalise": False}])
def test_an_encoder_used_otherwise_has_a_store_of_its_own(on_disk, encoder_folder, tmp_path, change):
    filled(on_disk, tmp_path)
    other = TextEncoder.from_pretrained(str(encoder_folder), **change)
    assert filled(other, tmp_path).n_encoded == 4


def test_changed_weights_have_a_store_of_their_own(on_disk, encoder_folder, tmp_path):
    filled(on_disk, tmp_path)
    other = TextEncoder.from_pretrained(str(encoder_folder))
    next(other.backbone.parameters()).data[3, 3] += 1e-4
    assert filled(other, tmp_path).n_encoded == 4


def test_a_frozen_adapter_and_its_scale_count_as_weights(encoder_folder, tmp_path):
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    add_adapter(encoder, AdapterSettings(rank=2), seed=0)
    for weight in adapter_weights(encoder).values():
        weight.data += 0.1
        weight.requires_grad_(False)
    assert [filled(encoder, tmp_path).n_encoded, filled(encoder, tmp_path).n_encoded] == [4, 0]
    scale_adapter(encoder, 0.5)
    assert filled(encoder, tmp_path).n_encoded == 4


def test_an_encoder_that_is_trained_is_not_kept_on_disk(encoder_folder, tmp_path):
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    add_adapter(encoder, AdapterSettings(rank=2), seed=0)
    assert any(weight.requires_grad for weight in encoder.parameters())
    filled(encoder, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_made_in_memory_is_not_kept_on_disk(encoder, tmp_path):
    filled(encoder, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_written(on_disk, tmp_path, monkeypatch):
    monkeypatch.setenv("NLPMETA_EMBEDDINGS", str(tmp_path))
    EmbeddingTable(on_disk)(TEXTS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"this is no database" * 300, b"SQLite format 3\x00" + b"\xff" * 9000])
def test_a_damaged_store_is_started_anew_and_said(on_disk, tmp_path, content):
    expected = filled(on_disk, tmp_path)(TEXTS)
    database(tmp_path).write_bytes(content)
    with pytest.warns(DataWarning, match="is rebuilt"):
        table = filled(on_disk, tmp_path)
    assert torch.equal(table(TEXTS), expected)
    assert filled(on_disk, tmp_path).n_encoded == 0


def test_a_cut_off_store_gives_no_wrong_vector(on_disk, tmp_path):
    many = [f"ball {word}" for word in "goal match team rice soup bread salt bank loan cash rate".split()] * 1
    expected = filled(on_disk, tmp_path, many)(many)
    path = database(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(DataWarning):
        table = filled(on_disk, tmp_path, many)
    torch.testing.assert_close(table(many), expected)


def test_a_vector_with_a_flipped_bit_is_computed_again(on_disk, tmp_path):
    expected = filled(on_disk, tmp_path)(TEXTS)
    with sqlite3.connect(database(tmp_path)) as connection:
        ((key, row),) = connection.execute("SELECT text, vector FROM embeddings LIMIT 1").fetchall()
        flipped = bytes([row[0] ^ 1]) + row[1:]
        connection.execute("UPDATE embeddings SET vector = ? WHERE text = ?", (flipped, key))
    connection.close()
    with pytest.warns(DataWarning, match="1 embeddings .* damaged"):
        table = filled(on_disk, tmp_path)
    assert table.n_encoded == 1
    torch.testing.assert_close(table(TEXTS), expected)
    assert filled(on_disk, tmp_path).n_encoded == 0


def test_a_folder_that_cannot_be_written_only_costs_a_warning(on_disk, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.warns(DataWarning, match="not kept") as said:
        table = EmbeddingTable(on_disk, blocked)
        table.prime(TEXTS)
    assert len(said) == 1
    torch.testing.assert_close(table(TEXTS), on_disk(TEXTS))


def test_a_run_that_stops_keeps_what_it_finished(on_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 2)
    embed, calls = on_disk.embed_tokens, []

    def stops_at_the_second_chunk(tokens, **options):
        calls.append(len(tokens))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed(tokens, **options)

    monkeypatch.setattr(on_disk, "embed_tokens", stops_at_the_second_chunk)
    with pytest.raises(KeyboardInterrupt):
        filled(on_disk, tmp_path)
    monkeypatch.undo()
    assert filled(on_disk, tmp_path).n_encoded == 2


@pytest.mark.slow
def test_two_processes_can_fill_one_store(tmp_path):
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        import torch
        from nlpmeta.encoder.table import EmbeddingStore
        kept = EmbeddingStore(Path(sys.argv[1]), 3)
        for start in range(int(sys.argv[2]), 60, 3):
            texts = [str(number) for number in range(start, start + 9)]
            kept.write(texts, torch.tensor([[float(text)] * 3 for text in texts]))
        """
    )
    path = tmp_path / "shared.sqlite"
    writers = [subprocess.Popen([sys.executable, "-W", "error", "-c", code, str(path), str(start)]) for start in (0, 1)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    found, vectors = store.EmbeddingStore(path, 3).read([str(number) for number in range(69)])
    assert len(found) >= 66
    assert vectors[:, 0].tolist() == [float(text) for text in found]


def test_the_folder_can_be_chosen_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("NLPMETA_EMBEDDINGS", str(tmp_path / "here"))
    assert store.embeddings_folder() == tmp_path / "here"
    monkeypatch.delenv("NLPMETA_EMBEDDINGS")
    monkeypatch.setenv("NLPMETA_CACHE", str(tmp_path))
    assert store.embeddings_folder() == tmp_path / "embeddings"
