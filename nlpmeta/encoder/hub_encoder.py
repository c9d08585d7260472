"""Encoders of the Hugging Face Hub: the local cache, and the download when the Hub answers within seconds."""

from pathlib import Path

from nlpmeta.encoder.model_folder import is_model_file, missing_parts
from nlpmeta.errors import ModelFolderError
from nlpmeta.files import disk_errors_said_plainly
from nlpmeta.hub.calls import REQUEST_SECONDS, checked_info, in_time, said_plainly


def cached(name: str, revision: str | None) -> Path | None:
    """The snapshot of ``name`` in the Hub's cache on this machine, if all parts of the model are in it.

    Raises:
        NLPMetaError: if ``name`` cannot be the name of a model.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    with said_plainly(name, revision):
        found = try_to_load_from_cache(name, "config.json", cache_dir=constants.HF_HUB_CACHE, revision=revision)
    if not isinstance(found, str):
        return None
    return None if missing_parts(Path(found).parent) else Path(found).parent


def cache_folder() -> Path:
    """Where the Hub's library keeps what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def download(name: str, revision: str | None) -> Path:
    """Bring the model files of ``name`` into the Hub's cache and return the folder.

    The Hub is asked first what it has, with a limit of 4 s, because a download retries for much longer.

    Raises:
        NLPMetaError: if the Hub has no such model or revision.
        ModelFolderError: if the model has no safetensors weights, configuration or tokenizer.
        NetworkError: if the Hub does not answer or does not let this user in.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    with said_plainly(name, revision):
        info = checked_info(in_time(lambda: HfApi().model_info(name, revision=revision, timeout=REQUEST_SECONDS)))
        files = [file.rfilename for file in info.siblings or []]
        wanted = [file for file in files if is_model_file(file)]
        if not any(file.endswith(".safetensors") for file in wanted):
            raise ModelFolderError(
                f"The model {name!r} on the Hub has no safetensors weights, and no other kind is loaded. "
                "Choose another encoder, or a revision that has them (many models: revision 'refs/pr/…')."
            )
        with disk_errors_said_plainly(Path(constants.HF_HUB_CACHE)):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    if missing := missing_parts(folder):
        raise ModelFolderError(f"The model {name!r} on the Hub cannot be used as an encoder; it lacks: {missing}.")
    return folder
