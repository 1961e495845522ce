#!/usr/bin/env python3
"""Checks README.md, CHANGELOG.md and docs/ against the program and the tree.

  scripts/check_docs.py           exit status 1 when something is wrong; each problem is a line "file:line: ..."
  scripts/check_docs.py --write   also writes the generated pages anew

What is checked:
  pages      docs/config.md, docs/schema.md and docs/plan.md are what the program prints (they are generated)
  links      every relative link names a file of the tree, and every #anchor a heading of it
  commands   every `ektm ...` line in a block or between backticks names subcommands and options that exist; in a block also the
             options that are required; every script that a block calls is in the tree
  YAML       blocks marked "yaml schema", "yaml config" or "yaml plan", and every file in configs/, are read by the program without an error

The program is $EKTM_BUILD/bin/ektm, or build/bin/ektm of the repository.
"""
import argparse
import difflib
import functools
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
EKTM = pathlib.Path(os.environ.get("EKTM_BUILD", ROOT / "build")).resolve() / "bin" / "ektm"
GENERATED = {
    "docs/config.md": ["models", "--markdown"],
    "docs/schema.md": ["models", "--schema", "--markdown"],
    "docs/plan.md": ["models", "--plan", "--markdown"],
}
NO_SHELL = {"yaml", "json", "cpp", "python", "math", "text"}  # languages of blocks that hold no command lines
FENCE = re.compile(r"^\s*(```+)\s*(.*)$")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`]+)`")
PLACEHOLDER = re.compile(r"^[A-Z_.]+$|^\[")


def run(*arguments):
    return subprocess.run([str(EKTM), *map(str, arguments)], capture_output=True, text=True)


class Page:
    """A Markdown file: `blocks` as (line number, info string, text), and `prose` as (line number, text) outside of them."""

    def __init__(self, path):
        self.path = path
        self.blocks, self.prose = [], []
        block = None
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
            fence = FENCE.match(line)
            if fence and block is None:
                block = (number + 1, fence.group(2).strip(), [])
            elif fence:
                self.blocks.append((block[0], block[1], "\n".join(block[2])))
                block = None
            elif block is not None:
                block[2].append(line)
            else:
                self.prose.append((number, line))

    def anchors(self):
        """As GitHub makes them of headings."""
        found = set()
        for _, line in self.prose:
            if line.startswith("#"):
                text = line.lstrip("#").strip().lower()
                found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
        return found


@functools.cache
def read_page(path):
    return Page(path)


@functools.cache
def help_of(words):
    """Subcommands, options and required options of `ektm <words> --help`; an option is the set of its names."""
    text = run(*words, "--help").stdout
    section, subcommands, options, required = "", set(), set(), []
    for line in text.splitlines():
        if line and not line.startswith(" "):
            section = line.rstrip(":")
        match = re.match(r"  (\S+)(.*)", line)
        if not match:
            continue
        if section == "Subcommands":
            subcommands.add(match.group(1))
        elif section == "Options" and match.group(1).startswith("-"):
            names = frozenset(match.group(1).split(","))
            options |= names
            if " REQUIRED" in match.group(2):
                required.append(names)
    return subcommands, options, required


def command_problems(words, whole):
    """`words`: a command line after the word ektm. `whole`: required options must be there."""
    path = ()
    rest = list(words)
    while help_of(path)[0]:
        if not rest or PLACEHOLDER.match(rest[0]):
            break
        if rest[0].startswith("-"):
            break
        if rest[0] not in help_of(path)[0]:
            yield f"'{' '.join(('ektm', *path))}' has no subcommand '{rest[0]}'"
            return
        path += (rest.pop(0),)
    _, options, required = help_of(path)
    given = {word.split("=")[0] for word in rest if re.match(r"--?[a-zA-Z]", word)}
    for option in sorted(given - options):
        yield f"'{' '.join(('ektm', *path))}' has no option '{option}'"
    if whole and not given & {"-h", "--help", "--version"}:
        for names in required:
            if not names & given:
                yield f"'{' '.join(('ektm', *path))}' needs {max(names, key=len)}"


