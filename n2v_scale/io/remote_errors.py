"""What a remote store says when it fails, as this package's errors: what was seen, what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from n2v_scale.errors import InputError, N2VScaleError
from n2v_scale.io.storage_options import StorageOptions

_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "oss", "r2", "oci")
"""Behind these stands a bucket, which has neither a user nor a port."""

_USERS = ("abfs", "abfss", "wasb", "wasbs", "sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs")
"""In front of these hosts a name is usual, and no credential."""

MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""How a store says that there is no such key."""

_ANONYMOUS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}
_UNREACHABLE = {
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "HTTPClientError",
    "ClientConnectionError",
    "ClientPayloadError",
    "ConnectionError",
    "TimeoutError",
    "gaierror",
}
"""Names of classes, as the packages that bring them may be absent."""

_FULL = ("QuotaExceeded", "InsufficientStorage", "StorageFull")


@contextmanager
def explained(where: str, options: StorageOptions, error: type[N2VScaleError]) -> Iterator[None]:
    """Turn whatever a remote store raises into ``error``, which names ``where``.

    What says that one object is absent passes, as FileNotFoundError and its like; a bucket that
    does not exist is an error. No credential stands in the message, nor in its cause.
    """
    try:
        yield
    except (N2VScaleError, MemoryError):
        raise
    except Exception as exc:
        if isinstance(exc, MISSING) and not _no_bucket(exc):
            raise
        text = f"{type(exc).__name__}: {exc}"
        shown = options.redacted(text)
        raise error(f"{where}: {_remedy(exc, shown)}") from (exc if shown == text else None)


def refuse_credentials(url: str) -> None:
    """Refuse an address that holds a user and password, a key and secret, or a signature.

    Raises
    ------
    InputError
        It does not repeat the address.
    """
    for part in url.split("::"):
        scheme, _, rest = part.partition("://")
        authority, _, path = rest.partition("/")
        user, at, _ = authority.rpartition("@")
        host, colon, port = authority.rpartition(":")
        bucket = scheme in _OBJECT_STORES
        signed = scheme in ("http", "https") and "?" in rest
        # a secret may hold a slash: what looks like host and port is then a key and its beginning
        torn = bool(colon) and "@" in path and not (port.isdecimal() or host.startswith("["))
        named = bool(at) and (":" in user or scheme not in _USERS)
        if signed or torn or named or (bucket and colon and not authority.startswith("arn:")):
            raise InputError(
                f"the {scheme}:// address holds credentials or a signature, which would end up in "
                "logs and records: give the address without them, and the credentials as storage "
                "options (key, secret, token, ...) or in the environment"
            )


def _remedy(exc: Exception, shown: str) -> str:
    """``shown`` in a sentence that says what to do."""
    kinds = {kind.__name__ for kind in type(exc).__mro__}
    if _no_bucket(exc):
        return f"the bucket does not exist: check its name and endpoint_url ({shown})"
    if kinds & _ANONYMOUS:
        return f"no credentials: give key and secret, or anon=true for a public bucket ({shown})"
    if isinstance(exc, PermissionError):
        return f"access is denied: check key, secret, token and the bucket's policy ({shown})"
    if kinds & _UNREACHABLE:
        return f"it cannot be reached: check the network and endpoint_url, then run again ({shown})"
    full = getattr(exc, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    if full or any(word in f"{error_code(exc)} {shown}" for word in _FULL):
        return f"no space is left: make room or raise the quota, then run again ({shown})"
    return shown


def _no_bucket(exc: BaseException) -> bool:
    return error_code(exc) == "NoSuchBucket" or "bucket does not exist" in str(exc)


def error_code(exc: BaseException | None) -> str:
    """What an S3 service calls the error; '' when it is none of its."""
    while exc is not None:
        response: Any = getattr(exc, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        exc = exc.__cause__
    return ""
