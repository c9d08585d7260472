import json
from collections import Counter
from pathlib import Path

import pytest

from nlpmeta.episodes.pools import language_codes
from nlpmeta.episodes.wrappers import DifficultySampler
from nlpmeta.errors import NLPMetaError, UnknownNameError
from nlpmeta.settings import SettingsError
from nlpmeta.training import EpisodeTasks, Recipe, TrainTasks
from nlpmeta.training.recipe_files import about, documented_keys, find_recipe, load_recipe, shipped_recipes
from nlpmeta.training.tasks import read_pool, sampler_of, training_sampler

REQUIRED = {"protonet", "siamese", "matching", "ridge", "protonet-tiny", "crosslingual"}


def write(folder, content):
    path = folder / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    return str(path)


@pytest.fixture
def corpus(tmp_path):
    """Three languages with ids that name sentences, one of them poor."""
    path = tmp_path / "corpus.jsonl"
    rows = []
    for lang in ("en", "de", "sw"):
        for label in ("go", "stop", "wait", "turn_left"):
            for i in range(3 if lang == "sw" else 6):
                row = {
                    "text": f"{lang} {label} {'abcdef'[i]}",
                    "label": label,
                    "lang": lang,
                    "id": f"{label}{'abcdef'[i]}",
                }
                rows.append(json.dumps(row))
    path.write_text("\n".join(rows), encoding="utf-8")
    return str(path)


def test_the_recipes_of_the_brief_are_shipped():
    assert set(shipped_recipes()) >= REQUIRED


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_is_whole_and_opens_with_its_command(name):
    recipe = load_recipe(name)
    assert recipe.out == f"runs/{name}"
    lines = find_recipe(name).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"# nlpmeta train {name}")
    assert len(about(find_recipe(name))) > 20


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_no_shipped_recipe_trains_on_what_its_headline_results_hold_out(name):
    """Held out from training: the four languages, and BANKING77, unless a recipe says otherwise in its name."""
    for part in load_recipe(name).data:
        dev = name in ("rnn", "snail") and part.source == "massive" and part.split == "dev"  # five languages, few texts
        assert part.split == "train" or part.source in ("hwu64", "liu") or dev
        if part.source in ("injongo", "massive", "sib200"):
            assert "sw" in part.leave_out_langs
        assert part.source not in ("banking77", "spam", "sms-spam")


def test_changes_reach_every_depth():
    recipe = load_recipe(
        "protonet", ["steps=7", "seed=3", "out=there", "data.0.weight=9", "adapter.rank=2", "patience=null"]
    )
    assert (recipe.steps, recipe.seed, recipe.out, recipe.patience) == (7, 3, "there", None)
    assert recipe.data[0].weight == 9
    assert recipe.adapter.rank == 2
    assert recipe.adapter.alpha == 32
    assert load_recipe("protonet", ["adapter=null"]).adapter is None
    assert load_recipe("protonet", ["data.1.n_way=[3,4]"]).data[1].n_way == (3, 4)


def test_all_mistakes_are_listed_with_the_nearest_names():
    with pytest.raises(SettingsError) as error:
        load_recipe("protonet", ["stepz=3", "data.0.weigth=5", "seed=-1", "adapter.rnk=3", "data.1.n_way=[9,2]"])
    message = str(error.value)
    assert "5 settings are wrong" in message
    assert "stepz is not a setting. Did you mean steps" in message
    assert "data.0.weigth is not a setting. Did you mean weight?" in message
    assert "adapter.rnk is not a setting. Did you mean rank?" in message
    assert "data.1: n_way must be [lowest, highest], got [9, 2]" in message


@pytest.mark.parametrize("change", ["steps", "=3", "data.99.weight=1"])
def test_what_is_not_a_change_is_said(change):
    with pytest.raises(NLPMetaError, match="is not a change|cannot be applied"):
        load_recipe("protonet", [change])


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="Did you mean 'protonet'"):
        load_recipe("protonett")


