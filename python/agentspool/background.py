"""Python functions as background tasks, each in a process of its own: BackgroundRunner and BackgroundConfig.

    from agentspool.background import BackgroundRunner, BackgroundConfig

    runner = BackgroundRunner(BackgroundConfig(max_concurrent_tasks=3))
    task = await runner.submit(my_function, args=("example",))
    await task.wait(timeout=10.0)
    print(task.result)

A call is pickled with cloudpickle, so functions that are defined inside functions work, async ones too. It becomes
a task of a private spool, `agentspool-python` beside the user's own, and survives the process that submitted it;
timeout and cancel end its process with all that it started.

A pickle is code: whoever may put one into a spool whose owner runs it may run anything as that owner. So the recipe
that unpickles lies in the private spool, which nobody else can write to, and in another one only if its owner put
it there with `install_recipe`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import pickle
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Union

import cloudpickle

from . import _call, _files, _program
from .errors import NotFound, NotPicklable, Refused, RemoteTraceback, SpoolUnusable, UsageError
from .task import OnComplete, Task, open_task

__all__ = ["BackgroundConfig", "BackgroundRunner", "BackgroundTask", "install_recipe", "private_spool"]

Place = Union[str, "os.PathLike[str]"]

# Pickled calls of more bytes go through a file, because a request may have 1 MiB.
_INLINE_BYTES = 500_000
# The longest timeout a request may have: ten years.
_NO_LIMIT = 315_360_000.0
# All functions of a user at once; what one runner may do is its own limit.
_ALL_AT_ONCE = 256
# Files of calls that were cancelled before they ran are removed after so long.
_FORGOTTEN_SEC = 86_400.0


@dataclass(frozen=True)
class BackgroundConfig:
    """How functions are run.

    `max_concurrent_tasks` run at once, counted over all runners of this user with the same interpreter and the same
    config, in whatever process. `default_timeout` is in seconds; None is no limit. `env` names variables of this
    process that the functions see; beyond them they have HOME, PATH, LANG and the like.
    """

    max_concurrent_tasks: int = 5
    default_timeout: float | None = 300.0
    env: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.max_concurrent_tasks, int) or self.max_concurrent_tasks < 1:
            raise UsageError(f"max_concurrent_tasks must be a number from 1, not {self.max_concurrent_tasks!r}")
        if isinstance(self.env, str):
            raise UsageError('env takes a list of names, as env=["OPENAI_API_KEY"]')
        object.__setattr__(self, "env", tuple(sorted(set(self.env))))


class BackgroundTask(Task):
    """A function that runs as a task: `result` is what it returned, and what it raised `wait` raises.

    A pickle is code. Where the spool is another user's, its owner wrote what came back, so it is not unpickled here:
    `result` is then the value's JSON form, as in result.json, and `wait` raises TaskFailed.
    """

    name: str | None = None

    def _output(self, end: dict[str, Any]) -> Any:
        pickled = self._own_pickle(end, _call.RETURNED)
        return super()._output(end) if pickled is None else cloudpickle.loads(pickled)

    def _own_pickle(self, end: dict[str, Any], name: str) -> bytes | None:
        """The bytes of a file that this user wrote; None where another one did."""
        with self._opened(end, *name.split("/")) as file:
            return _files.read_all(file) if _files.is_ours(file) else None

    def _exception(self, end: dict[str, Any]) -> BaseException:
        told = super()._exception(end)
        if (end.get("error") or {}).get("kind") != "exit":
            return told
        try:
            content = self._own_pickle(end, _call.RAISED)
        except FileNotFoundError:
            # It left by sys.exit, or Python itself could not start.
            return told
        if content is None:
            return told
        pickled, trace = pickle.loads(content)
        raised: BaseException = told
        if pickled is not None:
            try:
                raised = cloudpickle.loads(pickled)
            except Exception:
                raised = told
        raised.__cause__ = RemoteTraceback(trace)
        return raised


class BackgroundRunner:
    """Submits functions. It holds nothing that a task needs: it may be gone while they run."""

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
        """Makes a task of a call. `timeout` is in seconds and begins when the function does."""
        # Sync or async, and pickled here and now: what the function closes over may change later.
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
        """The same, blocking."""
        call = self._pickle(func, args, kwargs, name)
        return self._handle(_program.run(*self._prepare(call, timeout)), call, on_complete)

    @property
    def tasks(self) -> list[BackgroundTask]:
        """The tasks this runner submitted, oldest first."""
        return list(self._tasks.values())

    def get_task(self, task_id: str) -> BackgroundTask:
        """A handle on a task of this runner's spool, whoever submitted it. Raises NotFound when there is none."""
        known = self._tasks.get(task_id)
        if known is not None:
            return known
        spool = self._place or private_spool()
        if self._place is None and not os.path.exists(os.path.join(spool, "spool.json")):
            raise NotFound(f"no task is called {task_id!r}: no function was submitted yet")
        found = open_task(task_id, spool)
        return BackgroundTask(found.task_id, str(found.dir), found.recipe_name, found.session_id)

    async def wait_all(self, timeout: float | None = None) -> list[BackgroundTask]:
        """Waits until all tasks of this runner have ended in whatever way. Raises WaitTimedOut."""
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
            told = f"{label} cannot be sent to a process of its own: {type(error).__name__}: {error}"
            raise NotPicklable(told) from error

    def _prepare(self, call: _Call, timeout: float | None) -> tuple[list[str], str, dict[str, str], dict[str, str]]:
        """What to call the program with. Makes the private spool and the recipe where they are missing."""
        if self._place is None:
            spool = _ready_private_spool()
            recipe = install_recipe(spool, self.config)
        else:
            spool = self._place
            recipe = _recipe_name(self.config)
            if not os.path.isdir(spool):
                # The program says best what is wrong with it.
                _program.run(["config"], spool)
            if not os.path.isdir(os.path.join(spool, "recipes", recipe)):
                raise Refused(
                    f"{spool} runs no Python functions with this interpreter and config: a pickle is code, so its owner"
                    " must allow it with agentspool.background.install_recipe"
                )
        if timeout is None:
            timeout = self.config.default_timeout
        verb = ["submit", f"--recipe={recipe}", f"--timeout={_NO_LIMIT if timeout is None else timeout}"]
        request = {
            "v": 1,
            "function": call.label,
            "sys_path": [os.path.abspath(path) for path in sys.path],
            "cwd": os.getcwd(),
            "spool": os.environ.get("AGENTSPOOL_DIR"),
            **_carried(call.pickled, spool),
        }
        texts = {
            "input": _program.to_json("the call", request),
            "metadata": _program.to_json("the name", {"function": call.label, "name": call.name}),
        }
        missing = [name for name in self.config.env if name not in os.environ]
        if missing:
            raise UsageError(f"the variable {missing[0]}, which the config names under env, is not set")
        return verb, spool, texts, {name: os.environ[name] for name in self.config.env}

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


