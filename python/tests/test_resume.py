"""A run that was killed or interrupted and resumed is the uninterrupted run, bit for bit."""

import re
import shlex
import shutil
import signal
import time

import pytest
import yaml
from support import (
    read_history,
    read_tensors,
    run,
    start,
    state_of,
    steps_in_checkpoint,
    stop_at,
    succeed,
    without_times,
    write_config,
)

# A model with dropout, a schedule over the whole run and moments in every optimiser; another with none of them in common.
VARIANTS = {
    "ektm, dropout, cosine": {
        "model": {
            "name": "ektm",
            "transmitter_dropout": 0.2,
            "serve": "validated",
            "backbone": {"name": "mmoe", "experts": 2, "expert_hidden": [16], "tower_hidden": [8], "dropout": 0.1},
        },
        "optimizer": {"schedule": "cosine", "warmup_steps": 20, "weight_decay": 0.01, "clip_norm": 1.0},
    },
    "ple, adagrad, linear": {
        "model": {
            "name": "ple",
            "levels": 2,
            "task_experts": 1,
            "shared_experts": 1,
            "expert_hidden": [8],
            "tower_hidden": [8],
            "dropout": 0.3,
        },
        "embedding": {"optimizer": "rowwise_adagrad", "l2": 0.001},
        "optimizer": {"schedule": "linear", "final_ratio": 0.1},
    },
    "home, running statistics": {
        "model": {"name": "home", "expert_hidden": [8], "tower_hidden": [8], "gate_rank": 2, "dropout": 0.3},
    },
}
STEPS = 320


def configure(folder, simulated, variant, **train):
    sections = {
        "train": {
            "batch_rows": 128,
            "epochs": 100,
            "max_steps": STEPS,
            "validate_every_steps": 40,
            "checkpoint_every_steps": 7,
            "early_stopping": {"min_positives": 5, "patience": 0},
            **train,
        }
    }
    return write_config(folder / "config.yaml", simulated.data, **VARIANTS[variant], **sections)


