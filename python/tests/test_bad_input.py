"""Bad input, damaged files and full disks: exit code 1, a message that says where, what was found, what was expected and what
to do, and nothing left behind."""

import gzip
import random
import resource
import shutil
import signal

import numpy
import pandas
import pyarrow.parquet
import pytest
from support import partial_names, prepare, run, write_config

SCHEMA = """features:
  - {name: user}
  - {name: city}
  - {name: age, kind: number}
  - {name: tags, kind: ids, separator: "|"}
tasks:
  - {name: click, label: click}
  - {name: pay, label: pay, after: click}
join:
  - {file: users.csv, key: user}
"""


def rows(seed, count=300):
    rng = random.Random(seed)
    return pandas.DataFrame(
        {
            "user": [rng.randrange(20) for _ in range(count)],
            "age": [rng.randrange(18, 80) for _ in range(count)],
            "tags": [rng.choice(["a", "b|c", "", "d|a|b"]) for _ in range(count)],
            "click": [rng.randrange(2) for _ in range(count)],
            "pay": [rng.randrange(2) for _ in range(count)],
        }
    )


@pytest.fixture
def raw(tmp_path):
    """A folder of good raw files; each test spoils one thing."""
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "schema.yaml").write_text(SCHEMA)
    for seed, split in enumerate(("train", "valid", "test")):
        rows(seed).to_csv(folder / f"{split}.csv", index=False)
    pandas.DataFrame({"user": range(20), "city": ["Oslo", "Rome"] * 10}).to_csv(folder / "users.csv", index=False)
    return folder


def expect_error(done, *words, lines=1):
    """One message on standard error with every one of the words."""
    assert done.code == 1, (done.code, done.out, done.err)
    assert done.out == ""
    assert done.err.startswith("ektm: ") and done.err.endswith("\n")
    assert len(done.err.splitlines()) == lines, done.err
    for word in words:
        assert str(word) in done.err, f"{word!r} is missing in: {done.err}"


def run_prepare(raw, output, train="train.csv", preexec_fn=None, options=()):
    return run(
        "prepare",
        "--schema",
        raw / "schema.yaml",
        "--train",
        raw / train,
        "--valid",
        raw / "valid.csv",
        "--output",
        output,
        "--quiet",
        *options,
        preexec_fn=preexec_fn,
    )


def expect_prepare_refuses(raw, *words, train="train.csv", lines=1):
    expect_error(run_prepare(raw, raw.parent / "data", train), *words, lines=lines)
    assert not (raw.parent / "data").exists()
    assert partial_names(raw.parent) == []


def edit_line(file, line, change):
    """Line numbers as an editor shows them, from 1; the header is line 1."""
    lines = file.read_text().split("\n")
    lines[line - 1] = change(lines[line - 1])
    file.write_text("\n".join(lines))


def edit_cell(raw, column, text, line=18):
    names = (raw / "train.csv").read_text().split("\n")[0].split(",")

    def change(old):
        cells = old.split(",")
        cells[names.index(column)] = text
        return ",".join(cells)

    edit_line(raw / "train.csv", line, change)


# ------------------------------------------------------------------------------------------------------------------- raw files


def test_the_raw_files_are_good_when_nothing_is_spoilt(raw):
    assert run_prepare(raw, raw.parent / "data").code == 0
    assert (raw.parent / "data" / "manifest.json").exists()


def test_missing_file(raw):
    expect_prepare_refuses(raw, "Io error", "nowhere.csv", "does not exist", "Check the path", train="nowhere.csv")


def test_empty_file(raw):
    (raw / "train.csv").write_text("")
    expect_prepare_refuses(raw, "Data error", "train.csv", "is empty", "expected a header line")


def test_header_without_rows(raw):
    (raw / "train.csv").write_text("user,age,tags,click,pay\n")
    expect_prepare_refuses(raw, "Data error", "train.csv", "no row", "expected at least one", "Check the files")


