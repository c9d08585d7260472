import json
from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator
from test_lora import adapted_encoder

from nlpmeta.auto import priors as room
from nlpmeta.auto.method import AutoHead
from nlpmeta.auto.priors import Priors, Profile, Shrunk, Surface, shipped_priors
from nlpmeta.errors import ModelFolderError

SHOTS, WAYS = (1.0, 5.0, 16.0), (2.0, 20.0)
VALUES = np.random.default_rng(0).normal(size=(3, 2, 4))


def flat(value):
    return Surface((1.0,), (2.0,), np.full((1, 1, 1), float(value)))


@pytest.mark.parametrize(("n_shot", "n_way"), [(1, 2), (3, 7), (9, 3), (2.5, 20)])
def test_a_surface_is_linear_in_the_logarithms_of_shots_and_ways(n_shot, n_way):
    theirs = RegularGridInterpolator((np.log(SHOTS), np.log(WAYS)), VALUES)([np.log(n_shot), np.log(n_way)])[0]
    np.testing.assert_allclose(Surface(SHOTS, WAYS, VALUES).at(n_shot, n_way), theirs)


def test_outside_of_its_points_a_surface_is_flat():
    np.testing.assert_allclose(Surface(SHOTS, WAYS, VALUES).at(100, 1000), VALUES[-1, -1])


def test_an_estimate_counts_as_much_as_the_texts_it_comes_from():
    shrunk = Shrunk(flat(10.0), 30.0, flat(0.5))
    assert float(shrunk.at(np.array([2.0]), n_texts=10, n_shot=1, n_way=2)[0]) == pytest.approx(
        0.75 * 10 + 0.25 * 2 + 0.5
    )
    assert float(shrunk.at(None, n_texts=0, n_shot=1, n_way=2)[0]) == 10.5


def test_priors_survive_json():
    learned = shipped_priors().two_views
    again = Profile.of(json.loads(json.dumps(learned.json())))
    assert again.json() == learned.json()
    assert {field.name for field in fields(Profile)} == set(learned.json())


def test_the_shipped_priors_know_every_head_of_auto(encoder):
    for auto in (AutoHead(adapted_encoder()), AutoHead(encoder)):
        assert set(auto.candidates) == set(auto.priors.heads)
        for n_shot in (1, 5, 50):
            usual = auto.priors.temperatures_of(n_shot, 7)
            assert set(usual) == set(auto.candidates)
            assert all(0 < value < float("inf") for value in usual.values())
            assert float(auto.priors.prior_of(list(auto.candidates), n_shot, 7).sum()) == pytest.approx(1.0)


def test_what_scores_are_divided_by_depends_on_shots_and_ways():
    profile = shipped_priors().two_views
    powers = np.arange(4 * len(profile.heads), dtype=float).reshape(2, 2, -1)
    own = replace(profile, head_temperatures=Surface((1.0, 4.0), (2.0, 8.0), powers))
    for n_shot, n_way, expected in ((1, 2, powers[0, 0]), (1, 8, powers[0, 1]), (2, 4, powers.mean((0, 1)))):
        np.testing.assert_allclose(list(own.temperatures_of(n_shot, n_way).values()), 2.0**expected)


def test_a_damaged_file_is_named(tmp_path, monkeypatch):
    path = tmp_path / "priors.json"
    path.write_text('{"two_views": {}}', encoding="utf-8")
    monkeypatch.setattr(room, "FILE", path)
    shipped_priors.cache_clear()
    with pytest.raises(ModelFolderError, match=r"priors\.json is damaged"):
        shipped_priors()
    shipped_priors.cache_clear()


def test_views_choose_the_profile():
    two, one = shipped_priors().two_views, shipped_priors().one_view
    assert Priors(two, one).profile(two_views=True) is two
    assert Priors(two, one).profile(two_views=False) is one
