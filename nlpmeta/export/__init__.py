"""Writes a model as a folder of ``transformers``, of sentence-transformers, or with an ONNX file, tokenizer too."""

import copy
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from nlpmeta.auto.heads import PROTOTYPE_TEMPERATURE, LabelHeads
from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.encoder.compiling import typical_tokens
from nlpmeta.encoder.files import POOLED, Pooling
from nlpmeta.encoder.graphs import Embedder, write_graph
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import DataWarning, NLPMetaError, UnknownNameError, WorkFailedError
from nlpmeta.export.head import LinearHeads, exported_heads, plain_encoders
from nlpmeta.progress import quiet_transformers
from nlpmeta.storage.files import copy_file, remove_folder, write_bytes, write_json, write_text
from nlpmeta.storage.folders import check_new_folder, new_folder
from nlpmeta.storage.manifest import EXPORT, write_manifest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from nlpmeta.export.modeling import NLPMetaForSequenceClassification

Form = Literal["transformers", "sentence-transformers", "onnx", "onnx-int8"]
TOLERANCE = 1e-4
"""What probabilities may differ by; every export is compared before it is written."""
HEAD_FILE = "head.safetensors"
_RUNTIME = ("onnx", "onnxruntime")
_NEEDS = {"sentence-transformers": ("sentence_transformers",), "onnx": _RUNTIME, "onnx-int8": _RUNTIME}
_ADVICE = {
    "sentence-transformers": "pip install 'sentence-transformers>=6.2'",
    "onnx": "pip install 'nlpmeta[onnx]'",
    "onnx-int8": "pip install 'nlpmeta[onnx]'",
}


def export(classifier: FewShotClassifier, folder: Path, form: Form, *, overwrite: bool = False) -> None:
    """Write ``classifier`` to ``folder`` with all that it needs, the encoder included.

    Args:
        classifier: an adapted model whose head is linear or a mixture of linear ones, or that gives several labels.
        folder: made if absent.
        form: for which library.
        overwrite: replace an existing export, once the new one is complete; see ``check_new_folder``.

    Raises:
        NLPMetaError: if the folder exists, the form has no place for the head, or a library is missing.
        WorkFailedError: if the exported model does not give the same probabilities.
    """
    check_export(folder, form, overwrite=overwrite)
    if classifier.learner_.encoder.pairs:
        raise NLPMetaError("This model classifies pairs of texts, which has no form in other libraries.")
    heads, encoder = exported_heads(classifier.learner_, classifier.state_), classifier.learner_.encoder
    if form == "sentence-transformers" and isinstance(heads, LabelHeads):
        raise NLPMetaError(
            "This model gives several labels per text, which a linear head on sentence-transformers cannot; "
            "--to transformers, onnx and onnx-int8 can."
        )
    if encoder.windows is not None:
        warnings.warn(
            f"The export reads the first {encoder.window} tokens of a text; this model reads {encoder.max_length}, in "
            "windows. Longer texts get other probabilities.",
            DataWarning,
            stacklevel=2,
        )
    with new_folder(folder, overwrite=overwrite) as temporary, quiet_transformers():
        encoders = plain_encoders(classifier.learner_, classifier.state_)
        if form == "transformers":
            _transformers(classifier, heads, encoders, temporary)
        elif form == "sentence-transformers" and isinstance(heads, LinearHeads):
            _sentences(classifier, heads, encoders, temporary)
        else:
            _onnx(classifier, heads, encoders, temporary, int8=form == "onnx-int8")
        write_manifest(temporary, {"kind": EXPORT, "form": form})


def check_export(folder: Path, form: str, *, overwrite: bool = False) -> None:
    """See that there can be an export of this form at ``folder``, before a model is loaded for it.

    Raises:
        NLPMetaError: as ``export``.
    """
    if form not in get_args(Form):
        raise UnknownNameError("form", form, get_args(Form))
    if missing := [name for name in _NEEDS.get(form, ()) if find_spec(name) is None]:
        raise NLPMetaError(f"Exporting to {form} needs {' and '.join(missing)}: {_ADVICE[form]}")
    check_new_folder(folder, overwrite=overwrite)


