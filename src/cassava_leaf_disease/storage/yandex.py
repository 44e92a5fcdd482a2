"""Public links of Yandex Disk, resolved by its public API to an address that can be fetched.

https://yandex.com/dev/disk-api/doc/en/reference/public
"""

import logging
import os
import re
from typing import Final
from urllib.parse import unquote, urlsplit

from cassava_leaf_disease.errors import StorageError
from cassava_leaf_disease.storage.http import RemoteFile, get_json

logger = logging.getLogger(__name__)

API_URL: Final = "https://cloud-api.yandex.net"
_LINK: Final = re.compile(
    r"(?P<key>https?://(?:disk\.(?:360\.)?yandex\.(?:[a-z]{2,3}|com\.[a-z]{2})|yadi\.sk)/[di]/[\w-]+)(?P<path>/[^?#]+)?"
)


def is_public_link(url: str) -> bool:
    """Whether `url` is a public link of Yandex Disk."""
    return _LINK.match(url) is not None


def resolve_link(url: str) -> RemoteFile:
    """Where the file behind a public link is, with its checksums; a folder comes as one zip without any.

    A link may go on with the path of a file in a public folder. The environment variable
    `CASSAVA_YANDEX_API_URL` names another server than Yandex's.

    Raises:
        StorageError: There is no such link, or the API cannot be reached.
    """
    asked = _asked(url)
    about = _ask("", url, asked)
    name, size = about.get("name"), about.get("size")
    name = name if isinstance(name, str) else "download"
    if about.get("type") == "dir":
        name, size = f"{name}.zip", None
        logger.info("%s: a folder; it comes as one zip, which cannot be resumed if the connection breaks", url)
    return RemoteFile(
        url=_address(url, asked),
        identity=url,
        name=name,
        size_bytes=size if isinstance(size, int) else None,
        checksums={kind: value for kind in ("md5", "sha256") if isinstance(value := about.get(kind), str)},
        renew=lambda: _address(url, asked),
    )


def _asked(url: str) -> dict[str, str]:
    """What names the file to the API."""
    link = _LINK.match(url)
    if link is None:
        raise StorageError(f"{url}: no public link of Yandex Disk; expected https://disk.yandex.ru/d/…")
    path = link["path"]
    return {"public_key": link["key"]} | ({"path": unquote(path)} if path and path.strip("/") else {})


def _address(url: str, asked: dict[str, str]) -> str:
    """An address to fetch the file from, which holds for a few hours."""
    address = _ask("/download", url, asked).get("href")
    if not isinstance(address, str):
        raise StorageError(f"{url}: Yandex Disk names no address to fetch it from; try again later")
    if _api_url().startswith("https:") and urlsplit(address).scheme != "https":
        raise StorageError(f"{url}: Yandex Disk names an address that is not of https; try again later")
    return address


def _ask(method: str, url: str, asked: dict[str, str]) -> dict[str, object]:
    status, content = get_json(f"{_api_url()}/v1/disk/public/resources{method}", asked)
    if status == 404:
        raise StorageError(f"{url}: Yandex Disk knows no such public link; check it in a browser")
    if status != 200:
        raise StorageError(f"{url}: Yandex Disk answers {status}: {content.get('message', 'no reason given')}")
    return content


def _api_url() -> str:
    return (os.environ.get("CASSAVA_YANDEX_API_URL") or API_URL).rstrip("/")
