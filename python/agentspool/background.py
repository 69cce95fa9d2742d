"""Python functions as background tasks, each in a separate process: BackgroundRunner and BackgroundConfig.

    from agentspool.background import BackgroundRunner, BackgroundConfig

    runner = BackgroundRunner(BackgroundConfig(max_concurrent_tasks=3))
    task = await runner.submit(my_function, args=("example",))
    await task.wait(timeout=10.0)
    print(task.result)

cloudpickle pickles a call, so nested and async functions work. The call becomes a task of a private spool,
`agentspool-python` next to the user's own spool, and outlives the process that submitted it. Timeout and cancel end
its process and everything that the process started.

Invariant: a pickle is code, so no user can run code as another one. The recipe that unpickles is in the private spool,
where no other user can write. Another spool has it only if its owner calls `install_recipe`. A returned value is a
pickle as well, and is unpickled only if `_own.py` permits it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pickle
import shutil
import sys
import tempfile
import threading
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Union

import cloudpickle

from . import _call, _program
from ._own import own_pickle, recipe_name
from .errors import NotFound, NotPicklable, Refused, RemoteTraceback, SpoolUnusable, TaskFailed, UsageError
from .task import OnComplete, Task, open_task

__all__ = ["BackgroundConfig", "BackgroundRunner", "BackgroundTask", "install_recipe", "private_spool"]

Place = Union[str, "os.PathLike[str]"]

# A larger pickled call is attached to its task, because a request may have only 1 MiB.
_INLINE_BYTES = 500_000
# The longest timeout a request may have: ten years.
_NO_LIMIT = 315_360_000.0
# The limit for all functions of a user. Each runner has its own lower limit.
_ALL_AT_ONCE = 256


@dataclass(frozen=True)
class BackgroundConfig:
    """How functions run.

    `max_concurrent_tasks` counts over all runners of this user with the same interpreter and config, in all processes.
    `default_timeout` is in seconds; None means no limit. `env` names variables of this process that the functions see,
    in addition to HOME, PATH, LANG and a few others.
    """

    max_concurrent_tasks: int = 5
    default_timeout: float | None = 300.0
    env: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.max_concurrent_tasks, int) or self.max_concurrent_tasks < 1:
            raise UsageError(f"max_concurrent_tasks must be a number of at least 1, not {self.max_concurrent_tasks!r}")
        if isinstance(self.env, str):
            raise UsageError('env must be a list of names, for example env=["OPENAI_API_KEY"]')
        object.__setattr__(self, "env", tuple(sorted(set(self.env))))


class BackgroundTask(Task):
    """A function that runs as a task. `result` is its return value, and `wait` raises its exception.

    Only `result`, `partial_output`, `error` and `wait` unpickle, and only for a function of this user. For any other
    task they return what a Task returns.
    """

    name: str | None = None

    def __init__(self, task_id: str, directory: str, recipe_name: str | None, session_id: str | None) -> None:
        self._lock = threading.Lock()
        # Unpickles the value and the exception. Called at the first access, because unpickling runs code.
        self._unread: Callable[[], tuple[Any, BaseException | None]] | None = None
        super().__init__(task_id, directory, recipe_name, session_id)

    @property
    def result(self) -> Any:
        """What the function returned, or None until then. Never waits.

        For a task that is not a function of this user: the output as in `Task.result`.
        """
        self._unpickle()
        return super().result

    @property
    def partial_output(self) -> Any:
        """As `result`; if the function did not return, what it wrote to its result file or printed."""
        end = self._read_end()
        return self.result if end and end["status"] == "completed" else super().partial_output

    @property
    def error(self) -> BaseException | None:
        """The exception that `wait` raises for the task. None if the task is unfinished or completed."""
        self._unpickle()
        return super().error

    def _outcome(self) -> Any:
        self._unpickle()
        return super()._outcome()

    def _read_end(self) -> dict[str, Any] | None:
        # Under the lock, so that one thread does not overwrite what another has unpickled.
        with self._lock:
            return super()._read_end()

    def _unpickle(self) -> None:
        self._read_end()
        unread = self._unread
        if unread is None:
            return
        # Without the lock: unpickling runs code of the user, which may wait for other threads.
        value, raised = unread()
        with self._lock:
            if self._unread is unread:
                self._value, self._raised, self._unread = value, raised, None

    def _output(self, end: dict[str, Any]) -> Any:
        """Reads the pickle and unpickles it later. Without a pickle, the output is as for any task."""
        if end["status"] != "completed":
            return super()._output(end)
        try:
            pickled = own_pickle(self.dir, end, _call.RETURNED)
        except FileNotFoundError:
            message = f"the task {self.task_id} completed, but {_call.RETURNED} with its returned value is missing"
            raise TaskFailed(message, end) from None
        if pickled is None:
            return super()._output(end)
        self._unread = lambda: _returned(pickled)
        return None

    def _exception(self, end: dict[str, Any]) -> BaseException:
        failure = super()._exception(end)
        if (end.get("error") or {}).get("kind") != "exit":
            return failure
        try:
            pickled = own_pickle(self.dir, end, _call.RAISED)
        except (OSError, SpoolUnusable):
            # The function called sys.exit, Python could not start, or others may have written the file.
            return failure
        if pickled is not None:
            self._unread = lambda: (None, _raised(pickled, failure))
        return failure


def _returned(pickled: bytes) -> tuple[Any, BaseException | None]:
    try:
        return cloudpickle.loads(pickled), None
    except Exception as error:
        # The function returned, but its value cannot be unpickled here. `wait` raises the reason.
        return None, error


def _raised(pickled: bytes, failure: BaseException) -> BaseException:
    """The exception of the function with its traceback, or the given error if it cannot be unpickled."""
    raised = failure
    try:
        inner, trace = pickle.loads(pickled)
    except Exception as error:
        inner, trace = None, f"the traceback cannot be unpickled here: {type(error).__name__}: {error}"
    if inner is not None:
        try:
            raised = cloudpickle.loads(inner)
        except Exception:
            # For example, its module is missing here. The error has its text.
            raised = failure
    raised.__cause__ = RemoteTraceback(trace)
    return raised


class BackgroundRunner:
    """Submits functions. The tasks do not need it: it may be deleted while they run."""

    def __init__(self, config: BackgroundConfig | None = None, spool: Place | None = None) -> None:
        self.config = config or BackgroundConfig()
        self._place = None if spool is None else os.fspath(spool)
        self._tasks: dict[str, BackgroundTask] = {}

    async def submit(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        timeout: float | None = None,
        on_complete: OnComplete | None = None,
    ) -> BackgroundTask:
        """Submits a call as a task. `timeout` is in seconds and counts from the start of the function."""
        # Pickled now, because the variables of the enclosing function may change later.
        call = self._pickle(func, args, kwargs, name)
        loop = asyncio.get_running_loop()
        ready = await loop.run_in_executor(None, self._prepare, call, timeout)
        return self._handle(await _program.arun(*ready), call, on_complete)

    def submit_sync(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        timeout: float | None = None,
        on_complete: OnComplete | None = None,
    ) -> BackgroundTask:
        """As `submit`, but it blocks."""
        call = self._pickle(func, args, kwargs, name)
        return self._handle(_program.run(*self._prepare(call, timeout)), call, on_complete)

    @property
    def tasks(self) -> list[BackgroundTask]:
        """The tasks that this runner submitted, oldest first."""
        return list(self._tasks.values())

    def get_task(self, task_id: str) -> BackgroundTask:
        """A handle on any task of this runner's spool. Raises NotFound."""
        known = self._tasks.get(task_id)
        if known is not None:
            return known
        spool = self._place or private_spool()
        if self._place is None and not os.path.exists(os.path.join(spool, "spool.json")):
            raise NotFound(f"no task is called {task_id!r}: no function has been submitted yet")
        found = open_task(task_id, spool)
        return BackgroundTask(found.task_id, str(found.dir), found.recipe_name, found.session_id)

    async def wait_all(self, timeout: float | None = None) -> list[BackgroundTask]:
        """Waits until all tasks of this runner have ended, also those that failed. Raises WaitTimedOut."""
        open_ones = [task.task_id for task in self.tasks if not task.done]
        if open_ones:
            limit = [] if timeout is None else [f"--timeout={max(0.0, timeout):.6f}"]
            verb = ["wait", "--need-watcher", *limit, *open_ones]
            await _program.arun(verb, self._place or private_spool())
        return self.tasks

    async def cancel_all(self) -> None:
        """Cancels all tasks of this runner that have not ended."""
        waits: list[Awaitable[bool]] = [task.cancel() for task in self.tasks if not task.done]
        await asyncio.gather(*waits)

    # --- from a call to a request ------------------------------------------------------------------

    def _pickle(self, func: Any, args: Any, kwargs: Any, name: str | None) -> _Call:
        if not callable(func):
            raise UsageError(f"{func!r} cannot be called")
        label = name or getattr(func, "__qualname__", None) or type(func).__name__
        try:
            return _Call(label, name, cloudpickle.dumps((func, tuple(args), dict(kwargs or {}))))
        except Exception as error:
            message = f"{label} cannot be pickled for another process: {type(error).__name__}: {error}"
            raise NotPicklable(message) from error

    def _prepare(
        self, call: _Call, timeout: float | None
    ) -> tuple[list[str], str, dict[str, str], dict[str, str], bytes | None]:
        """The arguments for the program. Creates the private spool and the recipe if they are missing."""
        if self._place is None:
            spool = _ready_private_spool()
            recipe = install_recipe(spool, self.config)
        else:
            spool = self._place
            recipe = recipe_name(_manifest(self.config))
            if not os.path.isdir(spool):
                # The program raises the error that says what is wrong.
                _program.run(["config"], spool)
            if not os.path.isdir(os.path.join(spool, "recipes", recipe)):
                raise Refused(
                    f"{spool} does not run Python functions with this interpreter and config: a pickle is code, so the"
                    " owner must call agentspool.background.install_recipe first"
                )
        if timeout is None:
            timeout = self.config.default_timeout
        verb = ["submit", f"--recipe={recipe}", f"--timeout={_NO_LIMIT if timeout is None else timeout}"]
        request: dict[str, Any] = {
            "v": 1,
            "function": call.label,
            "sys_path": [os.path.abspath(path) for path in sys.path],
            "cwd": os.getcwd(),
            "spool": os.environ.get("AGENTSPOOL_DIR"),
        }
        # A large call is a file in the folder of its task, and moves with the task.
        attached = call.pickled if len(call.pickled) > _INLINE_BYTES else None
        if attached is None:
            request["call"] = base64.b64encode(call.pickled).decode()
        texts = {
            "input": _program.to_json("the call", request),
            "metadata": _program.to_json("the name", {"function": call.label, "name": call.name}),
        }
        missing = [name for name in self.config.env if name not in os.environ]
        if missing:
            raise UsageError(f"the variable {missing[0]}, which the config names under env, is not set")
        return verb, spool, texts, {name: os.environ[name] for name in self.config.env}, attached

    def _handle(self, answer: dict[str, Any], call: _Call, on_complete: OnComplete | None) -> BackgroundTask:
        task = BackgroundTask(answer["task_id"], answer["dir"], answer["recipe"], answer["session_id"])
        task.name = call.label
        self._tasks[task.task_id] = task
        if on_complete is not None:
            task.on_complete(on_complete)
        return task


