"""`ektm bench`: a plan gives the same numbers whole, interrupted or with runs beside each other; broken plans are refused before anything is trained."""

import csv
import json
import re
import shlex
import shutil
import signal
import time

import numpy
import pyarrow.parquet
import pytest
import yaml
from support import partial_names, read_manifest, read_split, read_tensors, run, start, succeed
from test_report import Page

MMOE = {"name": "mmoe", "experts": 2, "expert_hidden": [8], "tower_hidden": [8]}
OUTPUTS = ("results.md", "results.csv", "results.tex", "results.json", "report.html")


def plan_of(simulated, **changes):
    plan = {
        "title": "Tiny & <small>",
        "seeds": [5, 6],
        "min_positives": 5,
        "datasets": [{"name": "sim", "data": str(simulated.data)}],
        "models": [
            {"name": "single", "config": {"model": {"name": "single_task", "hidden": [8]}}},
            {"name": "mmoe", "config": {"model": MMOE}},
            {"name": "ektm_mmoe", "baseline": "mmoe", "config": {"model": {"name": "ektm", "backbone": MMOE}}},
        ],
        "common": {
            "embedding": {"dim": 4, "learning_rate": 0.005},
            "train": {"batch_rows": 256, "max_steps": 40, "validate_every_steps": 20, "checkpoint_every_steps": 5, "early_stopping": {"min_positives": 5}},
        },
        "tune": {
            "trials": 2,
            "space": {"optimizer.learning_rate": [0.002, 0.01]},
            "models": {"single": {"model.dropout": [0, 0.3]}, "mmoe": {"model.dropout": [0, 0.3]}, "ektm_mmoe": {"model.lambda": [1, 0.3]}},
        },
    }
    for key, value in changes.items():
        if value is None:
            del plan[key]
        else:
            plan[key] = value
    return plan


def write_plan(folder, plan):
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    return path


def numbers(work):
    """results.json less what depends on the machine."""
    results = json.loads((work / "results.json").read_text())
    for dataset in results["datasets"]:
        for model in dataset["models"]:
            del model["cost"]
    return results


@pytest.fixture(scope="module")
def whole(simulated, tmp_path_factory):
    """(plan file, work folder) of a plan carried out without a break. Tests must not write into it."""
    folder = tmp_path_factory.mktemp("bench")
    plan = write_plan(folder, plan_of(simulated))
    succeed("bench", plan, "--output", folder / "work", "--quiet")
    return plan, folder / "work"


def signed(value):
    """As the tables show a difference."""
    return "0.0000" if abs(value) < 5e-6 else f"{value:+.5f}" if abs(value) < 5e-5 else f"{value:+.4f}"


def runs_of(work):
    return sorted(str(path.parent.relative_to(work)) for path in work.glob("runs/*/*/*/metrics.json"))


def test_the_folder_holds_runs_trials_and_results(whole):
    plan, work = whole
    assert runs_of(work) == [f"runs/sim/{model}/seed-{seed}" for model in ("ektm_mmoe", "mmoe", "single") for seed in (5, 6)]
    assert all((work / name).exists() for name in OUTPUTS)
    assert partial_names(work) == [] and not (work / "running").exists()
    for model in ("single", "mmoe", "ektm_mmoe"):
        trials = [json.loads(line) for line in (work / "trials" / "sim" / model / "trials.jsonl").read_text().splitlines()]
        assert [trial["trial"] for trial in trials] == [0, 1]
        for trial in trials:
            folder = work / "trials" / "sim" / model / str(trial["trial"])
            assert (folder / "metrics-valid.json").exists() and (folder / "config.yaml").exists()
            assert not (folder / "metrics.json").exists()  # the test split is not read by a search
            assert not (folder / "model.safetensors").exists()
        # The runs have the settings of the better trial.
        best = max(trials, key=lambda trial: trial["selection"])
        chosen = yaml.safe_load(best["config"])
        for seed in (5, 6):
            config = yaml.safe_load((work / "runs" / "sim" / model / f"seed-{seed}" / "config.yaml").read_text())
            assert config["seed"] == seed
            assert config["model"] == chosen["model"] and config["optimizer"] == chosen["optimizer"]
    # A paired trial is the baseline's in everything but its own keys.
    for trial in ("0", "1"):
        below, over = (yaml.safe_load((work / "trials" / "sim" / model / trial / "config.yaml").read_text()) for model in ("mmoe", "ektm_mmoe"))
        assert below["model"] == over["model"]["backbone"]
        assert below["optimizer"] == over["optimizer"]


def test_the_numbers_are_those_of_the_runs(whole):
    plan, work = whole
    results = numbers(work)["datasets"][0]
    metrics = {}
    for model in ("single", "mmoe", "ektm_mmoe"):
        for seed in (5, 6):
            content = json.loads((work / "runs" / "sim" / model / f"seed-{seed}" / "metrics.json").read_text())
            metrics[model, seed] = {(r["task"], r["quantity"]): r for r in content["results"] if r["head"] == "served" and not r["scenario"]}
    for model in results["models"]:
        for line in model["results"]:
            for metric in ("auc", "gauc", "logloss", "pcoc", "ece"):
                expected = [metrics[model["name"], seed][line["task"], line["quantity"]][metric] for seed in (5, 6)]
                assert line[metric]["by_seed"] == expected
                if None not in expected:
                    assert line[metric]["mean"] == pytest.approx(sum(expected) / 2, rel=1e-12)
                    assert line[metric]["std"] == pytest.approx(abs(expected[0] - expected[1]) / 2**0.5, rel=1e-9)
    compared = [task["task"] for task in results["tasks"] if task["in_mean"]]
    assert compared == [task["task"] for task in results["tasks"] if task["quantity"] == "cvr" and task["positives"] >= 5]
    assert compared
    pair = next(c for c in results["comparisons"] if c["model"] == "ektm_mmoe" and c["reference"] == "mmoe" and c["task"] is None)
    differences = [
        sum(metrics["ektm_mmoe", seed][task, "cvr"]["auc"] - metrics["mmoe", seed][task, "cvr"]["auc"] for task in compared) / len(compared) for seed in (5, 6)
    ]
    assert pair["by_seed"] == pytest.approx(differences, abs=1e-12)
    half = 12.706204736432095 * abs(differences[0] - differences[1]) / 2  # t of one degree of freedom; std / sqrt(2)
    assert pair["seeds"]["low"] == pytest.approx(sum(differences) / 2 - half, abs=1e-9)
    assert pair["stated_baseline"]


