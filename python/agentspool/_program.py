"""Calling the agentspool program: the only way in which this package uses the protocol.

Finds the program of the wheel, runs it with `--json`, and returns the object that it printed, blocking or async. Not
here: what the commands mean. Invariants: of a caller's values only names and ids are in the program's arguments
(inputs are in memory files, variables in its environment). If a call raises an exception, its program has ended.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from .errors import AgentspoolError, AgentspoolWarning, Missing, NotJson, of_answer

# Names the program to use instead of the one that came with the package.
PROGRAM = "AGENTSPOOL_PROGRAM"
# The start of a note of the program. All other lines of stderr are the log, see AGENTSPOOL_LOG.
_NOTE = "note: "
_PACKAGE = os.path.dirname(__file__)
Answer = dict[str, Any]


def find() -> str:
    """The path of the program."""
    named = os.environ.get(PROGRAM)
    for candidate in [named] if named else _candidates():
        if candidate and os.access(candidate, os.X_OK):
            return str(candidate)
    if named:
        raise Missing(f"cannot run {named}, which the variable {PROGRAM} names: it is not an executable file")
    raise Missing(f"the agentspool program of this package was not found; set the variable {PROGRAM} to its path")


def _candidates() -> Iterator[str | None]:
    """Where installers put the programs of a wheel: for this interpreter, for the user, with `pip --target`."""
    yield os.path.join(sysconfig.get_path("scripts"), "agentspool")
    yield os.path.join(sysconfig.get_path("scripts", f"{os.name}_user"), "agentspool")
    yield str(Path(__file__).parents[1] / "bin" / "agentspool")
    yield os.path.join(os.path.dirname(sys.executable or ""), "agentspool")
    yield shutil.which("agentspool")


def to_json(what: str, value: Any) -> str:
    """A value as JSON text. Raises NotJson with the name of the argument."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
        return text
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJson(f"{what} is not a JSON value: {error}") from None


class Call:
    """One call of the program: its arguments, its input and its environment. Used once, in a `with`."""

    def __init__(
        self,
        verb: Sequence[str],
        spool: str | None,
        texts: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        attached: bytes | None = None,
    ) -> None:
        self._verb = list(verb)
        self._spool = spool
        self._texts = dict(texts or {})
        self._variables = dict(variables or {})
        self._attached = attached
        self._fds: list[int] = []

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _arguments(self) -> list[str]:
        # Before the command, which may end with `--` and a name.
        arguments = [find(), "--json"]
        if self._spool is not None:
            arguments.append(f"--spool={self._spool}")
        arguments.extend(self._verb)
        for flag, text in self._texts.items():
            arguments.append(f"--{flag}=@{self._in_memory(text.encode())}")
        if self._attached is not None:
            arguments.append(f"--attach={self._in_memory(self._attached)}")
        arguments.extend(f"--env={name}" for name in self._variables)
        return arguments

    def _in_memory(self, content: bytes) -> str:
        """The path of a memory file that only the program can open."""
        fd = os.memfd_create("agentspool")
        self._fds.append(fd)
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        return f"/dev/fd/{fd}"

    def _settings(self) -> dict[str, Any]:
        # A separate session, so that Ctrl-C reaches only the caller, which then ends the program.
        return {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "env": {**os.environ, **self._variables},
            "pass_fds": tuple(self._fds),
            "start_new_session": True,
        }

    def run(self) -> Answer:
        """Blocks until the program has ended."""
        arguments = self._arguments()
        with subprocess.Popen(arguments, **self._settings()) as process:
            _running.add(process)
            try:
                stdout, stderr = process.communicate()
            finally:
                _running.discard(process)
                if process.returncode is None:
                    process.kill()
        return _read(process.returncode, stdout, stderr)

    async def arun(self) -> Answer:
        """Awaits the end of the program. A cancelled await kills it."""
        arguments = self._arguments()
        process = await asyncio.create_subprocess_exec(*arguments, **self._settings())
        try:
            stdout, stderr = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return _read(process.returncode or 0, stdout, stderr)


def run(
    verb: Sequence[str],
    spool: str | None,
    texts: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    attached: bytes | None = None,
) -> Answer:
    """Runs the program and blocks."""
    with Call(verb, spool, texts, variables, attached) as call:
        return call.run()


async def arun(
    verb: Sequence[str],
    spool: str | None,
    texts: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    attached: bytes | None = None,
) -> Answer:
    """Runs the program and awaits it."""
    with Call(verb, spool, texts, variables, attached) as call:
        return await call.arun()


def _read(code: int, stdout: bytes, stderr: bytes) -> Answer:
    notes = stderr.decode("utf-8", "replace").strip()
    try:
        answer = json.loads(stdout)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise AgentspoolError(f"the agentspool program exited with code {code} and printed no JSON: {notes}")
    if "error" in answer and answer.get("ok") is False and "code" in answer:
        raise of_answer(answer)
    for line in notes.splitlines():
        if line.startswith(_NOTE):
            warn(line[len(_NOTE) :])
    return answer


def warn(text: str) -> None:
    """A warning at the first caller outside this package."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and os.path.dirname(frame.f_code.co_filename) == _PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, AgentspoolWarning, stacklevel=level)


class _Running:
    """The programs that threads wait for. They are killed when Python exits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: list[subprocess.Popen[bytes]] = []

    def add(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.append(process)

    def discard(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.remove(process)

    def end(self) -> None:
        with self._lock:
            for process in self._processes:
                process.kill()


_running = _Running()
_started_in = os.getpid()


def _at_exit() -> None:
    # Not in a forked child: the programs belong to its parent.
    if os.getpid() == _started_in:
        _running.end()


atexit.register(_at_exit)
