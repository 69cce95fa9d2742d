"""Calling the agentspool program: the one way in which this package takes part in the protocol.

Finds the program that the wheel brought, runs it with `--json`, and gives back the object it printed, for callers
that block and for callers that await. Not here: what the verbs mean. Invariants: nothing a caller passes in stands
in the program's arguments but names and ids (inputs go through files in memory, variables through its
environment), and a program that was started is ended before a call is left by an exception.
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
# What a remark of the program begins with; its other lines are the log that AGENTSPOOL_LOG asks for.
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
        raise Missing(f"the program that {PROGRAM} names cannot be run: {named}")
    raise Missing(f"the agentspool program was not found beside this package; {PROGRAM} may name it")


def _candidates() -> Iterator[str | None]:
    """Where installers put a wheel's programs: beside this interpreter, the user's, those of `pip --target`."""
    yield os.path.join(sysconfig.get_path("scripts"), "agentspool")
    yield os.path.join(sysconfig.get_path("scripts", f"{os.name}_user"), "agentspool")
    yield str(Path(__file__).parents[1] / "bin" / "agentspool")
    yield os.path.join(os.path.dirname(sys.executable or ""), "agentspool")
    yield shutil.which("agentspool")


def to_json(what: str, value: Any) -> str:
    """A value as JSON text, or the exception that says which argument is none."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
        return text
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJson(f"{what} is no JSON value: {error}") from None


class Call:
    """One call of the program: its arguments, what it reads, its environment. Used once, in a `with`."""

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
        # Before the verb, which may end with a `--` and a name.
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
        """The path of a file in memory, for the program alone."""
        fd = os.memfd_create("agentspool")
        self._fds.append(fd)
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        return f"/dev/fd/{fd}"

    def _settings(self) -> dict[str, Any]:
        # A session of its own: Ctrl-C is for the caller, who then ends the program.
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
        """Awaits the end of the program; a cancelled await ends it."""
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
        raise AgentspoolError(f"the agentspool program ended with {code} and gave no answer: {notes}")
    if "error" in answer and answer.get("ok") is False and "code" in answer:
        raise of_answer(answer)
    for line in notes.splitlines():
        if line.startswith(_NOTE):
            warn(line[len(_NOTE) :])
    return answer


def warn(text: str) -> None:
    """A warning that points at the caller's own line, however many of ours lie between."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and os.path.dirname(frame.f_code.co_filename) == _PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, AgentspoolWarning, stacklevel=level)


class _Running:
    """Programs that a thread waits for. A thread that is still waiting when Python ends leaves nothing behind."""

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
    # Not in a child made by fork: those processes are its parent's.
    if os.getpid() == _started_in:
        _running.end()


atexit.register(_at_exit)
