"""What may be unpickled here: a pickle is code, so only one that this user's own function left.

Not how a result is read (`task.py`) nor how a pickle is written (`_call.py`). Invariant: bytes that are given back
are those of a task that this user submitted to a spool of this user's, whose recipe is the one of this package, and
each folder down to the file belongs to this user and nobody else may write in it.
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
    """The task is not one of this user's functions."""


def recipe_name(manifest: str) -> str:
    """The name of the recipe with this `recipe.toml`. It follows from the text, so nothing else goes by this name."""
    return "python-" + hashlib.sha256(manifest.encode()).hexdigest()[:12]


def own_pickle(directory: Path, end: dict[str, Any], name: str) -> bytes | None:
    """A pickle of the last attempt of a task, or None where the task is not a function of this user's.

    Raises FileNotFoundError where such a task left none, and SpoolUnusable where others may have written it.
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
    """It is installed, and it is what `install_recipe` writes."""
    try:
        with _opened_below(root, "recipes", recipe, "recipe.toml") as file:
            manifest = _content(file).decode()
    except (FileNotFoundError, UnicodeDecodeError):
        raise _Foreign from None
    if recipe_name(manifest) != recipe:
        raise _Foreign


def _check_submitter(root: int, task: str) -> None:
    """A task without `origin.json` is the spool owner's, who is this user if the folders are."""
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
    """A file, reached from an open folder by one name after the other, none of them a link."""
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
    # An access list that lets others write shows here as well: its mask stands in the place of the group.
    if found.st_mode & 0o022:
        path = os.readlink(f"/proc/self/fd/{fd}")
        raise SpoolUnusable(
            f"failed to unpickle a result: others may write to {path}, and a pickle is code. If nobody else did, take"
            f" their right away with `chmod go-w {path}`"
        )


def _content(fd: int) -> bytes:
    found = os.fstat(fd)
    # A second name of it, as in a backup made of hard links, changes nothing: the file and its folder are this user's.
    if not stat.S_ISREG(found.st_mode):
        raise _Foreign
    with open(fd, "rb", closefd=False) as file:
        return file.read()
