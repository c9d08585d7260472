"""Every method of this package as a contender: ``FewShotClassifier`` as its users have it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nlpmeta.bench.contender import OURS, Adapted, Contender, contenders
from nlpmeta.classifier import FewShotClassifier
from nlpmeta.data import LabeledTexts
from nlpmeta.learners.base import Learner, Option
from nlpmeta.starting import starting_learner

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _OurModel(Adapted):
    def __init__(self, classifier: FewShotClassifier, columns: list[int]) -> None:
        self.classifier, self._columns = classifier, columns

    def probabilities(self, texts: tuple[str, ...]) -> "NDArray[np.float64]":
        return self.classifier.predict_proba(texts)[:, self._columns].astype(np.float64)

    def save(self, folder: Path) -> None:
        self.classifier.save_pretrained(folder, overwrite=True)

    def facts(self) -> dict[str, Option]:
        chosen = self.classifier.fitted_.predictor.choice
        return {} if chosen is None else {"chosen": chosen}


@contenders.register(OURS)
class OurMethod(Contender):
    """A learner by name on what it starts from: ``auto@default``, ``logistic`` (the frozen encoder)."""

    def __init__(self, encoder: str, max_steps: int | None, *, method: str = "auto@default") -> None:
        super().__init__(encoder, max_steps)
        self.method = method
        self._learner: Learner | None = None

    def prepare(self, seed: int) -> None:
        if self._learner is None:
            name, _, checkpoint = self.method.partition("@")
            self._learner = starting_learner(
                name,
                encoder=self.encoder,
                checkpoint=checkpoint or "none",
                max_length=self.max_length,
                device=self.device,
            )

    @property
    def learner(self) -> Learner:
        """What ``prepare`` loaded."""
        if self._learner is None:
            raise RuntimeError("prepare comes first")
        return self._learner

    def adapt(self, support: LabeledTexts) -> _OurModel:
        names = support.names()
        classifier = FewShotClassifier(self.learner).fit(list(support.texts), names)
        place = {label: i for i, label in enumerate(classifier.classes_.tolist())}
        return _OurModel(classifier, [place[name] for name in support.label_names])
