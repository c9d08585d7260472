"""The third view of ``auto``, the lower layers."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_views import WAYS, heads, task
from test_lora import adapted_encoder

from nlpmeta import FewShotClassifier
from nlpmeta.auto import judging
from nlpmeta.auto.heads import columns_of
from nlpmeta.auto.method import AutoHead
from nlpmeta.encoder.lora import AdapterSettings, add_adapter
from nlpmeta.encoder.merged import INNER
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.encoder.views import ADAPTED, FROZEN, VIEWS
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Texts


@pytest.fixture
def adapted():
    return adapted_encoder()


def test_lower_layers_are_read_where_they_alone_tell_many_examples_apart(adapted):
    auto = AutoHead(adapted)
    support, queries, labels = task(0.2, 0.2, lower_signal=2.5, n_shot=20)
    state = auto.adapt(support)
    mixture = auto.predictor(state)
    assert set(heads(auto, state)) == {"logistic on lower layers", "regularised logistic on lower layers"}
    assert mixture.scales == (INNER,)
    assert float((auto.logits(state, queries).argmax(1) == labels).float().mean()) > 0.75
    narrow = Texts(queries.texts, queries.features[:, auto.encoder.columns(INNER)])
    torch.testing.assert_close(auto.logits(state, narrow), auto.logits(state, queries))
    assert mixture.read(narrow).size(1) == mixture.prototypes.size(1) and not mixture.problem()


def test_texts_are_compared_with_classes_in_other_views_than_that_of_lower_layers(adapted):
    auto = AutoHead(adapted)
    support, queries, _ = task(1.5, 1.5, lower_signal=1.5, n_shot=20)
    mixture = auto.predictor(auto.adapt(support))
    assert mixture.scales[-1] == INNER and len(mixture.scales) > 1
    columns = [auto.encoder.columns(scale) for scale in mixture.scales[:-1]]
    expected = torch.cat([queries.features[:, each] for each in columns], dim=1)
    assert torch.equal(mixture.read(queries), expected) and mixture.n_views == len(columns)
    assert mixture.prototypes.size(1) == expected.size(1)


def test_lower_layers_stay_beside_the_adapted_view_whose_pass_gives_them_too(adapted, monkeypatch):
    auto, (support, _, _) = AutoHead(adapted), task(1.0, 1.0, n_shot=20)

    def kept(*names):  # of these heads, by the prior alone
        with torch.no_grad():
            shares = auto.weights(judging.CrossValidation(names, (1.0,) * len(names), None), support)
        assert float(shares.sum()) == pytest.approx(1.0)
        return {name for name, share in zip(names, shares.tolist(), strict=True) if share}

    adapting, frozen, lower = (
        ["logistic", "prototypical", "names as 8 texts"],
        "logistic on frozen",
        "logistic on lower layers",
    )
    for name in (frozen, lower):
        share = float(auto.priors.prior_of([*adapting, name], len(support) / WAYS, WAYS)[-1])
        assert judging.SMALLEST_SHARE < share < judging.WORTH_A_PASS
    assert kept(*adapting, frozen, lower) == {*adapting, lower}  # no pass for the frozen view
    assert kept(frozen, lower) == {frozen, lower}
    monkeypatch.setattr(judging, "WORTH_A_PASS", 0.5)
    of_frozen = (frozen, "ridge on frozen", "prototypical on frozen")
    assert kept(*of_frozen, lower) == {*of_frozen}  # nor one for the lower layers alone


def test_a_classifier_that_reads_lower_layers_can_be_pickled(adapted, pool):
    classifier = FewShotClassifier("auto", encoder=adapted).fit(pool.texts, pool.names())
    again = pickle.loads(pickle.dumps(classifier))  # noqa: S301  # its own
    np.testing.assert_array_equal(again.predict_proba(pool.texts), classifier.predict_proba(pool.texts))


def test_what_transformers_hooks_into_a_merged_copy_is_not_in_the_encoder(adapted):
    """Else each new copy would get the hooks of those before it, and see each layer as often as there were copies."""
    AutoHead(adapted).encoder.encode(["ball goal", "bank loan"])
    hooked = [part for part in adapted.merged(ADAPTED).backbone.modules() if part._forward_hooks]
    assert hooked and not any(part._forward_hooks for part in adapted.backbone.modules())


def test_many_examples_are_regularised_on_lower_layers_with_the_same_prior(adapted):
    auto, (support, _, _) = AutoHead(adapted), task(1.0, 1.0, n_shot=20)
    names = ("logistic on lower layers", "regularised logistic on lower layers")
    with torch.no_grad():
        shares = auto.weights(judging.CrossValidation(names, (1.0, 1.0), None), support)
    assert shares.tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("n_shot", [5, 20])
def test_few_examples_are_told_apart_by_lower_layers_too(adapted, n_shot):
    auto, right = AutoHead(adapted), 0.0
    for seed in range(4):
        support, queries, labels = task(0.2, 0.2, lower_signal=4.0, n_shot=n_shot, seed=seed)
        state = auto.adapt(support)
        assert "logistic on lower layers" in heads(auto, state)
        right += float((auto.logits(state, queries).argmax(1) == labels).float().mean()) / 4
    assert right > 0.85


def test_embeddings_in_other_views_than_those_that_are_named_are_refused(adapted):
    encoder = AutoHead(adapted).encoder
    two = torch.randn(3, 2 * adapted.dim)
    assert torch.equal(columns_of(encoder, two, (FROZEN,), computed=(ADAPTED, FROZEN)), two[:, adapted.dim :])
    for computed in (None, (FROZEN,), VIEWS):
        with pytest.raises(NLPMetaError, match=f"Embeddings of {2 * adapted.dim} numbers are not of this encoder"):
            columns_of(encoder, two, (FROZEN,), computed=computed)


def test_what_a_model_of_fewer_views_kept_of_its_examples_is_computed_again(encoder_folder, pool, tmp_path):
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    add_adapter(encoder, AdapterSettings(rank=2), seed=0)
    made = FewShotClassifier(AutoHead(encoder).eval()).fit(pool.texts[::2], pool.names()[::2])
    narrow = made.examples_.features[:, : 2 * made.learner_.encoder.width]
    made._fitted_ = replace(made.fitted_, examples=replace(made.examples_, features=narrow))
    made.save_pretrained(tmp_path / "model", include_support=True)
    again = FewShotClassifier.from_pretrained(tmp_path / "model")
    assert again.examples_.texts == made.examples_.texts and again.examples_.features is None
    np.testing.assert_allclose(again.predict_proba(pool.texts[:9]), made.predict_proba(pool.texts[:9]), atol=1e-6)
    again.rename_class(str(again.classes_[0]), "other")
    again.partial_fit(pool.texts[1:2], ["other"])
    assert again.task_report().n_way == len(again.classes_) and len(again.suspects()) == len(again.examples_.texts)
