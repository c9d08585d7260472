"""Scikit-learn's own estimator checks, as far as they apply to an estimator whose input is text."""

import copy

import numpy as np
import pytest
from conftest import make_encoder
from sklearn.linear_model import LogisticRegression
from sklearn.utils import estimator_checks

from nlpmeta import FewShotClassifier

OURS = (  # run as they are
    "check_do_not_raise_errors_in_init_or_set_param",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_estimators_unfitted",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
)
IN_WORDS = {  # they feed numbers; the same property is tested below on texts
    "check_dict_unchanged": "test_predicting_changes_nothing",
    "check_dont_overwrite_attributes": "test_fitting_keeps_parameters",
    "check_dont_overwrite_parameters": "test_fitting_keeps_parameters",
    "check_estimators_fit_returns_self": "test_fitting_keeps_parameters",
    "check_estimators_overwrite_params": "test_fitting_keeps_parameters",
    "check_fit_check_is_fitted": "test_an_estimator_that_was_not_fitted_says_so",
    "check_fit_idempotent": "test_fitting_twice_is_fitting_once",
    "check_methods_sample_order_invariance": "test_predictions_do_not_depend_on_the_order_or_the_company_of_a_text",
    "check_methods_subset_invariance": "test_predictions_do_not_depend_on_the_order_or_the_company_of_a_text",
    "check_classifiers_train": "tests/test_classifier.py",
    "check_classifiers_classes": "tests/test_classifier.py (labels of any kind)",
    "check_classifiers_one_label": "tests/test_classifier.py (one class is refused)",
    "check_classifiers_regression_target": "tests/test_classifier.py (fractions are refused)",
    "check_supervised_y_2d": "tests/test_classifier.py (a column of labels is refused)",
    "check_supervised_y_no_nan": "tests/test_classifier.py (NaN labels are refused)",
    "check_estimators_empty_data_messages": "tests/test_classifier.py (no texts)",
    "check_all_zero_sample_weights_error": "tests/test_sample_weight.py",
    "check_classifiers_one_label_sample_weights": "tests/test_sample_weight.py",
    "check_sample_weight_equivalence_on_dense_data": "tests/test_sample_weight.py",
    "check_sample_weights_list": "tests/test_sample_weight.py",
    "check_sample_weights_not_an_array": "tests/test_sample_weight.py",
    "check_sample_weights_not_overwritten": "tests/test_sample_weight.py",
    "check_sample_weights_pandas_series": "tests/test_sample_weight.py",
    "check_sample_weights_shape": "tests/test_sample_weight.py",
    "check_pipeline_consistency": "tests/test_classifier.py (pipeline)",
}
MATRIX = "is about a matrix of numbers: its type, memory, number of columns, or values"
WEIGHTS = "is about class weights, which this estimator does not take"
NOT_FOR_TEXT = {
    **dict.fromkeys(
        (
            "check_array_api_input",
            "check_array_api_input_and_values",
            "check_array_api_mixed_inputs",
            "check_array_api_same_namespace",
            "check_classifier_data_not_an_array",
            "check_complex_data",
            "check_dtype_object",
            "check_estimator_sparse_array",
            "check_estimator_sparse_matrix",
            "check_estimator_sparse_tag",
            "check_estimators_dtypes",
            "check_estimators_nan_inf",
            "check_estimators_partial_fit_n_features",
            "check_f_contiguous_array_estimator",
            "check_fit1d",
            "check_fit2d_1feature",
            "check_fit2d_1sample",
            "check_fit2d_predict1d",
            "check_fit_score_takes_y",
            "check_n_features_in",
            "check_n_features_in_after_fitting",
            "check_positive_only_tag_during_fit",
            "check_readonly_memmap_input",
            "check_requires_y_none",
            "check_sparsify_coefficients",
        ),
        MATRIX,
    ),
    **dict.fromkeys(
        (
            "check_class_weight_balanced_classifiers",
            "check_class_weight_balanced_linear_classifier",
            "check_class_weight_classifiers",
            "check_sample_weight_equivalence_on_sparse_data",
        ),
        WEIGHTS,
    ),
    "check_decision_proba_consistency": "there is no decision_function",
    "check_estimators_pickle": "it fits numbers; test_lower_layers.py pickles a classifier that was fitted to texts",
    "check_non_transformer_estimators_n_iter": "there is no max_iter",
}


def name_of(check):
    return (check.func if hasattr(check, "func") else check).__name__


@pytest.fixture
def estimator():
    return FewShotClassifier("prototypical", encoder=make_encoder())


@pytest.mark.parametrize("name", [name for name in OURS if hasattr(estimator_checks, name)])
def test_scikit_learns_own_check_passes(name, estimator):
    getattr(estimator_checks, name)("FewShotClassifier", estimator)


def test_no_check_that_scikit_learn_runs_on_a_classifier_is_passed_over_in_silence():
    listed = {*OURS, *IN_WORDS, *NOT_FOR_TEXT}
    yielded = {name_of(check) for _, check in estimator_checks.estimator_checks_generator(LogisticRegression())}
    assert yielded <= listed, yielded - listed


def test_predicting_changes_nothing(estimator, pool):
    estimator.fit(pool.texts, pool.names())
    before = copy.copy(estimator.__dict__)
    estimator.predict(pool.texts)
    estimator.predict_proba(pool.texts)
    assert estimator.__dict__ == before


def test_fitting_keeps_parameters(estimator, pool):
    before, parameters = set(vars(estimator)), estimator.get_params()
    assert estimator.fit(pool.texts, pool.names()) is estimator
    assert estimator.get_params() == parameters
    added = set(vars(estimator)) - before
    assert added
    assert all(name.endswith("_") for name in added)


def test_an_estimator_that_was_not_fitted_says_so(estimator, pool):
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        estimator.predict(pool.texts)


def test_fitting_twice_is_fitting_once(estimator, pool):
    once = estimator.fit(pool.texts, pool.names()).predict_proba(pool.texts)
    twice = estimator.fit(pool.texts, pool.names()).predict_proba(pool.texts)
    np.testing.assert_array_equal(once, twice)


def test_predictions_do_not_depend_on_the_order_or_the_company_of_a_text(estimator, pool):
    estimator.fit(pool.texts, pool.names())
    together = estimator.predict_proba(pool.texts)
    alone = np.vstack([estimator.predict_proba([text]) for text in pool.texts])
    turned = estimator.predict_proba(pool.texts[::-1])[::-1]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, turned, atol=1e-5)
