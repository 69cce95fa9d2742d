"""Sealed worlds for the Python tests: a spool, a home and the real program, for one test each.

Like tests/support in Rust: the real program in a folder of its own, facts are waited for and never time, and when a
test fails the tree of its spools is printed (KEEP_SPOOL=1 keeps them). Invariant: nothing of the developer's spools,
settings or keys takes part, and what a test started is ended with it.
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
# The backstop of every wait: far beyond what a loaded machine needs.
PATIENCE = 60.0


class World:
    """A spool and everything around it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = root / "spool"

    def cli(self, *arguments: str, code: int = 0) -> dict:
        """Runs the program on this world's spool and gives the JSON it printed."""
        done = subprocess.run([_program.find(), "--json", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == code, (arguments, done)
        return json.loads(done.stdout)

    def recipe(self, name: str, script: str) -> None:
        """A recipe of one executable file."""
        path = self.spool / "recipes" / name
        path.write_text(script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def wait_until(self, what: str, fact) -> object:
        """Waits for a fact and gives it."""
        end = time.monotonic() + PATIENCE
        while True:
            found = fact()
            if found:
                return found
            assert time.monotonic() < end, f"waited {PATIENCE} s in vain until {what}"
            time.sleep(0.02)

    def wait_running(self, task) -> None:
        self.wait_until(f"{task.task_id} runs", lambda: task.status_sync() == "running")

    def processes(self) -> dict[int, str]:
        """Everything that runs in this world, by its command line or its environment."""
        mark = str(self.root).encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                if mark in command or mark in (entry / "environ").read_bytes():
                    found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")[:200]
            except OSError:
                continue
        return found

    def of_task(self, task) -> list[int]:
        """The processes of one task, by the mark in their environment."""
        mark = f"AGENTSPOOL_TASK_ID={task.task_id}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
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
        """Watchers first, so that nobody starts anything anew; then what is left."""
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
    """An empty spool that the package takes by default."""
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
