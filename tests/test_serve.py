"""``nlpmeta serve``: what is predicted, taught, limited and refused over HTTP."""

import io
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile

import httpx2 as httpx
import pytest
import serve_fuzzing
from conftest import TOPICS, make_encoder, save_encoder
from serving import served, serving_process
from starlette.testclient import TestClient

from nlpmeta import FewShotClassifier
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.export.head import compile_model, compile_names
from nlpmeta.learners.base import learners
from nlpmeta.learners.checkpoint import save_checkpoint
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.start import starting_learner
from nlpmeta.serve import Settings, create_app
from nlpmeta.serve.batching import Batcher
from nlpmeta.serve.guard import Limits, read_tokens
from nlpmeta.serve.learning import Embedder, UsersHeads
from nlpmeta.users import AdapterStore

CLASSES = [{"label": name, "description": words} for name, words in TOPICS.items()]
TOKEN = "a-token-of-more-than-sixteen-characters"  # noqa: S105
EVERYWHERE = "0.0.0.0"  # noqa: S104


def client_of(folder, *, encoder=None, **options):
    settings = Settings(folder, engine="torch", **options)
    app = create_app(settings, learner=learners["auto"](encoder or make_encoder()).eval())
    return TestClient(app, base_url="http://127.0.0.1:8000")


@pytest.fixture
def client(tmp_path):
    with client_of(tmp_path / "models") as found:
        yield found


def make(client, name="topics"):
    answer = client.post("/v1/models", json={"name": name, "classes": CLASSES})
    assert answer.status_code == 201, answer.text
    return answer.json()


def teach(client, pairs, name="topics"):
    examples = [{"text": text, "label": label} for text, label in pairs]
    answer = client.post(f"/v1/models/{name}/examples", json={"examples": examples})
    assert answer.status_code == 200, answer.text
    return answer.json()


def settled(client, name="topics"):
    for _ in range(200):
        found = client.get(f"/v1/models/{name}").json()
        if not found["learning"]:
            return found
        time.sleep(0.05)
    raise AssertionError("the model never learned")


PAIRS = [(f"{a} {b}", topic) for topic, words in TOPICS.items() for a, b in [words.split()[:2], words.split()[2:]]]


def test_a_model_of_names_predicts_learns_examples_and_forgets_the_last_change(client):
    assert make(client)["version"] == 1
    before = client.post("/v1/models/topics/predict", json={"texts": ["ball goal"], "top": 3}).json()
    assert before["version"] == 1 and len(before["answers"][0]["top"]) == 3
    taught = teach(client, PAIRS)
    assert taught["version"] == 2 and len(taught["added"]) == 6
    now = settled(client)
    assert now["version"] == 2 and [each["examples"] for each in now["classes"]] == [2, 2, 2]
    after = client.post("/v1/models/topics/predict", json={"texts": [text for text, _ in PAIRS]}).json()
    assert after["version"] == 2
    assert [each["label"] for each in after["answers"]] == [label for _, label in PAIRS]
    assert client.post("/v1/models/topics/undo", json={}).json()["version"] == 3
    assert settled(client)["examples"] == []
    again = client.post("/v1/models/topics/undo", json={})
    assert again.status_code == 409 and "no change" in again.json()["detail"]


def test_predictions_are_those_of_a_classifier_fitted_by_hand(client):
    make(client)
    teach(client, PAIRS)
    settled(client)
    texts = ["ball", "soup bread", "cash loan bank", "team rice"]
    by_hand = FewShotClassifier(encoder=make_encoder()).fit(
        [text for text, _ in PAIRS], [label for _, label in PAIRS], descriptions=dict(TOPICS)
    )
    answers = client.post("/v1/models/topics/predict", json={"texts": texts, "top": 3}).json()["answers"]
    for row, each in zip(by_hand.predict_proba(texts), answers, strict=True):
        expected = dict(zip(by_hand.classes_, row, strict=True))
        assert {top["label"]: top["probability"] for top in each["top"]} == pytest.approx(expected, abs=1e-5)


