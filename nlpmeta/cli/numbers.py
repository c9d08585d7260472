"""Numbers that were typed between commas."""


def whole_numbers(asked: str, option: str) -> list[int]:
    """Whole numbers from 1, between commas.

    Raises:
        NLPMetaError: if one is none.
    """
    return [whole_number(part, option) for part in asked.split(",")]


def whole_number(asked: str, option: str) -> int:
    """A whole number from 1.

    Raises:
        NLPMetaError: if it is none.
    """
    from nlpmeta.errors import NLPMetaError

    text = asked.strip()
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise NLPMetaError(f"{option} takes whole numbers from 1, between commas; got {asked!r}.")
    return int(text)
