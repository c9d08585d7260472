"""The answers to a stream, checked before anything is learned: tickets that are awaited, labels that are classes."""

from collections.abc import Container, Sequence

from nlpmeta.errors import DataError, UnknownNameError, visible
from nlpmeta.inputs import values_of
from nlpmeta.labels import kind_of


def checked_answers(
    tickets: object, labels: object, *, awaited: Container[int], known: Sequence[object]
) -> list[tuple[int, int]]:
    """Each ticket with the number of its class, in their order; takes time in proportion to the tickets.

    Args:
        tickets: whole numbers, in a list, array, series or iterator.
        labels: as many, of the kind of ``known``.
        awaited: the tickets whose labels are awaited.
        known: the classes.

    Raises:
        DataError: if there are not as many labels as tickets, or a ticket is no number, unknown, or answered already.
        UnknownNameError: if a label is none of the classes.
    """
    asked = values_of(tickets, name="tickets", what="tickets")
    given = values_of(labels, name="labels", what="labels")
    if len(asked) != len(given):
        raise DataError(f"{len(asked)} tickets came with {len(given)} labels.")
    number = {label: i for i, label in enumerate(known)}
    answers: dict[int, int] = {}
    for ticket, label in zip(asked, given, strict=True):
        if kind_of(ticket) is not int:
            shown = f"{visible(repr(ticket), 60)} ({type(ticket).__name__})"
            raise DataError(f"A ticket is the whole number that receive gave out; got {shown}.")
        key = int(ticket)  # type: ignore[call-overload]  # numpy's whole numbers too
        if key not in awaited or key in answers:
            raise DataError(
                f"Ticket {visible(repr(ticket), 60)} is not awaited: it was never given out, or has its label already."
            )
        answers[key] = _number_of(label, number, known)
    return list(answers.items())


def _number_of(label: object, number: dict[object, int], known: Sequence[object]) -> int:
    try:
        found = number.get(label)
    except TypeError:  # a list or another thing that no class can be
        found = None
    if found is None or (kind_of(label) is bool) != (kind_of(known[0]) is bool):  # True is equal to 1
        raise UnknownNameError("class", str(label), [str(each) for each in known])
    return found