def test_header_lacks_a_column(raw):
    edit_line(raw / "train.csv", 1, lambda header: header.replace("age", "agee"))
    expect_prepare_refuses(raw, "Data error", "train.csv", "'age'", "Did you mean 'agee'?", "Correct")


def test_header_has_a_column_twice(raw):
    edit_line(raw / "train.csv", 1, lambda header: header.replace("tags", "age"))
    edit_line(raw / "schema.yaml", 5, lambda line: "")
    expect_prepare_refuses(raw, "Data error", "train.csv", "'age'", "twice", "once")


@pytest.mark.parametrize("line, change, found", [(18, lambda line: line + ",7", 6), (18, lambda line: line.rsplit(",", 1)[0], 4)])
def test_ragged_row(raw, line, change, found):
    edit_line(raw / "train.csv", line, change)
    expect_prepare_refuses(
        raw, "Data error", "train.csv, row 17 (line 18)", f"found {found} columns", "expected 5", "max_bad_rows"
    )


def test_quote_that_stays_open(raw):
    edit_cell(raw, "tags", '"open')
    expect_prepare_refuses(raw, "Data error", "train.csv, row 17 (line 18)", "quote", "not closed", "Close it")


@pytest.mark.parametrize("text", ["old", "inf", "-Infinity", "nan", "1e999", "12 years", "0x10"])
def test_no_finite_number_in_a_numeric_column(raw, text):
    edit_cell(raw, "age", text)
    expect_prepare_refuses(
        raw, "Data error", "train.csv, row 17 (line 18), column age", f"'{text}'", "expected a finite number", "Correct the data"
    )


@pytest.mark.parametrize("text", ["2", "-1", "0.5", "yes", "nan"])
def test_label_that_is_neither_0_nor_1(raw, text):
    edit_cell(raw, "click", text)
    expect_prepare_refuses(raw, "Data error", "train.csv, row 17 (line 18)", "click", f"'{text}'", "expected 0 or 1", "label")


def test_invalid_utf8(raw):
    content = (raw / "train.csv").read_bytes().split(b"\n")
    content[17] = content[17].replace(b",", b",\xff", 2)  # before the second and third cell
    content[17] = content[17].replace(b"\xff", b"", 1)
    (raw / "train.csv").write_bytes(b"\n".join(content))
    expect_prepare_refuses(raw, "Data error", "train.csv, row 17 (line 18), column tags", "UTF-8")


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_truncated_gzip(raw, kept):
    whole = gzip.compress((raw / "train.csv").read_bytes())
    (raw / "train.csv.gz").write_bytes(whole[: int(len(whole) * kept)])
    expect_prepare_refuses(
        raw, "Data error", "train.csv.gz", "damaged or cut off", "copy or write it again", train="train.csv.gz"
    )


def test_damaged_gzip(raw):
    whole = bytearray(gzip.compress((raw / "train.csv").read_bytes()))
    whole[len(whole) // 2] ^= 0xFF
    (raw / "train.csv.gz").write_bytes(whole)
    expect_prepare_refuses(raw, "Data error", "train.csv.gz", "damaged", train="train.csv.gz")


@pytest.mark.parametrize("kept", [0, 3, 0.5, 0.99])
def test_truncated_parquet(raw, kept):
    file = raw / "train.parquet"
    rows(0).to_parquet(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept) if kept < 1 else kept])
    expect_prepare_refuses(raw, "Data error", "train.parquet", "again", train="train.parquet")


@pytest.mark.parametrize("text", ["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890"])
def test_id_beyond_64_bits(raw, text):
    edit_line(raw / "schema.yaml", 2, lambda line: line + "\n  - {name: other, column: user}")
    edit_cell(raw, "user", text)
    expect_prepare_refuses(raw, "Data error", "train.csv, row 17 (line 18), column user", text, "beyond 64 bits", "expected")


def test_ids_in_a_floating_column(raw):
    frame = rows(0)
    frame["user"] = frame["user"].astype(float)
    frame.to_parquet(raw / "train.parquet")
    expect_prepare_refuses(raw, "Data error", "train.parquet", "user", "whole numbers or text", train="train.parquet")


