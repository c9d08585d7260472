"""A two-layer encoder with random weights and a word tokenizer: real code paths, no download."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any import of huggingface_hub: tests never need the network
# Before any import of torch: two threads each for the tests and for the documents beside them would stop one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from nlpmeta.cli import main
from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.merged import adapted_layers
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.episodes.samplers import EpisodeSampler
from nlpmeta.storage.files import user_cache

pytest_plugins = ("hub_fixture", "documents_beside")
TOPICS = {"sport": "ball goal match team", "food": "rice soup bread salt", "money": "bank loan cash rate"}
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def scale_adapter(encoder, factor):
    """Mix the encoder between its frozen weights (0) and its adapters (1)."""
    for layer in adapted_layers(encoder.backbone).values():
        layer.set_scale("default", factor)


def make_encoder(*, dropout: float = 0.1) -> TextEncoder:
    """A small encoder, the same at every call; ``save_encoder`` writes it as a folder."""
    words = ["[PAD]", "[UNK]", *" ".join(TOPICS.values()).split()]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    shape = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = BertModel(shape, add_pooling_layer=False)
    return TextEncoder(backbone, fast, max_length=32)


def save_encoder(folder: Path) -> Path:
    """The small encoder as a Hugging Face folder."""
    encoder = make_encoder()
    encoder.backbone.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def encoder() -> TextEncoder:
    return make_encoder()


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def pool() -> LabeledTexts:
    """Three topics, sixteen texts each."""
    pairs = [(f"{a} {b}", topic) for topic, words in TOPICS.items() for a in words.split() for b in words.split()]
    return LabeledTexts.from_names([text for text, _ in pairs], [topic for _, topic in pairs])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], encoder_folder: Path) -> Callable[..., tuple[int, str, str]]:
    """A command in this process, on the small encoder where it takes one: exit code, output, errors."""

    def call(command: str, *arguments: object) -> tuple[int, str, str]:
        takes_encoder = command in ("adapt", "classify", "evaluate")
        code = main([command, *map(str, arguments), *(["--encoder", str(encoder_folder)] if takes_encoder else [])])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def write_table(path: Path, texts: Sequence[str], labels: Sequence[str]) -> Path:
    """A CSV file with the columns text and label."""
    rows = [f"{text},{label}" for text, label in zip(texts, labels, strict=True)]
    path.write_text("\n".join(["text,label", *rows, ""]), encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path: Path, pool: LabeledTexts) -> Path:
    """The three topics as a CSV file."""
    return write_table(tmp_path / "topics.csv", pool.texts, pool.names())


@pytest.fixture(scope="session")
def sampler(pool: LabeledTexts) -> EpisodeSampler:
    return EpisodeSampler([pool], n_way=3, n_shot=5, n_query=5, seed=0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The public data sets beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the public data sets at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What tests cache stays out of the user's cache; only the unpacked encoder is shared with it."""
    encoders = user_cache() / "encoders"
    encoders.mkdir(parents=True, exist_ok=True)
    cache = tmp_path_factory.mktemp("cache")
    (cache / "encoders").symlink_to(encoders)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLPMETA_CACHE", str(cache))
        yield cache
