#!/usr/bin/env python3
"""Trains the same model on the same encoded rows with ektm, torch-rechub, DeepCTR-Torch and a hand-tuned PyTorch loop, in turns,
and tabulates samples/s, test AUC and peak memory. The last line is JSON with every figure. What is held equal, and what the other
libraries cannot do equally, is written in docs/performance.md."""

import argparse
import ctypes.util
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks import BENCH, MAIN_PYTHON, REPOSITORY, bench_python, environment, machine, program, run, say, table

EXAMPLES = """examples:
  python3 bench/compare_training.py                      # all models, simulated rows; minutes
  python3 bench/compare_training.py --short              # seconds; leaves out what is not installed, needs no network
  python3 bench/compare_training.py --models mmoe --batch 1024 --repeats 5
  python3 bench/compare_training.py --data data/kuairand --batch 1024 --epochs 4

Without --short the first call installs bench/requirements.txt into .venv-bench. PYTHON names the interpreter for it, EKTM_BUILD
the build folder of ektm.
"""

# ektm's defaults.
SIZES = {
    "shared_bottom": {"bottom_hidden": [256, 128], "tower_hidden": [64]},
    "mmoe": {"experts": 6, "expert_hidden": [128, 64], "tower_hidden": [64]},
    "ple": {"levels": 2, "task_experts": 2, "shared_experts": 2, "expert_hidden": [64], "tower_hidden": [64]},
}
INIT_STD = 0.01
WARM_UP_STEPS = 10
PROBE = {"steps": 40, "seconds": 20}
PROBE_ROUNDS = 3
MIN_GAIN = 1.03  # a setting that gains less than this is noise

# name -> (program, fixed settings, settings that are tried and kept where they are faster)
ALLOCATOR = {"mimalloc": True}
CONTENDERS = {
    "plain PyTorch": ("plain", {"fused": True}, [{"sparse": True}, {"bf16": True}, {"compile": True}, ALLOCATOR]),
    "torch-rechub, tensors": ("rechub", {"memory_batches": True}, [{"fused": True}, ALLOCATOR]),
    "torch-rechub": ("rechub", {"fused": True}, [{"workers": 2}, ALLOCATOR]),
    "DeepCTR-Torch, tensors": ("deepctr", {"memory_batches": True}, [{"fused": True}, ALLOCATOR]),
    "DeepCTR-Torch": ("deepctr", {"fused": True}, [ALLOCATOR]),
}


