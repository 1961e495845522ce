"""Weights and checkpoints are safetensors files that the Python package reads."""

import json

import numpy
import pytest
import yaml
from safetensors import safe_open
from support import read_manifest


def open_file(path):
    return safe_open(str(path), framework="numpy")


@pytest.fixture(scope="module")
def weights(trained):
    with open_file(trained / "model.safetensors") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def test_every_weight_is_finite_and_none_is_empty(weights):
    for name, tensor in weights.items():
        assert tensor.size > 0, name
        assert numpy.isfinite(tensor).all(), name


def test_embeddings_have_a_row_for_every_value_of_every_table(weights, simulated, trained):
    rows = sum(table["rows"] for table in read_manifest(simulated.data)["dataset"]["tables"])
    dim = yaml.safe_load((trained / "config.yaml").read_text())["embedding"]["dim"]
    assert [tensor.shape for name, tensor in weights.items() if name.startswith("embedding")] == [(rows, dim)]


def test_one_head_a_task_and_one_transmitter_a_conversion(weights, simulated):
    tasks = read_manifest(simulated.data)["dataset"]["tasks"]
    conversions = [task for task in tasks if task["parent"] >= 0]
    heads = {name: tensor.shape for name, tensor in weights.items() if "head" in name}
    assert heads, sorted(weights)
    assert {shape[0] for shape in heads.values()} <= {len(tasks), len(conversions)}
    transmitters = {name: tensor.shape for name, tensor in weights.items() if "transmitter" in name and name != "transmitter.mix.batches"}
    assert transmitters and all(shape[0] == len(conversions) for shape in transmitters.values())


def test_the_mix_is_fitted_to_the_first_pass(trained):
    with open_file(trained / "checkpoint.safetensors") as file:
        seen, state = int(file.get_tensor("transmitter.mix.batches")[0]), json.loads(file.metadata()["state"])
    assert state["epoch"] > 1 and state["batch_in_epoch"] == 0
    assert seen == state["step"] / state["epoch"]


def test_metadata_names_step_schema_and_format(simulated, trained):
    with open_file(trained / "model.safetensors") as file:
        metadata = file.metadata()
    assert metadata["schema_hash"] == read_manifest(simulated.data)["dataset"]["schema_hash"]
    assert int(metadata["step"]) > 0
    assert metadata["ektm.format"].isdigit()


def test_checkpoint_holds_the_weights_and_what_the_optimisers_keep(weights, trained):
    with open_file(trained / "checkpoint.safetensors") as file:
        shapes = {name: file.get_tensor(name).shape for name in file.keys()}
    assert all(shapes[name] == tensor.shape for name, tensor in weights.items())
    # A table's rows have their own state; the mix is fitted, heads are chosen, neither is trained by gradients.
    not_trained = ("embedding.", "transmitter.mix.", "serve.")
    dense = sum(tensor.size for name, tensor in weights.items() if not name.startswith(not_trained))
    for moment in ("optimizer.m", "optimizer.v"):
        assert numpy.prod(shapes[moment]) == dense
