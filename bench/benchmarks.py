"""What the comparisons share: the Python environment of the other libraries, processes with their peak memory, tables."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BENCH = REPOSITORY / "bench"
VENV = REPOSITORY / ".venv-bench"
MAIN_PYTHON = REPOSITORY / ".venv" / "bin" / "python"


def say(text):
    print(text, file=sys.stderr, flush=True)


def bench_python(create):
    """The interpreter that has the other libraries; None where it is absent and must not be made."""
    python, pins, installed = VENV / "bin" / "python", BENCH / "requirements.txt", VENV / "installed.txt"
    if installed.exists() and installed.read_text() == pins.read_text():
        return python
    if not create:
        return None
    # MAIN_PYTHON first: torch has been had for that version of Python.
    base = os.environ.get("PYTHON") or (MAIN_PYTHON if MAIN_PYTHON.exists() else shutil.which("python3"))
    say(f"installing bench/requirements.txt into {VENV.name} (once)")
    if not python.exists():
        subprocess.run([base, "-m", "venv", VENV], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", pins], check=True)
    installed.write_text(pins.read_text())
    return python


def program(name):
    build = Path(os.environ.get("EKTM_BUILD", REPOSITORY / "build"))
    path = build / "bin" / name
    if not path.exists():
        sys.exit(f"{path} is missing: build it (ninja -C build {name}), or name the build folder in $EKTM_BUILD")
    return path


def environment(threads, **more):
    # Threads that wait do so asleep, for everyone: spinning ones starve each other on shared cores.
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "PYTHONDONTWRITEBYTECODE": "1", **more}


def run(command, env):
    """Runs a command, which must succeed. Returns its standard output and its peak memory in MiB. The calling process has to stay
    small: Linux counts a parent's memory at the time of the start into the child's peak."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(list(map(str, command)), env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode != 0:
            sys.exit(f"failed: {shlex.join(map(str, command))}\n{err.read()[-4000:]}")
        return out.read(), usage.ru_maxrss / 1024


def table(header, rows):
    """Aligned columns, the first two to the left."""
    rows = [header] + [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))).rstrip()
                     for row in rows)


def machine():
    """CPU and its vector extensions, as a line."""
    info = Path("/proc/cpuinfo").read_text()
    field = lambda name: next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith(name)), "unknown")
    flags = field("flags").split()
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{field('model name')}, {len(os.sched_getaffinity(0))} cores, {' '.join(known)}, load {os.getloadavg()[0]:.1f}"
