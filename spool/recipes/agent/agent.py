#!/usr/bin/env python3
"""agent: asks a language model, and continues the conversation of its session.

Input:    {"prompt": "..."}; a plain text (`--input 'Why?'`), {"query": "..."} or {"messages": [...]} also work.
Config:   model, system, temperature, max_tokens, history, retries; the defaults are in recipe.toml.
Reads:    OPENAI_BASE_URL (https://api.openai.com/v1), OPENAI_API_KEY (optional), OPENAI_MODEL.
Result:   the answer as text. stdout is a log: the answer while it is received.
Metrics:  model, finish_reason, usage (the token counts of the endpoint), retries.
Progress: the model, the number of received characters, and waits.
Session:  conversation.json in AGENTSPOOL_SESSION_DIR; the tasks of a session run one after another.
Exit:     2 for an input or setting that cannot be used, 1 without an answer.

It has no tools and never runs what the model says. After a 429 or 5xx it waits as long as Retry-After says and
asks again, if the task's timeout allows it. After it has received a part of an answer, it never asks again,
because that answer costs money. It needs Python 3.9 or newer and only the standard library.

Invariant: the conversation contains only turns with a complete answer, and the turn of each task once.
"""

import email.utils
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request

DEFAULT_BASE = "https://api.openai.com/v1"
CONVERSATION = "conversation.json"
# Status codes after which the same question may succeed.
PASSING = frozenset((408, 429, 500, 502, 503, 504))
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
# After this many seconds without data the connection is given up.
SILENCE = 120.0
ROLES = ("system", "user", "assistant")


class BadInput(Exception):
    """The request or a setting cannot be used. The text of the exception is the line that is printed."""


class NoAnswer(Exception):
    """The endpoint gave no answer. The text of the exception says why."""


class Passing(NoAnswer):
    """No answer this time. `pause` is the wait in seconds that the endpoint asks for, or None."""

    def __init__(self, text, pause=None):
        super().__init__(text)
        self.pause = pause


def main():
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    report = Report(os.environ.get("AGENTSPOOL_PROGRESS_FILE"))
    try:
        asked = read_input(sys.stdin.buffer.read())
        config = read_config(os.environ.get("AGENTSPOOL_CONFIG") or "{}")
        endpoint = Endpoint(os.environ, config)
        conversation = Conversation(os.environ.get("AGENTSPOOL_SESSION_DIR"), os.environ.get("AGENTSPOOL_TASK_ID"))
        system = [{"role": "system", "content": config["system"]}] if config["system"] else []
        messages = system + conversation.last(config["history"]) + asked
        answer = ask(endpoint, messages, Deadline(), config["retries"], report)
    except BadInput as bad:
        print(f"agent: {bad}", file=sys.stderr)
        return 2
    except NoAnswer as none:
        print(f"agent: {none}", file=sys.stderr)
        return 1
    conversation.add([*asked, {"role": "assistant", "content": answer}])
    write_result(answer)
    return 0


# --- the input -------------------------------------------------------------------------------------


def read_input(data):
    try:
        value = json.loads(data or b"{}")
    except ValueError:
        raise BadInput("the input is not valid JSON") from None
    if isinstance(value, str):
        value = {"prompt": value}
    if not isinstance(value, dict):
        raise BadInput('the input must be a text or an object such as {"prompt": "..."}')
    if "messages" in value:
        return read_messages(value["messages"])
    texts = [value[key] for key in ("prompt", "query", "input") if key in value]
    if len(texts) != 1 or not isinstance(texts[0], str) or not texts[0].strip():
        raise BadInput('the input must have one text under "prompt", "query" or "input"')
    return [{"role": "user", "content": texts[0]}]


def read_messages(messages):
    def is_message(one):
        return isinstance(one, dict) and one.get("role") in ROLES and isinstance(one.get("content"), str)

    if not isinstance(messages, list) or not messages or not all(map(is_message, messages)):
        raise BadInput('"messages" must be a list of {"role": "user", "content": "..."}')
    return [{"role": one["role"], "content": one["content"]} for one in messages]


