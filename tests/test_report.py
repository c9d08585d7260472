import json
import math
import re
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
from bench_results import OURS, SETFIT, add_cell, full_folder, make_job
from browser import PATH, browser_page

from nlpmeta.bench import Growth, series_of
from nlpmeta.bench.drawing import Maps, shortened
from nlpmeta.bench.plan import Cell
from nlpmeta.bench.report import confusion, confusion_counts, make_report
from nlpmeta.bench.store import Store
from nlpmeta.bench.summary import BEGIN, END, groups_of, markdown
from nlpmeta.cli import main
from nlpmeta.encoder.lora import AdapterSettings, add_adapter
from nlpmeta.metrics.scores import paired_difference

pytestmark = pytest.mark.slow  # it draws every picture of a full folder of results


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return full_folder(tmp_path_factory.mktemp("results") / "bench")


@pytest.fixture(scope="module")
def page(store):
    return make_report(store.folder, title="Few <shots>")


class Reader(HTMLParser):
    """Tags that are open, ids, and everything that could be fetched."""

    EMPTY = {"meta", "link", "br", "img", "input", "hr"}

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.tags, self.text = [], [], [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def read(page):
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    assert not reader.open
    return reader


def test_the_page_holds_all_it_shows(read, page):
    assert "script" not in read.tags and "img" not in read.tags
    assert all(link.startswith(("#", "data:")) for link in read.links)
    assert not re.search(r"url\((?!#)|@import", page.read_text(encoding="utf-8"))


def test_no_two_elements_of_the_page_have_one_id_and_every_link_leads_somewhere(read):
    assert len(read.ids) == len(set(read.ids))
    assert {link[1:] for link in read.links if link.startswith("#")} <= set(read.ids)


def test_the_page_opens_with_the_best_method_and_the_means_of_all(store, page):
    head = page.read_text(encoding="utf-8").partition("<nav")[0]
    means = {
        name: [
            100 * np.mean([g.accuracy.mean for g in groups_of(store.lines()) if (g.method.name, g.task.n_shot) == key])
            for key in ((name, 1), (name, 5), (name, 10))
        ]
        for name in ("auto@default", "setfit")
    }
    assert "Best on average over 3 datasets: auto@default" in head
    for name, values in means.items():
        assert name in head
        for value in values:
            assert f"{value:.1f}" in head
    leads = [f"{ours - theirs:+.1f}" for ours, theirs in zip(*means.values(), strict=True)]
    assert f"{', '.join(leads)} points against setfit" in head


def test_the_page_explains_the_methods_and_gives_the_commands_that_measured_it(read):
    shown = " ".join(" ".join(read.text).split())
    assert "on the shipped checkpoint" in shown and "at most 25 training steps" in shown
    for options in (
        "nlpmeta bench --data injongo:swa,injongo:kin,banking77 --shots 1,5,10 --draws 3 --max-query 500 --seed 0 "
        "--methods auto@default --peers none --max-steps 0 --out FOLDER",
        "--methods none --peers setfit --max-steps 25 --out FOLDER",
    ):
        assert options in shown


def test_a_matrix_too_large_to_read_is_shown_with_its_worst_classes_and_whole(store, page):
    content = page.read_text(encoding="utf-8")
    for name in ("confusion-banking77-auto-default-worst", "confusion-banking77-auto-default"):
        assert f'id="picture-{name}"' in content
    assert "the 20 classes with the most mistakes of 77" in content
    assert "confusion-injongo-swa-auto-default-worst" not in content
    group = next(g for g in groups_of(store.lines()) if g.task.data == "banking77" and g.method.name == "auto@default")
    worst = confusion(group, store.query_sets(), name="some", most=20)
    assert worst.folded and worst.alt.startswith("Confusion matrix of 20 classes")
    counts = confusion_counts(group, store.query_sets())
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    names = store.query_sets()[next(iter(group.lines.values())).task].label_names
    assert escape(shortened(names[int(wrong.argmax())])) in worst.svg
    assert escape(shortened(names[int(wrong.argmin())])) not in worst.svg


def test_every_picture_of_the_results_is_there_and_is_a_file_too(store, page):
    content = page.read_text(encoding="utf-8")
    names = {path.stem for path in (store.folder / "pictures").glob("*.png")}
    for name in (
        "learning-curves",
        "accuracy-against-time",
        "reliability",
        "languages-injongo-5",
        "confusion-banking77-auto-default",
        "map-banking77-auto-default",
        "scaling",
    ):
        assert name in names and f'id="picture-{name}"' in content
    first = next((store.folder / "pictures").glob("*.png")).read_bytes()
    assert first.startswith(b"\x89PNG") and len(first) > 10_000


def test_names_from_data_are_shown_as_they_are_written(read):
    shown = " ".join(read.text)
    for name in ("<script>alert(1)</script>", "$price_{x}$", "ማንቂያ", "Few <shots>"):
        assert name in shown


def test_the_same_results_give_the_same_page(tmp_path):
    store = Store(tmp_path)
    add_cell(store, make_job(OURS), Cell(1, 0), names=["a", "b"])
    before = make_report(tmp_path).read_bytes()
    assert make_report(tmp_path).read_bytes() == before


def test_the_confusion_matrix_counts_as_scikit_learn_does(store):
    from sklearn.metrics import confusion_matrix

    group = next(g for g in groups_of(store.lines()) if g.task.data == "banking77" and g.method.name == "setfit")
    queries = store.query_sets()
    truth = [label for line in group.lines.values() for label in queries[line.task].labels]
    guess = [label for line in group.lines.values() for label in line.measured.predicted]
    expected = confusion_matrix(truth, guess, labels=range(77))
    np.testing.assert_array_equal(confusion_counts(group, queries), expected)


def test_the_exponent_of_a_power_law_is_found():
    sizes = [5, 10, 20, 40, 80]
    growth = Growth.of(sizes, [3 * size**1.3 for size in sizes])
    assert growth.exponent == pytest.approx(1.3) and growth.factor == pytest.approx(3)


def test_scaling_runs_are_told_apart_by_what_grows(store):
    series = {(each.method.name, each.over): each for each in series_of(store.lines())}
    assert series["auto@default", "ways"].sizes == (5, 10, 20, 40)
    assert series["auto@default", "shots"].sizes == (1, 2, 5, 10, 50)
    assert series["auto@default", "ways"].growth.exponent == pytest.approx(1, abs=1e-6)
    assert all(group.task.data != "clinc150" for group in groups_of(store.lines()))


def test_seconds_without_a_limit_are_those_of_a_step_times_the_steps(tmp_path):
    store = Store(tmp_path)
    job = make_job(SETFIT)
    facts = ({"steps": 25, "wanted_steps": 100}, {"steps": 10, "wanted_steps": 10})
    for draw, (each, seconds) in enumerate(zip(facts, (5.0, 4.0), strict=True)):
        add_cell(store, job, Cell(5, draw), names=["a", "b"], seconds=seconds, facts=each)
    group = groups_of(store.lines())[0]
    assert group.is_cut and group.full_seconds() == pytest.approx((20 + 4) / 2)


def test_the_table_has_paired_differences_to_the_best_other_method(store):
    groups = groups_of(store.lines())
    table = markdown(groups).splitlines()
    row = next(line for line in table if line.startswith("| injongo swa | 5 |"))
    ours, theirs = (
        next(g for g in groups if (g.task.title, g.task.n_shot, g.method.name) == ("injongo swa", 5, name))
        for name in ("auto@default", "setfit")
    )
    expected = paired_difference(theirs.values("accuracy"), ours.values("accuracy"))
    assert row.endswith(f"| {expected.percent()} |")
    assert ours.accuracy.percent() in row and theirs.accuracy.percent() in row
    mean = next(line for line in table if line.startswith("| mean of 3 sets | 5 |"))
    fives = [g.accuracy.mean for g in groups if g.task.n_shot == 5 and g.method.name == "auto@default"]
    assert f"**{100 * sum(fives) / 3:.1f}**" in mean
    assert any("extrapolated" in line and "setfit" in line for line in table)


def test_a_set_that_one_method_lacks_is_not_in_the_mean(tmp_path):
    store = Store(tmp_path)
    for data in ("one", "two", "three"):
        for entry in (OURS, SETFIT) if data != "three" else (OURS,):
            add_cell(store, make_job(entry, data=data), Cell(1, 0), names=["a", "b"])
    table = markdown(groups_of(store.lines()))
    assert "| mean of 2 sets | 1 |" in table and "| three sw | 1 |" in table


def test_a_method_that_did_few_tasks_leaves_the_means_of_the_others_as_they_were(store):
    from dataclasses import replace

    groups = groups_of(store.lines())
    before = [line for line in markdown(groups).splitlines() if line.startswith("| mean of")]
    some = [replace(g, method=replace(g.method, max_steps=None)) for g in groups if g.method.name == "setfit"][:2]
    after = markdown([*groups, *some]).splitlines()
    assert [line.replace(" |  | ", " | ") for line in after if line.startswith("| mean of")] == before
    costs = next(line for line in after if line.startswith("| setfit | "))
    assert costs.startswith("| setfit | 2 |")


def test_the_command_puts_the_table_between_the_marks_and_nothing_else(tmp_path, capsys):
    store = Store(tmp_path / "bench")
    store.folder.mkdir()
    for entry in (OURS, SETFIT):
        add_cell(store, make_job(entry), Cell(1, 0), names=["a", "b"])
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    assert main(["report", str(store.folder), "--into", str(readme), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"].endswith("report.html")
    content = readme.read_text(encoding="utf-8")
    assert content == f"before\n{BEGIN}\n{markdown(groups_of(store.lines()))}\n{END}\nafter\n"


def test_what_cannot_be_reported_is_one_line_and_exit_code_2(store, tmp_path, capsys):
    assert main(["report", str(tmp_path / "nothing")]) == 2
    assert "no results" in capsys.readouterr().err
    readme = tmp_path / "README.md"
    readme.write_text("no marks\n", encoding="utf-8")
    assert main(["report", str(store.folder), "--into", str(readme)]) == 2
    assert "lacks the lines" in capsys.readouterr().err
    assert readme.read_text(encoding="utf-8") == "no marks\n"


def test_one_draw_of_one_method_is_enough_for_a_page(tmp_path):
    store = Store(tmp_path)
    add_cell(store, make_job(OURS), Cell(1, 0), names=["a", "b"])
    assert math.isnan(groups_of(store.lines())[0].accuracy.ci95)
    assert "auto@default" in make_report(tmp_path).read_text(encoding="utf-8")


def test_maps_are_the_principal_components_of_each_encoder(encoder, sampler):
    episode = sampler.episode(0)
    assert Maps.of(encoder, episode) is None
    frozen = encoder.encode(episode.support.texts).numpy()
    add_adapter(encoder, AdapterSettings(rank=2), seed=0)
    for name, weight in encoder.backbone.named_parameters():
        if ".lora_B." in name:
            weight.data.normal_()
    maps = Maps.of(encoder, episode)
    assert maps.frozen.n_support == 15 and len(maps.frozen.points) == 30
    assert maps.frozen.points != maps.adapted.points
    order = [i for label in range(3) for i, each in enumerate(episode.query.labels) if each == label]
    query = [episode.query.texts[i] for i in order]
    from nlpmeta.encoder.views import FROZEN, ScaledEncoder

    vectors = ScaledEncoder(encoder, [FROZEN]).encode([*episode.support.texts, *query]).numpy()
    np.testing.assert_allclose(vectors[:15], frozen, atol=1e-5)
    centred = vectors - vectors.mean(0)
    _, spread, _ = np.linalg.svd(centred)
    assert maps.frozen.explained == pytest.approx(float((spread[:2] ** 2).sum() / (spread**2).sum()), abs=1e-4)
    points = np.array(maps.frozen.points)
    np.testing.assert_allclose((points**2).sum(0), spread[:2] ** 2, rtol=1e-2)
    assert Maps.parse(json.loads(json.dumps(maps.json()))).adapted.points[0] == list(maps.adapted.points[0])


@pytest.mark.skipif(PATH is None, reason="needs Chromium on the path")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_page_without_complaint_or_sideways_scroll(page, tmp_path, scheme):
    with browser_page(tmp_path / "profile") as tab:
        for width in (390, 1280):
            tab.open(page.as_uri(), width=width, scheme=scheme)
            tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
            more = "for (let i = 0; i < 9; i++) row.append(row.lastElementChild.cloneNode(true))"  # of many shots
            tab.evaluate(f"document.querySelectorAll('.means tr').forEach(row => {{ {more} }})")
            assert tab.evaluate("document.querySelectorAll('.means td').length") >= 9
            assert tab.complaints() == []
            assert tab.requests() in ([page.as_uri()], [page.as_uri(), "data:,"])
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.evaluate("document.querySelectorAll('figure svg').length") >= 7
            dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
            assert dark == (scheme == "dark")
            ink = "getComputedStyle(document.querySelector('figure svg text')).fill"
            assert tab.evaluate(ink) == ("rgb(230, 230, 232)" if dark else "rgb(26, 26, 27)")
            smallest = """Math.min(...[...document.querySelectorAll('figure svg text')].map(
                text => parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getScreenCTM().a))"""
            assert tab.evaluate(smallest) >= 6, "some text of a picture cannot be read"
            assert "mathdefault" not in tab.evaluate("document.body.innerHTML")
            letters = """[...document.querySelectorAll('.scroll svg text')].map(
                text => parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getScreenCTM().a)"""
            assert min(tab.evaluate(letters)) >= 9, "labels of the widest picture cannot be read"
