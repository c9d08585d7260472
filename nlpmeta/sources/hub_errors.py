"""What can go wrong between here and the Hub, each in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

from nlpmeta.errors import DataError, NetworkError, NLPMetaError
from nlpmeta.hub.calls import WRONG_FORM, no_tokens_told, without_tokens, wrong_form


@contextmanager
def said_plainly(name: str, revision: str | None) -> Iterator[None]:
    """Turn every way in which the Hub or the way to it can fail into one sentence."""
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
    from httpx2 import HTTPError
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    try:
        with no_tokens_told():
            yield
    except NLPMetaError:
        raise
    except errors.GatedRepoError as error:
        raise NetworkError(
            f"The data set {name!r} is gated: accept its terms at {hub}/datasets/{name} and log in with: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(
            f"The data set {name!r} has no revision {revision!r}. See {hub}/datasets/{name}/commits"
        ) from error
    except (errors.RepositoryNotFoundError, DatasetNotFoundError, errors.HFValidationError) as error:
        raise DataError(
            f"There is no data set {name!r} at {hub}, or it is private. Check the name, or log in with: hf auth login"
        ) from error
    except (errors.EntryNotFoundError, DataFilesNotFoundError) as error:
        raise DataError(f"The data set {name!r} has no such file or no tables: {short(error)}.") from error
    except (HTTPError, errors.HfHubHTTPError, OSError) as error:
        raise NetworkError(f"The data set {name!r} could not be fetched from {hub}: {short(error)}.") from error
    except WRONG_FORM as error:
        raise NetworkError(f"The data set {name!r} could not be fetched from {hub}: {wrong_form(error)}") from error


def short(error: BaseException) -> str:
    """The first words of an error message, on one line and without tokens."""
    return without_tokens(" ".join(str(error).split()))[:160].rstrip(".") or type(error).__name__
