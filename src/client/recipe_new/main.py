#!/usr/bin/env python3
"""What this recipe does.

It runs in an empty folder of its own. The files next to this one are in os.environ["AGENTSPOOL_RECIPE_DIR"].
"""

import json
import os
import sys


def progress(percent, message):
    """Adds a line of progress. `agentspool status` shows the last one."""
    with open(os.environ["AGENTSPOOL_PROGRESS_FILE"], "a", encoding="utf-8") as file:
        file.write(f"{percent} {message}\n")


# Input: JSON on stdin, as it was given with --input; {} if nothing was given.
given = json.load(sys.stdin)
# Settings: [config] of recipe.toml, overridden by the values given with --config.
config = json.loads(os.environ["AGENTSPOOL_CONFIG"])

progress(10, "reading the input")
name = given.get("name", "world") if isinstance(given, dict) else "world"

# Log: text printed to stderr. `agentspool logs` shows it.
print(f"the name is {name}", file=sys.stderr)

progress(90, "writing the result")

# Result: the text written to this file, or else the text printed to stdout. `agentspool result` shows it.
# Exit code: 0 means completed. Any other code, also after an exception, means failed.
with open(os.environ["AGENTSPOOL_RESULT_FILE"], "w", encoding="utf-8") as file:
    json.dump({"greeting": f"{config['greeting']}, {name}!"}, file)
