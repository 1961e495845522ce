#!/usr/bin/env python3
"""Trains tuned configs with several seeds and writes docs/results.md.

  scripts/results.py train --configs configs/kuairand --data data/kuairand --runs runs/results/kuairand --seeds 5
  scripts/results.py write --output docs/results.md NAME=runs/results/kuairand ...

`train` skips runs that are finished, so it can be stopped and called again. Numbers are those of the test split; the epoch and the
configs were chosen on the validation split.
"""
import argparse
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("EKTM_BUILD", ROOT / "build"))
EKTM = BUILD / "bin" / "ektm"
MODELS = ["single_task", "shared_bottom", "mmoe", "ple", "ektm-single_task", "ektm-shared_bottom", "ektm-mmoe", "ektm-ple"]
BASELINES = MODELS[:4]
# Student's t, two-sided 95 %, by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
HEADLINE_POSITIVES = 100


def train(args):
    for seed in range(1, args.seeds + 1):
        for model in MODELS:
            config = pathlib.Path(args.configs) / f"{model}.yaml"
            run = pathlib.Path(args.runs) / f"{model}-{seed}"
            if (run / "metrics.json").exists() or not config.exists():
                continue
            done = subprocess.run([str(EKTM), "train", str(config), "--set", f"data={args.data}", "--seed", str(seed), "--threads", str(args.threads),
                                   "--output", str(run), "--overwrite", "--quiet"], capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{model} seed {seed}: {done.stderr}")
            (run / "checkpoint.safetensors").unlink(missing_ok=True)  # the results need the kept model only
            shutil.rmtree(run / "encoders", ignore_errors=True)
            print(f"{model:20} seed {seed}  {done.stdout.splitlines()[0]}", flush=True)


def load(folder):
    """model -> list over seeds of {"results": {(task, quantity, head): metrics}, "inspect": ...}"""
    runs = {}
    for model in MODELS:
        for path in sorted(pathlib.Path(folder).glob(f"{model}-[0-9]*")):
            if path.name[: -len(path.name.rsplit("-", 1)[1]) - 1] != model or not (path / "metrics.json").exists():
                continue
            metrics = json.loads((path / "metrics.json").read_text())
            results = {(r["task"], r["quantity"], r["head"]): r for r in metrics["results"] if not r["scenario"]}
            runs.setdefault(model, []).append({"seed": int(path.name.rsplit("-", 1)[1]), "results": results,
                                               "inspect": json.loads((path / "inspect.json").read_text())})
    return runs


def mean_std(values):
    if not values:
        return "–"
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {spread:.4f}"


def interval(differences):
    n = len(differences)
    mean = statistics.mean(differences)
    if n < 2:
        return f"{mean:+.4f}"
    half = T95[n - 1] * statistics.stdev(differences) / math.sqrt(n)
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"


def row(cells):
    return "| " + " | ".join(cells) + " |"


def section(name, folder):
    runs = load(folder)
    if not runs:
        return [f"## {name}", "", "No runs.", ""]
    any_run = next(iter(runs.values()))[0]["results"]
    keys = [k for k in any_run if k[1] in ("ctr", "cvr") and k[2] == "served"]
    headline = [k for k in keys if any_run[k]["positives"] >= HEADLINE_POSITIVES]
    cvr = [k for k in headline if k[1] == "cvr"] or headline
    seeds = max(len(r) for r in runs.values())
    values = lambda model, key, metric: [r["results"][key][metric] for r in runs[model] if r["results"].get(key, {}).get(metric) is not None]
    mean_cvr = {m: {r["seed"]: statistics.mean(r["results"][k]["auc"] for k in cvr) for r in runs[m]} for m in runs}

    lines = [f"## {name}", "", f"Test split, {seeds} seeds, mean ± standard deviation of AUC over the seeds (higher is better; best mean in bold). Click on all "
             "rows, each conversion where its label is observed.", ""]
    lines += [row(["task", "rows", "positives"] + list(runs)), row(["---", "---:", "---:"] + ["---:"] * len(runs))]
    for key in keys:
        best = max(runs, key=lambda m: statistics.mean(values(m, key, "auc")))
        cells = [mean_std(values(m, key, "auc")) for m in runs]
        cells = [f"**{c}**" if m == best else c for m, c in zip(runs, cells)]
        note = "" if key in headline else " (few positives)"
        lines.append(row([key[0] + note, f"{any_run[key]['rows']:,}", f"{any_run[key]['positives']:,}"] + cells))
    best = max(runs, key=lambda m: statistics.mean(mean_cvr[m].values()))
    title = "mean of " + ", ".join(k[0] for k in cvr)
    lines.append(row([title, "", ""] + [f"**{mean_std(list(mean_cvr[m].values()))}**" if m == best else mean_std(list(mean_cvr[m].values())) for m in runs]))

    for metric, note in (("gauc", "GAUC (AUC within a group, weighted by the group's rows)"), ("logloss", "LogLoss (lower is better)"),
                         ("pcoc", "PCOC (predicted over observed positives; 1 is calibrated)")):
        if not any(values(m, k, metric) for m in runs for k in keys):
            continue
        lines += ["", f"{note}, mean ± standard deviation:", "", row(["task"] + list(runs)), row(["---"] + ["---:"] * len(runs))]
        for key in keys:
            lines.append(row([key[0]] + [mean_std(values(m, key, metric)) for m in runs]))

    lines += ["", "What EKTM adds to its own backbone: paired by seed, difference of mean AUC over the tasks of the last row above, 95 % t-interval over "
              "the seeds; and inside each EKTM run, enhanced (served) head minus base head.", "",
              row(["backbone", "EKTM − backbone", "EKTM − best baseline", "served − base head"]), row(["---", "---:", "---:", "---:"])]
    top = max((m for m in BASELINES if m in runs), key=lambda m: statistics.mean(mean_cvr[m].values()))
    for model in runs:
        if not model.startswith("ektm-"):
            continue
        backbone = model[5:]
        common = sorted(set(mean_cvr[model]) & set(mean_cvr.get(backbone, {})))
        against = sorted(set(mean_cvr[model]) & set(mean_cvr[top]))
        inside = [statistics.mean(r["results"][k]["auc"] - r["results"][(k[0], k[1], "base")]["auc"] for k in cvr)
                  for r in runs[model] if all((k[0], k[1], "base") in r["results"] for k in cvr)]
        lines.append(row([backbone, interval([mean_cvr[model][s] - mean_cvr[backbone][s] for s in common]) if common else "–",
                          interval([mean_cvr[model][s] - mean_cvr[top][s] for s in against]) + f" ({top})", interval(inside) if inside else "–"]))

    lines += ["", "Cost (one thread, on a shared machine: orientation only):", "", row(["model", "parameters", "of them embeddings", "training samples/s"]),
              row(["---", "---:", "---:", "---:"])]
    for model in runs:
        inspected = runs[model][0]["inspect"]
        total = sum(p["count"] for p in inspected["parameters"])
        embedding = next(p["count"] for p in inspected["parameters"] if p["part"] == "embedding")
        speed = statistics.median(r["inspect"]["training"]["samples_per_s"] for r in runs[model])
        lines.append(row([model, f"{total:,}", f"{embedding:,}", f"{speed:,.0f}"]))
    return lines + [""]


def summary(sections):
    """The README's table: a row a data set and task."""
    lines = ["AUC on the test split, mean over seeds (best in bold):", "", row(["data set", "task", "seeds"] + MODELS),
             row(["---", "---", "---:"] + ["---:"] * len(MODELS))]
    for name, folder in sections:
        runs = load(folder)
        any_run = next(iter(runs.values()))[0]["results"]
        for key in any_run:
            if key[1] not in ("ctr", "cvr") or key[2] != "served" or any_run[key]["positives"] < HEADLINE_POSITIVES:
                continue
            means = {m: statistics.mean(r["results"][key]["auc"] for r in runs[m]) for m in runs}
            best = max(means, key=means.get)
            cells = [("**{:.4f}**" if m == best else "{:.4f}").format(means[m]) if m in means else "–" for m in MODELS]
            lines.append(row([name, key[0], str(min(len(r) for r in runs.values()))] + cells))
    return lines + [""]


def replace_between(path, marker, lines):
    text = path.read_text()
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    head, rest = text.split(begin)
    path.write_text(head + begin + "\n" + "\n".join(lines) + rest[rest.index(end):])


def write(args):
    sections = [pair.split("=", 1) for pair in args.sections]
    replace_between(pathlib.Path(args.output), "tables", [line for name, folder in sections for line in section(name, folder)])
    if args.readme:
        replace_between(pathlib.Path(args.readme), "results", summary(sections))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("train")
    command.add_argument("--configs", required=True)
    command.add_argument("--data", required=True)
    command.add_argument("--runs", required=True)
    command.add_argument("--seeds", type=int, default=5)
    command.add_argument("--threads", type=int, default=1)
    command.set_defaults(run=train)
    command = commands.add_parser("write")
    command.add_argument("--output", required=True)
    command.add_argument("--readme", help="fill the table of this page too")
    command.add_argument("sections", nargs="+", help="NAME=RUNS")
    command.set_defaults(run=write)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
