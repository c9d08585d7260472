"""A part of a recipe that stands for many data sets: the texts of all of them that may be trained on."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from nlpmeta.data import LabeledTexts
from nlpmeta.errors import DataError
from nlpmeta.recipes.schema import Tasks
from nlpmeta.sampling import Range
from nlpmeta.sampling.leaks import fingerprint
from nlpmeta.sampling.many_sets import ManySetsSampler, ManySetsShape, SetPart
from nlpmeta.sampling.pools import language_code, split_by
from nlpmeta.sources.base import Source
from nlpmeta.sources.catalogue import catalogue_entry, collections, members
from nlpmeta.sources.loading import load_source, open_if_possible


def is_collection(part: Tasks) -> bool:
    """Whether a part reads many data sets."""
    return part.source in collections()


def sets_of(part: Tasks) -> tuple[str, ...]:
    """The names of the data sets that a part reads."""
    return members(part.source, kinds=part.kinds, leave_out=part.leave_out) if is_collection(part) else (part.source,)


def many_sets_sampler(part: Tasks, *, seed: int, data_dir: Path | None) -> ManySetsSampler:
    """The episodes of a part that reads many data sets."""
    shape = ManySetsShape(part.range_of("n_way"), part.range_of("n_shot"), Range(1, part.n_query), part.most_chars)
    return ManySetsSampler(
        read_parts(part, data_dir=data_dir),
        shape=shape,
        cross_share=part.cross_share,
        kind_temperature=part.kind_temperature,
        set_temperature=part.set_temperature,
        language_temperature=part.language_temperature,
        seed=seed,
    )


def read_parts(part: Tasks, *, data_dir: Path | None) -> list[SetPart]:
    """Every set and language, without the texts that a left-out set or a published test split has too.

    Raises:
        DataError: if the mirror folder does not hold one of the sets, or nothing is left.
    """
    names = sets_of(part)
    barred = _barred(part, names, data_dir)
    out = {language_code(lang) for lang in part.leave_out_langs}
    found: list[SetPart] = []
    for name in names:
        kind, source = catalogue_entry(name).kind, load_source(name, data_dir=data_dir)
        for pool in _pools(source, part.split, out):
            kept = [row for row, text in enumerate(pool.texts) if fingerprint(text) not in barred]
            if kept:
                by_lang = split_by(pool.select(kept).without_empty_classes(), "langs")
                found += [SetPart(kind, name, lang, each) for lang, each in by_lang.items()]
    if not found:
        raise DataError(f"No text of {part.source} is left for the split {part.split!r}.")
    return found


def _pools(source: Source, split: str, out: set[str]) -> Iterator[LabeledTexts]:
    for lang in source.languages():
        if language_code(lang) not in out and split in source.splits(lang):
            yield source.load(lang, split)


def _barred(part: Tasks, names: tuple[str, ...], data_dir: Path | None) -> set[str]:
    """Fingerprints of the texts of the sets that are left out, as far as they are there, and of all test splits."""
    marks: set[str] = set()
    for name in members(part.source):
        source = open_if_possible(name, data_dir=data_dir)
        if source is None:
            continue
        splits = [each for each in source.splits() if each == "test" or name not in names]
        for split in splits:
            marks |= _marks(source.load(None, split).texts)
    return marks


def _marks(texts: Iterable[str]) -> set[str]:
    return {fingerprint(text) for text in texts}
