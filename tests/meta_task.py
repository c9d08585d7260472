"""Tasks that a small encoder is bad at and can learn: one word of a text tells its class, three others are noise.

What must be learnt, not to listen to the noise words, is the same for every class, so it helps on classes that were
never trained on.
"""

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.lora import AdapterSettings, add_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.episodes.samplers import EpisodeSampler
from nlpmeta.learners.prototypical import PrototypicalNetwork

KEYS, NOISE = [f"key{c}" for c in "abcdefghijklmnopqrstuvwx"], [f"noise{c}" for c in "abcdefgh"]


def noisy_encoder() -> TextEncoder:
    words = ["[PAD]", "[UNK]", *KEYS, *NOISE]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    shape = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = BertModel(shape, add_pooling_layer=False)
    return TextEncoder(backbone, fast, max_length=16)


def noisy_pool(keys: list[str], seed: int = 0) -> LabeledTexts:
    """Twenty texts for each key word, every one with three noise words."""
    rng = np.random.default_rng(seed)
    texts, names = [], []
    for key in keys:
        for _ in range(20):
            words = [*rng.choice(NOISE, 3), key]
            texts.append(" ".join(words[i] for i in rng.permutation(4)))
            names.append(key)
    return LabeledTexts.from_names(texts, names)


def samplers(seed: int = 0) -> tuple[EpisodeSampler, EpisodeSampler]:
    """Training tasks on 16 classes, held-out tasks on 8 others."""
    train = EpisodeSampler([noisy_pool(KEYS[:16])], n_way=5, n_shot=1, n_query=3, seed=seed)
    return train, EpisodeSampler([noisy_pool(KEYS[16:])], n_way=5, n_shot=1, n_query=3, seed=99)


def noisy_learner(seed: int = 0, *, dropout: float = 0.0) -> PrototypicalNetwork:
    encoder = noisy_encoder()
    add_adapter(encoder, AdapterSettings(rank=4, dropout=dropout), seed=seed)
    return PrototypicalNetwork(encoder, temperature=0.1)
