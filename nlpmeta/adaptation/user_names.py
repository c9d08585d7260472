"""What may be the name of a user: a text of some length that is one line and can be written."""

import unicodedata
from typing import TypeGuard

from nlpmeta.errors import DataError, visible
from nlpmeta.inputs import values_of

LONGEST = 1000  # bytes in UTF-8
_NOT_IN_NAMES = {"Cc", "Cs", "Zl", "Zp"}  # control characters, half characters, ends of lines


def checked_user(user: object) -> str:
    """``user``, if it can be a name.

    Raises:
        DataError: says why it cannot.
    """
    if not isinstance(user, str):
        raise DataError(
            f"The name of a user must be a text; got {visible(repr(user), 60)} ({visible(type(user).__name__, 30)})."
        )
    if not user:
        raise DataError("The name of a user must not be empty.")
    if len(user) > LONGEST or len(user.encode("utf-8", "replace")) > LONGEST:
        raise DataError(
            f"The name of a user may have {LONGEST} bytes; {visible(repr(user[:40]))}… has {len(user):,} characters."
        )
    wrong = next((c for c in user if unicodedata.category(c) in _NOT_IN_NAMES), None)
    if wrong is not None:
        what = "half a character" if unicodedata.category(wrong) == "Cs" else "a control character"
        raise DataError(f"The name of a user must be one line of text; {visible(repr(user), 60)} holds {what}.")
    return str(user)


def is_user(user: object) -> TypeGuard[str]:
    """Whether ``user`` can be the name of a user."""
    try:
        checked_user(user)
    except DataError:
        return False
    return True


def checked_users(users: object, *, n_texts: int) -> list[str]:
    """The users of some texts, one each.

    Raises:
        DataError: if there are not as many as texts, or one cannot be a name.
    """
    if isinstance(users, str):
        raise DataError(f"{n_texts} texts need a user each; got one name, not a list of names.")
    given = values_of(users, name="users", what="users")
    if len(given) != n_texts:
        raise DataError(f"{n_texts} texts need a user each; got {len(given)}.")
    return [checked_user(user) for user in given]
