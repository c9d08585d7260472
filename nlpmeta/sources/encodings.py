"""The encoding of a file of text: recognised where that is certain, guessed only for advice."""

import codecs
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from nlpmeta.errors import DataError, visible

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GUESSED = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *("cp874", "cp932", "gb18030", "big5", "cp949", "euc_jp", "koi8_r"),
)
_LINES_FOR_A_GUESS = 200


def named_encoding(name: str) -> str:
    """Python's name of an encoding of text.

    Raises:
        DataError: if there is no such encoding.
    """
    try:
        "a".encode(name)
        found = codecs.lookup(name).name
    except (LookupError, ValueError) as error:
        raise DataError(
            f"There is no encoding {visible(repr(name))}; known are utf-8, utf-16, cp1252 (Western Windows), latin-1, "
            "cp1251 (Cyrillic), gb18030 (Chinese), shift_jis (Japanese) and others that Python knows."
        ) from error
    return "utf-8-sig" if found == "utf-8" else found


def recognised(sample: bytes) -> str:
    """The encoding that the beginning of a file shows: by its mark or, for UTF-16, by its zeros; else UTF-8."""
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return name
    high, low = sample[::2].count(0), sample[1::2].count(0)
    for name, mine, other in (("utf-16-le", low, high), ("utf-16-be", high, low)):
        if mine > 4 * other and {"\n", "\r"} & set(sample.decode(name, errors="ignore")):
            return name
    return "utf-8-sig"


def undecodable(path: Path, encoding: str, error: UnicodeError, lines: Iterable[bytes]) -> str:
    """The line that is not in ``encoding``, and what to do: for UTF-8 the encoding that it is most like."""
    spelled = {"utf-8-sig": "UTF-8"}.get(encoding, encoding)
    if encoding.startswith(("utf-16", "utf-32")):
        return f"{path} is not {spelled} throughout ({error}). Name its encoding with --encoding."
    for number, line in enumerate(lines, start=1):
        try:
            line.decode(encoding)
        except UnicodeDecodeError as wrong:
            said = f"{path}, line {number}: byte 0x{line[wrong.start]:02x} is not {spelled}."
            if encoding != "utf-8-sig":
                return f"{said} Name another encoding with --encoding, or leave it out if the file is UTF-8."
            guess = _guess([line, *islice(lines, _LINES_FOR_A_GUESS)])
            return (
                f"{said} Read as {guess} the line is {visible(repr(line.decode(guess).strip()))}; if that is right, "
                f"pass --encoding {guess} (in Python encoding={guess!r})."
            )
    return f"{path} is not {spelled} ({error})."


def _guess(lines: Iterable[bytes]) -> str:
    """The encoding that these lines are most like; of two that are as likely, that of Western Windows."""
    from charset_normalizer import from_bytes

    telling = b"".join(line for line in lines if not line.isascii())
    found = from_bytes(telling, cp_isolation=list(_GUESSED))
    best = found.best()
    if best is None:
        return "latin-1"
    for each in found:
        is_western = each.encoding == "cp1252" or (each is best and "cp1252" in each.could_be_from_charset)
        if is_western and (each.chaos, -each.coherence) <= (best.chaos, -best.coherence):
            return "cp1252"
    return str(best.encoding)