def test_a_base_holds_where_a_recipe_says_nothing(tmp_path):
    recipe = load_recipe(write(tmp_path, "base: protonet\nsteps: 5\nlearner_options: {}\n"))
    assert recipe.steps == 5
    assert recipe.learner_options == {}
    assert recipe.data == load_recipe("protonet").data
    assert recipe.out == "runs/mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "is not a recipe"),
        ("- 1", "holds no keys"),
        ("steps: 3", "data is missing"),
        ("base: mine.yaml", "is its own base"),
        ("base: nosuch", "no recipe named 'nosuch'"),
    ],
)
def test_what_is_not_a_recipe_is_said(tmp_path, content, message):
    with pytest.raises(NLPMetaError, match=message):
        load_recipe(write(tmp_path, content))


def test_every_key_is_documented():
    keys = {key: meaning for key, _, meaning in documented_keys()}
    assert {"steps", "out", "seed", "checkpoint_every", "adapter.rank", "data.N.n_way", "heldout.N.name"} <= set(keys)
    assert all(keys.values())


def test_the_digest_is_of_what_is_trained_and_not_of_where():
    digest = load_recipe("protonet").digest()
    assert load_recipe("protonet", ["out=elsewhere"]).digest() == digest
    assert load_recipe("protonet", ["seed=8"]).digest() != digest


def test_left_out_languages_and_labels_are_not_read(corpus):
    part = EpisodeTasks(source=corpus, leave_out_langs=("Swahili",), leave_out_labels=("wait",))
    pool = read_pool(part, data_dir=None)
    assert set(language_codes(pool)) == {"en", "de"}
    assert set(pool.label_names) == {"go", "stop", "turn_left"}


