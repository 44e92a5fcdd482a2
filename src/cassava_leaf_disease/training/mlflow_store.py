"""Talking to MLflow: which store, whether it answers, and one kind of error for all that can go wrong."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.error import HTTPError
from urllib.request import urlopen

from cassava_leaf_disease.config.schema import AppConfig
from cassava_leaf_disease.errors import MissingDependencyError, StorageError, first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

_URI_VARIABLE: Final = "MLFLOW_TRACKING_URI"
PROBE_TIMEOUT_S: Final = 5.0
# MLflow's own limits let a dead server hold a training for minutes at every request.
_PATIENCE: Final = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
_QUIET: Final = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}


def tracking_uri(config: AppConfig) -> str:
    """`logger.tracking_uri`, else MLFLOW_TRACKING_URI, else an SQLite file under `paths.outputs_dir`."""
    store = f"sqlite:///{(config.paths.outputs_dir / 'mlflow.db').as_posix()}"
    return config.logger.tracking_uri or os.environ.get(_URI_VARIABLE) or store


def check_store(config: AppConfig) -> None:
    """Asks a server whether it is there; any other store is made on first use.

    Raises:
        MissingDependencyError: MLflow is not installed.
        StorageError: No server answers within seconds.
    """
    from importlib.util import find_spec

    if find_spec("mlflow") is None:
        raise MissingDependencyError("mlflow", "track")
    uri = tracking_uri(config)
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with urlopen(f"{uri.rstrip('/')}/health", timeout=PROBE_TIMEOUT_S):  # noqa: S310  the user's own server
            return
    except HTTPError:
        return  # it answers; whether it may be written to, the first request tells
    except (OSError, ValueError) as error:
        raise StorageError(f"no MLflow server answers at {uri} ({first_line(error)}); {MEND}") from None


MEND: Final = (
    "start one (mlflow server --host 127.0.0.1 --port 8080, or docker compose up mlflow), type logger.required=false "
    "to train without it, or logger.enabled=false"
)


@contextmanager
def reaching(uri: str) -> Iterator["MlflowClient"]:
    """A client for the store; inside, MLflow's own functions use that store too, and errors are of one kind.

    Raises:
        StorageError: Whatever the store or the way to it did.
    """
    import mlflow
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    for name, value in (_PATIENCE | _QUIET).items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    named = os.environ.get(_URI_VARIABLE)
    try:
        mlflow.set_tracking_uri(uri)
        yield mlflow.MlflowClient(tracking_uri=uri)
    except (mlflow.exceptions.MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        raise StorageError(f"MLflow at {uri}: {' '.join(first_line(error).split())[:300]}") from error
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # removes the variable too, which is the user's
        if named is not None:
            os.environ[_URI_VARIABLE] = named
