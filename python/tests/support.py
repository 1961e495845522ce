"""Runs the `ektm` program, and reads what it writes."""

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy
import pyarrow
import yaml
from conftest import REPOSITORY, build_folder

SIMULATED_CONFIGS = REPOSITORY / "configs" / "simulated"
SPLITS = ("train", "valid", "test")


def program():
    path = build_folder() / "bin" / "ektm"
    assert path.exists(), f"{path} is missing: build the program first, or name its build folder in $EKTM_BUILD"
    return path


def environment():
    # One thread where --threads is not given; threads that wait do so asleep, since spinning ones starve each other on shared cores.
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


@dataclass
class Finished:
    code: int
    out: str
    err: str


def run(*arguments, cwd=None, preexec_fn=None):
    """Runs `ektm` to its end, whatever the end is."""
    done = subprocess.run(
        [program(), *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        preexec_fn=preexec_fn,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=300,
    )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def succeed(*arguments, cwd=None):
    """Runs `ektm`, which must succeed, and returns its standard output."""
    done = run(*arguments, cwd=cwd)
    assert done.code == 0, done.err
    return done.out


def start(*arguments, cwd=None):
    return subprocess.Popen(
        [program(), *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def prepare(schema, output, **files):
    """files: train=, valid=, test=, each a path or a list of them."""
    options = []
    for split, paths in files.items():
        for path in paths if isinstance(paths, list) else [paths]:
            options += [f"--{split}", path]
    succeed("prepare", "--schema", schema, *options, "--output", output, "--quiet")
    return Path(output)


def write_config(path, data, **sections):
    """A run's config: small, with a validation every few steps."""
    config = {
        "data": str(data),
        "threads": 1,
        "model": {
            "name": "ektm",
            "transmitter_dropout": 0.2,
            "backbone": {"name": "mmoe", "experts": 2, "expert_hidden": [16], "tower_hidden": [8], "dropout": 0.1},
        },
        "embedding": {"dim": 4, "learning_rate": 0.005},
        "optimizer": {"learning_rate": 0.005},
        "train": {"batch_rows": 256, "epochs": 2, "validate_every_steps": 30, "early_stopping": {"min_positives": 5}},
    }
    for name, section in sections.items():
        if isinstance(section, dict) and name != "model":
            config[name] = {**config.get(name, {}), **section}
        else:
            config[name] = section
    path.write_text(yaml.safe_dump(config))
    return path


def read_split(folder, split):
    """The rows of an encoded split in order: {column: array [rows, width] or [rows], or a list of arrays for a bag}."""
    tables = []
    for part in sorted((Path(folder) / split).glob("*.arrow")):
        with pyarrow.memory_map(str(part)) as source:
            tables.append(pyarrow.ipc.open_file(source).read_all())
    table = pyarrow.concat_tables(tables).combine_chunks()
    columns = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        if pyarrow.types.is_fixed_size_list(column.type):
            columns[name] = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
        elif pyarrow.types.is_list(column.type):
            offsets = column.offsets.to_numpy()
            columns[name] = numpy.split(column.values.to_numpy(), offsets[1:-1])
        else:
            columns[name] = column.to_numpy()
    return columns


def read_manifest(folder):
    return json.loads((Path(folder) / "manifest.json").read_text())["content"]


def read_history(run_folder):
    return [json.loads(line) for line in (Path(run_folder) / "history.jsonl").read_text().splitlines()]


def without_times(history):
    return [{key: value for key, value in line.items() if key not in ("seconds", "samples_per_s")} for line in history]


def read_tensors(path):
    """(metadata, {name: (type, shape, bytes)}) of a safetensors file, read by hand so that not one bit is changed."""
    content = Path(path).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    data = memoryview(content)[8 + length :]
    return metadata, {
        name: (entry["dtype"], entry["shape"], bytes(data[slice(*entry["data_offsets"])])) for name, entry in header.items()
    }


def partial_names(folder):
    return [str(path) for path in Path(folder).rglob("*") if re.search(r"\.(partial|replaced)-\d+", path.name)]


def state_of(run_folder):
    """The tensors and the state of the last checkpoint, less its clock."""
    metadata, tensors = read_tensors(run_folder / "checkpoint.safetensors")
    state = json.loads(metadata.pop("state"))
    del metadata["ektm.checksum"]  # covers the clock too
    del state["seconds"], state["validation_seconds"]
    return metadata, state, tensors


def steps_in_checkpoint(run_folder):
    try:
        return state_of(run_folder)[1]["step"]
    except FileNotFoundError:
        return 0


def stop_at(process, run_folder, step, how):
    """Sends the signal when a checkpoint of at least `step` steps stands on the disk."""
    while steps_in_checkpoint(run_folder) < step:
        assert process.poll() is None, f"the run ended before it could be stopped: {process.communicate()}"
        time.sleep(0.002)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()
