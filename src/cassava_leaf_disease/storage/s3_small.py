"""Small objects in S3, as bytes: put, read, and deleted with all their versions. Requests are always signed."""

from typing import Any, Final

from cassava_leaf_disease.storage.s3 import split_uri
from cassava_leaf_disease.storage.s3_connection import find_server
from cassava_leaf_disease.storage.s3_errors import told_in_one_line
from cassava_leaf_disease.storage.s3_transfer import Place

_ATTEMPTS: Final = 3
_TIMEOUT_S: Final = 10.0  # somebody waits for an answer


def put_bytes(uri: str, data: bytes, content_type: str) -> None:
    """Puts bytes at `s3://bucket/key`; they are there when it returns.

    Raises:
        CassavaError: They could not be put there.
    """
    place = _place(uri)
    with told_in_one_line(uri, place.server), place.client(_ATTEMPTS, _TIMEOUT_S) as client:
        client.put_object(Bucket=place.bucket, Key=place.key, Body=data, ContentType=content_type)


def get_bytes(uri: str) -> bytes:
    """The bytes at `s3://bucket/key`.

    Raises:
        CassavaError: They are missing, denied or out of reach.
    """
    place = _place(uri)
    with told_in_one_line(uri, place.server), place.client(_ATTEMPTS, _TIMEOUT_S) as client:
        content: bytes = client.get_object(Bucket=place.bucket, Key=place.key)["Body"].read()
    return content


def delete_object(uri: str) -> None:
    """Deletes what stands at `s3://bucket/key`, older versions too where the server tells of them.

    Raises:
        CassavaError: It could not be deleted.
    """
    place = _place(uri)
    with told_in_one_line(uri, place.server), place.client(_ATTEMPTS, _TIMEOUT_S) as client:
        versions = _versions(client, place)
        for version in versions or [{}]:
            client.delete_object(Bucket=place.bucket, Key=place.key, **version)


def _versions(client: Any, place: Place) -> list[dict[str, str]]:  # noqa: ANN401
    """Empty where the server has none, or does not tell."""
    from botocore.exceptions import ClientError

    try:
        answer = client.list_object_versions(Bucket=place.bucket, Prefix=place.key)
    except ClientError:
        return []
    found = [*answer.get("Versions", ()), *answer.get("DeleteMarkers", ())]
    return [{"VersionId": one["VersionId"]} for one in found if one["Key"] == place.key]


def _place(uri: str) -> Place:
    with told_in_one_line(uri):
        server = find_server()
    return Place(*split_uri(uri), server, signed=True)
