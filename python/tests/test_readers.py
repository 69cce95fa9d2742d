"""Reading tasks of another user's spool: files of a hostile owner do not mislead the reader.

The program's own commands are in tests/rig/readers.rs. The tests write into their own spool what a hostile owner
could write. Invariant: nothing outside the task's folder is read, and no reader blocks.
"""

from __future__ import annotations

import json
import os

import agentspool
import callables
import pytest
from agentspool import BackgroundRunner, _files
from agentspool.background import private_spool

SECRET = "top secret"


@pytest.fixture
def ended(world):
    """A task that has ended, and a private file next to the spool."""
    world.recipe("fail", "#!/bin/sh\necho known >&2\nexit 3\n")
    (world.root / "private").write_text(SECRET)
    world.cli("submit", "--recipe", "fail", "--name", "it", "--wait", code=3)

    def open_with(**fields):
        # A new handle each time, because a handle remembers what it has read.
        path = agentspool.open_task("it").dir / "result.json"
        end = {**json.loads(path.read_text()), **fields}
        path.unlink()
        path.write_text(json.dumps(end))
        return agentspool.open_task("it")

    return open_with


def shown(task) -> str:
    """All values of a handle."""
    return repr((task.result, task.partial_output, task.output_path, str(task.error), repr(task.error)))


def completed(file):
    return {"ok": True, "status": "completed", "error": None, "output": None, "output_file": file}


def test_an_output_file_outside_the_attempt_is_not_read(world, ended):
    private = str(world.root / "private")
    climbing = "attempts/1/../../../../../private"
    for file in [private, "../../../private", climbing, "attempts/1/..", "attempts/../1", "attempts/1/", "result.json"]:
        task = ended(**completed(file))
        assert task.done and task.output_path is None and SECRET not in shown(task), file
        with pytest.raises(OSError, match="names a file that is not in its attempt"):
            task.wait_sync(10)


def test_links_are_not_followed_and_pipes_do_not_block(world, ended):
    task = ended()
    attempt = task.dir / "attempts/1"
    for name in ["stdout.log", "stderr.log", "output"]:
        file = attempt / name
        file.unlink(missing_ok=True)
        file.symlink_to(world.root / "private")
        assert SECRET not in shown(ended(**completed(f"attempts/1/{name}")))
        assert SECRET not in shown(ended(ok=False, status="failed", error={"kind": "exit", "message": "x"}))
        file.unlink()
        os.mkfifo(file)
        ended(**completed(f"attempts/1/{name}"))
        assert ended(ok=False, status="failed", error={"kind": "exit", "message": "x"}).error is not None
        file.unlink()
    # A folder of the path that is a link.
    (attempt / "output").write_text("known")
    task = ended(**completed("attempts/1/output"))
    assert task.result == "known"
    attempt.rename(world.root / "moved")
    attempt.symlink_to(world.root / "moved")
    assert "known" not in shown(ended(**completed("attempts/1/output")))
    for number in ["../../..", {"a": 1}]:
        task = ended(ok=False, status="failed", attempt=number, error={"kind": "exit", "message": "x"})
        assert SECRET not in shown(task)


def test_an_output_too_large_for_the_memory_is_refused(ended):
    task = ended(**completed("attempts/1/output"))
    with open(task.dir / "attempts/1/output", "wb") as file:
        file.truncate(_files.MAX_BYTES + 1)
    task = ended(**completed("attempts/1/output"))
    assert task.result is None and task.output_path is not None
    with pytest.raises(OSError, match="are read into memory"):
        task.wait_sync(10)


def test_a_pickle_of_another_user_is_not_loaded(world, monkeypatch):
    runner = BackgroundRunner()
    returned, raised = runner.submit_sync(callables.where), runner.submit_sync(int, args=("x",))
    world.cli("wait", "--all", "--spool", private_spool(), code=3)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat("/proc/self").st_uid + 1)
    assert isinstance(returned.wait_sync(60), list)
    with pytest.raises(agentspool.TaskFailed) as error:
        raised.wait_sync(60)
    assert error.value.__cause__ is None
