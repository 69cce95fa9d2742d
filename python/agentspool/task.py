"""A handle on one task: its status, its result, and how to cancel it.

The task is a folder in the spool and does not need a handle. A handle that another process makes from the id is equal
to the first one. This file reads result.json, which never changes. For everything that the protocol decides, such as
whether a task is running, it asks the program. Each method has a form that blocks, for code without an event loop:
`wait` and `wait_sync`. Several threads may use a handle.

Invariant: while a handle exists that has not read the result, the sweeper does not remove the task, because the
handle holds a shared lock. In a group spool only the owner's handles have this lock.
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
# The size of the end of a log that is searched for its last line.
_TAIL_BYTES = 4096
_LAST_LINE_CHARACTERS = 500
# The file that a handle of the owner locks in a group spool.
_READERS = "readers"

# Running callbacks. The event loop itself has only weak references to them.
_following: set[asyncio.Future[None]] = set()

OnComplete = Callable[["Task"], Union[Awaitable[None], None]]


class Task:
    """A background task. `recipe.run_background` and similar functions return it, and `open_task`."""

    def __init__(self, task_id: str, directory: str, recipe_name: str | None, session_id: str | None) -> None:
        self.task_id = task_id
        self.recipe_name = recipe_name
        self.session_id = session_id
        self.dir = Path(directory)
        self._spool = str(self.dir.parents[1])
        self._end: dict[str, Any] | None = None
        self._value: Any = None
        self._raised: BaseException | None = None
        self._unlock: weakref.finalize[Any, Any] | None = None
        self._keep_result()

    @property
    def id(self) -> str:
        """The task's id."""
        return self.task_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.task_id} of {self.recipe_name}>"

    # --- status ------------------------------------------------------------------------------------

    async def status(self) -> str:
        """`pending`, `running`, `completed`, `failed` or `cancelled`."""
        return str((await self.info())["status"])

    def status_sync(self) -> str:
        """As `status`, but it blocks."""
        return str(self.info_sync()["status"])

    async def info(self) -> dict[str, Any]:
        """The object of `agentspool status --json`: status, progress, message, error, times and more."""
        return await _program.arun(["status", self.task_id], self._spool)

    def info_sync(self) -> dict[str, Any]:
        """As `info`, but it blocks."""
        return _program.run(["status", self.task_id], self._spool)

    # --- result ------------------------------------------------------------------------------------

    async def wait(self, timeout: float | None = None) -> Any:
        """Waits for the end and returns the output; for a Python function, its return value.

        Raises TaskFailed, TaskTimedOut or TaskCancelled if the task did not complete (for a Python function its own
        exception), WaitTimedOut after `timeout` seconds (the task continues), and NoWatcher if no watcher is running
        and this process may not start one.
        """
        if self._read_end() is None:
            await _program.arun(self._wait_verb(timeout), self._spool)
        return self._outcome()

    def wait_sync(self, timeout: float | None = None) -> Any:
        """As `wait`, but it blocks."""
        if self._read_end() is None:
            _program.run(self._wait_verb(timeout), self._spool)
        return self._outcome()

    def _wait_verb(self, timeout: float | None) -> list[str]:
        verb = ["wait", self.task_id, "--need-watcher"]
        return verb if timeout is None else [*verb, f"--timeout={max(0.0, timeout):.6f}"]

    def _outcome(self) -> Any:
        if self._read_end() is None:
            raise NotFound(f"the task {self.task_id} was removed during the wait")
        if self._raised is not None:
            raise self._raised
        return self._value

    @property
    def result(self) -> Any:
        """The output of the task, or None until it has completed. Never waits.

        A JSON value, text, or `bytes` for output that is not UTF-8.
        """
        self._read_end()
        return self._value

    @property
    def output_path(self) -> Path | None:
        """The file of an output that is not in result.json, because it is long or not UTF-8 text; else None.

        Also None if the result names a file outside its attempt.
        """
        end = self._read_end()
        file = end.get("output_file") if end else None
        try:
            return self.dir.joinpath(*_files.parts_of(file)) if file else None
        except OSError:
            return None

    @property
    def partial_output(self) -> Any:
        """As `result`, but also for a task that did not complete. None until it has ended."""
        end = self._read_end()
        try:
            return None if end is None else self._output(end)
        except OSError:
            return None

    @property
    def error(self) -> BaseException | None:
        """The exception that `wait` raises for the task. None if the task is unfinished or completed."""
        self._read_end()
        return self._raised

    @property
    def done(self) -> bool:
        """Whether the task has ended, also if it failed."""
        return self._read_end() is not None

    @property
    def result_json(self) -> dict[str, Any] | None:
        """The whole result.json, metrics included; None until the task has ended."""
        return self._read_end()

    def _read_end(self) -> dict[str, Any] | None:
        """Reads result.json, if it exists, and the output."""
        if self._end is None:
            try:
                end = json.loads(_files.read(self.dir, "result.json", most=_files.MAX_RESULT_BYTES))
            except FileNotFoundError:
                return None
            if not isinstance(end, dict):
                raise AgentspoolError(f"the result of {self.task_id} is damaged: result.json is not a JSON object")
            if self._is_forged():
                return None
            if end.get("status") not in _ENDS:
                raise AgentspoolError(f"the result of {self.task_id} is damaged: its status is not a final one")
            # The values first, because another thread uses them as soon as it sees `_end`.
            if end["status"] == "completed":
                try:
                    self._value = self._output(end)
                except Exception as error:
                    # The task completed, but its output cannot be read here. `wait` raises the reason.
                    self._raised = error
            else:
                self._raised = self._exception(end)
            self._end = end
            self._release()
        return self._end

    def _is_forged(self) -> bool:
        """Whether a recipe wrote result.json: the attempt still has the preallocated result.part, and the status is
        not final."""
        try:
            status = json.loads(_files.read(self.dir, "status.json", most=_files.MAX_RESULT_BYTES))
            attempt = int(status["attempt"])
            is_over = status["status"] in _ENDS
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return not is_over and os.path.lexists(self.dir / "attempts" / str(attempt) / "result.part")

    def _output(self, end: dict[str, Any]) -> Any:
        """The output, from result.json or from its file; bytes if it is not UTF-8 text."""
        file = end.get("output_file")
        if not file:
            return end.get("output")
        content, cut_out = _read_parts(self.dir, _files.parts_of(file))
        if cut_out and file.endswith("/stdout.log"):
            _program.warn(f"the middle of the output of {self.task_id} was cut out: {cut_out} bytes (log_cap_bytes)")
        if end.get("output_encoding") == "binary":
            return content
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            # The runner checks only the start of a very large file.
            return content
        try:
            return _strict_json(text)
        except (ValueError, RecursionError):
            return text.removesuffix("\n")

    def _exception(self, end: dict[str, Any]) -> BaseException:
        """The exception for a task that did not complete."""
        message = f"the task {self.task_id} ({end.get('recipe')}) was cancelled"
        error = end.get("error")
        if error:
            message = f"the task {self.task_id} ({end.get('recipe')}) failed: {one_line(error['message'])}"
            last = self._last_line(end)
            message += f": {one_line(last)}" if error["kind"] == "exit" and last else ""
        return of_result(end, message)

    def _opened(self, end: dict[str, Any], *parts: str) -> AbstractContextManager[BinaryIO]:
        """A file of the attempt of the result."""
        return _files.opened(self.dir, "attempts", str(end["attempt"]), *parts)

    def _last_line(self, end: dict[str, Any]) -> str:
        """The last line of stderr, which usually gives the reason."""
        try:
            with self._opened(end, "stderr.log") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                lines = file.read(_TAIL_BYTES).decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        lines = [line.strip() for line in lines if line.strip()]
        return lines[-1][-_LAST_LINE_CHARACTERS:] if lines else ""

    # --- cancel and callbacks ----------------------------------------------------------------------

    async def cancel(self) -> bool:
        """Stops the task and all its processes, and waits for their end. False if the task had already ended."""
        return _was_cancelled(await _program.arun(["cancel", self.task_id], self._spool))

    def cancel_sync(self) -> bool:
        """As `cancel`, but it blocks."""
        return _was_cancelled(_program.run(["cancel", self.task_id], self._spool))

    def on_complete(self, callback: OnComplete) -> None:
        """Calls `callback(task)` once when the task has ended, as long as this process runs.

        The call is made in the event loop that is running now, else in a thread. `callback` may be a coroutine
        function. An exception that it raises is logged under `agentspool`.
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
                # Without --need-watcher: no caller waits for this thread, so it may wait for a watcher.
                _program.run(["wait", self.task_id], self._spool)
            self._read_end()
        except Exception as error:
            _log.error("on_complete of %s: failed to wait for the task: %s", self.task_id, error)
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
            # The loop has been closed.
            loop = None
        call()

    # --- keeping the result ------------------------------------------------------------------------

    def _keep_result(self) -> None:
        """Locks the task against the sweeper: see docs/spool-format.md."""
        try:
            with _files.folder(self.dir) as folder:
                fd = self._open_for_lock(folder)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                _program.warn(
                    f"too many open files: the result of {self.task_id} is kept only for the retention of the spool"
                )
            return
        self._unlock = weakref.finalize(self, os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            with _files.folder(self.dir) as folder:
                is_whole = _is_folder(fd)
                place = os.fstat(folder) if is_whole else os.stat(_READERS, dir_fd=folder, follow_symlinks=False)
            if not os.path.samestat(os.fstat(fd), place):
                # The sweeper moved it before the lock.
                self._release()
        except OSError:
            # It is being removed. Later calls raise NotFound.
            self._release()

    def _open_for_lock(self, folder: int) -> int:
        """The task's folder, or a file in it in a group spool, where the group could lock the folder."""
        if not os.fstat(folder).st_mode & 0o070:
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(_READERS, flags, 0o600, dir_fd=folder)

    def _release(self) -> None:
        if self._unlock is not None:
            self._unlock()


