"""One task a user: learn one person's ratings from a few of them."""

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import DataError
from nlpmeta.sampling.base import Range, generator
from nlpmeta.sampling.index import Index
from nlpmeta.sampling.pools import split_by
from nlpmeta.sampling.shape import Shape


class UserSampler:
    """Samples a user uniformly, then support and query among the texts that this user rated.

    The classes are the user's own: those of which they have ``n_shot + n_query`` distinct texts. ``users`` are those
    that are drawn; the others have too few ratings or classes.

    Args:
        pool: ratings, a row each, with the column ``users``; the same text may be there once for each user.
        n_shot: support texts of each class.
        n_query: query texts of each class.
        seed: decides the draws.
        n_way: classes of an episode; a range ends at what the user has; by default all that the user has.
        min_ratings: users with fewer distinct rated texts are passed over.

    Raises:
        DataError: if the pool does not say who rated, or no user is left.
    """

    def __init__(
        self,
        pool: LabeledTexts,
        *,
        n_shot: int | Range,
        n_query: int,
        seed: int,
        n_way: int | Range | None = None,
        min_ratings: int = 1,
    ) -> None:
        self.seed, self.all_classes = seed, n_way is None
        self.shape = Shape.of(Range(2, max(2, pool.n_way)) if n_way is None else n_way, n_shot, n_query)
        parts = {user: Index(part) for user, part in split_by(pool, "users").items()}
        self._parts = {
            user: (part, rich)
            for user, part in parts.items()
            if len(rich := part.rich(self.shape.need)) >= self.shape.n_way.low and part.present.sum() >= min_ratings
        }
        self.users = tuple(self._parts)
        if not self.users:
            raise DataError(
                f"None of {len(parts)} users has {min_ratings} distinct rated texts or more and {self.shape.n_way.low} "
                f"classes of {self.shape.need}. Lower min_ratings, n_way, n_shot or n_query."
            )

    def episode(self, index: int) -> Episode:
        """Episode ``index``; support and query texts are grouped by class."""
        rng = generator(self.seed, index)
        part, labels = self._parts[self.users[int(rng.integers(len(self.users)))]]
        n_way = len(labels) if self.all_classes else self.shape.n_way.draw(rng, most=len(labels))
        n_shot = self.shape.n_shot.draw(rng)
        return part.episode(rng, rng.choice(labels, size=n_way, replace=False), n_shot, self.shape.n_query)
