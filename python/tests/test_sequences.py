"""A history file becomes a sequence for each user, attention is trained over it, and `ektm predict` scores the same way."""

import json

import numpy
import pyarrow.parquet
import pytest
from support import prepare, read_tensors, run, succeed, write_config

SCHEMA = """
features:
  - {name: user, min_count: 2}
  - {name: item, min_count: 2}
  - {name: watched, kind: sequence, column: past_item, table: item, min_count: 2, max_length: 6}
tasks:
  - {name: click, label: click}
  - {name: pay, label: pay, after: click}
join:
  - {file: history.csv, key: user, many: true, where: watched == 1, prefix: past_}
group: user
"""
ATTENTION = {"targets": {"watched": "item"}, "hidden": [16]}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Logs in which a click means, most of the time, that the item is among the last six that the user has watched. 300 users: each
    tenth has no history."""
    folder = tmp_path_factory.mktemp("sequences")
    random = numpy.random.default_rng(1)
    last, history = {}, ["user,item,watched"]
    for user in range(300):
        items = [] if user % 10 == 0 else list(random.integers(0, 40, random.integers(1, 12)))
        watched = [item for item in items if random.random() < 0.7]
        history += [f"u{user},i{item},{int(item in watched)}" for item in items]
        last[user] = {item for item in items if item in watched}
    (folder / "history.csv").write_text("\n".join(history) + "\n")
    for split, rows in (("train", 6000), ("valid", 1500), ("test", 1500)):
        lines = ["user,item,click,pay"]
        for _ in range(rows):
            user = int(random.integers(0, 300))
            among = last[user] and random.random() < 0.5
            item = int(random.choice(sorted(last[user]))) if among else int(random.integers(0, 40))
            click = random.random() < (0.9 if item in last[user] else 0.1)
            lines.append(f"u{user},i{item},{int(click)},{int(click and random.random() < 0.5)}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    (folder / "schema.yaml").write_text(SCHEMA)
    files = {split: folder / f"{split}.csv" for split in ("train", "valid", "test")}
    return folder, prepare(folder / "schema.yaml", folder / "data", **files)


@pytest.fixture(scope="module")
def trained(data):
    folder, encoded = data
    train = {"epochs": 8, "early_stopping": {"metric": "auc.click", "min_positives": 5}}
    model = {"name": "ektm", "backbone": {"name": "shared_bottom", "bottom_hidden": [16], "tower_hidden": [8]}}
    runs = {}
    for name, attention in (("attention", ATTENTION), ("mean", {})):
        config = write_config(folder / f"{name}.yaml", encoded, model=model, train=train, attention=attention)
        succeed("train", config, "--output", folder / name, "--quiet")
        runs[name] = folder / name
    return runs


def auc_of(run_folder):
    """Of the served click on the test split."""
    evaluated = json.loads(succeed("evaluate", run_folder, "--split", "test", "--json"))
    return next(r["auc"] for r in evaluated["results"] if (r["task"], r["quantity"], r["head"], r["scenario"]) == ("click", "ctr", "served", ""))


def test_predict_scores_as_evaluate_does(data, trained):
    """The scores of raw rows, with the run's own copy of the history, have the AUC that evaluate finds on the encoded rows."""
    folder, _ = data
    output = folder / "scores.parquet"
    succeed("predict", trained["attention"], "--input", folder / "test.csv", "--output", output, "--keep", "click", "--quiet")
    scores = pyarrow.parquet.read_table(output)
    labels = numpy.array([int(value) for value in scores.column("click").to_pylist()])
    found = scores.column("p_click").to_numpy()
    positives, negatives = found[labels == 1], found[labels == 0]
    wins = (positives[:, None] > negatives).sum() + 0.5 * (positives[:, None] == negatives).sum()
    assert abs(wins / (len(positives) * len(negatives)) - auc_of(trained["attention"])) < 1e-6


def test_the_parameters_stand_in_the_checkpoint(trained):
    _, tensors = read_tensors(trained["attention"] / "model.safetensors")
    shapes = {name: entry[1] for name, entry in tensors.items() if name.startswith("attention.")}
    assert shapes == {
        "attention.watched.0.weight": [1, 16, 16],
        "attention.watched.0.bias": [1, 1, 16],
        "attention.watched.score.weight": [1, 16, 1],
        "attention.watched.score.bias": [1, 1, 1],
    }
    _, tensors = read_tensors(trained["mean"] / "model.safetensors")
    assert not [name for name in tensors if name.startswith("attention.")]


@pytest.mark.parametrize(
    "attention, parts",
    [
        ({"targets": {"wached": "item"}}, ["attention.targets.wached", "watched", "Did you mean 'watched'?"]),
        ({"targets": {"watched": "itm"}}, ["attention.targets.watched", "'itm'", "Did you mean 'item'?"]),
        ({"targets": {"watched": "user"}}, ["attention.targets.watched", "'user' is of the table 'user'", "item"]),
        ({"targets": ["watched"]}, ["attention.targets", "expected a map of name: name"]),
        ({"normalise": "none"}, ["attention.normalise", "Did you mean 'attention.normalize'?"]),
        ({"normalize": "softmx"}, ["attention.normalize", "Did you mean 'softmax'?"]),
        ({"hidden": [0]}, ["attention.hidden", "1 .. 65536"]),
    ],
)
def test_a_wrong_attention_is_refused_before_anything_is_written(data, tmp_path, attention, parts):
    _, encoded = data
    config = write_config(tmp_path / "config.yaml", encoded, attention=attention)
    done = run("train", config, "--output", tmp_path / "run")
    assert done.code == 1
    for part in parts:
        assert part in done.err, done.err
    assert not (tmp_path / "run").exists()
