import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_encoder

from nlpmeta import AdapterStore, FewShotClassifier
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError, UnknownNameError
from nlpmeta.learners.base import learners
from nlpmeta.learners.maml import MAML
from nlpmeta.users.file import UsersFile
from nlpmeta.users.heads import USER_BYTES, head_near, pack, unpack

WRITER = Path(__file__).parent / "write_users.py"
METHODS = ["logistic", "prototypical", "ridge", "auto", "maml", "anil"]


def supports(pool):
    """Three users: different classes, different numbers of them."""
    rows = list(zip(pool.texts, pool.names(), strict=True))
    tastes = {"amina": pool.label_names[:2], "baraka": pool.label_names[1:], "chiku": pool.label_names}
    own = {user: [row for row in rows if row[1] in taste][::3] for user, taste in tastes.items()}
    return {user: ([text for text, _ in each], [name for _, name in each]) for user, each in own.items()}


def learner_of(method, encoder):
    if method in {"maml", "anil"}:
        add_adapter(encoder, AdapterSettings(rank=1, layers=1, modules=("query", "value")), seed=0)
        with torch.no_grad():
            for weight in adapter_weights(encoder).values():
                weight.add_(0.05)
    return learners[method](encoder).eval()


@pytest.mark.parametrize("method", METHODS)
def test_a_mixed_batch_is_scored_as_each_users_own_classifier_scores(encoder, pool, tmp_path, method):
    learner = learner_of(method, encoder)
    store = AdapterStore(tmp_path / "users.sqlite", learner)
    for user, (texts, labels) in supports(pool).items():
        store.adapt(user, texts, labels)
    queries = [text + " goal bread" * (7 * i % 5) for i, text in enumerate(pool.texts)]  # of many lengths
    users = [("amina", "baraka", "chiku")[i % 3] for i in range(len(pool))]
    found = store.predict_proba(users, queries)
    for user, (texts, labels) in supports(pool).items():
        alone = FewShotClassifier(learner).fit(texts, labels)
        rows = [i for i, each in enumerate(users) if each == user]
        expected = alone.predict_proba([queries[i] for i in rows])
        assert found[rows[0]].labels == tuple(alone.classes_.tolist())
        np.testing.assert_allclose([found[i].probabilities for i in rows], expected, atol=5e-3)  # stored in float16


def test_a_mixed_batch_goes_through_the_encoder_once(encoder, pool, tmp_path, monkeypatch):
    seen = []
    plain = TextEncoder.embed_batch
    monkeypatch.setattr(TextEncoder, "embed_batch", lambda self, *a: seen.append(len(a[0])) or plain(self, *a))
    for method in ("logistic", "maml"):
        store = AdapterStore(tmp_path / method, learner_of(method, make_encoder(dropout=0.0)))
        store.adapt_many(supports(pool))
        seen.clear()
        store.predict(["amina", "baraka", "chiku"], ["ball goal", "rice soup", "bank loan"])
        assert seen == [3]


def test_users_have_labels_of_their_own_kind(encoder, pool, tmp_path):
    store = AdapterStore(tmp_path / "users.sqlite", learners["prototypical"](encoder))
    store.adapt("numbers", ["ball goal", "rice soup"], [7, 12])
    store.adapt("words", ["ball goal", "rice soup"], ["ja", "nein"])
    store.adapt("truths", ["ball goal", "rice soup"], [True, False])
    found = store.predict(["numbers", "words", "truths"], ["ball goal"] * 3)
    assert found == [7, "ja", True]
    assert [type(label) for label in found] == [int, str, bool]


def test_a_fallback_serves_users_without_a_head(encoder, tmp_path):
    store = AdapterStore(tmp_path / "users.sqlite", learners["prototypical"](encoder))
    store.adapt("everyone", ["ball goal", "rice soup"], ["sport", "food"])
    store.adapt("amina", ["ball goal", "rice soup"], ["x", "y"])
    with pytest.raises(UnknownNameError, match="nobody"):
        store.predict(["amina", "nobody"], ["ball", "ball"])
    with pytest.raises(UnknownNameError, match="nonesuch"):
        store.predict(["nobody"], ["ball"], fallback="nonesuch")
    assert store.predict(["amina", "nobody"], ["ball", "ball"], fallback="everyone") == ["x", "sport"]


