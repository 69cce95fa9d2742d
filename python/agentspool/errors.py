"""Everything that can go wrong, one class for each exit code of the program.

The program's message is the exception's text; what a script would read in its JSON is in `details`. Not here:
the exceptions of functions that ran as tasks, which come back as they were raised.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

# Controls, direction marks, what is not seen, and half characters: the same as in the program's own output.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def one_line(text: str) -> str:
    """A text of somebody else's as one line that moves no cursor and hides nothing on a terminal."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def safe_lines(text: str) -> str:
    """The same for a text of many lines: line breaks and tabs stay."""
    return _UNSAFE.sub(lambda found: found[0] if found[0] in "\n\t" else one_line(found[0]), text)


class AgentspoolError(Exception):
    """Any error of this package; `code` is the program's exit code."""

    code = 1

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details: dict[str, Any] = dict(details or {})


class UsageError(AgentspoolError, ValueError):
    """An argument that cannot be used."""

    code = 2


class NotJson(UsageError, TypeError):
    """An input, config or metadata that is no JSON value."""


class NotPicklable(UsageError, TypeError):
    """A function or its arguments cannot be sent to a process of its own."""


class Refused(AgentspoolError):
    """Refused by policy: limits, permissions."""

    code = 4


class Missing(AgentspoolError):
    """Something needed is missing: a recipe's program, PraisonAI, this package's own program."""

    code = 6


class NoWatcher(Missing):
    """Nobody runs tasks on this spool, and nobody may be started from here. The task waits on the disk."""


class NotFound(AgentspoolError, LookupError):
    """No such task or recipe."""

    code = 7


class SpoolUnusable(AgentspoolError):
    """The spool is absent, of another version, not writable or full."""

    code = 8


class TaskError(AgentspoolError):
    """A task that was waited for ended without completing; `result` is its whole result.json."""

    @property
    def result(self) -> dict[str, Any]:
        """The whole result.json."""
        return self.details

    @property
    def task_id(self) -> str:
        """Which task."""
        return str(self.details.get("task_id"))

    @property
    def kind(self) -> str | None:
        """`exit`, `signal`, `timeout`, `spawn`, `lost` or `recipe`; None for a cancelled task."""
        kind = (self.details.get("error") or {}).get("kind")
        return None if kind is None else str(kind)

    @property
    def exit_code(self) -> int | None:
        """The recipe's own exit code, where it has one."""
        code = self.details.get("exit_code")
        return code if isinstance(code, int) else None


class TaskFailed(TaskError):
    """The task failed."""

    code = 3


class TaskTimedOut(TaskError):
    """The task was stopped at its own timeout."""

    code = 5


class TaskCancelled(TaskError):
    """The task was cancelled."""

    code = 9


# From Python 3.11 on the two are one class, which may not stand twice among the bases.
_TIMEOUTS: tuple[type[BaseException], ...] = tuple(dict.fromkeys((TimeoutError, asyncio.TimeoutError)))


class WaitTimedOut(AgentspoolError, *_TIMEOUTS):  # type: ignore[misc]
    """Our own wait ran out; the task goes on. It is a TimeoutError too, as `asyncio.wait_for` raises it."""

    code = 124


class RemoteTraceback(Exception):
    """The traceback of a function that raised in a process of its own: the cause of what is raised here."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


class AgentspoolWarning(UserWarning):
    """A remark of the program, as that no watcher runs."""


_BY_CODE: dict[int, type[AgentspoolError]] = {
    kind.code: kind for kind in (UsageError, Refused, Missing, NotFound, SpoolUnusable, WaitTimedOut)
}


def of_answer(answer: Mapping[str, Any]) -> AgentspoolError:
    """The exception for what the program printed with `--json` when it failed."""
    kind = _BY_CODE.get(int(answer.get("code", 1)), AgentspoolError)
    if kind is Missing and answer.get("watcher") is False:
        kind = NoWatcher
    return kind(safe_lines(str(answer["error"])), answer)


def of_result(result: Mapping[str, Any], told: str) -> TaskError:
    """The exception for a task that ended without completing."""
    if result["status"] == "cancelled":
        return TaskCancelled(told, result)
    if (result.get("error") or {}).get("kind") == "timeout":
        return TaskTimedOut(told, result)
    return TaskFailed(told, result)
