"""What a test of the Hub needs: the server of ``hub_server``, the client turned to it, an encoder and a model on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import TOKEN, HubState, running_hub

ENCODER = "tests/tiny-encoder"
REPORT = {
    "data": "starter",
    "lang": "sw",
    "n_shot": 5,
    "draws": 5,
    "accuracy": {"mean": 0.788, "ci95": 0.021},
    "macro_f1": {"mean": 0.79, "ci95": 0.02},
    "chance": 1 / 3,
    "baseline": {"method": "logistic", "accuracy": {"mean": 0.605, "ci95": 0.025}},
    "scored_on": "the rest of the data",
    "n_support": 12,
    "n_query": 120,
    "calibration_error": 0.0417,
    "confused": [["food", "money", 12]],
    "curve": [{"n_shot": 1, "accuracy": {"mean": 0.5, "ci95": 0.1}}, {"n_shot": 5, "accuracy": {"mean": 0.788}}],
    "task_report": {
        "warnings": ["4.1 pieces a word, where 1.6 are usual"],
        "expected_accuracy": {"mean": 0.6, "low": 0.42, "high": 0.87},
        "alike": [["food", "money"]],
        "doubtful_labels": [{"text": "ball secret", "label": "sport", "rather": "food"}],
    },
    "label_next": ["goal secret"],
    "out": "/home/somebody/models/topics",
    "task": {"data": "/home/somebody/mine.csv", "shots": 5},
}


def turn_client_to(url: str, caches: Path, patch: pytest.MonkeyPatch) -> None:
    """The real client, at another address, with empty caches and the token of the tests."""
    from huggingface_hub import constants

    for name, value in {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(caches / "hub"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,  # the server speaks the older of the two ways to upload
        "HF_TOKEN_PATH": str(caches / "token"),
    }.items():
        patch.setattr(constants, name, value)
    patch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def hub(
    encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubState]:
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    with running_hub() as state:
        turn_client_to(state.url, tmp_path_factory.mktemp("caches"), monkeypatch)
        state.add(ENCODER, {path.name: path.read_bytes() for path in encoder_folder.iterdir()})
        yield state
    enable_progress_bars()