def sequence_classifier(
    classifier: FewShotClassifier, heads: LinearHeads | LabelHeads, encoders: "Sequence[PreTrainedModel]"
) -> "NLPMetaForSequenceClassification":
    """The model as a module of ``transformers``, compared with the classifier.

    Raises:
        WorkFailedError: if the two do not agree.
    """
    from nlpmeta.export.modeling import NLPMetaConfig, NLPMetaForSequenceClassification

    names = [str(label) for label in classifier.classes_.tolist()]
    kind = encoders[0].config.model_type
    no_pooler = {"add_pooling_layer": False} if kind in POOLED else {}
    config = NLPMetaConfig(
        encoders=[each.config.to_dict() | {"_name_or_path": ""} for each in encoders],  # a folder of this machine
        encoder_options=no_pooler,
        normalise=heads.normalise,
        pooling=classifier.learner_.encoder.pooling,
        max_tokens=classifier.learner_.encoder.window,
        end_tokens=end_tokens(classifier.learner_.encoder),
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    if isinstance(heads, LinearHeads):
        config.shares, config.mixture_temperature = heads.shares.tolist(), heads.temperature
    else:
        config.problem_type, config.thresholds = "multi_label_classification", classifier.thresholds_.tolist()
        config.prototype_shares, config.n_prototypes = heads.shares.tolist(), heads.prototypes.size(1)
    model = NLPMetaForSequenceClassification(config)
    model.encoders = nn.ModuleList(encoders)
    model.classifier.weight.data, model.classifier.bias.data = heads.weight.flatten(0, -2), heads.bias.flatten()
    if isinstance(heads, LabelHeads):
        model.prototypes.weight.data = heads.prototypes.flatten(0, 1) / PROTOTYPE_TEMPERATURE
    _compare(model.eval(), classifier)
    return model


@torch.no_grad()
def _compare(model: "NLPMetaForSequenceClassification", classifier: FewShotClassifier) -> None:
    tokenizer = whole_tokenizer(classifier.learner_.encoder)
    texts = [*(str(label) for label in classifier.classes_[:8].tolist() if str(label).strip()), "a b c", "1 2"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    logits = model(batch["input_ids"], batch["attention_mask"]).logits
    theirs = logits.sigmoid() if classifier.fitted_.gives_sets else logits.softmax(1)
    apart = float((theirs - torch.from_numpy(classifier.predict_proba(texts))).abs().max())
    if not apart < TOLERANCE:
        raise WorkFailedError(f"The exported model's probabilities are {apart:.1g} off; nothing was written.")


def _transformers(
    classifier: FewShotClassifier, heads: LinearHeads | LabelHeads, encoders: "Sequence[PreTrainedModel]", folder: Path
) -> None:
    from nlpmeta.export import modeling

    model = sequence_classifier(classifier, heads, encoders)
    code = "modeling_nlpmeta"
    model.config.auto_map = {
        "AutoConfig": f"{code}.NLPMetaConfig",
        "AutoModelForSequenceClassification": f"{code}.NLPMetaForSequenceClassification",
    }
    model.save_pretrained(folder)
    whole_tokenizer(classifier.learner_.encoder).save_pretrained(folder)
    copy_file(Path(modeling.__file__), folder / f"{code}.py")


def _sentences(
    classifier: FewShotClassifier, heads: LinearHeads, encoders: "Sequence[PreTrainedModel]", folder: Path
) -> None:
    """Each view is a folder of its own; the first is the top folder."""
    from safetensors.torch import save
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling as Pools

    tokenizer, pooling = whole_tokenizer(classifier.learner_.encoder), classifier.learner_.encoder.pooling
    pools = "lasttoken" if pooling == "last" else pooling
    sequence_classifier(classifier, heads, encoders)  # only to compare
    for part, encoder in zip((folder, folder / "second", folder / "third"), encoders, strict=False):
        plain = folder / ".plain"
        encoder.save_pretrained(plain, state_dict=_with_pooler(encoder))
        tokenizer.save_pretrained(plain)
        transformer = Transformer(str(plain), max_seq_length=classifier.learner_.encoder.window)
        modules: list[nn.Module] = [transformer, Pools(encoder.config.hidden_size, pools)]
        SentenceTransformer(modules=[*modules, *([Normalize()] if heads.normalise else [])]).save_pretrained(
            str(part), create_model_card=False
        )
        remove_folder(plain)
    if len(heads.shares) == 1:
        tensors = {name: part[0] / heads.temperature for name, part in (("weight", heads.weight), ("bias", heads.bias))}
    else:
        mixture = {"shares": heads.shares, "temperature": torch.tensor(heads.temperature)}
        tensors = {"weight": heads.weight, "bias": heads.bias} | mixture
    write_bytes(folder / HEAD_FILE, save(tensors))
    write_json(folder / "labels.json", {"labels": classifier.classes_.tolist()})


def _with_pooler(encoder: "PreTrainedModel") -> dict[str, Tensor]:
    """The weights, and for the BERT family those of the pooler.

    Nobody reads it, but sentence-transformers loads these models with one, and says where it is missing that it is
    newly initialised and the model should be trained.
    """
    weights: dict[str, Tensor] = encoder.state_dict()
    if encoder.config.model_type in POOLED and "pooler.dense.weight" not in weights:
        dim = int(encoder.config.hidden_size)
        weights |= {"pooler.dense.weight": torch.eye(dim), "pooler.dense.bias": torch.zeros(dim)}
    return weights


class _Probabilities(nn.Module):
    """Token ids and mask ``(n, width)`` to probabilities ``(n, n_way)``."""

    def __init__(
        self, encoders: "Sequence[PreTrainedModel]", heads: LinearHeads | LabelHeads, pooling: Pooling
    ) -> None:
        super().__init__()
        self.embedder, self.heads = Embedder(encoders, normalise=heads.normalise, pooling=pooling), heads

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.heads.probabilities(self.embedder(input_ids, attention_mask))


def _onnx(
    classifier: FewShotClassifier,
    heads: LinearHeads | LabelHeads,
    encoders: "Sequence[PreTrainedModel]",
    folder: Path,
    *,
    int8: bool,
) -> None:
    """One graph from tokens to probabilities, the tokenizer, the labels, and a program that reads these alone.

    The labels' thresholds go with them where a text may have several labels.
    """
    sequence_classifier(classifier, heads, encoders)  # only to compare
    for encoder in encoders:
        encoder.set_attn_implementation("eager")
    module = _Probabilities(encoders, heads, classifier.learner_.encoder.pooling).eval()
    typical = typical_tokens(classifier.learner_.encoder) if int8 else ()
    graph = folder / "model.onnx"
    write_graph(module, graph, output="probabilities", int8=int8, typical=typical, in_one_file=True)
    tokenizer = whole_tokenizer(classifier.learner_.encoder)
    tokenizer.save_pretrained(folder)
    inner = tokenizer.backend_tokenizer
    inner.enable_truncation(classifier.learner_.encoder.window)
    write_text(folder / "tokenizer.json", inner.to_str())
    thresholds = {"thresholds": classifier.thresholds_.tolist()} if classifier.fitted_.gives_sets else {}
    write_json(folder / "labels.json", {"labels": classifier.classes_.tolist()} | thresholds)
    copy_file(Path(__file__).parent / "predict.py.txt", folder / "predict.py")


def whole_tokenizer(encoder: TextEncoder) -> "PreTrainedTokenizerBase":
    """A copy of the tokenizer that strips a text and puts the prefix of the encoder before it.

    Raises:
        NLPMetaError: if it is not a fast one, which cannot be changed so.
    """
    from tokenizers import normalizers

    if not encoder.tokenizer.is_fast:
        raise NLPMetaError("Only encoders with a fast tokenizer (tokenizer.json) can be exported.")
    tokenizer = copy.deepcopy(encoder.tokenizer)
    inner = tokenizer.backend_tokenizer
    steps: list[normalizers.Normalizer] = [normalizers.Strip()]
    if encoder.prefix:
        steps.append(normalizers.Prepend(encoder.prefix))
    if inner.normalizer is not None:
        steps.append(inner.normalizer)
    inner.normalizer = normalizers.Sequence(steps)
    tokenizer.model_max_length = encoder.window
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:  # of a decoder; any token will do, as it is masked
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def end_tokens(encoder: TextEncoder) -> int:
    """How many special tokens a text ends with."""
    marks = encoder.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    return len(marks) - max((place + 1 for place, mark in enumerate(marks) if not mark), default=0)
