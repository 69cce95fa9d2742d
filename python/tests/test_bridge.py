"""The bridge to PraisonAI with a fake package: runs without an answer, and output that is not JSON."""

from __future__ import annotations

import sys

import agentspool
import pytest
from agentspool import recipe

STAND_IN = """\
import os, sys
class Result:
    ok, status, error, output = True, "success", None, None
    def to_exit_code(self):
        return 0
class Silent:
    def __str__(self):
        raise RuntimeError("no words")
def run(folder, input=None, config=None, session_id=None):
    result, how = Result(), input["how"]
    if how == "exit": sys.exit(0)
    if how == "exit 7": sys.exit(7)
    if how == "_exit": os._exit(0)
    if how == "half": result.output = {"a": "x\\ud83d", "b": ["\\ud83d", "\\ude00"], "c": "\\ud83d\\ude00"}
    if how == "keys": result.output = {(1, 2): {3: Silent()}, "list": [(4, None), True, 10**5000]}
    if how == "round": result.output = {}; result.output["self"] = result.output
    return result
"""


@pytest.fixture
def ask(world):
    package = world.root / "modules/praisonai"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "recipe.py").write_text(STAND_IN)
    python = world.root / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={package.parent} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    world.cli("config", "set", "praisonai_python", str(python))
    folder = world.spool / "recipes/research"
    folder.mkdir()
    (folder / "TEMPLATE.yaml").write_text("name: research\n")
    return lambda how: recipe.run_background("research", input={"how": how})


def test_a_run_without_an_answer_has_failed(ask):
    for how, code, words in (("exit", 3, "gave no answer"), ("exit 7", 7, "code 7"), ("_exit", 0, "gave no result")):
        with pytest.raises(agentspool.TaskFailed, match=words) as raised:
            ask(how).wait_sync(60)
        assert raised.value.exit_code == code
    assert ask("none").wait_sync(60) is None


def test_an_answer_that_is_not_json_is_converted(ask):
    assert ask("half").wait_sync(60) == {"a": "x\ufffd", "b": ["\ufffd", "\ufffd"], "c": "\U0001f600"}
    keys = ask("keys").wait_sync(60)
    assert keys["(1, 2)"] == {"3": "<Silent>"} and keys["list"] == [[4, None], True, "<int>"]
    assert "self" in ask("round").wait_sync(60)
