"""Cross-task knowledge distillation (Yang et al., AAAI 2022, as reconstructed): each task has a student, which is served, and a teacher
that ranks pairs of rows by the labels of all tasks."""

import math

import torch
import torch.nn.functional as F

from .ektm import head
from .layers import fan_out_linear, mixture, mlp
from .losses import bce, masked_mean


def groups(tasks):
    return 1


def forward(x, weights, config, info):
    x, tasks = x[0], len(info["tasks"])
    experts = [mlp(x, weights, "expert", k, config["expert_hidden"], config["activation"], shared_input=True)
               for k in range(config["experts"])]
    logits = []
    for n in range(2 * tasks):
        mixed = mixture(fan_out_linear(x, weights, "gate", n), experts)
        tower = mlp(mixed, weights, "tower", n, config["tower_hidden"], config["activation"], shared_input=False)
        logits.append(head(tower, weights, "head" if n < tasks else "teacher", n % tasks))
    output = {"logits": logits[:tasks], "teacher": logits[tasks:]}
    if config["distill"]:
        output["calibrated"] = [weights["calibration.scale"][t, 0, 0] * r.detach() + weights["calibration.shift"][t, 0, 0]
                                for t, r in enumerate(output["teacher"])]
    return output


def ranking(scores, targets, task, config):
    """Over pairs of rows i and i + k, each once: by the task's own label, else by those of the others."""
    rows = len(scores)
    own, others = [], []  # (loss, weight) of a pair
    y, w = targets[task]
    for k in range(1, min(config["pairs"], (rows - 1) // 2) + 1):
        for i in range(rows):
            j = (i + k) % rows
            weight = float(w[i] * w[j])
            if weight == 0:
                continue
            if y[i] != y[j]:
                own.append((-F.logsigmoid((scores[i] - scores[j]) * (y[i] - y[j])), weight))
                continue
            for u, (yu, wu) in enumerate(targets):
                if u != task and wu[i] * wu[j] > 0 and yu[i] != yu[j]:
                    others.append((-F.logsigmoid((scores[i] - scores[j]) * (yu[i] - yu[j])), weight))

    def mean(pairs):
        return sum(loss * weight for loss, weight in pairs) / sum(weight for _, weight in pairs) if pairs else scores.sum() * 0

    return mean(own) + config["auxiliary"] * mean(others)


def loss(output, batch, task_weights, config, info):
    targets, names = batch.targets(), [task["name"] for task in info["tasks"]]
    parts = {"": [], ".ranking": [], ".calibration": [], ".taught": []}
    total = 0
    for t, (y, w) in enumerate(targets):
        student = masked_mean(bce(output["logits"][t], y), w)
        rank = ranking(output["teacher"][t], targets, t, config)
        parts[""].append(student)
        parts[".ranking"].append(rank)
        total = total + task_weights[t] * ((1 - config["distill"]) * student + rank)
        if not config["distill"]:
            continue
        logit = output["calibrated"][t]
        calibration = masked_mean(bce(logit, y), w)
        soft = torch.tensor([1 / (1 + math.exp(-(max(z, config["margin"]) if label else min(z, -config["margin"]))))
                             for z, label in zip(logit.tolist(), y.tolist())], dtype=y.dtype)
        log_p, log_q = F.logsigmoid(output["logits"][t]), F.logsigmoid(-output["logits"][t])
        taught = masked_mean(-(soft * log_p + (1 - soft) * log_q), w)
        parts[".calibration"].append(calibration)
        parts[".taught"].append(taught)
        total = total + task_weights[t] * (config["distill"] * taught + calibration)
    values = [value for part in parts.values() for value in part]
    return total, [name + suffix for suffix, part in parts.items() if part for name in names], values
