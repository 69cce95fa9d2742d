"""Isolated environments for the Python tests: each test has a spool, a home and the real program.

As tests/support in Rust: a test waits for facts, not for time, and a test that fails prints the files of its spools
(KEEP_SPOOL=1 keeps them). Invariant: the developer's spools, settings and keys are not used, and all processes that a
test started end with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from agentspool import _program
from stub import Stub

REPOSITORY = Path(__file__).parents[2]
# The longest wait, in seconds: far longer than a loaded machine needs.
PATIENCE = 60.0


class World:
    """A spool and everything around it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = root / "spool"

    def cli(self, *arguments: str, code: int = 0) -> dict:
        """Runs the program on this spool and returns the JSON that it printed."""
        done = subprocess.run([_program.find(), "--json", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == code, (arguments, done)
        return json.loads(done.stdout)

    def recipe(self, name: str, script: str) -> None:
        """A recipe of one executable file."""
        path = self.spool / "recipes" / name
        path.write_text(script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def wait_until(self, what: str, fact) -> object:
        """Waits until `fact` returns a true value, and returns the value."""
        end = time.monotonic() + PATIENCE
        while True:
            found = fact()
            if found:
                return found
            assert time.monotonic() < end, f"waited {PATIENCE} s without success until {what}"
            time.sleep(0.02)

    def wait_running(self, task) -> None:
        self.wait_until(f"{task.task_id} runs", lambda: task.status_sync() == "running")

    def processes(self) -> dict[int, str]:
        """The processes with this folder in their command line or environment."""
        place = str(self.root).encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                if place in command or place in (entry / "environ").read_bytes():
                    found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")[:200]
            except OSError:
                continue
        return found

    def of_task(self, task) -> list[int]:
        """The processes of one task, by a variable in their environment."""
        variable = f"AGENTSPOOL_TASK_ID={task.task_id}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and variable in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def describe(self) -> str:
        lines = []
        for path in sorted(self.root.rglob("*")):
            relative = path.relative_to(self.root)
            if (
                path.is_file()
                and path.stat().st_size
                and path.suffix in (".json", ".log", ".toml", "")
                and not path.is_symlink()
            ):
                text = path.read_text("utf-8", "replace")[:2000]
                lines.append(f"--- {relative}\n{text}")
        lines.extend(f"process {pid}: {command}" for pid, command in self.processes().items())
        return "\n".join(lines)

    def end(self) -> None:
        """Kills all processes, again until none is left, because a process may have started another."""
        for _ in range(5):
            left = self.processes()
            if not left:
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call" and report.failed and "world" in item.funcargs:
        report.sections.append(("spools", item.funcargs["world"].describe()))
    return report


@pytest.fixture
def world(monkeypatch):
    """An empty spool that the package uses by default."""
    root = Path(tempfile.mkdtemp(prefix="agentspool-python-")).resolve()
    for name in list(os.environ):
        if name.startswith(("AGENTSPOOL_", "XDG_", "OPENAI_")) and name != _program.PROGRAM:
            monkeypatch.delenv(name)
    for folder in ("home", "state", "cwd"):
        (root / folder).mkdir()
    monkeypatch.setenv("HOME", str(root / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(root / "state"))
    monkeypatch.setenv("AGENTSPOOL_DIR", str(root / "spool"))
    monkeypatch.chdir(root / "cwd")
    made = World(root)
    made.cli("init")
    made.cli("config", "set", "rescan_sec", "0.3")
    yield made
    made.end()
    if "KEEP_SPOOL" in os.environ:
        print(f"kept: {root}")
    else:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def stub():
    """An OpenAI-compatible endpoint on loopback."""
    server = Stub()
    yield server
    server.close()
