"""A zarr store behind a URL, whose failures say what to do."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from zarr.abc.store import OffsetByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import FsspecStore

from n2v_scale.errors import N2VScaleError
from n2v_scale.io.connections import filesystem, gathered, options_for
from n2v_scale.io.remote_errors import MISSING, error_code, explained

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_EXISTS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
"""How an S3 service says that a key that was to be created is there."""


class RemoteStore(FsspecStore):
    """The store at a URL; each failure names the key, says what to do and shows no credential.

    ``error`` is the exception's class. No name is taken for a pattern, and deleting what is gone
    already is no failure.
    """

    def __init__(self, url: str, *, error: type[N2VScaleError], read_only: bool = False) -> None:
        self.url = url
        self.error = error
        self.options = options_for(url)
        fs, path = filesystem(url, self.options)
        super().__init__(fs=fs, path=path, read_only=read_only, allowed_exceptions=())

    def with_read_only(self, read_only: bool = False) -> RemoteStore:
        """The same store."""
        return type(self)(self.url, error=self.error, read_only=read_only)

    def explained(self, key: str = "") -> Any:
        """A context manager around a request for ``key``."""
        return explained(f"{self.url}/{key}".rstrip("/"), self.options, self.error)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The value, or None."""
        prototype = prototype or default_buffer_prototype()
        if byte_range is None and self.url.startswith(("s3:", "s3a:")):
            byte_range = OffsetByteRequest(0)  # one request: s3fs asks for the size of a whole key
        try:
            with self.explained(key):
                return await super().get(key, prototype, byte_range)
        except MISSING:
            return None

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Several values, or parts of them."""
        return await gathered(self.get(key, prototype, part) for key, part in key_ranges)

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """Replace a key in one step."""
        with self.explained(key):
            await super().set(key, value, byte_range)

    async def create(self, key: str, data: bytes) -> bool:
        """Whether the key was created: it is set only if there is none, as far as that goes."""
        self._check_writable()
        if await self.exists(key):
            return False
        path = f"{self.path}/{key}"
        with self.explained(key):
            try:
                await self.fs._pipe_file(path, data, mode="create")
            except Exception as exc:
                if isinstance(exc, FileExistsError) or error_code(exc) in _EXISTS:
                    return await self._holds(key, data)
                unknown = isinstance(exc, TypeError | NotImplementedError)
                if not unknown and getattr(exc, "errno", None) != errno.ENOSYS:
                    raise
                await self.fs._pipe_file(path, data)  # a store that knows no condition
        return True

    async def _holds(self, key: str, data: bytes) -> bool:
        value = await self.get(key)
        return value is not None and value.to_bytes() == data

    async def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        with suppress(FileNotFoundError):
            return await self.getsize(key) >= 0
        return False

    async def getsize(self, key: str) -> int:
        """Bytes of a key; FileNotFoundError where there is none."""
        info = await self.info(key)
        return int(info["size"] or 0)

    async def info(self, key: str) -> dict[str, Any]:
        """What the store knows of a key, as fsspec says it; FileNotFoundError where there is none.

        What is called a folder there is no key.
        """
        with self.explained(key):
            info: dict[str, Any] = await self.fs._info(f"{self.path}/{key}")
        if info["type"] != "file":
            raise FileNotFoundError(key)
        return info

    async def delete(self, key: str) -> None:
        """Delete a key, if it is there."""
        self._check_writable()
        with suppress(*MISSING), self.explained(key):
            await self.fs._rm_file(f"{self.path}/{key}")

    async def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of every key that begins with ``prefix/``."""
        folder = f"{self.path}/{prefix}".rstrip("/")
        with suppress(*MISSING), self.explained(prefix):
            found = await self.fs._find(folder, detail=True, withdirs=False)
            return {
                name.removeprefix(f"{self.path}/"): int(info["size"] or 0)
                for name, info in found.items()
                if name.startswith(f"{folder}/")
            }
        return {}

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Every key that begins with ``prefix``, which ends at a slash."""
        for key in await self.sizes(prefix.rstrip("/")):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly below ``prefix``."""
        folder = f"{self.path}/{prefix}".rstrip("/")
        for name in await self._entries(folder):
            if name != folder:
                yield name.removeprefix(f"{folder}/").rstrip("/")

    async def names(self) -> list[str]:
        """What lies directly in the store; its own name where the place is a key."""
        found = await self._entries(self.path)
        return [name.rstrip("/").rpartition("/")[2] for name in found]

    async def _entries(self, folder: str) -> list[str]:
        """Whole names of what is in ``folder``, without the mark that some set for the folder."""
        entries: list[dict[str, Any]] = []
        with suppress(*MISSING), self.explained(folder.removeprefix(self.path).strip("/")):
            entries = await self.fs._ls(folder, detail=True)
        return [entry["name"] for entry in entries if entry["name"] != f"{folder}/"]
