"""Data sets from Kaggle, by its own client and with the user's own credentials."""

import logging
import os
import re
import shutil
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

from cassava_leaf_disease.errors import ConfigError, StorageError, first_line

logger = logging.getLogger(__name__)

_URI: Final = re.compile(
    r"kaggle://(?:competitions/(?P<competition>[\w-]+)|datasets/(?P<dataset>[\w-]+/[\w-]+(?:/versions/\d+)?))/?"
)
_CREDENTIALS: Final = (
    "make an API token at kaggle.com/settings and put it into KAGGLE_API_TOKEN, into KAGGLE_USERNAME and KAGGLE_KEY, "
    "or into ~/.kaggle/kaggle.json"
)


def fetch_kaggle(uri: str, destination: Path) -> None:
    """Puts the files of a competition or a data set into the new folder `destination`.

    Kaggle's client unpacks them into its cache, which keeps them. Where that is on the same disk, `destination`
    holds hard links to them and takes no room of its own.

    Raises:
        ConfigError: `uri` is not of the form `kaggle://competitions/NAME` or `kaggle://datasets/OWNER/NAME`.
        StorageError: No or wrong credentials, rules that were not accepted, no such data, no network, no room.
    """
    named = _URI.fullmatch(uri)
    if named is None:
        raise ConfigError(f"{uri}: expected kaggle://competitions/NAME or kaggle://datasets/OWNER/NAME")
    logger.info("%s: fetching it with Kaggle's client", uri)
    folder = _downloaded(uri, named["competition"], named["dataset"])
    logger.info("%s: in %s; copying from there", uri, folder)
    try:
        shutil.copytree(folder, destination, copy_function=_link_or_copy)
    except OSError as error:  # shutil.Error too, which holds a list of what went wrong
        raise StorageError(f"{uri}: cannot be copied to {destination} ({first_line(error)[:200]})") from error


def _downloaded(uri: str, competition: str | None, dataset: str) -> Path:
    """Where the client has put the files."""
    import kagglehub
    from kagglehub import exceptions
    from requests import RequestException

    try:
        download = kagglehub.competition_download if competition else kagglehub.dataset_download
        return Path(download(competition or dataset))
    except (exceptions.UnauthenticatedError, exceptions.CredentialError):
        raise StorageError(f"{uri}: Kaggle wants to know who you are; {_CREDENTIALS}") from None
    except exceptions.KaggleApiHTTPError as error:
        status = getattr(error.response, "status_code", None)
        raise StorageError(f"{uri}: {_refusal(status, error, competition)}") from error
    except RequestException as error:
        raise StorageError(
            f"{uri}: Kaggle cannot be reached ({type(error).__name__}); check the network and type the command again"
        ) from error
    except (exceptions.BackendError, exceptions.DataCorruptionError, BadZipFile, ValueError, OSError) as error:
        raise StorageError(f"{uri}: Kaggle's client failed ({first_line(error)[:200]})") from error


def _refusal(status: int | None, error: Exception, competition: str | None) -> str:
    if status == 401:
        return f"Kaggle refuses the credentials; {_CREDENTIALS}"
    if status == 403 and competition:
        return (
            "Kaggle refuses; accept the competition's rules at "
            f"kaggle.com/competitions/{competition}/rules with the account of your credentials, then try again"
        )
    if status == 403:
        return f"Kaggle refuses: the data set is not public, or the credentials are missing; {_CREDENTIALS}"
    if status == 404:
        return "Kaggle knows no such competition or data set; check the name"
    return f"Kaggle answers {status} ({first_line(error)[:200]}); try again later"


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copyfile(source, target)
