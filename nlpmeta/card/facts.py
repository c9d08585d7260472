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
    """A share (fraction of 1) with the half-width of its 95 % interval over draws, where there were several."""

    mean: float
    ci95: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.mean <= 1:
            raise NLPMetaError(f"A score is a fraction of 1; got {self.mean}.")

    def said(self) -> str:
        """In percent, with the interval."""
        return f"{100 * self.mean:.1f}" + (f" ± {100 * self.ci95:.1f}" if self.ci95 is not None else "")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How good the model was on one data set when it was made. ``curve`` has a score for each number of shots."""

    data: DataFacts
    split: str | None
    scored_on: str
    accuracy: Score
    macro_f1: Score | None
    n_shot: int | None
    draws: int
    n_query: int | None
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
