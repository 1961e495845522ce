"""The plans behind docs/results.md: whole ones are good, and scaled down they fill the page and its report from raw files in one command."""

import os
import re
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from support import succeed
from test_bench import OUTPUTS
from test_report import Page

RAW = Path(os.environ.get("EKTM_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
PLANS = sorted((REPOSITORY / "configs" / "results").glob("*.yaml"))
SETTINGS = {"train.max_steps": 6, "train.batch_rows": 512, "train.validate_every_steps": 3, "train.early_stopping.min_positives": 1}


def simulated(plan):
    return all("simulate" in dataset for dataset in plan["datasets"])


def scaled_down(plan):
    """The same data sets with few rows or steps, one seed, one trial. Where models stand over several baselines, two of these and one over each."""
    over = {model["baseline"]: model["name"] for model in plan["models"] if "baseline" in model}
    if len(over) > 1:
        some = dict(list(over.items())[:2])
        plan["models"] = [model for model in plan["models"] if model["name"] in (*some, *some.values())]
    kept = [model["name"] for model in plan["models"]]
    for dataset in plan["datasets"]:
        if "simulate" in dataset:
            dataset["simulate"] |= {"rows": 20000}
        dataset["set"] = dataset.get("set", {}) | SETTINGS
    if "tune" in plan:
        plan["tune"] |= {"trials": 1, "models": {name: space for name, space in plan["tune"]["models"].items() if name in kept}}
    return plan | {"seeds": [1], "min_positives": 1}


def test_plans_are_good(tmp_path):
    plans = [path for path in PLANS if RAW.exists() or simulated(yaml.safe_load(path.read_text()))]
    said = succeed("bench", *plans, "--raw", RAW, "--output", tmp_path / "work", "--update", "docs/results.md", "--check", cwd=REPOSITORY)
    assert said.count("no problem found") == len(plans) > 0
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("kind", ["simulated", "public"])
def test_scaled_down_they_fill_the_page_in_one_command(kind, tmp_path):
    if kind == "public" and not RAW.exists():
        pytest.skip("the public data sets are not here")
    plans = {path.stem: yaml.safe_load(path.read_text()) for path in PLANS}
    plans = {name: scaled_down(plan) for name, plan in plans.items() if simulated(plan) == (kind == "simulated")}
    for name, plan in plans.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    page, work = tmp_path / "results.md", tmp_path / "work"
    original = (REPOSITORY / "docs" / "results.md").read_text()
    page.write_text(original)
    command = ("bench", *(tmp_path / f"{name}.yaml" for name in plans), "--raw", RAW, "--output", work, "--update", page, "--quiet")
    succeed(*command, cwd=REPOSITORY)
    written = page.read_text()
    block = {name: re.compile(rf"<!-- bench {name} -->\n(.*?)<!-- /bench {name} -->", re.S) for name in plans}
    for name, plan in plans.items():
        table = block[name].search(written)[1]
        assert table != block[name].search(original)[1]
        assert all(f"\n| {model['name']} |" in table for model in plan["models"])
        assert all(f"### {dataset['name']}" in table for dataset in plan["datasets"])
        assert all((work / name / output).exists() for output in OUTPUTS)
        # The text between the tables stays.
        original, written = (block[name].sub("", text) for text in (original, written))
    assert written == original
    report = Page((work / "report.html").read_text())
    assert {plan["title"] for plan in plans.values()} <= set(report.texts)
