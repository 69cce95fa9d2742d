"""The examples of docs/python.md, run block by block in one running loop, as a notebook would run them."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re

from conftest import REPOSITORY

SAID = [
    ("recipe.run_background", "Result: {'input': {'query': 'What is AI?'}, 'config': {'max_tokens': 1000}}"),
    ("input=[1, 2]", "{'input': [1, 2], 'config': {}}"),
    ("recipe.run(", "True {'input': {'query': 'owls'}, 'config': {}} 0."),
    ("open_task", "{'input': [1, 2], 'config': {}}"),
    ('recipe.run("bytes")', "<class 'bytes'> 3"),
    ("max_concurrent_tasks=3", "Task example done"),
    ("def divide", "ZeroDivisionError: division by zero"),
    ("def count", "3 3"),
]


def test_the_examples_do_what_they_say(world, capsys):
    world.recipe("my-recipe", '#!/bin/sh\nprintf \'{"input": %s, "config": %s}\' "$(cat)" "$AGENTSPOOL_CONFIG"\n')
    world.recipe("bytes", "#!/bin/sh\nprintf 'a\\377b'\n")
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (REPOSITORY / "docs/python.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == len(SAID)
    names: dict = {"__name__": "__main__"}

    async def run(block: str) -> None:
        code = compile(block, "docs/python.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        ended = eval(code, names)
        if inspect.isawaitable(ended):
            await ended

    async def notebook() -> None:
        for block, (mark, said) in zip(blocks, SAID):
            assert mark in block
            await run(block)
            printed = capsys.readouterr().out
            assert said in printed, (block, printed)

    asyncio.run(notebook())
