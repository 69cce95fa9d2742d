"""PraisonAI recipe folders with the real `praisonai` from PyPI and a local endpoint.

PRAISONAI_PYTHON names the interpreter with praisonai; without it these tests fail. How such a folder is found, and
the errors without an installation, are in tests/it/praisonai.rs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import agentspool
import pytest
from agentspool import recipe

TEMPLATE = """\
name: research
version: "1.0.0"
description: Answers a question in two steps.
"""
AGENTS = """\
framework: praisonai
agents:
  researcher:
    role: Researcher
    goal: Answer questions
    backstory: You answer briefly.
  editor:
    role: Editor
    goal: Make it short
    backstory: You shorten.
tasks:
  - name: look
    description: "Look for {query} in {style} style"
    expected_output: one sentence
    agent: researcher
  - name: shorten
    description: "Shorten what was found about {query}"
    expected_output: one word
    agent: editor
"""


@pytest.fixture
def praisonai(world, stub, monkeypatch):
    python = os.environ.get("PRAISONAI_PYTHON")
    assert python, "PRAISONAI_PYTHON must name a Python that has praisonai (`just python` installs one)"
    world.cli("config", "set", "praisonai_python", python)
    folder = world.spool / "recipes/research"
    folder.mkdir()
    (folder / "TEMPLATE.yaml").write_text(TEMPLATE)
    (folder / "agents.yaml").write_text(AGENTS)
    (folder / "recipe.toml").write_text(
        'timeout = "2m"\nenv_accept = ["OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL_NAME"]\n'
        '[env]\nPRAISONAI_TELEMETRY_DISABLED = "true"\nDO_NOT_TRACK = "true"\n[config]\nstyle = "plain"\n'
    )

    def submit(query, **arguments):
        env = {"OPENAI_API_KEY": "hunter2", "OPENAI_BASE_URL": stub.url, "OPENAI_MODEL_NAME": "gpt-4o-mini"}
        return recipe.run_background("research", input={"query": query}, env=env, **arguments)

    return submit


def test_several_runs_at_once_with_a_cancel_and_a_timeout(praisonai, stub, world):
    stub.hold = "never"
    cancelled = praisonai("never-cancelled")
    timed_out = praisonai("never-in-time", timeout_sec=15)
    good = [praisonai("owls", session_id="one"), praisonai("bats", config={"style": "grand"})]
    for task, query, style in zip(good, ("owls", "bats"), ("plain", "grand")):
        # The task's output is the result of the last step. The templates have the input and the config.
        assert f"Shorten what was found about {query}" in task.wait_sync(110)
        assert any(f"Look for {query} in {style} style" in str(asked["messages"]) for asked in stub.asked)
    world.wait_until("both others ask the model", lambda: stub.waiting >= 2 or timed_out.done)
    assert cancelled.status_sync() == "running"
    assert cancelled.cancel_sync() is True
    with pytest.raises(agentspool.TaskTimedOut):
        timed_out.wait_sync(60)
    assert world.of_task(cancelled) == world.of_task(timed_out) == []
    assert {asked["key"] for asked in stub.asked} == {"Bearer hunter2"}


def test_progress_and_usage_come_from_the_events(praisonai, stub, world):
    stub.hold = "Shorten"
    task = praisonai("owls")
    world.wait_until("one of two steps is done", lambda: task.info_sync()["progress"] == 0.5)
    world.wait_until("the second step asks", lambda: stub.waiting == 1)
    assert task.info_sync()["message"] == "asking gpt-4o-mini (editor)"
    stub.release()
    task.wait_sync(100)
    metrics = task.result_json["metrics"]
    assert metrics["usage"] == {"prompt_tokens": 14, "completion_tokens": 10, "total_tokens": 24}
    lines = (task.dir / "attempts/1/progress").read_text()
    assert "step look (researcher)" in lines and "done shorten (editor)" in lines


def test_an_error_of_the_model_is_a_failure(praisonai, stub):
    # PraisonAI itself reports a success here.
    stub.once = [(401, {}, '{"error": {"message": "bad key", "type": "invalid_request_error"}}')] * 100
    task = praisonai("owls")
    with pytest.raises(agentspool.TaskFailed, match="bad key") as raised:
        task.wait_sync(110)
    assert raised.value.exit_code == 3


def test_a_missing_requirement_is_code_6(praisonai, world):
    (world.spool / "recipes/research/TEMPLATE.yaml").write_text(TEMPLATE + "requires:\n  env: [NOWHERE_KEY]\n")
    with pytest.raises(agentspool.TaskFailed, match=r"Missing dependencies: \$NOWHERE_KEY") as raised:
        praisonai("owls").wait_sync(110)
    assert raised.value.exit_code == 6


def test_a_python_without_praisonai_is_code_6_with_the_command_that_installs_it(praisonai, world):
    bare = world.root / "bare"
    # -S: without the site-packages of the interpreter that runs these tests.
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    world.cli("config", "set", "praisonai_python", str(bare))
    with pytest.raises(agentspool.Missing, match=f"install it with `{bare} -m pip install praisonai`"):
        praisonai("owls")
    assert list((world.spool / "tasks").iterdir()) == []


def test_the_praisonai_program_names_the_interpreter(praisonai, world, monkeypatch):
    world.cli("config", "unset", "praisonai_python")
    python = Path(os.environ["PRAISONAI_PYTHON"])
    monkeypatch.setenv("PATH", f"{python.parent}:/usr/bin:/bin")
    found = Path(world.cli("recipe", "info", "research")["program"])
    assert found.parent == python.parent and found.samefile(python)
    assert "Shorten what was found about owls" in praisonai("owls").wait_sync(110)
