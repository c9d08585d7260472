"""Rows that are treated otherwise than the rest, counted, with the line of the first."""

from collections.abc import Sequence
from dataclasses import dataclass

from nlpmeta.data import LabeledTexts
from nlpmeta.episodes.kshot import KShotSampler

_KEPT = {True: "all are kept", False: "a draw takes a text of a class once"}


@dataclass(frozen=True)
class Account:
    """What happened to some rows of a file: a word for programs and a sentence for people.

    ``line`` is the line of the first of them, its row where the source has no lines.
    """

    file: str
    what: str
    count: int
    line: int
    said: str

    def json(self) -> dict[str, str | int]:
        """Without the sentence."""
        return {"file": self.file, "what": self.what, "count": self.count, "first_line": self.line}

    def __str__(self) -> str:
        return self.said


def accounts_of(sampler: KShotSampler, *, data: str, test_data: str | None) -> list[Account]:
    """What a sampler does with rows of ``data`` that are not simply examples; what is not said is used as it is.

    Args:
        sampler: of the draws.
        data: what to call its pool.
        test_data: what to call its test texts, if it has any.
    """
    pool, whole = sampler.pool, sampler.n_shot is None
    test = test_data or "the test data"
    left_over = [] if sampler.test is not None or whole else sampler.not_scored(0)
    unmeasured = [] if sampler.test is None else sampler.rows_without_support
    found = [
        _account(pool, repeats(pool), data, "repeats", f"repeat an earlier one with the same label; {_KEPT[whole]}"),
        _account(pool, several_labels(pool), data, "several_labels", "have a text that several labels have; all kept"),
        _account(
            pool, sampler.in_test, data, "in_test", f"are in {test} too, but for case and digits; left out of support"
        ),
        _account(
            pool, sampler.rare_rows, data, "too_few", f"of classes with fewer than {sampler.n_shot} examples; left out"
        ),
        _account(
            pool, left_over, data, "not_scored", "repeat a support text but for case and digits; draw 1 skips them"
        ),
    ]
    if sampler.given_test is not None:
        said = "of classes without support; not scored"
        found.append(_account(sampler.given_test, unmeasured, test, "no_support", said))
    return [each for each in found if each is not None]


def repeats(pool: LabeledTexts) -> list[int]:
    """The rows with a text and a label that an earlier row has."""
    seen: set[tuple[str, int]] = set()
    rows = []
    for row, pair in enumerate(zip(pool.texts, pool.labels, strict=True)):
        if pair in seen:
            rows.append(row)
        seen.add(pair)
    return rows


def several_labels(pool: LabeledTexts) -> list[int]:
    """The rows whose text is there under another label too."""
    labels: dict[str, set[int]] = {}
    for text, label in zip(pool.texts, pool.labels, strict=True):
        labels.setdefault(text, set()).add(label)
    return [row for row, text in enumerate(pool.texts) if len(labels[text]) > 1]


def _account(data: LabeledTexts, rows: Sequence[int], file: str, what: str, said: str) -> Account | None:
    if not rows:
        return None
    line = int(data.lines[rows[0]]) if data.lines is not None else rows[0] + 1
    place, some = "line" if data.lines is not None else "row", "row" if len(rows) == 1 else "rows"
    return Account(file, what, len(rows), line, f"{file}: {len(rows)} {some} (first: {place} {line}) {said}.")
