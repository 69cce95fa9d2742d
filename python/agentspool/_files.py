"""Reading a task's files, which in a shared spool are another user's.

Not which files there are (`task.py`). Invariant: only regular files below the task's own folder are read. Every step
is taken from an open folder by one name, and no link is followed, because a name in a result, or a link under it,
may lead to a private file of whoever reads. Nothing here waits, and nothing larger than asked for is taken.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

# The largest output that is read into memory. A longer one is read by its path.
MAX_BYTES = 2 << 30
# Larger than any result.json that the program writes.
MAX_RESULT_BYTES = 64 << 20
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def folder(task: Path, parts: Sequence[str] = ()) -> Iterator[int]:
    """A folder of the task's, open. The spool's own path is the caller's word; `tasks` and all below it is not."""
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
    """A regular file of the task's, by the names that lead to it."""
    *folders, name = parts
    _check(name)
    with folder(task, folders) as parent:
        # Looked at before it is opened: opening a device can have effects of its own.
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
    """All of an open file, if it is not too large."""
    check_size(os.fstat(file.fileno()).st_size, most)
    content = file.read(most + 1)
    check_size(len(content), most)
    return content


def check_size(size: int, most: int = MAX_BYTES) -> None:
    """Refuses what would fill the memory."""
    if size > most:
        raise OSError(errno.EFBIG, f"it has {size} bytes, and at most {most} are read into memory")


def parts_of(path: str) -> list[str]:
    """The names in a path of a result's: `attempts/<n>/<file>`."""
    parts = path.split("/")
    is_number = len(parts) == 3 and parts[1].isascii() and parts[1].isdigit()
    if not is_number or parts[0] != "attempts" or not _is_name(parts[2]):
        raise OSError(errno.EINVAL, "the result names a file that is not one of its attempt", path)
    return parts


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..") and "/" not in part and "\0" not in part


def _check(part: str) -> None:
    if not _is_name(part):
        raise OSError(errno.EINVAL, "not a name", part)


def _check_kind(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", name)
