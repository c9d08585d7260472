"""Mutated files for every loader, each a pure function of its number; used by a test and by ``benchmarks``."""

import copy
import json
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlite_fuzzing import embeddings_flipped, users_flipped, write_embeddings, write_users

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.encoder.files import Pooling
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.sources.file import FileSource
from nlpmeta.storage.files import sha256

SECONDS = 20  # for one file; the slowest real one takes a fraction of a second
ROOM = 2 << 30  # bytes of address space beyond what the process has at the start
VALUES = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, 1e308, float("nan"), float("inf")),
    *("", "a", "\x1b[31m", "\x00", "../../etc/passwd", "/etc/passwd", "a" * 5000, "\ud800", "(a+)+$", ".*"),
    *([], {}, [[]], ["a"], {"a": 1}, [0] * 1000),
)
BYTES = (
    b"\x00",
    b"\xff",
    b'"',
    b",",
    b"\n",
    b"\r",
    b"{",
    b"}",
    b"[",
    b"\\",
    b"\x1b[2J",
    b"\xef\xbb\xbf",
    b"\xc3",
    b"\x80",
)
TABLES = {
    ".csv": b'text,label,lang\n"hello, you",greet,en\nhabari,greet,sw\n"a ""b"" c",leave,en\nkwaheri,leave,sw\n',
    ".tsv": b"text\tlabel\nhello you\tgreet\nkwaheri\tleave\nbye\tleave\n",
    ".jsonl": b'{"text": "hello", "label": "greet"}\n{"text": "kwaheri", "label": 3}\n{"text": "bye", "label": 4.0}\n',
}


@dataclass(frozen=True)
class Ground:
    """Whole files to be mutated, and an encoder that they go with."""

    folder: Path
    encoder: TextEncoder


class Slow(BaseException):
    """A loader did not come back in time."""


def prepare(folder: Path, encoder_folder: Path) -> Ground:
    """Models of two kinds, an encoder and tables below ``folder``."""
    texts, labels = ["ball goal", "match team", "rice soup", "bread salt"], ["sport", "sport", "food", "food"]
    plain = TextEncoder.from_pretrained(str(encoder_folder), max_length=32)
    adapted = TextEncoder.from_pretrained(str(encoder_folder), max_length=32)
    add_adapter(adapted, AdapterSettings(rank=4), seed=0)
    for weight in adapter_weights(adapted).values():
        weight.data += 0.01
    report = {"data": "starter", "accuracy": {"mean": 0.5, "ci95": 0.1}, "n_shot": 2, "task": {"shots": 2}}
    learners = {"adapted": PrototypicalNetwork(adapted, metric="cosine"), "ridge": None}
    for name, learner in learners.items():
        classifier = FewShotClassifier(learner or "ridge", encoder=plain).fit(texts, labels)
        classifier.save_pretrained(folder / name, report=report, include_support=True)
    shutil.copytree(encoder_folder, folder / "encoder")
    write_users(folder / "rows.sqlite")
    write_embeddings(folder / "embeddings.sqlite")
    return Ground(folder, plain)


def cases(ground: Ground) -> dict[str, Callable[[int, Path], None]]:
    """For each kind of file: mutate number ``i`` of it below a folder and load it."""
    return {
        "model folder": lambda i, to: _model(ground, "ridge", i, to),
        "model folder with adapters": lambda i, to: _model(ground, "adapted", i, to),
        "table": lambda i, to: _table(i, to),
        "encoder folder": lambda i, to: _encoder(ground, i, to),
        "users, flipped": lambda i, to: users_flipped(ground.folder / "rows.sqlite", i, to),
        "embeddings, flipped": lambda i, to: embeddings_flipped(ground.folder / "embeddings.sqlite", i, to),
    }


@contextmanager
def encoders_from(ground: Ground) -> Iterator[None]:
    """Loading a model takes a copy of the encoder in memory: its folder is fuzzed by itself."""
    import nlpmeta.learners.checkpoint as checkpoint

    before = checkpoint.own_encoder, checkpoint.shared_encoder

    def given(
        name: str,
        *,
        max_length: int,
        prefix: str,
        normalise: bool,
        revision: str | None,
        device: str = "auto",
        window: int | None = None,
        pooling: Pooling = "mean",
    ) -> TextEncoder:
        reads = {"max_length": max_length, "window": window, "pooling": pooling}
        asked = {"prefix": prefix, "normalise": normalise, **reads}
        if name != ground.encoder.files.name:
            return before[0](name, revision=revision, **asked)
        made = copy.deepcopy(ground.encoder)
        return TextEncoder(made.backbone, made.tokenizer, files=made.files, **asked)

    checkpoint.own_encoder = checkpoint.shared_encoder = given
    try:
        yield
    finally:
        checkpoint.own_encoder, checkpoint.shared_encoder = before


