"""`ektm predict` on raw rows gives the scores that `ektm evaluate` measures on the encoded ones: its metrics, computed again."""

import json
import re
import shutil

import numpy
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import yaml
from conftest import simulate
from support import run, succeed, write_config

PARENTS = {
    "parallel": {"click": None, "register": "click", "download": "click", "pay": "click", "share": "click"},
    "sequential": {"click": None, "cart": "click", "pay": "cart", "repurchase": "pay"},
}


@pytest.fixture(scope="module", params=PARENTS)
def scored(request, tmp_path_factory):
    """(logs and data, run, parents, raw test rows, predictions): labels are missing for some advertisers, rows for no event."""
    folder = tmp_path_factory.mktemp(request.param)
    logs = simulate(
        folder,
        "--pattern",
        request.param,
        "--unreported",
        "0.3",
        "--rates",
        ",".join(f"{task}=0.3" for task, parent in PARENTS[request.param].items() if parent),
    )
    config = write_config(folder / "config.yaml", logs.data)
    serve = {"parallel": "enhanced", "sequential": "validated"}[request.param]
    succeed("train", config, "--set", f"model.serve={serve}", "--output", folder / "run", "--quiet")
    succeed("predict", folder / "run", "--input", logs.raw / "test.parquet", "--output", folder / "scores.parquet", "--quiet")
    rows = pyarrow.parquet.read_table(logs.raw / "test.parquet")
    return logs, folder / "run", PARENTS[request.param], rows, pyarrow.parquet.read_table(folder / "scores.parquet")


def test_the_head_that_is_better_on_the_validation_split_serves(scored):
    """serve: validated, by the run's own files; `ektm inspect` names the heads."""
    _, folder, parents, _, _ = scored
    results = json.loads((folder / "metrics-valid.json").read_text())["results"]
    by_head = {(r["task"], r["head"]): r["auc"] for r in results if r["quantity"] == "cvr" and not r["scenario"]}
    heads = json.loads((folder / "inspect.json").read_text()).get("heads")
    conversions = [task for task, parent in parents.items() if parent]
    if yaml.safe_load((folder / "config.yaml").read_text())["model"]["serve"] == "enhanced":
        assert heads is None
        return
    assert sorted(heads) == sorted(conversions)
    for task in conversions:
        assert by_head[task, "served"] >= by_head[task, "base"]
        assert heads[task] in ("base", "enhanced")
        if heads[task] == "base":
            assert by_head[task, "served"] == by_head[task, "base"]
    shown = succeed("inspect", folder)
    for task in conversions:
        assert re.search(rf"{task} +{heads[task]}\n", shown)


# --------------------------------------------------------------------------------------------------------------- own metrics


def auc(scores, labels):
    """The share of (positive, negative) pairs in the right order, ties half."""
    negatives = numpy.sort(scores[labels == 0])
    positives = scores[labels == 1]
    wins = numpy.searchsorted(negatives, positives, "left") + numpy.searchsorted(negatives, positives, "right")
    return wins.sum() / 2 / (len(positives) * len(negatives))


def gauc(scores, labels, groups):
    total = weight = 0
    for group in numpy.unique(groups):
        rows = groups == group
        if 0 < labels[rows].sum() < rows.sum():
            total += rows.sum() * auc(scores[rows], labels[rows])
            weight += rows.sum()
    return total / weight if weight else None


def metrics(scores, labels, groups):
    scores = scores.astype(float)
    clipped = numpy.clip(scores, 1e-7, 1 - 1e-7)
    both = 0 < labels.sum() < len(labels)
    return {
        "rows": len(labels),
        "positives": int(labels.sum()),
        "auc": auc(scores, labels) if both else None,
        "gauc": gauc(scores, labels, groups),
        "logloss": -(labels * numpy.log(clipped) + (1 - labels) * numpy.log1p(-clipped)).mean() if len(labels) else None,
        "pcoc": scores.sum() / labels.sum() if labels.sum() else None,
    }