def test_classify_needs_no_model(client):
    body = {"texts": ["ball goal", "rice soup"], "labels": list(TOPICS), "descriptions": TOPICS, "abstain": 0.9}
    answers = client.post("/v1/classify", json=body).json()["answers"]
    assert [each["label"] in TOPICS for each in answers] == [True, True]
    assert all(isinstance(each["unsure"], bool) for each in answers)
    assert client.get("/v1/models").json()["models"] == []


def test_a_known_text_with_another_label_is_corrected_and_an_example_can_go(client):
    make(client)
    added = teach(client, [("ball goal", "food"), ("rice soup", "food")])["added"]
    changed = teach(client, [("ball goal", "sport"), ("rice soup", "food")])
    assert [each["label"] for each in changed["replaced"]] == ["food"] and changed["known"] == 1
    assert client.delete(f"/v1/models/topics/examples/{added[1]['id']}").status_code == 200
    assert [each["text"] for each in settled(client)["examples"]] == ["ball goal"]
    assert client.delete("/v1/models/topics/examples/999").status_code == 404


def test_classes_come_with_examples_or_words_and_go(client):
    make(client)
    assert teach(client, [("cash rate", "weather")])["new_classes"] == ["weather"]
    wordless = client.post("/v1/models/topics/examples", json={"classes": [{"label": "0"}]})
    assert wordless.status_code == 422 and "says nothing" in wordless.json()["detail"]
    assert client.delete("/v1/models/topics/classes/weather").status_code == 200
    assert [each["label"] for each in settled(client)["classes"]] == list(TOPICS)
    client.delete("/v1/models/topics/classes/food")
    last = client.delete("/v1/models/topics/classes/money")
    assert last.status_code == 409 and "at least two" in last.json()["detail"]


def test_a_label_that_reads_like_another_is_refused_before_it_is_written(client):
    make(client)
    before = client.get("/v1/models/topics").json()
    refused = client.post("/v1/models/topics/examples", json={"examples": [{"text": "cash rate", "label": "sport "}]})
    assert refused.status_code == 422 and "'sport' and 'sport '" in refused.json()["detail"]
    assert client.get("/v1/models/topics").json() == before
    assert teach(client, [("cash rate", "sport")])["known"] == 0  # later ones are taught as if nothing had been said


def test_the_report_measures_by_cross_validation_and_keeps_a_curve(client):
    make(client)
    assert client.get("/v1/models/topics/report").json()["accuracy"] is None
    wrong = [*PAIRS, ("goal team", "food")]
    teach(client, wrong)
    settled(client)
    report = client.get("/v1/models/topics/report").json()
    assert report["held_out"] == 7 and 0 <= report["accuracy"] <= 1
    assert all(each["label"] != each["rather"] for each in report["suspects"])
    assert client.get("/v1/models/topics").json()["curve"][-1]["examples"] == 7


def test_suggested_texts_are_unlabelled_ones_that_are_kept(client):
    make(client)
    texts = [f"{a} {b}" for a in TOPICS["sport"].split() for b in TOPICS["food"].split()]
    kept = client.put("/v1/models/topics/texts", json={"texts": [*texts, *texts]}).json()["kept"]
    assert kept == 16 and client.get("/v1/models/topics/texts").json()["texts"] == texts
    teach(client, [(texts[0], "sport")])
    found = client.post("/v1/models/topics/suggest", json={"most": 5}).json()["suggestions"]
    assert len(found) == 5 and texts[0] not in [each["text"] for each in found]
    assert all(texts[each["place"]] == each["text"] for each in found)
    assert len(client.post("/v1/models/topics/suggest", json={"texts": ["ball"]}).json()["suggestions"]) == 1