def simple_commands(line):
    """The commands of a shell line, each as a list of words, split at ; && || | and the like."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    command = []
    for word in lexer:
        if set(word) <= set(";&|()"):
            yield command
            command = []
        elif word not in ("do", "then", "else", "done", "fi", "$"):
            command.append(word)
    yield command


def block_lines(start, text):
    """Lines with their numbers; those that end in a backslash are joined."""
    number, joined = start, ""
    for offset, line in enumerate(text.splitlines()):
        if not joined:
            number = start + offset
        joined += line
        if joined.endswith("\\"):
            joined = joined[:-1] + " "
            continue
        yield number, joined
        joined = ""


def check_commands(page):
    for start, info, text in page.blocks:
        if info.split(" ")[0] in NO_SHELL:
            continue
        for number, line in block_lines(start, text):
            try:
                commands = list(simple_commands(line))
            except ValueError as error:
                yield f"{page.path}:{number}: not a shell line: {error}"
                continue
            for command in commands:
                while command and re.match(r"^\w+=", command[0]):  # variables before a command
                    command = command[1:]
                if not command:
                    continue
                if command[0] == "ektm" or command[0].endswith("/ektm"):
                    for problem in command_problems(command[1:], whole=True):
                        yield f"{page.path}:{number}: {problem}"
                    continue
                interpreted = command[0] in ("bash", "sh", "python3", ".venv/bin/python") and len(command) > 1
                script = command[1] if interpreted else command[0]
                if script.endswith((".sh", ".py")) and not (ROOT / script).is_file():
                    yield f"{page.path}:{number}: no file {script}"
    for number, line in page.prose:
        for code in CODE.findall(line):
            if not code.startswith("ektm "):
                continue
            for problem in command_problems(shlex.split(code)[1:], whole=False):
                yield f"{page.path}:{number}: {problem}"


def check_links(page):
    for number, line in page.prose:
        for target in LINK.findall(CODE.sub("", line)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (ROOT / page.path).parent / name if name else ROOT / page.path
            if not file.exists():
                yield f"{page.path}:{number}: the link {target} names no file"
            elif anchor and file.suffix == ".md":
                linked = read_page(os.path.relpath(file, ROOT))
                if anchor not in linked.anchors():
                    yield f"{page.path}:{number}: the link {target} names no heading of {linked.path}"


def yaml_problem(kind, text):
    """The program's complaint about a schema, a config or a plan, or None. It reads them before it looks for data; there is none."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / f"{kind}.yaml"
        file.write_text(text)
        if kind == "plan":
            # From the root, where the configs lie that a plan names. Its data sets may be absent.
            result = subprocess.run([str(EKTM), "bench", str(file), "--check"], capture_output=True, text=True, cwd=ROOT)
            complaints = [line for line in result.stderr.splitlines() if line and not re.search(r"datasets\[\d+\](\.data: |: the raw file )|: \d+ problems:$", line)]
            return "\n".join(complaints) or None
        if kind == "schema":
            result = run("prepare", "--schema", file, "--train", f"{folder}/absent.csv", "--test", f"{folder}/absent-test.csv",
                         "--output", f"{folder}/out")
        else:
            result = run("train", file, "--set", f"data={folder}/absent", "--output", f"{folder}/out")
        complaint = result.stderr.strip()
        # Anything but the data being absent is a complaint about the text.
        return None if f"{folder}/absent" in complaint else complaint.replace(f"{folder}/", "")


def check_yaml(page):
    for start, info, text in page.blocks:
        language, _, kind = info.partition(" ")
        if language == "yaml" and kind in ("schema", "config", "plan"):
            problem = yaml_problem(kind, text)
            if problem:
                yield f"{page.path}:{start}: {problem}"


def check_configs():
    for file in sorted((ROOT / "configs").rglob("*.yaml")):
        kind = next((kind for start, kind in (("schema", "schema"), ("plan", "plan"), ("bench", "plan")) if file.name.startswith(start)), "config")
        problem = yaml_problem(kind, file.read_text())
        if problem:
            yield f"{file.relative_to(ROOT)}:1: {problem}"


def check_generated(write):
    for path, arguments in GENERATED.items():
        result = run(*arguments)
        if result.returncode != 0:
            yield f"{path}:1: 'ektm {' '.join(arguments)}' failed: {result.stderr.strip()}"
            continue
        file = ROOT / path
        old = file.read_text() if file.exists() else ""
        if old == result.stdout:
            continue
        if write:
            file.write_text(result.stdout)
            print(f"wrote {path}")
            continue
        source = "ektm " + " ".join(arguments)
        difference = difflib.unified_diff(old.splitlines(), result.stdout.splitlines(), path, source, lineterm="")
        yield f"{path}:1: stale; run scripts/check_docs.py --write\n" + "\n".join(difference)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the generated pages anew")
    arguments = parser.parse_args()
    if not EKTM.exists():
        sys.exit(f"{EKTM} does not exist. Build it, or set EKTM_BUILD to the build folder that has bin/ektm.")
    found = list(check_generated(arguments.write))
    pages = ["README.md", "CHANGELOG.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
    for page in map(read_page, pages):
        for check in (check_links, check_commands, check_yaml):
            found += check(page)
    found += check_configs()
    for problem in found:
        print(problem)
    print(f"check_docs: {len(pages)} pages, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
