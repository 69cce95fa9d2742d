"""The recipe behind BackgroundRunner: calls one pickled function in a process of its own.

Started by a runner as a recipe's program, with the interpreter that submitted the call; not imported by the package
but for the names of files. Reads the call from stdin, or from what is attached to the task. Gives what the function
returned or raised as a pickle in the attempt's folder, and says the same in JSON, as far as it can be, for readers of
result.json.

Invariant: the result file is there only if the function returned and what it returned is on the disk. The recipe says
`needs_result`, so no other end of this process is a success, whatever its exit code.
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

# Beside the attempt's logs and not in `work/`, the current folder of every recipe: nothing else writes there.
RETURNED = "returned.pickle"
RAISED = "raised.pickle"
# Where a call lies that is too large for a request, in the task's folder.
ATTACHED = "attachment"
# A longer text for people than this helps nobody.
_REPR_CHARACTERS = 1000


def main() -> int:
    request = json.load(sys.stdin)
    # Read here: the function may change its environment.
    task, result_file = os.environ["AGENTSPOOL_TASK_DIR"], os.environ["AGENTSPOOL_RESULT_FILE"]
    attempt = os.path.join(task, "attempts", os.environ["AGENTSPOOL_ATTEMPT"])
    become_like_the_caller(request)
    import cloudpickle

    try:
        function, args, kwargs = cloudpickle.loads(read_call(request, task))
        value = call(function, args, kwargs)
        # Both before anything is written: half a result is none.
        pickled, text = cloudpickle.dumps(value), as_json(value)
    except SystemExit as left:
        if left.code not in (None, 0):
            # As in any program: a number is the exit code, and anything else goes to stderr.
            raise
        print("agentspool: the function ended its process by sys.exit and returned nothing", file=sys.stderr)
        return 1
    except Exception as error:
        # Without the frames of this file.
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        told = "".join(traceback.format_exception(type(error), error, trace))
        write_report(told)
        keep(os.path.join(attempt, RAISED), pickle.dumps((pickled_or_nothing(cloudpickle, error), told)))
        return 1
    keep(os.path.join(attempt, RETURNED), pickled)
    keep(result_file, text.encode(), 0o666)
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


def read_call(request: dict[str, Any], task: str) -> bytes:
    if "call" in request:
        return base64.b64decode(request["call"])
    with open(os.path.join(task, ATTACHED), "rb") as file:
        return file.read()


def call(function: Any, args: Any, kwargs: Any) -> Any:
    umask = os.umask(0o077)
    os.umask(umask)
    try:
        value = function(*args, **kwargs)
        return asyncio.run(outcome(value)) if inspect.isawaitable(value) else value
    finally:
        # With that of the function its result might be readable by nobody, or by others.
        os.umask(umask)


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


def write_report(told: str) -> None:
    """The traceback in the log. The function may have closed stderr, or its text may be none."""
    try:
        sys.stderr.write(told)
    except (OSError, ValueError, AttributeError):
        pass


def keep(path: str, content: bytes, mode: int = 0o600) -> None:
    """On the disk before the task's result says that it is there, and whole or not at all.

    A pickle is for this user alone: with another mode it would not be unpickled.
    """
    between = path + ".new"
    fd = os.open(between, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(between, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def as_json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except Exception:
        return json.dumps({"repr": words_for(value)[:_REPR_CHARACTERS]})


def words_for(value: Any) -> str:
    """What a value says of itself, which is code of its own: it may fail, and the call has not."""
    try:
        return repr(value)
    except (Exception, SystemExit) as error:
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"


if __name__ == "__main__":
    sys.exit(main())
