"""Python functions as tasks: the documented calls, returned values, exceptions, timeout and cancel."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import agentspool
import callables
import pytest
from agentspool.background import BackgroundConfig, BackgroundRunner, install_recipe, private_spool


def sleeps(path: str) -> None:
    """Starts a child, reports its pid, and does not end."""
    child = subprocess.Popen(["sleep", "1000"])
    Path(path).write_text(str(child.pid))
    time.sleep(1000)


def test_the_documented_calls(world):
    # The example of the documents, with another import and a shorter sleep.
    async def main():
        config = BackgroundConfig(max_concurrent_tasks=3)
        runner = BackgroundRunner(config=config)

        async def my_task(name: str) -> str:
            await asyncio.sleep(0.01)
            return f"Task {name} done"

        task = await runner.submit(my_task, args=("example",))
        await task.wait(timeout=60.0)
        assert task.result == "Task example done"
        assert await task.status() == "completed"
        assert await task.wait() == "Task example done"
        assert task.name.endswith("my_task")
        return task

    task = asyncio.run(main())
    # The files have the same result, and only the user may access the spool.
    assert json.loads((task.dir / "result.json").read_text())["output"] == "Task example done"
    spool = Path(private_spool())
    assert spool == world.root / "state/agentspool-python/spool"
    assert (spool.stat().st_mode & 0o777, spool.parent.stat().st_mode & 0o777) == (0o700, 0o700)
    assert task.dir.parent == spool / "tasks"


def test_each_call_runs_in_its_own_process_with_the_callers_folder_and_modules(world, monkeypatch):
    runner = BackgroundRunner()
    name, pid = runner.submit_sync(callables.where, kwargs={"name": "Ada"}).wait_sync(60)
    assert name == "Ada" and pid != os.getpid()
    factor = 3
    assert runner.submit_sync(lambda n: n * factor, args=(14,)).wait_sync(60) == 42
    assert runner.submit_sync(os.getcwd).wait_sync(60) == str(world.root / "cwd")
    # A function sees no variable that is not named, and uses the caller's spool.
    monkeypatch.setenv("SECRET", "hunter2")
    assert runner.submit_sync(lambda: os.environ.get("SECRET")).wait_sync(60) is None
    asked = BackgroundRunner(BackgroundConfig(env=["SECRET"]))
    task = asked.submit_sync(lambda: (os.environ["SECRET"], os.environ["AGENTSPOOL_DIR"]))
    assert task.wait_sync(60) == ("hunter2", str(world.spool))
    for path in Path(private_spool()).rglob("*.json"):
        assert "hunter2" not in path.read_text() or path.name == "result.json", path
    monkeypatch.delenv("SECRET")
    with pytest.raises(agentspool.UsageError, match="the variable SECRET"):
        asked.submit_sync(callables.where)


def test_values_that_are_not_json_are_returned(world):
    runner = BackgroundRunner()

    class Own:
        def __init__(self, value):
            self.value = value

    given = runner.submit_sync(lambda: [Own({1, 2}), callables.Note("a"), b"bytes", 10**400])
    own, note, data, number = given.wait_sync(60)
    assert isinstance(own, Own) and own.value == {1, 2}
    assert isinstance(note, callables.Note) and note.text == "a"
    assert (data, number) == (b"bytes", 10**400)
    assert "repr" in given.result_json["output"]
    # A call that is too large for a request is a file in the task's folder until the task ends.
    large = os.urandom(2_000_000)
    task = runner.submit_sync(lambda: large[::-1])
    assert task.wait_sync(60) == large[::-1]
    world.wait_until("the call is gone", lambda: not (task.dir / "attachment").exists())
    assert os.listdir(Path(private_spool()).parent) == ["spool"]


def test_exceptions_are_raised_with_the_remote_traceback(world):
    async def main():
        runner = BackgroundRunner()

        def inner(key):
            return {}[key]

        async def outer():
            inner("nothing")

        task = await runner.submit(outer)
        with pytest.raises(KeyError, match="nothing") as raised:
            await task.wait(60)
        cause = raised.value.__cause__
        assert isinstance(cause, agentspool.RemoteTraceback)
        assert (
            "in outer" in str(cause) and "in inner" in str(cause) and "_call.py" not in str(cause).split("in outer")[1]
        )
        assert "in inner" in "".join(traceback.format_exception(None, raised.value, raised.value.__traceback__))
        assert task.result is None and isinstance(task.error, KeyError)
        assert await task.status() == "failed"
        # An exception that cannot be unpickled becomes a TaskFailed with its text.
        task = await runner.submit(callables.refuse)
        with pytest.raises(agentspool.TaskFailed, match="Refusal: 7: not today") as raised:
            await task.wait(60)
        assert "in refuse" in str(raised.value.__cause__)
        # A value that cannot be pickled is a failure of the function.
        task = await runner.submit(threading.Lock)
        with pytest.raises(TypeError, match="lock"):
            await task.wait(60)
        task = await runner.submit(sys.exit, args=(7,))
        with pytest.raises(agentspool.TaskFailed) as raised:
            await task.wait(60)
        assert raised.value.exit_code == 7

    asyncio.run(main())


def test_timeout_and_cancel_end_all_processes_of_a_function(world):
    async def main():
        runner = BackgroundRunner()
        started = world.root / "first"
        cancelled = await runner.submit(sleeps, args=(str(started),))
        timed_out = await runner.submit(sleeps, args=(str(world.root / "second"),), timeout=3)
        pid = int(
            await asyncio.to_thread(world.wait_until, "it runs", lambda: started.exists() and started.read_text())
        )
        assert Path(f"/proc/{pid}").exists()
        assert await cancelled.cancel() is True
        with pytest.raises(agentspool.TaskCancelled):
            await cancelled.wait()
        assert not Path(f"/proc/{pid}").exists()
        with pytest.raises(agentspool.TaskTimedOut):
            await timed_out.wait(60)
        assert world.of_task(cancelled) == world.of_task(timed_out) == []

    asyncio.run(main())


def test_a_function_reports_progress(world):
    go = world.root / "go"

    def reports():
        agentspool.progress(0.45, "Reading pages", metrics={"pages": 7})
        while not go.exists():
            time.sleep(0.02)

    task = BackgroundRunner().submit_sync(reports)
    world.wait_until("progress is seen", lambda: task.info_sync()["progress"] == 0.45)
    assert task.info_sync()["message"] == "Reading pages"
    go.touch()
    assert task.wait_sync(60) is None
    assert task.result_json["metrics"]["pages"] == 7
    # Outside a task it does nothing, so the function can be called directly.
    reports()
    with pytest.raises(ValueError, match="from 0 to 1"):
        agentspool.progress(45)


def test_the_limit_of_functions_at_once_counts_over_runners(world):
    folder = world.root / "running"
    folder.mkdir()

    def one():
        own = folder / str(os.getpid())
        own.touch()
        seen = len(list(folder.iterdir()))
        time.sleep(0.2)
        own.unlink()
        return seen

    async def main():
        # Two runners with the same config share a limit. Another config has its own limit.
        config = BackgroundConfig(max_concurrent_tasks=2)
        runners = [BackgroundRunner(config), BackgroundRunner(config)]
        tasks = [await runners[n % 2].submit(one) for n in range(6)]
        other = await BackgroundRunner(BackgroundConfig(max_concurrent_tasks=1)).submit(callables.where)
        await other.wait(60)
        for runner in runners:
            assert len(await runner.wait_all(60)) == 3
        assert max(task.result for task in tasks) <= 2

    asyncio.run(main())


def test_a_task_outlives_the_process_that_submitted_it(world):
    go = world.root / "go"
    script = (
        "import sys, time, pathlib\n"
        "from agentspool import BackgroundRunner\n"
        "def waits(path):\n"
        "    while not pathlib.Path(path).exists():\n"
        "        time.sleep(0.02)\n"
        "    return Answer(42)\n"
        "class Answer:\n"
        "    def __init__(self, value):\n"
        "        self.value = value\n"
        "if __name__ == '__main__':\n"
        "    print(BackgroundRunner().submit_sync(waits, args=(sys.argv[1],)).task_id)\n"
    )
    program = world.root / "program.py"
    program.write_text(script)
    done = subprocess.run([sys.executable, program, go], capture_output=True, text=True, check=True)
    task = BackgroundRunner().get_task(done.stdout.strip())
    world.wait_running(task)
    go.touch()
    assert task.wait_sync(60).value == 42
    with pytest.raises(agentspool.NotFound):
        BackgroundRunner().get_task("task_nosuch")


def test_on_complete_and_cancel_all(world):
    async def main():
        runner = BackgroundRunner(BackgroundConfig(max_concurrent_tasks=1))
        heard = asyncio.Queue()
        await runner.submit(callables.where, on_complete=lambda task: heard.put_nowait(task.result[0]))
        assert await asyncio.wait_for(heard.get(), 60) == "nobody"
        tasks = [
            await runner.submit(sleeps, args=(str(world.root / str(n)),), on_complete=heard.put_nowait)
            for n in range(2)
        ]
        await runner.cancel_all()
        ended = {await asyncio.wait_for(heard.get(), 60), await asyncio.wait_for(heard.get(), 60)}
        assert ended == set(tasks)
        assert [await task.status() for task in tasks] == ["cancelled", "cancelled"]

    asyncio.run(main())


def test_blocking_calls_work_in_the_loop_of_a_notebook(world):
    async def cell():
        # The blocking calls work inside a running loop.
        runner = BackgroundRunner()
        task = runner.submit_sync(callables.where)
        return await task.wait(60), task.status_sync()

    (name, _), status = asyncio.run(cell())
    assert (name, status) == ("nobody", "completed")


def test_a_call_that_cannot_be_pickled_is_refused(world):
    lock = threading.Lock()
    runner = BackgroundRunner()
    with pytest.raises(agentspool.NotPicklable, match="cannot be pickled for another process") as raised:
        runner.submit_sync(lambda: lock.acquire())
    assert isinstance(raised.value, TypeError) and raised.value.code == 2
    with pytest.raises(agentspool.NotPicklable, match="where cannot be pickled"):
        asyncio.run(runner.submit(callables.where, args=(lock,)))
    with pytest.raises(agentspool.UsageError, match="cannot be called"):
        runner.submit_sync("where")
    for wrong in (0, -1, "three", 2.5):
        with pytest.raises(agentspool.UsageError, match="max_concurrent_tasks"):
            BackgroundConfig(max_concurrent_tasks=wrong)
    assert not Path(private_spool()).exists()


def test_a_shared_spool_runs_no_pickles_without_install_recipe(world):
    runner = BackgroundRunner(spool=world.spool)
    with pytest.raises(agentspool.Refused, match="a pickle is code, so the owner must call"):
        runner.submit_sync(callables.where)
    assert list((world.spool / "tasks").iterdir()) == []
    with pytest.raises(agentspool.SpoolUnusable):
        BackgroundRunner(spool=world.root / "nowhere").submit_sync(callables.where)
    install_recipe(world.spool)
    task = runner.submit_sync(callables.where)
    assert task.wait_sync(60)[0] == "nobody" and task.dir.parent == world.spool / "tasks"


def test_a_result_is_kept_for_its_handle(world):
    runner = BackgroundRunner()
    kept, dropped = runner.submit_sync(callables.where), BackgroundRunner().submit_sync(callables.where)
    spool = private_spool()
    world.cli("wait", "--all", "--spool", spool)
    world.cli("sweep", "--spool", spool)
    gone = dropped.dir
    del dropped
    world.cli("config", "set", "cleanup_delay_sec", "0", "--spool", spool)
    world.wait_until(
        "the task without a handle is swept", lambda: world.cli("sweep", "--spool", spool) and not gone.exists()
    )
    assert kept.wait_sync(60)[0] == "nobody"


def test_wait_raises_the_error_of_a_damaged_pickle(world):
    task = BackgroundRunner().submit_sync(callables.where)
    world.cli("wait", task.task_id, "--spool", private_spool())
    (task.dir / "attempts/1/returned.pickle").write_bytes(b"no pickle")
    with pytest.raises(Exception, match=r"pickle|stack|opcode|load key"):
        task.wait_sync(60)
    assert task.result is None and task.done
    with pytest.raises(agentspool.SpoolUnusable, match="cannot install the recipe in"):
        install_recipe(world.root / "nowhere")


def test_many_processes_may_create_the_private_spool_at_once(world):
    script = (
        "from agentspool import BackgroundRunner; print(BackgroundRunner().submit_sync(abs, args=(-3,)).wait_sync(60))"
    )
    started = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert [process.communicate()[0] for process in started] == ["3\n"] * 6


def test_a_large_call_moves_with_its_task_and_other_files_stay(world, monkeypatch):
    """A folder `calls` of the user is next to the spool, and must not change."""
    project, moved, copied = world.root / "project", world.root / "moved", world.root / "copied"
    mine = project / "calls"
    mine.mkdir(parents=True)
    (mine / "folder").mkdir()
    (mine / "recording").write_text("mother")
    for path in (mine / "recording", mine / "folder"):
        os.utime(path, (1, 1))
    spool = project / "spool"
    world.cli("init", str(spool))
    install_recipe(spool)
    world.cli("pause", "--spool", str(spool))
    (world.root / "link").symlink_to(project)
    large = os.urandom(600_000)
    monkeypatch.chdir(project)
    ids = [
        BackgroundRunner(spool=place).submit_sync(len, args=(large,)).task_id
        for place in (spool, "spool", world.root / "link/spool")
    ]
    subprocess.run(["cp", "-a", project, copied], check=True)
    project.rename(moved)
    for place in (copied, moved):
        # The copy runs first, and does not change the moved one.
        world.cli("list", "--spool", str(place / "spool"))
        world.cli("resume", "--spool", str(place / "spool"))
        runner = BackgroundRunner(spool=place / "spool")
        for task_id in ids:
            assert runner.get_task(task_id).wait_sync(60) == 600_000
        assert sorted(os.listdir(place)) == ["calls", "spool"]
        assert (place / "calls/recording").read_text() == "mother"


def test_a_function_that_does_not_return_has_failed(world):
    def by_help():
        import argparse

        argparse.ArgumentParser().parse_args(["--help"])

    def writes_and_leaves():
        Path(os.environ["AGENTSPOOL_RESULT_FILE"]).write_text("")
        os._exit(0)

    runner = BackgroundRunner()
    ways = [sys.exit, by_help, lambda: sys.exit(0), lambda: os._exit(0), writes_and_leaves]
    for task in [runner.submit_sync(way) for way in ways]:
        with pytest.raises(agentspool.TaskFailed, match=r"did not return a value|gave no result"):
            task.wait_sync(60)
        assert task.status_sync() == "failed" and task.result is None


def test_a_repr_that_raises_is_not_a_failure(world):
    class Silent:
        def __repr__(self):
            raise RuntimeError("no words")

    class Leaves:
        def __repr__(self):
            sys.exit(0)

    class Half:
        def __repr__(self):
            return "\ud800"

    runner = BackgroundRunner()
    kinds = [Silent, Leaves, Half]
    for kind, task in [(kind, runner.submit_sync(kind)) for kind in kinds]:
        assert type(task.wait_sync(60)).__name__ == kind.__name__
        assert "repr" in task.result_json["output"]
    huge = runner.submit_sync(lambda: 10**5000)
    assert huge.wait_sync(60) == 10**5000
