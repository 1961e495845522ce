"""The commands of the README run as they stand, in a folder of their own."""
import os
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("EKTM_BUILD", ROOT / "build"))


def bash_blocks(text):
    return [block for block in re.findall(r"^ *```bash\n(.*?)^ *```", text, flags=re.S | re.M) if "cmake" not in block]


def test_the_commands_run(tmp_path):
    blocks = bash_blocks((ROOT / "README.md").read_text())
    assert sum(block.count("ektm ") for block in blocks) >= 7
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "build").symlink_to(BUILD.resolve())
    script = "set -euo pipefail\n" + "\n".join(blocks)
    # The README's data is quickstart's size; fewer rows of the same logs say as much here.
    script = script.replace("--quick", "--quick --rows 60000")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "report.html").exists()
    assert (tmp_path / "scores.parquet").exists()
    assert (tmp_path / "runs" / "bench" / "report.html").exists()