def test_what_was_taught_is_there_after_a_restart_and_a_deleted_model_is_not(client, tmp_path):
    make(client)
    make(client, "other")
    teach(client, PAIRS)
    before = client.post("/v1/models/topics/predict", json={"texts": ["ball goal"]}).json()["answers"]
    assert client.delete("/v1/models/other").status_code == 204
    with client_of(tmp_path / "models") as again:
        assert [each["name"] for each in again.get("/v1/models").json()["models"]] == ["topics"]
        assert len(again.get("/v1/models/topics").json()["examples"]) == 6
        after = again.post("/v1/models/topics/predict", json={"texts": ["ball goal"]}).json()["answers"]
        assert after[0]["label"] == before[0]["label"]
        assert again.post("/v1/models/other/predict", json={"texts": ["a"]}).status_code == 404


def test_a_downloaded_model_is_a_folder_that_predicts_the_same(tmp_path, encoder_folder):
    with client_of(tmp_path / "models", encoder=TextEncoder.from_pretrained(str(encoder_folder))) as client:
        make(client)
        teach(client, PAIRS)
        settled(client)
        content = client.get("/v1/models/topics/download").content
        served = client.post("/v1/models/topics/predict", json={"texts": ["ball rice"]}).json()["answers"][0]
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert all(name.startswith("topics/") for name in file.namelist())
        file.extractall(tmp_path)
    loaded = FewShotClassifier.from_pretrained(tmp_path / "topics")
    assert loaded.predict_proba(["ball rice"]).max() == pytest.approx(served["probability"], abs=1e-5)
    assert len(loaded.examples_.texts) == 6


def test_saved_models_are_served_by_the_names_of_their_folders_and_taught_without_changing_them(
    tmp_path, encoder_folder
):
    classifier = FewShotClassifier(encoder=str(encoder_folder)).fit([t for t, _ in PAIRS], [n for _, n in PAIRS])
    classifier.save_pretrained(tmp_path / "models" / "saved", include_support=True)
    classifier.save_pretrained(tmp_path / "bare")
    expected = classifier.predict_proba(["ball"])[0].max()
    with client_of(tmp_path / "models", folders=(tmp_path / "bare",)) as client:
        for name in ("saved", "bare"):
            found = client.post(f"/v1/models/{name}/predict", json={"texts": ["ball"]}).json()["answers"][0]
            assert found["probability"] == pytest.approx(expected, abs=1e-5)
        assert teach(client, [("rate", "money")], "saved")["version"] == 2
        assert len(settled(client, "saved")["examples"]) == 7
        refused = client.post("/v1/models/bare/examples", json={"examples": [{"text": "rate", "label": "money"}]})
        assert refused.status_code == 409 and "without its examples" in refused.json()["detail"]
        assert client.delete("/v1/models/saved").status_code == 204
        assert not client.get("/v1/models/saved").json()["taught"]
    assert len(FewShotClassifier.from_pretrained(tmp_path / "models" / "saved").examples_.texts) == 6


def test_how_often_classes_occur_is_kept_by_a_saved_model_that_is_taught_here_and_loaded_again(
    tmp_path, encoder_folder
):
    classifier = FewShotClassifier(encoder=str(encoder_folder)).fit([t for t, _ in PAIRS], [n for _, n in PAIRS])
    classifier.set_class_prior({"food": 0.01}).save_pretrained(tmp_path / "models" / "saved", include_support=True)

    def expected(client, folder):
        with zipfile.ZipFile(io.BytesIO(client.get("/v1/models/saved/download").content)) as file:
            file.extractall(folder)
        return FewShotClassifier.from_pretrained(folder / "saved").class_prior_["food"]

    for new in ("rate", "loan"):
        with client_of(tmp_path / "models") as client:  # the second time it is made of what was taught the first time
            assert expected(client, tmp_path / f"before-{new}") == 0.01
            teach(client, [(new, "money")], "saved")
            settled(client, "saved")
            assert expected(client, tmp_path / f"after-{new}") == 0.01


