"""Each benchmark runs in its short form and ends with one line of JSON whose figures are finite. Speed itself is no test's business."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import build_folder

ROOT = Path(__file__).resolve().parents[2]


def programs():
    return {
        "ingest": ["bench_ingest", "--short"],
        "roofline": ["bench_roofline", "--short"],
        "roofline_bf16": ["bench_roofline", "--short", "--precision", "bf16"],
        "memory": ["bench_memory", "--short"],
        "scaling": ["bench_scaling", "--short"],
        "scaling_ektm": ["bench_scaling", "--short", "--model", "ektm"],
        "embedding": ["bench_embedding", "--rows", "10000", "--batch", "256", "--steps", "5"],
    }


def numbers(value):
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def check(command):
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert result.returncode == 0, result.stderr[-2000:]
    figures = list(numbers(json.loads(result.stdout.strip().splitlines()[-1])))
    assert len(figures) > 3
    assert all(math.isfinite(figure) and figure >= 0 for figure in figures)


@pytest.mark.parametrize("name", programs())
def test_short_form(name):
    program, *arguments = programs()[name]
    check([str(build_folder() / "bin" / program), *arguments])


def test_compare_training_short_form():
    check([sys.executable, str(ROOT / "bench" / "compare_training.py"), "--short"])