@dataclass(frozen=True)
class _Call:
    label: str
    name: str | None
    pickled: bytes


# --- the private spool and its recipe ------------------------------------------------------------------


def private_spool() -> str:
    """The spool of functions: `$XDG_STATE_HOME/agentspool-python/spool`, else below ~/.local/state."""
    state = os.environ.get("XDG_STATE_HOME") or ""
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    return os.path.join(state, "agentspool-python", "spool")


def _ready_private_spool() -> str:
    spool = private_spool()
    # identity.json is the last file of a new spool. Another process may be creating the spool now.
    if not os.path.exists(os.path.join(spool, "identity.json")):
        os.makedirs(os.path.dirname(spool), mode=0o700, exist_ok=True)
        _program.run(["init", spool], None)
        _program.run(["config", "set", "max_concurrent", str(_ALL_AT_ONCE)], spool)
    return spool


def _manifest(config: BackgroundConfig) -> str:
    """The recipe.toml of the functions of this interpreter with this config."""
    if not sys.executable:
        raise UsageError("sys.executable is empty, so another Python cannot be started")
    command = [sys.executable, os.path.abspath(_call.__file__)]
    # A JSON string is a valid TOML string.
    return f"""# Calls pickled functions for agentspool's Python package, which wrote this file.
description = "Python functions, with {config.max_concurrent_tasks} at once"
command = {json.dumps(command, ensure_ascii=False)}
max_concurrent = {config.max_concurrent_tasks}
session = "parallel"
needs_result = true
env_accept = {json.dumps(list(config.env))}
"""


def install_recipe(spool: Place, config: BackgroundConfig | None = None) -> str:
    """Installs the recipe that runs pickled functions in a spool of yours, and returns its name.

    If others may submit to that spool, they can then run any Python code as you.
    """
    manifest = _manifest(config or BackgroundConfig())
    name = recipe_name(manifest)
    recipes = Path(os.fspath(spool)) / "recipes"
    if (recipes / name).is_dir():
        return name
    try:
        staged = tempfile.mkdtemp(prefix=".python-", dir=recipes)
    except OSError as error:
        raise SpoolUnusable(f"cannot install the recipe in {recipes}: {error.strerror}") from None
    try:
        file = Path(staged) / "recipe.toml"
        file.write_text(manifest, "utf-8")
        # Independent of the umask, because a file that others may write is not trusted.
        file.chmod(0o644)
        os.chmod(staged, 0o755)
        os.rename(staged, recipes / name)
    except OSError:
        # Another process may have installed it first.
        shutil.rmtree(staged, ignore_errors=True)
        if not (recipes / name).is_dir():
            raise
    return name
