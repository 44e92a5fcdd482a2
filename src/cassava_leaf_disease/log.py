"""Logging goes to stderr; stdout belongs to results."""

import logging
import os
import sys


def configure_logging(level: str | None = None) -> None:
    """Sends the package's log records to stderr, one line each.

    The level is `level`, else the environment variable `CASSAVA_LOG_LEVEL`, else INFO. Chatty libraries
    are kept to warnings.
    """
    wanted = (level or os.environ.get("CASSAVA_LOG_LEVEL") or "INFO").upper()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    package = logging.getLogger("cassava_leaf_disease")
    package.handlers[:] = [handler]
    package.setLevel(wanted if wanted in logging.getLevelNamesMapping() else "INFO")
    for noisy in ("lightning", "lightning.pytorch", "lightning.fabric", "timm", "PIL", "albumentations", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def stderr_is_terminal() -> bool:
    """Whether progress bars make sense."""
    return sys.stderr.isatty()
