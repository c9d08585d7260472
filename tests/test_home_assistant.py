"""Sentences drawn from Home Assistant's templates: limits, determinism, and agreement with hassil's own enumeration."""

import re
import sys
from collections import Counter

import pytest

hassil = pytest.importorskip("hassil")
pytest.importorskip("home_assistant_intents")

from hassil.intents import Intents, RangeSlotList, RangeType, TextSlotList  # noqa: E402
from hassil.parse_expression import parse_sentence  # noqa: E402
from hassil.sample import sample_expression  # noqa: E402
from timing import cpu_seconds  # noqa: E402

from nlpmeta.data.languages import UnknownLanguageError  # noqa: E402
from nlpmeta.episodes import fingerprints, generator  # noqa: E402
from nlpmeta.errors import NLPMetaError  # noqa: E402
from nlpmeta.sources.home_assistant import HomeAssistantIntents  # noqa: E402
from nlpmeta.sources.loading import load_source  # noqa: E402
from nlpmeta.sources.templates import Templates, likely_numbers, parse_templates  # noqa: E402

LISTS = {
    "color": TextSlotList.from_strings(["red", "(dark|light) blue"], name="color"),
    "minutes": RangeSlotList(name="minutes", start=1, stop=100),
}
RULES = {"light": parse_sentence("light[s]"), "set": parse_sentence("(set|turn)"), "room": parse_sentence("in {area}")}


@pytest.fixture(scope="module")
def source():
    return HomeAssistantIntents()


def draws(template, count=200, lists=LISTS, rules=RULES):
    templates, rng = Templates(lists, rules), generator(0, 0)
    expression = parse_sentence(template).expression
    assert templates.can_draw(expression)
    return {templates.draw(expression, rng) for _ in range(count)}


@pytest.mark.parametrize("template", [
    "turn (on|off) [the] <light>",
    "<set> <light> to {color}",
    "(set;the light) now",
    "[please] (dim|<set>) ([all] <light>;to {color})",
    "the {color} <light>[ now]",
])  # fmt: skip
def test_the_draws_are_the_sentences_that_hassil_enumerates(template):
    theirs = sample_expression(parse_sentence(template).expression, LISTS, RULES)
    assert draws(template, 2000) == {" ".join(sentence.split()) for sentence in theirs}


@pytest.mark.parametrize(("template", "possible"), [
    ("turn on {name}", False),
    ("turn on [{name}]", True),
    ("turn on <room>", False),
    ("turn on (<room>|here)", True),
    ("turn on <nowhere>", False),
    ("dim to {0..100:brightness}", True),
])  # fmt: skip
def test_only_what_needs_no_unknown_name_can_be_drawn(template, possible):
    assert Templates(LISTS, RULES).can_draw(parse_sentence(template).expression) is possible
    if possible:
        assert not any("{" in sentence or "area" in sentence for sentence in draws(template))


def test_rules_in_a_circle_cannot_be_drawn():
    circle = {"a": parse_sentence("x <b>"), "b": parse_sentence("y <a>")}
    assert not Templates({}, circle).can_draw(parse_sentence("<a>").expression)


def test_numbers_are_those_that_people_say():
    percent = RangeSlotList(name=None, start=0, stop=100, type=RangeType.PERCENTAGE)
    degrees = RangeSlotList(name=None, start=0, stop=100, type=RangeType.TEMPERATURE)
    assert set(likely_numbers("brightness", percent)) <= set(range(10, 101))
    assert set(likely_numbers("temperature", degrees)) <= set(range(15, 27))
    assert max(likely_numbers("timer_hours hours", RangeSlotList(name=None, start=1, stop=100))) <= 12
    assert list(likely_numbers("floor", RangeSlotList(name=None, start=1, stop=4))) == [1, 2, 3, 4]
    assert list(likely_numbers("hours", RangeSlotList(name=None, start=50, stop=52))) == [50, 51, 52]


def test_a_template_with_billions_of_sentences_is_drawn_from_at_once():
    options = "|".join(f"w{i}" for i in range(100))
    sentences = []
    seconds = cpu_seconds(lambda: sentences.append(draws(" ".join([f"({options})"] * 8), 50)))
    assert len(sentences[0]) == 50
    assert seconds < 1


def test_over_sixty_languages_with_swahili_under_any_name(source):
    assert len(source.languages()) > 60
    assert source.load("Swahili") == source.load("sw-KE")
    assert set(source.load("sw").langs) == {"sw"}


