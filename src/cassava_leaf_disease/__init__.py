"""CassavaVision: photos of cassava leaves in, a trustworthy diagnosis out."""

import os
from importlib.metadata import PackageNotFoundError, version

# ONNX Runtime from 1.32 on can tell Microsoft about its use, also on Linux; it asks this when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

try:
    __version__ = version("cassava-leaf-disease")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0.0.0+source"
