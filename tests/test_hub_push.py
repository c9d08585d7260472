"""Pushing and loading through a server that speaks the Hub's interface, by the real client."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hub_fixture import ENCODER, REPORT
from hub_server import TOKEN, Fault

from nlpmeta import FewShotClassifier, load_source
from nlpmeta.cli import main
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import ModelFolderError, NetworkError, NLPMetaError
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.sharing import Sharing, find_model, owned_target, push_model
from nlpmeta.sources.catalogue import catalogue
from nlpmeta.storage import hub_push as push
from nlpmeta.storage.hub_push import Target, push_folder

# The client's own upload of large files uses an argument that the HTTP library would rather have by another name.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
NAME = "user/topics"
QUERIES = ["ball rice", "loan goal", "bread cash", "team"]


@pytest.fixture(scope="module")
def made(encoder_folder, pool):
    """Adapters away from their start, or a push that lost them would go unnoticed."""
    import torch

    encoder = TextEncoder.from_pretrained(str(encoder_folder), max_length=32)
    encoder.files = replace(encoder.files, name=ENCODER)  # the same files, under the name that the server has for them
    add_adapter(encoder, AdapterSettings(rank=4), seed=0)
    generator = torch.Generator().manual_seed(1)
    for weight in adapter_weights(encoder).values():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    encoder.trained = {"sets": ["clinc150", "massive"], "leave_out_langs": ["sw"], "steps": 3}
    learner = PrototypicalNetwork(encoder, metric="cosine", temperature=0.1)
    return FewShotClassifier(learner).fit(pool.texts[::4], [pool.label_names[label] for label in pool.labels[::4]])


@pytest.fixture
def classifier(made):
    return copy.copy(made)


@pytest.fixture
def folder(classifier, tmp_path):
    classifier.save_pretrained(tmp_path / "model", report=REPORT, include_support=True)
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    monkeypatch.setattr(push, "FIRST_WAIT", 0.01)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


def to(name=NAME, *, private=None, revision=None, pr=False):
    return owned_target(name, private=private, revision=revision, as_pull_request=pr)


def commits(hub, name=NAME):
    return len(hub.repositories[name].log) - 1  # the Hub itself makes the first one


def remote(hub, name=NAME, ref="main"):
    repository = hub.repositories[name]
    return repository.trees[repository.refs[ref]]


def test_what_was_pushed_predicts_the_same_to_the_last_bit(classifier, hub):
    classifier.push_to_hub(NAME)
    loaded = FewShotClassifier.from_pretrained(NAME)
    assert np.array_equal(loaded.predict_proba(QUERIES), classifier.predict_proba(QUERIES))
    assert loaded.classes_.tolist() == classifier.classes_.tolist()
    assert hub.repositories[NAME].private


def test_a_push_is_one_commit_of_plain_files_and_a_card(folder, hub):
    pushed = push_model(folder, to(), Sharing(licence="apache-2.0"))
    assert pushed.created and pushed.private and commits(hub) == 1
    assert set(remote(hub)) == {
        ".eval_results/nlpmeta.yaml",
        ".gitattributes",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "curve.png",
        "labels.json",
        "learner.safetensors",
        "nlpmeta.json",
        "provenance.json",
        "report.json",
        "task.safetensors",
    } - ({".eval_results/nlpmeta.yaml"} if REPORT["data"] == "starter" else set())


def test_the_examples_and_paths_of_this_machine_stay_here_unless_the_examples_are_asked_for(folder, hub, pool):
    push_model(folder, to(), Sharing())
    everything = b"\n".join(remote(hub).values())
    assert b"/home/somebody" not in everything and b"mine.csv" not in everything
    assert not any(text.encode() in everything for text in [*pool.texts, "secret"])
    assert FewShotClassifier.from_pretrained(NAME).examples_ is None
    push_model(folder, to(), Sharing(include_support=True))
    assert pool.texts[0].encode() in remote(hub)["support.json"]
    with pytest.raises(NLPMetaError, match="cannot be changed"):
        FewShotClassifier.from_pretrained(NAME, revision=hub.repositories[NAME].log[1][0]).remove_class("food")
    FewShotClassifier.from_pretrained(NAME).remove_class("food")


def test_pushing_again_changes_nothing_and_a_changed_model_removes_what_it_no_longer_has(folder, hub, classifier):
    push_model(folder, to(), Sharing(include_support=True))
    hub.repositories[NAME].trees[hub.repositories[NAME].refs["main"]]["notes.txt"] = b"mine"
    again = push_model(folder, to(), Sharing(include_support=True))
    assert (again.changed, again.deleted, commits(hub)) == ((), (), 1)
    without = push_model(folder, to(), Sharing())
    assert without.deleted == ("support.json", "support.safetensors") and commits(hub) == 2
    assert remote(hub)["notes.txt"] == b"mine"
    assert "support.json" not in remote(hub)


def test_a_branch_is_made_and_loaded_by_its_name_and_by_its_commit(folder, hub, classifier):
    push_model(folder, to(), Sharing())
    classifier.remove_class("food").save_pretrained(folder, overwrite=True, report=REPORT)
    pushed = push_model(folder, to(revision="two"), Sharing())
    assert len(FewShotClassifier.from_pretrained(NAME).classes_) == 3
    assert len(FewShotClassifier.from_pretrained(NAME, revision="two").classes_) == 2
    assert len(FewShotClassifier.from_pretrained(NAME, revision=pushed.commit).classes_) == 2
    with pytest.raises(NLPMetaError, match="no revision 'three'"):
        FewShotClassifier.from_pretrained(NAME, revision="three")


def test_a_pull_request_leaves_main_and_is_opened_once(folder, hub):
    push_model(folder, to(), Sharing())
    before = dict(remote(hub))
    first = push_model(folder, to(pr=True), Sharing(licence="mit"))
    second = push_model(folder, to(pr=True), Sharing(licence="mit"))
    assert first.pull_request == second.pull_request == f"{hub.url}/{NAME}/discussions/1"
    assert remote(hub) == before
    assert b"license: mit" in remote(hub, ref="refs/pr/1")["README.md"]
    assert len(hub.repositories[NAME].requests) == 1
    with pytest.raises(NLPMetaError, match="goes to main"):
        to(revision="two", pr=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST .*/repos/create", status=503),
        Fault("POST .*/preupload", status=429),
        Fault("POST .*/preupload", cut=True),
        Fault("POST .*objects/batch", status=500),
        Fault("PUT /large", cut=True),
        Fault("PUT /large", status=503),
        Fault("POST /verify", status=502),
        Fault("POST .*/commit/", status=503),
        Fault("POST .*/commit/", status=409),
        Fault("POST .*/commit/", cut=True),
        Fault("POST .*/commit/", late=True),
        Fault("GET .*/tree/", status=504),
        Fault(".", slow=0.2, times=3),
    ],
    ids=lambda fault: f"{fault.where} {fault.status or (fault.cut and 'cut') or (fault.late and 'late') or 'slow'}",
)
def test_a_failure_that_passes_is_tried_again_and_makes_one_commit(folder, hub, fault):
    hub.faults.append(fault)
    push_model(folder, to(), Sharing())
    assert fault.times == 0 and commits(hub) == 1
    assert FewShotClassifier.from_pretrained(NAME).predict(["ball"]).tolist()


def test_a_pull_request_whose_answer_was_lost_is_not_opened_twice(folder, hub):
    push_model(folder, to(), Sharing())
    hub.faults.append(Fault("POST .*/commit/.*create_pr", late=True))
    pushed = push_model(folder, to(pr=True), Sharing(licence="mit"))
    assert pushed.pull_request.endswith("/discussions/1") and len(hub.repositories[NAME].requests) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("POST .*/preupload", {"cut": True}),
        ("PUT /large", {"cut": True}),
        ("POST .*/commit/", {"cut": True}),
        ("POST .*/commit/", {"status": 500}),
    ],
)
def test_a_push_that_is_cut_in_the_middle_leaves_the_remote_as_it_was(folder, hub, where, kind, classifier):
    push_model(folder, to(), Sharing())
    before = remote(hub)
    classifier.remove_class("food").save_pretrained(folder, overwrite=True, report=REPORT)
    hub.faults.append(Fault(where, times=10**6, **kind))
    with pytest.raises(NetworkError) as caught:
        push_model(folder, to(), Sharing())
    assert "\n" not in str(caught.value) and remote(hub) == before
    hub.faults.clear()
    push_model(folder, to(), Sharing())
    assert len(FewShotClassifier.from_pretrained(NAME).classes_) == 2


def test_a_commit_of_somebody_else_in_between_is_not_lost_and_not_mixed_in(folder, hub):
    push_model(folder, to(), Sharing())

    def somebody_else():
        hub.repositories[NAME].commit("main", {**remote(hub), "notes.txt": b"theirs"}, "theirs")

    hub.faults.append(Fault("POST .*/commit/", before=somebody_else))
    push_model(folder, to(), Sharing(licence="mit"))
    assert remote(hub)["notes.txt"] == b"theirs" and b"license: mit" in remote(hub)["README.md"]


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "hf auth login"), (403, "right to write"), (404, "answered 404"), (412, "somebody else changed")],
)
def test_what_does_not_pass_is_said_in_one_line_without_the_token(folder, hub, status, message):
    hub.faults.append(Fault("POST .*/commit/", times=10, status=status))
    with pytest.raises(NLPMetaError, match=message) as caught:
        push_model(folder, to(), Sharing())
    assert "\n" not in str(caught.value) and TOKEN not in str(caught.value)


def test_a_namespace_of_somebody_else_is_refused(folder, hub):
    with pytest.raises(NetworkError, match="answered 403"):
        push_model(folder, to("stranger/topics"), Sharing())


def test_a_wrong_token_and_no_token_are_said_and_never_shown(folder, hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "wrongOfTheTests" * 2)
    assert main(["push", str(folder), NAME]) == 1
    monkeypatch.delenv("HF_TOKEN")
    assert main(["push", str(folder), NAME]) == 2
    written = capsys.readouterr()
    assert "hf auth login" in written.err and "wrongOfTheTests" not in written.err + written.out
    assert len([line for line in written.err.splitlines() if not line.startswith("Note: ")]) == 2


def test_the_token_is_in_no_file_and_a_model_that_holds_one_is_not_pushed(folder, hub, classifier):
    push_model(folder, to(), Sharing())
    assert TOKEN.encode() not in b"\n".join(remote(hub).values())
    classifier.save_pretrained(folder, overwrite=True, report={**REPORT, "scored_on": "hf_" + "x" * 34})
    with pytest.raises(NLPMetaError, match="looks like a token"):
        push_model(folder, to("user/other"), Sharing())
    assert "user/other" not in hub.repositories


def test_a_public_repository_does_not_get_what_was_to_be_private(folder, hub):
    assert not push_model(folder, to(private=False), Sharing()).private
    with pytest.raises(NLPMetaError, match="exists and is public"):
        push_model(folder, to(private=True), Sharing(licence="mit"))
    assert commits(hub) == 1


def test_a_dry_run_asks_nobody_and_lists_files_and_sizes(folder, hub, capsys):
    seen = len(hub.seen)
    assert main(["push", str(folder), NAME, "--dry-run", "--json"]) == 0
    files = {file["name"]: file["bytes"] for file in json.loads(capsys.readouterr().out)["files"]}
    assert len(hub.seen) == seen and NAME not in hub.repositories
    assert main(["push", str(folder), NAME]) == 0
    assert files == {name: len(data) for name, data in remote(hub).items() if name != ".gitattributes"}


def test_a_dry_run_shows_the_card_that_would_be_pushed_and_nothing_of_this_machine(folder, hub, capsys, tmp_path):
    assert main(["push", str(folder), NAME, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert main(["push", str(folder), NAME]) == 0
    card = remote(hub)["README.md"].decode()
    assert card.rstrip() in shown and "nothing was sent" in shown
    assert str(folder) not in card and str(tmp_path) not in card


def test_the_card_shows_a_text_to_try_where_everybody_may_read_it(classifier, tmp_path):
    from nlpmeta.sharing.card import card
    from nlpmeta.sharing.gather import gather

    def shown(report, **options):
        target = tmp_path / str(len(list(tmp_path.iterdir())))
        classifier.save_pretrained(target, report=report, include_support=True)
        return card(gather(target, **options), "user/name")

    support = classifier.examples_.texts[0]
    assert f'nlpmeta predict user/name "{support}"' in shown({"data": "mine.csv"}, include_support=True)
    assert f'classifier.predict(["{support}"])' in shown({"data": "mine.csv"}, include_support=True)
    private = shown({"data": "mine.csv"})
    assert support not in private and 'nlpmeta predict user/name "..."' in private
    first = load_source("starter").load("sw").texts[0]
    assert f'nlpmeta predict user/name "{first}"' in shown({"data": "starter", "lang": "sw"})


def test_the_command_says_what_it_did_and_predict_and_info_take_the_name(folder, hub, capsys):
    assert main(["push", str(folder), NAME, "--licence", "mit", "--lang", "Swahili"]) == 0
    said = capsys.readouterr().out
    assert f"{hub.url}/{NAME} (new, private)" in said and "files in one commit" in said
    assert main(["push", str(folder), NAME, "--licence", "mit", "--lang", "Swahili"]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert main(["predict", NAME, "ball goal", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == "sport"
    assert main(["info", NAME]) == 0
    assert "prototypical" in capsys.readouterr().out


def test_a_model_on_an_encoder_that_nobody_else_has_is_not_pushed(encoder_folder, hub, pool, tmp_path):
    local = FewShotClassifier("ridge", encoder=str(encoder_folder)).fit(pool.texts[:20], pool.names()[:20])
    with pytest.raises(NLPMetaError, match="which others do not have"):
        local.push_to_hub(NAME)
    assert NAME not in hub.repositories


def test_without_the_network_what_is_in_the_cache_still_loads(folder, hub, classifier, monkeypatch, tmp_path):
    from huggingface_hub import constants

    push_model(folder, to(), Sharing())
    FewShotClassifier.from_pretrained(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    seen = len(hub.seen)
    loaded = FewShotClassifier.from_pretrained(NAME)
    assert np.array_equal(loaded.predict_proba(QUERIES), classifier.predict_proba(QUERIES))
    assert len(hub.seen) == seen
    with pytest.raises(NetworkError, match="is not on this machine"):
        FewShotClassifier.from_pretrained("user/never-seen")
    with pytest.raises(NetworkError, match="HF_HUB_OFFLINE forbids"):
        push_model(folder, to(), Sharing())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert FewShotClassifier.from_pretrained(NAME).predict(["ball"]).tolist() == ["sport"]
    with pytest.raises(NetworkError, match="could not be sent to"):
        push_model(folder, to(), Sharing())


def test_pickles_and_programs_of_a_repository_are_not_even_downloaded(folder, hub, tmp_path):
    from huggingface_hub import constants

    push_model(folder, to(), Sharing())
    tree = remote(hub)
    tree |= {
        "pytorch_model.bin": b"\x80\x04.",
        "modeling.py": b"raise SystemExit",
        "a/b.json": b"{}",
        "x.json.pkl": b"x",
    }
    FewShotClassifier.from_pretrained(NAME)
    names = {path.name for path in Path(constants.HF_HUB_CACHE).rglob("snapshots/*/*")}
    assert names and not names & {"pytorch_model.bin", "modeling.py", "b.json", "a", "x.json.pkl"}


def test_a_repository_of_another_library_and_a_giant_one_are_refused(hub):
    hub.add("user/other", {"model.onnx": b"1"})
    with pytest.raises(ModelFolderError, match="no file of a model of nlpmeta"):
        FewShotClassifier.from_pretrained("user/other")
    with pytest.raises(ModelFolderError, match=r"no nlpmeta\.json"):
        FewShotClassifier.from_pretrained(ENCODER)


def test_names_that_cannot_be_are_refused_before_anything_is_asked(hub, folder):
    for name in ("topics", "a/b/c", "user/..", "user/a b"):
        with pytest.raises(NLPMetaError):
            Target(name)
    assert not any("create" in line for line in hub.seen)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks transformers for it
def test_plain_peft_and_plain_transformers_load_their_parts(folder, hub, classifier):
    import torch
    from peft import PeftModel
    from transformers import AutoModel, AutoTokenizer

    push_model(folder, to(), Sharing())
    tokenizer = AutoTokenizer.from_pretrained(ENCODER)
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(ENCODER, add_pooling_layer=False), find_model(NAME))
    batch = tokenizer(QUERIES, return_tensors="pt", padding=True)
    with torch.no_grad():
        hidden = model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(2)
    theirs = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    torch.testing.assert_close(theirs, classifier.learner_.encoder.encode(QUERIES), atol=1e-5, rtol=1e-5)


def test_the_card_passes_the_validation_of_the_hub_library_and_says_what_was_measured(folder, hub):
    from huggingface_hub import ModelCard

    push_model(folder, to(), Sharing(licence="apache-2.0"))
    card = ModelCard.load(NAME)
    card.validate()  # posts it to the server, which refuses what the Hub refuses
    data = card.data.to_dict()
    assert (data["library_name"], data["base_model"], data["language"]) == ("nlpmeta", ENCODER, ["sw"])
    assert (data["pipeline_tag"], data["license"]) == ("text-classification", "apache-2.0")
    assert data["datasets"] == [catalogue()[name].hub.id for name in ("clinc150", "massive")]
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == {"accuracy": 0.788, "f1": 0.79}
    for said in ("78.8 ± 2.1", "60.5 ± 2.5", "4.2 points apart", "food → money (12)", "curve.png", "sw", "12 texts"):
        assert said in card.text, said
    assert "languages other than sw" in card.text and "pieces a word" in card.text
    assert "| shots | 1 | 5 |\n|---|---|---|\n| accuracy, % | 50.0 ± 10.0 | 78.8 |\n" in card.text
    assert {result.metric_name for result in card.data.eval_results} == {
        "Accuracy (5 shots, 5 draws, 120 predictions, 95 % interval ± 2.1 points)",
        "Macro-F1 (5 shots, 5 draws, 120 predictions, 95 % interval ± 2.0 points)",
    }
    assert "42 to 87 % are usual" in card.text and "food and money" in card.text
    provenance = json.loads(remote(hub)["provenance.json"])
    assert [each["name"] for each in provenance["meta_trained_on"]] == [
        "CLINC150 with out-of-scope queries",
        "MASSIVE 1.1",
    ]


def test_results_on_a_data_set_of_the_hub_come_in_the_newer_form_too(classifier, hub, tmp_path):
    from huggingface_hub import parse_eval_result_entries

    classifier.save_pretrained(tmp_path / "m", report={**REPORT, "data": "massive"})
    push_model(tmp_path / "m", to(), Sharing())
    entries = parse_eval_result_entries(yaml.safe_load(remote(hub)[".eval_results/nlpmeta.yaml"]))
    assert [(entry.dataset_id, entry.value) for entry in entries] == [("mteb/amazon_massive_intent", 78.8)]


def test_a_card_without_facts_claims_nothing(classifier, hub):
    classifier.push_to_hub(NAME)
    text = remote(hub)["README.md"].decode()
    assert "Nothing was measured" in text and "model-index" not in text and "on anything" in text
    assert "license" not in text.split("---")[1]


def test_words_of_others_do_not_become_markup_on_the_card(hub, pool):
    names = {"food": "<script>alert(1)</script>", "money": "| a | **b** | {{ 7*7 }}", "sport": "\x1b[31mred\nline"}
    encoder = TextEncoder.from_pretrained(ENCODER, max_length=32)
    labels = [names[name] for name in pool.names()]
    FewShotClassifier("ridge", encoder=encoder).fit(pool.texts, labels).push_to_hub(NAME)
    text = remote(hub)["README.md"].decode()
    assert "<script>" not in text and "\x1b" not in text and "49" not in text
    assert r"\<script\>alert(1)" in text and r"\\x1b\[31mred\\nline" in text


def test_a_folder_at_any_depth_is_pushed_as_it_is(hub, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.txt").write_text("deep")
    (tmp_path / "large.bin").write_bytes(bytes(range(256)) * 40)
    push_folder(tmp_path, Target(NAME, private=False), message="any files")
    assert remote(hub)["a/b/c.txt"] == b"deep" and remote(hub)["large.bin"] == bytes(range(256)) * 40


def test_a_disk_that_is_full_is_said_and_nothing_is_pushed(folder, hub, monkeypatch):
    """As on a small file system: the copy of the files for the push does not fit."""
    import errno
    import shutil

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    target = owned_target(NAME, private=None, revision=None, as_pull_request=False)
    with pytest.raises(NLPMetaError, match="the disk is full"):
        push_model(folder, target, Sharing())
    assert NAME not in hub.repositories


def test_a_push_writes_no_progress_into_a_log(folder, hub, capfd):
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars

    enable_progress_bars()  # as they are outside the tests
    target = owned_target(NAME, private=None, revision=None, as_pull_request=False)
    push_model(folder, target, Sharing())
    assert capfd.readouterr() == ("", "")
    assert not are_progress_bars_disabled()