def test_unknown_ending(raw):
    (raw / "train.csv").rename(raw / "train.txt")
    expect_prepare_refuses(raw, "train.txt", "no known ending", "expected", ".csv", "Rename the file", train="train.txt")


def test_no_positive_in_the_training_split(raw):
    frame = rows(0)
    frame["pay"] = numpy.where(frame["click"] == 1, 0, frame["pay"])
    frame.to_csv(raw / "train.csv", index=False)
    expect_prepare_refuses(raw, "Data error", "task pay", "no positive", "expected at least one", "is `after` right?")


def test_side_table_that_is_not_there(raw):
    (raw / "users.csv").unlink()
    expect_prepare_refuses(raw, "users.csv", "was not found", "looked for", "put it there")


def test_side_table_with_a_key_twice(raw):
    edit_line(raw / "users.csv", 5, lambda line: "1,Oslo")
    expect_prepare_refuses(raw, "Data error", "users.csv, row 4 (line 5), column user", "'1'", "row 2", "Remove one")


def test_feature_that_gives_the_label_away(raw):
    frame = rows(0, 2000)
    frame["age"] = frame["click"] * 2 + 1
    frame.to_csv(raw / "train.csv", index=False)
    expect_prepare_refuses(raw, "Data error", "schema.yaml", "age", "click", "allow_leak: true")


def test_one_file_as_two_splits(raw):
    done = run(
        "prepare",
        "--schema",
        raw / "schema.yaml",
        "--train",
        raw / "train.csv",
        "--valid",
        raw / "train.csv",
        "--output",
        raw.parent / "data",
    )
    expect_error(done, "Config error in --valid", "train.csv", "--train", "once")


# --------------------------------------------------------------------------------------------------------------------- schema


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("after: click", "after: clik", ["line 8", "tasks.pay.after", "'clik' is no task", "Did you mean 'click'?"]),
        (
            "label: click}",
            "label: click, after: pay}",
            ["line 7", "tasks.click.after", "in a circle", "click after pay after click", "must be a root"],
        ),
        ("after: click", "after: pay", ["line 8", "tasks.pay.after", "cannot come after itself"]),
        ("kind: number", "knid: number", ["line 4", "features.age.knid", "unknown key", "Did you mean 'features.age.kind'?"]),
        ("kind: number", "kind: nubmer", ["line 4", "features.age.kind", "found 'nubmer'", "Did you mean 'number'?"]),
        ("kind: number", "kind: number, bins: many", ["line 4", "features.age.bins", "found 'many'", "expected a whole number"]),
        ("kind: number", "kind: number, bins: -1", ["line 4", "features.age.bins", "found -1", "0 .. 1000000"]),
        ("name: city", "name: user", ["line 3", "features.user", "twice", "line 2"]),
        ("label: pay,", "label: pay >< 2,", ["line 8", "tasks.pay.label"]),
        ("name: city", "name: pay", ["line 3", "features.pay", "decides the label of the task 'pay'", "allow_leak: true"]),
        ("features:", "features: [", ["schema.yaml, line", "no valid YAML"]),
    ],
)
def test_schema(raw, old, new, words):
    text = (raw / "schema.yaml").read_text()
    assert text.count(old) == 1
    (raw / "schema.yaml").write_text(text.replace(old, new))
    expect_prepare_refuses(raw, "Config error", "schema.yaml", *words)


def test_all_problems_of_a_schema_at_once(raw):
    text = (raw / "schema.yaml").read_text().replace("kind: number", "knid: number").replace("after: click", "after: clik")
    (raw / "schema.yaml").write_text(text)
    expect_prepare_refuses(raw, "2 problems", "features.age.knid", "tasks.pay.after", lines=3)


# ----------------------------------------------------------------------------------------------------------- where output goes


