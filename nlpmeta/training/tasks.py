"""From the data parts of a recipe to samplers."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nlpmeta.data import LabeledTexts, languages, readable_names
from nlpmeta.episodes import Range, Sampler, fingerprint, generator, sentences_of
from nlpmeta.episodes.clusters import ClueSampler, ClueShares, ClusterSampler
from nlpmeta.episodes.index import Index
from nlpmeta.episodes.many_sets import ManySetsSampler, ManySetsShape, SetPart
from nlpmeta.episodes.pools import language_code, leave_out, split_by, split_classes
from nlpmeta.episodes.raw_texts import MaskedWordSampler, SentenceViewSampler
from nlpmeta.episodes.samplers import CrossLingualSampler, EpisodeSampler, SpamSampler, UserSampler
from nlpmeta.episodes.wrappers import (
    DifficultySampler,
    ImbalancedSampler,
    LongTail,
    MergedClassesSampler,
    MixtureSampler,
    temperature_weights,
)
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.sources import Source
from nlpmeta.sources.catalogue import POOL_SPLIT, catalogue_entry, collections, folds, members
from nlpmeta.sources.file import texts_of_file
from nlpmeta.sources.loading import load_source, open_if_possible
from nlpmeta.training import EpisodeTasks, TrainTasks

_CHOICE = 4  # a stream of random numbers of its own: which texts of a large set are read


def training_sampler(
    parts: Sequence[TrainTasks], *, seed: int, data_dir: Path | None, mask: str | None = None
) -> MixtureSampler:
    """Episodes from all parts, in the shares that their weights say; ``mask`` is the encoder's mask token."""
    samplers = [sampler_of(part, seed=seed, data_dir=data_dir, mask=mask) for part in parts]
    return MixtureSampler(samplers, weights=[part.weight for part in parts], seed=seed)


def sampler_of(part: EpisodeTasks, *, seed: int, data_dir: Path | None, mask: str | None = None) -> Sampler:
    """The episodes of one part.

    Raises:
        NLPMetaError: if no language of it can fill an episode, or the encoder has no mask token and the part needs one.
    """
    plain: Sampler
    if is_collection(part) and part.reads_labels:
        plain = many_sets_sampler(part, seed=seed, data_dir=data_dir)
    elif part.reads_labels:
        plain = _plain_sampler(part, seed=seed, data_dir=data_dir)
    else:
        plain = _sampler_without_labels(part, raw_texts(part, seed=seed, data_dir=data_dir), seed=seed, mask=mask)
    chosen = DifficultySampler(plain, share=part.hard_share, seed=seed) if part.hard_share else plain
    merged = MergedClassesSampler(chosen, share=part.merge_share, seed=seed) if part.merge_share else chosen
    vocabulary = plain.label_names if isinstance(plain, ManySetsSampler) else ()
    return _with_fewer_clues(_unbalanced(merged, part, seed), part, seed, vocabulary)


def _unbalanced(sampler: Sampler, part: EpisodeTasks, seed: int) -> Sampler:
    share = part.imbalanced_share
    if not share:
        return sampler
    both = [sampler, ImbalancedSampler(sampler, shots=LongTail(), seed=seed)]
    return MixtureSampler(both, weights=[1 - share, share], seed=seed)


def _with_fewer_clues(sampler: Sampler, part: EpisodeTasks, seed: int, vocabulary: Sequence[str]) -> Sampler:
    shares = ClueShares(part.names_only_share, part.missing_share, part.withheld_share, part.replaced_share)
    if shares == ClueShares():
        return sampler
    return ClueSampler(sampler, shares=shares, plain_names=readable_names, vocabulary=vocabulary, seed=seed)


def _plain_sampler(part: EpisodeTasks, *, seed: int, data_dir: Path | None) -> Sampler:
    pool = read_pool(part, data_dir=data_dir)
    n_way, n_shot, n_query = part.range_of("n_way"), part.range_of("n_shot"), part.n_query
    if part.kind == "crosslingual":
        return CrossLingualSampler(
            pool,
            n_way=n_way,
            n_shot=n_shot,
            n_query=n_query,
            seed=seed,
            support_langs=part.support_langs,
            query_langs=part.query_langs,
        )
    if part.kind == "users":
        return UserSampler(pool, n_way=n_way, n_shot=n_shot, n_query=n_query, seed=seed)
    if part.kind == "spam-windows":
        return SpamSampler([pool], n_shot=n_shot, n_query=n_query, seed=seed, n_windows=part.n_windows)
    by_language = split_by(pool, "langs") if pool.langs is not None else {"": pool}
    if not part.split_share:
        return _one_language_each(by_language, part, seed)
    need = part.range_of("n_shot").high + part.n_query
    finer = {lang: split_classes(each, need=need) for lang, each in by_language.items()}
    both = [_one_language_each(pools, part, seed) for pools in (by_language, finer)]
    return MixtureSampler(both, weights=[1 - part.split_share, part.split_share], seed=seed)


def _sampler_without_labels(part: EpisodeTasks, texts: list[str], *, seed: int, mask: str | None) -> Sampler:
    n_way, n_shot, n_query = part.range_of("n_way"), part.range_of("n_shot"), part.n_query
    if part.kind == "clusters":
        return ClusterSampler(
            texts,
            n_way=n_way,
            n_shot=n_shot,
            n_query=n_query,
            seed=seed,
            n_clusters=part.n_clusters,
            n_partitions=part.n_partitions,
            letter_groups=part.letter_groups,
            telling_names=part.telling_names,
        )
    if mask is None:
        raise NLPMetaError(f"Tasks of the kind {part.kind} need an encoder whose tokenizer has a mask token.")
    kind = MaskedWordSampler if part.kind == "masked-words" else SentenceViewSampler
    return kind(texts, n_way=n_way, n_shot=n_shot, n_query=n_query, seed=seed, mask=mask)


