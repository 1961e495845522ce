"""A pool of modules in each layer; a task mixes them by weights of its own, the same for every row (after Bashkirova et al. 2021)."""

import torch

from .layers import ACTIVATIONS, fan_out_linear, mlp


def groups(tasks):
    return 1


def features(x, weights, config, tasks, info):
    result = []
    for t in range(tasks):
        h = x[0]
        for layer in range(len(config["hidden"])):
            share = torch.softmax(weights[f"selection.{layer}"][t], dim=0)
            modules = [ACTIVATIONS[config["activation"]](fan_out_linear(h, weights, f"module.{layer}", m)) for m in range(config["modules"])]
            h = sum(share[m] * module for m, module in enumerate(modules))
        result.append(mlp(h, weights, "tower", t, config["tower_hidden"], config["activation"], False))
    return result
