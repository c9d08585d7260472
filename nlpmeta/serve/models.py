"""The models that are served: loaded when first asked for, and refitted beside those that go on answering."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.encoder.engines import Engine
from nlpmeta.errors import DataError, NLPMetaError, UnknownNameError
from nlpmeta.serve.light import LightModels, LightServed
from nlpmeta.serve.store import Changed, Known, Measured, Store

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder
    from nlpmeta.learners.base import Learner
    from nlpmeta.serve.learning import Embedder, Report, Served

_ENOUGH = 64  # unlabelled texts among which those to label next are sought


class Models:
    """Saved models by the names of their folders, and those that are taught here.

    Where encoder and heads are compiled, probabilities need no PyTorch; teaching, reasons and label sets load it.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        store: Store,
        start: "Callable[[], Learner]",
        *,
        engine: Engine,
        device: str,
        cache_bytes: int,
        checkpoint: Path | None = None,
    ) -> None:
        """Load nothing yet.

        Args:
            folders: of saved models, by name.
            store: what was taught.
            start: the learner that new models start from; called once.
            engine: what embeds.
            device: where saved models run.
            cache_bytes: of embeddings that are kept in memory.
            checkpoint: that new models start from, if it may be compiled.
        """
        self.store, self._folders = store, dict(folders)
        self._start, self._engine, self._device, self._cache_bytes = start, engine, device, cache_bytes
        self._served: dict[str, Served] = {}
        self._reports: dict[str, Report] = {}
        self._embedders: dict[object, Embedder] = {}
        self._light = LightModels(folders, checkpoint, engine=engine, device=device, cache_bytes=cache_bytes)
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
    def learner(self) -> "Learner":
        """What new models start from."""
        with self._load_lock:
            if self._starting is None:
                self._starting = self._start()
            return self._starting

    def prepare(self, *, to_teach: bool = True) -> None:
        """Load what the next requests will want: all that teaching needs, or answers by names alone at least."""
        if to_teach or self._light.zero_shot({"a first class": "", "another one": ""}) is None:
            embedder = self.embedder_of(self.learner.encoder)
            with embedder.embedding():
                embedder.warm(["a first text"])

    def embedder_of(self, encoder: "TextEncoder") -> "Embedder":
        """One for all encoders that give the same embeddings."""
        from nlpmeta.encoder.compiling import compiled_name
        from nlpmeta.serve.learning import Embedder

        name = compiled_name(encoder, "float32")
        key = id(encoder.backbone) if name is None else (name, encoder.prefix, encoder.max_length)
        with self._lock:
            if key not in self._embedders:
                self._embedders[key] = Embedder(encoder, self._engine, most_bytes=self._cache_bytes)
            return self._embedders[key]

    def loaded(self, name: str, *, full: bool = False) -> "Served | LightServed | None":
        """A model, if it was asked for before; ``full`` as ``answering``."""
        return self._served.get(name) or (None if full else self._light.loaded(name))

    def answering(self, name: str, *, full: bool = False) -> "Served | LightServed":
        """A model that answers with probabilities; with ``full`` also with reasons and label sets.

        Raises:
            UnknownNameError: if there is none of that name.
        """
        if (found := self.loaded(name, full=full)) is not None:
            return found
        if not full and name not in self.store.names():
            with self._load_lock:
                light = self._light.get(name)
            if light is not None:
                return light
        return self.get(name)

    def get(self, name: str) -> "Served":
        """A model in full, loaded if it was not.

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

    def zero_shot(self, descriptions: Mapping[str, str], *, full: bool = False) -> "Served | LightServed":
        """A model that knows its classes by names and descriptions alone; it is not kept. ``full`` as ``answering``."""
        if not full and (light := self._light.zero_shot(descriptions)) is not None:
            return light
        from nlpmeta.serve.learning import check_words, fitted_to

        known = Known("", 0, descriptions, (), folder=False)
        check_words(known, set())
        return fitted_to(known, self.learner, self.embedder_of(self.learner.encoder))

    def create(self, name: str, classes: Mapping[str, str], examples: Sequence[tuple[str, str]]) -> "Served":
        """Make a new model of classes and examples, on disk before it answers.

        Raises:
            NLPMetaError: if there is one of that name, or it cannot be learned from these.
        """
        from nlpmeta.serve.learning import check_words

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
            NLPMetaError: if the model cannot be taught: it keeps no examples, or gives several labels per text.
        """
        from nlpmeta.serve.learning import check_words

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

    def suggest(self, name: str, texts: Sequence[str] | None, *, most: int = 10) -> tuple[Sequence[str], list[int]]:
        """Texts, by default those kept with a model, and the places of those to label next.

        Of kept texts those that were embedded before are looked at, as long as there are enough: it takes no pass then.
        """
        from nlpmeta.serve.learning import worth_labelling

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
        found = worth_labelling(served, [pool[place] for place in places], most=most)
        return pool, [places[row] for row in found]

    def archive(self, name: str) -> bytes:
        """The saved model as a zip file of its folder, with its examples where it keeps them."""
        from nlpmeta.serve.learning import archived

        return archived(self.get(name), name)

    def close(self) -> None:
        """Wait for the refits under way, and close the file."""
        for pool in (self._teacher, self._reporter):
            pool.shutdown(wait=True, cancel_futures=True)
        self.store.close()

    def _refit(self, name: str) -> "Served":
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

    def _fitted(self, known: Known, before: "Served | None" = None) -> "Served":
        from nlpmeta.serve.learning import fitted_to

        saved = known.folder and known.name in self._folders
        start = before.fitted if before else self._loaded(known.name).fitted if saved else None
        learner = start.learner if start else self.learner
        earlier = start if before and before.fitted.examples is not None else None
        return fitted_to(known, learner, self.embedder_of(learner.encoder), earlier, saved=start)

    def _loaded(self, name: str) -> "Served":
        from nlpmeta.classifier.classifier import FewShotClassifier
        from nlpmeta.serve.learning import Served

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
        from nlpmeta.serve.learning import taken_over

        described, pairs = taken_over(self.get(name))
        self.store.create(name, described, pairs, folder=True)

    def _report(self, name: str) -> "Report":
        from nlpmeta.classifier.persistence import known_examples
        from nlpmeta.serve.learning import measured

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
