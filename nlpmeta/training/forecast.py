"""What the cache of lower layers will hold, said before a run starts."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from nlpmeta.encoder.lower_states import Precision, bytes_of
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.files import user_cache
from nlpmeta.sampling import Sampler

_EPISODES = 2000  # that are drawn in advance; longer runs are estimated from as many, evenly spread
_TEXTS = 2000  # that are tokenised for it


def forecast_states(
    encoder: TextEncoder,
    sampler: Sampler,
    n_episodes: int,
    precision: Precision,
    *,
    also: Iterable[str] = (),
    say: Callable[[str], None] | None = None,
) -> int:
    """Bytes that the states of all texts of a run take at most; says so, and refuses what the disk has no room for.

    Args:
        encoder: whose states.
        sampler: the training tasks.
        n_episodes: how many of them the run takes.
        precision: how states are stored.
        also: texts of held-out tasks.
        say: told the forecast.

    Raises:
        NLPMetaError: if there is not enough free space.
    """
    drawn = min(n_episodes, _EPISODES)
    indices = {i * n_episodes // drawn for i in range(drawn)}
    training = {text for i in indices for text in sampler.episode(i).texts()}
    others = set(also) - training
    some = sorted(training)[:: max(1, len(training) // _TEXTS)]
    per_text = sum(map(len, encoder.tokenize(some))) / max(1, len(some))
    n_texts = len(training) * n_episodes // drawn + len(others)
    size = bytes_of(int(n_texts * per_text), encoder.dim, precision)
    bound = "" if drawn == n_episodes else "at most "
    folder = user_cache()
    free = free_bytes(folder)
    said = f"{bound}{n_texts:,} texts of {per_text:.0f} tokens, {size / 1e6:,.0f} MB in {precision}"
    if size > free:
        raise NLPMetaError(
            f"The states of the lower layers would take {said}, but {free / 1e6:,.0f} MB are free in {folder}. "
            "Free some space, set NLPMETA_CACHE to another disk, or lower_states=off."
        )
    if say is not None:
        say(f"Cache of the lower layers: {said}; kept in {folder / 'states'}.")
    return size


def free_bytes(folder: Path) -> int:
    """The free space of the disk that ``folder`` is or will be on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