def test_a_store_opened_again_gives_the_same_and_a_removed_user_is_gone(encoder, pool, tmp_path):
    learner = learners["logistic"](encoder)
    with AdapterStore(tmp_path / "users.sqlite", learner) as store:
        store.adapt_many(supports(pool))
        before = store.predict_proba(["chiku"] * 4, pool.texts[:4])
    again = AdapterStore(tmp_path / "users.sqlite", learners["logistic"](make_encoder()))
    assert again.predict_proba(["chiku"] * 4, pool.texts[:4]) == before
    assert again.users() == ["amina", "baraka", "chiku"]
    again.remove("baraka")
    assert len(again) == 2 and "baraka" not in again and "amina" in again
    with pytest.raises(UnknownNameError, match="baraka"):
        again.remove("baraka")


def test_a_users_classifier_can_be_taken_out_and_put_back(encoder, pool, tmp_path):
    store = AdapterStore(tmp_path / "users.sqlite", learners["logistic"](encoder))
    texts, labels = supports(pool)["chiku"]
    store.put("chiku", FewShotClassifier(store.learner).fit(texts, labels))
    out = store.classifier("chiku")
    inside = store.predict_proba(["chiku"] * 5, pool.texts[:5])
    np.testing.assert_allclose(out.predict_proba(pool.texts[:5]), [s.probabilities for s in inside], rtol=1e-6)
    with pytest.raises(DataError, match="another learner"):
        store.put("x", FewShotClassifier("ridge", encoder=encoder).fit(texts, labels))


def test_a_failure_of_one_user_stores_nobody(encoder, tmp_path):
    store = AdapterStore(tmp_path / "users.sqlite", learners["logistic"](encoder))
    good = (["ball goal", "rice soup"], ["a", "b"])
    with pytest.raises(DataError, match="at least two classes"):
        store.adapt_many({"good": good, "bad": (["ball"], ["a"])})
    assert len(store) == 0


@pytest.mark.parametrize(("precision", "bound"), [("float16", 1 / 2048), ("int8", 1 / 254)])
def test_packing_loses_no_more_than_it_says(precision, bound):
    generator = torch.Generator().manual_seed(0)
    state = {"weight": torch.randn(9, 384, generator=generator) * 10, "bias": torch.randn(9, generator=generator)}
    packed = pack("u", state, np.arange(9), precision)
    back, labels = unpack(packed.state, packed.labels)
    largest = state["weight"].abs().amax(1, keepdim=True)
    worst = float(((back["weight"] - state["weight"]).abs() / largest).max())
    assert 0 < worst <= bound + 1e-6
    assert packed.error == pytest.approx(worst)
    torch.testing.assert_close(back["bias"], state["bias"], rtol=0, atol=0)
    assert labels == tuple(range(9))


def test_what_does_not_fit_in_16_kb_goes_to_int8_and_then_is_refused():
    def head(n_way):
        return {"weight": torch.randn(n_way, 384)}, np.arange(n_way)

    assert pack("u", *head(20)).precision == "float16"
    assert pack("u", *head(40)).precision == "int8"
    assert pack("u", *head(40)).size("u") <= USER_BYTES
    with pytest.raises(NLPMetaError, match=r"may take 16,384.*fewer classes \(60 now\)"):
        pack("u", *head(60))
    with pytest.raises(NLPMetaError, match="not finite"):
        pack("u", {"weight": torch.full((2, 3), float("nan"))}, np.arange(2))


