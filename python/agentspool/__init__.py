"""agentspool: background tasks on a file-system spool, from Python.

`recipe` runs recipes, `background` runs functions, and `open_task` finds a task by its id. The protocol is not in
this package: it calls the agentspool program of the same wheel.
"""

from __future__ import annotations

from . import background, errors, recipe
from .background import BackgroundConfig, BackgroundRunner, BackgroundTask
from .errors import (
    AgentspoolError,
    AgentspoolWarning,
    Missing,
    NotFound,
    NotJson,
    NotPicklable,
    NoWatcher,
    Refused,
    RemoteTraceback,
    SpoolUnusable,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskTimedOut,
    UsageError,
    WaitTimedOut,
)
from .progress import progress
from .task import Task, open_task

__all__ = [
    "AgentspoolError",
    "AgentspoolWarning",
    "BackgroundConfig",
    "BackgroundRunner",
    "BackgroundTask",
    "Missing",
    "NoWatcher",
    "NotFound",
    "NotJson",
    "NotPicklable",
    "Refused",
    "RemoteTraceback",
    "SpoolUnusable",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TaskFailed",
    "TaskTimedOut",
    "UsageError",
    "WaitTimedOut",
    "background",
    "errors",
    "open_task",
    "progress",
    "recipe",
]
