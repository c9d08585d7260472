"""The models that are served: loaded when first asked for, and refitted beside those that go on answering."""

import io
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nlpmeta.auto.answers import most_worth_labelling
from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.classifier.persistence import known_examples
from nlpmeta.classifier.several import gives_sets
from nlpmeta.data.labels import words_of
from nlpmeta.encoder.compiling import compiled_name
from nlpmeta.encoder.engines import Engine
from nlpmeta.errors import DataError, NLPMetaError, UnknownNameError
from nlpmeta.learners.abilities import ReadsStreams
from nlpmeta.learners.base import Learner, learners
from nlpmeta.serve.batching import Embedder
from nlpmeta.serve.learning import MOST_SHOWN, Report, Served, check_words, fitted_to, measured
from nlpmeta.serve.store import Changed, Known, Measured, Store
from nlpmeta.storage.files import temporary_folder
from nlpmeta.storage.manifest import MANIFEST

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

_POOL, _ENOUGH = 1000, 64  # unlabelled texts, the least certain of all, among which those to label next are sought


class Models:
    """Saved models by the names of their folders, and those that are taught here."""

    def __init__(
        self,
        folders: Mapping[str, Path],
        store: Store,
        start: Callable[[], Learner],
        *,
        engine: Engine,
        device: str,
        cache_bytes: int,
    ) -> None:
        """Load nothing yet.

        Args:
            folders: of saved models, by name.
            store: what was taught.
            start: the learner that new models start from; called once.
            engine: what embeds.
            device: where saved models run.
            cache_bytes: of embeddings that are kept in memory.
        """
        self.store, self._folders = store, dict(folders)
        self._start, self._engine, self._device, self._cache_bytes = start, engine, device, cache_bytes
        self._served: dict[str, Served] = {}
        self._reports: dict[str, Report] = {}
        self._embedders: dict[object, Embedder] = {}
        self._lock, self._load_lock = threading.Lock(), threading.RLock()
        self._starting: Learner | None = None
        self._teacher = ThreadPoolExecutor(1, thread_name_prefix="nlpmeta-teach")
        self._reporter = ThreadPoolExecutor(1, thread_name_prefix="nlpmeta-report")  # no refit waits for it
        self.problems: dict[str, str] = {}
        """Why the last refit of a model failed, by its name."""

    def names(self) -> list[str]:
        """All of them, loaded or not."""
        return sorted({*self._folders, *self.store.names()})

    @property
    def learner(self) -> Learner:
        """What new models start from."""
        with self._load_lock:
            if self._starting is None:
                self._starting = self._start()
            return self._starting

    def embedder_of(self, encoder: "TextEncoder") -> Embedder:
        """One for all encoders that give the same embeddings."""
        name = compiled_name(encoder, "float32")
        key = id(encoder.backbone) if name is None else (name, encoder.prefix, encoder.max_length)
        with self._lock:
            if key not in self._embedders:
                self._embedders[key] = Embedder(encoder, self._engine, most_bytes=self._cache_bytes)
            return self._embedders[key]

    def loaded(self, name: str) -> Served | None:
        """A model, if it was asked for before."""
        return self._served.get(name)

    def get(self, name: str) -> Served:
        """A model, loaded if it was not.

        Raises:
            UnknownNameError: if there is none of that name.
        """
        found = self._served.get(name)
        if found is not None:
            return found
        if name not in self.names():
            raise UnknownNameError("model", name, self.names())
        with self._load_lock:
            if name not in self._served:
                taught = name in self.store.names()
                self._served[name] = self._fitted(self.store.known(name)) if taught else self._loaded(name)
            return self._served[name]

    def zero_shot(self, descriptions: Mapping[str, str]) -> Served:
        """A model that knows its classes by names and descriptions alone; it is not kept."""
        known = Known("", 0, descriptions, (), folder=False)
        check_words(known, set())
        return fitted_to(known, self.learner, self.embedder_of(self.learner.encoder))

    def create(self, name: str, classes: Mapping[str, str], examples: Sequence[tuple[str, str]]) -> Served:
        """Make a new model of classes and examples, on disk before it answers.

        Raises:
            NLPMetaError: if there is one of that name, or it cannot be learned from these.
        """
        if name in self.names():
            raise NLPMetaError(f"There is a model {name!r} already.")
        every = dict.fromkeys([*classes, *(label for _, label in examples)], "") | dict(classes)
        trial = Known(name, 0, every, (), folder=False)
        check_words(trial, {label for _, label in examples})
        if len(every) < 2:
            raise DataError("A model needs at least two classes.")
        self.store.create(name, every, list(dict(examples).items()))
        try:
            return self.get(name)
        except NLPMetaError:
            self.store.delete(name)
            raise

    def delete(self, name: str) -> None:
        """Forget what was taught; a saved model is as it was in its folder then."""
        self.store.delete(name)
        with self._lock:
            self._served.pop(name, None)
            self._reports.pop(name, None)
            self.problems.pop(name, None)

    def teach(self, name: str, pairs: Sequence[tuple[str, str]], described: Mapping[str, str]) -> Changed:
        """Write examples and descriptions to the disk; ``refit`` makes the model learn them.

        Raises:
            NLPMetaError: if the model cannot be taught: it keeps no examples, or gives several labels a text.
        """
        self._adopt(name)
        known = self.store.known(name)
        every = {**known.classes, **dict.fromkeys((label for _, label in pairs if label not in known.classes), "")}
        check_words(
            Known(name, 0, {**every, **described}, (), folder=False),
            {*(each.label for each in known.examples), *(label for _, label in pairs)},
        )
        return self.store.teach(name, pairs, described)

    def change(self, name: str, work: Callable[[], Changed]) -> Changed:
        """Another change of what a model knows, such as a class that goes."""
        self._adopt(name)
        return work()

    def refit(self, name: str) -> "Future[Served]":
        """Make a model learn what is on disk, beside the one that goes on answering."""
        return self._teacher.submit(self._refit, name)

    def report(self, name: str) -> "Future[Report]":
        """What the examples of a model say of it; measured once for each version."""
        return self._reporter.submit(self._report, name)

    def keep_texts(self, name: str, texts: Sequence[str]) -> None:
        """Keep unlabelled texts with a model."""
        self._adopt(name)
        self.store.keep_texts(name, texts)

    def suggest(
        self, name: str, texts: Sequence[str] | None, *, most: int = MOST_SHOWN
    ) -> tuple[Sequence[str], list[int]]:
        """Texts, by default those kept with a model, and the places of those to label next.

        Of kept texts those that were embedded before are looked at, as long as there are enough: it takes no pass then.
        """
        served, taught = self.get(name), name in self.store.names()
        pool = self.store.texts(name) if texts is None else texts
        labelled = {each.text for each in self.store.known(name).examples} if taught else set()
        places = [place for place, text in enumerate(pool) if text not in labelled]
        if texts is None and places:
            ready = served.embedder.knows([pool[place] for place in places])
            at_hand = [place for place, there in zip(places, ready, strict=True) if there]
            places = at_hand if len(at_hand) >= min(len(places), _ENOUGH) else places[:_ENOUGH]
        if not places:
            return pool, []
        with torch.no_grad(), served.embedder.embedding():
            predictor = served.fitted.predictor
            chances = predictor.logits(predictor.queries([pool[place] for place in places])).softmax(1)
            least = chances.max(1).values.argsort(stable=True)[:_POOL].tolist()
            features = served.embedder.encoder.encode([pool[places[row]] for row in least])
            found = most_worth_labelling(chances[least], features, most=most)
        return pool, [places[least[row]] for row in found]

    def archive(self, name: str) -> bytes:
        """The saved model as a zip file of its folder, with its examples where it keeps them."""
        served = self.get(name)
        classifier = FewShotClassifier.from_state(
            served.fitted.learner, served.fitted.state, served.fitted.classes, served.fitted.examples,
            served.fitted.descriptions, served.fitted.by_name, as_matrix=served.fitted.as_matrix,
        )  # fmt: skip
        content = io.BytesIO()
        with (
            temporary_folder("nlpmeta-serve") as temporary,
            zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file,
        ):
            folder = temporary / name
            classifier.save_pretrained(folder, include_support=served.fitted.examples is not None)
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(temporary))
        return content.getvalue()

    def close(self) -> None:
        """Wait for the refits under way, and close the file."""
        for pool in (self._teacher, self._reporter):
            pool.shutdown(wait=True, cancel_futures=True)
        self.store.close()

    def _refit(self, name: str) -> Served:
        known, before = self.store.known(name), self.get(name)
        if before.version >= known.version:
            return before
        try:
            after = self._fitted(known, before)
        except NLPMetaError as error:
            self.problems[name] = str(error)
            raise
        with self._lock:
            self.problems.pop(name, None)
            if name in self.store.names():  # it was not deleted meanwhile
                self._served[name] = after
        return after

    def _fitted(self, known: Known, before: Served | None = None) -> Served:
        learner = before.fitted.learner if before else self._learner_of(known)
        earlier = before.fitted if before is not None and before.fitted.examples is not None else None
        return fitted_to(known, learner, self.embedder_of(learner.encoder), earlier)

    def _learner_of(self, known: Known) -> Learner:
        if known.folder and known.name in self._folders:
            return self._loaded(known.name).fitted.learner
        return self.learner

    def _loaded(self, name: str) -> Served:
        classifier = FewShotClassifier.from_pretrained(self._folders[name], device=self._device)
        fitted = classifier.fitted_
        return Served(name, 0, fitted, self.embedder_of(fitted.learner.encoder))

    def _adopt(self, name: str) -> None:
        """Copy what a saved model knows into the store, before it is taught for the first time.

        Raises:
            NLPMetaError: if it cannot be taught.
        """
        if name in self.store.names():
            return
        fitted = self.get(name).fitted
        if gives_sets(fitted) or isinstance(fitted.learner, ReadsStreams):
            kind = "gives several labels a text" if gives_sets(fitted) else learners.name_of(type(fitted.learner))
            raise NLPMetaError(f"The model {name!r} cannot be taught here ({kind}); it can only predict.")
        examples = known_examples(fitted)
        words = words_of(fitted.classes)
        label = dict(zip(fitted.classes.tolist(), words, strict=True))
        said = {label[each]: ". ".join(texts) for each, texts in fitted.descriptions.items()}
        pairs = zip(examples.texts, (label[each] for each in examples.labels.tolist()), strict=True)
        self.store.create(name, {word: said.get(word, "") for word in words}, list(dict(pairs).items()), folder=True)

    def _report(self, name: str) -> Report:
        served = self.get(name)
        known = self._reports.get(name)
        if known is not None and known.version == served.version:
            return known
        found = measured(served)
        taught = name in self.store.names()
        if found.held_out and taught and served.version == self.store.known(name).version:
            n = len(known_examples(served.fitted).texts)
            self.store.measure(name, Measured(served.version, n, found.held_out, found.correct))
        with self._lock:
            self._reports[name] = found
        return found


def saved_models(folder: Path) -> dict[str, Path]:
    """The saved models in a folder, by name."""
    if not folder.is_dir():
        return {}
    return {each.name: each for each in sorted(folder.iterdir()) if (each / MANIFEST).is_file()}
