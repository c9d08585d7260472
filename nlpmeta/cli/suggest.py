"""What ``nlpmeta adapt --suggest`` reads, and the texts that it names."""

from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.errors import DataError
from nlpmeta.sources.form import RECOGNISED, TableForm
from nlpmeta.sources.texts import texts_of_file

if TYPE_CHECKING:
    from nlpmeta.classifier import FewShotClassifier
    from nlpmeta.data import LabeledTexts
    from nlpmeta.encoder.cache import EmbeddingTable

MOST = 10


def texts_without_labels(path: Path, text_column: str | None, form: TableForm = RECOGNISED) -> list[str]:
    """The distinct texts of a file.

    Raises:
        DataError: if it is missing, damaged, empty, or a table without such a column.
    """
    texts = list(dict.fromkeys(texts_of_file(path, text_column, form)))
    if not texts:
        raise DataError(f"{path} holds no texts.")
    return texts


def suggestions(
    classifier: "FewShotClassifier", support: "LabeledTexts", texts: list[str], table: "EmbeddingTable"
) -> list[str]:
    """At most ten of ``texts`` that are most worth labelling, those of the support left out."""
    import torch

    from nlpmeta.learners.base import Texts
    from nlpmeta.sampling import fingerprint
    from nlpmeta.trust.suggest import most_worth_labelling

    known = {fingerprint(text) for text in support.texts}
    new = tuple(text for text in texts if fingerprint(text) not in known)
    if not new:
        return []
    features = table(new)
    with torch.no_grad():
        logits = classifier.learner_.logits(classifier.state_, Texts(new, features))
    rows = most_worth_labelling(logits.float().softmax(1).cpu(), features, most=MOST)
    return [new[row] for row in rows]
