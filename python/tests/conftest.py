"""Settings of the Python tests. They run programs of the C++ build: its folder is $EKTM_BUILD, or build/ of the repository."""

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "python"))


def build_folder():
    return Path(os.environ.get("EKTM_BUILD", REPOSITORY / "build")).resolve()


@pytest.fixture(scope="session")
def build():
    return build_folder()
