"""CassavaVision: photos of cassava leaves in, a trustworthy diagnosis out."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("cassava-leaf-disease")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0.0.0+source"
