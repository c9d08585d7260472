"""``auto`` with a budget: when it fine-tunes beside its heads, what share that gets, and that the rest still works."""

import json

import numpy as np
import pytest
import torch
from conftest import TOPICS, write_table
from sklearn.base import clone
from test_lora import adapted_encoder

from nlpmeta import FewShotClassifier, LabeledTexts
from nlpmeta.auto.diagnosis import tuning_note
from nlpmeta.auto.heads import TUNED
from nlpmeta.auto.method import AutoHead
from nlpmeta.auto.several import several_beside_tuned
from nlpmeta.classifier.given import held_out_probabilities
from nlpmeta.cli import main
from nlpmeta.episodes import held_out_rows
from nlpmeta.errors import NLPMetaError
from nlpmeta.evaluation.measure import learning_curve
from nlpmeta.evaluation.request import AdaptRequest
from nlpmeta.export.head import exported_heads, linear_heads
from nlpmeta.learners.base import Support, Texts
from nlpmeta.learners.checkpoint import save_checkpoint
from nlpmeta.learners.inner_loop import ADAPTER, BIAS, WEIGHT
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.tuned import BATCH, FineTuned, Rehearsal, in_order, order_of
from nlpmeta.metrics.scores import score_episode
from nlpmeta.progress import bars_within, track, track_within
from nlpmeta.settings import seconds_of


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def auto():
    return AutoHead(adapted_encoder(), budget=30.0).eval()


@pytest.fixture(scope="module")
def uneven(pool):
    """Two classes that the order of two words tells apart, one of them with half as many texts."""
    sport, *others = (words.split() for words in TOPICS.values())
    one = [f"{a} {b}" for a in sport for words in others for b in words]
    other = [f"{b} {a}" for a in sport for words in others for b in words[:2]]
    return LabeledTexts.from_names(one + other, ["sport first"] * len(one) + ["sport last"] * len(other))


def learned(auto, data):
    """The support as the heads see it, what they say of held-out texts, and their state."""
    known = auto.known(auto.support(data))
    judged = auto.judge(known)
    return known, judged, auto.within(0).adapt_to(known, judged)


def test_without_a_budget_nothing_is_fine_tuned(auto, pool):
    known, judged, state = learned(auto, pool)
    assert not any(name.startswith(TUNED) for name in state)
    assert "budget" not in auto.within(0).config() and auto.config()["budget"] == 30


def test_fine_tuning_gets_its_share_where_the_heads_are_wrong_and_none_where_it_knows_nothing(auto, uneven):
    known, _, heads = learned(auto, uneven)
    wrong = torch.nn.functional.one_hot(1 - known.labels, known.n_way).float().clamp(0.05).log()
    beside = auto._beside_tuned(heads, known, wrong, 20)
    shares = {name: float(value) for name, value in beside.items() if name.endswith("/share")}
    assert shares[f"{TUNED}/share"] > 0.25 and sum(shares.values()) == pytest.approx(1, abs=1e-6)
    right = torch.nn.functional.one_hot(known.labels, known.n_way).float().clamp(1e-4).log()
    assert auto._beside_tuned(heads, known, right, 20) is heads


def test_the_mixture_says_what_its_shares_say(auto, uneven):
    """Also that neither the temperature of the mixture nor the lead of the larger class touches the tuned part."""
    known, _, heads = learned(auto, uneven)
    heads["mixture/temperature"] = torch.tensor(1.3)
    tried = Rehearsal(4, 1.5)
    state = heads | auto._tuned_part(heads, known, 1.0, tried)
    assert float(heads["mixture/leads"].max()) > 0.5
    alone = {
        name: each * 1e-9 if name.endswith("/share") and not name.startswith(TUNED) else each
        for name, each in state.items()
    }
    texts = list(uneven.texts[::3])
    found = auto.predictor(alone).logits(Texts(tuple(texts))).softmax(1)
    wanted = auto.tuned.learned(auto._as_tuned(known), tried)
    scores = auto.tuned.logits(wanted, Texts(tuple(texts)))
    torch.testing.assert_close(found, scores.softmax(1), rtol=1e-4, atol=1e-5)
    assert auto.predictor(state).is_tuned and not auto.predictor(heads).is_tuned