def expect_same_run(found, expected):
    assert (found / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    assert state_of(found) == state_of(expected)
    assert without_times(read_history(found)) == without_times(read_history(expected))
    for name in ("metrics.json", "metrics-valid.json", "schema.yaml", "config.yaml"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


@pytest.fixture(scope="module", params=VARIANTS)
def uninterrupted(request, simulated, tmp_path_factory):
    """(config, folder of the run)"""
    folder = tmp_path_factory.mktemp("uninterrupted")
    config = configure(folder, simulated, request.param)
    succeed("train", config, "--output", folder / "run", "--quiet")
    assert read_history(folder / "run")[-1]["step"] == STEPS
    return config, folder / "run"


def test_killed_again_and_again(uninterrupted, tmp_path):
    """kill -9 early, before and after validations, and in the first steps after a resumption."""
    config, expected = uninterrupted
    for number, step in enumerate((1, 35, 42, 43, 120, 170)):
        process = start("train", config, "--output", tmp_path / "run", "--quiet", *(["--resume"] if number else []))
        code, _, _ = stop_at(process, tmp_path / "run", step, signal.SIGKILL)
        assert code == -signal.SIGKILL
        assert not (tmp_path / "run" / "metrics.json").exists()
    succeed("train", config, "--output", tmp_path / "run", "--resume", "--quiet")
    expect_same_run(tmp_path / "run", expected)


def test_interrupted_writes_a_checkpoint_and_prints_the_command_that_goes_on(uninterrupted, simulated, tmp_path):
    """The command is taken from the message and run as it stands: also where options of the first command decide the run."""
    config, expected = uninterrupted
    other = tmp_path / "without what the options give.yaml"
    content = yaml.safe_load(config.read_text())
    del content["data"], content["threads"], content["train"]["max_steps"]
    other.write_text(yaml.safe_dump(content))
    options = ["--set", f"data={simulated.data}", "--set", f"train.max_steps={STEPS}", "--seed", "1", "--threads", "1"]
    process = start("train", other, *options, "--output", tmp_path / "run", "--quiet")
    code, out, err = stop_at(process, tmp_path / "run", 50, signal.SIGINT)
    assert code == 130
    said = re.search(r"Interrupted after step (\d+); the checkpoint is written. Go on with:\n  ektm (train .*)\n", err)
    assert said, err
    assert steps_in_checkpoint(tmp_path / "run") == int(said[1]) >= 50
    succeed(*shlex.split(said[2]), "--quiet")
    expect_same_run(tmp_path / "run", expected)


def test_terminated_before_the_first_validation(uninterrupted, tmp_path):
    config, expected = uninterrupted
    process = start("train", config, "--output", tmp_path / "run", "--set", "train.checkpoint_every_steps=0", "--quiet")
    while not (tmp_path / "run" / "tensorboard").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    assert 1 <= steps_in_checkpoint(tmp_path / "run") < STEPS


def test_resuming_a_finished_run_changes_nothing(uninterrupted, tmp_path):
    config, expected = uninterrupted
    shutil.copytree(expected, tmp_path / "run")
    succeed("train", config, "--output", tmp_path / "run", "--resume", "--quiet")
    expect_same_run(tmp_path / "run", expected)


def test_early_stopping_counts_over_an_interruption(simulated, tmp_path):
    """Learning rates far too high: validations get no better, so patience runs out, whether the run was cut or not."""
    config = configure(
        tmp_path, simulated, "ektm, dropout, cosine", validate_every_steps=10, early_stopping={"min_positives": 5, "patience": 6}
    )
    rates = ["--set", "optimizer.learning_rate=0.2", "--set", "embedding.learning_rate=0.2", "--quiet"]
    succeed("train", config, "--output", tmp_path / "whole", *rates)
    last = read_history(tmp_path / "whole")[-1]["step"]
    assert last < STEPS
    assert state_of(tmp_path / "whole")[1]["best_step"] == last - 60
    stop_at(start("train", config, "--output", tmp_path / "cut", *rates), tmp_path / "cut", last - 25, signal.SIGKILL)
    succeed("train", config, "--output", tmp_path / "cut", "--resume", *rates)
    expect_same_run(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize("threads", [1, 2])
def test_same_seed_and_threads_same_bits_and_prefetch_has_no_influence(simulated, tmp_path, threads):
    config = configure(tmp_path, simulated, "ektm, dropout, cosine", max_steps=60)
    options = ["--threads", threads, "--seed", "9", "--quiet"]
    succeed("train", config, "--output", tmp_path / "one", *options)
    succeed("train", config, "--output", tmp_path / "two", *options)
    succeed("train", config, "--output", tmp_path / "no prefetch", *options, "--set", "train.prefetch=false")
    expect_same_run(tmp_path / "two", tmp_path / "one")
    assert state_of(tmp_path / "no prefetch") == state_of(tmp_path / "one")
    assert (tmp_path / "no prefetch" / "model.safetensors").read_bytes() == (tmp_path / "one" / "model.safetensors").read_bytes()


def test_bf16_gives_the_same_bits_again_and_goes_on(simulated, tmp_path):
    """The run keeps the precision that it began with; `auto` in the config that resumes it is no contradiction."""
    config = configure(tmp_path, simulated, "ektm, dropout, cosine", max_steps=60)
    bf16 = ["--set", "precision=bf16"]
    for name in ("one", "two"):
        succeed("train", config, "--output", tmp_path / name, "--quiet", *bf16)
    expect_same_run(tmp_path / "two", tmp_path / "one")
    stop_at(start("train", config, "--output", tmp_path / "cut", *bf16), tmp_path / "cut", 30, signal.SIGTERM)
    succeed("train", config, "--output", tmp_path / "cut", "--resume")
    expect_same_run(tmp_path / "cut", tmp_path / "one")
    assert "precision: bf16" in (tmp_path / "cut" / "config.yaml").read_text()
    refused = run("train", config, "--output", tmp_path / "cut", "--resume", "--set", "precision=f32")
    assert refused.code == 1
    assert "precision is f32 instead of bf16" in refused.err


@pytest.mark.parametrize("method", ["uncertainty", "dwa", "gradnorm", "pcgrad", "metabalance"])
def test_loss_balancing_goes_on_where_it_was(simulated, tmp_path, method):
    """With what each method has learned or averaged; the weights that it came to are in the history."""
    config = configure(tmp_path, simulated, "ektm, dropout, cosine", max_steps=60, validate_every_steps=20)
    options = ["--set", f"loss.balance={method}", "--set", "loss.balancing.window_steps=9", "--quiet"]
    succeed("train", config, "--output", tmp_path / "whole", *options)
    stop_at(start("train", config, "--output", tmp_path / "cut", *options), tmp_path / "cut", 25, signal.SIGKILL)
    succeed("train", config, "--output", tmp_path / "cut", "--resume", *options)
    expect_same_run(tmp_path / "cut", tmp_path / "whole")
    history = read_history(tmp_path / "whole")
    tasks = set(history[-1]["train_loss"]) - {"total"}
    assert all(line["balance"].keys() == {task for task in tasks if not task.endswith(".enhanced")} for line in history)
    assert any(abs(weight - 1) > 1e-3 for weight in history[-1]["balance"].values())


def test_another_seed_differs_in_every_large_tensor(simulated, tmp_path):
    config = configure(tmp_path, simulated, "ektm, dropout, cosine", max_steps=40)
    for seed in (1, 2):
        succeed("train", config, "--output", tmp_path / f"seed {seed}", "--seed", seed, "--quiet")
    _, one = read_tensors(tmp_path / "seed 1" / "model.safetensors")
    _, two = read_tensors(tmp_path / "seed 2" / "model.safetensors")
    assert {name: entry[:2] for name, entry in one.items()} == {name: entry[:2] for name, entry in two.items()}
    assert [name for name in one if len(one[name][2]) >= 1000 and one[name][2] == two[name][2]] == []


def test_another_run_of_the_config_is_not_mixed_in(uninterrupted, tmp_path):
    """--resume with a config that differs from the run's own would give a run that no config describes."""
    config, expected = uninterrupted
    shutil.copytree(expected, tmp_path / "run")
    done = run("train", config, "--output", tmp_path / "run", "--resume", "--seed", "5")
    assert done.code == 1
    assert "seed" in done.err and "5" in done.err and "config.yaml" in done.err
    expect_same_run(tmp_path / "run", expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_prepare_leaves_nothing(simulated, tmp_path, number):
    raw = tmp_path / "raw"
    succeed("simulate", "logs", "--output", raw, "--quick", "--rows", "400000", "--format", "csv", "--quiet")
    folder = tmp_path / "out"
    folder.mkdir()
    files = [option for split in ("train", "valid", "test") for option in (f"--{split}", raw / f"{split}.csv")]
    process = start("prepare", "--schema", raw / "schema.yaml", *files, "--output", folder / "data", "--threads", "1")
    while not any(folder.iterdir()):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    assert "nothing is left" in err.decode()
    assert not any(folder.iterdir())