def raw_texts(part: EpisodeTasks, *, seed: int, data_dir: Path | None) -> list[str]:
    """The texts of a part and nothing else of it: distinct after normalisation, at most ``n_texts``, in their order.

    Raises:
        DataError: if there are none.
    """
    texts: Iterable[str]
    if part.file is not None:
        texts = texts_of_file(Path(part.file))
    elif is_collection(part):
        texts = (text for each in read_parts(part, data_dir=data_dir) for text in each.pool.texts)
    else:
        texts = read_pool(part, data_dir=data_dir).texts
    distinct = list({fingerprint(text): text for text in texts}.values())
    if not distinct:
        raise DataError(f"{part.file or part.source} holds no texts.")
    if len(distinct) <= part.n_texts:
        return distinct
    chosen = generator(seed, 0, stream=_CHOICE).choice(len(distinct), part.n_texts, replace=False)
    return [distinct[row] for row in np.sort(chosen)]


def read_pool(part: EpisodeTasks, *, data_dir: Path | None) -> LabeledTexts:
    """The texts of one part: all its languages, without what it leaves out."""
    source = load_source(part.source, data_dir=data_dir)
    split = POOL_SPLIT if part.fold is not None else part.split
    pools = [_with_sound_ids(source.load(lang, split)) for lang in _languages(part, source, split)]
    pool = LabeledTexts.concatenate(pools) if len(pools) > 1 else pools[0]
    barred = [*part.leave_out_labels, *_labels_like(pool.label_names, part.leave_out_labels_of, data_dir)]
    if barred:
        pool = leave_out(pool, labels=barred)
    wanted = _wanted_labels(part, data_dir)
    return pool if wanted is None else pool.with_classes([name for name in pool.label_names if name in wanted])


def _with_sound_ids(pool: LabeledTexts) -> LabeledTexts:
    """The pool without its ids where these repeat within one language: they then do not name sentences."""
    return replace(pool, ids=None) if pool.ids is not None and len(set(pool.ids)) < len(pool) else pool


def _languages(part: EpisodeTasks, source: Source, split: str) -> list[str | None]:
    """The languages to read as the source spells them; a source that says none is read whole."""
    known = source.languages()
    if not known:
        return [None]
    barred = {_code(lang) for lang in part.leave_out_langs}
    if part.langs is not None:
        chosen = [source.spelling(lang) for lang in part.langs]
    else:
        chosen = [lang for lang in known if split in source.splits(lang)]
    kept = [lang for lang in chosen if _code(lang) not in barred]
    if not kept:
        raise DataError(f"No language of {part.source} is left for split {split!r}; it has {', '.join(known)}.")
    return list(kept)


def _wanted_labels(part: EpisodeTasks, data_dir: Path | None) -> set[str] | None:
    wanted = None if part.labels is None else set(part.labels)
    if part.fold is None:
        return wanted
    published = folds(part.source, data_dir)
    if part.fold >= len(published):
        raise DataError(f"{part.source} has folds 0 to {len(published) - 1}; fold {part.fold} was requested.")
    of_fold = set(getattr(published[part.fold], part.part))
    return of_fold if wanted is None else wanted & of_fold


def _labels_like(names: Sequence[str], others: Sequence[str], data_dir: Path | None) -> list[str]:
    """Those of ``names`` that one of the other data sets has as well, spelling aside."""
    taken: set[str] = set()
    for other in others:
        source = load_source(other, data_dir=data_dir)
        lang = next(iter(source.languages()), None)
        taken |= {_plain(name) for split in source.splits(lang)[:1] for name in source.load(lang, split).label_names}
    return [name for name in names if _plain(name) in taken]


def _one_language_each(pools: Mapping[str, LabeledTexts], part: EpisodeTasks, seed: int) -> Sampler:
    """Episodes within one language, languages balanced; ways end at what a language has, poorer ones are left out."""
    n_way, n_shot = part.range_of("n_way"), part.range_of("n_shot")
    samplers, sizes, most = [], [], 0
    for each in pools.values():
        rich = len(Index(each, sentences=sentences_of(each)).rich(n_shot.high + part.n_query))
        most = max(most, rich)
        if rich >= n_way.low:
            ways = Range(n_way.low, min(n_way.high, rich))
            samplers.append(EpisodeSampler([each], n_way=ways, n_shot=n_shot, n_query=part.n_query, seed=seed))
            sizes.append(len(each))
    if not samplers:
        raise NLPMetaError(
            f"{part.source}: no language has {n_way.low} classes with {n_shot.high + part.n_query} distinct texts; the "
            f"richest has {most}. Lower n_way, n_shot or n_query of this part."
        )
    weights = temperature_weights(sizes, temperature=part.language_temperature)
    return MixtureSampler(samplers, weights=weights, seed=seed)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")


def _code(lang: str) -> str:
    return languages.parse(lang).code


def is_collection(part: EpisodeTasks) -> bool:
    """Whether a part reads many data sets."""
    return part.source in collections()


def sets_of(part: EpisodeTasks) -> tuple[str, ...]:
    """The names of the data sets that a part reads."""
    return members(part.source, kinds=part.kinds, leave_out=part.leave_out) if is_collection(part) else (part.source,)


def many_sets_sampler(part: EpisodeTasks, *, seed: int, data_dir: Path | None) -> ManySetsSampler:
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


def read_parts(part: EpisodeTasks, *, data_dir: Path | None) -> list[SetPart]:
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


def _barred(part: EpisodeTasks, names: tuple[str, ...], data_dir: Path | None) -> set[str]:
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
