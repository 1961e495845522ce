"""TensorBoard itself reads the events of a run, and finds the numbers of history.jsonl."""

import signal

import pytest
from support import read_history, start, stop_at, succeed, write_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def read_events(run_folder):
    accumulator = EventAccumulator(str(run_folder / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


@pytest.fixture(scope="module")
def events(trained):
    return read_events(trained)


def expected_scalars(history):
    scalars = {}
    for line in history:
        for section, tag in (
            (line["train_loss"], "train_loss"),
            (line["valid"]["auc"], "valid_auc"),
            (line["valid"]["logloss"], "valid_logloss"),
        ):
            for name, value in section.items():
                scalars.setdefault(f"{tag}/{name}", []).append((line["step"], value))
        scalars.setdefault("valid/mean_auc", []).append((line["step"], line["valid"]["selection"]))
    return scalars


def expect_events_of_history(events, history):
    expected = expected_scalars(history)
    assert set(events.Tags()["scalars"]) == set(expected) | {"learning_rate"}
    for tag, points in expected.items():
        found = events.Scalars(tag)
        assert [event.step for event in found] == [step for step, _ in points], tag
        assert [event.value for event in found] == pytest.approx([value for _, value in points], rel=1e-6), tag


def test_tags_steps_and_values_are_those_of_the_history(events, trained):
    history = read_history(trained)
    assert len(history) >= 3
    expect_events_of_history(events, history)


def test_killed_and_resumed_run_has_every_step_once(simulated, tmp_path):
    """What the killed session wrote after its last checkpoint is written again by the next one."""
    config = write_config(
        tmp_path / "config.yaml",
        simulated.data,
        train={"epochs": 4, "validate_every_steps": 10, "early_stopping": {"min_positives": 5, "patience": 0}},
    )
    process = start("train", config, "--output", tmp_path / "run", "--quiet")
    stop_at(process, tmp_path / "run", 60, signal.SIGKILL)
    succeed("train", config, "--output", tmp_path / "run", "--resume", "--quiet")
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 2
    expect_events_of_history(read_events(tmp_path / "run"), read_history(tmp_path / "run"))


def test_constant_learning_rate_is_the_configured_one(events, trained):
    found = events.Scalars("learning_rate")
    assert [event.step for event in found] == [line["step"] for line in read_history(trained)]
    assert [event.value for event in found] == pytest.approx([0.005] * len(found))


def test_times_rise(events):
    times = [event.wall_time for event in events.Scalars("train_loss/total")]
    assert times == sorted(times) and times[0] > 1.7e9
