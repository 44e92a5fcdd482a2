"""The C library's allocator, told to keep what it has been given back."""

import ctypes
import functools
import logging
import platform

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_KEPT_BYTES = 512 * 2**20


@functools.cache
def keep_freed_memory() -> bool:
    """Makes glibc reuse freed buffers instead of returning them to the system; False where there is no glibc.

    By default it maps and unmaps every buffer above some hundred kilobytes anew, that is every photo and every
    activation, and the kernel clears each page again.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    limits = {_M_MMAP_THRESHOLD: _KEPT_BYTES, _M_TRIM_THRESHOLD: 2 * _KEPT_BYTES - 1, _M_TOP_PAD: 64 * 2**20}
    taken = all(mallopt(name, value) == 1 for name, value in limits.items())
    if not taken:
        logger.debug("mallopt refused: photos are decoded more slowly")
    return taken