def test_a_step_is_chosen_by_what_it_would_serve(whole):
    """Validation measures, task by task, the head that is then served: the same numbers stand in the history and in the metrics of the kept step."""
    _, work = whole
    chosen = set()
    for seed in (5, 6):
        folder = work / "runs" / "sim" / "ektm_mmoe" / f"seed-{seed}"
        inspected = json.loads((folder / "inspect.json").read_text())
        chosen |= set(inspected["heads"].values())
        lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        (line,) = [line for line in lines if line["step"] == inspected["training"]["best_step"]]
        assert line["valid"]["selection"] == max(other["valid"]["selection"] for other in lines)
        results = [r for r in json.loads((folder / "metrics-valid.json").read_text())["results"] if r["quantity"] != "ctcvr" and not r["scenario"]]
        for r in results:
            assert line["valid"]["auc"][r["task"]] >= r["auc"] - 1e-9 if r["head"] == "base" else line["valid"]["auc"][r["task"]] == pytest.approx(r["auc"], abs=1e-9)
        assert {"served", "base"} == {r["head"] for r in results}
    assert chosen == {"base", "enhanced"}  # or the test sees nothing


def weighted_auc(labels, scores, weights):
    """Of rows that count several times; ties count one half."""
    _, rank = numpy.unique(scores, return_inverse=True)
    positive, negative = (numpy.bincount(rank, weights * (labels == label), minlength=rank.max() + 1) for label in (1, 0))
    below = numpy.cumsum(negative) - negative
    return (positive * (below + negative / 2)).sum() / positive.sum() / negative.sum()


def test_the_interval_over_rows_is_the_bootstraps_over_users(whole, simulated):
    """The spread of the difference over samples of users with replacement, the weights as they are."""
    plan, work = whole
    results = numbers(work)["datasets"][0]
    tasks = [task["name"] for task in read_manifest(simulated.data)["dataset"]["tasks"]]
    rows = read_split(simulated.data, "test")
    labels, observed = rows["labels"].reshape(-1, len(tasks)), rows["observed"].reshape(-1, len(tasks))
    _, users = numpy.unique(rows["group"], return_inverse=True)
    assert users.max() + 1 == results["clusters"]
    scores = {}
    for model in ("mmoe", "ektm_mmoe"):
        for seed in (5, 6):
            _, tensors = read_tensors(work / "runs" / "sim" / model / f"seed-{seed}" / "predictions.safetensors")
            kind, shape, data = tensors["served"]
            scores[model, seed] = numpy.frombuffer(data, numpy.float32).reshape(shape)
    click = tasks.index("click")
    pair = next(c for c in results["comparisons"] if c["model"] == "ektm_mmoe" and c["reference"] == "mmoe" and c["task"] == "click")

    def difference(weight):
        kept = (weight > 0) & (observed[:, click] == 1)
        auc = {key: weighted_auc(labels[kept, click], score[click][kept], weight[kept]) for key, score in scores.items()}
        return sum(auc["ektm_mmoe", seed] - auc["mmoe", seed] for seed in (5, 6)) / 2

    assert difference(numpy.ones(len(users))) == pytest.approx(pair["difference"], abs=1e-9)
    generator = numpy.random.default_rng(1)
    count = users.max() + 1
    spread = numpy.std([difference(numpy.bincount(generator.integers(0, count, count), minlength=count)[users]) for _ in range(300)])
    width = (pair["rows"]["high"] - pair["rows"]["low"]) / 2 / 1.959964
    assert width == pytest.approx(spread, rel=0.25)


def test_every_file_holds_the_numbers(whole):
    plan, work = whole
    results = numbers(work)["datasets"][0]
    lines = list(csv.DictReader((work / "results.csv").open()))
    texts = {name: (work / name).read_text() for name in OUTPUTS}
    for model in results["models"]:
        for line in model["results"]:
            found = [row for row in lines if (row["model"], row["task"], row["quantity"], row["metric"]) == (model["name"], line["task"], line["quantity"], "auc")]
            assert len(found) == (line["auc"]["mean"] is not None)
            if not found:
                continue
            assert float(found[0]["mean"]) == line["auc"]["mean"]
            assert [float(value) for value in found[0]["values"].split()] == line["auc"]["by_seed"]
            if line["quantity"] == "ctcvr":
                continue
            for name in ("results.md", "report.html"):
                assert f"{line['auc']['mean']:.4f} ± {line['auc']['std']:.4f}" in texts[name], (name, model["name"], line["task"])
            assert f"{line['auc']['mean']:.4f} $\\pm$ {line['auc']['std']:.4f}" in texts["results.tex"]
    assert "ektm\\_mmoe" in texts["results.tex"] and "\\toprule" in texts["results.tex"]
    assert texts["results.tex"].count("\\begin{tabular}") == texts["results.tex"].count("\\end{tabular}") > 5
    pair = next(c for c in results["comparisons"] if c["model"] == "ektm_mmoe" and c["task"] is None)
    for name in ("results.md", "report.html"):
        assert signed(pair["seeds"]["low"]) in texts[name]
    row = f"| ektm_mmoe | {'mmoe (its baseline, and the best)' if pair['best_baseline'] else 'mmoe (its baseline)'} | {signed(pair['difference'])} |"
    (line,) = [text for text in texts["results.md"].splitlines() if text.startswith(row)]
    assert line.strip("| *").endswith(pair["verdict"])
    pairs = list(csv.DictReader((work / "comparisons.csv").open()))
    assert len(pairs) == len(results["comparisons"]) > 2
    for found, c in zip(pairs, results["comparisons"]):
        assert (found["model"], found["against"], found["verdict"]) == (c["model"], c["reference"], c["verdict"])
        assert float(found["difference"]) == c["difference"] and float(found["seeds_low"]) == c["seeds"]["low"]
        assert (float(found["both_high"]), float(found["both_p_holm"])) == (c["both"]["high"], c["p_holm"])
        assert [float(value) for value in found["by_seed"].split()] == c["by_seed"]


