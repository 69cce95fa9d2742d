"""Python functions as tasks: the documented calls, what comes back, and that stopping really stops."""

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
    """Says that it runs, starts something that would outlive it, and never ends by itself."""
    child = subprocess.Popen(["sleep", "1000"])
    Path(path).write_text(str(child.pid))
    time.sleep(1000)


def test_the_documented_calls(world):
    # Word for word what the page shows, but for the import and the shorter sleep.
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
    # A reader of the files sees the same, and the spool is the user's alone.
    assert json.loads((task.dir / "result.json").read_text())["output"] == "Task example done"
    spool = Path(private_spool())
    assert spool == world.root / "state/agentspool-python/spool"
    assert (spool.stat().st_mode & 0o777, spool.parent.stat().st_mode & 0o777) == (0o700, 0o700)
    assert task.dir.parent == spool / "tasks"


def test_each_call_has_a_process_of_its_own_and_the_callers_folder_and_modules(world, monkeypatch):
    runner = BackgroundRunner()
    name, pid = runner.submit_sync(callables.where, kwargs={"name": "Ada"}).wait_sync(60)
    assert name == "Ada" and pid != os.getpid()
    factor = 3
    assert runner.submit_sync(lambda n: n * factor, args=(14,)).wait_sync(60) == 42
    assert runner.submit_sync(os.getcwd).wait_sync(60) == str(world.root / "cwd")
    # Without being asked for, no variable goes along; the spool a function means is the caller's.
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


def test_what_is_no_json_comes_back_all_the_same(world):
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
    # More than a request may hold goes into the task's folder, and is gone afterwards.
    large = os.urandom(2_000_000)
    task = runner.submit_sync(lambda: large[::-1])
    assert task.wait_sync(60) == large[::-1]
    world.wait_until("the call is gone", lambda: not (task.dir / "attachment").exists())
    assert os.listdir(Path(private_spool()).parent) == ["spool"]


def test_exceptions_come_back_with_the_remote_traceback(world):
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
        # One that does not survive the journey is told in words.
        task = await runner.submit(callables.refuse)
        with pytest.raises(agentspool.TaskFailed, match="Refusal: 7: not today") as raised:
            await task.wait(60)
        assert "in refuse" in str(raised.value.__cause__)
        # What cannot be sent back is the function's failure.
        task = await runner.submit(threading.Lock)
        with pytest.raises(TypeError, match="lock"):
            await task.wait(60)
        task = await runner.submit(sys.exit, args=(7,))
        with pytest.raises(agentspool.TaskFailed) as raised:
            await task.wait(60)
        assert raised.value.exit_code == 7

    asyncio.run(main())


def test_a_timeout_and_a_cancel_really_stop_it(world):
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


def test_progress_from_inside(world):
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
    # Outside a task it says nothing, so the function can be called as it is.
    reports()
    with pytest.raises(ValueError, match="from 0 to 1"):
        agentspool.progress(45)


def test_no_more_than_the_limit_run_at_once(world):
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
        # Two runners with one config share its limit, and another config has its own.
        config = BackgroundConfig(max_concurrent_tasks=2)
        runners = [BackgroundRunner(config), BackgroundRunner(config)]
        tasks = [await runners[n % 2].submit(one) for n in range(6)]
        other = await BackgroundRunner(BackgroundConfig(max_concurrent_tasks=1)).submit(callables.where)
        await other.wait(60)
        for runner in runners:
            assert len(await runner.wait_all(60)) == 3
        assert max(task.result for task in tasks) <= 2

    asyncio.run(main())


def test_a_task_outlives_who_submitted_it(world):
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


def test_in_the_running_loop_of_a_notebook(world):
    async def cell():
        # What blocks does so for a moment only, and needs no loop of its own.
        runner = BackgroundRunner()
        task = runner.submit_sync(callables.where)
        return await task.wait(60), task.status_sync()

    (name, _), status = asyncio.run(cell())
    assert (name, status) == ("nobody", "completed")


def test_what_cannot_be_sent(world):
    lock = threading.Lock()
    runner = BackgroundRunner()
    with pytest.raises(agentspool.NotPicklable, match="cannot be pickled for another process") as raised:
        runner.submit_sync(lambda: lock.acquire())
    assert isinstance(raised.value, TypeError) and raised.value.code == 2
    with pytest.raises(agentspool.NotPicklable, match="where cannot be sent"):
        asyncio.run(runner.submit(callables.where, args=(lock,)))
    with pytest.raises(agentspool.UsageError, match="cannot be called"):
        runner.submit_sync("where")
    for wrong in (0, -1, "three", 2.5):
        with pytest.raises(agentspool.UsageError, match="max_concurrent_tasks"):
            BackgroundConfig(max_concurrent_tasks=wrong)
    assert not Path(private_spool()).exists()


def test_a_shared_spool_runs_no_pickles_unless_its_owner_says_so(world):
    runner = BackgroundRunner(spool=world.spool)
    with pytest.raises(agentspool.Refused, match="a pickle is code, so its owner must allow it"):
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
        "what nobody waits for is swept", lambda: world.cli("sweep", "--spool", spool) and not gone.exists()
    )
    assert kept.wait_sync(60)[0] == "nobody"


def test_what_cannot_be_read_here_is_reported_by_wait(world):
    task = BackgroundRunner().submit_sync(callables.where)
    world.cli("wait", task.task_id, "--spool", private_spool())
    (task.dir / "attempts/1/returned.pickle").write_bytes(b"no pickle")
    with pytest.raises(Exception, match=r"pickle|stack|opcode|load key"):
        task.wait_sync(60)
    assert task.result is None and task.done
    with pytest.raises(agentspool.SpoolUnusable, match="no recipe can be put into"):
        install_recipe(world.root / "nowhere")


def test_first_use_by_many_processes_at_once(world):
    script = (
        "from agentspool import BackgroundRunner; print(BackgroundRunner().submit_sync(abs, args=(-3,)).wait_sync(60))"
    )
    started = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert [process.communicate()[0] for process in started] == ["3\n"] * 6


def test_a_large_call_goes_where_its_task_goes_and_touches_nothing_else(world, monkeypatch):
    """Beside the spool lies a folder of the user's with the name that calls once had there."""
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
        # The copy runs first, and takes nothing from the other one.
        world.cli("list", "--spool", str(place / "spool"))
        world.cli("resume", "--spool", str(place / "spool"))
        runner = BackgroundRunner(spool=place / "spool")
        for task_id in ids:
            assert runner.get_task(task_id).wait_sync(60) == 600_000
        assert sorted(os.listdir(place)) == ["calls", "spool"]
        assert (place / "calls/recording").read_text() == "mother"


def test_a_call_that_returns_nothing_has_not_completed(world):
    def by_help():
        import argparse

        argparse.ArgumentParser().parse_args(["--help"])

    def writes_and_leaves():
        Path(os.environ["AGENTSPOOL_RESULT_FILE"]).write_text("")
        os._exit(0)

    runner = BackgroundRunner()
    ways = [sys.exit, by_help, lambda: sys.exit(0), lambda: os._exit(0), writes_and_leaves]
    for task in [runner.submit_sync(way) for way in ways]:
        with pytest.raises(agentspool.TaskFailed, match=r"returned nothing|gave no result"):
            task.wait_sync(60)
        assert task.status_sync() == "failed" and task.result is None


def test_what_a_value_says_of_itself_decides_nothing(world):
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
