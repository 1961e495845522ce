"""`ektm report`, `ektm inspect`, `ektm models` and every --help."""

import json
import re
from html.parser import HTMLParser

import pytest
from support import read_tensors, run, succeed, write_config

SUBCOMMANDS = ("simulate logs", "prepare", "train", "evaluate", "predict", "inspect", "report", "bench", "models")
VOID = {"meta", "link", "br", "hr", "img", "input", "col", "wbr"}


@pytest.fixture(scope="module")
def single_task(simulated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("single_task")
    config = write_config(folder / "config.yaml", simulated.data, model={"name": "single_task", "hidden": [16]})
    succeed("train", config, "--output", folder / "run", "--quiet")
    return folder / "run"


class Page(HTMLParser):
    """Checks that every element is closed in the order in which it was opened, and keeps the texts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.links, self.names = [], [], [], set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        self.links += [value for name, value in attributes if name in ("src", "href") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.names.add(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open}, line {self.getpos()[0]}"
            self.open.pop()

    def handle_data(self, data):
        self.texts.append(data)


def test_report_of_two_runs_names_models_tasks_and_numbers(trained, single_task, tmp_path):
    out = succeed("report", single_task, trained, "--output", tmp_path / "page.html", "--title", "Two <runs>")
    page = Page((tmp_path / "page.html").read_text())
    text = " ".join(page.texts)
    assert "svg" in page.names and "table" in page.names and "script" not in page.names
    assert not [link for link in page.links if not link.startswith("#")]  # nothing comes from elsewhere
    assert "Two <runs>" in text
    for name in ("single_task", "ektm(mmoe)", "click", "register", "download", "pay", "share"):
        assert name in text, name
        assert name in out, name
    for folder in (single_task, trained):
        results = json.loads((folder / "metrics.json").read_text())["results"]
        click = next(r for r in results if r["task"] == "click" and r["scenario"] == "")
        assert f"{click['auc']:.4f}" in text and f"{click['auc']:.4f}" in out


def test_report_of_one_run_lies_in_its_folder(single_task):
    succeed("report", single_task, "--quiet")
    assert "single_task" in " ".join(Page((single_task / "report.html").read_text()).texts)


def test_inspect_shows_who_teaches_whom(trained):
    inspected = json.loads(succeed("inspect", trained, "--json"))
    assert inspected["similarity"]["tasks"] == ["register", "download", "pay", "share"]
    matrix = inspected["similarity"]["matrix"]
    assert len(matrix) == 4
    for row in matrix:  # softmax over the tasks that teach
        assert len(row) == 4 and all(0 < value < 1 for value in row)
        assert sum(row) == pytest.approx(1, abs=1e-5)
    assert set(inspected["gates"]) == {"register", "download", "pay", "share"}
    assert all(0 < value < 1 for value in inspected["gates"].values())
    for row in inspected["expert_gates"]["matrix"]:
        assert sum(row) == pytest.approx(1, abs=1e-5)

    text = succeed("inspect", trained)
    lines = text[text.index("router:") :].splitlines()
    assert lines[1].split() == inspected["similarity"]["tasks"]
    for task, row, line in zip(inspected["similarity"]["tasks"], matrix, lines[2:]):
        assert line.split() == [task, *(f"{value:.3f}" for value in row)]


def test_inspect_counts_every_parameter(trained, single_task):
    for folder in (trained, single_task):
        _, tensors = read_tensors(folder / "model.safetensors")
        numbers = 0
        for name, (_, shape, _) in tensors.items():
            if name.startswith(("transmitter.mix.", "serve.")):  # fitted or chosen, not trained by gradients
                continue
            size = 1
            for length in shape:
                size *= length
            numbers += size
        assert sum(part["count"] for part in json.loads(succeed("inspect", folder, "--json"))["parameters"]) == numbers


def test_inspect_of_another_split_differs_from_that_of_validation(trained, simulated):
    def matrix(*options):
        return json.loads(succeed("inspect", trained, "--json", *options))["similarity"]["matrix"]

    saved, valid, test = matrix(), matrix("--data", simulated.data), matrix("--split", "test")
    for one, two in zip(saved, valid):
        assert one == pytest.approx(two, abs=1e-6)
    assert test != valid


def test_models_lists_the_zoo_and_every_key_of_a_model():
    text = succeed("models")
    names = ("single_task", "shared_bottom", "mmoe", "ple", "ektm")
    for name in names:
        assert re.search(rf"^\s*{name}\b", text, re.MULTILINE), name
        page = succeed("models", name)
        assert page.startswith(name)
        for key in ("embedding.dim", "optimizer.learning_rate", "train.batch_rows"):
            assert key in page, (name, key)
    assert "transmitter_hidden" in succeed("models", "ektm") and "arXiv 2605.05730" in succeed("models", "ektm")
    assert "# " in succeed("models", "--markdown")


def test_model_that_is_none_gets_the_nearest_name():
    done = run("models", "mmeo")
    assert done.code == 1 and "mmeo" in done.err and "Did you mean 'mmoe'?" in done.err


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_help_has_an_example_and_names_every_option(subcommand):
    for option in ("--help", "-h"):
        text = succeed(*subcommand.split(), option)
        assert re.search(r"^Examples?:\n +ektm " + subcommand, text, re.MULTILINE), text
        assert "Usage:" in text and "--help" in text


def test_an_unknown_subcommand_names_the_nearest():
    done = run("evalute", "runs/first")
    assert done.code == 1 and "there is no command 'evalute'" in done.err and "Did you mean 'evaluate'?" in done.err, done.err


def test_overall_help_names_every_subcommand():
    text = succeed("--help")
    for subcommand in SUBCOMMANDS:
        assert re.search(rf"^  {subcommand.split()[0]} ", text, re.MULTILINE), subcommand
    assert re.fullmatch(r"ektm \d+\.\d+\.\d+\+[0-9a-f]{12}\n", succeed("--version"))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["trian"],
        ["train"],
        ["train", "x.yaml"],
        ["prepare", "--output", "x"],
        ["evaluate", "x", "--split", "tset"],
        ["train", "x.yaml", "--output", "y", "--resume", "--overwrite"],
        ["train", "x.yaml", "--output", "y", "--seed", "-1"],
    ],
)
def test_command_line_that_makes_no_sense(arguments, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.code == 1 and done.out == "" and "--help" in done.err
    assert list(tmp_path.iterdir()) == []