def test_the_verdict_is_that_of_seeds_and_rows_together_after_holms_correction(whole):
    _, work = whole
    comparisons = json.loads((work / "results.json").read_text())["datasets"][0]["comparisons"]
    family = [c for c in comparisons if c["task"] is None and c["both"]]
    assert len(family) >= 3
    generator = numpy.random.default_rng(3)
    order, running = sorted(family, key=lambda c: c["both"]["p"]), 0
    for rank, c in enumerate(order):
        running = max(running, min(1, (len(order) - rank) * c["both"]["p"]))
        assert c["p_holm"] == pytest.approx(running, rel=1e-12)
        assert c["verdict"] == ("tie" if running >= 0.05 else "better" if c["difference"] > 0 else "worse")
        # Drawn: Student's error of the seeds plus the normal one of the rows.
        of_rows = (c["rows"]["high"] - c["rows"]["low"]) / 2 / 1.959964
        of_seeds = numpy.std(c["by_seed"], ddof=1) / len(c["by_seed"]) ** 0.5
        drawn = of_seeds * generator.standard_t(len(c["by_seed"]) - 1, 400_000) + of_rows * generator.standard_normal(400_000)
        assert c["both"]["p"] == pytest.approx(numpy.mean(abs(drawn) > abs(c["difference"])), abs=0.004)
        assert c["both"]["low"] <= min(c["seeds"]["low"], c["rows"]["low"]) + 1e-12


def test_the_page_is_whole_and_needs_nothing_else(whole):
    plan, work = whole
    page = Page((work / "report.html").read_text())
    assert "svg" in page.names and "table" in page.names and "script" not in page.names
    assert not [link for link in page.links if not link.startswith("#")]
    text = " ".join(page.texts)
    for part in ("Tiny & <small>", "How to read the intervals", "Quality against cost", "Who teaches whom", "Calibration", "Learning curves", "GAUC"):
        assert part in text, part


def test_called_again_it_trains_nothing_and_says_the_same(whole, tmp_path):
    plan, work = whole
    shutil.copytree(work, tmp_path / "work")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "runs").rglob("*.safetensors")}
    for name in OUTPUTS:
        (tmp_path / "work" / name).unlink()
    succeed("bench", plan, "--output", tmp_path / "work", "--quiet")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "runs").rglob("*.safetensors")} == before
    for name in OUTPUTS:
        assert (tmp_path / "work" / name).read_text() == (work / name).read_text(), name


