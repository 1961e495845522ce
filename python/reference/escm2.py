"""Entire-space counterfactual multi-task models (Wang et al., SIGIR 2022). escm2_ipw: CVR risk mean(o e / pi); escm2_dr:
mean(e^ + o (e - e^) / pi) with the imputation e^ trained by mean(o (e - e^)^2 / pi)."""

import torch.nn.functional as F

from .esmm import groups, heads, towers  # noqa: F401
from .layers import mlp, stacked_linear
from .losses import bce, masked_mean
from .paths import conversions, path_losses, path_names, path_targets, propensity, weighted_total


def forward(x, weights, config, info):
    tasks = info["tasks"]
    output = {"logits": heads(towers(x, weights, config, tasks), weights)}
    if config["name"] == "escm2_dr" and conversions(tasks):
        hidden = [mlp(x[0], weights, "imputation.tower", i, config["hidden"], config["activation"], shared_input=True)
                  for i in range(len(conversions(tasks)))]
        output["imputation"] = [stacked_linear(h, weights, "imputation", i)[:, 0] for i, h in enumerate(hidden)]
    return output


def loss(output, batch, task_weights, config, info):
    tasks = info["tasks"]
    targets = path_targets(batch, tasks)
    path_values = path_losses(output["logits"], targets, tasks)
    shares = list(path_values)
    risks, imputations = [], []
    for i, t in enumerate(conversions(tasks)):
        label, own_weight = batch.targets()[t]
        observed = (own_weight > 0).to(label.dtype)  # o
        _, weight = targets[t]
        ips = 1 / propensity(output["logits"], t, tasks, config).clamp(min=config["clip"])
        error = bce(output["logits"][t], label)
        shares[t] = config["lambda_g"] * path_values[t]
        if config["name"] == "escm2_ipw":
            risks.append(masked_mean(observed * error * ips, weight))
        else:
            imputed = F.softplus(output["imputation"][i])
            risks.append(masked_mean(imputed + observed * (error - imputed) * ips, weight))
            target = error.detach() if config["stop_gradients"] else error
            imputations.append(masked_mean(observed * (target - imputed) ** 2 * ips, weight))
            shares[t] = shares[t] + config["lambda_i"] * imputations[i]
        shares[t] = shares[t] + config["lambda_c"] * risks[i]
    names = path_names(tasks) + [tasks[t]["name"] + ("." + config["name"].split("_")[1]) for t in conversions(tasks)]
    if imputations:
        names += [tasks[t]["name"] + ".imputation" for t in conversions(tasks)]
    return weighted_total(shares, task_weights), names, path_values + risks + imputations
