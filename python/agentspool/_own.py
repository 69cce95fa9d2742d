"""Which pickles may be unpickled. A pickle is code, so only those of this user's own functions may.

Reading a result is in `task.py`, writing a pickle in `_call.py`. Invariant: bytes that are returned belong to a task
that this user submitted to a spool of this user, with the recipe of this package. Every folder on the path and the
file belong to this user, and no other user may write to them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import SpoolUnusable

_RECIPE = re.compile(r"python-[0-9a-f]{12}")


class _Foreign(Exception):
    """The task is not a function of this user."""


def recipe_name(manifest: str) -> str:
    """The name of the recipe with this `recipe.toml`: a hash of the text, so it names no other text."""
    return "python-" + hashlib.sha256(manifest.encode()).hexdigest()[:12]


def own_pickle(directory: Path, end: dict[str, Any], name: str) -> bytes | None:
    """A pickle of the last attempt of a task, or None if the task is not a function of this user.

    Raises FileNotFoundError if there is no pickle, and SpoolUnusable if another user may have written it.
    """
    recipe, attempt = end.get("recipe"), end.get("attempt")
    if not isinstance(recipe, str) or not _RECIPE.fullmatch(recipe) or type(attempt) is not int:
        return None
    try:
        with _opened_root(directory.parents[1]) as root:
            _check_recipe(root, recipe)
            _check_submitter(root, directory.name)
            with _opened_below(root, "tasks", directory.name, "attempts", str(attempt), name) as file:
                return _content(file)
    except _Foreign:
        return None


def _check_recipe(root: int, recipe: str) -> None:
    """The recipe is installed, and is exactly what `install_recipe` writes."""
    try:
        with _opened_below(root, "recipes", recipe, "recipe.toml") as file:
            manifest = _content(file).decode()
    except (FileNotFoundError, UnicodeDecodeError):
        raise _Foreign from None
    if recipe_name(manifest) != recipe:
        raise _Foreign


def _check_submitter(root: int, task: str) -> None:
    """A task without `origin.json` is of the spool's owner. That is this user, who owns the folders."""
    try:
        with _opened_below(root, "tasks", task, "origin.json") as file:
            origin = json.loads(_content(file))
    except FileNotFoundError:
        return
    except ValueError:
        raise _Foreign from None
    if not isinstance(origin, dict) or origin.get("uid") != os.geteuid():
        raise _Foreign


@contextmanager
def _opened_below(root: int, *names: str) -> Iterator[int]:
    """A file below an open folder. Each name is opened from its parent, and none may be a link."""
    at, own = root, []
    try:
        for left, name in reversed(list(enumerate(reversed(names)))):
            kind = os.O_DIRECTORY if left else os.O_NONBLOCK
            at = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=at)
            own.append(at)
            _check(at)
        yield at
    finally:
        for fd in own:
            os.close(fd)


@contextmanager
def _opened_root(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        _check(fd)
        yield fd
    finally:
        os.close(fd)


def _check(fd: int) -> None:
    found = os.fstat(fd)
    if found.st_uid != os.geteuid():
        raise _Foreign
    # This also covers access lists that permit writing: the group bits are then their mask.
    if found.st_mode & 0o022:
        path = os.readlink(f"/proc/self/fd/{fd}")
        raise SpoolUnusable(
            f"failed to unpickle a result: others may write to {path}, and a pickle is code. If no other user"
            f" has written there, run `chmod go-w {path}`"
        )


def _content(fd: int) -> bytes:
    found = os.fstat(fd)
    # A hard link, as in a backup, is accepted: the file and its folder belong to this user.
    if not stat.S_ISREG(found.st_mode):
        raise _Foreign
    with open(fd, "rb", closefd=False) as file:
        return file.read()