def simulate(folder, rows):
    """Encoded rows of the simulator, every label observed in every row: the other libraries cannot leave labels out of a loss."""
    ektm = program("ektm")
    if not (folder / "encoded" / "manifest.json").exists():
        say(f"simulating {rows} rows into {folder}")
        raw = folder / "raw"
        run([ektm, "simulate", "logs", "--output", raw, "--overwrite", "--quiet", "--rows", rows, "--users", max(100, rows // 20),
             "--items", max(100, rows // 100), "--ctr", 0.2], environment(2))
        lines = (raw / "schema.yaml").read_text().replace(", after: click", "").splitlines()
        schema = folder / "schema.yaml"  # tasks: click, register, download; the others are too rare to be compared
        schema.write_text("\n".join(line for line in lines if "label: pay" not in line and "label: share" not in line) + "\n")
        run([ektm, "prepare", "--schema", schema, "--train", raw / "train.parquet", "--valid", raw / "valid.parquet", "--test",
             raw / "test.parquet", "--output", folder / "encoded", "--quiet", "--force"], environment(2))
    return folder / "encoded"


def run_ektm(args, content, model, seed):
    with tempfile.TemporaryDirectory() as folder:
        config = {"model": {"name": model, **SIZES[model]}, "seed": seed, "threads": args.threads, "data": str(args.data),
                  "embedding": {"dim": args.dim, "init_std": INIT_STD, "learning_rate": args.learning_rate},
                  "optimizer": {"learning_rate": args.learning_rate},
                  "train": {"batch_rows": args.batch, "epochs": args.epochs,
                            "early_stopping": {"patience": 0, "min_positives": 1}}}
        path, output = Path(folder) / "config.yaml", Path(folder) / "run"
        path.write_text(json.dumps(config))  # JSON is YAML
        _, memory = run([program("ektm"), "train", path, "--output", output, "--quiet"], environment(args.threads))
        training = json.loads((output / "inspect.json").read_text())["training"]
        metrics = json.loads((output / "metrics.json").read_text())["results"]
    # It counts the last, smaller batch of an epoch as a whole one.
    rows = content["splits"]["train"]["rows"] * args.epochs
    speed = training["samples_per_s"] * rows / (training["steps"] * args.batch)
    auc = {result["task"]: result["auc"] for result in metrics
           if result["quantity"] in ("ctr", "cvr") and result["head"] == "served" and not result.get("scenario")}
    return {"samples_per_s": speed, "auc": auc, "memory_mib": memory}


def run_other(args, python, name, model, seed, settings, probe=None):
    settings = dict(settings)
    more = {}
    if settings.pop("mimalloc", False):
        more["LD_PRELOAD"] = ctypes.util.find_library("mimalloc")
    spec = {"contender": CONTENDERS[name][0], "model": model, "sizes": SIZES[model], "data": str(args.data), "dim": args.dim,
            "batch": args.batch, "learning_rate": args.learning_rate, "epochs": args.epochs, "threads": args.threads,
            "seed": seed, "init_std": INIT_STD, "settings": settings, "warm_up": args.warm_up, "probe": probe}
    out, memory = run([python, BENCH / "contenders.py", json.dumps(spec)], environment(args.threads, **more))
    return {**json.loads(out.splitlines()[-1]), "memory_mib": memory}


def fastest_settings(args, python, name, model):
    """Short runs without and with each setting, in turns; those that gain on their own are put together."""
    _, fixed, tried = CONTENDERS[name]
    if not ctypes.util.find_library("mimalloc"):
        tried = [change for change in tried if change != ALLOCATOR]
    if args.short:
        return fixed
    candidates = [{}, *tried]
    speeds = [[] for _ in candidates]
    for round_number in range(PROBE_ROUNDS):
        for change, own in zip(candidates, speeds):
            if round_number > 0 and own[0] < speeds[0][0] / 2:  # needs no second look
                continue
            own.append(run_other(args, python, name, model, 1, {**fixed, **change}, PROBE)["samples_per_s"])
    medians = [statistics.median(own) for own in speeds]
    for change, speed in zip(candidates, medians):
        say(f"  {name}: {describe({**fixed, **change})}: {speed:,.0f} samples/s")
    for change, speed in zip(candidates, medians):
        if speed > medians[0] * MIN_GAIN:
            fixed = {**fixed, **change}
    return fixed


def describe(settings):
    shown = [key if value is True else f"{key} {value}" for key, value in settings.items() if key != "memory_batches"]
    return ", ".join(shown) or "default"


def summarise(name, settings, results):
    tasks = results[0]["auc"]
    mean = lambda values: statistics.mean(values)
    return {"contender": name, "settings": settings, "samples_per_s": statistics.median(r["samples_per_s"] for r in results),
            "samples_per_s_all": [r["samples_per_s"] for r in results],
            "memory_mib": statistics.median(r["memory_mib"] for r in results),
            "auc": {task: mean([r["auc"][task] for r in results]) for task in tasks},
            "mean_auc": mean([mean(r["auc"].values()) for r in results])}


def compare(args, content, python, names, model):
    say(f"{model}: settings")
    settings = {name: fastest_settings(args, python, name, model) for name in names}
    results = {"ektm": [], **{name: [] for name in names}}
    for repeat in range(1, args.repeats + 1):
        say(f"{model}: repeat {repeat} of {args.repeats}")
        results["ektm"].append(run_ektm(args, content, model, repeat))
        for name in names:
            results[name].append(run_other(args, python, name, model, repeat, settings[name]))
    return [summarise(name, settings.get(name, {}), runs) for name, runs in results.items()]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="seconds: few rows, mmoe, one repeat, no search for settings")
    parser.add_argument("--data", type=Path, help="encoded data set (default: rows of the simulator, every label observed)")
    parser.add_argument("--rows", type=int, help="rows to simulate (default 1000000)")
    parser.add_argument("--models", help="of shared_bottom,mmoe,ple (default: all)")
    parser.add_argument("--contenders", help="beside ektm, separated by semicolons: " + "; ".join(CONTENDERS))
    parser.add_argument("--batch", type=int, help="rows of a batch (default 4096)")
    parser.add_argument("--dim", type=int, default=16, help="numbers in an embedding (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=0.001, help="(%(default)s)")
    parser.add_argument("--epochs", type=int, help="(default 2)")
    parser.add_argument("--repeats", type=int, help="runs of each contender, with seeds 1, 2, ... (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="of every contender (%(default)s)")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs" / "compare_training", help="folder for simulated rows")
    args = parser.parse_args()
    defaults = {"rows": 20000, "models": "mmoe", "batch": 512, "epochs": 1, "repeats": 1} if args.short else \
        {"rows": 1000000, "models": ",".join(SIZES), "batch": 4096, "epochs": 2, "repeats": 3}
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.warm_up = WARM_UP_STEPS
    return args


def main():
    args = parse()
    python = bench_python(create=not args.short)
    names = args.contenders.split(";") if args.contenders else list(CONTENDERS)
    names = [name.strip() for name in names]
    if python is None:
        python = MAIN_PYTHON
        say(".venv-bench is absent: only the plain PyTorch loop is compared. Without --short it is installed.")
        names = [name for name in names if CONTENDERS[name][0] == "plain"]
    args.data = args.data or simulate(args.work / str(args.rows), args.rows)
    content = json.loads((args.data / "manifest.json").read_text())["content"]
    steps = -(-content["splits"]["train"]["rows"] // args.batch) * args.epochs
    args.warm_up = min(WARM_UP_STEPS, steps // 2)
    if content["dataset"]["has_weight"]:
        say("the rows have weights: ektm alone uses them, so that AUC is not comparable")
    if any(task["parent"] >= 0 for task in content["dataset"]["tasks"]):
        say("some tasks follow others: torch-rechub and DeepCTR-Torch count unobserved labels as 0; their AUC is not comparable")

    report = {"machine": machine(), "data": {"rows": content["splits"]["train"]["rows"], "tables": content["dataset"]["tables"],
                                             "tasks": [task["name"] for task in content["dataset"]["tasks"]]},
              **{key: getattr(args, key) for key in ("batch", "dim", "epochs", "threads", "repeats", "learning_rate")},
              "models": {}}
    print(f"{report['machine']}\n{report['data']['rows']:,} training rows, batch {args.batch}, embeddings of {args.dim}, "
          f"{args.threads} threads, {args.epochs} epochs, {args.repeats} repeats, median (least .. most)\n")
    lines = []
    for model in args.models.split(","):
        summaries = report["models"][model] = compare(args, content, python, names, model)
        ektm = summaries[0]
        for s in summaries:
            s["ektm_is_faster_by"] = ektm["samples_per_s"] / s["samples_per_s"]
            low, high = min(s["samples_per_s_all"]), max(s["samples_per_s_all"])
            lines.append([model, s["contender"], f"{s['samples_per_s']:,.0f} ({low:,.0f} .. {high:,.0f})",
                          f"{s['ektm_is_faster_by']:.2f}", *[f"{value:.4f}" for value in s["auc"].values()],
                          f"{s['mean_auc'] - ektm['mean_auc']:+.4f}", f"{s['memory_mib']:,.0f}", describe(s["settings"])])
    header = ["model", "program", "samples/s", "ektm / it", *[f"AUC {task}" for task in report["data"]["tasks"]], "mean - ektm's",
              "peak MiB", "settings"]
    print(table(header, lines), end="\n\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
