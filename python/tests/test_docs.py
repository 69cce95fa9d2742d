"""Runs the examples of docs/python.md, block by block in one event loop, as in a notebook."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re

from conftest import REPOSITORY

PRINTED = [
    ("recipe.run_background", "Result: {'input': {'query': 'What is AI?'}, 'config': {'max_tokens': 1000}}"),
    ("input=[1, 2]", "{'input': [1, 2], 'config': {}}"),
    ("recipe.run(", "True {'input': {'query': 'owls'}, 'config': {}} 0."),
    ("open_task", "{'input': [1, 2], 'config': {}}"),
    ('recipe.run("bytes")', "<class 'bytes'> 3"),
    ("max_concurrent_tasks=3", "Task example done"),
    ("def divide", "ZeroDivisionError: division by zero"),
    ("def count", "3 3"),
]


def test_the_examples_print_what_is_expected(world, capsys):
    world.recipe("my-recipe", '#!/bin/sh\nprintf \'{"input": %s, "config": %s}\' "$(cat)" "$AGENTSPOOL_CONFIG"\n')
    world.recipe("bytes", "#!/bin/sh\nprintf 'a\\377b'\n")
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (REPOSITORY / "docs/python.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == len(PRINTED)
    names: dict = {"__name__": "__main__"}

    async def run(block: str) -> None:
        code = compile(block, "docs/python.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        ended = eval(code, names)
        if inspect.isawaitable(ended):
            await ended

    async def notebook() -> None:
        for block, (part, expected) in zip(blocks, PRINTED):
            assert part in block
            await run(block)
            printed = capsys.readouterr().out
            assert expected in printed, (block, printed)

    asyncio.run(notebook())
