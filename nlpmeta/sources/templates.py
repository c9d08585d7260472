"""Draw sentences from hassil templates: alternatives, optional words, lists and rules, without ever enumerating them.

``hassil.sample`` walks through all expansions of a template in order, which are billions for some; here each draw walks
down the parsed template once. A branch that needs a value nobody can know (the name of a room, of a lamp) is not taken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nlpmeta.episodes import fingerprint

if TYPE_CHECKING:
    from hassil.expression import Expression, ListReference, Sentence
    from hassil.intents import RangeSlotList, SlotList

T = TypeVar("T")
_TRIES = 4  # draws of a template before it counts as exhausted
_SYNTAX = frozenset("{}<>[]|\\")
_NUMBERS = (
    # a word in the name of a list, and what people say there
    ("hour", (1, 2, 3, 4, 5, 6, 8, 10, 12)),
    ("minute", (2, 3, 5, 10, 15, 20, 25, 30, 40, 45)),
    ("second", (10, 15, 20, 30, 40, 45, 50, 90)),
    ("color_temperature", (2200, 2700, 3000, 3500, 4000, 5000, 6500)),
    ("temperature", (16, 17, 18, 19, 20, 21, 22, 23, 24, 25)),
    ("step", (5, 10, 15, 20)),
)
_PERCENTAGES = (10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 100)


class Templates:
    """Templates of one language with the lists and rules that they refer to.

    Args:
        lists: the lists by name.
        rules: the expansion rules by name.
    """

    def __init__(self, lists: Mapping[str, "SlotList"], rules: Mapping[str, "Sentence"]) -> None:
        self._lists, self._rules = dict(lists), dict(rules)
        self._drawable: dict[str, bool] = {}

    def with_local(self, lists: Mapping[str, "SlotList"], rules: Mapping[str, "Sentence"]) -> "Templates":
        """The same, with the lists and rules of one block of templates before the common ones."""
        return Templates({**self._lists, **lists}, {**self._rules, **rules}) if lists or rules else self

    def can_draw(self, expression: "Expression") -> bool:
        """Whether some way through the template needs known values only."""
        from hassil.expression import Alternative, Group, ListReference, RuleReference

        if isinstance(expression, Alternative):
            return any(self.can_draw(item) for item in expression.items)
        if isinstance(expression, Group):
            return all(self.can_draw(item) for item in expression.items)
        if isinstance(expression, ListReference):
            return expression.is_inline_range or self._known(expression.list_name, self._list_values(expression))
        if isinstance(expression, RuleReference):
            rule = self._rules.get(expression.rule_name)
            return self._known(f"<{expression.rule_name}>", None if rule is None else [rule.expression])
        return True

    def draw(self, expression: "Expression", rng: np.random.Generator) -> str:
        """One sentence, each open branch equally likely; only for an expression that ``can_draw``."""
        return " ".join(self._draw(expression, rng).split())

    def _draw(self, expression: "Expression", rng: np.random.Generator) -> str:
        from hassil.expression import Alternative, Group, ListReference, Permutation, RuleReference, TextChunk

        if isinstance(expression, TextChunk):
            return expression.original_text
        if isinstance(expression, Alternative):
            return self._draw(_pick([item for item in expression.items if self.can_draw(item)], rng), rng)
        if isinstance(expression, Permutation):
            return "".join(self._draw(expression.items[i], rng) for i in rng.permutation(len(expression.items)))
        if isinstance(expression, Group):
            return "".join(self._draw(item, rng) for item in expression.items)
        if isinstance(expression, RuleReference):
            return self._draw(self._rules[expression.rule_name].expression, rng)
        if isinstance(expression, ListReference):
            return self._value(expression, rng)
        raise TypeError(f"hassil parsed a template into a {type(expression).__name__}, which is unknown here.")

    def _value(self, reference: "ListReference", rng: np.random.Generator) -> str:
        from hassil.intents import RangeSlotList

        inline = reference.get_inline_range()
        if inline is not None:
            return str(_pick(range(inline[0], inline[1] + 1, inline[2]), rng))
        values = self._lists[reference.list_name]
        if isinstance(values, RangeSlotList):
            return str(_pick(likely_numbers(f"{reference.list_name} {reference.slot_name}", values), rng))
        usable = [each for each in self._list_values(reference) or () if self.can_draw(each)]
        return self._draw(_pick(usable, rng), rng)

    def _list_values(self, reference: "ListReference") -> "list[Expression] | None":
        """What a list can be replaced by; ``None`` if only the owner of a home knows."""
        from hassil.expression import TextChunk
        from hassil.intents import RangeSlotList, TextSlotList

        values = self._lists.get(reference.list_name)
        if isinstance(values, TextSlotList):
            return [each.text_in for each in values.values]
        return [TextChunk("1")] if isinstance(values, RangeSlotList) else None

    def _known(self, key: str, ways: "list[Expression] | None") -> bool:
        """Whether any of ``ways`` can be drawn, remembered under ``key``; a circle of rules cannot."""
        if key not in self._drawable:
            self._drawable[key] = False
            self._drawable[key] = ways is not None and any(self.can_draw(each) for each in ways)
        return self._drawable[key]


@dataclass(frozen=True, eq=False)
class Template:
    """A parsed template with the lists and rules that it may refer to."""

    expression: "Expression"
    templates: Templates

    @property
    def is_usable(self) -> bool:
        """Whether it can be expanded with values that are known."""
        return self.templates.can_draw(self.expression)

    def new_sentence(self, seen: set[str], rng: np.random.Generator) -> str | None:
        """A sentence that is not among ``seen``, to which it is added; ``None`` if a few draws bring none."""
        for _ in range(_TRIES):
            text = self.templates.draw(self.expression, rng)
            mark = fingerprint(text)
            if mark not in seen and _is_sentence(text):
                seen.add(mark)
                return text
        return None


def parse_templates(record: dict[str, Any]) -> dict[str, list[Template]]:
    """The templates of every intent of one language's file of Home Assistant."""
    from hassil.intents import Intents

    parsed = Intents.from_dict(record)
    common = Templates(parsed.slot_lists, parsed.expansion_rules)
    found: dict[str, list[Template]] = {}
    for name, intent in parsed.intents.items():
        found[name] = []
        for block in intent.data:
            templates = common.with_local(block.slot_lists, block.expansion_rules)
            found[name] += [Template(sentence.expression, templates) for sentence in block.sentences]
    return found


def likely_numbers(name: str, values: "RangeSlotList") -> Sequence[int]:
    """The numbers of a range that people say: 20 degrees and 10 minutes, rather than 87 degrees and 97 hours."""
    from hassil.intents import RangeType

    everything = range(values.start, values.stop + 1, values.step)
    usual: tuple[int, ...] = _PERCENTAGES if values.type is RangeType.PERCENTAGE else ()
    for word, numbers in _NUMBERS:
        if word in name:
            usual = numbers
            break
    return [number for number in usual if number in everything] or everything


def _is_sentence(text: str) -> bool:
    return _SYNTAX.isdisjoint(text) and sum(map(str.isalpha, text)) >= 2


def _pick(options: Sequence[T], rng: np.random.Generator) -> T:
    return options[int(rng.integers(len(options)))]
