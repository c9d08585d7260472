"""Encoders of the Hugging Face Hub: the local cache, and the download when the Hub answers within seconds."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from nlpmeta.encoder.model_folder import is_model_file, missing_parts
from nlpmeta.errors import ModelFolderError, NetworkError, NLPMetaError
from nlpmeta.files import disk_errors_said_plainly

T = TypeVar("T")
_REQUEST_SECONDS = 3.0  # a wish: a silent host takes twice that, and name resolution knows no timeout
_PROBE_SECONDS = 4.0  # in all


def cached(name: str, revision: str | None) -> Path | None:
    """The snapshot of ``name`` in the Hub's cache on this machine, if all parts of the model are in it.

    Raises:
        NLPMetaError: if ``name`` cannot be the name of a model.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    with _said_plainly(name, revision):
        found = try_to_load_from_cache(name, "config.json", cache_dir=constants.HF_HUB_CACHE, revision=revision)
    if not isinstance(found, str):
        return None
    return None if missing_parts(Path(found).parent) else Path(found).parent


def cache_folder() -> Path:
    """Where the Hub's library keeps what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Whether the user forbade the network (``HF_HUB_OFFLINE=1``)."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def download(name: str, revision: str | None) -> Path:
    """Bring the model files of ``name`` into the Hub's cache and return the folder.

    The Hub is asked first what it has, with a limit of 4 s, because a download retries for much longer.

    Raises:
        NLPMetaError: if the Hub has no such model or revision.
        ModelFolderError: if the model has no safetensors weights, configuration or tokenizer.
        NetworkError: if the Hub does not answer or does not let this user in.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    with _said_plainly(name, revision):
        info = _in_time(lambda: HfApi().model_info(name, revision=revision, timeout=_REQUEST_SECONDS), _PROBE_SECONDS)
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


def _in_time(work: Callable[[], T], seconds: float) -> T:
    """The result of ``work``, or TimeoutError after ``seconds``; a thread that hangs is left behind."""
    results: queue.Queue[T | BaseException] = queue.Queue(maxsize=1)

    def run() -> None:
        try:
            results.put(work())
        except BaseException as error:  # handed to the caller, who raises it
            results.put(error)

    threading.Thread(target=run, name="nlpmeta-hub-probe", daemon=True).start()
    try:
        result = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds:.0f} s") from None
    if isinstance(result, BaseException):
        raise result
    return result


@contextmanager
def _said_plainly(name: str, revision: str | None) -> Iterator[None]:
    """Turn every way in which the Hub or the way to it can fail into one sentence."""
    from httpx2 import HTTPError, InvalidURL
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    try:
        yield
    except NLPMetaError:
        raise
    except errors.HFValidationError as error:
        raise NLPMetaError(
            f"{name!r} is neither a folder nor a name that a model on the Hub can have (such as 'owner/model')."
        ) from error
    except errors.GatedRepoError as error:
        raise NetworkError(
            f"The model {name!r} is gated: accept its terms at {hub}/{name}, then log in with: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise NLPMetaError(
            f"The model {name!r} on the Hub has no revision {revision!r}. See {hub}/{name}/commits/main"
        ) from error
    except (errors.RepositoryNotFoundError, errors.DisabledRepoError) as error:
        raise NLPMetaError(
            f"There is no model named {name!r} at {hub}, or it is private. Check the spelling, give a folder, "
            "or log in with: hf auth login"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        advice = "log in again with: hf auth login" if status in (401, 403) else "try again later, or give a folder"
        raise NetworkError(f"{hub} answered {status} when asked for the model {name!r}; {advice}.") from error
    except (HTTPError, InvalidURL, errors.XetDownloadError, OSError) as error:
        reason = " ".join(str(error).split())[:120].rstrip(".") or type(error).__name__
        raise NetworkError(f"The model {name!r} could not be fetched from {hub}: {reason}.") from error
