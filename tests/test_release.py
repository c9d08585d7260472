"""What is published: the wheel and the sdist, and the files that a hosting service and those who cite read."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import nlpmeta

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist of the working tree, and the wheel that is built of the unpacked sdist alone."""
    folder = tmp_path_factory.mktemp("built")
    build(ROOT, "sdist", folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        if sys.version_info >= (3, 12):
            archive.extractall(folder, filter="data")
        else:
            archive.extractall(folder)  # noqa: S202  # we have just written it
    (source,) = (each for each in folder.iterdir() if each.is_dir())
    build(source, "wheel", folder)
    (wheel,) = folder.glob("*.whl")
    return source, wheel


def build(source, what, folder):
    command = [sys.executable, "-m", "hatchling", "build", "-t", what, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)


def tracked(*folders):
    run = subprocess.run(["git", "ls-files", "-z", *folders], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        pytest.skip("needs the repository")
    return {each for each in run.stdout.split("\0") if each}


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_the_recipes_and_the_licence_and_nothing_else(built):
    expected = {path for path in tracked("nlpmeta") if not path.endswith(".gitignore")}
    expected |= {path.replace("recipes/", "nlpmeta/_recipes/", 1) for path in tracked("recipes")}
    with zipfile.ZipFile(built[1]) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = {name.partition(".dist-info/")[2] for name in archive.namelist()} - {""}
        assert sum(entry.compress_size for entry in archive.infolist()) < 20 << 20
    assert held == expected
    assert {"METADATA", "entry_points.txt", "licenses/LICENSE"} <= about
    assert "nlpmeta/py.typed" in held


@pytest.mark.slow
def test_the_sdist_holds_all_that_is_needed_to_build_test_and_document_the_package(built):
    source, _ = built
    held = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    assert tracked() - held == {path for path in tracked() if path.startswith(".ci/")}
    assert held - tracked() == {"PKG-INFO"}


@pytest.mark.slow
@pytest.mark.packaged
@pytest.mark.timeout(600)
def test_the_demo_runs_from_the_installed_wheel_without_the_source_tree(built, tmp_path):
    target = tmp_path / "site"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(built[1])]
    subprocess.run([sys.executable, *install], check=True, capture_output=True, timeout=200)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(target), "HF_HUB_OFFLINE": "1"}

    def output(*words):
        run = subprocess.run([sys.executable, *words], cwd=elsewhere, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-2000:]
        return run.stdout

    assert output("-c", "import nlpmeta; print(nlpmeta.__file__)").strip() == str(target / "nlpmeta" / "__init__.py")
    said = output("-m", "nlpmeta", "adapt", "--lang", "sw", "--shots", "5", "--draws", "1")
    assert "12 classes" in said and "baseline: logistic regression" in said
    assert "multilingual" in output("-m", "nlpmeta", "recipes", "list")


def test_the_citation_names_the_version_the_licence_and_the_place_of_the_code():
    found = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(found)  # what the format requires
    assert found["cff-version"] == "1.2.0" and found["type"] == "software"
    assert str(found["version"]) == nlpmeta.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {nlpmeta.__version__} ({found['date-released']})" in changes
    assert found["license"] == PROJECT["project"]["license"]
    assert PROJECT["project"]["urls"]["Documentation"].startswith(found["repository-code"])
    for entry in [found, *found["references"]]:
        assert all("name" in author or {"family-names", "given-names"} <= set(author) for author in entry["authors"])


def test_the_workflow_tests_every_python_that_the_package_says_it_runs_on():
    jobs = read(".github/workflows/ci.yml")["jobs"]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == PYTHONS
    named = [each.rpartition(" ")[2] for each in PROJECT["project"]["classifiers"] if "Python :: 3." in each]
    assert named == PYTHONS
    assert PROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"


def test_the_workflow_runs_targets_files_and_extras_that_are_there():
    said = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"\bmake ([\w-]+)", said)) <= set(targets)
    for file in re.findall(r"\btests/\w+\.py", said):
        assert (ROOT / file).is_file()
    for extras in re.findall(r"\[([a-z,]+)\]['\"]", said):
        assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    torch = re.search(r"TORCH: (torch==[\d.]+)", said)
    assert torch and f"TORCH := {torch[1]}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    for job in read(".github/workflows/ci.yml")["jobs"].values():
        assert job["runs-on"] and all(("run" in step) != ("uses" in step) for step in job["steps"])


@pytest.mark.parametrize("form", ["bug", "accuracy", "feature"])
def test_an_issue_form_has_what_the_hosting_service_requires(form):
    found = read(f".github/ISSUE_TEMPLATE/{form}.yml")
    assert found["name"] and found["description"]
    fields = [each for each in found["body"] if each["type"] != "markdown"]
    assert fields and {each["type"] for each in found["body"]} <= {"markdown", "textarea", "input", "dropdown"}
    assert all(each["attributes"]["label"] for each in fields)
    assert len({each["id"] for each in fields}) == len(fields)


@pytest.mark.parametrize("page", ["SECURITY.md", "CODE_OF_CONDUCT.md", ".github/PULL_REQUEST_TEMPLATE.md"])
def test_links_and_pages_that_the_files_of_the_project_name_are_there(page):
    content = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", content) + re.findall(r"\bdocs/[\w/]+\.md", content):
        assert (ROOT / target).is_file(), target


def test_the_badges_of_the_readme_say_what_the_package_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "badges").glob("*.svg")}
    assert f"Python: {PYTHONS[0]} – {PYTHONS[-1]}" in shown["python"]
    assert f"licence: {PROJECT['project']['license']}" in shown["licence"]
    assert all(f"(docs/badges/{name}.svg)" in readme for name in shown)
    assert not re.search(r"!\[[^]]*\]\(https?:", readme), "a picture of the README needs the network"


def test_the_changelog_has_a_section_for_each_release_with_its_date_newest_first():
    content = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", content, re.MULTILINE)
    assert headings[0] == "Unreleased"
    found = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+) \((\d{4}-\d\d-\d\d)\)", each) for each in headings[1:]]
    assert all(found), headings
    versions = [tuple(int(number) for number in each.groups()[:3]) for each in found]
    dates = [each[4] for each in found]
    assert versions == sorted(versions, reverse=True) and dates == sorted(dates, reverse=True)
    assert ".".join(map(str, versions[0])) == nlpmeta.__version__
