"""What ``nlpmeta predict --why`` prints: a text, its label, and what the label hangs on."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from nlpmeta.cli.console import out, out_json, printable, say
from nlpmeta.cli.predict_output import Columns
from nlpmeta.cli.process import Wanted, given_texts
from nlpmeta.errors import NLPMetaError

if TYPE_CHECKING:
    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.classifier.explaining import ExampleEffect, Explanation

_WORDS, _EXAMPLES, _LONGEST = 5, 3, 70
_WORTH_SAYING = 0.0005
"""A drop that is printed as 0.1 points; smaller ones are noise."""


def give_reasons(wanted: Wanted, columns: Columns, load: "Callable[[], FewShotClassifier]") -> None:
    """Classify text after text and print why it got its label.

    Raises:
        NLPMetaError: if another kind of answer is requested as well, or the file cannot be read.
    """
    if columns != Columns() or wanted.out is not None or wanted.keep is not None:
        raise NLPMetaError(
            "--why goes with texts or --file, and with --json; give it without --top, --abstain, --out-of-scope, "
            "--threshold, --out and --keep."
        )
    if wanted.texts and wanted.file:
        raise NLPMetaError("Give texts or --file, not both.")
    source = given_texts(wanted.texts, wanted.file, wanted.text_column, wanted.form)
    classifier, noted = load(), set()
    for batch in source.batches:
        for given in batch:
            found = classifier.explain(given.text) if given.text.strip() else None
            if wanted.json:
                answer: dict[str, object] = {"label": None, "probability": None, "why": None}
                if found is not None:
                    answer |= {"label": found.label, "probability": found.probability, "why": found.json(_EXAMPLES)}
                out_json({"text": given.text, **answer})
            elif found is not None:
                _show(found, colours=sys.stdout.isatty())
                if found.note and found.note not in noted and not wanted.quiet:
                    say(f"Note: {found.note}")
                    noted.add(found.note)


def _show(found: "Explanation", *, colours: bool) -> None:
    out(f"{printable(found.label)}\t{found.probability:.3f}\t{_marked(found) if colours else _line(found.text)}")
    drops = [each for each in found.words if each.drop >= _WORTH_SAYING][:_WORDS]
    rises = [each for each in found.words[::-1] if each.drop <= -_WORTH_SAYING][:_WORDS]
    for said, words in (("less probable without", drops), ("more probable without", rises)):
        if words:
            named = ", ".join(f"{printable(each.word)} ({-100 * each.drop:+.1f})" for each in words)
            out(f"  {said}: {named}")
    if found.words and not drops and not rises:
        out("  no single word matters")
    for said, examples in (
        (f"for {found.label}", found.speak_for(_EXAMPLES)),
        (f"for {found.rather} instead", found.speak_against(_EXAMPLES)),
    ):
        for each in examples:
            out(f"  {printable(said)}: {abs(each.log_odds):.2f} {_example(each)}")
    out()


def _example(each: "ExampleEffect") -> str:
    text = each.text if len(each.text) <= _LONGEST else f"{each.text[: _LONGEST - 1].rstrip()}…"
    return f'{"the name " if each.is_name else ""}"{_line(text)}" [{printable(each.label)}]'


def _marked(found: "Explanation") -> str:
    """The text with the words that speak for the label in green and those against it in red."""
    strongest = max((abs(each.drop) for each in found.words), default=0.0)
    colour = {
        span: "32" if each.drop > 0 else "31"
        for each in found.words
        if abs(each.drop) >= max(_WORTH_SAYING, strongest / 4)
        for span in each.spans
    }
    parts, place = [], 0
    for (start, end), code in sorted(colour.items()):
        parts += [_line(found.text[place:start]), f"\x1b[1;{code}m{_line(found.text[start:end])}\x1b[0m"]
        place = end
    return "".join([*parts, _line(found.text[place:])])


def _line(text: str) -> str:
    return printable(text).replace("\n", "\\n")