def _is_folder(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def _read_parts(task: Path, parts: list[str]) -> tuple[bytes, int]:
    """The content of a file without its removed middle, and the size of that. Other holes are zeroes."""
    start, end = _cut_of(task, parts)
    with _files.opened(task, *parts) as file:
        if start >= end:
            return _files.read_all(file), 0
        size = file.seek(0, os.SEEK_END)
        start, end = min(start, size), min(end, size)
        _files.check_size(size - (end - start))
        file.seek(0)
        before = file.read(start)
        file.seek(end)
        return before + file.read(size - end), end - start


def _cut_of(task: Path, parts: list[str]) -> tuple[int, int]:
    """The start and the end of the removed middle of a log, see docs/spool-format.md."""
    if parts[-1] != "stdout.log":
        return 0, 0
    try:
        with _files.opened(task, *parts[:-1], "cut.json") as file:
            cut = json.loads(_files.read_all(file))["stdout"]
        return int(cut["from"]), int(cut["to"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0, 0


def _strict_json(text: str) -> Any:
    """A JSON value without loss, by the rules for an output in result.json. Otherwise raises ValueError."""

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
    """A handle on any task: by its id, its name, `last`, or a part of the id.

    Raises NotFound if there is no such task, and SpoolUnusable if there is no such spool.
    """
    place = None if spool is None else os.fspath(spool)
    answer = _program.run(["status", "--", task_id], place)
    if answer.get("task_id") is None:
        raise NotFound(f"{task_id} is a drop that no watcher has admitted yet")
    root = _program.run(["config"], place)["spool"]
    found = str(answer["task_id"])
    return Task(found, os.path.join(root, "tasks", found), answer.get("recipe"), answer.get("session_id"))


# The final statuses.
_ENDS = frozenset({"completed", "failed", "cancelled"})
