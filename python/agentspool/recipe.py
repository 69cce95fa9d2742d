"""Recipes as background tasks: the calls of PraisonAI's `recipe` module, on a spool.

    from agentspool import recipe

    task = recipe.run_background("my-recipe", input={"query": "What is AI?"}, timeout_sec=300)
    result = await task.wait(timeout=600)

The spool's watcher runs the recipes. Python functions are in `background.py`. The argument `spool` is the folder of a
spool. The default is the spool of the command line: $AGENTSPOOL_DIR, else the user's own, which the first task creates.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from . import _program
from .errors import TaskError
from .task import OnComplete, Task

__all__ = ["RecipeInfo", "Result", "arun", "arun_background", "list_recipes", "run", "run_background"]

Place = Optional[Union[str, "os.PathLike[str]"]]


@dataclass(frozen=True)
class Result:
    """How a task ended, as in result.json."""

    task_id: str
    recipe: str | None
    status: str
    ok: bool
    output: Any
    error: str | None
    exit_code: int | None
    session_id: str | None
    metrics: dict[str, Any] = field(default_factory=dict)
    duration_seconds: float | None = None


@dataclass(frozen=True)
class RecipeInfo:
    """A recipe of a spool. `problem` says why it cannot run; it is None if the recipe can run."""

    name: str
    kind: str | None
    description: str
    path: str | None
    problem: str | None


def run_background(
    name: str,
    *,
    input: Any = None,
    config: Mapping[str, Any] | None = None,
    session_id: str | None = None,
    timeout_sec: float | None = None,
    on_complete: OnComplete | None = None,
    task_name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    spool: Place = None,
) -> Task:
    """Submits a recipe and returns its task. When this returns, the task is safe on the disk.

    Works with and without a running event loop. `env` has variables that the recipe must list under `env_accept`.
    """
    call = _submission(name, input, config, session_id, timeout_sec, task_name, metadata)
    return _handle(_program.run(*_on(call, spool), env), on_complete)


async def arun_background(
    name: str,
    *,
    input: Any = None,
    config: Mapping[str, Any] | None = None,
    session_id: str | None = None,
    timeout_sec: float | None = None,
    on_complete: OnComplete | None = None,
    task_name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    spool: Place = None,
) -> Task:
    """As `run_background`, for async code: it does not block the event loop."""
    call = _submission(name, input, config, session_id, timeout_sec, task_name, metadata)
    return _handle(await _program.arun(*_on(call, spool), env), on_complete)


def run(name: str, **arguments: Any) -> Result:
    """Submits a recipe, waits for its end and returns the result. Takes the arguments of `run_background`.

    A task that failed gives a result whose `ok` is False. If no task was created, an exception is raised.
    """
    task = run_background(name, **arguments)
    with contextlib.suppress(TaskError):
        task.wait_sync()
    return _result_of(task)


async def arun(name: str, **arguments: Any) -> Result:
    """As `run`, for async code."""
    task = await arun_background(name, **arguments)
    with contextlib.suppress(TaskError):
        await task.wait()
    return _result_of(task)


def list_recipes(spool: Place = None) -> list[RecipeInfo]:
    """The recipes of a spool, by name, also those that cannot run."""
    rows = _program.run(["recipe", "list"], None if spool is None else os.fspath(spool))["recipes"]
    return [
        RecipeInfo(row["name"], row.get("kind"), row.get("description") or "", row.get("path"), row.get("problem"))
        for row in rows
    ]


Submission = tuple[list[str], dict[str, str]]


def _submission(
    name: str,
    input: Any,
    config: Mapping[str, Any] | None,
    session_id: str | None,
    timeout_sec: float | None,
    task_name: str | None,
    metadata: Mapping[str, Any] | None,
) -> Submission:
    """The command with names and numbers, and the texts that it reads from files."""
    verb = ["submit", f"--recipe={name}"]
    if session_id is not None:
        verb.append(f"--session-id={session_id}")
    if timeout_sec is not None:
        verb.append(f"--timeout={timeout_sec}")
    if task_name is not None:
        verb.append(f"--name={task_name}")
    given = {"input": input, "config": config, "metadata": metadata}
    return verb, {flag: _program.to_json(flag, value) for flag, value in given.items() if value is not None}


def _on(call: Submission, spool: Place) -> tuple[list[str], str | None, dict[str, str]]:
    verb, texts = call
    return verb, None if spool is None else os.fspath(spool), texts


def _handle(answer: dict[str, Any], on_complete: OnComplete | None) -> Task:
    task = Task(answer["task_id"], answer["dir"], answer["recipe"], answer["session_id"])
    if on_complete is not None:
        task.on_complete(on_complete)
    return task


def _result_of(task: Task) -> Result:
    end = task.result_json or {}
    return Result(
        task_id=task.task_id,
        recipe=end.get("recipe"),
        status=end["status"],
        ok=end["ok"],
        output=task.result if end["ok"] else task.partial_output,
        error=None if task.error is None else str(task.error),
        exit_code=end.get("exit_code"),
        session_id=end.get("session_id"),
        metrics=end.get("metrics") or {},
        duration_seconds=end.get("duration_seconds"),
    )
