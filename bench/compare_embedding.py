#!/usr/bin/env python3
"""Times ektm's embeddings against FBGEMM's table-batched embeddings on the CPU, on the same ids, in turns: the gather of a batch,
and the way back (gradients of the rows and the optimiser's step). The last line is JSON with every figure."""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks import BENCH, bench_python, environment, machine, program, run, say, table

EXAMPLES = """examples:
  python3 bench/compare_embedding.py
  python3 bench/compare_embedding.py --short             # seconds; only ektm where .venv-bench is absent
  python3 bench/compare_embedding.py --rows 100000,1000000,10000000 --optimizers rowwise_adagrad

bench_embedding has to be built: ninja -C build bench_embedding
"""


def parse():
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="seconds: few rows, few steps, one repeat")
    parser.add_argument("--rows", help="of all tables together, separated by commas (default 100000,1000000,10000000)")
    parser.add_argument("--optimizers", default="rowwise_adagrad,sgd,adam", help="FBGEMM has no Adam on the CPU (%(default)s)")
    parser.add_argument("--fields", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--dim", type=int, default=16, help="numbers in an embedding (%(default)s)")
    parser.add_argument("--batch", type=int, default=4096, help="(%(default)s)")
    parser.add_argument("--steps", type=int, help="timed steps of a run (default 100)")
    parser.add_argument("--repeats", type=int, help="runs of each (default 3)")
    parser.add_argument("--threads", type=int, default=2, help="(%(default)s)")
    args = parser.parse_args()
    for name, value in ({"rows": "20000", "steps": 10, "repeats": 1} if args.short else
                        {"rows": "100000,1000000,10000000", "steps": 100, "repeats": 3}).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def compare(args, python, rows, optimizer, folder):
    """contender -> its runs. FBGEMM runs on the ids that ektm's program wrote."""
    ids, env = Path(folder) / "ids", environment(args.threads)
    runs = {"ektm": [], "FBGEMM": []}
    for _ in range(args.repeats):
        same = [option for key in ("fields", "dim", "batch", "steps", "threads") for option in (f"--{key}", getattr(args, key))]
        out, _ = run([program("bench_embedding"), "--rows", rows, *same, "--optimizer", optimizer, "--write-ids", ids], env)
        runs["ektm"].append(json.loads(out))
        if python and optimizer != "adam":
            spec = {**runs["ektm"][-1], "ids": str(ids)}
            out, _ = run([python, BENCH / "fbgemm.py", json.dumps(spec)], env)
            runs["FBGEMM"].append(json.loads(out.splitlines()[-1]))
    return runs


def main():
    args = parse()
    python = bench_python(create=not args.short)
    if python is None:
        say(".venv-bench is absent: only ektm is timed. Without --short it is installed.")
    report = {"machine": machine(), "results": [],
              **{key: getattr(args, key) for key in ("fields", "dim", "batch", "threads", "steps", "repeats")}}
    print(f"{report['machine']}\n{args.fields} tables, {args.dim} numbers a row, batch {args.batch}, {args.threads} threads, "
          f"medians of {args.repeats} x {args.steps} steps, ms a step\n")
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in map(int, args.rows.split(",")):
            for optimizer in args.optimizers.split(","):
                say(f"{rows} rows, {optimizer}")
                base = None
                for name, runs in compare(args, python, rows, optimizer, folder).items():
                    if not runs:
                        continue
                    gather, update = (statistics.median(r[key] for r in runs) for key in ("gather_seconds", "update_seconds"))
                    base = base or (gather, update)
                    report["results"].append({"rows": rows, "optimizer": optimizer, "contender": name, "gather_seconds": gather,
                                              "update_seconds": update})
                    lines.append([f"{rows:,}", optimizer, name, f"{gather * 1e3:.2f}", f"{update * 1e3:.2f}",
                                  f"{args.batch * args.fields / (gather + update) / 1e6:.1f}", f"{gather / base[0]:.2f}",
                                  f"{(gather + update) / sum(base):.2f}"])
    header = ["rows", "optimizer", "program", "gather", "update", "10^6 lookups/s", "gather / ektm's", "both / ektm's"]
    print(table(header, lines), end="\n\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
