"""Names of users: every door of the store judges them alike, and messages keep them short and to themselves."""

import numpy as np
import pytest

from nlpmeta import AdapterStore
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError, UnknownNameError
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.users.file import LONGEST, checked_user

TEXTS, LABELS = ["ball goal", "rice soup"], ["sport", "food"]
WRONG = {
    "two megabytes": "u" * (2 << 20),
    "one byte too long": "u" * (LONGEST + 1),
    "many bytes": "ā" * (LONGEST // 2 + 1),
    "a lone surrogate": "a\ud800",
    "a control character": "a\x1b[2Jb",
    "a NUL": "a\x00b",
    "two lines": "a\nb",
    "a separator of lines": "a\u2028b",
    "nothing": "",
    "a list": ["a"],
    "bytes": b"a",
    "a number": 7,
    "none": None,
    "a tuple": ("a", "b"),
}


@pytest.fixture
def store(encoder, tmp_path):
    with AdapterStore(tmp_path / "users.sqlite", LogisticHead(encoder).eval()) as store:
        store.adapt("secret-person", TEXTS, LABELS)
        store.adapt("everyone", TEXTS, LABELS)
        yield store


DOORS = {
    "adapt": lambda store, user: store.adapt(user, TEXTS, LABELS),
    "adapt_many": lambda store, user: store.adapt_many({user: (TEXTS, LABELS)}),
    "near": lambda store, user: store.adapt("new", TEXTS, LABELS, near=user),
    "put": lambda store, user: store.put(user, store.classifier("everyone")),
    "predict": lambda store, user: store.predict([user], ["ball"]),
    "predict_proba": lambda store, user: store.predict_proba(["everyone", user], ["ball", "ball"]),
    "fallback": lambda store, user: store.predict(["nobody"], ["ball"], fallback=user),
    "classifier": lambda store, user: store.classifier(user),
    "remove": lambda store, user: store.remove(user),
}


@pytest.mark.parametrize("door", sorted(DOORS))
@pytest.mark.parametrize("name", sorted(WRONG))
def test_what_cannot_be_a_name_is_refused_alike_everywhere(store, door, name):
    user = WRONG[name]
    if door == "adapt_many" and isinstance(user, list):
        return  # no dictionary has a list as a key
    if user is None and door in ("near", "fallback"):
        return  # there it says that there is none
    with pytest.raises(DataError, match="name of a user") as caught:
        DOORS[door](store, user)
    message = str(caught.value)
    assert len(message) <= 200 and message.isprintable() and "damaged" not in message
    assert len(store) == 2


@pytest.mark.parametrize("door", ["near", "predict", "predict_proba", "fallback", "classifier", "remove"])
def test_a_user_who_is_not_there_is_told_so_and_nobody_else_is_named(store, door):
    user = "secret-persom" if door != "remove" else "s" * LONGEST
    with pytest.raises(UnknownNameError, match="no user named") as caught:
        DOORS[door](store, user)
    message = str(caught.value)
    assert len(message) <= 200 and "secret-person" not in message and "everyone" not in message
    assert caught.value.known == ()


def test_nothing_that_cannot_be_a_name_is_in_the_store(store):
    assert [user in store for user in WRONG.values()] == [False] * len(WRONG)
    assert "everyone" in store


def test_names_of_all_scripts_and_of_numpy_are_names(store):
    for user in ("نام\u200cکاربر", "用户", "amina@example.org", "a b", "👩\u200d🔧", "../../etc", "' OR 1=1 --"):
        store.adapt(user, TEXTS, LABELS)
        assert store.predict(np.array([user]), ["ball goal"]) == ["sport"]
        store.remove(np.str_(user))
    assert type(checked_user(np.str_("a"))) is str


@pytest.mark.parametrize("users", ["everyone", 5, None, {"everyone": 1}, ["everyone"] * 2, []])
def test_users_are_one_name_for_each_text(store, users):
    with pytest.raises(DataError) as caught:
        store.predict(users, ["ball"])
    assert len(str(caught.value)) <= 200


def test_other_messages_about_a_user_are_short_too(store, encoder, tmp_path):
    long = "u" * LONGEST
    with pytest.raises(DataError, match="which the shared head has not") as caught:
        store.adapt(long, TEXTS, ["l" * 500, "m" * 500], near="everyone")
    assert len(str(caught.value)) <= 250
    store.adapt(long, TEXTS, LABELS)
    import sqlite3

    with sqlite3.connect(tmp_path / "users.sqlite") as connection:
        connection.execute("UPDATE users SET labels = 'x' WHERE user = ?", (long,))
    with pytest.raises(ModelFolderError, match="damaged") as caught:
        store.predict([long], ["ball"])
    assert len(str(caught.value).replace(str(tmp_path), "")) <= 200
    with pytest.raises(NLPMetaError) as caught:
        store.adapt(long, [f"ball {i}" for i in range(4000)], [f"label number {i}" for i in range(4000)])
    assert "u" * 100 not in str(caught.value)