def test_why_names_words(client):
    make(client)
    teach(client, PAIRS)
    settled(client)
    body = {"texts": ["ball goal rice"], "why": True}
    why = client.post("/v1/models/topics/predict", json=body).json()["answers"][0]["why"]
    assert {each["word"] for each in why["words"]} == {"ball", "goal", "rice"}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/models/topics/predict", {"texts": []}, 422, "texts"),
        ("/v1/models/topics/predict", {"texts": ["  "]}, 422, "texts.0"),
        ("/v1/models/topics/predict", {"texts": "ball"}, 422, "texts"),
        ("/v1/models/topics/predict", {"texts": ["a"], "topp": 1}, 422, "topp"),
        ("/v1/models/topics/predict", {"texts": ["a"], "top": 0}, 422, "top"),
        ("/v1/models/topics/predict", {"texts": ["a"], "abstain": 2}, 422, "abstain"),
        ("/v1/models/nobody/predict", {"texts": ["a"]}, 404, "nobody"),
        ("/v1/models/..%2f..%2fetc/predict", {"texts": ["a"]}, 404, ""),
        ("/v1/models/.hidden/predict", {"texts": ["a"]}, 422, "name"),
        ("/v1/classify", {"texts": ["a"], "labels": ["x y", "x y"]}, 422, "x y"),
        ("/v1/classify", {"texts": ["a"], "labels": ["x", "y"], "descriptions": {"z": "no"}}, 422, "descriptions"),
        ("/v1/classify", {"texts": ["a"], "labels": ["0", "1"]}, 422, "0"),
        ("/v1/models", {"name": "../up", "classes": CLASSES}, 422, "name"),
        ("/v1/models", {"name": "topics", "classes": CLASSES}, 409, "already"),
        ("/v1/models", {"name": "one", "classes": CLASSES[:1]}, 422, "two"),
        ("/v1/models/topics/examples", {}, 422, "examples"),
        ("/v1/models/topics/predict", {"texts": ["a"], "user": "u"}, 409, "users"),
    ],
)
def test_what_cannot_be_used_is_a_problem_that_names_it(client, path, body, status, said):
    make(client)
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == status and said in json.dumps(found)


