"""The installed package: its program, `python -m agentspool`, and the content of the wheel.

`.ci/python` builds and installs the wheel. If AGENTSPOOL_PROGRAM names another program, that program is tested.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile

import agentspool
import pytest
from agentspool import _program
from conftest import REPOSITORY


def test_python_m_is_the_command_line(world):
    def module(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-m", "agentspool", *arguments], capture_output=True, text=True)

    own = subprocess.run([_program.find(), "--version"], capture_output=True, text=True)
    assert module("--version").stdout == own.stdout
    missing = module("status", "nosuch")
    assert (missing.returncode, missing.stdout) == (7, "")
    assert missing.stderr.startswith('error: no task is called "nosuch"')


def test_a_missing_program_is_code_6(world):
    environment = {**os.environ, "AGENTSPOOL_PROGRAM": "/no/such/program"}
    done = subprocess.run([sys.executable, "-m", "agentspool"], env=environment, capture_output=True, text=True)
    assert done.returncode == 6 and "/no/such/program" in done.stderr


def test_the_wheel_has_program_modules_and_types():
    wheel = os.environ.get("AGENTSPOOL_WHEEL")
    if wheel is None:
        pytest.fail("AGENTSPOOL_WHEEL must name the wheel (`just python` builds one)")
    names = zipfile.ZipFile(wheel).namelist()
    version = re.search(r'^version = "(.+)"', (REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE).group(1)
    assert f"agentspool-{version}.data/scripts/agentspool" in names
    modules = {f"agentspool/{path.name}" for path in (REPOSITORY / "python/agentspool").iterdir() if path.is_file()}
    assert modules <= set(names) and "agentspool/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "agentspool/__pycache__"))]


def test_every_public_name_has_a_docstring():
    for name in agentspool.__all__:
        assert getattr(agentspool, name).__doc__, name
