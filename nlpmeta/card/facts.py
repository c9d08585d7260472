"""What a card says, as values; nothing in a card is there that is not in one of these."""

from dataclasses import dataclass, field

from nlpmeta.errors import NLPMetaError


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """A data set: ``hub_id`` is its name on the Hub, if it is there."""

    name: str
    title: str
    licence: str
    citation: str
    hub_id: str | None = None
    hub_revision: str | None = None


@dataclass(frozen=True)
class Score:
    """A share (fraction of 1) with its 95 % interval: the half-width over draws, or the ends of a share of texts."""

    mean: float
    ci95: float | None = None
    ends: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.mean <= 1:
            raise NLPMetaError(f"A score is a fraction of 1; got {self.mean}.")

    def said(self) -> str:
        """In percent, with the interval."""
        if self.ends is not None:
            return f"{100 * self.mean:.1f} ({100 * self.ends[0]:.1f} to {100 * self.ends[1]:.1f})"
        return f"{100 * self.mean:.1f}" + (f" ± {100 * self.ci95:.1f}" if self.ci95 is not None else "")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How good the model was on one data set when it was made. ``curve`` has a score for each number of shots.

    ``scored`` says in words how many draws or folds and texts the figures are of; ``few`` that these texts are few.
    """

    data: DataFacts
    split: str | None
    scored_on: str
    accuracy: Score
    macro_f1: Score | None
    n_shot: int | None
    scored: str
    few: str | None
    chance: float | None
    baseline: Score | None
    baseline_name: str | None
    calibration_error: float | None
    confused: tuple[tuple[str, str, int], ...] = ()
    curve: tuple[tuple[int, Score], ...] = ()


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """All that a card says about a model. Languages are the shortest ISO 639 codes."""

    kind: str
    method: str
    encoder: str
    encoder_revision: str | None
    version: str
    labels: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    licence: str | None = None
    n_support: int | None = None
    support_is_published: bool = False
    data: DataFacts | None = None
    trained_on: tuple[DataFacts, ...] = ()
    held_out_languages: tuple[str, ...] = ()
    measured: Measurement | None = None
    mismatch: tuple[str, ...] = ()
    has_picture: bool = False
    bytes: int = 0
    files: tuple[str, ...] = field(default=())
