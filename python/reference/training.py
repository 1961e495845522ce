"""Outputs, losses, gradients and optimiser steps of a model, from its config and weights by name."""

import torch

from . import (aitm, cross_distil, cross_stitch, dcmt, ektm, escm2, esmm, home, metaheac, mkt, mmoe, modular, omoe, pepnet, ple, shared_bottom,
               single_task, stem)
from .balancing import X, Balancer
from .embedding import group_input, touched_rows
from .layers import rounded_products
from .losses import ektm_loss, standard_loss
from .optimizers import Adam, clip_factor, embedding_optimizer, learning_rate_factor

# groups(tasks), features(x, weights, config, tasks, info) -> K tensors [B,d]
# where a model has running statistics also buffers(x, weights, config, tasks, info) -> them after a training batch, by name
BACKBONES = {"single_task": single_task, "shared_bottom": shared_bottom, "omoe": omoe, "mmoe": mmoe, "ple": ple,
             "cross_stitch": cross_stitch, "aitm": aitm, "stem": stem, "pepnet": pepnet, "modular": modular, "home": home}
# groups(tasks), forward(x, weights, config, info) -> {"logits": K tensors [B], ...}; where the loss is the model's own
# also loss(output, batch, task_weights, config, info) -> total, names, values
MODELS = {"aitm": aitm, "esmm": esmm, "escm2_ipw": escm2, "escm2_dr": escm2, "dcmt": dcmt, "metaheac": metaheac,
          "cross_distil": cross_distil, "mkt": mkt}
EMBEDDING = "embedding.weights"
MIX = tuple(f"transmitter.mix.{name}" for name in ("start", "coefficients", "information", "response", "scale", "batches"))
BUFFERS = ("router.label_similarity", "serve.enhanced", "serve.shift", *MIX, ".running_mean", ".running_variance")  # ends of the names of what is saved, not trained


def inputs(config, info, weights, batch):
    """[B,D] of each embedding group."""
    model, tasks = config["model"], len(info["tasks"])
    module = MODELS.get(model["name"]) or BACKBONES[model["backbone"]["name"] if model["name"] == "ektm" else model["name"]]
    return [group_input(info, batch, weights, g, config) for g in range(module.groups(tasks))]


def forward(config, info, weights, batch, x=None):
    """Logits by head, each [heads,B]. x: inputs(), where the caller wants its gradient."""
    model, tasks = config["model"], len(info["tasks"])
    x = inputs(config, info, weights, batch) if x is None else x
    if model["name"] in MODELS:
        module = MODELS[model["name"]]
        return {name: torch.stack(heads) for name, heads in module.forward(x, weights, model, info).items()}
    backbone_config = model["backbone"] if model["name"] == "ektm" else model
    assert not backbone_config["dropout"] and not model.get("transmitter_dropout"), "dropout is random: not part of the reference"
    backbone = BACKBONES[backbone_config["name"]]
    features = backbone.features(x, weights, backbone_config, tasks, info)
    if model["name"] == "ektm":
        output = ektm.forward(features, weights, model, info["tasks"])
    else:
        output = {"logits": [ektm.head(f, weights, "head", t) for t, f in enumerate(features)]}
    return {name: torch.stack(heads) for name, heads in output.items() if heads is not None}


def loss(config, info, output, batch):
    """Total, names and values."""
    names = [task["name"] for task in info["tasks"]]
    weights_by_task = config["loss"]["task_weights"] or {}
    task_weights = [weights_by_task.get(name, 1.0) for name in names]
    model = config["model"]
    if hasattr(MODELS.get(model["name"]), "loss"):
        total, names, values = MODELS[model["name"]].loss(output, batch, task_weights, model, info)
    elif model["name"] == "ektm" and model["enhanced"]:
        _, conversions = ektm.roots_and_conversions(info["tasks"])
        total, values = ektm_loss(output, batch.targets(), task_weights, conversions, model)
        names = names + [names[c] + ".enhanced" for c in conversions]
    else:
        total, values = standard_loss(output, batch.targets(), task_weights)
    return total, names, torch.stack(values).detach()