@contextmanager
def bounded() -> Iterator[None]:
    """A limit on memory, as an error and not as a killed process."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def outcome(load: Callable[[int, Path], None], number: int, folder: Path) -> str:
    """``loaded``, ``refused``, or what went wrong with a mutated file."""

    def too_slow(*_: object) -> None:
        raise Slow

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(SECONDS)
    try:
        load(number, folder)
    except NLPMetaError as error:
        return "refused" if "\n" not in str(error) else f"an error of several lines: {error!r}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.alarm(0)
    return "loaded"


def _model(ground: Ground, name: str, number: int, to: Path) -> None:
    random_ = random.Random(f"{name} {number}")
    folder = to / "model"
    shutil.copytree(ground.folder / name, folder)
    victim = random_.choice(sorted(folder.iterdir()))
    _mutate(victim, random_)
    _sign(folder, victim, random_)
    with encoders_from(ground):
        classifier = FewShotClassifier.from_pretrained(folder)
    classifier.predict(["ball goal"])


def _sign(folder: Path, victim: Path, random_: random.Random) -> None:
    """Put the checksum of what was changed into the manifest, most of the time: a stranger would."""
    manifest = folder / "nlpmeta.json"
    if victim != manifest and random_.random() < 0.95:
        facts = json.loads(manifest.read_text())
        facts["files"] |= {victim.name: sha256(victim)} if victim.is_file() else {}
        manifest.write_text(json.dumps(facts))


def _table(number: int, to: Path) -> None:
    random_ = random.Random(f"table {number}")
    suffix = random_.choice(sorted(TABLES))
    path = to / f"table{suffix}"
    path.write_bytes(TABLES[suffix])
    _mutate(path, random_)
    FileSource(path).load()


def _encoder(ground: Ground, number: int, to: Path) -> None:
    random_ = random.Random(f"encoder {number}")
    folder = to / "encoder"
    shutil.copytree(ground.folder / "encoder", folder)
    _mutate(random_.choice(sorted(folder.iterdir())), random_)
    TextEncoder.from_pretrained(str(folder), max_length=32).encode(["ball goal"])


def _mutate(path: Path, random_: random.Random) -> None:
    kind = random_.random()
    if path.suffix == ".json" and kind < 0.6:
        mutate_json(path, random_)
    elif path.suffix == ".safetensors" and kind < 0.5:
        _mutate_header(path, random_)
    elif kind < 0.97:
        _mutate_bytes(path, random_)
    else:
        path.unlink()
        if random_.random() < 0.5:
            path.symlink_to(random_.choice(["/etc/passwd", path.name, "..", "nowhere"]))


def mutate_json(path: Path, random_: random.Random) -> None:
    """Put an odd value in the place of one that is there, or under a key that was not."""
    value = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(random_.randint(1, 2)):
        places = list(_places(value)) or [({}, "nothing")]
        parent, key = random_.choice(places)
        odd = copy.deepcopy(random_.choice(VALUES))
        if random_.random() < 0.2 and isinstance(parent, dict):
            parent[random_.choice(["megatron_core", "rank_pattern", "auto_map", "extra"])] = odd
        elif random_.random() < 0.2:
            parent.pop(key, None) if isinstance(parent, dict) else parent.pop(key)
        else:
            parent[key] = odd
    path.write_text(json.dumps(value), encoding="utf-8")


def _mutate_header(path: Path, random_: random.Random) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    parent, key = random_.choice(list(_places(header)))
    parent[key] = copy.deepcopy(random_.choice(VALUES))
    new = json.dumps(header).encode()
    claimed = random_.choice([len(new)] * 8 + [0, 2**62, 2**31, len(new) + 1])
    path.write_bytes(claimed.to_bytes(8, "little") + new + content[8 + length :])


def _mutate_bytes(path: Path, random_: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(random_.randint(1, 4)):
        at = random_.randint(0, len(content))
        match random_.randint(0, 5):
            case 0:
                del content[at:]
            case 1:
                content[at:at] = random_.choice(BYTES) * random_.choice([1, 1, 1, 200_000])
            case 2 if content:
                content[at % len(content)] = random_.randrange(256)
            case 3:
                del content[at : at + random_.randint(1, 50)]
            case 4:
                content[at:at] = random_.randbytes(random_.randint(1, 50))
            case 5:
                content[at:at] = content[random_.randint(0, len(content)) :][:200]
    path.write_bytes(bytes(content))


def _places(value: object) -> Iterator[tuple[object, object]]:
    """Every (container, key) below ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _places(item)
