"""Entire-space multi-task model (Ma et al., SIGIR 2018): L = sum_t a_t BCE(path label of t, P_t) over all impressions."""

from .layers import mlp, stacked_linear
from .paths import path_losses, path_names, path_targets, weighted_total


def groups(tasks):
    return 1


def towers(x, weights, config, tasks):
    return [mlp(x[0], weights, "tower", t, config["hidden"], config["activation"], shared_input=True) for t in range(len(tasks))]


def heads(features, weights):
    return [stacked_linear(f, weights, "head", t)[:, 0] for t, f in enumerate(features)]


def forward(x, weights, config, info):
    return {"logits": heads(towers(x, weights, config, info["tasks"]), weights)}


def loss(output, batch, task_weights, config, info):
    tasks = info["tasks"]
    values = path_losses(output["logits"], path_targets(batch, tasks), tasks)
    return weighted_total(values, task_weights), path_names(tasks), values