def test_a_store_of_another_learner_or_encoder_is_refused(encoder, tmp_path):
    path = tmp_path / "users.sqlite"
    AdapterStore(path, learners["logistic"](encoder)).close()
    with pytest.raises(NLPMetaError, match="made with another method"):
        AdapterStore(path, learners["ridge"](encoder))
    other = make_encoder()
    with torch.no_grad():
        next(other.backbone.parameters()).add_(1.0)
    with pytest.raises(NLPMetaError, match="made with another encoder"):
        AdapterStore(path, learners["logistic"](other))


def changed(path, *statements):
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("PRAGMA user_version=99", "format version 99"),
        ("PRAGMA application_id=1", "something else"),
        ("CREATE TRIGGER t AFTER INSERT ON users BEGIN DELETE FROM users; END", "other tables"),
        ("ALTER TABLE users ADD COLUMN more TEXT", "other tables"),
    ],
)
def test_files_that_are_not_ours_are_refused(tmp_path, statement, message):
    path = tmp_path / "users.sqlite"
    UsersFile(path, {"encoder": "test"}).close()
    changed(path, statement)
    with pytest.raises(ModelFolderError, match=message):
        UsersFile(path, {"encoder": "test"})


def test_a_file_of_another_program_stays_as_it_is(tmp_path):
    plain, foreign = tmp_path / "notes.txt", tmp_path / "other.sqlite"
    plain.write_text("not a database at all, only some notes " * 10, encoding="utf-8")
    changed(foreign, "CREATE TABLE mine (x)")
    for path in (plain, foreign):
        before = path.read_bytes()
        with pytest.raises(ModelFolderError):
            UsersFile(path, {"encoder": "test"})
        assert path.read_bytes() == before
    with pytest.raises(NLPMetaError, match="is a folder"):
        UsersFile(tmp_path, {"encoder": "test"})


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE users SET state = X'0011'",
        "UPDATE users SET state = zeroblob(500000)",
        "UPDATE users SET labels = 'no json'",
        "UPDATE users SET labels = 5",
    ],
)
def test_a_damaged_row_is_named_and_the_others_still_serve(tmp_path, damage):
    path = tmp_path / "users.sqlite"
    file = UsersFile(path, {"encoder": "test"})
    packed = pack("u", {"weight": torch.ones(2, 3)}, np.arange(2))
    file.write({"amina": packed, "baraka": packed})
    changed(path, f"{damage} WHERE user = 'amina'")
    with pytest.raises(ModelFolderError, match="'amina'"):
        file.read(["amina", "baraka"])
    assert unpack(file.read(["baraka"])["baraka"].state, packed.labels)[1] == (0, 1)


def test_a_state_that_is_whole_but_no_safetensors_is_refused():
    with pytest.raises(ModelFolderError, match="damaged"):
        unpack(b"\x00" * 64, '{"kind": "i", "labels": [0, 1]}')
    good = pack("u", {"weight": torch.ones(2, 3)}, np.arange(2))
    for labels in ('{"kind": "O", "labels": [0, 1]}', '{"kind": "i", "labels": [1, 1]}', "[]", '{"kind":"i"}'):
        with pytest.raises(ModelFolderError):
            unpack(good.state, labels)


@pytest.mark.slow
def test_concurrent_writers_lose_nothing_and_killed_ones_leave_whole_transactions(tmp_path):
    path, n_writes, n_victims = tmp_path / "users.sqlite", 60, 4
    lengths = [n_writes, *[1_000_000] * n_victims]
    command = [sys.executable, str(WRITER), str(path)]
    writers = [
        subprocess.Popen([*command, str(i), str(n)], stdout=subprocess.PIPE, text=True) for i, n in enumerate(lengths)
    ]
    acknowledged = {f"0-{i}" for i in range(n_writes)}
    for number, victim in enumerate(writers[1:], start=1):
        for _ in range(10):
            acknowledged.add(f"{number}-{int(victim.stdout.readline())}")
        time.sleep(0.0007 * number)  # another moment of the next write for each
        os.kill(victim.pid, signal.SIGKILL)
        acknowledged |= {f"{number}-{int(line)}" for line in victim.communicate()[0].split()}
    writers[0].communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0, *[-signal.SIGKILL] * n_victims]
    file = UsersFile(path, {"encoder": "test"})
    users = set(file.users()) - {"shared"}
    assert acknowledged <= users
    shared = file.read(["shared"])["shared"]
    assert shared.version == len(users)  # each transaction wrote both of its rows or none
    assert len(unpack(shared.state, shared.labels)[0]["weight"].unique()) == 1
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_threads_share_a_store(encoder, pool, tmp_path):
    store = AdapterStore(tmp_path / "users.sqlite", learners["prototypical"](encoder))
    texts, labels = supports(pool)["amina"]
    wrong = []

    def work(number):
        try:
            store.adapt(f"user {number}", texts, labels)
            store.predict([f"user {number}"], ["ball"])
        except Exception as error:  # noqa: BLE001
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(store) == 8


