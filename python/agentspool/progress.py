"""Progress from inside a task, for functions and for recipes written in Python.

Outside a task it does nothing, so that the function can also be called directly.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

_FILE = "AGENTSPOOL_PROGRESS_FILE"


def progress(share: float | None = None, message: str | None = None, metrics: Mapping[str, Any] | None = None) -> None:
    """Reports the progress of this task.

    `share` is from 0 to 1, `message` says what is being done, and `metrics` are numbers for the result's `metrics`.
    """
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"progress must be from 0 to 1, not {share!r}")
    path = os.environ.get(_FILE)
    if not path:
        return
    line: dict[str, Any] = {
        "progress": share,
        "message": message,
        "metrics": None if metrics is None else dict(metrics),
    }
    text = json.dumps({key: value for key, value in line.items() if value is not None})
    with open(path, "a", encoding="utf-8") as file:
        file.write(text + "\n")
