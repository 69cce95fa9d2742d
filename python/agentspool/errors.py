"""The exceptions of this package, one class for each exit code of the program.

The text of an exception is the program's message, and `details` is the program's JSON. Not here: the exceptions of
functions that ran as tasks, which are raised again unchanged.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

# Control characters, direction marks, invisible characters and lone surrogates, as in the program's own output.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def one_line(text: str) -> str:
    """A text as one line with escaped control characters, which is safe on a terminal."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def safe_lines(text: str) -> str:
    """As `one_line`, but line breaks and tabs stay."""
    return _UNSAFE.sub(lambda found: found[0] if found[0] in "\n\t" else one_line(found[0]), text)


class AgentspoolError(Exception):
    """Any error of this package; `code` is the program's exit code."""

    code = 1

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details: dict[str, Any] = dict(details or {})


class UsageError(AgentspoolError, ValueError):
    """An argument cannot be used."""

    code = 2


class NotJson(UsageError, TypeError):
    """An input, config or metadata is not a JSON value."""


class NotPicklable(UsageError, TypeError):
    """A function or its arguments cannot be pickled for another process."""


class Refused(AgentspoolError):
    """Refused by policy: limits, permissions."""

    code = 4


class Missing(AgentspoolError):
    """A recipe's program, PraisonAI or the agentspool program is missing."""

    code = 6


class NoWatcher(Missing):
    """No watcher is running on this spool, and this process may not start one. The task waits on the disk."""


class NotFound(AgentspoolError, LookupError):
    """No such task or recipe."""

    code = 7


class SpoolUnusable(AgentspoolError):
    """The spool is absent, of another version, not writable or full."""

    code = 8


class TaskError(AgentspoolError):
    """The task ended, but did not complete. `result` is its whole result.json."""

    @property
    def result(self) -> dict[str, Any]:
        """The whole result.json."""
        return self.details

    @property
    def task_id(self) -> str:
        """The task's id."""
        return str(self.details.get("task_id"))

    @property
    def kind(self) -> str | None:
        """`exit`, `signal`, `timeout`, `spawn`, `lost`, `recipe` or `resources`; None for a cancelled task."""
        kind = (self.details.get("error") or {}).get("kind")
        return None if kind is None else str(kind)

    @property
    def exit_code(self) -> int | None:
        """The recipe's exit code, or None."""
        code = self.details.get("exit_code")
        return code if isinstance(code, int) else None


class TaskFailed(TaskError):
    """The task failed."""

    code = 3


class TaskTimedOut(TaskError):
    """The task was stopped at its timeout."""

    code = 5


class TaskCancelled(TaskError):
    """The task was cancelled."""

    code = 9


# Since Python 3.11 the two are one class, which must not be a base twice.
_TIMEOUTS: tuple[type[BaseException], ...] = tuple(dict.fromkeys((TimeoutError, asyncio.TimeoutError)))


class WaitTimedOut(AgentspoolError, *_TIMEOUTS):  # type: ignore[misc]
    """The wait reached its timeout; the task continues. Also a TimeoutError, as raised by `asyncio.wait_for`."""

    code = 124


class RemoteTraceback(Exception):
    """The traceback from the process of a function. It is the cause of the exception that is raised here."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


class AgentspoolWarning(UserWarning):
    """A note of the program, for example that no watcher is running."""


_BY_CODE: dict[int, type[AgentspoolError]] = {
    kind.code: kind for kind in (UsageError, Refused, Missing, NotFound, SpoolUnusable, WaitTimedOut)
}


def of_answer(answer: Mapping[str, Any]) -> AgentspoolError:
    """The exception for the JSON of a failed command."""
    kind = _BY_CODE.get(int(answer.get("code", 1)), AgentspoolError)
    if kind is Missing and answer.get("watcher") is False:
        kind = NoWatcher
    return kind(safe_lines(str(answer["error"])), answer)


def of_result(result: Mapping[str, Any], message: str) -> TaskError:
    """The exception for a task that ended, but did not complete."""
    if result["status"] == "cancelled":
        return TaskCancelled(message, result)
    if (result.get("error") or {}).get("kind") == "timeout":
        return TaskTimedOut(message, result)
    return TaskFailed(message, result)
