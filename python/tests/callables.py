"""Functions and classes that are pickled by reference to this module. No tests."""

from __future__ import annotations

import os


class Refusal(Exception):
    """Cannot be unpickled, because its `args` are not the arguments of its constructor."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{code}: {why}")
        self.code = code


class Note:
    def __init__(self, text: str) -> None:
        self.text = text


def where(name: str = "nobody") -> tuple[str, int]:
    return name, os.getpid()


def refuse() -> None:
    raise Refusal(7, "not today")
