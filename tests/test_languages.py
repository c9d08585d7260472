import pytest

from nlpmeta.data.languages import UnknownLanguageError, match, parse


@pytest.mark.parametrize("asked", ["sw", "swa", "sw-KE", "swh_Latn", "Swahili", "swahili", "SWA"])
@pytest.mark.parametrize("spelling", ["sw", "swa", "sw-KE", "swh_Latn"])
def test_every_spelling_of_swahili_finds_every_other(asked, spelling):
    assert parse(asked).code == "sw"
    assert match(asked, ["en", spelling, "zu"], where="Here") == spelling


def test_the_closest_of_several_members_of_a_macrolanguage_is_taken():
    arabic = ["acq_Arab", "arb_Arab", "arz_Arab"]
    assert match("ar", arabic, where="Here") == "arb_Arab"
    assert match("arz", arabic, where="Here") == "arz_Arab"
    assert match("arz_Arab", arabic, where="Here") == "arz_Arab"


def test_members_of_a_macrolanguage_stand_for_the_whole():
    assert match("orm", ["gaz_Latn"], where="Here") == "gaz_Latn"
    assert match("zh", ["zho_Hans", "zh-CN"], where="Here") == "zho_Hans"


def test_an_unknown_language_names_the_nearest_and_all_that_there_are():
    said = r"no language named 'swahilli'.*Did you mean sw \(Swahili\).*zu \(Zulu\)"
    with pytest.raises(UnknownLanguageError, match=said):
        match("swahilli", ["sw", "zu"], where="The corpus")


def test_a_known_language_without_texts_is_said_to_have_none():
    with pytest.raises(UnknownLanguageError, match=r"The corpus has no texts in 'fi'.*It has: sw \(Swahili\)"):
        match("fi", ["sw"], where="The corpus")


def test_what_no_standard_knows_is_not_a_language():
    with pytest.raises(UnknownLanguageError, match="'qqqq' is not a language code or name"):
        parse("qqqq")
