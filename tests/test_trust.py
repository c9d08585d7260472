"""Label sets, texts out of scope, suggestions, and what a report says of a support set."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TOPICS
from fit_priors import Observed, Size, fit_mean, fit_quantiles, nearness, weighted_quantile
from made_views import task
from test_lora import adapted_encoder

from nlpmeta import FewShotClassifier
from nlpmeta.auto.answers import LabelSet, label_sets, most_worth_labelling, out_of_scope_scores
from nlpmeta.auto.diagnosis import diagnose
from nlpmeta.auto.method import AutoHead
from nlpmeta.auto.mismatch import MOST_LINES, DoubtfulLabel, TaskReport, scope_clues, scope_scores, tokenizer_coverage
from nlpmeta.auto.priors import held_out_quantiles, shipped_priors, threshold
from nlpmeta.data import LabeledTexts
from nlpmeta.errors import NLPMetaError

LEVELS = (0.5, 0.8, 0.9, 0.95)


def tasks_of(rng, n_tasks, n_families=12):
    """Tasks whose log probabilities of the true class differ in level, with an estimate of it on few texts."""
    found = []
    for i in range(n_tasks):
        n_shot = float(rng.choice([2, 5, 10]))
        level = rng.normal(-1.0, 0.6)
        draw = lambda n, level=level: level - rng.exponential(0.8, size=n)  # noqa: E731
        size = Size(f"family {i % n_families}", n_shot, 5, int(5 * n_shot), f"kind {i % n_families}")
        estimate = held_out_quantiles(torch.from_numpy(draw(size.n_texts)), LEVELS)
        found.append(Observed(size, estimate, draw(100)))
    return found


def test_learned_quantiles_hold_on_tasks_that_were_not_seen():
    rng = np.random.default_rng(0)
    learned, new = fit_quantiles(tasks_of(rng, 200), LEVELS), tasks_of(rng, 400)
    covered = []
    for each in new:
        size = each.size
        least = learned.at(each.estimate, n_texts=size.n_texts, n_shot=size.n_shot, n_way=size.n_way)
        covered.append((each.truth[:, None] >= least).mean(0))
    np.testing.assert_allclose(np.mean(covered, axis=0), LEVELS, atol=0.02)


def test_a_task_that_is_known_well_gets_a_threshold_of_its_own():
    rng = np.random.default_rng(1)
    learned = fit_quantiles(tasks_of(rng, 200), LEVELS)
    easy, hard = np.full(len(LEVELS), -0.2), np.full(len(LEVELS), -4.0)
    low, high = (learned.at(each, n_texts=50, n_shot=10, n_way=5)[2] for each in (hard, easy))
    assert high - low > 1.0


def test_tasks_with_one_example_a_class_and_others_say_nothing_of_one_another():
    sizes = [Size(f"family {i}", n_shot, 5, int(5 * n_shot), "kind") for i, n_shot in enumerate((1.0, 2.0, 1.0, 5.0))]
    assert (nearness(sizes, 1, 5) > 0).tolist() == [True, False, True, False]
    assert (nearness(sizes, 2, 5) > 0).tolist() == [False, True, False, True]
    alone = nearness(sizes[:1], 5, 5)  # where there are no others they must do
    np.testing.assert_allclose(alone, [1.0])


def test_a_weighted_quantile_is_that_of_repeated_values():
    rng = np.random.default_rng(2)
    values, weights = rng.normal(size=40), rng.integers(1, 6, size=40).astype(float)
    repeated = np.repeat(values, weights.astype(int))
    for share in (0.1, 0.5, 0.93):
        assert weighted_quantile(values, weights, share) == np.quantile(repeated, share, method="inverted_cdf")


def test_the_band_holds_nine_tasks_in_ten():
    rng = np.random.default_rng(3)

    def draw(n):
        truth = rng.normal(1.0, 0.5, size=n)
        sizes = [Size(f"f{i % 10}", 5.0, 5, 25, f"kind {i % 10}") for i in range(n)]
        return [
            Observed(s, np.array([t + rng.normal(0, 0.4)]), np.array([t])) for s, t in zip(sizes, truth, strict=True)
        ]

    learned, band = fit_mean(draw(1000), tails=(0.05, 0.95))
    errors = [each.truth[0] - learned.at(each.estimate, n_texts=25, n_shot=5, n_way=5)[0] for each in draw(2000)]
    low, high = band.at(5, 5)
    assert 0.86 < np.mean((np.asarray(errors) >= low) & (np.asarray(errors) <= high)) < 0.94
    assert high - low < 4 * 0.5  # narrower than without the estimate


def test_a_higher_coverage_never_gives_the_smaller_set():
    profile = shipped_priors().two_views
    likelihood = torch.linspace(-3, -0.1, 20)
    levels = np.linspace(profile.levels[0], profile.levels[-1], 12)
    found = [threshold(profile, likelihood, n_shot=5, n_way=4, coverage=float(c)) for c in levels]
    assert found == sorted(found, reverse=True)
    with pytest.raises(NLPMetaError, match=r"from 0\.5 to 0\.98; got 0\.3"):
        threshold(profile, likelihood, n_shot=5, n_way=4, coverage=0.3)


@pytest.fixture(scope="module")
def adapted():
    auto = AutoHead(adapted_encoder())
    support, queries, labels = task(1.5, 0.3, n_shot=8)
    state = auto.adapt(support)
    return auto, state, queries, labels


def test_label_sets_hold_every_label_above_the_threshold_and_at_least_one(adapted):
    auto, state, queries, _ = adapted
    logits = auto.logits(state, queries).detach()
    least = threshold(auto.priors, state["mixture/held_out"], n_shot=8, n_way=4, coverage=0.9)
    for row, each in zip(
        logits.log_softmax(1), label_sets(auto.predictor(state), logits, list("abcd"), coverage=0.9), strict=True
    ):
        expected = {"abcd"[label] for label in range(4) if float(row[label]) >= least} or {"abcd"[int(row.argmax())]}
        assert set(each.labels) == expected
        assert list(each.probabilities) == sorted(each.probabilities, reverse=True)
        assert each.labels[0] == "abcd"[int(row.argmax())]


def test_a_label_set_says_what_it_knows():
    one = LabelSet(("a",), (0.9,), 0.9, 3)
    two = LabelSet(("a", "b"), (0.6, 0.3), 0.9, 3)
    everything = LabelSet(("a", "b", "c"), (0.4, 0.3, 0.3), 0.9, 3)
    many = LabelSet(tuple("abcdef"), (1 / 6,) * 6, 0.9, 40)
    assert (str(one), str(two), str(everything), str(many)) == ("a", "a | b", "unsure", "unsure")
    assert (one.label, two.label) == ("a", None)
    assert [each.is_unsure for each in (one, two, everything, many)] == [False, False, True, True]
    with pytest.raises(NLPMetaError, match="3 classes came with 0 labels"):
        LabelSet((), (), 0.9, 3)


def test_scores_out_of_scope_fall_with_likeness_and_with_certainty(adapted):
    auto, state, queries, _ = adapted
    prototypes = torch.eye(3, 6)
    near, far = prototypes[:1], torch.full((1, 6), 6**-0.5)
    sure, unsure = torch.tensor([[0.98, 0.01, 0.01]]).log(), torch.full((1, 3), 1 / 3).log()

    def score(scores, features):
        return float(scope_scores(scope_clues(scores, features, prototypes, n_views=1, n_shot=5), (1.0, 2.0, 0, 0, 0)))

    assert score(sure, near) < score(sure, far) < score(unsure, far)
    found = out_of_scope_scores(auto.predictor(state), queries)
    assert found.shape == (len(queries),)
    assert bool(((found >= 0) & (found <= 1)).all())


def test_likeness_is_one_for_a_prototype_and_zero_for_what_is_as_far_as_they_are_from_one_another():
    prototypes = torch.eye(3)
    clues = scope_clues(
        torch.zeros(2, 3).log_softmax(1), torch.tensor([[2.0, 0, 0], [0, 0, -1.0]]), prototypes, n_views=1, n_shot=2
    )
    assert clues[:, 1].tolist() == [1.0, 0.0]


def test_suggestions_are_one_of_each_group_the_graver_one_first():
    """Two tight groups and a lone text: with two asked for, one of each group where doubt is, the graver one first."""
    generator = torch.Generator().manual_seed(0)
    places = torch.eye(3)[[0] * 10 + [1] * 10 + [2]] + 0.05 * torch.randn(21, 3, generator=generator)
    sure, unsure, torn = torch.tensor([0.98, 0.02]), torch.tensor([0.6, 0.4]), torch.tensor([0.5, 0.5])
    probabilities = torch.stack([unsure] * 10 + [torn] * 10 + [sure])
    first, second = most_worth_labelling(probabilities, places, most=2)
    assert first in range(10, 20)
    assert second in range(10)
    doubtless = torch.stack([unsure] * 10 + [sure] * 10 + [torn])
    assert most_worth_labelling(doubtless, places, most=2)[0] in range(10)
    assert 20 in most_worth_labelling(doubtless, places, most=2)


@pytest.mark.parametrize("seed", range(5))
def test_a_single_suggestion_is_the_text_nearest_to_the_mean_weighted_by_doubt(seed):
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.randn(60, 4, generator=generator).mul(3).softmax(1)
    features = torch.nn.functional.normalize(torch.randn(60, 8, generator=generator), dim=1)
    places = torch.nn.functional.normalize(features - features.mean(0), dim=1).double().numpy()
    doubt = 1 - probabilities.max(1).values.double().numpy()
    centre = np.average(places, axis=0, weights=doubt)
    assert most_worth_labelling(probabilities, features, most=1) == [int(((places - centre) ** 2).sum(1).argmin())]


def test_a_text_that_says_the_same_again_is_not_suggested():
    probabilities, features = (
        torch.tensor([[0.5, 0.5]] * 3 + [[0.6, 0.4]]),
        torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]]),
    )
    assert sorted(most_worth_labelling(probabilities, features, most=10)) in ([0, 3], [1, 3], [2, 3])


def test_letters_in_no_piece_of_the_tokenizer_are_counted(encoder):
    found = tokenizer_coverage(encoder, ["ball goal", "ball ᏣᎳᎩ"])
    assert found.unknown == pytest.approx(3 / 15)
    assert found.letters_per_piece == 4.0


def report(**changes):
    plain = TaskReport(4, 5.0, (0.7, 0.8, 0.9), 0.8, None, "injongo/hau", 0.5, (), (), ())
    return replace(plain, **changes)


def test_a_report_has_at_most_five_lines_with_the_warning_first():
    doubtful = tuple(DoubtfulLabel("x" * 80, "a", "b", 0.9) for _ in range(7))
    full = report(warnings=("labels look random",), alike=(("a", "b"),) * 4, doubtful=doubtful)
    assert len(full.lines()) == MOST_LINES
    assert full.lines()[0] == "Warning: labels look random"
    assert full.warns
    assert not report().warns
    assert "70 to 90 %" in report().lines()[0]


def diagnosed(support, labels=None):
    """A report on features that are given, as those of texts that the tokenizer knows."""
    words = " ".join(TOPICS.values()).split()
    texts = [f"{words[i % 12]} {words[i // 12]}" for i in range(len(support))]
    row = {text: i for i, text in enumerate(texts)}
    chosen = support.labels if labels is None else labels
    data = LabeledTexts(tuple(texts), tuple(chosen.tolist()), tuple(f"class {i}" for i in range(4)))
    return diagnose(
        AutoHead(adapted_encoder()), data, embed=lambda asked: support.features[[row[text] for text in asked]]
    )


def test_random_labels_raise_the_warning_and_true_ones_do_not():
    support, _, _ = task(4.0, 2.0, n_shot=12)
    clean = diagnosed(support)
    assert not clean.warns
    shuffled = support.labels[torch.randperm(len(support), generator=torch.Generator().manual_seed(0))]
    bad = diagnosed(support, shuffled)
    assert any("labels look random" in line for line in bad.warnings)
    assert bad.lines()[0].startswith("Warning: labels look random")
    assert bad.expected[1] < clean.expected[1]


def test_a_script_that_the_tokenizer_does_not_have_raises_the_warning(encoder):
    data = LabeledTexts(("ᏣᎳᎩ ball", "ᎦᏬᏂ goal", "ᏗᎦᏚ ball", "ᎠᏓᎾ goal"), (0, 1, 0, 1), ("a ball", "a goal"))
    found = diagnose(AutoHead(encoder), data)
    assert "cannot read 43 % of the letters" in found.warnings[0]


def test_a_wrong_label_is_pointed_out():
    support, _, _ = task(6.0, 6.0, n_shot=12)
    labels = support.labels.clone()
    labels[0] = 2
    found = diagnosed(support, labels).doubtful
    assert [(each.text, each.label, each.rather) for each in found] == [("ball ball", "class 2", "class 0")]


def test_a_class_with_one_text_is_left_out_of_what_a_report_counts_and_points_out():
    support, _, _ = task(6.0, 6.0, n_shot=12)
    labels = support.labels.clone()
    labels[labels == 1] = 2
    labels[[13, 0]] = torch.tensor([1, 3])  # the only one of its class, and a wrong label of a class behind it
    found = diagnosed(support, labels)
    assert found.held_out is not None and round(found.held_out * 47) == pytest.approx(found.held_out * 47)
    assert [(each.label, each.rather) for each in found.doubtful] == [("class 3", "class 0")]
    assert found.doubtful[0].text == "ball ball"
    assert "not counting classes with one example (1 of 4)" in found.lines()[0]
    assert found.json()["classes_with_one_example"] == 1
    for alike in (support.labels, torch.arange(4)):  # nothing is left out, and nothing held out
        assert "one example" not in diagnosed(task(6.0, 6.0, n_shot=len(alike) // 4)[0], alike).lines()[0]


def test_two_classes_of_one_kind_are_named():
    support, _, _ = task(6.0, 6.0, n_shot=12)
    labels = support.labels.clone()
    first = torch.nonzero(labels == 0).squeeze(1)
    third = torch.nonzero(labels == 3).squeeze(1)
    labels[first[::2]], labels[third[::2]] = 3, 0  # classes 0 and 3 are mixed up
    assert diagnosed(support, labels).alike == (("class 0", "class 3"),)


def test_a_report_says_how_many_examples_the_names_of_the_classes_alone_get_right(encoder, pool):
    from sklearn.metrics.pairwise import cosine_similarity

    words = {"sport": "ball goal", "food": "rice soup", "money": "cash loan"}
    data = LabeledTexts.from_names(pool.texts, [words[name] for name in pool.names()])
    found = diagnose(AutoHead(encoder).eval(), data)
    encoder.eval()
    with torch.no_grad():
        likeness = cosine_similarity(encoder(data.texts), encoder(data.label_names))
    right = float((likeness.argmax(1) == np.array(data.labels)).mean())
    assert found.names_alone == pytest.approx(right) and 0.4 < right < 1
    assert f"class names alone: {round(100 * right)} %" in " ".join(found.lines())
    assert found.json()["names_alone_accuracy"] == found.names_alone
    assert diagnosed(task(4.0, 2.0, n_shot=12)[0]).names_alone is None  # "class 0" says nothing


def test_a_report_says_where_the_accuracy_may_be_that_of_guessing():
    assert report(expected=(0.29, 0.4, 0.6)).is_near_guessing  # four classes
    assert "perhaps little better than guessing (25 %)" in report(expected=(0.29, 0.4, 0.6)).lines()[0]
    assert not report(expected=(0.31, 0.4, 0.6)).is_near_guessing
    assert "guessing" not in " ".join(report(expected=(0.31, 0.4, 0.6)).lines())
    assert not report(expected=None).is_near_guessing
    assert report(expected=(0.29, 0.4, 0.6)).json()["near_guessing"] is True


def test_a_classifier_answers_with_sets_scores_and_a_report(encoder_folder, pool, tmp_path):
    classifier = FewShotClassifier(encoder=str(encoder_folder)).fit(pool.texts[::2], pool.names()[::2])
    classifier.save_pretrained(tmp_path / "model")
    again = FewShotClassifier.from_pretrained(tmp_path / "model")
    texts = pool.texts[1::2][:6]
    assert again.predict(texts, abstain=0.9) == classifier.predict(texts, abstain=0.9)
    assert [each.labels[0] for each in again.predict(texts, abstain=0.9)] == again.predict(texts).tolist()
    np.testing.assert_allclose(again.out_of_scope(texts), classifier.out_of_scope(texts), rtol=1e-5)
    assert classifier.task_report().n_way == 3


def test_other_methods_say_that_they_have_no_priors(encoder_folder, pool):
    classifier = FewShotClassifier("ridge", encoder=str(encoder_folder)).fit(pool.texts, pool.names())
    for question in (
        lambda: classifier.predict(["ball"], abstain=0.9),
        lambda: classifier.out_of_scope(["ball"]),
        classifier.task_report,
    ):
        with pytest.raises(NLPMetaError, match="adapt with it"):
            question()


def test_the_command_line_abstains_and_suggests(encoder_folder, table, pool, tmp_path, capsys):
    import json

    from nlpmeta.cli import main

    unlabelled = tmp_path / "unlabelled.txt"
    unlabelled.write_text("ball salt\n" + "\n".join(pool.texts[:3]) + "\nsalt rice loan\n", encoding="utf-8")
    asked = ["adapt", "--data", str(table), "--shots", "5", "--draws", "1", "--encoder", str(encoder_folder), "--json"]
    assert main([*asked, "--out", str(tmp_path / "model"), "--suggest", str(unlabelled)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert 0 < len(report["label_next"]) <= 5
    assert report["task_report"]["expected_accuracy"]["low"] <= report["task_report"]["expected_accuracy"]["high"]
    assert (
        json.loads((tmp_path / "model" / "report.json").read_text(encoding="utf-8"))["task_report"]
        == report["task_report"]
    )
    assert main(["predict", str(tmp_path / "model"), "ball goal", "--abstain", "0.9", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["coverage"] == 0.9
    assert answer["labels"]
    assert main(["predict", str(tmp_path / "model"), "ball goal", "--abstain", "2"]) == 2
