"""Recipes as background tasks: the documented calls, async, blocking and in threads, and their errors."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading

import agentspool
import pytest
from agentspool import recipe
from agentspool._program import find

ECHO = '#!/bin/sh\nprintf \'{"input": %s, "config": %s}\' "$(cat)" "$AGENTSPOOL_CONFIG"\n'
SLEEPS = "#!/bin/sh\nsleep 1000 &\nexec sleep 1000\n"


@pytest.fixture
def gate(world):
    """A recipe that ends when a file exists. Returns the function that creates the file."""
    path = world.root / "go"
    says = "echo 45 Reading >> $AGENTSPOOL_PROGRESS_FILE"
    world.recipe("gate", f"#!/bin/sh\n{says}\nuntil [ -e {path} ]; do sleep 0.02; done\necho through\n")
    return path.touch


def test_the_documented_calls(world):
    world.recipe("my-recipe", ECHO)

    async def main():
        # The example of the documents, with another import.
        task = recipe.run_background(
            "my-recipe",
            input={"query": "What is AI?"},
            config={"max_tokens": 1000},
            session_id="session_123",
            timeout_sec=300,
        )
        assert task.task_id.startswith("task_")
        assert task.session_id == "session_123"
        assert await task.status() in ("pending", "running", "completed")
        result = await task.wait(timeout=600)
        assert result == {"input": {"query": "What is AI?"}, "config": {"max_tokens": 1000}}
        assert await task.status() == "completed"
        assert task.result == result
        # To cancel a task that has ended is not an error.
        assert await task.cancel() is False
        return task

    task = asyncio.run(main())
    request = json.loads((task.dir / "request.json").read_text())
    assert request["timeout_sec"] == 300.0


def test_output_that_is_not_text_is_bytes(world):
    noise = bytes(n * 7 % 256 for n in range(3000))
    (world.root / "noise").write_bytes(noise)
    long = noise * 500
    (world.root / "long").write_bytes(long)
    world.recipe("image", f"#!/bin/sh\ncat {world.root}/noise\n")
    world.recipe("large", f"#!/bin/sh\ncat {world.root}/long > $AGENTSPOOL_RESULT_FILE\n")
    world.recipe("fails", f"#!/bin/sh\ncat {world.root}/noise\nexit 3\n")
    for name, expected in [("image", noise), ("large", long)]:
        task = recipe.run_background(name)
        assert task.wait_sync() == expected
        assert task.result == expected
        assert task.result_json["output_encoding"] == "binary"
        assert task.output_path.read_bytes() == expected
    assert recipe.run("image").output == noise
    failed = recipe.run("fails")
    assert (failed.ok, failed.output) == (False, noise)


def test_text_output_is_not_changed(world):
    # A control character takes six bytes in JSON, so the first output is a file.
    for name, text, expected in [
        ("controls", b"\x01" * 300_000, "\x01" * 300_000),
        ("twice", b'{"a": 1, "a": 2}' + b" " * 1_100_000, '{"a": 1, "a": 2}' + " " * 1_100_000),
        ("list", b"[1, 2" + b" " * 1_100_000 + b"]", [1, 2]),
        ("blank", b" \n", " "),
    ]:
        (world.root / name).write_bytes(text)
        world.recipe(name, f"#!/bin/sh\ncat {world.root}/{name}\n")
        task = recipe.run_background(name)
        assert task.wait_sync() == expected, name
        assert "output_encoding" not in task.result_json


def test_a_warning_reports_a_cut_output(world):
    world.cli("config", "set", "log_cap_bytes", "1048576")
    world.recipe("talks", "#!/bin/sh\necho first\nyes | head -c 20000000\necho last\n")
    task = recipe.run_background("talks")
    with pytest.warns(agentspool.AgentspoolWarning, match="was cut out: [0-9]+ bytes"):
        text = task.wait_sync()
    assert text.startswith("first\ny\n") and text.endswith("y\nlast")
    assert "\0" not in text and len(text) < 2 << 20


def test_holes_in_the_output_are_zeroes(world):
    with open(world.root / "image", "wb") as image:
        image.write(b"a" * 100_000)
        image.truncate(3 << 20)
    world.recipe("copies", f"#!/bin/sh\ncp --sparse=always {world.root}/image /dev/stdout\n")
    task = recipe.run_background("copies")
    assert task.wait_sync() == "a" * 100_000 + "\0" * ((3 << 20) - 100_000)


def test_cancel_ends_all_processes(world):
    world.recipe("sleeps", SLEEPS)

    async def main():
        task = await recipe.arun_background("sleeps")
        # The status is running shortly before the process has its environment.
        await asyncio.to_thread(world.wait_until, "its process exists", lambda: world.of_task(task))
        assert await task.cancel() is True
        assert await task.status() == "cancelled"
        with pytest.raises(agentspool.TaskCancelled):
            await task.wait()
        assert world.of_task(task) == []

    asyncio.run(main())


def test_blocking_calls_in_threads(world):
    world.recipe("my-recipe", ECHO)
    world.cli("config", "set", "max_concurrent", "3")
    given: list[object] = []

    def one(number: int) -> None:
        task = recipe.run_background("my-recipe", input=number)
        given.append((number, task.wait_sync(60)["input"], task.status_sync(), asyncio.run(task.wait())["input"]))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == [(number, number, "completed", number) for number in range(8)]


def test_many_waits_do_not_block_the_loop(world, gate):
    world.recipe("my-recipe", ECHO)

    async def main():
        slow = recipe.run_background("gate")
        fast = await asyncio.gather(*(recipe.arun_background("my-recipe", input=[n]) for n in range(10)))
        waiting = asyncio.ensure_future(slow.wait())
        assert [given["input"] for given in await asyncio.gather(*(task.wait() for task in fast))] == [
            [n] for n in range(10)
        ]
        assert not waiting.done()
        gate()
        assert await waiting == "through"

    asyncio.run(main())


def test_a_cancelled_await_ends_its_program_but_not_the_task(world, gate):
    async def main():
        task = recipe.run_background("gate")
        waiting = asyncio.ensure_future(task.wait())
        await asyncio.to_thread(
            world.wait_until, "the program waits", lambda: any(" wait " in c for c in world.processes().values())
        )
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not any(" wait " in command for command in world.processes().values())
        gate()
        assert await task.wait(60) == "through"

    asyncio.run(main())


def test_progress_and_the_timeout_of_a_wait(world, gate):
    async def main():
        task = recipe.run_background("gate")
        with pytest.raises(agentspool.WaitTimedOut) as raised:
            await task.wait(timeout=0.1)
        assert isinstance(raised.value, (TimeoutError,)) and isinstance(raised.value, asyncio.TimeoutError)
        assert raised.value.code == 124
        assert task.result is None and task.error is None and not task.done
        await asyncio.to_thread(world.wait_until, "progress is seen", lambda: task.info_sync()["progress"] == 0.45)
        assert (await task.info())["message"] == "Reading"
        gate()
        assert await task.wait() == "through"

    asyncio.run(main())


def test_another_process_can_open_a_task(world, gate):
    task = recipe.run_background("gate", task_name="report", metadata={"for": "Ada"})
    script = (
        "import agentspool, sys\n"
        "task = agentspool.open_task(sys.argv[1])\n"
        "print(task.task_id, task.recipe_name, task.session_id, task.wait_sync(60), task.info_sync()['metadata'])\n"
    )
    other = subprocess.Popen([sys.executable, "-c", script, "report"], stdout=subprocess.PIPE, text=True)
    gate()
    said, _ = other.communicate()
    assert said == f"{task.task_id} gate {task.session_id} through {{'for': 'Ada'}}\n"
    assert agentspool.open_task(task.task_id[-8:]).task_id == task.task_id
    assert agentspool.open_task("last", spool=world.spool).result == "through"


def test_on_complete_is_called_in_the_loop_or_in_a_thread(world, caplog):
    world.recipe("my-recipe", ECHO)
    world.recipe("fails", "#!/bin/sh\nexit 3\n")
    heard: list[tuple] = []

    async def main():
        here = threading.current_thread()
        done = asyncio.Event()

        def callback(task):
            heard.append((task.result["input"], threading.current_thread() is here))
            done.set()

        await recipe.arun_background("my-recipe", input=1, on_complete=callback)
        await asyncio.wait_for(done.wait(), 60)
        done.clear()

        async def coroutine(task):
            heard.append((str(task.error).partition(": the")[0], threading.current_thread() is here))
            done.set()

        failing = recipe.run_background("fails", on_complete=coroutine)
        await asyncio.wait_for(done.wait(), 60)
        assert heard == [(1, True), (f"the task {failing.task_id} (fails) failed", True)]

    asyncio.run(main())

    def raises(task):
        heard.append(task.status_sync())
        raise RuntimeError("mine")

    with caplog.at_level(logging.ERROR, "agentspool"):
        recipe.run_background("my-recipe", on_complete=raises)
        world.wait_until("the callback is called and its error logged", lambda: "mine" in caplog.text)
    assert heard[-1] == "completed"


def test_run_returns_how_the_task_ended(world):
    world.recipe("my-recipe", ECHO)
    world.recipe("fails", "#!/bin/sh\necho half\necho no luck >&2\nexit 7\n")
    good = recipe.run("my-recipe", input="text", timeout_sec=60)
    assert (good.ok, good.status, good.output["input"], good.error) == (True, "completed", "text", None)
    assert good.metrics["stderr_bytes"] == 0
    bad = asyncio.run(recipe.arun("fails"))
    assert (bad.ok, bad.status, bad.output, bad.exit_code) == (False, "failed", "half", 7)
    assert bad.error == f"the task {bad.task_id} (fails) failed: the recipe exited with code 7: no luck"


def test_the_exception_has_the_error_of_the_result(world):
    world.recipe("fails", "#!/bin/sh\necho no luck >&2\nexit 7\n")
    world.recipe("sleeps", SLEEPS)
    with pytest.raises(agentspool.TaskFailed, match="the recipe exited with code 7: no luck") as failed:
        recipe.run_background("fails").wait_sync(60)
    assert (failed.value.code, failed.value.kind, failed.value.exit_code) == (3, "exit", 7)
    late = recipe.run_background("sleeps", timeout_sec=0.3)
    with pytest.raises(agentspool.TaskTimedOut, match="stopped after its timeout") as timed_out:
        late.wait_sync(60)
    assert (timed_out.value.code, timed_out.value.kind, timed_out.value.task_id) == (5, "timeout", late.task_id)
    assert world.of_task(late) == []


def test_a_large_output_is_read_from_its_file(world):
    world.recipe("large", "#!/bin/sh\nhead -c 1500000 /dev/zero | tr '\\0' x\necho\n")
    assert recipe.run_background("large").wait_sync(60) == "x" * 1_500_000


def test_a_large_input_and_config_reach_the_recipe_and_no_command_line(world, gate):
    world.recipe("my-recipe", ECHO)
    text = "ä" * 400_000
    task = recipe.run_background("my-recipe", input={"text": text}, config={"list": list(range(10_000))})
    given = task.wait_sync(60)
    assert given["input"]["text"] == text and given["config"]["list"][-1] == 9999


def test_an_unread_result_is_not_swept_while_its_handle_exists(world):
    world.recipe("my-recipe", ECHO)
    kept = recipe.run_background("my-recipe", input="kept")
    fetched = recipe.run_background("my-recipe", input="fetched")
    dropped = recipe.run_background("my-recipe", input="dropped")
    fetched.wait_sync(60)
    # This waits for the tasks without reading their results.
    world.cli("wait", "--all")
    world.cli("sweep")
    gone = dropped.dir
    del dropped
    # A watcher also sweeps, so check the folders, not the output of the sweep.
    world.cli("config", "set", "cleanup_delay_sec", "0")
    world.wait_until(
        "tasks without a handle are swept",
        lambda: world.cli("sweep") and not gone.exists() and not fetched.dir.exists(),
    )
    assert fetched.result["input"] == "fetched"
    assert kept.wait_sync(60)["input"] == "kept"
    world.wait_until("the task with a read result is swept", lambda: world.cli("sweep") and not kept.dir.exists())


def test_list_recipes(world):
    world.recipe("greet", "#!/bin/sh\n# description: Says hello.\n")
    (world.spool / "recipes/plain.sh").write_text("#!/bin/sh\n")
    (world.spool / "recipes/needy").mkdir()
    (world.spool / "recipes/needy/recipe.toml").write_text('command = ["no-such-program-anywhere"]\n')
    listed = {one.name: one for one in recipe.list_recipes()}
    assert (listed["greet"].description, listed["greet"].kind, listed["greet"].problem) == (
        "Says hello.",
        "executable",
        None,
    )
    assert "no-such-program-anywhere" in listed["needy"].problem


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), b"bytes", object(), {"a": [lambda: 0]}, "\ud800"])
def test_an_input_that_is_not_json_is_refused(world, value):
    world.recipe("my-recipe", ECHO)
    with pytest.raises(agentspool.NotJson, match="input is not a JSON value") as raised:
        recipe.run_background("my-recipe", input=value)
    assert isinstance(raised.value, (TypeError, ValueError)) and raised.value.code == 2
    circle: list = []
    circle.append(circle)
    with pytest.raises(agentspool.NotJson):
        recipe.run_background("my-recipe", config={"circle": circle})


def test_each_missing_thing_has_its_exception(world, monkeypatch):
    world.recipe("my-recipe", ECHO)
    with pytest.raises(agentspool.NotFound, match='no recipe is called "my-recip"') as raised:
        recipe.run_background("my-recip")
    assert "did you mean my-recipe?" in str(raised.value) and isinstance(raised.value, LookupError)
    with pytest.raises(agentspool.NotFound, match='no task is called "task_nosuch"'):
        agentspool.open_task("task_nosuch")
    with pytest.raises(agentspool.NotFound):
        agentspool.open_task("--help")
    with pytest.raises(agentspool.SpoolUnusable, match="nowhere"):
        recipe.run_background("my-recipe", spool=world.root / "nowhere")
    with pytest.raises(agentspool.SpoolUnusable, match="nowhere"):
        agentspool.open_task("last", spool=world.root / "nowhere")
    with pytest.raises(agentspool.UsageError, match="timeout"):
        recipe.run_background("my-recipe", timeout_sec=-1)
    with pytest.raises(agentspool.UsageError):
        recipe.run_background("my-recipe", session_id="../up")
    with pytest.raises(agentspool.UsageError, match="config must be a JSON object"):
        recipe.run_background("my-recipe", config=[1])
    with pytest.raises(agentspool.Refused, match="does not accept the variable KEY"):
        recipe.run_background("my-recipe", env={"KEY": "x"})
    monkeypatch.setenv("AGENTSPOOL_PROGRAM", str(world.root / "no-program"))
    with pytest.raises(agentspool.Missing, match="no-program"):
        recipe.run_background("my-recipe")
    assert list((world.spool / "tasks").iterdir()) == []


def test_without_a_watcher_submit_warns_and_wait_raises(world):
    world.recipe("my-recipe", ECHO)
    world.cli("config", "set", "autostart", "false")
    # The task is on the disk. submit warns, and wait raises.
    with pytest.warns(agentspool.AgentspoolWarning, match="no watcher is running") as warned:
        task = recipe.run_background("my-recipe")
    assert warned[0].filename == __file__
    with pytest.raises(agentspool.NoWatcher, match=r"no watcher is running on .*, and this command may not start one"):
        asyncio.run(task.wait(timeout=60))
    with pytest.warns(agentspool.AgentspoolWarning):
        assert task.status_sync() == "pending"
    subprocess.run([find(), "runner", "--once", task.task_id], check=True, stderr=subprocess.DEVNULL)
    assert task.wait_sync(60)["input"] == {}


def test_a_removed_task_is_not_found(world):
    world.recipe("my-recipe", ECHO)
    task = recipe.run_background("my-recipe")
    world.cli("wait", task.task_id)
    world.cli("clear")
    with pytest.raises(agentspool.NotFound):
        task.wait_sync(60)
    assert task.result is None


def test_too_many_open_files_give_a_warning(world):
    import resource

    world.recipe("my-recipe", ECHO)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    task = recipe.run_background("my-recipe")
    used = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (used[0] + 1, hard))
    try:
        with pytest.warns(agentspool.AgentspoolWarning, match="too many open files"):
            agentspool.Task(task.task_id, str(task.dir), task.recipe_name, task.session_id)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(used[0])
    task.wait_sync(60)
