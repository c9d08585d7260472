"""What docs/explanation/families.md says of the families holds on the packaged encoder."""

import families
import pytest
import torch

pytestmark = pytest.mark.slow  # a minute of the packaged encoder


@pytest.fixture(autouse=True)
def fewer_tasks(monkeypatch):
    monkeypatch.setattr(families, "N_TASKS", 2)
    with torch.no_grad():
        yield


def test_maml_without_a_step_is_the_prototypical_network_and_moves_away_step_by_step():
    found = families.maml_starts_as_prototypes()
    assert found[0] < 1e-4
    assert found[0] < found[1] < found[3]


def test_gradient_descent_on_the_ridge_loss_ends_at_the_closed_form():
    found = families.gradient_descent_nears_the_closed_form()
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found[1] > 0.1 and found[1000] < 1e-6


def test_the_order_of_the_examples_changes_what_a_memory_says_and_not_what_means_say():
    found = families.only_a_memory_minds_the_order()
    assert found["prototypical"] == 0 and found["mann"] > 0


def test_averages_are_better_in_the_space_that_was_meta_trained():
    found = families.the_space_is_learned()
    assert found["default"] > found["none"] + 5
