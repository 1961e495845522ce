"""Settings of the Python tests. They run programs of the C++ build: its folder is $EKTM_BUILD, or build/ of the repository."""

import os
import sys
from collections import namedtuple
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "python"))

Simulated = namedtuple("Simulated", "raw data")  # folders: the logs, and their encoded data set


def build_folder():
    return Path(os.environ.get("EKTM_BUILD", REPOSITORY / "build")).resolve()


@pytest.fixture(scope="session")
def build():
    return build_folder()


def simulate(folder, *options):
    import support

    support.succeed("simulate", "logs", "--output", folder / "raw", "--quick", "--rows", "20000", "--quiet", *options)
    files = {split: folder / "raw" / f"{split}.parquet" for split in support.SPLITS}
    return Simulated(folder / "raw", support.prepare(folder / "raw" / "schema.yaml", folder / "data", **files))


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """Parallel pattern: click -> register | download | pay | share. Tests must not write into it."""
    return simulate(tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="session")
def trained(simulated, tmp_path_factory):
    """The folder of a finished run over `simulated`. Tests must not write into it."""
    import support

    folder = tmp_path_factory.mktemp("trained")
    config = support.write_config(folder / "config.yaml", simulated.data)
    support.succeed("train", config, "--output", folder / "run", "--quiet")
    return folder / "run"
