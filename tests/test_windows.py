"""Texts longer than an encoder takes at once: overlapping windows, averaged, chosen from the support's lengths."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TOPICS, make_encoder
from typer.testing import CliRunner

from nlpmeta import AdapterSettings, FewShotClassifier, TextEncoder, add_adapter
from nlpmeta.auto.method import AutoHead
from nlpmeta.cli import app, main
from nlpmeta.encoder.lora import adapter_weights
from nlpmeta.encoder.parts import OVERLAP, Longer, Windows
from nlpmeta.encoder.table import EmbeddingTable, state_digest
from nlpmeta.encoder.views import ScaledEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.start import reading
from nlpmeta.storage.manifest import read_manifest

LONG = " ".join(word for topic in TOPICS.values() for word in topic.split()) + " "
MIXED = ["rice", LONG * 5, "ball goal", LONG * 3 + "goal", "soup " * 20]


def adapted() -> TextEncoder:
    """The small encoder with adapters that matter."""
    encoder = make_encoder()
    add_adapter(encoder, AdapterSettings(rank=4), seed=0)
    with torch.no_grad():
        for number, weight in enumerate(adapter_weights(encoder).values()):
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) * 0.3)
    return encoder


@pytest.mark.parametrize(("size", "before", "after"), [(128, 4, 1), (64, 0, 0), (20, 1, 1), (6, 2, 1)])
def test_windows_hold_every_token_overlap_and_are_equally_long(size, before, after):
    windows, room = Windows(size, before, after), size - before - after
    for n in range(room + 1, 5 * size):
        ids = [*range(-before, 0), *range(n), *range(1000, 1000 + after)]
        split = windows.split([ids, ids[: size // 2]])
        parts = split.tokens[:-1]
        bodies = [part[before : len(part) - after] for part in parts]
        assert sorted({token for body in bodies for token in body}) == list(range(n))
        assert len({len(part) for part in parts}) == 1 and len(parts[0]) <= size
        assert all(
            part[:before] == ids[:before] and part[len(part) - after :] == ids[len(ids) - after :] for part in parts
        )
        shared = [one[-1] - other[0] + 1 for one, other in zip(bodies, bodies[1:], strict=False)]
        assert min(shared) >= min(OVERLAP, room // 4) - 1, "rounding may take one"
        assert split.tokens[-1] == ids[: size // 2] and split.counts == [len(parts), 1]


def test_a_text_is_the_mean_of_its_windows_at_unit_length():
    plain = make_encoder()
    encoder = plain.reading(200, 20)
    ids = encoder.tokenize([LONG * 4])[0]
    starts, width = encoder.windows.starts(len(ids))
    each = torch.cat([plain.embed_tokens([ids[start : start + width]]) for start in starts])
    assert len(starts) > 2
    torch.testing.assert_close(encoder.encode([LONG * 4]), F.normalize(each.mean(0, keepdim=True)))


def test_every_window_starts_with_the_prefix_and_the_special_tokens(encoder_folder):
    encoder = TextEncoder.from_pretrained(str(encoder_folder), prefix="ball goal: ", max_length=100, window=16)
    assert (encoder.windows.before, encoder.windows.after) == (3, 0)
    split = encoder.windows.split(encoder.tokenize([LONG * 3]))
    assert len({tuple(part[:3]) for part in split.tokens}) == 1


def test_short_texts_keep_every_bit_beside_long_ones():
    plain = make_encoder()
    encoder = plain.reading(200, 32)
    for texts in (["rice"], ["rice", "ball goal", "soup " * 20]):
        assert torch.equal(plain.encode(texts), encoder.encode(texts))
    one, other = plain.embed_tokens(plain.tokenize(MIXED)), encoder.embed_tokens(encoder.tokenize(MIXED))
    torch.testing.assert_close(one[[0, 2, 4]], other[[0, 2, 4]])
    assert (one[1] - other[1]).abs().max() > 1e-3


def test_each_view_is_pooled_by_itself():
    encoder = adapted().reading(200, 20)
    views = ScaledEncoder(encoder).encode(MIXED)
    torch.testing.assert_close(views[:, :16], encoder.encode(MIXED))
    torch.testing.assert_close(views[:, 16:], make_encoder().reading(200, 20).encode(MIXED))


def test_the_table_embeds_alike_and_keeps_readings_apart():
    plain = make_encoder()
    encoder = plain.reading(200, 20)
    torch.testing.assert_close(EmbeddingTable(encoder)(MIXED), encoder.encode(MIXED))
    every = (plain, encoder, plain.reading(200, 32), plain.reading(60))
    assert len({state_digest(each) for each in every}) == 4
    assert state_digest(plain) == state_digest(plain.reading(32)), "where nothing is divided keys stay what they were"


def test_the_gradient_goes_through_windows():
    encoder = adapted().reading(200, 20)
    ids = encoder.tokenize(MIXED)
    encoder.embed_tokens(ids).sum().backward()
    found = {name: weight.grad.clone() for name, weight in adapter_weights(encoder).items()}
    encoder.zero_grad()
    torch.stack([encoder.embed_tokens([row])[0] for row in ids]).sum().backward()
    for name, weight in adapter_weights(encoder).items():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-5, rtol=1e-4)


def test_progress_counts_texts_and_not_windows():
    encoder, seen = make_encoder().reading(200, 20), []
    encoder.embed_tokens(encoder.tokenize(MIXED), batch_tokens=32, advance=seen.append)
    assert sum(seen) == len(MIXED) and min(seen) >= 0


@pytest.mark.parametrize(("length", "window", "message"), [
    (3, None, "max_length is 3 tokens; 4 to 8192"), (8193, None, "4 to 8192"), (200, 65, "takes 4 to 64 at once"),
    (200, 3, "window is 3 tokens"),
])  # fmt: skip
def test_a_reading_out_of_range_is_refused(encoder_folder, length, window, message):
    with pytest.raises(NLPMetaError, match=message):
        TextEncoder.from_pretrained(str(encoder_folder), max_length=length, window=window)


def test_a_window_without_room_for_a_text_is_refused(encoder_folder):
    with pytest.raises(NLPMetaError, match="no room for a text"):
        TextEncoder.from_pretrained(str(encoder_folder), prefix="ball goal rice soup ", max_length=100, window=4)


@pytest.mark.parametrize(("n_long", "words", "expected"), [
    (0, 100, None), (2, 100, None), (3, 40, (64, 64)), (3, 100, (128, 64)), (20, 130, (256, 64)), (40, 3000, (512, 64)),
])  # fmt: skip
def test_how_much_is_read_follows_from_the_texts(n_long, words, expected):
    texts = ["ball " * words] * n_long + ["rice soup"] * (40 - n_long)
    found = Longer.of(make_encoder(), texts)
    assert (None if found is None else (found.max_length, found.window)) == expected


def test_the_price_is_the_tokens_beyond_the_usual_ones(monkeypatch):
    from nlpmeta.encoder import parts

    monkeypatch.setattr(parts, "_seconds", lambda encoder, text: 0.5)
    found = Longer.of(make_encoder(), ["ball " * 64] * 10 + ["rice"] * 10)
    assert found.seconds(make_encoder(), 100) == 25
    said = found.message("--max-length", 25)
    assert said == (
        "10 of 20 texts are longer than 32 tokens: up to 64 are read, about 25 s more (--max-length 32 reads the "
        "beginning alone)"
    )
    assert "in windows of 64" in Longer.of(make_encoder(), ["ball " * 100]).message("max_length")


def test_a_learner_that_reads_more_shares_the_weights_and_keeps_its_own():
    auto = AutoHead(adapted(), temperature=0.2).eval()
    other, longer = reading(auto, ["ball " * 100])
    assert longer.max_length == 128 and other.encoder.windows is not None and auto.encoder.windows is None
    assert other.encoder.backbone is auto.encoder.backbone and other.config() == auto.config()
    assert reading(auto, ["rice"])[0] is auto


@pytest.fixture
def tails():
    """Texts that differ in their last words alone, which a model that reads the beginning cannot tell apart."""
    start = "score bank " * 35
    topics = {"sport": "ball goal match team", "food": "rice soup bread salt"}
    words = [(name, word) for name, topic in topics.items() for word in topic.split()]
    return [f"{start}{word} {word} {word}" for _, word in words], [name for name, _ in words]


def test_a_model_reads_texts_as_its_fit_did_and_still_does_when_loaded(encoder_folder, tails, tmp_path):
    texts, names = tails
    model = FewShotClassifier("ridge", encoder=str(encoder_folder)).fit(texts, names)
    encoder = model.learner_.encoder
    assert (encoder.max_length, encoder.window) == (128, 64)
    assert model.score(texts, names) == 1.0
    model.save_pretrained(tmp_path / "m", include_support=True)
    facts = read_manifest(tmp_path / "m")["encoder"]
    assert (facts["max_length"], facts["window"]) == (128, 64)
    loaded = FewShotClassifier.from_pretrained(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_proba(texts), model.predict_proba(texts))
    loaded.partial_fit([texts[0] + " goal"], ["sport"])
    assert loaded.learner_.encoder.max_length == 128
    drops = {each.word: each.drop for each in loaded.explain(texts[0]).words}
    assert abs(drops["ball"]) > 1e-6, "the last words count"


def test_short_texts_are_read_as_they_were(encoder_folder, pool, tmp_path):
    model = FewShotClassifier("ridge", encoder=str(encoder_folder)).fit(pool.texts, pool.names())
    assert (model.learner_.encoder.max_length, model.learner_.encoder.windows) == (64, None)
    model.save_pretrained(tmp_path / "m")
    assert "window" not in read_manifest(tmp_path / "m")["encoder"]


def test_what_is_requested_is_read_and_no_more(encoder_folder, tails):
    texts, names = tails
    model = FewShotClassifier("ridge", encoder=str(encoder_folder), max_length=100).fit(texts, names)
    assert (model.learner_.encoder.max_length, model.learner_.encoder.window) == (100, 64)
    with pytest.warns(UserWarning, match="longer than the 32 tokens"):
        few = FewShotClassifier("ridge", encoder=str(encoder_folder), max_length=32).fit(texts, names)
    assert few.learner_.encoder.windows is None


def test_a_learner_of_tokens_reads_windows_where_that_is_requested(encoder_folder, tails):
    texts, names = tails
    model = FewShotClassifier("maml", encoder=str(encoder_folder), max_length=100, checkpoint="none").fit(texts, names)
    assert np.isfinite(model.predict_proba(texts)).all()


@pytest.fixture
def table(tmp_path, tails):
    path = tmp_path / "long.csv"
    rows = [f"{text},{name}" for text, name in zip(*tails, strict=True)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def adapt(table, encoder, out, *more):
    command = ["adapt", "--data", str(table), "--shots", "2", "--draws", "2", "--method", "ridge", "--out", str(out)]
    return CliRunner().invoke(app, [*command, "--encoder", str(encoder), *more])


def test_adapt_says_how_much_it_reads_and_what_that_costs(table, encoder_folder, tmp_path):
    done = adapt(table, encoder_folder, tmp_path / "m")
    assert done.exit_code == 0, done.output
    line = next(line for line in done.stderr.splitlines() if "4 of 4 texts are longer than 64 tokens" in line)
    assert "up to 128 are read, in windows of 64, " in line and " more (--max-length 64 " in line
    report = json.loads((tmp_path / "m" / "report.json").read_text())
    assert report["longer"] == {"texts": 4, "of": 4, "longer_than": 64, "max_length": 128, "window": 64}
    assert report["cut"]["texts"] == 0
    said = CliRunner().invoke(app, ["predict", str(tmp_path / "m"), "rice " * 5000])
    assert said.exit_code == 0 and "1 of 1 texts is longer than the 128 tokens" in said.stderr
    scored = CliRunner().invoke(app, ["score", str(tmp_path / "m"), "--data", str(table), "--json"])
    assert scored.exit_code == 0, scored.output


def test_the_beginning_alone_is_read_if_that_is_requested(table, encoder_folder, tmp_path):
    done = adapt(table, encoder_folder, tmp_path / "m", "--max-length", "64")
    assert done.exit_code == 0 and "are read, in windows" not in done.output
    assert "longer" not in json.loads((tmp_path / "m" / "report.json").read_text())


@pytest.mark.parametrize("length", ["3", "0", "-1", "8193", "999999999", "many"])
def test_a_length_out_of_range_ends_a_command_with_two(length, table, encoder_folder, tmp_path, capsys):
    more = ["--data", str(table), "--encoder", str(encoder_folder), "--max-length", length]
    assert main(["adapt", *more, "--out", str(tmp_path / "m")]) == 2
    assert main(["evaluate", "ridge", "--shots", "2", *more]) == 2
    assert main(["classify", "rice", "--labels", "food,sport", *more[2:]]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_evaluate_reads_windows_if_told_to_and_its_rows_say_so(table, encoder_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("NLPMETA_EMBEDDINGS", str(tmp_path))
    command = ["evaluate", "ridge", "--data", str(table), "--encoder", str(encoder_folder), "--shots", "2"]
    assert main([*command, "--episodes", "2", "--max-length", "128", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["encoder"]["max_length"], row["encoder"]["window"]) == (128, 64)


def test_several_labels_are_read_alike(table, encoder_folder, tails, tmp_path):
    texts, names = tails
    marked = [[name] for name in names]
    model = FewShotClassifier(encoder=str(encoder_folder), checkpoint="none").fit(texts, marked, multilabel=True)
    assert model.learner_.encoder.max_length == 128
