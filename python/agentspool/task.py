"""A handle on one task: where it stands, its end, its result, and how to stop it.

The task is a folder in the spool and lives without any handle; a handle made from an id in another process is as
good as the first. Reading is done here (result.json never changes once it is there); what the protocol decides, as
whether a task really runs, is asked of the program. Each question can be awaited, and has a form that blocks, for
code without an event loop: `wait` and `wait_sync`. Handles may be used from several threads.

Invariant: as long as a handle lives and has not fetched the result, the sweeper does not remove it: the handle holds
the task by a shared lock. In a group spool only the spool's owner can hold a task.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import inspect
import json
import logging
import math
import os
import stat
import threading
import weakref
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Callable, Union

from . import _files, _program
from .errors import AgentspoolError, NotFound, of_result, one_line

_log = logging.getLogger("agentspool")
# How much of a log's end is looked at for the line that says why a task failed.
_TAIL_BYTES = 4096
_TOLD_CHARACTERS = 500
# In a group spool, what a reader of the owner's locks.
_READERS = "readers"

# Callbacks that a loop runs: the loop itself holds them only weakly.
_following: set[asyncio.Future[None]] = set()

OnComplete = Callable[["Task"], Union[Awaitable[None], None]]


class Task:
    """A background task. Made by `recipe.run_background` and its like, or from an id by `open_task`."""

    def __init__(self, task_id: str, directory: str, recipe_name: str | None, session_id: str | None) -> None:
        self.task_id = task_id
        self.recipe_name = recipe_name
        self.session_id = session_id
        self.dir = Path(directory)
        self._spool = str(self.dir.parents[1])
        self._end: dict[str, Any] | None = None
        self._value: Any = None
        self._raised: BaseException | None = None
        self._hold: weakref.finalize[Any, Any] | None = None
        self._take_hold()

    @property
    def id(self) -> str:
        """The task's id."""
        return self.task_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.task_id} of {self.recipe_name}>"

    # --- where it stands ---------------------------------------------------------------------------

    async def status(self) -> str:
        """`pending`, `running`, `completed`, `failed` or `cancelled`."""
        return str((await self.info())["status"])

    def status_sync(self) -> str:
        """The same, blocking."""
        return str(self.info_sync()["status"])

    async def info(self) -> dict[str, Any]:
        """All that `agentspool status --json` tells: status, progress, message, error, times and more."""
        return await _program.arun(["status", self.task_id], self._spool)

    def info_sync(self) -> dict[str, Any]:
        """The same, blocking."""
        return _program.run(["status", self.task_id], self._spool)

    # --- its end -----------------------------------------------------------------------------------

    async def wait(self, timeout: float | None = None) -> Any:
        """Waits for the end and gives the output; for a Python function, what it returned.

        Raises TaskFailed, TaskTimedOut or TaskCancelled when the task ended otherwise (for a Python function the
        exception it raised), WaitTimedOut when `timeout` seconds were not enough (the task goes on), and NoWatcher
        when nobody will run it.
        """
        if self._read_end() is None:
            await _program.arun(self._wait_verb(timeout), self._spool)
        return self._give()

    def wait_sync(self, timeout: float | None = None) -> Any:
        """The same, blocking."""
        if self._read_end() is None:
            _program.run(self._wait_verb(timeout), self._spool)
        return self._give()

    def _wait_verb(self, timeout: float | None) -> list[str]:
        verb = ["wait", self.task_id, "--need-watcher"]
        return verb if timeout is None else [*verb, f"--timeout={max(0.0, timeout):.6f}"]

    def _give(self) -> Any:
        if self._read_end() is None:
            raise NotFound(f"the task {self.task_id} was removed while it was waited for")
        if self._raised is not None:
            raise self._raised
        return self._value

    @property
    def result(self) -> Any:
        """What the task gave: None until it has completed. Never waits.

        A JSON value, text, or `bytes` where the recipe gave bytes that are not UTF-8.
        """
        self._read_end()
        return self._value

    @property
    def output_path(self) -> Path | None:
        """The file that holds the output, where it does not stand in result.json: it is long or it is bytes.

        None as well where the result names anything else than a file of its attempt.
        """
        end = self._read_end()
        file = end.get("output_file") if end else None
        try:
            return self.dir.joinpath(*_files.parts_of(file)) if file else None
        except OSError:
            return None

    @property
    def partial_output(self) -> Any:
        """What a task gave that did not complete: as `result`, but for every way to end. None until it has ended."""
        end = self._read_end()
        try:
            return None if end is None else self._output(end)
        except OSError:
            return None

    @property
    def error(self) -> BaseException | None:
        """What `wait` raises because of how the task ended; None while it has not, or when it completed."""
        self._read_end()
        return self._raised

    @property
    def done(self) -> bool:
        """Whether the task has ended in any way."""
        return self._read_end() is not None

    @property
    def result_json(self) -> dict[str, Any] | None:
        """The whole result.json, metrics included; None until the task has ended."""
        return self._read_end()

    def _read_end(self) -> dict[str, Any] | None:
        """Reads result.json once it is there, and with it what the task gave."""
        if self._end is None:
            try:
                end = json.loads(_files.read(self.dir, "result.json", most=_files.MAX_RESULT_BYTES))
            except FileNotFoundError:
                return None
            if not isinstance(end, dict):
                raise AgentspoolError(f"the result of {self.task_id} is damaged: it is not an object")
            if self._is_foreign():
                return None
            if end.get("status") not in _ENDS:
                raise AgentspoolError(f"the result of {self.task_id} is damaged: it says no end")
            # The values first: whoever sees the end finds them.
            if end["status"] == "completed":
                try:
                    self._value = self._output(end)
                except Exception as error:
                    # The task completed, and what it gave cannot be had here: `wait` says why.
                    self._raised = error
            else:
                self._raised = self._exception(end)
            self._end = end
            self._let_go()
        return self._end

    def _is_foreign(self) -> bool:
        """Whether a recipe wrote what stands as the result: its attempt still has the room for the true one, and
        the status tells of no end."""
        try:
            status = json.loads(_files.read(self.dir, "status.json", most=_files.MAX_RESULT_BYTES))
            attempt = int(status["attempt"])
            is_over = status["status"] in _ENDS
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return not is_over and os.path.lexists(self.dir / "attempts" / str(attempt) / "result.part")

    def _output(self, end: dict[str, Any]) -> Any:
        """The output, also of more than stands in result.json; bytes where it is not UTF-8 text."""
        file = end.get("output_file")
        if not file:
            return end.get("output")
        content, cut_out = _read_parts(self.dir, _files.parts_of(file))
        if cut_out and file.endswith("/stdout.log"):
            _program.warn(f"{cut_out} bytes were cut out of the middle of the output of {self.task_id} (log_cap_bytes)")
        if end.get("output_encoding") == "binary":
            return content
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            # Of a very large file only the beginning was looked at.
            return content
        try:
            return _strict_json(text)
        except (ValueError, RecursionError):
            return text.removesuffix("\n")

    def _exception(self, end: dict[str, Any]) -> BaseException:
        """What stands for a task that did not complete."""
        told = f"the task {self.task_id} ({end.get('recipe')}) was cancelled"
        error = end.get("error")
        if error:
            told = f"the task {self.task_id} ({end.get('recipe')}) failed: {one_line(error['message'])}"
            last = self._last_words(end)
            told += f": {one_line(last)}" if error["kind"] == "exit" and last else ""
        return of_result(end, told)

    def _opened(self, end: dict[str, Any], *parts: str) -> AbstractContextManager[BinaryIO]:
        """A file of the attempt that the result is of."""
        return _files.opened(self.dir, "attempts", str(end["attempt"]), *parts)

    def _last_words(self, end: dict[str, Any]) -> str:
        """The last line of stderr, which mostly says why."""
        try:
            with self._opened(end, "stderr.log") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                lines = file.read(_TAIL_BYTES).decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        lines = [line.strip() for line in lines if line.strip()]
        return lines[-1][-_TOLD_CHARACTERS:] if lines else ""

    # --- stopping it, hearing of it ----------------------------------------------------------------

    async def cancel(self) -> bool:
        """Stops the task with all it started and waits until nothing of it is left. False when it had ended before."""
        return _was_cancelled(await _program.arun(["cancel", self.task_id], self._spool))

    def cancel_sync(self) -> bool:
        """The same, blocking."""
        return _was_cancelled(_program.run(["cancel", self.task_id], self._spool))

    def on_complete(self, callback: OnComplete) -> None:
        """Calls `callback(task)` once when the task has ended in any way, as long as this process lives.

        In the event loop that runs here now, if one does, else in a thread. A coroutine function is run as well. What
        the callback raises is logged under `agentspool`.
        """
        try:
            loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        name = f"agentspool {self.task_id}"
        threading.Thread(target=self._call_at_the_end, args=(callback, loop), name=name, daemon=True).start()

    def _call_at_the_end(self, callback: OnComplete, loop: asyncio.AbstractEventLoop | None) -> None:
        try:
            if self._read_end() is None:
                # Without --need-watcher: nobody waits for this, so it may take as long as it takes.
                _program.run(["wait", self.task_id], self._spool)
            self._read_end()
        except Exception as error:
            _log.error("on_complete of %s: the task cannot be waited for: %s", self.task_id, error)
            return

        def call() -> None:
            try:
                answer = callback(self)
            except Exception:
                _log.exception("on_complete of %s raised", self.task_id)
                return
            if not inspect.isawaitable(answer):
                return
            if loop is not None and loop.is_running():
                following = asyncio.ensure_future(_logged(answer, self.task_id), loop=loop)
                _following.add(following)
                following.add_done_callback(_following.discard)
            else:
                asyncio.run(_logged(answer, self.task_id))

        try:
            if loop is not None:
                loop.call_soon_threadsafe(call)
                return
        except RuntimeError:
            # The loop was closed in the meantime.
            loop = None
        call()

    # --- keeping the result ------------------------------------------------------------------------

    def _take_hold(self) -> None:
        """Keeps the sweeper from the task: see docs/spool-format.md."""
        try:
            with _files.folder(self.dir) as folder:
                fd = self._open_to_hold(folder)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                told = (
                    f"too many open files: the result of {self.task_id} is kept only as long as the spool's retention"
                )
                _program.warn(told)
            return
        self._hold = weakref.finalize(self, os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            with _files.folder(self.dir) as folder:
                is_whole = _is_folder(fd)
                place = os.fstat(folder) if is_whole else os.stat(_READERS, dir_fd=folder, follow_symlinks=False)
            if not os.path.samestat(os.fstat(fd), place):
                # The sweeper moved it away in between.
                self._let_go()
        except OSError:
            # It is being removed; who asks for it gets NotFound.
            self._let_go()

    def _open_to_hold(self, folder: int) -> int:
        """The task's folder; in a group spool, where the group may open and so lock that one, a file in it."""
        if not os.fstat(folder).st_mode & 0o070:
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(_READERS, flags, 0o600, dir_fd=folder)

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold()


def _is_folder(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def _read_parts(task: Path, parts: list[str]) -> tuple[bytes, int]:
    """A file's content without what was cut out of it, and how much that was. Holes in it are zeroes."""
    begin, end = _cut_of(task, parts)
    with _files.opened(task, *parts) as file:
        if begin >= end:
            return _files.read_all(file), 0
        size = file.seek(0, os.SEEK_END)
        begin, end = min(begin, size), min(end, size)
        _files.check_size(size - (end - begin))
        file.seek(0)
        before = file.read(begin)
        file.seek(end)
        return before + file.read(size - end), end - begin


def _cut_of(task: Path, parts: list[str]) -> tuple[int, int]:
    """Which part of a log was cut out of it, as docs/spool-format.md says."""
    if parts[-1] != "stdout.log":
        return 0, 0
    try:
        with _files.opened(task, *parts[:-1], "cut.json") as file:
            cut = json.loads(_files.read_all(file))["stdout"]
        return int(cut["from"]), int(cut["to"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0, 0


def _strict_json(text: str) -> Any:
    """A JSON value, where reading it loses nothing: the same rules as for an output that stands in result.json."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("an object has the same key twice")
        return value

    def finite(number: str) -> float:
        value = float(number)
        if math.isinf(value):
            raise ValueError("a number is out of range")
        return value

    def no_constant(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    value = json.loads(text, object_pairs_hook=once, parse_float=finite, parse_constant=no_constant)
    if "\\ud" in text.lower():
        # A lone surrogate cannot be encoded, which is a ValueError.
        json.dumps(value, ensure_ascii=False).encode()
    return value


async def _logged(answer: Awaitable[None], task_id: str) -> None:
    try:
        await answer
    except Exception:
        _log.exception("on_complete of %s raised", task_id)


def _was_cancelled(answer: dict[str, Any]) -> bool:
    return answer.get("status") == "cancelled" and not answer.get("already_terminal")


def open_task(task_id: str, spool: str | os.PathLike[str] | None = None) -> Task:
    """A handle on a task that somebody submitted: by its id, its name, `last`, or a part of the id.

    Raises NotFound when there is none, and SpoolUnusable when there is no such spool.
    """
    place = None if spool is None else os.fspath(spool)
    answer = _program.run(["status", "--", task_id], place)
    if answer.get("task_id") is None:
        raise NotFound(f"{task_id} is a drop that no watcher has admitted yet")
    root = _program.run(["config"], place)["spool"]
    found = str(answer["task_id"])
    return Task(found, os.path.join(root, "tasks", found), answer.get("recipe"), answer.get("session_id"))


# The words of a status that has no successor.
_ENDS = frozenset({"completed", "failed", "cancelled"})
