"""Episodes whose classes are all of one domain."""

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import DataError
from nlpmeta.sampling.base import Range, generator
from nlpmeta.sampling.index import Index
from nlpmeta.sampling.pools import split_by
from nlpmeta.sampling.shape import Shape


class DomainSampler:
    """Samples a domain uniformly, then all classes of the episode within it.

    Domains with fewer than ``n_way`` (its lower end, for a range) classes that have ``n_shot + n_query`` distinct texts
    are passed over; ``domains`` are those that are drawn. A range of ways ends at what the domain has.

    Raises:
        DataError: if the pool has no domains, or none has enough classes.
    """

    def __init__(self, pool: LabeledTexts, *, n_way: int | Range, n_shot: int | Range, n_query: int, seed: int) -> None:
        self.seed, self.shape = seed, Shape.of(n_way, n_shot, n_query)
        parts = {domain: Index(part) for domain, part in split_by(pool, "domains").items()}
        rich = {domain: part.rich(self.shape.need) for domain, part in parts.items()}
        self.domains = tuple(domain for domain, labels in rich.items() if len(labels) >= self.shape.n_way.low)
        if not self.domains:
            richest = max(rich, key=lambda domain: len(rich[domain]))
            raise DataError(
                f"No domain has {self.shape.n_way.low} classes of {self.shape.need} distinct texts; the richest of "
                f"{len(parts)}, {richest!r}, has {len(rich[richest])}. Lower n_way, n_shot or n_query."
            )
        self._parts, self._rich = parts, rich

    def episode(self, index: int) -> Episode:
        """Episode ``index``; support and query texts are grouped by class."""
        rng = generator(self.seed, index)
        domain = self.domains[int(rng.integers(len(self.domains)))]
        labels = self._rich[domain]
        n_way = self.shape.n_way.draw(rng, most=len(labels))
        n_shot = self.shape.n_shot.draw(rng)
        drawn = rng.choice(labels, size=n_way, replace=False)
        return self._parts[domain].episode(rng, drawn, n_shot, self.shape.n_query)
