"""AITM (Xi et al., KDD 2021): each task attends to its own feature and to what the task before it hands on; its probability is that of
the whole path, and may not exceed that of the path before."""

import math

import torch

from .layers import ACTIVATIONS, mlp, stacked_linear
from .losses import bce, masked_mean
from .paths import conversions, path_names, path_targets, weighted_total


def groups(tasks):
    return 1


def depths(tasks):
    """How many events come before each task."""
    result = []
    for task in tasks:
        result.append(0 if task["parent"] < 0 else result[task["parent"]] + 1)
    return result


def attention(inputs, weights, name, e):
    """softmax over the inputs u of <Q u, K u> / sqrt(d), mixing V u. inputs: [B,d] each."""
    width = inputs[0].shape[1]
    projected = [stacked_linear(u, weights, name, e).split(width, dim=1) for u in inputs]
    scores = torch.stack([(query * key).sum(1) / math.sqrt(width) for query, key, _ in projected], dim=1)
    share = torch.softmax(scores, dim=1)
    return sum(share[:, k : k + 1] * value for k, (_, _, value) in enumerate(projected))


def features(x, weights, config, tasks, info):
    depth = depths(info["tasks"])
    result = []
    for t, task in enumerate(info["tasks"]):
        own = mlp(x[0], weights, "tower", t, config["hidden"], config["activation"], shared_input=True)
        if task["parent"] >= 0:
            name = f"transfer{depth[t]}"
            place = depth[:t].count(depth[t])
            handed_on = ACTIVATIONS[config["activation"]](stacked_linear(result[task["parent"]], weights, f"{name}.info", place))
            own = attention([own, handed_on], weights, f"{name}.attention", place)
        result.append(own)
    return result


def forward(x, weights, config, info):
    z = features(x, weights, config, len(info["tasks"]), info)
    return {"logits": [stacked_linear(f, weights, "head", t)[:, 0] for t, f in enumerate(z)]}


def loss(output, batch, task_weights, config, info):
    tasks = info["tasks"]
    paths = path_targets(batch, tasks)
    values = [masked_mean(bce(z, y), w) for z, (y, w) in zip(output["logits"], paths)]
    shares = list(values)
    excesses = []
    targets = batch.targets()
    for t in conversions(tasks):
        root = tasks[t]["parent"]
        while tasks[root]["parent"] >= 0:
            root = tasks[root]["parent"]
        above = torch.sigmoid(output["logits"][t]) - torch.sigmoid(output["logits"][tasks[t]["parent"]])
        known = bool((paths[t][1] > 0).any())
        excesses.append(masked_mean(torch.clamp(above, min=0), targets[root][1]) * known)
        shares[t] = shares[t] + config["constraint"] * excesses[-1]
    names = path_names(tasks) + [tasks[t]["name"] + ".excess" for t in conversions(tasks)]
    return weighted_total(shares, task_weights), names, values + excesses
