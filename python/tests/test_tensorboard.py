"""TensorBoard itself reads the events of a run, and finds the numbers of history.jsonl."""

import pytest
from support import read_history
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


@pytest.fixture(scope="module")
def events(trained):
    accumulator = EventAccumulator(str(trained / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


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


def test_tags_steps_and_values_are_those_of_the_history(events, trained):
    history = read_history(trained)
    assert len(history) >= 3
    expected = expected_scalars(history)
    assert set(events.Tags()["scalars"]) == set(expected) | {"learning_rate"}
    for tag, points in expected.items():
        found = events.Scalars(tag)
        assert [event.step for event in found] == [step for step, _ in points], tag
        assert [event.value for event in found] == pytest.approx([value for _, value in points], rel=1e-6), tag


def test_constant_learning_rate_is_the_configured_one(events, trained):
    found = events.Scalars("learning_rate")
    assert [event.step for event in found] == [line["step"] for line in read_history(trained)]
    assert [event.value for event in found] == pytest.approx([0.005] * len(found))


def test_times_rise(events):
    times = [event.wall_time for event in events.Scalars("train_loss/total")]
    assert times == sorted(times) and times[0] > 1.7e9