def test_a_fifth_that_nobody_learned_from_decides(auto, uneven):
    """The held-out texts of the rehearsal are those whose held-out scores of the heads it is weighed against."""
    known, _, heads = learned(auto, uneven)
    tried = auto.tuned.stepping(20).rehearsed(auto._as_tuned(known))
    rows = [order_of(known)[row] for row in tried.rows]
    assert len(rows) == 6 + 3
    sure = torch.zeros(len(known), known.n_way).log_softmax(1)
    sure[rows] = torch.nn.functional.one_hot(known.labels[rows], known.n_way).float().clamp(1e-4).log()
    assert auto._beside_tuned(heads, known, sure, 20) is heads  # although on all others it only guesses
    wrong = torch.nn.functional.one_hot(1 - known.labels, known.n_way).float().clamp(0.05).log()
    state = auto._beside_tuned(heads, known, wrong, 20)
    assert len(state["mixture/held_out"]) == len(rows) and bool((state["mixture/held_out"] <= 0).all())


def test_one_set_of_examples_is_fine_tuned_to_one_model(auto, pool):
    order = np.random.default_rng(0).permutation(len(pool)).tolist()
    found = []
    for data in (pool, pool.select(order)):
        known = auto.known(auto.support(data))
        found.append(auto.tuned.stepping(8).rehearsed(auto._as_tuned(known)))
        assert tuple(known.texts[order_of(known)[row]] for row in found[-1].rows) == tuple(
            in_order(known).texts[row] for row in found[-1].rows
        )
    torch.testing.assert_close(found[0].scores, found[1].scores, rtol=1e-3, atol=1e-4)
    assert found[0].steps == found[1].steps


