"""Reading a task's files, which may belong to another user in a shared spool.

Which files are read is in `task.py`. Invariant: only regular files in the task's own folder are read. Each folder is
opened from its open parent, and no link is followed, because a name in a result or a link could lead to a private
file of the reader. No function here waits, or reads more than its limit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

# The largest output that is read into memory. A larger one has only its path.
MAX_BYTES = 2 << 30
# Larger than any result.json that the program writes.
MAX_RESULT_BYTES = 64 << 20
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def folder(task: Path, parts: Sequence[str] = ()) -> Iterator[int]:
    """A folder of the task, open. The path of the spool is trusted; `tasks` and everything in it is not."""
    fd = os.open(task.parents[1], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in (*task.parts[-2:], *parts):
            _check(part)
            below = os.open(part, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def opened(task: Path, *parts: str) -> Iterator[BinaryIO]:
    """A regular file of the task, by the names of its path."""
    *folders, name = parts
    _check(name)
    with folder(task, folders) as parent:
        # Checked before it is opened, because opening a device can have an effect.
        _check_kind(os.stat(name, dir_fd=parent, follow_symlinks=False), name)
        fd = os.open(name, os.O_RDONLY | _FILE, dir_fd=parent)
    with open(fd, "rb") as file:
        _check_kind(os.fstat(fd), name)
        yield file


def read(task: Path, *parts: str, most: int = MAX_BYTES) -> bytes:
    """The whole file."""
    with opened(task, *parts) as file:
        return read_all(file, most)


def read_all(file: BinaryIO, most: int = MAX_BYTES) -> bytes:
    """The whole content of an open file, if it is not too large."""
    check_size(os.fstat(file.fileno()).st_size, most)
    content = file.read(most + 1)
    check_size(len(content), most)
    return content


def check_size(size: int, most: int = MAX_BYTES) -> None:
    """Raises OSError for a file that would fill the memory."""
    if size > most:
        raise OSError(errno.EFBIG, f"the file has {size} bytes, and at most {most} are read into memory")


def parts_of(path: str) -> list[str]:
    """The names in a path of a result: `attempts/<n>/<file>`."""
    parts = path.split("/")
    is_number = len(parts) == 3 and parts[1].isascii() and parts[1].isdigit()
    if not is_number or parts[0] != "attempts" or not _is_name(parts[2]):
        raise OSError(errno.EINVAL, "the result names a file that is not in its attempt", path)
    return parts


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and "/" not in part and "\0" not in part


def _check(part: str) -> None:
    if not _is_name(part):
        raise OSError(errno.EINVAL, "this is not a file name", part)


def _check_kind(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "this is not a regular file", name)