@pytest.mark.slow
@pytest.mark.parametrize("lang", ["en", "de", "sw", "zh-CN"])
def test_sentences_are_clean_distinct_and_limited(source, lang):
    loaded = source.load(lang)
    assert not [text for text in loaded.texts if re.search(r"[{}<>\[\]|]", text)]
    assert all(sum(map(str.isalpha, text)) >= 2 for text in loaded.texts)
    assert len(set(fingerprints(loaded.texts))) == len(loaded)
    assert max(loaded.counts().values()) <= source.max_per_intent
    assert loaded.domains is not None
    assert dict(zip(loaded.names(), loaded.domains, strict=True))["HassTurnOn"] == "homeassistant"


def test_the_same_seed_gives_the_same_and_another_seed_another(source):
    assert HomeAssistantIntents().load("hi") == source.load("hi")
    other = HomeAssistantIntents(seed=1).load("hi")
    assert other.texts != source.load("hi").texts
    assert abs(len(other) - len(source.load("hi"))) < 30


def test_a_language_does_not_depend_on_what_was_read_before(source):
    fresh = HomeAssistantIntents(only=("is", "th"))
    fresh.load("th")
    assert fresh.load("is") == source.load("is")
    assert fresh.languages() == ("is", "th")


@pytest.mark.parametrize("most", [1, 2])
def test_no_template_gives_more_than_its_share(most):
    """Each sentence is traced back to the templates that could have made it, by hassil's own enumeration."""
    from home_assistant_intents import get_intents

    loaded = HomeAssistantIntents(max_per_template=most, max_per_intent=10_000, only=("sw",)).load("sw")
    parsed = Intents.from_dict(get_intents("sw"))
    made = Counter()
    for intent in parsed.intents.values():
        for i, template in enumerate(t for block in intent.data for t in block.sentences):
            if not set(template.list_names(parsed.expansion_rules)):
                possible = set(sample_expression(template.expression, {}, parsed.expansion_rules))
                made[intent.name, i] = len({" ".join(each.split()) for each in possible} & set(loaded.texts))
    assert made
    assert sum(made.values()) >= len(loaded)
    assert len(loaded) <= most * sum(count > 0 for count in made.values())


def test_each_template_is_used_before_any_is_used_twice():
    one = HomeAssistantIntents(max_per_template=1, max_per_intent=10_000, only=("af",)).load("af")
    three = HomeAssistantIntents(max_per_template=3, max_per_intent=10_000, only=("af",)).load("af")
    few = HomeAssistantIntents(max_per_template=3, max_per_intent=4, only=("af",)).load("af")
    assert len(one) < len(three)
    assert max(few.counts().values()) == 4
    for name, count in one.counts().items():
        assert count <= few.counts()[name] or few.counts()[name] == 4


def test_the_report_counts_intents_templates_and_sentences(source):
    from home_assistant_intents import get_intents

    record = get_intents("af")
    found = source.yields("af")
    assert found.intents == len(record["intents"])
    assert found.templates == sum(len(b["sentences"]) for i in record["intents"].values() for b in i["data"])
    assert found.sentences == len(source.load("af"))
    assert found.usable_intents == source.load("af").n_way
    assert 0 < found.usable_templates < found.templates


def test_one_language_takes_less_than_two_seconds():
    # German has the most templates; every round reads and expands them from the start
    assert cpu_seconds(lambda: HomeAssistantIntents(only=("de",)).load("de")) < 2


def test_parsing_keeps_every_intent():
    from home_assistant_intents import get_intents

    assert set(parse_templates(get_intents("en"))) == set(get_intents("en")["intents"])


def test_limits_below_one_and_unknown_languages_are_refused():
    with pytest.raises(NLPMetaError, match="At least one sentence"):
        HomeAssistantIntents(max_per_template=0)
    with pytest.raises(NLPMetaError, match="At least one sentence"):
        HomeAssistantIntents(max_per_intent=0)
    with pytest.raises(UnknownLanguageError, match="Swahili"):
        HomeAssistantIntents(only=("swahilli",))


def test_missing_packages_are_named_with_the_extra_that_brings_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "home_assistant_intents", None)
    with pytest.raises(NLPMetaError, match=r"pip install 'nlpmeta\[offline\]'"):
        load_source("home-assistant")
