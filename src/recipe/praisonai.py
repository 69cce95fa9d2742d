"""Runs one PraisonAI recipe folder as a task: the program that `agentspool` starts for it.

Not a library and not installed anywhere: the binary carries this text and gives it to the Python in which
PraisonAI is installed (`python -c`). Not a second PraisonAI either: it calls `praisonai.recipe.run` with the
task's input, config and session, turns the events of the run into lines of the task's progress file, and
writes what came out as the task's result. What PraisonAI prints is the task's log.

Exit: PraisonAI's own code for how the run ended (0, 3 failed, 4 refused, 5 timed out, 6 something is missing).
Invariant: it ends with 0 only if neither the result nor the run's own events say that it failed. A model that
cannot be reached makes PraisonAI return `success` with no answer in it; here that is a failure. The result file is
written last and whole, and agentspool asks for one (`needs_result`): a run that ends its process early has failed.
"""

import contextlib
import json
import os
import sys

FAILED = 3
MISSING = 6
# Readers of JSON accept 128 levels. Deeper values are written as text.
DEEPEST = 100


def main():
    try:
        from praisonai import recipe
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "praisonai":
            raise
        return fail(MISSING, f"PraisonAI is not installed for this Python: {sys.executable} -m pip install praisonai")
    progress = Progress(os.environ.get("AGENTSPOOL_PROGRESS_FILE"))
    result_file = os.environ["AGENTSPOOL_RESULT_FILE"]
    try:
        with events_to(progress):
            result = recipe.run(
                os.environ["AGENTSPOOL_RECIPE_DIR"],
                input=read_input(),
                config=json.loads(os.environ.get("AGENTSPOOL_CONFIG") or "{}"),
                session_id=os.environ.get("AGENTSPOOL_SESSION_ID"),
            )
    except SystemExit as left:
        # As in any program, but a run that gave no answer is no success.
        if left.code not in (None, 0):
            raise
        return fail(FAILED, "the recipe ended its process by sys.exit and gave no answer")
    if not result.ok:
        return fail(result.to_exit_code() or FAILED, result.error or f"the recipe ended as {result.status}")
    write_whole(result_file, as_json(result.output))
    if progress.has_failed or (result.output is None and progress.last_error):
        return fail(FAILED, progress.last_error or "PraisonAI says that the run failed")
    return 0


def read_input():
    """PraisonAI takes an object, whose keys its templates use, or one text."""
    value = json.loads(sys.stdin.read() or "{}")
    return value if isinstance(value, (dict, str)) else {"input": value}


def as_json(output):
    """The output as JSON. What is no JSON in it is some object of PraisonAI's: its text is all there is to say."""
    try:
        text = json.dumps(output, ensure_ascii=False, default=words_for)
    except Exception:
        # A key that is no text, or an object that holds itself.
        text = json.dumps(plain(output), ensure_ascii=False)
    # Half characters cannot be written: two that belong together become one, and U+FFFD stands for any other.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain(value, depth=0):
    if value is None or isinstance(value, (bool, float, str)):
        return value
    if depth < DEEPEST and isinstance(value, dict):
        return {key if isinstance(key, str) else words_for(key): plain(one, depth + 1) for key, one in value.items()}
    if depth < DEEPEST and isinstance(value, (list, tuple)):
        return [plain(one, depth + 1) for one in value]
    try:
        json.dumps(value)
        return value
    except Exception:
        return words_for(value)


def words_for(value):
    try:
        return str(value)
    except (Exception, SystemExit):
        return f"<{type(value).__name__}>"


def write_whole(path, text):
    """Half an output is none."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(path + ".new", path)


def fail(code, message):
    print(f"praisonai: {message}", file=sys.stderr)
    return code


@contextlib.contextmanager
def events_to(sink):
    """Lets a sink have the events of all that PraisonAI runs in here."""
    try:
        from praisonaiagents.trace.context_events import ContextTraceEmitter, trace_context
    except ImportError:
        # A version without events still runs; it only shows no progress.
        yield
        return
    session = os.environ.get("AGENTSPOOL_SESSION_ID") or ""
    with trace_context(ContextTraceEmitter(sink=sink, session_id=session, enabled=True)):
        yield


class Progress:
    """A sink for PraisonAI's events: steps done of steps there are, who is at work, tokens and cost."""

    def __init__(self, path):
        self.path = path
        self.steps = 0
        self.done = 0
        self.depth = 0
        self.has_failed = False
        self.last_error = None
        self.usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        self.cost = 0.0

    # The three methods of a sink. PraisonAI serializes the calls and drops what they raise.

    def emit(self, event):
        kind = getattr(event.event_type, "value", str(event.event_type))
        heard = getattr(self, "on_" + kind, None)
        if heard is not None:
            heard(event, event.data or {})

    def flush(self):
        pass

    def close(self):
        pass

    def on_workflow_start(self, event, data):
        self.depth += 1
        if self.depth == 1:
            nodes = (data.get("graph") or {}).get("nodes") or []
            self.steps = sum(1 for node in nodes if node.get("kind") in ("task", "step"))
            self.say(message=f"{data.get('kind') or 'run'} of {self.steps} steps")

    def on_workflow_end(self, event, data):
        self.depth -= 1
        if self.depth == 0:
            self.has_failed = data.get("status") == "failed"

    def on_task_start(self, event, data):
        self.say(message=named("step", data.get("name"), event.agent_name))

    def on_task_end(self, event, data):
        # What runs inside a step, as another flow, has steps of its own that are not counted.
        if self.depth > 1 or not self.steps:
            return
        self.done += 1
        self.say(min(self.done / self.steps, 1.0), named("done", data.get("name"), event.agent_name))

    on_step_start = on_task_start
    on_step_end = on_task_end

    def on_tool_call_start(self, event, data):
        self.say(message=named("tool", data.get("tool_name"), event.agent_name))

    def on_llm_request(self, event, data):
        self.say(message=named("asking", data.get("model"), event.agent_name))

    def on_llm_response(self, event, data):
        if data.get("finish_reason") == "error":
            self.last_error = str(data.get("response_content") or "the model gave an error")
        self.usage["prompt_tokens"] += event.prompt_tokens
        self.usage["completion_tokens"] += event.completion_tokens
        self.usage["total_tokens"] += event.prompt_tokens + event.completion_tokens
        self.cost += event.cost_usd
        self.say(metrics={"usage": self.usage, "cost_usd": round(self.cost, 6)})

    def say(self, progress=None, message=None, metrics=None):
        if not self.path:
            return
        line = {"progress": progress, "message": message, "metrics": metrics}
        line = {key: value for key, value in line.items() if value is not None}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def named(what, name, agent):
    text = f"{what} {name}" if name else what
    return f"{text} ({agent})" if agent and agent != name else text


if __name__ == "__main__":
    sys.exit(main())