def test_labels_of_another_data_set_are_left_out_however_spelt(corpus, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("text,label\nx,Turn Left\ny,GO\n")
    part = EpisodeTasks(source=corpus, leave_out_labels_of=(str(other),))
    assert set(read_pool(part, data_dir=None).label_names) == {"stop", "wait"}


def test_a_language_that_is_too_poor_is_left_out_and_ways_end_at_what_there_is(corpus):
    part = EpisodeTasks(source=corpus, n_way=(2, 9), n_shot=2, n_query=2)
    sampler = sampler_of(part, seed=0, data_dir=None)
    episodes = [sampler.episode(i) for i in range(60)]
    assert {episode.support.langs[0] for episode in episodes} == {"en", "de"}
    assert {episode.n_way for episode in episodes} == {2, 3, 4}


def test_when_no_language_can_fill_an_episode_the_richest_is_named(corpus):
    with pytest.raises(NLPMetaError, match="no language has 5 classes with 4 distinct texts; the richest has 4"):
        sampler_of(EpisodeTasks(source=corpus, n_way=5, n_shot=2, n_query=2), seed=0, data_dir=None)


def test_cross_lingual_tasks_never_have_a_translation_on_the_other_side(corpus):
    part = EpisodeTasks(source=corpus, kind="crosslingual", leave_out_langs=("sw",), n_way=(2, 4), n_shot=2, n_query=1)
    sampler = sampler_of(part, seed=0, data_dir=None)
    for index in range(30):
        episode = sampler.episode(index)
        assert set(episode.support.langs) != set(episode.query.langs)
        assert not set(episode.support.ids) & set(episode.query.ids)


def test_hard_tasks_are_an_option_of_a_part(corpus):
    part = EpisodeTasks(source=corpus, n_way=2, n_shot=1, n_query=1, hard_share=0.5)
    sampler = sampler_of(part, seed=0, data_dir=None)
    assert isinstance(sampler, DifficultySampler)
    assert sampler.share == 0.5
    assert sampler.episode(0).n_way == 2


def test_parts_are_drawn_in_the_shares_of_their_weights(corpus):
    parts = [
        TrainTasks(source=corpus, langs=("en",), n_way=2, n_shot=1, n_query=1, weight=3),
        TrainTasks(source=corpus, langs=("de",), n_way=2, n_shot=1, n_query=1, weight=1),
    ]
    sampler = training_sampler(parts, seed=0, data_dir=None)
    drawn = Counter(sampler.episode(i).support.langs[0] for i in range(400))
    assert 260 < drawn["en"] < 340


def test_ids_that_repeat_within_a_language_name_no_sentences(tmp_path):
    path = tmp_path / "repeating.jsonl"
    rows = [{"text": f"{label} {c}", "label": label, "lang": "en", "id": c} for label in ("go", "stop") for c in "abcd"]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    assert read_pool(EpisodeTasks(source=str(path)), data_dir=None).ids is None


def test_names_of_held_out_sets_must_differ(corpus):
    held = {"source": corpus, "name": "same"}
    with pytest.raises(SettingsError, match="names of heldout sets must differ"):
        Recipe(data=[{"source": corpus}], heldout=[held, held])


@pytest.mark.shared_data
def test_the_public_data_sets_fill_the_shipped_recipes(shared_data):
    recipe = load_recipe("crosslingual")
    sampler = training_sampler(recipe.data[2:3], seed=0, data_dir=shared_data)
    assert sampler.episode(0).n_way >= 8
    pool = read_pool(recipe.data[2], data_dir=shared_data)
    assert "translate" not in pool.label_names  # one of Injongo's forty
    assert pool.n_way == 110
    for part in recipe.heldout:
        assert sampler_of(part, seed=0, data_dir=shared_data).episode(0).n_way >= 4


def test_a_part_can_be_the_tasks_of_one_user_each(tmp_path):
    path = tmp_path / "ratings.csv"
    rows = [f"text {'abcdefgh'[k]} by {u},{('good', 'bad')[k % 2]},{u}" for u in ("ann", "bob") for k in range(8)]
    path.write_text("text,label,user\n" + "\n".join(rows) + "\n", "utf-8")
    part = EpisodeTasks.parse(
        {"source": str(path), "kind": "users", "n_way": 2, "n_shot": 1, "n_query": 2}, where="here"
    )
    drawn = [sampler_of(part, seed=0, data_dir=None).episode(i) for i in range(6)]
    assert {frozenset((*e.support.users, *e.query.users)) for e in drawn} == {frozenset({"ann"}), frozenset({"bob"})}


def test_a_part_can_be_windows_of_time_whose_query_is_later_than_the_support(tmp_path):
    path = tmp_path / "messages.csv"
    letters = [a + b for a in "abcdefgh" for b in "abcde"]
    rows = [f"message {word},{('ham', 'spam')[k % 2]},{1_700_000_000 + k}" for k, word in enumerate(letters)]
    path.write_text("text,label,timestamp\n" + "\n".join(rows) + "\n", "utf-8")
    asked = {"source": str(path), "kind": "spam-windows", "n_way": 2, "n_shot": 2, "n_query": 2}
    sampler = sampler_of(EpisodeTasks.parse(asked, where="here"), seed=0, data_dir=None)
    for episode in (sampler.episode(i) for i in range(6)):
        assert max(episode.support.times) < min(episode.query.times)
    with pytest.raises(SettingsError, match="n_way: 2"):
        EpisodeTasks.parse({**asked, "n_way": 3}, where="here")


def test_the_recipe_of_the_guide_to_a_checkpoint_of_ones_own_is_read_as_it_stands(tmp_path, monkeypatch):
    guide = (Path(__file__).parents[1] / "docs" / "guides" / "own-checkpoint.md").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(guide.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    (tmp_path / "train.csv").write_text("text,label,lang\nball goal,sport,en\nrice soup,food,en\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("mine.yaml")
    assert recipe.start == "multilingual" and recipe.adapter.layers == 4
    assert [part.source for part in (*recipe.data, *recipe.heldout)] == ["train.csv", "train.csv"]
