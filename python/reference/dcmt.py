"""DCMT (Zhu et al., ICDE 2023): factual CVR from clicks weighted 1 / pi, counterfactual CVR from non-clicks weighted 1 / (1 - pi) with
label 1, and lambda mean|1 - p - p*|."""

import torch

from .esmm import groups, heads, towers  # noqa: F401
from .layers import stacked_linear
from .losses import bce, masked_mean
from .paths import conversions, path_losses, path_names, path_targets, propensity, weighted_total


def forward(x, weights, config, info):
    tasks = info["tasks"]
    features = towers(x, weights, config, tasks)
    output = {"logits": heads(features, weights)}
    if conversions(tasks):
        output["counterfactual"] = [stacked_linear(features[t], weights, "counterfactual", i)[:, 0]
                                    for i, t in enumerate(conversions(tasks))]
    return output


def inverse_propensity_mean(loss, propensity, rows, weight, config):
    """Over `rows` [B, bool]."""
    scale = rows.to(loss.dtype) / propensity.clamp(min=config["clip"])
    return masked_mean(loss, scale * weight) if config["self_normalize"] else masked_mean(loss * scale, weight)


def loss(output, batch, task_weights, config, info):
    tasks = info["tasks"]
    targets = path_targets(batch, tasks)
    path_values = path_losses(output["logits"], targets, tasks)
    shares = list(path_values)
    factual, counterfactual, gap = [], [], []
    for i, t in enumerate(conversions(tasks)):
        label, own_weight = batch.targets()[t]
        clicked = own_weight > 0
        _, weight = targets[t]
        pi = propensity(output["logits"], t, tasks, config)
        z, twin = output["logits"][t], output["counterfactual"][i]
        factual.append(inverse_propensity_mean(bce(z, label), pi, clicked, weight, config))
        not_clicked = (weight > 0) & ~clicked
        counterfactual.append(inverse_propensity_mean(bce(twin, torch.ones_like(twin)), 1 - pi, not_clicked, weight, config))
        gap.append(masked_mean((1 - torch.sigmoid(z) - torch.sigmoid(twin)).abs(), weight))
        shares[t] = (config["path_weight"] * path_values[t]
                     + config["cvr_weight"] * (factual[i] + counterfactual[i] + config["lambda"] * gap[i]))
    names = path_names(tasks) + [tasks[t]["name"] + "." + kind for kind in ("factual", "counterfactual", "gap")
                                 for t in conversions(tasks)]
    return weighted_total(shares, task_weights), names, path_values + factual + counterfactual + gap
