"""Which pickles are unpickled. A pickle is code, and a spool may have tasks of other users."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import agentspool
import callables
import pytest
from agentspool.background import BackgroundRunner, BackgroundTask, install_recipe, private_spool


class Touches:
    """Creates a folder when it is unpickled, even if the class is unknown there."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def handle(task) -> BackgroundTask:
    """A new handle, as from `get_task`, which has read nothing."""
    return BackgroundTask(task.task_id, str(task.dir), task.recipe_name, task.session_id)


def test_a_value_is_unpickled_only_when_it_is_read(world):
    touched = world.root / "touched"
    task = BackgroundRunner().submit_sync(Touches, args=(str(touched),))
    world.cli("wait", task.task_id, "--spool", private_spool())
    assert task.done and task.result_json["ok"] and task.status_sync() == "completed" and task.output_path is None
    assert not touched.exists()
    assert task.result is None and touched.exists()
    # Only once.
    assert task.wait_sync(60) is None


def test_the_pickle_of_another_recipe_is_not_unpickled(world):
    touched = world.root / "touched"
    evil = pickle.dumps(Touches(str(touched)))
    for name, code in (("good", 0), ("bad", 1)):
        # A recipe that writes a pickle into its current folder and next to its logs.
        world.recipe(
            name,
            f"#!/bin/sh\nfor to in . ..; do cp {world.root}/evil $to/returned.pickle; "
            f"cp {world.root}/evil $to/raised.pickle; done\necho said\nexit {code}\n",
        )
    (world.root / "evil").write_bytes(evil)
    install_recipe(world.spool)
    runner = BackgroundRunner(spool=world.spool)
    ended = {}
    for name in ("good", "bad"):
        task = agentspool.recipe.run_background(name)
        world.cli("wait", task.task_id, code=3 if name == "bad" else 0)
        ended[name] = runner.get_task(task.task_id)
        assert ended[name].done
    assert ended["good"].wait_sync(60) == "said" and ended["bad"].partial_output == "said"
    with pytest.raises(agentspool.TaskFailed):
        ended["bad"].wait_sync(60)
    assert not touched.exists()


def test_a_function_of_another_user_gives_json(world):
    task = BackgroundRunner().submit_sync(callables.where)
    name, pid = task.wait_sync(60)
    origin = task.dir / "origin.json"
    for uid, value in ((os.geteuid(), (name, pid)), (os.geteuid() + 1, [name, pid]), (None, [name, pid])):
        origin.write_text(json.dumps({"v": 2, "uid": uid}))
        origin.chmod(0o640)
        assert handle(task).result == value
    origin.write_text("[]")
    assert handle(task).result == [name, pid]


def test_a_changed_recipe_with_our_name_is_not_trusted(world):
    task = BackgroundRunner().submit_sync(callables.where)
    name, pid = task.wait_sync(60)
    manifest = Path(private_spool()) / "recipes" / task.recipe_name / "recipe.toml"
    text = manifest.read_text()
    manifest.write_text(text + "# changed\n")
    assert handle(task).result == [name, pid]
    manifest.unlink()
    assert handle(task).result == [name, pid]


def test_a_pickle_that_others_may_write_is_not_unpickled(world):
    def fails():
        raise LookupError("nothing")

    runner = BackgroundRunner()
    task, failed = runner.submit_sync(callables.where), runner.submit_sync(fails)
    given = task.wait_sync(60)
    pickled = task.dir / "attempts/1/returned.pickle"
    assert pickled.stat().st_mode & 0o777 == 0o600
    for path in (pickled, pickled.parent, task.dir, task.dir.parent, task.dir.parents[1]):
        mode = path.stat().st_mode & 0o777
        path.chmod(mode | 0o020)
        loose = handle(task)
        assert loose.done and loose.result is None
        with pytest.raises(agentspool.SpoolUnusable, match=f"others may write to {path}"):
            loose.wait_sync(60)
        path.chmod(mode)
        assert handle(task).result == given
    # An exception becomes a TaskFailed with its text.
    with pytest.raises(LookupError):
        failed.wait_sync(60)
    (failed.dir / "attempts/1/raised.pickle").chmod(0o620)
    with pytest.raises(agentspool.TaskFailed, match="LookupError: nothing"):
        handle(failed).wait_sync(60)
    # A symbolic link is refused. A hard link, as in a backup made by `cp -al`, is accepted.
    kept = pickled.with_name("kept")
    pickled.rename(kept)
    pickled.symlink_to(kept)
    assert handle(task).result is None and isinstance(handle(task).error, OSError)
    pickled.unlink()
    with pytest.raises(agentspool.TaskFailed, match="with its returned value is missing"):
        handle(task).wait_sync(60)
    os.link(kept, pickled)
    assert handle(task).result == given
    if os.geteuid() == 0:
        os.chown(pickled, 12345, -1)
        assert handle(task).result == list(given)


def test_control_characters_of_a_task_are_escaped(world):
    world.recipe("fails", "#!/bin/sh\nprintf 'a\\033[2Jb\\rc\\302\\233d\\342\\200\\256e' >&2\nexit 1\n")
    task = agentspool.recipe.run_background("fails")
    with pytest.raises(agentspool.TaskFailed) as raised:
        task.wait_sync(60)
    assert str(raised.value).endswith(r": a\x1b[2Jb\rc\x9bd\u202ee")


def test_an_exception_that_cannot_be_unpickled_has_its_traceback(world):
    def fails():
        raise LookupError("nothing")

    task = BackgroundRunner().submit_sync(fails)
    with pytest.raises(LookupError):
        task.wait_sync(60)
    left = task.dir / "attempts/1/raised.pickle"
    for content, text in (
        (pickle.dumps((b"no pickle", "line by line")), "line by line"),
        (b"none", "cannot be unpickled"),
    ):
        left.write_bytes(content)
        with pytest.raises(agentspool.TaskFailed, match="LookupError: nothing") as raised:
            handle(task).wait_sync(60)
        assert text in str(raised.value.__cause__)


def test_a_function_that_changes_the_umask_keeps_its_result(world):
    def shuts(umask):
        os.umask(umask)
        return (1, 2)

    for umask in (0o777, 0):
        task = BackgroundRunner().submit_sync(shuts, args=(umask,))
        assert task.wait_sync(60) == (1, 2)
        left = {name: (task.dir / "attempts/1" / name).stat().st_mode & 0o777 for name in ("returned.pickle", "output")}
        assert left["returned.pickle"] == 0o600 and left["output"] & 0o602 == 0o600
