"""The recipe behind BackgroundRunner: calls one pickled function in a process of its own.

Started by a runner as a recipe's program, with the interpreter that submitted the call; not imported by the package
but for the names of files. Reads the call from stdin, gives what the function returned or raised as a pickle beside
the task's logs, and says the same in JSON, as far as it can be, for readers of result.json.

Invariant: exit code 0 means that the function returned and that what it returned is on the disk.
"""

from __future__ import annotations

import os
import sys

# Run as a file, Python looks for modules in this folder first, where `recipe` and others would hide theirs.
if __name__ == "__main__":
    sys.path.pop(0)

import asyncio
import base64
import inspect
import json
import pickle
import traceback
from collections.abc import Awaitable
from typing import Any

RETURNED = "work/returned.pickle"
RAISED = "work/raised.pickle"
# A longer text for people than this helps nobody.
_REPR_CHARACTERS = 1000


def main() -> int:
    request = json.load(sys.stdin)
    attempt = os.path.join(os.environ["AGENTSPOOL_TASK_DIR"], "attempts", os.environ["AGENTSPOOL_ATTEMPT"])
    become_like_the_caller(request)
    import cloudpickle

    try:
        function, args, kwargs = cloudpickle.loads(read_call(request))
        value = call(function, args, kwargs)
        pickled = cloudpickle.dumps(value)
    except Exception as error:
        # Without the frames of this file.
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        told = "".join(traceback.format_exception(type(error), error, trace))
        sys.stderr.write(told)
        keep(attempt, RAISED, pickle.dumps((pickled_or_nothing(cloudpickle, error), told)))
        return 1
    keep(attempt, RETURNED, pickled)
    with open(os.environ["AGENTSPOOL_RESULT_FILE"], "w", encoding="utf-8") as file:
        file.write(as_json(value))
    return 0


def become_like_the_caller(request: dict[str, Any]) -> None:
    """Modules, folder and spool are those of the process that submitted the call."""
    sys.path[:] = request["sys_path"]
    try:
        os.chdir(request["cwd"])
    except OSError as error:
        print(f"agentspool: staying in {os.getcwd()}: {error}", file=sys.stderr)
    if request["spool"] is None:
        os.environ.pop("AGENTSPOOL_DIR", None)
    else:
        os.environ["AGENTSPOOL_DIR"] = request["spool"]


def read_call(request: dict[str, Any]) -> bytes:
    if "call" in request:
        return base64.b64decode(request["call"])
    with open(request["call_file"], "rb") as file:
        pickled = file.read()
    os.unlink(request["call_file"])
    return pickled


def call(function: Any, args: Any, kwargs: Any) -> Any:
    value = function(*args, **kwargs)
    return asyncio.run(outcome(value)) if inspect.isawaitable(value) else value


async def outcome(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def pickled_or_nothing(cloudpickle: Any, error: BaseException) -> Any:
    """The exception where it survives the journey, which those of some libraries do not."""
    try:
        pickled = cloudpickle.dumps(error)
        pickle.loads(pickled)
        return pickled
    except Exception:
        return None


def keep(attempt: str, name: str, content: bytes) -> None:
    """On the disk before the task's result says that it is there."""
    path = os.path.join(attempt, name)
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def as_json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return json.dumps({"repr": repr(value)[:_REPR_CHARACTERS]})


if __name__ == "__main__":
    sys.exit(main())
