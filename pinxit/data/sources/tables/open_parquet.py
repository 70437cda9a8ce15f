"""Opens parquet files, local and remote, and converts errors about their content.

The footer of a remote file is downloaded once for all processes of the machine. The columns of its
row groups are requested by exact ranges, and neighbouring ones together.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pinxit.data.sources.damage import DamagedFile
from pinxit.data.sources.files import open_file, reading
from pinxit.data.sources.tables.machine_cache import (
    CacheFault,
    Draft,
    entry_name,
    machine_cache,
    say_fault,
)
from pinxit.data.sources.tables.remote_files import (
    RemoteVersion,
    is_remote,
    open_exact,
    version_of,
)
from pinxit.lfs_pointer import pointer_problem

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData, ParquetFile

DAMAGE = ("thrift", "CRC checksum", "Corrupt", "Unexpected end of stream", "decompress")
"""Words of pyarrow's messages about damaged files, which are OSErrors without an error number."""
END = 8
"""The bytes behind a footer: its length, and the format's mark."""
FIRST_LOOK = (2**13, 2**16)
"""The fewest and the most bytes that are read of a file's end in the hope that they hold all of
its footer; 1 % of the file in between."""
FOOTERS = 16
"""The number of parsed footers that a process keeps."""


@contextlib.contextmanager
def open_table(path: str, *, buffer_size: int = 0) -> Iterator[ParquetFile]:
    """Opens a parquet file. Raises `DamagedFile` if it is damaged, OSError if it is unreachable.

    With a `buffer_size`, columns are read in pieces of that many bytes; those of a remote file are
    kept, so that this machine need not request them again.
    """
    from pyarrow.parquet import ParquetFile

    with contextlib.ExitStack() as stack:
        stack.enter_context(reading(path))
        metadata, stream = None, None
        if is_remote(path) and (size := version_of(path).size) is not None:
            with damage_named(path):
                metadata = remote_footer(path)
            stream = stack.enter_context(open_exact(path, size, look=buffer_size > 0))
        else:
            stream = stack.enter_context(open_file(path))
        stack.enter_context(damage_named(path))
        table = ParquetFile(
            stream,
            metadata=metadata,
            page_checksum_verification=True,
            buffer_size=buffer_size,
            pre_buffer=metadata is not None and not buffer_size,
        )
        yield stack.enter_context(table)


@contextlib.contextmanager
def damage_named(path: str) -> Iterator[None]:
    """Converts pyarrow's errors about the content of a file to `DamagedFile`."""
    import pyarrow

    try:
        yield
    except GeneratorExit:  # when Python ends, pyarrow's names may be gone
        raise
    except pyarrow.ArrowException as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if _is_damage(path, error):
            raise _damaged(path, error) from error
        raise


_LOCK = threading.Lock()
_FOOTERS: OrderedDict[tuple[str, RemoteVersion], FileMetaData] = OrderedDict()
"""The footers that this process used last."""


def remote_footer(path: str) -> FileMetaData:
    """Returns the footer of a remote file of known size, which the machine downloads once."""
    from pyarrow import py_buffer
    from pyarrow.parquet import read_metadata

    version = version_of(path)
    with _LOCK:
        if footer := _FOOTERS.get((path, version)):
            _FOOTERS.move_to_end((path, version))
            return footer
    footer = read_metadata(py_buffer(_footer_bytes(path, version)))
    with _LOCK:
        _FOOTERS[path, version] = footer
        while len(_FOOTERS) > FOOTERS:
            _FOOTERS.popitem(last=False)
    return footer


def _footer_bytes(path: str, version: RemoteVersion) -> memoryview | bytes:
    """Returns the footer of a remote file in the form of a file without row groups."""
    cache = machine_cache()
    if cache is None:
        return _downloaded_footer(path, version)
    name = entry_name("footer", path, version)
    content = cache.open(name, max_age=version.max_age)
    if content is not None:
        return content
    with cache.locked(name):
        content = cache.open(name, max_age=version.max_age)
        if content is not None:
            return content
        data = _downloaded_footer(path, version)
        if data[-4:] == b"PAR1":
            try:
                with Draft(cache, name) as draft:
                    draft.write(data)
                    draft.commit()
            except CacheFault as fault:
                say_fault(cache.folder, str(fault))
        return data


def _downloaded_footer(path: str, version: RemoteVersion) -> bytes:
    assert version.size is not None
    with open_exact(path, version.size) as stream:
        low, high = FIRST_LOOK
        look = min(version.size, max(low, min(high, version.size // 100)))
        stream.seek(-look, 2)
        end = stream.read(look)
        length = int.from_bytes(end[-END:-4], "little") + END
        if look < length <= version.size and end[-4:] == b"PAR1":
            stream.seek(-length, 2)
            end = stream.read(length - look) + end
    return b"PAR1" + end[-length:] if end[-4:] == b"PAR1" else end


def _is_damage(path: str, error: OSError) -> bool:
    """Returns whether an OSError is pyarrow's, about the content of the file.

    Errors of the system have a number, and those of clients of remote files other types.
    """
    if type(error) is not OSError or error.errno is not None:
        return False
    return not is_remote(path) or any(word in str(error) for word in DAMAGE)


def _damaged(path: str, error: Exception) -> DamagedFile:
    if problem := pointer_problem(path):
        return DamagedFile(problem)
    return DamagedFile(f"{path} is not a readable parquet file: {' '.join(str(error).split())}")
