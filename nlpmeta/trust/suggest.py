"""Which of many unlabelled texts to label next."""

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.errors import NLPMetaError

_STARTS = 3  # of k-means, of which the best is taken
_CERTAIN = 1e-6  # what a text counts for that leaves no doubt


def most_worth_labelling(probabilities: Tensor, features: Tensor, *, most: int = 10, seed: int = 0) -> list[int]:
    """Rows of texts that are uncertain and differ from one another, those that stand for most doubt first.

    Source: diverse mini-batch active learning, Zhdanov 2019, section 3 (arXiv:1901.05954): k-means over the embeddings
    with each text weighted by how uncertain its label is, and the text of each cluster nearest to its centre. Where we
    differ: a text counts with the probability that its most probable label is wrong, embeddings are centred and of unit
    length, and no text is left out beforehand.

    Args:
        probabilities: of each text, ``(n, n_way)``.
        features: their embeddings, ``(n, dim)``.
        most: how many to name; there are fewer if fewer texts differ.
        seed: decides the start of k-means.

    Raises:
        NLPMetaError: if ``most`` is less than 1.
    """
    from sklearn.cluster import KMeans

    if most < 1:
        raise NLPMetaError(f"At least one text must be asked for; got {most}.")
    doubt = 1 - probabilities.cpu().double().max(1).values.numpy()
    places = F.normalize((features - features.mean(0)).cpu().double(), dim=1).numpy()
    _, first = np.unique(places.round(6), axis=0, return_index=True)
    first.sort()
    means = KMeans(min(most, len(first)), n_init=_STARTS, random_state=seed)
    distances = means.fit_transform(places[first], sample_weight=doubt[first] + _CERTAIN)
    weight = np.bincount(means.labels_, weights=doubt[first], minlength=distances.shape[1])
    own = np.where(means.labels_[:, None] == np.arange(distances.shape[1]), distances, np.inf)
    return [int(first[own[:, cluster].argmin()]) for cluster in np.argsort(-weight, kind="stable")]
