"""A gzipped tar archive of stored files, made while it is sent."""

import tarfile
import time
import zlib
from collections.abc import Callable, Generator, Iterable

from app.storage.blob_store import StoredFile
from app.storage.reading import Reading

_BLOCK = tarfile.BLOCKSIZE
_GZIP = 16 + zlib.MAX_WBITS


def tar_gz(
    files: Iterable[StoredFile], read: Callable[[StoredFile], Reading], *, within: str, named: str
) -> Generator[bytes, None, None]:
    """The archive in chunks, in constant memory: one file is open at a time.

    Its members have the paths of `files` below `within`, in a directory `named`. Raises as `read` does.
    """
    # tarfile makes only the headers, because it cannot yield in the middle of a file.
    compressor = zlib.compressobj(wbits=_GZIP)
    now = int(time.time())
    for file in files:
        reading = read(file)
        try:
            reading.begin()  # a failing store fails before the header is sent
            member = tarfile.TarInfo(f"{named}/{file.path.removeprefix(f'{within}/')}")
            member.size, member.mtime = reading.size, now
            yield compressor.compress(member.tobuf(tarfile.PAX_FORMAT))
            for chunk in reading:
                yield compressor.compress(chunk)
            yield compressor.compress(bytes(-reading.size % _BLOCK))
        finally:
            reading.close()
    yield compressor.compress(bytes(2 * _BLOCK))
    yield compressor.flush()
