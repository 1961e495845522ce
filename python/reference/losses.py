"""Losses over the observed rows of each task. Labels and weights [B]; a weight is 0 where the label is not observed."""

import torch
import torch.nn.functional as F


def bce(logits, labels):
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")


def masked_mean(loss, weight):
    """Weighted mean over the observed rows; 0 when there is none."""
    rows = weight > 0
    if not rows.any():
        return loss.sum() * 0
    return (loss[rows] * weight[rows]).sum() / weight[rows].sum()


def standard_loss(output, targets, task_weights):
    """sum_t a_t * mean BCE(logit_t). Returns the total and the value of each task."""
    values = [masked_mean(bce(logits, y), w) for logits, (y, w) in zip(output["logits"], targets)]
    return sum(a * value for a, value in zip(task_weights, values)), values


def ektm_loss(output, targets, task_weights, conversions, config):
    """L = sum_r a_r mean BCE(p_r) + sum_i a_i (mean BCE(p_i) + lambda * mean hard_i(BCE(q_i))) / (1 + lambda): r over the roots, i over
    the CVR tasks. Without share_weight, and with detach_own, nothing is divided."""
    base = [bce(logits, y) for logits, (y, _) in zip(output["base_logits"], targets)]
    base_values = [masked_mean(loss, w) for loss, (_, w) in zip(base, targets)]
    # The two losses of a CVR task together weigh what its one loss weighs in the backbone.
    share = 1 / (1 + config["lambda"]) if config["share_weight"] and not config["detach_own"] else 1
    total = sum(a * (share if t in conversions else 1) * value for t, (a, value) in enumerate(zip(task_weights, base_values)))
    enhanced_values = []
    for i, q_logits in zip(conversions, output["enhanced_logits"]):
        y, w = targets[i]
        loss = bce(q_logits, y)
        if config["hard"] == "weight":
            p = torch.sigmoid(output["base_logits"][i]).detach()
            hard = 1 + config["alpha"] * (y - p).abs() ** config["gamma"]
            if config["hard_balance"]:
                # Every class of label keeps the total weight that it has among the observed rows.
                balanced = hard.clone()
                for label in (0, 1):
                    rows = (y == label) & (w > 0)
                    if rows.any():
                        balanced[rows] = hard[rows] / ((hard[rows] * w[rows]).sum() / w[rows].sum())
                hard = balanced
            loss = hard * loss
        elif config["hard"] == "hinge":
            loss = loss + torch.clamp(loss - base[i].detach(), min=0)
        elif config["hard"] == "focal":
            q = torch.sigmoid(q_logits)
            true_class = torch.where(y == 1, q, 1 - q)
            loss = (1 - true_class) ** config["gamma"] * loss
        elif config["hard"] != "none":
            raise ValueError(config["hard"])
        value = masked_mean(loss, w)
        enhanced_values.append(value)
        total = total + config["lambda"] * share * task_weights[i] * value
    return total, base_values + enhanced_values