def test_what_is_no_json_is_refused_in_json(client):
    make(client)
    headers = {"content-type": "application/json"}
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"texts": ["\\ud800"]}', b'{"texts": [1e999]}', b"null"):
        answer = client.post("/v1/models/topics/predict", content=content, headers=headers)
        assert 400 <= answer.status_code < 500, (content[:20], answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
    assert client.post("/v1/classify", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


def test_limits_give_413(tmp_path):
    limits = Limits(body_bytes=2000, texts=2, characters=10)
    with client_of(tmp_path, limits=limits) as client:
        make(client)
        for body in ({"texts": ["a"] * 3}, {"texts": ["a" * 11]}, {"texts": ["a" * 3000]}):
            answer = client.post("/v1/models/topics/predict", json=body)
            assert answer.status_code == 413, answer.text

        def drip():
            for _ in range(300):
                yield b" " * 10

        headers = {"content-type": "application/json"}
        assert client.post("/v1/models/topics/predict", content=drip(), headers=headers).status_code == 413


def test_a_full_queue_is_503_with_a_time_to_try_again(client, monkeypatch):
    make(client)
    service = client.app.state.service
    monkeypatch.setattr(service.batcher, "_most", 1)
    release = threading.Event()
    monkeypatch.setattr(Embedder, "tokens", lambda self, text: release.wait(10) and 1)
    found = []

    def ask():
        found.append(client.post("/v1/models/topics/predict", json={"texts": ["ball"] * 2}))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for each in threads:
        each.start()
    time.sleep(0.3)
    release.set()
    for each in threads:
        each.join()
    assert {each.status_code for each in found} <= {200, 503} and 200 in {each.status_code for each in found}
    for each in found:
        assert each.status_code == 200 or int(each.headers["retry-after"]) >= 1


def test_a_token_is_asked_for_where_there_is_one_and_the_page_is_open(tmp_path):
    (tmp_path / "tokens.txt").write_text(f"{TOKEN}\n")
    tokens = read_tokens(tmp_path / "tokens.txt")
    with client_of(tmp_path / "models", tokens=tokens, host=EVERYWHERE) as client:
        for headers in ({}, {"authorization": "Bearer no"}, {"authorization": TOKEN}, {"authorization": "Bearer é"}):
            sent = {name: value.encode() for name, value in headers.items()}
            for path in ("/v1/models", "/metrics", "/openapi.json"):
                answer = client.get(path, headers=sent)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/v1/models", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/").status_code == client.get("/healthz").status_code == 200


def test_an_address_that_others_reach_needs_a_token(tmp_path):
    with pytest.raises(NLPMetaError, match="--token-file"):
        Settings(tmp_path, host=EVERYWHERE)
    Settings(tmp_path, host=EVERYWHERE, open_to_all=True)
    (tmp_path / "short").write_text("short")
    with pytest.raises(NLPMetaError, match="fewer than 16"):
        read_tokens(tmp_path / "short")


def test_other_origins_and_other_host_names_are_refused_and_headers_are_strict(client):
    assert client.get("/v1/models", headers={"origin": "https://elsewhere.example"}).status_code == 403
    assert client.get("/v1/models", headers={"host": "elsewhere.example"}).status_code == 421
    preflight = client.options(
        "/v1/models", headers={"origin": "http://x.example", "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 403 and "access-control-allow-origin" not in preflight.headers
    answer = client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/v1/models").headers["cache-control"] == "no-store"


def test_no_answer_names_a_path_of_this_machine(client, tmp_path):
    make(client)
    pages = ["/", "/docs", "/openapi.json", "/v1/models", "/v1/models/topics", "/metrics", "/page/none.js", "/nothing"]
    for page in pages:
        assert str(tmp_path) not in client.get(page).text


def test_it_says_when_it_is_ready_and_what_it_did(client):
    assert client.get("/healthz").text == "ok"
    for _ in range(100):
        if client.get("/readyz").status_code == 200:
            break
        time.sleep(0.05)
    make(client)
    client.post("/v1/models/topics/predict", json={"texts": ["ball", "rice"]})
    metrics = client.get("/metrics").text
    assert 'nlpmeta_requests_total{method="POST",route="/v1/models/{name}/predict",status="200"} 1.0' in metrics
    assert "nlpmeta_texts_total 2.0" in metrics


def test_requests_that_wait_together_share_a_pass_and_a_huge_one_does_not_hold_up_a_small_one(client):
    make(client)
    served = client.app.state.service.models.get("topics")
    passes, begun = [], threading.Event()

    def on_pass(n_requests, n_texts, seconds):
        passes.append((n_requests, n_texts))
        begun.set()

    batcher = Batcher(most_waiting=100_000, on_pass=on_pass)
    huge = batcher.submit(served, [f"ball goal rice {i}" for i in range(4000)])
    begun.wait(10)
    small = [batcher.submit(served, ["soup bread"]) for _ in range(8)]
    for each in small:
        assert len(each.future.result(timeout=60)) == 1
    assert not huge.future.done()
    huge.future.cancel()
    batcher.close()
    assert max(n for n, _ in passes) >= 8
    assert sum(n for _, n in passes) < 4000


def test_a_pass_is_larger_where_many_requests_wait_for_it(client):
    make(client)
    served = client.app.state.service.models.get("topics")
    passes, texts = [], ["ball goal " * 12, "soup bread " * 12]
    most = served.embedder.pass_tokens // served.embedder.tokens(texts[0])
    batcher = Batcher(most_waiting=100_000, on_pass=lambda n_requests, n_texts, seconds: passes.append(n_texts))
    waiting = [batcher.submit(served, texts * most) for _ in range(64)]
    for each in waiting:
        each.future.result(timeout=60)
    batcher.close()
    assert 3 * most < max(passes) <= 5 * most


def test_malformed_requests_get_problems_and_never_a_failure(client):
    make(client)
    statuses = set()
    for request in serve_fuzzing.requests(seed=0, n=300):
        begun = time.monotonic()
        answer = client.request(**request)
        assert not serve_fuzzing.complaint(request, answer, time.monotonic() - begun)
        statuses.add(answer.status_code)
    assert {404, 405, 415, 422} <= statuses


def test_a_body_that_does_not_arrive_is_given_up(tmp_path):
    learner = learners["auto"](make_encoder()).eval()
    with served(tmp_path, learner, limits=Limits(body_seconds=0.3)) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            start = f"POST /v1/classify HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{start}Content-Length: 100\r\n\r\n{{".encode())
            assert b"408" in connection.recv(4096).partition(b"\r\n")[0]


def test_a_client_that_goes_away_costs_no_further_pass(tmp_path):
    learner = learners["auto"](make_encoder()).eval()
    with served(tmp_path, learner) as (url, app):
        service = app.state.service
        service.models.create("topics", TOPICS, [])
        host, port = url.removeprefix("http://").split(":")
        body = json.dumps({"texts": [f"ball goal {i}" for i in range(2000)]}).encode()
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            start = (
                f"POST /v1/models/topics/predict HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            )
            connection.sendall(f"{start}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            while not service.batcher.n_waiting:
                time.sleep(0.002)
        for _ in range(500):
            if not service.batcher.n_waiting:
                break
            time.sleep(0.01)
        assert not service.batcher.n_waiting
        answered = [each for each in app_metrics(app) if each.startswith("nlpmeta_texts_total")]
        assert float(answered[0].split()[1]) < 2000


def app_metrics(app):
    with TestClientWithoutLifespan(app) as client:
        return client.get("/metrics").text.splitlines()


class TestClientWithoutLifespan(TestClient):
    """Asks a running application, which another server started."""

    __test__ = False

    def __init__(self, app):
        super().__init__(app, base_url="http://127.0.0.1")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_heads_of_users_are_asked_as_the_model_users(tmp_path):
    learner = learners["logistic"](make_encoder()).eval()
    store = AdapterStore(tmp_path / "users.sqlite", learner)
    store.adapt("ann", ["ball goal", "rice soup"], ["play", "eat"])
    store.adapt("bob", ["bank loan", "rice soup"], ["money", "food"])
    with client_of(tmp_path / "models") as client:
        service = client.app.state.service
        service.users = UsersHeads(store, service.models.embedder_of(learner.encoder))
        for user in ("ann", "bob"):
            body = {"texts": ["soup", "loan ball"], "user": user, "top": 2}
            answers = client.post("/v1/models/users/predict", json=body).json()["answers"]
            expected = store.predict_proba([user] * 2, body["texts"])
            assert [each["label"] for each in answers] == [each.label for each in expected]
        unknown = client.post("/v1/models/users/predict", json={"texts": ["a"], "user": "eve"})
        assert unknown.status_code == 404 and "ann" not in unknown.text


def test_a_full_disk_is_one_answer_and_what_comes_after_it_is_taught(client, caplog):
    make(client)
    teach(client, PAIRS[:2])
    store = client.app.state.service.models.store
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then finds its disk full
    many = [{"text": f"ball goal {'match ' * 300}{number}", "label": "sport"} for number in range(200)]
    full = client.post("/v1/models/topics/examples", json={"examples": many})
    assert full.status_code == 500 and full.json()["detail"].startswith("The work failed here")
    assert "could not be written, and is as it was: database or disk is full" in caplog.text
    assert len(store.known("topics").examples) == 2
    assert client.post("/v1/models/topics/predict", json={"texts": ["ball"]}).status_code == 200
    store._connection.execute("PRAGMA max_page_count = 1000000")
    assert len(teach(client, PAIRS[2:4])["added"]) == 2
    assert len(store.known("topics").examples) == 4


def test_a_file_of_users_that_is_not_there_is_refused_and_none_is_made(tmp_path):
    with pytest.raises(NLPMetaError, match=r"There is no file .*nobodys\.sqlite"):
        Settings(tmp_path / "models", users=tmp_path / "nobodys.sqlite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_started_server_says_where_it_is_drains_and_ends_at_a_signal(tmp_path, encoder_folder):
    with serving_process(tmp_path, encoder_folder) as (process, url):
        with httpx.Client(base_url=url, timeout=60) as client:
            assert client.get("/healthz").text == "ok"
            make(client)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        busy = subprocess.run(
            [sys.executable, "-m", "nlpmeta", "serve", "--models", tmp_path, "--host", "192.0.2.1", "--no-auth"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert busy.returncode == 1 and "192.0.2.1" in busy.stderr and "Traceback" not in busy.stderr


@pytest.mark.slow
def test_no_confirmed_example_is_lost_when_the_server_is_killed(tmp_path, encoder_folder):
    confirmed, draw = {}, random.Random(0)
    for _ in range(3):
        with (
            serving_process(tmp_path, encoder_folder) as (process, url),
            httpx.Client(base_url=url, timeout=60) as client,
        ):
            if not confirmed:
                make(client)
            threading.Timer(draw.uniform(0.2, 2), process.kill).start()
            try:
                while True:
                    text, label = f"ball {len(confirmed)} {draw.random()}", draw.choice(list(TOPICS))
                    teach(client, [(text, label)])
                    confirmed[text] = label
            except httpx.TransportError:
                pass
    with client_of(tmp_path) as client:
        kept = {each["text"]: each["label"] for each in settled(client)["examples"]}
    assert confirmed and confirmed.items() <= kept.items()


@pytest.mark.slow
def test_a_compiled_model_and_names_alone_are_served_without_torch_until_something_is_taught(tmp_path, monkeypatch):
    monkeypatch.setenv("NLPMETA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "encoder").mkdir()
    encoder = TextEncoder.from_pretrained(str(save_encoder(tmp_path / "encoder")), max_length=32)
    save_checkpoint(PrototypicalNetwork(encoder, metric="cosine", names=True), tmp_path / "start", {})
    learner = starting_learner("auto", checkpoint=str(tmp_path / "start"), device="cpu")
    compile_names(learner, tmp_path / "start", "onnx")
    texts, labels = ["ball goal", "match team", "rice soup", "bread salt"], ["sport", "sport", "food", "food"]
    model = FewShotClassifier(learner).fit(texts, labels)
    model.save_pretrained(tmp_path / "models" / "saved", include_support=True)
    compile_model(model, "onnx", tmp_path / "models" / "saved")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    light, names, taught = map(json.loads, done.stdout.splitlines())
    ours = {each["label"]: each["probability"] for each in light["answers"][0]["top"]}
    theirs = dict(zip(model.classes_.tolist(), model.predict_proba(["ball team"])[0].tolist(), strict=True))
    assert ours == pytest.approx(theirs, abs=1e-5)
    by_name = FewShotClassifier.from_names(["sport", "food"], checkpoint=str(tmp_path / "start"))
    assert names["answers"][0]["probability"] == pytest.approx(by_name.predict_proba(["ball team"]).max(), abs=1e-5)
    assert taught["answers"][0]["label"] == "trade"


WITHOUT_TORCH = """
import sys
from pathlib import Path
from starlette.testclient import TestClient
from nlpmeta.serve import Settings, create_app

folder = Path(sys.argv[1])
settings = Settings(folder / "models", checkpoint=str(folder / "start"), device="cpu")
with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:
    while client.get("/readyz").status_code != 200:
        pass
    print(client.post("/v1/models/saved/predict", json={"texts": ["ball team"], "top": 2}).text)
    print(client.post("/v1/classify", json={"texts": ["ball team"], "labels": ["sport", "food"]}).text)
    assert not {"torch", "transformers", "sklearn"} & set(sys.modules)
    examples = [{"text": "bank loan", "label": "trade"}, {"text": "bank cash", "label": "trade"}]
    answer = client.post("/v1/models/saved/examples", json={"examples": examples})
    assert answer.status_code < 300, answer.text
    while client.get("/v1/models/saved").json()["learning"]:
        pass
    print(client.post("/v1/models/saved/predict", json={"texts": ["bank loan"]}).text)
"""
