"""The agent recipe of spool/recipes/agent, with a local endpoint: questions, conversations, metrics and errors."""

from __future__ import annotations

import json
import shutil

import pytest
from agentspool import TaskFailed, recipe
from conftest import REPOSITORY


@pytest.fixture
def agent(world, stub):
    shutil.copytree(REPOSITORY / "spool/recipes/agent", world.spool / "recipes/agent")

    def submit(prompt, **arguments):
        env = {"OPENAI_BASE_URL": stub.url, "OPENAI_API_KEY": "hunter2", "OPENAI_MODEL": "small"}
        given = prompt if isinstance(prompt, dict) else {"prompt": prompt}
        return recipe.run_background("agent", input=given, env=env, **arguments)

    return submit


def test_two_turns_of_a_session_are_one_conversation(agent, stub, world):
    config = {"system": "Be brief.", "temperature": 0, "max_tokens": 50}
    stub.hold = "first"
    first = agent("the first thing", session_id="chat", config=config)
    # Submitted while the first has no answer: it must run after it.
    second = agent("the second thing", session_id="chat", config=config)
    world.wait_until("the endpoint is asked", lambda: stub.waiting == 1)
    assert len(stub.asked) == 1
    stub.release()
    assert first.wait_sync(60) == "You said: the first thing"
    assert second.wait_sync(60) == "You said: the second thing"
    assert [message["content"] for message in stub.asked[1]["messages"]] == [
        "Be brief.",
        "the first thing",
        "You said: the first thing",
        "the second thing",
    ]
    question = stub.asked[0]
    assert (question["path"], question["key"]) == ("/v1/chat/completions", "Bearer hunter2")
    assert (question["model"], question["temperature"], question["max_tokens"]) == ("small", 0, 50)
    # Another session does not have the conversation. A task that names a generated session has it.
    other = agent("something else")
    other.wait_sync(60)
    assert len(stub.asked[2]["messages"]) == 1
    agent("and then?", session_id=other.session_id).wait_sync(60)
    assert len(stub.asked[3]["messages"]) == 3


def test_the_answer_is_streamed_to_the_log_and_counted_in_the_metrics(agent, stub):
    task = agent("why?")
    assert task.wait_sync(60) == "You said: why?"
    assert (task.dir / "attempts/1/stdout.log").read_text() == "You said: why?\n"
    metrics = task.result_json["metrics"]
    assert metrics["usage"] == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    assert (metrics["model"], metrics["finish_reason"], metrics["retries"]) == ("small", "stop", 0)
    assert task.info_sync()["message"].startswith("received ")
    for path in task.dir.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path


def test_an_answer_that_is_json_stays_text_and_an_endpoint_need_not_stream(agent, stub):
    stub.streams = False
    task = agent({"messages": [{"role": "user", "content": "42"}]})
    assert task.wait_sync(60) == "You said: 42"
    assert task.result_json["metrics"]["usage"]["total_tokens"] == 12


def test_after_429_the_recipe_asks_again_after_retry_after(agent, stub):
    stub.once = [
        (429, {"Retry-After": "0.2"}, '{"error": {"message": "slow down"}}'),
        (503, {"Retry-After": "0"}, "busy"),
    ]
    task = agent("again")
    assert task.wait_sync(60) == "You said: again"
    assert task.result_json["metrics"]["retries"] == 2
    log = (task.dir / "attempts/1/stderr.log").read_text()
    assert "the endpoint answered 429: slow down; asking again in 0 s" in log


def test_a_wait_longer_than_the_timeout_is_not_started(agent, stub):
    stub.once = [(429, {"Retry-After": "3600"}, '{"error": {"message": "slow down"}}')]
    task = agent("never", timeout_sec=50)
    with pytest.raises(TaskFailed, match=r"429: slow down; it would take 3600 s more, and the task has \d\d s left"):
        task.wait_sync(40)
    assert len(stub.asked) == 1


def test_after_a_refusal_or_an_incomplete_answer_the_recipe_does_not_ask_again(agent, stub, world):
    stub.once = [(401, {}, '{"error": {"message": "bad key"}}')]
    with pytest.raises(TaskFailed, match="the endpoint answered 401: bad key"):
        agent("who?", session_id="kept").wait_sync(60)
    stub.break_off = True
    with pytest.raises(TaskFailed, match=r"the answer is incomplete.* \(after 3 characters\)"):
        agent("half", session_id="kept").wait_sync(60)
    assert len(stub.asked) == 2
    # The conversation contains neither turn.
    assert not (world.spool / "sessions/kept/state/conversation.json").exists()


@pytest.mark.parametrize(
    ("given", "config", "message"),
    [
        ({}, {}, 'one text under "prompt"'),
        ({"prompt": "a", "query": "b"}, {}, 'one text under "prompt"'),
        ({"messages": [{"role": "robot"}]}, {}, '"messages" must be a list'),
        ({"prompt": "a"}, {"modell": "x"}, "'modell' is unknown"),
        ({"prompt": "a"}, {"retries": -1}, "'retries' cannot be -1"),
    ],
)
def test_the_endpoint_is_not_asked_for_input_that_cannot_be_used(agent, stub, given, config, message):
    with pytest.raises(TaskFailed, match=message) as raised:
        agent(given, config=config).wait_sync(60)
    assert raised.value.exit_code == 2
    assert stub.asked == []


def test_a_conversation_that_cannot_be_read_is_kept(agent, stub, world):
    agent("one", session_id="chat").wait_sync(60)
    kept = world.spool / "sessions/chat/state/conversation.json"
    assert len(json.loads(kept.read_text())["turns"]) == 1
    kept.write_text("half a")
    with pytest.raises(TaskFailed, match="cannot be read"):
        agent("two", session_id="chat").wait_sync(60)
    assert kept.read_text() == "half a"