def true_events(rows, parents):
    """task -> (label, known): label 1 where the event happened; known where its parent did and the label is there."""
    events = {}
    for task, parent in parents.items():
        column = rows.column(task).to_pylist()
        happened = numpy.array([value == 1 for value in column])
        known = numpy.array([value is not None for value in column])
        if parent:
            label, parent_known = events[parent]
            known = known & parent_known & label
        events[task] = (happened & known, known)
    return events


def whole_path(events, parents, task):
    """(label, known) of the whole path to a task: not happened as soon as one event of it is known not to have happened."""
    label, known = events[task]
    parent = parents[task]
    while parent:
        parent_label, parent_known = events[parent]
        known = known | (parent_known & ~parent_label)
        parent = parents[parent]
    return label, known


# --------------------------------------------------------------------------------------------------------------------- tests


def test_evaluate_measures_what_predict_writes(scored):
    logs, run_folder, parents, rows, scores = scored
    evaluated = json.loads(succeed("evaluate", run_folder, "--split", "test", "--json"))
    results = {(r["task"], r["quantity"], r["scenario"]): r for r in evaluated["results"] if r["head"] == "served"}
    events, users = true_events(rows, parents), numpy.array(rows.column("user_id").to_pylist())
    scenario_of = numpy.array(rows.column("scenario").to_pylist())
    checked = 0
    for scenario in ("", "feed", "search"):
        within = numpy.ones(len(users), bool) if scenario == "" else scenario_of == scenario
        assert within.any()
        for task, parent in parents.items():
            quantities = [("cvr" if parent else "ctr", f"p_{task}", events[task])]
            if parent:
                quantities.append(("ctcvr", f"path_{task}", whole_path(events, parents, task)))
            for quantity, column, (label, known) in quantities:
                chosen = known & within
                expected = metrics(scores.column(column).to_numpy()[chosen], label[chosen].astype(int), users[chosen])
                found = results.pop((task, quantity, scenario))
                for name, value in expected.items():
                    wanted = None if value is None else pytest.approx(value, rel=1e-6, abs=1e-6)
                    assert found[name] == wanted, (task, quantity, scenario, name)
                checked += expected["auc"] is not None
    assert results == {}
    assert checked >= 3 * (2 * len(parents) - 1) - 2  # nearly every quantity has both classes


def test_labels_are_missing_for_some_rows(scored):
    _, _, parents, rows, _ = scored
    events = true_events(rows, parents)
    for task, parent in parents.items():
        if parent:
            label, known = events[parent]
            assert 0 < events[task][1].sum() < (label & known).sum(), task


def test_paths_are_products_along_the_chain(scored):
    _, _, parents, _, scores = scored
    for task, parent in parents.items():
        product = scores.column(f"p_{task}").to_numpy().astype(float)
        while parent:
            product = product * scores.column(f"p_{parent}").to_numpy()
            parent = parents[parent]
        if parents[task]:
            numpy.testing.assert_allclose(scores.column(f"path_{task}").to_numpy(), product, rtol=1e-5)
    expected = [f"p_{task}" for task in parents] + [f"path_{task}" for task, parent in parents.items() if parent]
    assert scores.column_names == expected


def test_scores_vary_and_are_probabilities(scored):
    for column in scored[4].columns:
        values = column.to_numpy()
        assert values.dtype == numpy.float32 and (0 < values).all() and (values < 1).all() and len(numpy.unique(values)) > 100


def as_texts(table):
    """Lists as CSV has them: values with | between them."""
    for index, field in enumerate(table.schema):
        if pyarrow.types.is_list(field.type):
            texts = [None if values is None else "|".join(map(str, values)) for values in table.column(index).to_pylist()]
            table = table.set_column(index, field.name, pyarrow.array(texts, pyarrow.string()))
    return table


def predict(run_folder, tmp_path, table, name, keep=()):
    file = tmp_path / name
    if name.endswith(".csv"):
        pyarrow.csv.write_csv(as_texts(table), file)
    else:
        pyarrow.parquet.write_table(table, file)
    options = ["--keep", ",".join(keep)] if keep else []
    succeed("predict", run_folder, "--input", file, "--output", tmp_path / f"scores of {name}", "--quiet", *options)
    return pyarrow.parquet.read_table(tmp_path / f"scores of {name}")


