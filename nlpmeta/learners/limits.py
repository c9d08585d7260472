"""What the numbers that a method is built with may be."""

from nlpmeta.errors import NLPMetaError
from nlpmeta.settings import LARGEST_OPTION

SMALLEST = 1e-6


def check_positive(**numbers: float | None) -> None:
    """See that rates, temperatures and weights are finite and above zero; ``None`` is left to the method.

    Raises:
        NLPMetaError: names the first that is not.
    """
    for name, value in numbers.items():
        if value is not None and not SMALLEST <= value <= LARGEST_OPTION:  # false for what is no number, too
            raise NLPMetaError(
                f"{name} must be positive, a finite number from {SMALLEST:g} to {LARGEST_OPTION}; got {value!r}."
            )


def check_share(**numbers: float) -> None:
    """See that shares are from 0 to 1.

    Raises:
        NLPMetaError: names the first that is not.
    """
    for name, value in numbers.items():
        if not 0 <= value <= 1:
            raise NLPMetaError(f"{name} is a share from 0 to 1; got {value!r}.")