def test_a_maml_user_with_small_adapters_fits(tmp_path):
    encoder = make_encoder(dropout=0.0)
    add_adapter(encoder, AdapterSettings(rank=1, layers=1, modules=("query", "value")), seed=0)
    store = AdapterStore(tmp_path / "users.sqlite", MAML(encoder))
    stored = store.adapt("amina", ["ball goal", "rice soup"], ["a", "b"])
    assert stored.bytes <= USER_BYTES and stored.precision == "float16"
    assert any(name.startswith("adapter/") for name in store.classifier("amina").state_)


def test_a_head_near_a_shared_one_is_the_minimum_that_scipy_finds():
    from scipy.optimize import minimize

    generator = torch.Generator().manual_seed(1)
    features, labels = torch.randn(12, 5, generator=generator), torch.tensor([0, 1, 2] * 4)
    shared = {"weight": torch.randn(3, 5, generator=generator), "bias": torch.randn(3, generator=generator)}
    ours = head_near(features, labels, shared, penalty=2.0, bias_penalty=0.7)
    x, y = features.double().numpy(), labels.numpy()
    centred = x - x.mean(0)
    scale = np.linalg.norm(centred, axis=1).mean()
    start = x @ shared["weight"].double().numpy().T + shared["bias"].double().numpy()

    def loss(flat):
        weight, bias = flat[:15].reshape(3, 5), flat[15:]
        scores = start + centred / scale @ weight.T + bias
        fit = (np.log(np.exp(scores).sum(1)) - scores[np.arange(12), y]).sum()
        return fit + 2.0 / 2 * (weight**2).sum() + 0.7 / 2 * (bias**2).sum()

    best = minimize(loss, np.zeros(18), tol=1e-10).x
    expected = start + centred / scale @ best[:15].reshape(3, 5).T + best[15:]
    np.testing.assert_allclose((features @ ours["weight"].T + ours["bias"]).numpy(), expected, atol=1e-3)


def test_a_user_near_everyone_keeps_the_classes_it_has_no_text_of(encoder, pool, tmp_path):
    store = AdapterStore(tmp_path / "users.sqlite", learners["logistic"](encoder))
    store.adapt("everyone", pool.texts, pool.names())
    sport = [text for text, name in zip(pool.texts, pool.names(), strict=True) if name == "sport"]
    store.adapt("amina", sport * 4, ["food"] * (4 * len(sport)), near="everyone")  # her taste: sport is food
    assert store.predict(["amina", "amina", "everyone"], ["ball match", "bank loan", "ball match"]) == [
        "food",
        "money",
        "sport",
    ]
    with pytest.raises(DataError, match="which the shared head has not"):
        store.adapt("amina", ["ball"], ["nonesuch"], near="everyone")
    with pytest.raises(UnknownNameError, match="nobody"):
        store.adapt("amina", ["ball"], ["food"], near="nobody")
    ridge = AdapterStore(tmp_path / "ridge.sqlite", learners["ridge"](encoder))
    ridge.adapt("everyone", pool.texts, pool.names())
    with pytest.raises(NLPMetaError, match="needs the method 'logistic'"):
        ridge.adapt("amina", ["ball"], ["food"], near="everyone")
