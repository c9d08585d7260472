"""What a stored head depends on, in a few words that can be compared."""

import json

from nlpmeta.encoder.lora import adapter_weights, digest_of
from nlpmeta.encoder.store import state_digest
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.learners.base import Learner, learners


def facts_of(learner: Learner) -> dict[str, str]:
    """The method and its options, its own weights, and the encoder with its adapters."""
    own = ((name, tensor) for name, tensor in learner.state_dict().items() if not name.startswith("encoder."))
    return {
        "method": learners.name_of(type(learner)),
        "options": json.dumps(dict(learner.config()), sort_keys=True),
        "learner weights": digest_of(own)[:16],
        "encoder": _encoder(learner.encoder),
    }


def _encoder(encoder: TextEncoder) -> str:
    """The digest of its files and adapters; of all weights where it was built in memory (a second for a large one)."""
    if encoder.files is None:
        return state_digest(encoder)[:16]
    settings = [encoder.prefix, encoder.max_length, encoder.normalise, encoder.dim, getattr(encoder, "factors", None)]
    return f"{encoder.files.digest[:16]}-{digest_of(adapter_weights(encoder).items(), json.dumps(settings))[:16]}"
