#!/usr/bin/env python3
"""Checks what the compiler does not: the layering of includes, and that no tracked file names a path of one machine.

Layers (docs/architecture.md): a file includes its own folder and lower layers, never another folder of its own layer.
torch begins at layer 3, without sim/ and report/. Exit status 1 when something is wrong; each problem is a line "file:line: ...".
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAYERS = {
    "base": 0,
    "config": 1, "comm": 1,
    "data": 2, "metrics": 2,
    "sim": 3, "report": 3, "nn": 3,
    "models": 4, "checkpoint": 4,
    "train": 5, "serve": 5,
    "experiment": 6,
    "apps": 7,
}
TORCH_FREE = {folder for folder, layer in LAYERS.items() if layer < 3} | {"sim", "report"}
INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([^">]+)[">]')
TORCH = re.compile(r"(torch|ATen|c10|caffe2)/")
# Folders of a developer's machine, as the start of a path.
MACHINE_PATH = re.compile(r"(?<![\w.~}\-])/(?:work|root|home/\w+)/")
SOURCE_SUFFIXES = {".h", ".cpp", ".def"}


def layer_problems(folder, path, text):
    layer = LAYERS[folder]
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        included = match.group(1)
        if TORCH.match(included) and folder in TORCH_FREE:
            yield f"{path}:{number}: {folder}/ is free of torch, but includes {included}"
        if included.startswith(".."):
            yield f"{path}:{number}: include {included} from the source root, not by '..'"
        other = included.split("/")[0] if "/" in included else folder
        if other == folder or other not in LAYERS:
            continue
        if LAYERS[other] == layer:
            yield f"{path}:{number}: {folder}/ and {other}/ are both in layer {layer}, but it includes {included}"
        elif LAYERS[other] > layer:
            yield f"{path}:{number}: {folder}/ (layer {layer}) includes {included} of the higher layer {LAYERS[other]}"


def folder_of(path):
    """The layered folder that a file belongs to, or None (tests, bench, public headers may include everything)."""
    parts = pathlib.PurePosixPath(path).parts
    if parts[0] == "src" and len(parts) > 2:
        return parts[1]
    return "apps" if parts[0] == "apps" else None


def problems(files):
    for path in files:
        content = (ROOT / path).read_bytes()
        if b"\0" in content[:8192]:
            continue
        text = content.decode("utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line):
                yield f"{path}:{number}: a path of one machine: {line.strip()[:100]}"
        if pathlib.PurePosixPath(path).suffix not in SOURCE_SUFFIXES:
            continue
        folder = folder_of(path)
        if folder is None:
            continue
        if folder not in LAYERS:
            yield f"{path}:1: the folder src/{folder}/ has no layer; add it to {pathlib.Path(__file__).name}"
            continue
        yield from layer_problems(folder, path, text)


def tracked_files():
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(git, check=True, capture_output=True, text=True).stdout
    return [path for path in listed.split("\0") if path and (ROOT / path).is_file()]


def main():
    files = tracked_files()
    found = list(problems(files))
    for problem in found:
        print(problem)
    print(f"check_layers: {len(files)} files, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
