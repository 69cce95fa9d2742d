"""`python -m agentspool`: the command line. The process becomes the program, with its exit codes and signals."""

from __future__ import annotations

import os
import sys

from ._program import find
from .errors import AgentspoolError


def main() -> int:
    """Becomes the program; returns only if there is no program."""
    try:
        program = find()
        os.execv(program, ["agentspool", *sys.argv[1:]])
    except (AgentspoolError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 6


if __name__ == "__main__":
    sys.exit(main())