def test_more_examples_are_learned_in_as_many_steps(auto, uneven):
    known, judged, heads = learned(auto, uneven)
    heads = heads | {name: each * 0.5 for name, each in heads.items() if name.endswith("/share")}
    before = heads | auto._tuned_part(heads, known, 0.5, Rehearsal(6, 2.0))
    again = auto.readapt(auto.support(uneven), before)
    assert set(again) == set(before)
    for name, value in before.items():
        torch.testing.assert_close(again[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_steps_fit_the_budget_and_too_few_are_not_taken(pool):
    tuned, texts = FineTuned(adapted_encoder(), inner_steps=500).eval(), pool.texts
    assert tuned.steps_for(texts) == 10 * len(texts) // BATCH
    enough = tuned.seconds_for(texts, 27)
    assert tuned.steps_within(enough * 1.0001, texts) == 27
    assert tuned.steps_within(tuned.seconds_for(texts, 24) * 1.0001, texts) == 0
    assert tuned.steps_within(1e4, texts) == tuned.steps_for(texts)
    assert tuned.steps_within(1e4, texts[:16]) == 10, "few texts want few steps"
    assert AutoHead(adapted_encoder(), budget=5).tuned.steps_for(texts * 12) == 10 * 12 * len(texts) // BATCH
    many = texts * 12
    assert tuned.least_steps(many) == len(many) // BATCH == 36, "each text once"
    assert tuned.steps_within(tuned.seconds_for(many, 35) * 1.0001, many) == 0
    assert tuned.seconds_for([f"{text} {text}" for text in texts], 9) == pytest.approx(2 * tuned.seconds_for(texts, 9))


def test_what_cannot_be_fine_tuned_is_refused(pool, encoder):
    with pytest.raises(NLPMetaError, match="has none: leave it out"):
        AutoHead(encoder, budget=5)
    with pytest.raises(NLPMetaError, match="budget must be positive"):
        AutoHead(adapted_encoder(), budget=-1)
    with pytest.raises(NLPMetaError, match="a number of seconds; got '60'"):
        FewShotClassifier("ridge", encoder=encoder, budget="60").fit(pool.texts, pool.names())
    with pytest.raises(NLPMetaError, match="goes with the method auto; ridge takes none"):
        FewShotClassifier("ridge", encoder=encoder, budget=5).fit(pool.texts, pool.names())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, encoder_folder):
    from nlpmeta.encoder.lora import AdapterSettings, add_adapter
    from nlpmeta.encoder.text_encoder import TextEncoder

    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    add_adapter(encoder, AdapterSettings(rank=4), seed=1)
    folder = tmp_path_factory.mktemp("runs") / "prototypical"
    save_checkpoint(PrototypicalNetwork(encoder, names=True), folder, {})
    return folder


def test_a_model_with_a_tuned_part_is_saved_taught_and_not_exported(auto, uneven, tmp_path, checkpoint, monkeypatch):
    from nlpmeta.learners.start import starting_learner

    auto = starting_learner("auto", checkpoint=str(checkpoint)).within(30)
    known, _, heads = learned(auto, uneven)
    heads = heads | {name: each * 0.5 for name, each in heads.items() if name.endswith("/share")}
    state = heads | auto._tuned_part(heads, known, 0.5, Rehearsal(6, 2.0))
    assert f"{TUNED}/{WEIGHT}" in state and f"{TUNED}/{BIAS}" in state
    assert any(name.startswith(f"{TUNED}/{ADAPTER}") for name in state)
    classifier = FewShotClassifier.adapted(auto, uneven, state=state)
    texts = list(uneven.texts[::2])
    classifier.save_pretrained(tmp_path / "m", include_support=True)
    loaded = FewShotClassifier.from_pretrained(tmp_path / "m")
    assert loaded.learner_.config()["budget"] == loaded.budget == 30 and loaded.fitted_.predictor.is_tuned
    np.testing.assert_array_equal(loaded.predict_proba(texts), classifier.predict_proba(texts))
    assert loaded.predict(texts, abstain=0.9) and loaded.out_of_scope(texts).shape == (len(texts),)
    with pytest.raises(NLPMetaError, match="adapt without --budget to export it"):
        linear_heads(loaded.learner_, loaded.state_)
    steps = []
    monkeypatch.setattr(FineTuned, "trained", lambda *given, **_: steps.append(given))
    assert held_out_probabilities(loaded.learner_, loaded.examples_) and not steps, "each fold would take a minute"
    monkeypatch.undo()
    loaded.partial_fit(["goal soup"], ["sport first"])
    assert loaded.fitted_.predictor.is_tuned
    renamed = loaded.rename_class("sport first", "a game first")
    assert renamed.fitted_.predictor.is_tuned and "a game first" in renamed.classes_


def test_the_command_says_what_fine_tuning_takes(checkpoint, pool, tmp_path, capsys):
    table = write_table(tmp_path / "t.csv", pool.texts, pool.names())
    common = ["adapt", "--data", str(table), "--checkpoint", str(checkpoint), "--draws", "2", "--json"]

    def run(*arguments):
        code = main([*common, *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    code, out, err = run("--shots", 8, "--budget", 60, "--out", tmp_path / "a")
    found = json.loads(out)
    assert code == 0 and "fine-tuning on 24 texts, 3 times 15 steps at most: about" in err
    assert found["curve"] == [] and found["task"]["budget"] == 60
    assert run("--shots", 4, "--budget", 60, "--out", tmp_path / "b")[2].count(
        "it needs 5 examples of most classes and 2 of each"
    )
    code, _, err = run("--shots", 8, "--budget", "0.00001s", "--out", tmp_path / "c")
    assert code == 0 and "no fine-tuning: 3 times on 24 texts take" in err and "more --budget" in err
    code, _, err = run("--shots", 8, "--budget", 9, "--method", "ridge", "--out", tmp_path / "d")
    assert code == 2 and "ridge takes none" in err and not (tmp_path / "d").exists()
    for wrong in ("-1", "soon", "1e9", "5 minutes"):
        code, _, err = run("--shots", 8, f"--budget={wrong}", "--out", tmp_path / "e")
        assert code == 2 and wrong in err and "60s, 2min" in err
    assert [seconds_of(each, "--budget") for each in ("2min", "1.5", "1 h")] == [120, 1.5, 3600]
    tagged = tmp_path / "tags.csv"
    tagged.write_text("text,label\nball,sport;food\nsoup,food\ngoal,sport\n", encoding="utf-8")
    more = ["--data", tagged, "--label-separator", ";", "--budget", 9, "--out", tmp_path / "f"]
    code, _, err = run("--shots", "all", *more)
    assert code == 0 and "no fine-tuning: it needs 5 examples of " in err


def test_folds_and_the_saved_model_are_fine_tuned_or_neither_is(checkpoint, uneven, tmp_path, capsys, monkeypatch):
    """Five texts of a class leave four in a fold, too few; the model of all five would be fine-tuned alone."""
    monkeypatch.setattr("nlpmeta.auto.judging.WORTH_TUNING", -1e9)
    rows = [row for label in (0, 1) for row in [i for i, own in enumerate(uneven.labels) if own == label][:5]]
    table = write_table(
        tmp_path / "t.csv", [uneven.texts[row] for row in rows], [f"w{uneven.labels[row]}" for row in rows]
    )
    common = ["adapt", "--data", str(table), "--checkpoint", str(checkpoint), "--shots", "all", "--budget", "5min"]
    assert main([*common, "--out", str(tmp_path / "m")]) == 0
    assert "no fine-tuning: it needs 5 examples of " in capsys.readouterr().err
    assert not FewShotClassifier.from_pretrained(tmp_path / "m").fitted_.predictor.is_tuned
    five, auto = uneven.select(rows), AutoHead(adapted_encoder())
    request = AdaptRequest(budget=60)
    assert request.budgeted(auto, [five, five]).budget == 30
    assert request.budgeted(auto, [five, five.select(range(1, 10))]).budget == 0


def test_there_is_a_hint_from_twenty_examples_on_where_something_can_be_tuned(auto):
    texts = ["ball"] * 40
    assert "--budget" in tuning_note(auto.within(0), texts, [[20, 20, 1]])
    assert tuning_note(auto.within(0), texts, [[20, 20, 20], [20, 20, 19, 19]]) is None
    assert tuning_note(FineTuned(adapted_encoder()), texts, [[20, 20]]) is None


def test_a_bar_inside_another_is_not_drawn_over_it(monkeypatch):
    monkeypatch.setattr("nlpmeta.progress.PATIENCE", 0.0)
    started = []
    monkeypatch.setattr("rich.progress.Progress.start", lambda bar: started.append(bar.tasks[0].description))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with track_within("unseen", 2) as advance:
        advance(1)
    with bars_within(), track("outer", 2) as outer:
        outer(1)
        with track_within("inner", 2) as inner:
            inner(1)
    with bars_within(), track_within("alone", 2) as alone:
        alone(1)
    assert started == ["outer", "alone"]


def test_it_is_cloned_like_any_estimator_and_small_supports_have_no_curve(auto, pool):
    assert clone(FewShotClassifier(budget=7)).get_params()["budget"] == 7
    from nlpmeta import Episode

    scores = [score_episode(auto.within(0), Episode(pool.select(range(0, 48, 2)), pool.select(range(1, 48, 2))))]
    embed = auto.encoder.encode
    assert learning_curve(auto.within(0), scores, embed=embed) and not learning_curve(auto, scores, embed=embed)


@pytest.fixture(scope="module")
def marked():
    """Texts of two words: whether a word of sport comes first, and whether one of food is there."""
    sport, *others = (words.split() for words in TOPICS.values())
    texts, labels = [], []
    for words in others:
        for a in sport:
            for b in words:
                food = ["food"] if words is others[0] else []
                texts += [f"{a} {b}", f"{b} {a}"]
                labels += [["sport first", *food], food]
    return texts, labels


def several(auto, marked):
    classifier = FewShotClassifier(auto).fit(*marked)
    return classifier, classifier.fitted_.examples.several()


def test_several_labels_are_fine_tuned_beside_their_heads(auto, marked, monkeypatch):
    classifier, data = several(auto.within(0), marked)
    heads, embed = classifier.state_, auto.encoder.encode
    assert not classifier.fitted_.predictor.is_tuned
    tuned = FineTuned(auto.encoder.plain(), adapter_rate=3e-3, head_rate=0.02)
    monkeypatch.setattr("nlpmeta.auto.several.WORTH_TUNING", 1e9)
    assert several_beside_tuned(tuned, auto, heads, data, embed, 30) is heads
    monkeypatch.setattr("nlpmeta.auto.several.WORTH_TUNING", -1e9)
    state = several_beside_tuned(tuned, auto, heads, data, embed, 30)
    assert torch.equal(state["several/thresholds"], heads["several/thresholds"])
    queries = Texts(data.texts)
    both, alone = (auto.predictor(each).logits(queries) for each in (state, heads))
    own = {name.partition("/")[2]: each for name, each in state.items() if name.startswith(TUNED)}
    scores = auto.tuned.logits(own, queries)
    torch.testing.assert_close(both, alone / 2 + scores / 2, rtol=1e-4, atol=1e-4)
    turned = data.select(list(range(len(data.texts)))[::-1])
    again = several_beside_tuned(tuned, auto, heads, turned, embed, 30)
    torch.testing.assert_close(again[f"{TUNED}/{WEIGHT}"], state[f"{TUNED}/{WEIGHT}"], rtol=1e-2, atol=1e-2)


def test_several_labels_take_half_of_the_budget_twice_and_their_rate_falls(auto, marked, monkeypatch):
    _, data = several(auto.within(0), marked)
    plain, met = FineTuned.trained, []

    def trained(self, texts, start, steps, loss_of, **how):
        met.append((len(texts), steps, how))
        return plain(self, texts, start, steps, loss_of, **how)

    monkeypatch.setattr(FineTuned, "trained", trained)
    monkeypatch.setattr("nlpmeta.auto.several.WORTH_TUNING", -1e9)
    budget = 2 * auto.tuned.seconds_for(data.texts, 26) * 1.0001
    auto.within(budget).adapt_several(data, auto.encoder.encode)
    assert [(steps, how) for _, steps, how in met] == [(26, {"falls": True})] * 2
    assert met[0][0] < met[1][0] == len(data.texts)


def test_held_out_texts_decide_whether_several_labels_are_fine_tuned(auto, marked, monkeypatch):
    monkeypatch.setattr("nlpmeta.auto.several.WORTH_TUNING", 0.0)
    classifier, data = several(auto.within(0), marked)
    tuned, embed = FineTuned(auto.encoder.plain(), adapter_rate=3e-3, head_rate=0.02), auto.encoder.encode
    learned = several_beside_tuned(tuned, auto, classifier.state_, data, embed, 100)
    assert f"{TUNED}/{WEIGHT}" in learned
    truth, queries = torch.from_numpy(data.matrix()).float(), Texts(data.texts)
    losses = [
        float(torch.nn.functional.binary_cross_entropy_with_logits(auto.predictor(each).logits(queries), truth))
        for each in (learned, classifier.state_)
    ]
    assert losses[0] < losses[1], losses
    rare = data.select([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert several_beside_tuned(tuned, auto, classifier.state_, rare.select([1, 3] * 5), embed, 5) is classifier.state_


def test_several_labels_within_a_budget_are_saved_and_not_exported(checkpoint, marked, tmp_path, monkeypatch):
    monkeypatch.setattr("nlpmeta.auto.several.WORTH_TUNING", -1e9)
    classifier = FewShotClassifier(checkpoint=str(checkpoint), budget=20).fit(*marked)
    assert classifier.fitted_.predictor.is_tuned
    classifier.save_pretrained(tmp_path / "m", include_support=True)
    loaded = FewShotClassifier.from_pretrained(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_proba(marked[0]), classifier.predict_proba(marked[0]))
    with pytest.raises(NLPMetaError, match="adapt without --budget to export it"):
        exported_heads(loaded.learner_, loaded.state_)


def test_what_reads_the_same_is_held_out_together_and_classes_with_few_texts_hold_nothing_out(pool):
    labels = [0] * 6 + [1] * 6
    twice = held_out_rows(pool.texts[:12] * 2, labels * 2, one_in=5, least=5)
    assert len(twice) == 4 and sorted(row - 12 for row in twice[2:]) == sorted(twice[:2])
    assert len({labels[row] for row in twice[:2]}) == 2
    assert held_out_rows(pool.texts[:9], [0] * 5 + [1] * 4, one_in=5, least=5) == []
    alike = ["Ball 1", "ball  2", "BALL 3", "ball 4", "ball 5", "goal"]
    assert held_out_rows(alike, [0] * 6, one_in=5, least=5) == []
    few = Support(pool.texts[:9], None, torch.tensor([0] * 5 + [1] * 4), 2)
    assert FineTuned(adapted_encoder()).rehearsed(few) is None


def test_a_class_with_few_texts_is_held_out_too_and_one_with_a_single_text_keeps_all_from_being_fine_tuned(
    auto, uneven, monkeypatch
):
    """Without a held-out text of a class nobody would see that fine-tuning had lost it."""
    monkeypatch.setattr("nlpmeta.auto.judging.WORTH_TUNING", -1e9)
    few = ["soup ball", "ball soup", "soup rice"]
    for n, n_held_out in ((3, 6 + 3 + 1), (1, None)):
        data = LabeledTexts.from_names([*few[:n], *uneven.texts], ["rare"] * n + list(uneven.names()))
        known, judged, _ = learned(auto, data)
        state = auto.adapt_to(known, judged)
        assert auto.predictor(state).is_tuned == (n_held_out is not None)
        if n_held_out is not None:
            assert len(state["mixture/held_out"]) == n_held_out
        assert AdaptRequest(budget=60).budgeted(auto, [data]).budget == (60 if n > 1 else 0)
    two, _, _ = learned(auto, uneven)
    state = auto.adapt_to(two, auto.judge(two))
    assert auto.predictor(state).is_tuned
    assert not auto.predictor(auto.readapt(known, state)).is_tuned, "a class came that has one text"


def test_no_step_is_no_part(auto, uneven):
    known, _, heads = learned(auto, uneven)
    wrong = torch.nn.functional.one_hot(1 - known.labels, known.n_way).float().clamp(0.05).log()
    assert auto._beside_tuned(heads, known, wrong, 0) is heads
