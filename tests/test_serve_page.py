"""The teaching page in a real browser: from naming classes to a downloaded model, by keyboard, narrow and dark."""

import json
import os
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import PATH
from conftest import TOPICS, make_encoder
from serving import served

from nlpmeta import FewShotClassifier
from nlpmeta.learners.base import learners
from nlpmeta.learners.start import starting_learner
from nlpmeta.sources.home_assistant import FOLDER

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PATH is None, reason="needs Chromium: apt-get install chromium"),
]
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CLASSES = {
    "alarm_set": "set, change or cancel an alarm",
    "play_music": "play a song, an album or a radio station",
    "transfer_money": "send money to somebody",
    "weather": "ask what the weather will be",
}
ARABIC = "من فضلك اضبط المنبه على السابعة"


def shot(page, folder, name):
    """A picture, kept where ``NLPMETA_SCREENSHOTS`` says."""
    page.screenshot(path=Path(os.environ.get("NLPMETA_SCREENSHOTS", folder)) / f"{name}.png")


@contextmanager
def opened(url, *, width=1280, height=860, scheme="light"):
    """A page of the server, what its console said, and what it asked of other servers."""
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = driver.chromium.launch(executable_path=PATH, args=options)
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(120_000)
        said = []
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request", lambda request: said.append(request.url) if not request.url.startswith((url, "blob:")) else None
        )
        page.goto(url)
        page.wait_for_selector("body[data-ready=yes]")
        yield page
        assert said == []
        browser.close()


def begin(page, classes, texts, name="assistant"):
    page.fill("#name", name)
    for place, (label, said) in enumerate(classes.items()):
        if place > 1:
            page.click("#more")
        page.locator(".draft .label").nth(place).fill(label)
        page.locator(".draft .said").nth(place).fill(said)
    if texts:
        page.fill("#paste", "\n".join(texts))
    page.click("#begin")
    page.wait_for_selector("#work:not([hidden])")
    learned(page)


def learned(page):
    page.wait_for_timeout(300)
    page.wait_for_selector("#learning:empty", state="attached")


def faults(page):
    """Serious faults that axe-core finds."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]


def examples():
    rows = [json.loads(line) for line in (FOLDER / "intents" / "en.jsonl").read_text("utf-8").splitlines()]
    return [(row["text"], row["label"]) for name in CLASSES for row in [r for r in rows if r["label"] == name][:8]]


@pytest.mark.packaged
def test_a_person_names_classes_corrects_answers_and_takes_a_model_along(tmp_path):
    pairs = examples()
    label_of, keys = dict(pairs), {name: str(place + 1) for place, name in enumerate(CLASSES)}
    with served(tmp_path / "models", starting_learner("auto")) as (url, _), opened(url) as page:
        assert faults(page) == []
        shot(page, tmp_path, "start")
        begin(page, CLASSES, [ARABIC, *label_of])
        assert page.locator("#text").evaluate("node => getComputedStyle(node).direction") == "rtl"
        answered = page.locator(".row .chip").all_text_contents()
        assert len(answered) >= 8 and "…" not in answered
        shot(page, tmp_path, "zero-shot")
        page.keyboard.press("ArrowDown")
        for _ in pairs:  # by keyboard alone
            page.keyboard.press(keys[label_of[page.locator("#text").text_content()]])
            page.wait_for_timeout(50)
        learned(page)
        page.wait_for_selector("#accuracy .figure")
        assert int(page.locator("#accuracy .figure").text_content().split()[0]) >= 70
        assert page.locator("#classes li").count() == 4 and "8" in page.locator("#classes li").first.text_content()
        playwright.expect(page.locator("#next button").first).to_have_text(ARABIC, timeout=60_000)
        page.locator("#next button").first.click()
        shot(page, tmp_path, "taught")
        assert faults(page) == []
        page.locator("#choices button").first.click()  # by a click
        learned(page)
        page.keyboard.press("u")
        learned(page)
        page.reload()
        page.wait_for_selector("body[data-ready=yes]")
        learned(page)
        assert page.locator("#model").input_value() == "assistant"
        assert page.locator("#shown").text_content() == "33 texts"
        page.select_option("#filter", "labelled")
        assert page.locator("#shown").text_content() == "32 texts"
        page.click("#take")
        assert "/v1/models/assistant/predict" in page.locator("#curl").text_content()
        with page.expect_download() as download:
            page.click("#download")
        download.value.save_as(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as file:
        file.extractall(tmp_path)
    model = FewShotClassifier.from_pretrained(tmp_path / "assistant")
    right = [guess == label for guess, label in zip(model.predict(list(label_of)), label_of.values(), strict=True)]
    assert sum(right) >= 30


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_page_has_nothing_beside_it_and_no_serious_fault(tmp_path, scheme):
    with (
        served(tmp_path / "models", learners["auto"](make_encoder()).eval()) as (url, _),
        opened(url, width=390, height=844, scheme=scheme) as page,
    ):
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        begin(page, TOPICS, [f"{a} {b}" for a in TOPICS["food"].split() for b in TOPICS["money"].split()], "narrow")
        page.locator("#choices button").first.click()
        learned(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        shot(page, tmp_path, f"narrow-{scheme}")
        assert faults(page) == []
        page.goto(f"{url}/docs")
        page.wait_for_selector("article")
        assert faults(page) == []


def test_five_thousand_texts_of_a_file_are_a_few_rows_in_the_document(tmp_path):
    words = " ".join(TOPICS.values()).split()
    texts = [f"{words[i % 12]} {words[i // 12 % 12]} {i}" for i in range(5000)]
    table = tmp_path / "texts.csv"
    table.write_text("id;text\n" + "".join(f'{i};"{text}, ""so"""\n' for i, text in enumerate(texts)), encoding="utf-8")
    with served(tmp_path / "models", learners["auto"](make_encoder()).eval()) as (url, _), opened(url) as page:
        page.set_input_files("#file", str(table))
        while not page.input_value("#paste"):
            page.wait_for_timeout(50)
        begin(page, TOPICS, [])
        assert page.locator("#shown").text_content() == "5,000 texts"
        assert page.locator(".row").first.locator(".words").text_content() == f'{texts[0]}, "so"'
        assert page.locator(".row").count() < 60
        page.keyboard.press("End")
        page.wait_for_selector("#row-4999.current")
        assert page.locator(".row").count() < 60


def test_a_token_is_asked_for_and_kept_for_the_tab_alone(tmp_path):
    from nlpmeta.serve.guard import read_tokens

    (tmp_path / "tokens").write_text("a-token-of-some-length\n")
    tokens = read_tokens(tmp_path / "tokens")
    with served(tmp_path / "models", learners["auto"](make_encoder()).eval(), tokens=tokens) as (url, _):
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=PATH, args=["--no-sandbox", "--disable-dev-shm-usage"])
            page = browser.new_page()
            page.goto(url)
            page.wait_for_selector("#ask[open]", timeout=60_000)
            page.fill("#token", "a-token-of-some-length")
            page.keyboard.press("Enter")
            page.wait_for_selector("#start:not([hidden])")
            assert page.evaluate("JSON.stringify({ ...localStorage })") == "{}"
            browser.close()