def test_output_that_is_there_already(raw):
    output = raw.parent / "data"
    assert run_prepare(raw, output).code == 0
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    expect_error(run_prepare(raw, output), "Config error in --output", "data", "--force")
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    edit_cell(raw, "age", "old")  # a failed replacement leaves the old data set
    expect_error(run_prepare(raw, output, options=["--force"]), "'old'")
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    assert partial_names(raw.parent) == []


def test_folder_of_something_else_is_never_replaced(raw):
    output = raw.parent / "holiday photos"
    output.mkdir()
    (output / "photo.jpg").write_text("me")
    expect_error(run_prepare(raw, output, options=["--force"]), "Config error", "holiday photos", "Name another folder")
    assert [path.name for path in output.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize("place, named", [("a file/data", "a file"), ("/proc/ektm-data", "/proc/ektm-data")])
def test_output_where_nothing_can_be_written(raw, place, named):
    (raw.parent / "a file").write_text("I am a file")
    expect_error(run_prepare(raw, raw.parent / place), "Io error", named, "cannot create the folder", "Check the path")
    assert partial_names(raw.parent) == []
    assert (raw.parent / "a file").read_text() == "I am a file"


def small_files(bytes_a_file):
    """A disk on which no file can grow beyond so many bytes."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, bytes_a_file))

    return limit


@pytest.mark.parametrize("bytes_a_file", [0, 1000, 4000])
def test_full_disk_while_preparing(raw, bytes_a_file):
    expect_error(
        run_prepare(raw, raw.parent / "data", preexec_fn=small_files(bytes_a_file)),
        "Io error",
        "data.partial-",
        "Error writing",
        "free space on the disk",
    )
    assert not (raw.parent / "data").exists()
    assert partial_names(raw.parent) == []


def test_full_disk_while_training(simulated, tmp_path):
    config = write_config(tmp_path / "config.yaml", simulated.data)
    done = run("train", config, "--output", tmp_path / "run", "--quiet", preexec_fn=small_files(60_000))
    expect_error(done, "Io error", "run", "File too large", "disk")
    assert partial_names(tmp_path) == []


def test_full_disk_while_predicting(trained, simulated, tmp_path):
    done = run(
        "predict",
        trained,
        "--input",
        simulated.raw / "test.parquet",
        "--output",
        tmp_path / "scores.parquet",
        "--quiet",
        preexec_fn=small_files(4096),
    )
    expect_error(done, "Io error", "scores.parquet", "Error writing", "File too large", "free space on the disk")
    assert list(tmp_path.iterdir()) == []


def test_run_folder_where_nothing_can_be_written(simulated, tmp_path):
    config = write_config(tmp_path / "config.yaml", simulated.data)
    expect_error(
        run("train", config, "--output", config / "run", "--quiet"), "Io error", "run", "Not a directory", "Check the path"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


# ------------------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    "options, words",
    [
        (["optimizer.lerning_rate=1"], ["optimizer.lerning_rate", "unknown key", "Did you mean 'optimizer.learning_rate'?"]),
        (["train.epochs=many"], ["train.epochs", "found 'many'", "expected a whole number"]),
        (["train.epochs=0"], ["train.epochs", "found 0", "1 .. 100000"]),
        (["train.prefetch=perhaps"], ["train.prefetch", "found 'perhaps'", "expected true or false"]),
        (["optimizer.learning_rate=.nan"], ["optimizer.learning_rate", "nan", "0 .. 100"]),
        (["model.name=mmeo"], ["model.name", "'mmeo'", "one of: single_task, shared_bottom,", "Did you mean 'mmoe'?"]),
        (["model.backbone.dropout=2"], ["model.backbone.dropout", "found 2", "0 .. 0.95"]),
        (["model.backbone.name=ektm"], ["model.backbone.name", "'ektm'"]),
        (["model.backbone.name=esmm"], ["model.backbone.name", "'esmm' yields no task features", "mmoe"]),
        (["learning_rate=0.01"], ["learning_rate: unknown key here. Did you mean embedding.learning_rate or optimizer.learning_rate"]),
        (["train.early_stopping.metric=auc"], ["train.early_stopping.metric", "'auc'", "auc.TASK or logloss.TASK."]),
        (["train.label_shares.clik=0.5"], ["train.label_shares.clik", "no task", "'click'"]),
        (["train.early_stopping.metric=auc.clik"], ["train.early_stopping.metric", "'auc.clik'", "'auc.click'"]),
        (["loss.task_weights.clik=2"], ["loss.task_weights.clik", "no task", "'click'"]),
        (["epochs"], ["--set epochs", "expected KEY=VALUE", "--set train."]),
        (["=3"], ["--set =3", "expected KEY=VALUE"]),
        (["data="], ["data: found nothing"]),
        (["data=nowhere"], ["nowhere", "manifest.json", "ektm prepare"]),
    ],
)
def test_config_options(simulated, tmp_path, options, words):
    config = write_config(tmp_path / "config.yaml", simulated.data)
    sets = [word for option in options for word in ("--set", option)]
    done = run("train", config, "--output", tmp_path / "run", "--quiet", *sets)
    expect_error(done, *words)
    assert "line " not in done.err  # the file is not to blame
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_config_file_names_the_line(simulated, tmp_path):
    config = write_config(tmp_path / "config.yaml", simulated.data)
    lines = config.read_text().splitlines()
    number = next(i for i, line in enumerate(lines, 1) if "batch_rows" in line)
    lines[number - 1] = "  batch_row: 3"
    config.write_text("\n".join(lines))
    expect_error(
        run("train", config, "--output", tmp_path / "run"),
        "config.yaml",
        f"line {number}",
        "train.batch_row",
        "Did you mean 'train.batch_rows'?",
    )


def test_config_file_that_is_none(tmp_path):
    expect_error(
        run("train", tmp_path / "nowhere.yaml", "--output", tmp_path / "run"), "nowhere.yaml", "No such file", "Check the path"
    )
    (tmp_path / "broken.yaml").write_text("model: {name: mmoe\ntrain: 3\n")
    expect_error(run("train", tmp_path / "broken.yaml", "--output", tmp_path / "run"), "broken.yaml, line", "no valid YAML")
    (tmp_path / "twice.yaml").write_text("model: {name: mmoe}\nseed: 1\nseed: 2\n")
    expect_error(
        run("train", tmp_path / "twice.yaml", "--output", tmp_path / "run"), "twice.yaml, line 3", "'seed'", "second time"
    )
    (tmp_path / "no_data.yaml").write_text("model: {name: mmoe}\n")
    expect_error(
        run("train", tmp_path / "no_data.yaml", "--output", tmp_path / "run"), "Config error in data", "not given", "--set data="
    )
    assert not (tmp_path / "run").exists()


def test_run_folder_that_exists(trained, simulated, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    config = write_config(tmp_path / "config.yaml", simulated.data)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    expect_error(
        run("train", config, "--output", tmp_path / "run"), "Config error in --output", "not empty", "--resume", "--overwrite"
    )
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_overwrite_never_replaces_what_is_no_run(simulated, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("...")
    config = write_config(tmp_path / "config.yaml", simulated.data)
    expect_error(run("train", config, "--output", tmp_path / "home", "--overwrite"), "home", "no config.yaml", "another folder")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]


def test_resume_without_a_checkpoint(simulated, tmp_path):
    config = write_config(tmp_path / "config.yaml", simulated.data)
    expect_error(
        run("train", config, "--output", tmp_path / "run", "--resume", "--quiet"),
        "--resume",
        "run",
        "no checkpoint.safetensors",
        "without --resume",
    )
    assert not (tmp_path / "run").exists()


def test_loss_that_is_no_number_names_step_task_and_checkpoint(simulated, tmp_path):
    config = write_config(
        tmp_path / "config.yaml",
        simulated.data,
        embedding={"optimizer": "sgd", "learning_rate": 100, "l2": 100},
        train={"checkpoint_every_steps": 1},
    )
    done = run("train", config, "--output", tmp_path / "run", "--quiet")
    expect_error(
        done,
        "Model error in step ",
        "task register",
        "NaN or infinite",
        "lower optimizer.learning_rate",
        "run/checkpoint.safetensors",
    )
    assert (tmp_path / "run" / "checkpoint.safetensors").exists() and not (tmp_path / "run" / "metrics.json").exists()


def test_validation_split_without_positives(raw):
    frame = rows(1)
    frame["click"] = 0
    frame.to_csv(raw / "valid.csv", index=False)
    data = prepare(raw / "schema.yaml", raw.parent / "data", train=raw / "train.csv", valid=raw / "valid.csv")
    config = write_config(raw.parent / "config.yaml", data)
    expect_error(
        run("train", config, "--output", raw.parent / "run", "--quiet"),
        "Data error",
        "validation split",
        "positives",
        "min_positives",
    )
    assert not (raw.parent / "run").exists()


# ------------------------------------------------------------------------------------------------------- damage, and other data


def flip(file, at=0.5):
    content = bytearray(file.read_bytes())
    content[int(len(content) * at)] ^= 0x10
    file.write_bytes(content)


@pytest.mark.parametrize("file", ["manifest.json", "train/part-00000.arrow", "valid/part-00000.arrow"])
def test_damaged_encoded_data(simulated, tmp_path, file):
    shutil.copytree(simulated.data, tmp_path / "data")
    flip(tmp_path / "data" / file)
    config = write_config(tmp_path / "config.yaml", tmp_path / "data")
    expect_error(run("train", config, "--output", tmp_path / "run", "--quiet"), "Data error", file, "damaged", "ektm prepare")
    assert not (tmp_path / "run").exists() and partial_names(tmp_path) == []


def test_encoded_data_that_lacks_a_part(simulated, tmp_path):
    shutil.copytree(simulated.data, tmp_path / "data")
    (tmp_path / "data" / "train" / "part-00000.arrow").unlink()
    config = write_config(tmp_path / "config.yaml", tmp_path / "data")
    expect_error(run("train", config, "--output", tmp_path / "run"), "part-00000.arrow", "missing", "ektm prepare")


@pytest.mark.parametrize("at", [0.01, 0.3, 0.999])
def test_damaged_weights(trained, simulated, tmp_path, at):
    shutil.copytree(trained, tmp_path / "run")
    flip(tmp_path / "run" / "model.safetensors", at)
    expect_error(run("evaluate", tmp_path / "run", "--quiet"), "error in", "model.safetensors", "again")
    done = run("predict", tmp_path / "run", "--input", simulated.raw / "test.parquet", "--output", tmp_path / "scores.parquet")
    expect_error(done, "model.safetensors")
    assert not (tmp_path / "scores.parquet").exists()


@pytest.mark.parametrize("at", [0.0, 0.001, 0.5, 0.999])
def test_damaged_checkpoint(trained, tmp_path, at):
    shutil.copytree(trained, tmp_path / "run")
    flip(tmp_path / "run" / "checkpoint.safetensors", at)
    expect_error(
        run("train", tmp_path / "run" / "config.yaml", "--output", tmp_path / "run", "--resume", "--quiet"),
        "checkpoint.safetensors",
    )


@pytest.mark.parametrize(
    "old, new",
    [
        (b'{\\"bad_validations', b'[\\"bad_validations'),
        (b'best_step\\":', b'bets_step\\":'),
        (b'finished\\":true', b'finished\\":1234'),
        (b"schema_hash", b"schema_hahs"),
        (b'"ektm.format":"1"', b'"ektm.format":"9"'),
    ],
)
def test_damaged_state_of_a_checkpoint(trained, tmp_path, old, new):
    shutil.copytree(trained, tmp_path / "run")
    file = tmp_path / "run" / "checkpoint.safetensors"
    content = file.read_bytes()
    assert content.count(old) == 1
    file.write_bytes(content.replace(old, new))
    expect_error(
        run("train", tmp_path / "run" / "config.yaml", "--output", tmp_path / "run", "--resume", "--quiet"),
        "checkpoint.safetensors",
    )


def test_truncated_checkpoint(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    file = tmp_path / "run" / "checkpoint.safetensors"
    for kept in (file.stat().st_size - 1, 5000, 7, 0):
        file.write_bytes((trained / "checkpoint.safetensors").read_bytes()[:kept])
        expect_error(
            run("train", tmp_path / "run" / "config.yaml", "--output", tmp_path / "run", "--resume", "--quiet"),
            "Data error",
            "checkpoint.safetensors",
            "damaged",
            "train again",
        )


@pytest.mark.parametrize("file", ["encoders.json", "vocabulary_000.arrow"])
def test_damaged_encoders(trained, simulated, tmp_path, file):
    shutil.copytree(trained, tmp_path / "run")
    flip(tmp_path / "run" / "encoders" / file)
    done = run("predict", tmp_path / "run", "--input", simulated.raw / "test.parquet", "--output", tmp_path / "scores.parquet")
    expect_error(done, file, "damaged")
    assert not (tmp_path / "scores.parquet").exists()


def test_run_on_data_of_another_schema(trained, raw, tmp_path):
    data = prepare(
        raw / "schema.yaml", tmp_path / "data", **{split: raw / f"{split}.csv" for split in ("train", "valid", "test")}
    )
    for command in (["evaluate", trained, "--data", data, "--quiet"], ["inspect", trained, "--data", data]):
        expect_error(run(*command), "Data error", data, "schema hash", "the run's schema.yaml")
    shutil.copytree(trained, tmp_path / "run")
    done = run("train", trained / "config.yaml", "--set", f"data={data}", "--output", tmp_path / "run", "--resume", "--quiet")
    expect_error(done, "Config error", "checkpoint.safetensors", "schema hash", str(data))


def test_run_on_data_with_encoders_of_other_rows(trained, simulated, tmp_path):
    """The same schema, but the vocabularies of other rows: ids would mean other values."""
    data = prepare(
        simulated.raw / "schema.yaml",
        tmp_path / "data",
        train=simulated.raw / "test.parquet",
        test=simulated.raw / "valid.parquet",
    )
    expect_error(
        run("evaluate", trained, "--data", data, "--quiet"),
        "Data error",
        data,
        "table user_id",
        "other training data",
        "ektm predict",
    )


def test_folder_that_is_no_run(tmp_path):
    for command in ("evaluate", "inspect", "report"):
        expect_error(run(command, tmp_path), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_split_that_the_data_lacks(raw, trained, simulated, tmp_path):
    data = prepare(simulated.raw / "schema.yaml", tmp_path / "data", train=simulated.raw / "train.parquet")
    expect_error(run("evaluate", trained, "--data", data, "--quiet"), "no split 'test'", "train", "--test")


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda table: table.drop_columns(["item_id"]), ["rows.parquet", "'item_id'"]),
        (lambda table: table.slice(0, 0), ["rows.parquet", "no rows"]),
    ],
)
def test_rows_that_cannot_be_scored(trained, simulated, tmp_path, spoil, words):
    pyarrow.parquet.write_table(spoil(pyarrow.parquet.read_table(simulated.raw / "test.parquet")), tmp_path / "rows.parquet")
    expect_error(
        run("predict", trained, "--input", tmp_path / "rows.parquet", "--output", tmp_path / "scores.parquet", "--quiet"),
        "Data error",
        *words,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


@pytest.mark.parametrize(
    "options, words",
    [
        (["--ctr", "2"], ["ctr", "found 2", "0.0001 .. 0.9"]),
        (["--rows", "many"], ["rows", "'many'", "whole number"]),
        (["--rates", "register=0.1,rigester=0.2"], ["rates", "rigester", "register"]),
        (["--pattern", "circular"], ["pattern", "'circular'", "parallel, sequential"]),
    ],
)
def test_simulation_options(tmp_path, options, words):
    expect_error(run("simulate", "logs", "--output", tmp_path / "raw", *options), *words)
    assert list(tmp_path.iterdir()) == []