# --- the private spool, and what lies beside it ------------------------------------------------------


def private_spool() -> str:
    """Where functions go: `$XDG_STATE_HOME/agentspool-python/spool`, else below ~/.local/state."""
    state = os.environ.get("XDG_STATE_HOME") or ""
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    return os.path.join(state, "agentspool-python", "spool")


def _ready_private_spool() -> str:
    spool = private_spool()
    # The last thing that is made of a new spool: another process may be at it just now.
    if not os.path.exists(os.path.join(spool, "identity.json")):
        os.makedirs(os.path.dirname(spool), mode=0o700, exist_ok=True)
        _program.run(["init", spool], None)
        _program.run(["config", "set", "max_concurrent", str(_ALL_AT_ONCE)], spool)
    return spool


def _recipe_key(config: BackgroundConfig) -> list[Any]:
    if not sys.executable:
        raise UsageError("this Python does not know its own program (sys.executable), so it cannot start another one")
    return [sys.executable, os.path.abspath(_call.__file__), config.max_concurrent_tasks, list(config.env)]


def _recipe_name(config: BackgroundConfig) -> str:
    key = json.dumps(_recipe_key(config)).encode()
    return "python-" + hashlib.sha256(key).hexdigest()[:12]


def install_recipe(spool: Place, config: BackgroundConfig | None = None) -> str:
    """Puts the recipe that runs pickled functions into a spool of yours, and gives its name.

    In a spool that others may submit to this lets them run any Python code as you.
    """
    config = config or BackgroundConfig()
    python, worker, at_once, env = _recipe_key(config)
    name = _recipe_name(config)
    recipes = Path(os.fspath(spool)) / "recipes"
    if (recipes / name).is_dir():
        return name
    # A JSON text is a TOML text.
    manifest = f"""# Calls pickled functions for agentspool's Python package, which wrote this file.
description = "Python functions, with {at_once} at once"
command = {json.dumps([python, worker], ensure_ascii=False)}
max_concurrent = {at_once}
session = "parallel"
env_accept = {json.dumps(env)}
"""
    try:
        staged = tempfile.mkdtemp(prefix=".python-", dir=recipes)
    except OSError as error:
        raise SpoolUnusable(f"no recipe can be put into {recipes}: {error.strerror}") from None
    try:
        (Path(staged) / "recipe.toml").write_text(manifest, "utf-8")
        os.chmod(staged, 0o755)
        os.rename(staged, recipes / name)
    except OSError:
        # Another process may have been faster.
        shutil.rmtree(staged, ignore_errors=True)
        if not (recipes / name).is_dir():
            raise
    return name


def _carried(pickled: bytes, spool: str) -> dict[str, str]:
    """How the call reaches its process: in the request, or in a file beside the spool that the process removes."""
    if len(pickled) <= _INLINE_BYTES:
        return {"call": base64.b64encode(pickled).decode()}
    calls = Path(spool).parent / "calls"
    calls.mkdir(mode=0o700, exist_ok=True)
    _remove_forgotten(calls, Path(spool))
    path = calls / f"{uuid.uuid4().hex}.pickle"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as file:
        file.write(pickled)
        file.flush()
        # The request will be durable, so what it names must be.
        os.fsync(file.fileno())
    folder = os.open(calls, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    return {"call_file": str(path)}


def _remove_forgotten(calls: Path, spool: Path) -> None:
    """Removes the files of calls that ended before they ran: old ones that no open task names."""
    old = [path for path in calls.iterdir() if time.time() - path.stat().st_mtime > _FORGOTTEN_SEC]
    if not old:
        return
    wanted = set()
    for hint in (spool / "open").iterdir():
        try:
            request = json.loads((spool / "tasks" / hint.name / "request.json").read_bytes())
        except (OSError, ValueError):
            continue
        wanted.add((request.get("input") or {}).get("call_file"))
    for path in old:
        if str(path) not in wanted:
            path.unlink(missing_ok=True)