def gradients(config, info, weights, batch):
    """Outputs, (total, names, values) of the loss, and the gradient of each trained tensor; the embeddings' includes l2."""
    leaves = {name: w.clone().requires_grad_(not name.endswith(BUFFERS)) for name, w in weights.items()}
    with rounded_products(config["precision"] == "bf16"):
        output = forward(config, info, leaves, batch)
    total, names, values = loss(config, info, output, batch)
    total.backward()
    grads = {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in leaves.items() if not name.endswith(BUFFERS)}
    rows = touched_rows(info, batch)
    grads[EMBEDDING][rows] += config["embedding"]["l2"] * weights[EMBEDDING][rows]
    return {name: logits.detach() for name, logits in output.items()}, (total.detach(), names, values), grads


def buffers(config, info, weights, batch):
    """What a training batch makes of the running statistics, by name."""
    result = {}
    if MIX[0] in weights or "serve.shift" in weights:
        with rounded_products(config["precision"] == "bf16"):
            output = forward(config, info, weights, batch)
    if MIX[0] in weights:
        result = ektm.observed(output, batch, weights, config["model"], info["tasks"])
    if "serve.shift" in weights:
        result = result | ektm.followed(output, batch, weights, info["tasks"])
    backbone_config = config["model"].get("backbone", config["model"])
    backbone = BACKBONES.get(backbone_config["name"])
    if not hasattr(backbone, "buffers"):
        return result
    with rounded_products(config["precision"] == "bf16"):
        return result | backbone.buffers(inputs(config, info, weights, batch), weights, backbone_config, len(info["tasks"]), info)


def balanced_gradients(config, info, weights, batch, balancer, step):
    """The gradient of each trained tensor, brought together from those of the tasks."""
    names = [task["name"] for task in info["tasks"]]
    given = config["loss"]["task_weights"] or {}
    table = weights[EMBEDDING].clone().requires_grad_()
    x = torch.stack(inputs(config, info, {EMBEDDING: table}, batch))
    losses, grads = [], []
    for task in names:
        leaves = {name: w.clone().requires_grad_(not name.endswith(BUFFERS)) for name, w in weights.items() if name != EMBEDDING}
        leaves[X] = x.detach().clone().requires_grad_()
        alone = {**config, "loss": {**config["loss"], "task_weights": {name: given.get(name, 1.0) * (name == task) for name in names}}}
        total, _, _ = loss(alone, info, forward(alone, info, leaves, batch, leaves[X]), batch)
        total.backward()
        losses.append(float(total.detach()))
        grads.append({name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in leaves.items() if not name.endswith(BUFFERS)})
    combined = balancer.combine(losses, grads, step)
    (combined[EMBEDDING],) = torch.autograd.grad(x, table, combined.pop(X))
    rows = touched_rows(info, batch)
    combined[EMBEDDING][rows] += config["embedding"]["l2"] * weights[EMBEDDING][rows]
    return combined


def train(config, info, weights, batches, total_steps):
    """Weights after one step on each batch, and per tensor sum_k sensitivity_k * max|gradient_k| (see optimizers.py): by how
    much a weight moves when each gradient is wrong by its largest number."""
    weights = {name: w.clone() for name, w in weights.items()}
    reach = {name: torch.zeros_like(w) for name, w in weights.items()}
    dense = Adam(config["optimizer"], config["optimizer"]["weight_decay"])
    rows_optimizer = embedding_optimizer(config["embedding"])
    balancer = None
    if config["loss"]["balance"] != "fixed":
        balancer = Balancer(config["loss"], [task["name"] for task in info["tasks"]], config["seed"])
    for step, batch in enumerate(batches):
        if balancer:
            grads = balanced_gradients(config, info, weights, batch, balancer, step)
        else:
            _, _, grads = gradients(config, info, weights, batch)
        weights.update(buffers(config, info, weights, batch))
        scale = clip_factor(grads.values(), config["optimizer"]["clip_norm"])
        factor = learning_rate_factor(config["optimizer"], step, total_steps)
        dense.start_step()
        rows_optimizer.start_step()
        for name, gradient in grads.items():
            gradient = gradient * scale
            if name == EMBEDDING:
                rows = touched_rows(info, batch)
                rate = config["embedding"]["learning_rate"] * factor
                new, sensitivity = rows_optimizer.update(name, weights[name], gradient[rows], rate, rows)
            else:
                rows = slice(None)
                new, sensitivity = dense.update(name, weights[name], gradient, config["optimizer"]["learning_rate"] * factor)
            weights[name][rows] = new
            # An exact 0 (an inactive unit, an unobserved task) has no rounding error.
            reach[name][rows] += torch.where(gradient[rows] == 0, 0, sensitivity * gradient.abs().max())
    return weights, reach