def read_config(text):
    config = {"model": None, "system": "", "temperature": None, "max_tokens": None, "history": 40, "retries": 5}
    given = json.loads(text)
    unknown = sorted(set(given) - set(config))
    if unknown:
        raise BadInput(f"config: {unknown[0]!r} is unknown; the known keys are {', '.join(sorted(config))}")
    config.update(given)
    wants = {
        "model": str,
        "system": str,
        "temperature": (int, float),
        "max_tokens": int,
        "history": int,
        "retries": int,
    }
    for key, kind in wants.items():
        value = config[key]
        if value is None and key in ("model", "temperature", "max_tokens"):
            continue
        if not isinstance(value, kind) or isinstance(value, bool) or (key in ("history", "retries") and value < 0):
            raise BadInput(f"config: {key!r} cannot be {value!r}")
    return config


class Endpoint:
    """Address, headers and common fields of every question. Never printed, because it has the API key."""

    def __init__(self, environ, config):
        base = environ.get("OPENAI_BASE_URL") or DEFAULT_BASE
        if not base.startswith(("http://", "https://")):
            raise BadInput(f"OPENAI_BASE_URL is not an http address: {base!r}")
        self.url = base.rstrip("/") + "/chat/completions"
        self.model = config["model"] or environ.get("OPENAI_MODEL")
        if not self.model:
            raise BadInput('no model is named: submit with --env OPENAI_MODEL, or give config {"model": "..."}')
        self.headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if environ.get("OPENAI_API_KEY"):
            self.headers["Authorization"] = "Bearer " + environ["OPENAI_API_KEY"]
        self.body = {"model": self.model, "stream": True, "stream_options": {"include_usage": True}}
        for key in ("temperature", "max_tokens"):
            if config[key] is not None:
                self.body[key] = config[key]

    def open(self, messages, patience):
        body = json.dumps({**self.body, "messages": messages}).encode()
        request = urllib.request.Request(self.url, data=body, headers=self.headers, method="POST")
        try:
            return urllib.request.urlopen(request, timeout=patience)
        except urllib.error.HTTPError as error:
            raise refused(error) from None
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise Passing(f"{self.url} cannot be reached: {getattr(error, 'reason', error)}") from None


def refused(error):
    """The exception for an answer with a status other than 200."""
    said = error.read(4096).decode("utf-8", "replace").strip()
    try:
        said = json.loads(said)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        pass
    text = f"the endpoint answered {error.code}: {said or error.reason}"
    if error.code in PASSING:
        return Passing(text, retry_after(error.headers.get("Retry-After")))
    return NoAnswer(text)


