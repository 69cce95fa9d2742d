"""The program of the recipe behind BackgroundRunner: calls one pickled function in a separate process.

A runner starts it with the interpreter that submitted the call. The package imports it only for the names of files.
It reads the call from stdin or from the task's attachment. It writes the returned value or the exception as a pickle
into the attempt's folder, and as JSON, if possible, for readers of result.json.

Invariant: the result file exists only if the function returned and its value is on the disk. The recipe has
`needs_result`, so any other end of this process is a failure, whatever its exit code.
"""

from __future__ import annotations

import os
import sys

# Python searches this folder first when it runs a file. `recipe` and others would hide modules of the user.
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

# Next to the attempt's logs, not in `work/`, the current folder of every recipe. No recipe writes there.
RETURNED = "returned.pickle"
RAISED = "raised.pickle"
# The file in the task's folder with a call that is too large for a request.
ATTACHED = "attachment"
# At most this much of a `repr` is stored.
_REPR_CHARACTERS = 1000


def main() -> int:
    request = json.load(sys.stdin)
    # Read now, because the function may change the environment.
    task, result_file = os.environ["AGENTSPOOL_TASK_DIR"], os.environ["AGENTSPOOL_RESULT_FILE"]
    attempt = os.path.join(task, "attempts", os.environ["AGENTSPOOL_ATTEMPT"])
    become_like_the_caller(request)
    import cloudpickle

    try:
        function, args, kwargs = cloudpickle.loads(read_call(request, task))
        value = call(function, args, kwargs)
        # Both before anything is written, so that no half result is stored.
        pickled, text = cloudpickle.dumps(value), as_json(value)
    except SystemExit as left:
        if left.code not in (None, 0):
            # As in any program: a number is the exit code, and anything else goes to stderr.
            raise
        print("agentspool: the function called sys.exit and did not return a value", file=sys.stderr)
        return 1
    except Exception as error:
        # Without the frame of this file.
        trace = error.__traceback__.tb_next if error.__traceback__ else None
        report = "".join(traceback.format_exception(type(error), error, trace))
        write_report(report)
        keep(os.path.join(attempt, RAISED), pickle.dumps((pickled_or_nothing(cloudpickle, error), report)))
        return 1
    keep(os.path.join(attempt, RETURNED), pickled)
    keep(result_file, text.encode(), 0o666)
    return 0


def become_like_the_caller(request: dict[str, Any]) -> None:
    """Takes modules, folder and spool from the process that submitted the call."""
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
        # With the umask of the function, nobody or everybody might be able to read the result.
        os.umask(umask)


async def outcome(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def pickled_or_nothing(cloudpickle: Any, error: BaseException) -> Any:
    """The pickled exception, or None. Exceptions of some libraries cannot be pickled and unpickled."""
    try:
        pickled = cloudpickle.dumps(error)
        pickle.loads(pickled)
        return pickled
    except Exception:
        return None


def write_report(report: str) -> None:
    """Writes the traceback to the log. The function may have closed stderr, or the text may be invalid."""
    try:
        sys.stderr.write(report)
    except (OSError, ValueError, AttributeError):
        pass


def keep(path: str, content: bytes, mode: int = 0o600) -> None:
    """Writes a file completely and syncs it, before the task's result names it.

    Only this user may access a pickle. With another mode it would not be unpickled.
    """
    part = path + ".new"
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(part, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def as_json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except Exception:
        return json.dumps({"repr": words_for(value)[:_REPR_CHARACTERS]})


def words_for(value: Any) -> str:
    """The `repr` of a value. A `repr` that raises is not a failure of the call."""
    try:
        return repr(value)
    except (Exception, SystemExit) as error:
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"


if __name__ == "__main__":
    sys.exit(main())