def test_csv_and_parquet_give_the_same_scores_without_labels(scored, tmp_path):
    _, run_folder, parents, rows, scores = scored
    without_labels = rows.drop_columns(list(parents))
    assert predict(run_folder, tmp_path, without_labels, "rows.parquet").equals(scores)
    assert predict(run_folder, tmp_path, without_labels, "rows.csv").equals(scores)


def test_rows_keep_their_order_and_each_its_own_score(scored, tmp_path):
    """Shuffled rows get shuffled scores: a row's score does not depend on its neighbours."""
    _, run_folder, _, rows, scores = scored
    order = numpy.random.default_rng(3).permutation(len(rows))
    found = predict(run_folder, tmp_path, rows.take(order), "shuffled.parquet", keep=["impression_id"])
    assert found.column("impression_id").equals(rows.column("impression_id").take(order))
    for name in scores.column_names:
        numpy.testing.assert_allclose(found.column(name).to_numpy(), scores.column(name).to_numpy()[order], rtol=1e-5)


def test_kept_columns_are_those_of_the_input(scored, tmp_path):
    """Ids above 2^53, texts and nulls, also of columns that the model does not read."""
    _, run_folder, _, rows, scores = scored
    assert max(rows.column("user_id").to_pylist()) > 2**53
    keep = ["user_id", "impression_id", "tags", "price", "extra"]
    rows = rows.append_column("extra", pyarrow.array([None if i % 3 else 2**63 + i for i in range(len(rows))], pyarrow.uint64()))
    found = predict(run_folder, tmp_path, rows, "rows.parquet", keep)
    assert found.column_names == keep + scores.column_names
    for name in keep:
        assert found.column(name).to_pylist() == rows.column(name).to_pylist(), name
        assert found.schema.field(name).type == rows.schema.field(name).type, name
    from_csv = predict(run_folder, tmp_path, rows, "rows.csv", keep)
    for name in ("user_id", "impression_id", "extra"):
        texts = ["" if value is None else str(value) for value in rows.column(name).to_pylist()]
        assert [text or "" for text in from_csv.column(name).to_pylist()] == texts, name
    assert from_csv.select(scores.column_names).equals(scores)


def test_several_inputs_and_folders_follow_each_other(scored, tmp_path):
    _, run_folder, _, rows, scores = scored
    (tmp_path / "folder").mkdir()
    cuts = [0, 10, 11, len(rows)]
    for part, (first, last) in enumerate(zip(cuts, cuts[1:])):
        pyarrow.parquet.write_table(rows.slice(first, last - first), tmp_path / "folder" / f"part-{part}.parquet")
    succeed("predict", run_folder, "--input", tmp_path / "folder", "--output", tmp_path / "scores.parquet", "--quiet")
    found = pyarrow.parquet.read_table(tmp_path / "scores.parquet")
    assert len(found) == len(scores)
    for name in scores.column_names:
        numpy.testing.assert_allclose(found.column(name).to_numpy(), scores.column(name).to_numpy(), rtol=1e-5)


def test_the_run_can_be_moved(scored, tmp_path):
    """A run folder alone is enough to score raw rows."""
    logs, run_folder, _, _, scores = scored
    shutil.copytree(run_folder, tmp_path / "elsewhere")
    succeed("predict", "elsewhere", "--input", logs.raw / "test.parquet", "--output", "scores.parquet", "--quiet", cwd=tmp_path)
    assert pyarrow.parquet.read_table(tmp_path / "scores.parquet").equals(scores)


def test_a_column_that_is_not_there_cannot_be_kept(scored, tmp_path):
    logs, run_folder, _, _, _ = scored
    done = run(
        "predict", run_folder, "--input", logs.raw / "test.parquet", "--output", tmp_path / "scores.parquet", "--keep", "user_idd"
    )
    assert done.code == 1 and "--keep user_idd" in done.err and "user_id" in done.err
    assert list(tmp_path.iterdir()) == []
