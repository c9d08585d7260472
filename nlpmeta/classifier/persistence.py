"""A classifier as files: a folder on disk, a repository on the Hub."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from huggingface_hub import ModelHubMixin
from sklearn.base import BaseEstimator, ClassifierMixin
from typing_extensions import Self

from nlpmeta.classifier.fitted import Described, Examples, Fitted, HasFitted
from nlpmeta.encoder.weights import DEFAULT_ENCODER
from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.learners.abilities import Footprint, ReadsStreams, TakesBudget
from nlpmeta.learners.base import Learner, TaskState, learners
from nlpmeta.learners.checkpoint import read_learner, write_learner
from nlpmeta.storage.files import Json, temporary_folder, write_bytes, write_json
from nlpmeta.storage.manifest import read_manifest, write_manifest
from nlpmeta.storage.tensors import read_tensors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sklearn.utils import Tags

    from nlpmeta.encoder.device import Device
    from nlpmeta.encoder.engines import Engine
    from nlpmeta.encoder.text_encoder import TextEncoder
    from nlpmeta.sharing import Sharing
    from nlpmeta.storage.hub_push import Pushed

TASK_FILE = "task.safetensors"
LABELS_FILE = "labels.json"
REPORT_FILE = "report.json"


class KeptClassifier(HasFitted, ModelHubMixin, ClassifierMixin, BaseEstimator, library_name="nlpmeta"):
    """What a classifier is made of, and how it is saved, pushed and loaded."""

    # Without it the mixin would put an attribute on every new instance, which scikit-learn does not allow.
    _hub_mixin_config: "ClassVar[dict[str, object]]" = {}  # type: ignore[misc]

    def __init__(
        self,
        method: "str | Learner" = "auto",
        *,
        encoder: "str | TextEncoder" = DEFAULT_ENCODER,
        checkpoint: str = "default",
        max_length: int | None = None,
        device: "Device" = "auto",
        engine: "Engine" = "torch",
        budget: float = 0.0,
    ) -> None:
        """Choose a method and an encoder; nothing is loaded before ``fit``.

        Args:
            method: the name of a learner (``auto`` compares several on the support set) or a learner.
            encoder: a folder, a Hub id or a loaded encoder; ignored if ``method`` is a learner, which has its own.
            checkpoint: what adaptation starts from: ``default`` (the one of the package, if the encoder is its own),
                a checkpoint folder, or ``none`` for the frozen encoder.
            max_length: tokens that are read of a text, the rest is cut off; what the encoder cannot take at once is
                read in overlapping windows. By default what encoder or checkpoint say (128 for the packaged ones), or
                more if the texts of ``fit`` are longer. A saved model keeps it.
            device: where it runs: ``auto`` (CUDA, MPS, XPU, else the CPU; or what ``NLPMETA_DEVICE`` names), or one of
                them by its name, such as ``cuda:1``. A loaded encoder stays where it is.
            engine: what embeds where nothing trains: ``torch``, ``onnx`` or ``onnx-int8`` (the compiled encoder on the
                CPU, compiled when first needed), or ``auto``: the compiled one if there is one.
            budget: the seconds in which ``auto`` may fine-tune the encoder too, by its forecast for two cores; what
                comes of it gets a share if it is better on held-out examples. By default it does not.
        """
        self.method = method
        self.encoder = encoder
        self.checkpoint = checkpoint
        self.max_length = max_length
        self.device = device
        self.engine = engine
        self.budget = budget

    def stream_memory(self) -> Footprint:
        """How large the memory of a stream is, in bytes, in all and for each row and class.

        Raises:
            NLPMetaError: if the method does not read a stream.
        """
        return _footprint(self.fitted_)

    def save_pretrained(  # type: ignore[override]  # the mixin's does the same with options that we do not need
        self,
        folder: Path | str,
        *,
        overwrite: bool = False,
        report: "Mapping[str, Json] | None" = None,
        include_support: bool = False,
    ) -> None:
        """Write the adapted model and its card to a folder of its own; the encoder is named, not copied.

        The card, ``README.md``, is yours to change: a changed one is kept by later saves, and pushed as it stands.

        Args:
            folder: where to; made if absent.
            overwrite: replace an existing folder, once the new one is complete.
            report: what was measured when the model was made.
            include_support: write the examples too, texts and embeddings, so that classes can be added after loading.

        Raises:
            NLPMetaError: if the folder exists and ``overwrite`` is off.
            WorkFailedError: if it cannot be written; nothing half-written stays.
        """
        from safetensors.torch import save

        from nlpmeta.classifier.given import class_prior_of, write_examples
        from nlpmeta.classifier.streaming import write_labels
        from nlpmeta.sharing import model_folder

        fitted = self.fitted_
        with model_folder(Path(folder), overwrite=overwrite) as temporary:
            facts = write_learner(temporary, fitted.learner)
            state = {name: tensor.cpu().contiguous() for name, tensor in fitted.state.items()}
            write_bytes(temporary / TASK_FILE, save(state))
            write_labels(temporary / LABELS_FILE, fitted)
            if include_support:
                write_examples(temporary, known_examples(fitted))
            if report is not None:
                write_json(temporary / REPORT_FILE, report)
            if isinstance(fitted.learner, ReadsStreams):
                facts["memory"] = asdict(_footprint(fitted))
            if (prior := class_prior_of(fitted)) is not None:
                facts["class_prior"] = {str(label): share for label, share in prior.items()}
            write_manifest(temporary, {"kind": "adapted", **facts})

    def push_to_hub(  # type: ignore[override]  # private by default, and never with the examples unless told
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
        token: str | None = None,
        report: "Mapping[str, Json] | None" = None,
        sharing: "Sharing | None" = None,
    ) -> "Pushed":
        """Push the adapted model to the Hugging Face Hub, with a card, in one commit.

        Args:
            repo_id: ``user/name``; made if absent.
            private: whether a repository that is made is private; it is unless this is ``False``.
            revision: the branch; made if absent.
            create_pr: open a pull request instead of changing the branch.
            commit_message: the first line of the commit.
            token: by default the one that ``hf auth login`` stored, or ``HF_TOKEN``.
            report: what was measured when the model was made, for the card.
            sharing: licence, languages, and whether the examples are published.

        Raises:
            NLPMetaError: if nobody is logged in, or the encoder is a folder that nobody else has.
            NetworkError: if the Hub cannot be reached or refuses; the repository then is as it was.
        """
        from nlpmeta.sharing import Sharing, owned_target, push_model

        with temporary_folder("nlpmeta-save") as temporary:
            sharing = sharing or Sharing()
            folder = temporary / "model"
            self.save_pretrained(folder, report=report, include_support=sharing.include_support)
            target = owned_target(repo_id, private=private, revision=revision, as_pull_request=create_pr)
            if commit_message is not None:
                sharing = replace(sharing, message=commit_message)
            return push_model(folder, target, sharing, token=token)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the mixin passes further options on to a constructor
        cls,
        name: Path | str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        device: "Device" = "auto",
        engine: "Engine" = "torch",
    ) -> Self:
        """Load what ``save_pretrained`` or ``push_to_hub`` wrote; predictions are the same to the last bit.

        Args:
            name: a folder, or ``user/name`` on the Hub.
            revision: a branch, tag or commit of the Hub.
            token: for private models; by default the one that ``hf auth login`` stored, or ``HF_TOKEN``.
            cache_dir: where downloads are kept; by default the Hub's cache of this user.
            force_download: do not take files from there.
            local_files_only: take them from there only.
            device: where it runs, as in the constructor; it need not be the one that the model was made on.
            engine: what embeds, as in the constructor.

        Raises:
            NLPMetaError: if there is no such folder, model or revision.
            ModelFolderError: if it is damaged, incomplete or of a newer format.
            NetworkError: if it is not on this machine and the Hub does not bring it.
        """
        from nlpmeta.classifier.given import read_examples
        from nlpmeta.classifier.streaming import check_encoder_of_stranger, check_state, read_labels
        from nlpmeta.encoder.engines import check_engine, takes_compiled
        from nlpmeta.sharing import find_model
        from nlpmeta.storage.hub_download import Fetching

        check_engine(engine)
        how = Fetching(revision, token, cache_dir, force_download, local_files_only)
        folder = find_model(name, how)
        manifest = read_manifest(folder)
        if folder != Path(name):
            check_encoder_of_stranger(manifest, str(name))
        if manifest.get("kind") != "adapted":
            raise ModelFolderError(f"{folder} holds no adapted model; adapt one first: nlpmeta adapt --out NEW_FOLDER")
        learner = read_learner(folder, manifest, device=device, compiled=takes_compiled(device, engine))
        place, kept = learner.encoder.device, read_labels(folder / LABELS_FILE)
        state = {name: tensor.to(place) for name, tensor in read_tensors(folder / TASK_FILE).items()}
        check_state(learner, state, len(kept.classes), folder / TASK_FILE)
        examples = read_examples(folder, kept, place, dim=learner.encoder.dim)
        self = cls.from_state(
            learner, state, kept.classes, examples, kept.descriptions, kept.by_name, as_matrix=kept.as_matrix
        )
        self.method, self.encoder, self.engine = learners.name_of(type(learner)), learner.encoder, engine
        self.budget = learner.budget if isinstance(learner, TakesBudget) else 0.0
        return self

    @classmethod
    def from_state(
        cls,
        learner: Learner,
        state: TaskState,
        classes: "NDArray[np.generic]",
        examples: Examples | None = None,
        descriptions: Described | None = None,
        by_name: "NDArray[np.generic] | None" = None,
        *,
        as_matrix: bool = False,
    ) -> Self:
        """A fitted classifier from its parts: what ``fit`` would have left.

        Args:
            learner: what was adapted.
            state: what it learned about the task.
            classes: the labels, in the order of the learner's classes, ``(n_way,)``.
            examples: what it learned from, where that is kept.
            descriptions: the texts that describe a class, by its label.
            by_name: the classes without an example.
            as_matrix: whether several labels per text are answered as a 0/1 matrix.
        """
        self = cls(learner)
        described = descriptions or {}
        known = None if examples is None else replace(examples, descriptions=described)
        self._fitted_ = Fitted(learner, state, classes, known, described, by_name, as_matrix)
        return self

    def __sklearn_tags__(self) -> "Tags":
        """Tell scikit-learn that the input is a sequence of strings."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.input_tags.string, tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False, True
        return tags


def known_examples(fitted: Fitted) -> Examples:
    """The examples of a classifier.

    Raises:
        NLPMetaError: if it has none.
    """
    if fitted.examples is None:
        if isinstance(fitted.learner, ReadsStreams):
            raise NLPMetaError("This method reads a stream and keeps no examples; save without include_support.")
        raise NLPMetaError(
            "This model was saved without its examples, so its classes cannot be changed. "
            "Fit it again, or save it with include_support=True (nlpmeta adapt --include-support)."
        )
    return fitted.examples


def _footprint(fitted: Fitted) -> Footprint:
    if not isinstance(fitted.learner, ReadsStreams):
        raise NLPMetaError("This method keeps its examples and has no fixed-size memory; mann, rnn and snail do.")
    return fitted.learner.footprint(fitted.state)