def retry_after(value):
    """Seconds, from a number or a date; None if the value is neither."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


# --- the answer ------------------------------------------------------------------------------------


def ask(endpoint, messages, deadline, retries, report):
    """Asks until an answer is complete, as often as retries and the timeout allow."""
    asked_again, pause = 0, FIRST_PAUSE
    while True:
        report.say(f"asking {endpoint.model}")
        try:
            with endpoint.open(messages, deadline.patience()) as response:
                answer = Answer(report)
                answer.read(response)
            report.metrics(model=endpoint.model, retries=asked_again, **answer.metrics)
            return answer.text
        except Passing as passing:
            wait = pause if passing.pause is None else passing.pause
            if asked_again >= retries:
                raise NoAnswer(f"{passing} (after {asked_again} retries)") from None
            if wait >= deadline.left():
                left = f"it would take {wait:.0f} s more, and the task has {deadline.left():.0f} s left"
                raise NoAnswer(f"{passing}; {left}") from None
            report.say(f"{passing}; asking again in {wait:.0f} s")
            print(f"agent: {passing}; asking again in {wait:.0f} s", file=sys.stderr, flush=True)
            time.sleep(wait)
            asked_again, pause = asked_again + 1, min(pause * 2, LONGEST_PAUSE)


class Answer:
    """An answer: server-sent events, or one JSON object from an endpoint that does not stream."""

    def __init__(self, report):
        self.parts = []
        self.metrics = {}
        self.report = report
        self.size = 0
        self.is_done = False

    @property
    def text(self):
        return "".join(self.parts)

    def read(self, response):
        try:
            if "json" in (response.headers.get("Content-Type") or ""):
                self.take(json.loads(response.read()), "message")
                self.is_done = True
            else:
                self.read_events(response)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self.incomplete(f"the answer is incomplete: {error}") from None
        if not self.is_done:
            raise self.incomplete("the answer is incomplete")
        print(flush=True)

    def read_events(self, response):
        for line in response:
            line = line.decode("utf-8", "replace").strip()
            if not line.startswith("data:"):
                continue
            data = line[len("data:") :].strip()
            if data == "[DONE]":
                self.is_done = True
                return
            self.take(json.loads(data), "delta")

    def take(self, chunk, key):
        if chunk.get("error"):
            error = chunk["error"]
            text = error.get("message", error) if isinstance(error, dict) else error
            raise self.incomplete(f"the endpoint reported an error: {text}")
        if chunk.get("usage"):
            self.metrics["usage"] = {name: n for name, n in chunk["usage"].items() if isinstance(n, int)}
        for choice in chunk.get("choices") or []:
            self.add((choice.get(key) or {}).get("content") or "")
            if choice.get("finish_reason"):
                self.metrics["finish_reason"] = choice["finish_reason"]
                # An endpoint that sends a finish_reason need not send [DONE].
                self.is_done = True

    def add(self, text):
        if not text:
            return
        print(text, end="", flush=True)
        self.parts.append(text)
        # One message for each kilobyte is enough.
        before, self.size = self.size, self.size + len(text)
        if before == 0 or before // 1024 != self.size // 1024:
            self.report.say(f"received {self.size} characters")

    def incomplete(self, text):
        return NoAnswer(f"{text} (after {self.size} characters)") if self.parts else Passing(text)


class Deadline:
    """When the runner stops this task, by a monotonic clock."""

    def __init__(self):
        self.started = time.monotonic()
        self.seconds = None

    def left(self):
        if self.seconds is None:
            self.seconds = self.read()
        return float("inf") if self.seconds is None else max(0.0, self.started + self.seconds - time.monotonic())

    @staticmethod
    def read():
        """The task's timeout, or None. The runner writes it after the start; without a runner there is no timeout."""
        attempt = os.path.join(
            os.environ.get("AGENTSPOOL_TASK_DIR", ""), "attempts", os.environ.get("AGENTSPOOL_ATTEMPT", "")
        )
        try:
            with open(os.path.join(attempt, "run.json"), encoding="utf-8") as file:
                return float(json.load(file)["timeout_sec"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def patience(self):
        return max(0.1, min(SILENCE, self.left()))


# --- conversation, progress, result ----------------------------------------------------------------


class Conversation:
    """The turns of a session, oldest first."""

    def __init__(self, folder, task):
        self.path = os.path.join(folder, CONVERSATION) if folder else None
        self.task = task
        self.turns = []
        if self.path and os.path.exists(self.path):
            try:
                with open(self.path, encoding="utf-8") as file:
                    self.turns = json.load(file)["turns"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                # A new conversation would overwrite one that somebody may still fix.
                raise BadInput(f"the conversation {self.path} cannot be read: {error}") from None
        # Without the turn of an earlier attempt of this task.
        self.turns = [turn for turn in self.turns if turn["task_id"] != task]

    def last(self, count):
        messages = [message for turn in self.turns for message in turn["messages"]]
        return messages[-count:] if count else []

    def add(self, messages):
        if not self.path:
            return
        turns = [*self.turns, {"task_id": self.task, "messages": messages}]
        part = self.path + ".part"
        with open(part, "w", encoding="utf-8") as file:
            json.dump({"v": 1, "turns": turns}, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.path)


class Report:
    """The task's progress file. It gets no percentage, because the length of an answer is unknown."""

    def __init__(self, path):
        self.path = path

    def say(self, message):
        self.write({"message": message})

    def metrics(self, **metrics):
        self.write({"metrics": metrics})

    def write(self, line):
        if self.path:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def write_result(answer):
    path = os.environ.get("AGENTSPOOL_RESULT_FILE")
    if path:
        with open(path, "w", encoding="utf-8") as file:
            # As a JSON string, so that an answer that is JSON stays a text.
            json.dump(answer, file, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