@pytest.mark.parametrize("where", ["trials/sim/mmoe/1/checkpoint.safetensors", "runs/sim/mmoe/seed-5/checkpoint.safetensors"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_interrupted_it_goes_on_to_the_same_numbers(whole, tmp_path, where, how):
    plan, expected = whole
    work = tmp_path / "a work folder"
    process = start("bench", plan, "--output", work)
    while not (work / where).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(how)
    _, err = process.communicate(timeout=120)
    assert not (work / "results.json").exists()
    command = ["bench", plan, "--output", work]
    if how == signal.SIGINT:
        assert process.returncode == 130, err.decode()
        said = re.search(r"Interrupted; (\d+) of 12 runs are finished. Go on with:\n  ektm (bench .*)\n", err.decode())
        assert said, err.decode()
        assert 0 < int(said[1]) < 12
        command = shlex.split(said[2])
    succeed(*command, "--quiet")
    assert numbers(work) == numbers(expected)
    assert partial_names(work) == []


def test_runs_beside_each_other_give_the_same_numbers(whole, tmp_path):
    plan, expected = whole
    succeed("bench", plan, "--set", "parallel=2", "--output", tmp_path / "work", "--quiet")
    assert numbers(tmp_path / "work") == numbers(expected)
    assert not (tmp_path / "work" / "running").exists()


def test_interrupted_runs_beside_each_other_write_checkpoints(whole, tmp_path):
    plan, expected = whole
    process = start("bench", plan, "--set", "parallel=2", "--output", tmp_path / "work")
    while not list((tmp_path / "work").glob("runs/*/*/*/checkpoint.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err.decode()
    assert "--set parallel=2" in err.decode()
    succeed("bench", plan, "--output", tmp_path / "work", "--quiet")
    assert numbers(tmp_path / "work") == numbers(expected)


TPE = {
    "trials": 5,
    "method": "tpe",
    "startup": 2,
    "space": {"optimizer.learning_rate": [0.002, 0.01]},
    "models": {"single": {"model.dropout": [0, 0.1, 0.3]}, "mmoe": {"model.dropout": [0, 0.1, 0.3]}, "ektm_mmoe": {"model.lambda": [1, 0.3]}},
}


def trials_of(work):
    """model -> its trials, less their seconds."""
    trials = {}
    for path in sorted((work / "trials" / "sim").glob("*/trials.jsonl")):
        trials[path.parent.name] = [{**json.loads(line), "seconds": None} for line in path.read_text().splitlines()]
    return trials


@pytest.fixture(scope="module")
def tpe(simulated, tmp_path_factory):
    """As `whole`, of a plan with TPE."""
    folder = tmp_path_factory.mktemp("tpe")
    plan = write_plan(folder, plan_of(simulated, seeds=[5], tune=TPE))
    succeed("bench", plan, "--output", folder / "work", "--quiet")
    return plan, folder / "work"


def test_tpe_begins_with_the_random_trials_and_keeps_the_pairs(tpe, whole):
    _, work = tpe
    trials = trials_of(work)
    assert {model: [trial["trial"] for trial in of] for model, of in trials.items()} == dict.fromkeys(("ektm_mmoe", "mmoe", "single"), [0, 1, 2, 3, 4])
    for model, of in trials.items():
        later = [trial["config"] for trial in of[2:]]
        assert len(set(later)) == 3 and not set(later) & {trial["config"] for trial in of[:2]}, model  # 6 combinations or more
    for below, over in zip(trials["mmoe"], trials["ektm_mmoe"]):
        below, over = yaml.safe_load(below["config"]), yaml.safe_load(over["config"])
        assert below["model"] == over["model"]["backbone"] and below["optimizer"] == over["optimizer"]
    assert "TPE, after 2 random trials," in (work / "results.md").read_text()
    assert "Random search" in (whole[1] / "results.md").read_text()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
@pytest.mark.parametrize("parallel", [1, 2])
def test_tpe_interrupted_or_in_parallel_chooses_the_same_trials(tpe, tmp_path, parallel, how):
    plan, expected = tpe
    work = tmp_path / "work"
    process = start("bench", plan, "--set", f"parallel={parallel}", "--output", work)
    while not (work / "trials/sim/mmoe/3/checkpoint.safetensors").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(how)
    process.communicate(timeout=120)
    assert not (work / "results.json").exists()
    for _ in range(100):  # a run that a killed one left behind holds the lock until its end
        done = run("bench", plan, "--set", f"parallel={parallel}", "--output", work, "--quiet")
        if done.code == 0 or "another ektm bench" not in done.err:
            break
        time.sleep(0.2)
    assert done.code == 0, done.err
    assert trials_of(work) == trials_of(expected)
    assert numbers(work) == numbers(expected)


def test_tpe_refuses_a_history_that_is_not_whole_and_goes_on_with_more_trials(tpe, tmp_path):
    plan, expected = tpe
    work = tmp_path / "work"
    shutil.copytree(expected, work)
    succeed("bench", plan, "--set", "tune.trials=6", "--output", work, "--quiet")
    more, before = trials_of(work), trials_of(expected)
    assert all(more[model][:5] == before[model] and len(more[model]) == 6 for model in before)
    lines = (work / "trials/sim/mmoe/trials.jsonl").read_text().splitlines(keepends=True)
    (work / "trials/sim/mmoe/trials.jsonl").write_text("".join(lines[:1] + lines[2:]))
    done = run("bench", plan, "--output", work, "--quiet")
    assert done.code == 1 and "tune.method tpe chose by trial 1 of mmoe, which is not there" in done.err, done.err


def test_more_seeds_are_added_and_seeds_left_out_are_told(whole, tmp_path):
    plan, work = whole
    shutil.copytree(work, tmp_path / "work")
    succeed("bench", plan, "--set", "seeds=[5, 6, 7]", "--output", tmp_path / "work", "--quiet")
    results = numbers(tmp_path / "work")
    old = numbers(work)
    assert results["seeds"] == [5, 6, 7]
    for model, before in zip(results["datasets"][0]["models"], old["datasets"][0]["models"]):
        for line, line_before in zip(model["results"], before["results"]):
            assert line["auc"]["by_seed"][:2] == line_before["auc"]["by_seed"]
    out = succeed("bench", plan, "--set", "seeds=[5, 7]", "--output", tmp_path / "work", "--quiet")
    assert "3 runs that are not of this plan" in out
    assert "3 runs that are not of this plan" in (tmp_path / "work" / "results.md").read_text()


@pytest.mark.parametrize("where", ["runs/sim/mmoe/seed-5", "trials/sim/mmoe/1"])
def test_runs_of_a_program_with_other_sources_are_told(whole, tmp_path, where):
    plan, original = whole
    work = tmp_path / "work"
    shutil.copytree(original, work)
    file = work / where / "inspect.json"
    inspected = json.loads(file.read_text())
    version = inspected["training"]["program"]
    assert succeed("--version") == f"ektm {version}\n"
    assert "sources differ" not in (original / "results.md").read_text()
    inspected["training"]["program"] = "0.0.9+0123456789ab"
    file.write_text(json.dumps(inspected))
    out = succeed("bench", plan, "--output", work, "--quiet")
    assert "sources differ (1 by 0.0.9+0123456789ab, " in out and f" by {version})" in out
    for file in ("results.md", "results.tex", "results.json", "report.html"):
        assert "sources differ" in (work / file).read_text(), file
    text = tmp_path / "text.md"
    text.write_bytes(b"Before.\r\n<!-- bench plan -->\r\nold\r\n<!-- /bench plan -->")  # of an editor that ends lines otherwise
    succeed("bench", plan, "--output", work, "--update", text, "--quiet")
    written = text.read_bytes()
    assert written.startswith(b"Before.\r\n<!-- bench plan -->\r\n**Note:** ") and written.endswith(b"<!-- /bench plan -->") and b"sources differ" in written
    assert b"\nold" not in written


CONTRADICTIONS = {
    "threads=2": "threads is 2 instead of 1",
    "common.embedding.dim=8": "embedding.dim is 8 instead of 4",
    "tune.seed=3": "seed is 3 instead of 1",
}


@pytest.mark.parametrize("change", CONTRADICTIONS)
def test_a_plan_that_contradicts_the_folder_is_refused(whole, tmp_path, change):
    plan, work = whole
    done = run("bench", plan, "--set", change, "--output", work, "--quiet")
    assert done.code == 1
    assert CONTRADICTIONS[change] in done.err and "another plan" in done.err


def test_other_data_under_the_same_name_are_refused(whole, simulated, tmp_path):
    plan, work = whole
    shutil.copytree(simulated.data, tmp_path / "data")
    content = yaml.safe_load(plan.read_text())
    content["datasets"][0]["data"] = str(tmp_path / "data")
    moved = write_plan(tmp_path, content)
    shutil.copytree(work, tmp_path / "work")
    succeed("bench", moved, "--output", tmp_path / "work", "--quiet")  # moved, but the same
    manifest = tmp_path / "data" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    done = run("bench", moved, "--output", tmp_path / "work", "--quiet")
    assert done.code == 1
    assert "datasets[0].data" in done.err and "another content" in done.err


def test_broken_plans_are_refused_with_all_their_problems(simulated, tmp_path):
    plan = plan_of(simulated)
    plan["models"][1]["config"]["model"] = {**MMOE, "expert": 3}
    plan["models"][2]["config"]["loss"] = {"task_weights": {"clck": 2}}
    plan["sedes"] = [1]
    done = run("bench", write_plan(tmp_path, plan), "--output", tmp_path / "work")
    assert done.code == 1 and not (tmp_path / "work").exists()
    assert "sedes: unknown key. Did you mean 'seeds'?" in done.err
    del plan["sedes"]
    done = run("bench", write_plan(tmp_path, plan), "--output", tmp_path / "work")
    assert "models[1].config: model.expert: unknown key. Did you mean 'model.experts'?" in done.err
    plan["models"][1]["config"]["model"] = MMOE
    plan["tune"]["models"]["mmoe"]["model.dropout"] = [0, 1.5]
    done = run("bench", write_plan(tmp_path, plan), "--output", tmp_path / "work")
    assert "tune, model mmoe with model.dropout: 1.5" in done.err
    plan["tune"]["models"]["mmoe"]["model.dropout"] = [0, 0.3]
    plan["datasets"].append({"name": "absent", "data": str(tmp_path / "absent")})
    done = run("bench", write_plan(tmp_path, plan), "--output", tmp_path / "work")
    assert done.code == 1 and not (tmp_path / "work").exists()
    assert "Did you mean 'click'?" in done.err  # task names agree with the data set
    assert "datasets[1].data" in done.err and "absent" in done.err


def test_raw_files_are_prepared_first(simulated, tmp_path):
    raw = {"name": "raw", "schema": str(simulated.raw / "schema.yaml"), **{split: [str(simulated.raw / f"{split}.parquet")] for split in ("train", "valid", "test")}}
    content = plan_of(simulated, tune=None, seeds=[5], datasets=[raw, {"name": "sim", "data": str(simulated.data)}])
    content["models"] = content["models"][1:2]
    plan = write_plan(tmp_path, content)
    succeed("bench", plan, "--output", tmp_path / "work", "--quiet")
    raw_results, encoded = numbers(tmp_path / "work")["datasets"]
    assert raw_results["models"] == encoded["models"]  # the same files give the same data set
    assert raw_results["comparisons"] == []
    content["datasets"][0]["train"] = content["datasets"][0]["test"]
    done = run("bench", write_plan(tmp_path, content), "--output", tmp_path / "work", "--quiet")
    assert done.code == 1 and "datasets[0].train" in done.err


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_trial_whose_losses_are_not_finite_is_a_result(simulated, tmp_path, parallel):
    """Weights that grow by a factor of thousands a step; trial 0 takes the first choice."""
    content = plan_of(simulated, seeds=[5], parallel=parallel)
    content["models"] = content["models"][1:2]
    content["common"]["optimizer"] = {"learning_rate": 100}
    content["tune"] = {"trials": 4, "space": {"optimizer.weight_decay": [100, 0]}}
    succeed("bench", write_plan(tmp_path, content), "--output", tmp_path / "work", "--quiet")
    lines = [json.loads(line) for line in (tmp_path / "work" / "trials" / "sim" / "mmoe" / "trials.jsonl").read_text().splitlines()]
    assert [line["trial"] for line in lines] == [0, 1, 2, 3]
    for line in lines:
        assert (line["selection"] is None) == (yaml.safe_load(line["config"])["optimizer"]["weight_decay"] == 100)
        if line["selection"] is None:
            assert "step" in line["failure"] and "Model error" in line["failure"]
    assert lines[0]["selection"] is None
    assert numbers(tmp_path / "work")["datasets"][0]["models"][0]["search"]["best_trial"] > 0


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_run_whose_losses_are_not_finite_leaves_the_others_their_table(simulated, tmp_path, parallel):
    content = plan_of(simulated, seeds=[5, 6], parallel=parallel, tune=None)
    content["models"][1]["set"] = {"optimizer.learning_rate": 100, "optimizer.weight_decay": 100}
    content["models"].append({"name": "shared", "config": {"model": {"name": "shared_bottom", "bottom_hidden": [8], "tower_hidden": [8]}}})
    plan, work = write_plan(tmp_path, content), tmp_path / "work"
    out = succeed("bench", plan, "--output", work, "--quiet")
    assert [model["name"] for model in numbers(work)["datasets"][0]["models"]] == ["single", "shared"]
    for text in (out, (work / "results.md").read_text(), (work / "report.html").read_text()):
        assert "mmoe is left out: its run of seed 5 on sim broke off. Model error" in text
        assert "ektm_mmoe is left out with its baseline mmoe." in text
    assert succeed("bench", plan, "--output", work, "--quiet") == out  # nothing is trained again
    content["models"] = content["models"][1:2]
    done = run("bench", write_plan(tmp_path, content), "--output", work, "--quiet")
    assert done.code == 1 and "no model is left to compare" in done.err


def test_changed_raw_files_are_noticed(simulated, tmp_path):
    for name in ("schema.yaml", "train.parquet", "valid.parquet", "test.parquet"):
        shutil.copy(simulated.raw / name, tmp_path / name)
    raw = {"name": "raw", "schema": str(tmp_path / "schema.yaml"), **{split: [str(tmp_path / f"{split}.parquet")] for split in ("train", "valid", "test")}}
    content = plan_of(simulated, tune=None, seeds=[5], datasets=[raw])
    content["models"] = content["models"][:1]
    plan = write_plan(tmp_path, content)
    succeed("bench", plan, "--output", tmp_path / "work", "--quiet")
    (tmp_path / "test.parquet").touch()  # another time, the same rows
    succeed("bench", plan, "--output", tmp_path / "work", "--quiet")
    shutil.copy(simulated.raw / "valid.parquet", tmp_path / "test.parquet")
    done = run("bench", plan, "--output", tmp_path / "work", "--quiet")
    assert done.code == 1 and "datasets[0]" in done.err and "test.parquet has changed since" in done.err


def test_the_same_raw_files_may_lie_elsewhere(simulated, tmp_path):
    content = plan_of(simulated, tune=None, seeds=[5])
    content["models"] = content["models"][:1]
    content["datasets"] = [{"name": "raw", "schema": str(simulated.raw / "schema.yaml"), **{split: [f"{split}.parquet"] for split in ("train", "valid", "test")}}]
    plan, work = write_plan(tmp_path, content), tmp_path / "work"
    succeed("bench", plan, "--raw", simulated.raw, "--output", work, "--quiet")
    before = numbers(work)
    shutil.copytree(simulated.raw, tmp_path / "moved")
    succeed("bench", plan, "--raw", tmp_path / "moved", "--output", work, "--quiet")
    assert numbers(work) == before
    shutil.copy(simulated.raw / "valid.parquet", tmp_path / "moved" / "test.parquet")
    done = run("bench", plan, "--raw", tmp_path / "moved", "--output", work, "--quiet")
    assert done.code == 1 and "test.parquet has changed since" in done.err, done.err
    done = run("bench", plan, "--raw", simulated.raw, "--set", f"datasets=[{{name: raw, schema: {simulated.raw}/schema.yaml, train: [valid.parquet], valid: [valid.parquet], test: [test.parquet]}}]",
               "--output", work, "--quiet")
    assert done.code == 1 and "datasets[0].train" in done.err and "another content" in done.err, done.err


def test_data_of_a_plan_that_was_refused_are_made_again(tmp_path):
    """A plan whose data can be made but whose models do not fit them; then another platform under the same name."""
    plan = {
        "seeds": [1],
        "min_positives": 1,
        "datasets": [{"name": "sim", "simulate": {"rows": 3000, "ctr": 0.3, "users": 100, "items": 50}}],
        "models": [{"name": "single", "config": {"model": {"name": "single_task", "hidden": [4]}, "loss": {"task_weights": {"clikc": 2}}}}],
        "common": {"train": {"batch_rows": 256, "max_steps": 2, "early_stopping": {"min_positives": 1}}},
    }
    work = tmp_path / "work"
    done = run("bench", write_plan(tmp_path, plan), "--output", work, "--quiet")
    assert done.code == 1 and "Did you mean 'click'?" in done.err, done.err
    good = {**plan, "datasets": [{"name": "sim", "simulate": {"rows": 6000, "ctr": 0.3, "users": 100, "items": 50}}]}
    good["models"] = [{"name": "single", "config": {"model": {"name": "single_task", "hidden": [4]}}}]
    done = run("bench", write_plan(tmp_path, good), "--output", work, "--quiet")
    assert done.code == 1 and "datasets[0].simulate" in done.err and "another content" in done.err, done.err
    (work / "data.json").unlink()  # killed after the data were made, before their record was
    succeed("bench", write_plan(tmp_path, good), "--output", work, "--quiet")
    assert sum(split["rows"] for split in json.loads((work / "data" / "sim" / "summary.json").read_text())["splits"]) == 6000


def test_metrics_of_a_run_that_was_interrupted_do_not_make_it_finished(whole, tmp_path):
    plan, original = whole
    work = tmp_path / "work"
    shutil.copytree(original, work)
    before = numbers(work)
    trial, seed = work / "trials" / "sim" / "mmoe" / "1", work / "runs" / "sim" / "mmoe" / "seed-5"
    for folder in (trial, seed):  # as an interrupted training and `ektm evaluate` leave it
        assert (folder / "metrics-valid.json").exists()
        (folder / "inspect.json").unlink()
    record = (work / "trials" / "sim" / "mmoe" / "trials.jsonl").read_text().splitlines(keepends=True)
    (work / "trials" / "sim" / "mmoe" / "trials.jsonl").write_text(record[0])
    succeed("bench", plan, "--output", work, "--quiet")
    assert (trial / "inspect.json").exists() and (seed / "inspect.json").exists()
    assert numbers(work) == before


def test_searches_that_would_compare_unequal_trials_are_refused(simulated, tmp_path):
    for key, choices in (("train.early_stopping.metric", ["mean_auc", "mean_logloss"]), ("train.early_stopping", [{"metric": "mean_logloss"}, {}])):
        content = plan_of(simulated)
        content["tune"]["space"] = {key: choices}
        done = run("bench", write_plan(tmp_path, content), "--check")
        assert done.code == 1 and f"searches the key '{key}'" in done.err and "one for all" in done.err
        content["tune"]["space"] = {"embedding.dim": [4, 8]}
        content["tune"]["models"]["mmoe"] = {key: choices}
        assert f"searches the key '{key}'" in run("bench", write_plan(tmp_path, content), "--check").err
    content = plan_of(simulated)
    content["datasets"][0]["set"] = {"optimizer.learning_rate": 0.004}
    done = run("bench", write_plan(tmp_path, content), "--check")
    assert done.code == 1 and done.err.count("lies over the searched key 'optimizer.learning_rate'") == 1
    content["datasets"][0]["set"] = {"train.batch_rows": 128}  # not searched
    succeed("bench", write_plan(tmp_path, content), "--check")


def test_a_second_one_in_the_same_folder_is_refused(whole, simulated, tmp_path):
    plan, _ = whole
    process = start("bench", plan, "--output", tmp_path / "work")
    while not (tmp_path / "work" / "trials").exists():
        assert process.poll() is None
        time.sleep(0.001)
    done = run("bench", plan, "--output", tmp_path / "work", "--quiet")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert done.code == 1 and "another ektm bench" in done.err


def test_check_says_whether_a_plan_is_good(whole, tmp_path):
    plan, _ = whole
    assert "no problem found" in succeed("bench", plan, "--check", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def rolling_plan(simulated, **changes):
    """The logs of the simulated platform, cut twice in time."""
    files = [str(simulated.raw / f"{split}.parquet") for split in ("train", "valid", "test")]
    times = numpy.sort(numpy.concatenate([pyarrow.parquet.read_table(file, columns=["ts"])["ts"].to_numpy() for file in files]))
    at = [int(times[int(len(times) * share)]) for share in (0.5, 0.65, 0.8)]
    cuts = [{"train": f"ts < {a}", "valid": f"ts >= {a} and ts < {b}", "test": f"ts >= {b} and ts < {c}"} for a, b, c in ((at[0], at[1], at[2]), (at[1], at[2], 10**12))]
    log = {"name": "log", "schema": str(simulated.raw / "schema.yaml"), "train": files[:1], "valid": files[1:2], "test": files[2:], "rolling": cuts}
    rows = [[int(((times >= low) & (times < high)).sum()) for low, high in ((0, a), (a, b), (b, c))] for a, b, c in ((at[0], at[1], at[2]), (at[1], at[2], 10**12))]
    return plan_of(simulated, tune=None, datasets=[log], **changes), rows


def test_rolling_cuts_divide_the_log_and_are_put_together(simulated, tmp_path):
    content, rows = rolling_plan(simulated)
    plan, work = write_plan(tmp_path, content), tmp_path / "work"
    out = succeed("bench", plan, "--output", work, "--quiet")
    results = numbers(work)
    assert [cut["name"] for cut in results["datasets"]] == ["log.1", "log.2"]
    for name, expected in zip(("log.1", "log.2"), rows):
        splits = json.loads((work / "data" / name / "summary.json").read_text())["splits"]
        assert [split["rows"] for split in splits] == expected
    (rolling,) = results["rolling"]
    assert rolling["name"] == "log" and rolling["cuts"] == ["log.1", "log.2"]
    means = {}
    for cut in results["datasets"]:
        for model in cut["models"]:
            means.setdefault(model["name"], []).append(model["mean"]["auc"]["by_seed"])
    means = {name: numpy.array(values) for name, values in means.items()}  # [cut, seed]
    assert rolling["best_baseline"] == max(("single", "mmoe"), key=lambda name: means[name].mean())
    assert any(c["model"] == "ektm_mmoe" and c["reference"] == "mmoe" for c in rolling["comparisons"])
    for c in rolling["comparisons"]:
        difference = means[c["model"]] - means[c["reference"]]
        assert c["by_cut"] == pytest.approx(difference.mean(axis=1), abs=1e-12)
        assert c["by_seed"] == pytest.approx(difference.mean(axis=0), abs=1e-12)
        assert c["difference"] == pytest.approx(difference.mean(), abs=1e-12)
        half = 12.7062 * numpy.std(difference.mean(axis=1), ddof=1) / 2**0.5  # Student's t of one degree
        assert c["cuts"]["high"] - c["cuts"]["low"] == pytest.approx(2 * half, rel=1e-4)
    for text in (out, (work / "results.md").read_text(), (work / "report.html").read_text(), (work / "results.tex").read_text()):
        assert "Differences over the cuts" in text
    assert "no rolling cuts" not in (work / "results.md").read_text()
    assert succeed("bench", plan, "--output", work, "--quiet") == out  # nothing is left to do
    content["datasets"][0]["rolling"][1]["test"] = "ts < 0"
    done = run("bench", write_plan(tmp_path, content), "--output", work, "--quiet")
    assert done.code == 1 and "datasets[0].rolling" in done.err and "log.2 had another content" in done.err


def test_broken_rolling_cuts_are_refused(simulated, tmp_path):
    content, _ = rolling_plan(simulated)
    content["datasets"][0]["rolling"][0]["train"] = "ts <"
    del content["datasets"][0]["rolling"][1]["valid"]
    content["datasets"][0]["rolling"][1]["tets"] = "ts > 1"
    twice, _ = rolling_plan(simulated)
    twice["datasets"][0]["rolling"].append({**twice["datasets"][0]["rolling"][0], "train": "ts < 5"})
    done = run("bench", write_plan(tmp_path, twice), "--check")
    assert done.code == 1 and "datasets[0].rolling[2].test: is that of cut 1" in done.err
    content["datasets"] += [{"name": "encoded", "data": str(simulated.data), "rolling": content["datasets"][0]["rolling"]},
                            {"name": "once", "simulate": {"rows": 4000}, "rolling": [{"train": "ts < 1", "valid": "ts == 1", "test": "ts > 1"}]}]
    done = run("bench", write_plan(tmp_path, content), "--check")
    assert done.code == 1
    for part in ("datasets[0].rolling[0].train", "datasets[0].rolling[1].valid", "tets", "datasets[1].rolling: needs raw files", "datasets[2].rolling: expected a list of at least two"):
        assert part in done.err


def small_simulation(**changes):
    return {"rows": 6000, "users": 200, "items": 60, "ctr": 0.4, **changes}


def test_a_simulated_platform_is_made_and_set_lies_over_all_configs(tmp_path):
    content = {
        "title": "Scarce",
        "seeds": [5, 6],
        "min_positives": 5,
        "datasets": [
            {"name": "whole", "simulate": small_simulation()},
            {"name": "scarce", "simulate": small_simulation(), "set": {"train.label_shares": {"register": 0.3, "pay": 0}}},
        ],
        "models": [{"name": "mmoe", "config": {"model": MMOE}, "set": {"model.experts": 3}}],
        "common": {"embedding": {"dim": 4}, "train": {"batch_rows": 256, "max_steps": 8, "early_stopping": {"min_positives": 2}}},
    }
    plan = write_plan(tmp_path, content)
    work = tmp_path / "work"
    succeed("bench", plan, "--output", work, "--quiet")
    assert (work / "logs/whole/summary.json").exists() and (work / "data/whole/manifest.json").exists()
    whole, scarce = numbers(work)["datasets"]
    assert [task["positives"] for task in whole["tasks"]] == [task["positives"] for task in scarce["tasks"]]  # the test split keeps its labels
    assert whole["models"] != scarce["models"]
    for name, shares in (("whole", {}), ("scarce", {"register": 0.3, "pay": 0})):
        config = yaml.safe_load((work / f"runs/{name}/mmoe/seed-5/config.yaml").read_text())
        assert config["model"]["experts"] == 3 and config["train"]["label_shares"] == shares
        history = json.loads((work / f"runs/{name}/mmoe/seed-5/history.jsonl").read_text().splitlines()[-1])
        assert (history["train_loss"]["pay"] == 0) == (name == "scarce")  # no label is seen
    content["datasets"][0]["simulate"]["ctr"] = 0.5
    done = run("bench", write_plan(tmp_path, content), "--output", work, "--quiet")
    assert done.code == 1 and "datasets[0].simulate" in done.err, done.err
    done = run("bench", plan, "--set", "datasets=[{name: whole, simulate: {rows: 6000}, set: {train.label_shares: {payy: 1}}}]", "--output", tmp_path / "w", "--quiet")
    assert done.code == 1 and "train.label_shares.payy" in done.err and "Did you mean 'pay'?" in done.err, done.err
    assert not (tmp_path / "w").exists()  # before the logs are made


def test_several_plans_write_one_report_and_a_text(whole, simulated, tmp_path):
    content = plan_of(simulated, tune=None, seeds=[5], title="First")
    content["models"] = content["models"][:2]
    content["datasets"] = [{"name": "raw", "schema": str(simulated.raw / "schema.yaml"), **{s: [f"{s}.parquet"] for s in ("train", "valid", "test")}}]
    first, second, text = tmp_path / "first.yaml", tmp_path / "second.yaml", tmp_path / "results.md"
    first.write_text(yaml.safe_dump(content))
    content["title"] = "Second"
    content["models"] = content["models"][:1]
    second.write_text(yaml.safe_dump(content))
    work = tmp_path / "work"
    text.write_text("Before.\n<!-- bench first -->\nold\n<!-- /bench first -->\nBetween.\n")
    command = ("bench", first, second, "--raw", simulated.raw, "--output", work, "--update", text, "--quiet")
    done = run(*command)
    assert done.code == 1 and "<!-- bench second -->" in done.err and not work.exists(), done.err  # before hours of work
    text.write_text(text.read_text() + "<!-- bench second -->\n<!-- /bench second -->\nAfter.\n")
    assert "second.yaml: 1 data sets, 1 models, 1 seeds; no problem found" in succeed(*command, "--check") and not work.exists()
    succeed(*command)
    written = text.read_text()
    assert [written.index(part) for part in ("Before.", "### raw", "Between.", "After.")] == sorted(written.index(part) for part in ("Before.", "### raw", "Between.", "After."))
    assert "\nold\n" not in written and written.count("### raw") == 2 and "**AUC.**" in written
    for name in ("first", "second"):
        assert all((work / name / output).exists() for output in OUTPUTS)
    page = Page((work / "report.html").read_text())
    assert {"First", "Second"} <= set(page.texts) and "#plan1" in (work / "report.html").read_text()
    again = run(*command[:-1])
    assert again.code == 0 and text.read_text() == written
    assert f"plan 2 of 2, {second}: Second" in again.out + again.err
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "first.yaml").write_text(first.read_text())
    done = run("bench", first, copy / "first.yaml", "--raw", simulated.raw, "--output", tmp_path / "other")
    assert done.code == 1 and "the same name" in done.err
