"""Answers that no Hub gives: a page to log in to, a list, nothing, a tower of brackets, or the token sent back."""

import logging
import traceback

import pytest
from hub_fixture import ENCODER
from hub_server import TOKEN, Fault

from nlpmeta import FewShotClassifier
from nlpmeta.cli import main
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import NetworkError, NLPMetaError
from nlpmeta.sources.hub import HubSource
from nlpmeta.storage import hub_push as push
from nlpmeta.storage.hub import HIDDEN, no_tokens_told, without_tokens
from nlpmeta.storage.hub_push import Target, push_folder

pytestmark = pytest.mark.filterwarnings("ignore")
COMMIT = "a" * 40
FORMS = {
    "a list": [1, 2, 3],
    "a list of nothing": [None],
    "null": b"null",
    "a page": b"<!doctype html><html><body>Log in to the hotel's network</body></html>",
    "nothing": b"",
    "half": b'{"id": "user/topics", "sha": "',
    "deep": b"[" * 200_000,
    "deep groups": b'{"a":' * 200_000,
    "no text": b"\xff\xfe\x00",
    "an empty object": {},
    "a number": b"1e999",
    "a text": b'"user/topics"',
    "no commit": {"id": "user/topics", "siblings": [{"rfilename": "nlpmeta.json"}]},
    "a commit that climbs": {"id": "user/topics", "sha": "../../..", "siblings": [{"rfilename": "nlpmeta.json"}]},
    "files that are none": {"id": "user/topics", "sha": COMMIT, "siblings": [1, 2]},
    "files without names": {"id": "user/topics", "sha": COMMIT, "siblings": [{"size": 1}]},
    "names that are none": {"id": "user/topics", "sha": COMMIT, "siblings": [{"rfilename": 5, "size": 1}]},
    "sizes that are none": {"id": "x/y", "sha": COMMIT, "siblings": [{"rfilename": "a.json", "size": "big"}]},
    "files as an object": {"id": "user/topics", "sha": COMMIT, "siblings": {"rfilename": "a.json"}},
    "dates that are none": {"id": "user/topics", "sha": COMMIT, "lastModified": "yesterday", "siblings": []},
}


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    monkeypatch.setattr(push, "FIRST_WAIT", 0.0)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.json").write_text("{}")
    return tmp_path / "model"


def asked(hub, where, fault):
    hub.add("user/topics", {"nlpmeta.json": b"{}", "train.csv": b"text,label\na,b\n"})
    hub.faults.append(Fault(where, times=100, **fault))


DOORS = {
    "a model": (r"/api/models/user", lambda folder: FewShotClassifier.from_pretrained("user/topics")),
    "an encoder": (r"/api/models/", lambda folder: TextEncoder.from_pretrained("user/topics")),
    "a data set": (r"/api/datasets/", lambda folder: HubSource("user/topics").load()),
    "a push": (r"/api/models/user", lambda folder: push_folder(folder, Target("user/topics"), message="m", wait=0)),
}


@pytest.mark.parametrize("door", sorted(DOORS))
@pytest.mark.parametrize("form", sorted(FORMS))
def test_an_answer_of_a_wrong_form_is_one_sentence(hub, folder, door, form):
    where, work = DOORS[door]
    asked(hub, where, {"body": FORMS[form]})
    with pytest.raises(NLPMetaError) as caught:
        work(folder)
    said = str(caught.value)
    assert caught.value.exit_code == 1 and "\n" not in said and len(said) < 500 and "hotel" not in said


@pytest.mark.parametrize("door", sorted(DOORS))
def test_an_empty_object_after_a_redirect_is_one_sentence(hub, folder, door):
    where, work = DOORS[door]
    asked(hub, where, {"redirect": "/elsewhere"})
    with pytest.raises(NetworkError) as caught:
        work(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["create", "commit", "preupload", "tree", "POST"])
@pytest.mark.parametrize("form", ["a list", "null", "a page", "deep", "an empty object", "a text"])
def test_a_push_that_is_answered_in_a_wrong_form_is_one_sentence(hub, folder, where, form):
    hub.faults.append(Fault(where, times=100, body=FORMS[form]))
    try:
        push_folder(folder, Target("user/other"), message="m", wait=0)
    except NLPMetaError as error:
        assert error.exit_code == 1 and "\n" not in str(error)


def test_the_command_line_says_it_in_one_line(hub, capsys):
    asked(hub, "/api/models/user", {"body": FORMS["a page"]})
    assert main(["info", "user/topics"]) in (1, 2)
    assert main(["predict", "user/topics", "ball"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "Traceback" not in "".join(said)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize("door", sorted(DOORS))
def test_a_token_that_a_server_sends_back_is_told_nowhere(hub, folder, door, status, caplog, capfd):
    where, work = DOORS[door]
    asked(hub, where, {"echo": True, "status": status})
    caplog.set_level(logging.DEBUG)
    with pytest.raises(NLPMetaError) as caught:
        work(folder)
    told = "".join(traceback.format_exception(caught.value)) + caplog.text + "".join(capfd.readouterr())
    told += "".join(f"{record.msg} {record.args}" for record in caplog.records)
    assert TOKEN not in told and TOKEN[3:] not in told
    error = caught.value
    while error is not None:
        assert TOKEN not in str(error) + repr(error)
        error = error.__cause__ or error.__context__


def test_tokens_of_any_form_are_hidden(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "another-form-of-token")
    assert without_tokens("a another-form-of-token b") == f"a {HIDDEN} b"
    assert without_tokens("hf_abcdefgh12 and Bearer xyz12345678, given-by-hand", "given-by-hand") == (
        f"{HIDDEN} and Bearer {HIDDEN} {HIDDEN}"
    )
    assert without_tokens("nothing to hide") == "nothing to hide"


def test_a_log_of_the_libraries_is_cleaned_for_as_long_as_the_hub_is_asked(caplog):
    logger = logging.getLogger("huggingface_hub.utils._http")
    with no_tokens_told(), caplog.at_level(logging.DEBUG):
        logger.warning("sent %s to %s", TOKEN, {"a": TOKEN})
    assert TOKEN not in caplog.text and HIDDEN in caplog.text
    filters = list(logger.filters)
    with pytest.raises(KeyError) as caught, no_tokens_told():
        raise KeyError(f"no {TOKEN}")
    assert TOKEN not in str(caught.value) and logger.filters == filters


def test_an_encoder_is_still_found_where_the_hub_answers_as_it_should(hub):
    assert TextEncoder.from_pretrained(ENCODER).dim == 16
