#!/usr/bin/env python3
"""Random search with the same number of trials for every model, on the validation split only.

  scripts/tune.py --space configs/kuairand/tune.yaml --data data/kuairand --trials 8 --models mmoe,ektm-mmoe --work runs/tune/kuairand

Trial 0 of a model is its defaults; trial k draws from the space with generators seeded by (backbone, k) for what a backbone has, and by
(EKTM, backbone, k) for EKTM's own keys. So trial k of EKTM stands on the very backbone of trial k of its baseline. A search can be stopped
and called again: finished trials are read from WORK/<model>.jsonl. The best trial becomes --configs/<model>.yaml.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
EKTM = pathlib.Path(os.environ.get("EKTM_BUILD", ROOT / "build")) / "bin" / "ektm"


def set_key(config, key, value):
    *path, last = key.split(".")
    for part in path:
        config = config.setdefault(part, {})
    config[last] = value


def base_config(space, model):
    """`ektm-mmoe` is EKTM over mmoe."""
    config = json.loads(json.dumps(space["base"]))
    if model.startswith("ektm-"):
        config["model"] = {"name": "ektm", "backbone": {"name": model[5:]}}
    else:
        config["model"] = {"name": model}
    return config


def draws(space, model):
    """(key, choices) of a model, in the order of drawing, by generator: what every run and its backbone have, then EKTM's own keys."""
    backbone = model.removeprefix("ektm-")
    prefix = "model.backbone." if model.startswith("ektm-") else "model."
    keys = sorted(space["common"].items()) + [(prefix + key, values) for key, values in sorted(space["models"][backbone].items())]
    yield backbone, keys
    if model.startswith("ektm-"):
        yield model, [("model." + key, values) for key, values in sorted(space["models"]["ektm"].items())]


def trial_config(space, model, trial):
    config = base_config(space, model)
    for seed, keys in draws(space, model):
        generator = random.Random(f"{seed}/{trial}")
        for key, values in keys:
            value = generator.choice(values)
            # The first choice is the default; trial 0 takes it everywhere.
            set_key(config, key, values[0] if trial == 0 else value)
    return config


def run_trial(space, model, trial, args):
    work = pathlib.Path(args.work)
    config = trial_config(space, model, trial)
    file = work / f"{model}-{trial}.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    run = work / f"{model}-{trial}"
    command = [str(EKTM), "train", str(file), "--set", f"data={args.data}", "--set", "train.evaluate_test=false", "--seed", "1",
               "--threads", str(args.threads), "--output", str(run), "--overwrite", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        sys.exit(f"trial {trial} of {model} failed: {' '.join(command)}")
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    best = max(history, key=lambda point: point["valid"]["selection"])
    shutil.rmtree(run)
    return {"model": model, "trial": trial, "selection": best["valid"]["selection"], "step": best["step"],
            "seconds": history[-1]["seconds"], "config": config}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", required=True, help="YAML: base, common, models")
    parser.add_argument("--data", required=True, help="encoded data set")
    parser.add_argument("--models", help="comma-separated; ektm-mmoe is EKTM over mmoe; default: all of the space, each also below EKTM")
    parser.add_argument("--trials", type=int, default=8, help="of each model")
    parser.add_argument("--work", required=True, help="folder for trials")
    parser.add_argument("--configs", help="folder for the best configs; default: the space's folder")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    space = yaml.safe_load(pathlib.Path(args.space).read_text())
    work = pathlib.Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    configs = pathlib.Path(args.configs or pathlib.Path(args.space).parent)
    backbones = [name for name in space["models"] if name != "ektm"]
    models = args.models.split(",") if args.models else [model for name in backbones for model in (name, "ektm-" + name)]
    for model in models:
        record = work / f"{model}.jsonl"
        trials = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
        for trial in range(len(trials), args.trials):
            trials.append(run_trial(space, model, trial, args))
            with record.open("a") as out:
                out.write(json.dumps(trials[-1]) + "\n")
            print(f"{model:20} trial {trial:3}  {trials[-1]['selection']:.5f}  {trials[-1]['seconds']:6.1f} s", flush=True)
        best = max(trials[:args.trials], key=lambda t: t["selection"])
        text = yaml.safe_dump(best["config"], sort_keys=False, default_flow_style=None, width=120)
        header = f"# Best of {len(trials[:args.trials])} trials on the validation split (scripts/tune.py, trial {best['trial']}).\n"
        (configs / f"{model}.yaml").write_text(header + text)
        print(f"{model:20} best {best['selection']:.5f} (trial {best['trial']})", flush=True)


if __name__ == "__main__":
    main()
