"""Chains of events: targets, probabilities and losses of whole paths, one task after the other."""

import torch

from .losses import masked_mean


def conversions(tasks):
    """Numbers of the tasks that follow another."""
    return [t for t, task in enumerate(tasks) if task["parent"] >= 0]


def path_targets(batch, tasks):
    """(label, weight) [B] of each task's whole path, over all impressions: label 1 where its event and all before it happened; weight 0
    where that is unknown. Of the rows that came to the event before, those with a known label stand for the others too."""
    result = []
    for (y, w), task in zip(batch.targets(), tasks):
        label = torch.where(w > 0, y, torch.zeros_like(y))
        if task["parent"] >= 0:
            parent_label, parent_weight = result[task["parent"]]
            came = (parent_weight > 0) & (parent_label == 1)
            seen = came & (w > 0)
            path_weight = torch.where(parent_label == 0, parent_weight, torch.zeros_like(w))
            if seen.any():
                path_weight[seen] = parent_weight[seen] * parent_weight[came].sum() / parent_weight[seen].sum()
            elif came.any():
                path_weight = torch.zeros_like(w)
            label, w = torch.where(seen, label, torch.zeros_like(label)), path_weight
        result.append((label, w))
    return result


def path_probabilities(logits, tasks):
    """P_t [B]: the product of the conditional probabilities along the chain to t."""
    paths = []
    for z, task in zip(logits, tasks):
        own = torch.sigmoid(z)
        paths.append(own if task["parent"] < 0 else own * paths[task["parent"]])
    return paths


def path_names(tasks):
    return [task["name"] + (".path" if task["parent"] >= 0 else "") for task in tasks]


def path_losses(logits, targets, tasks):
    """Mean BCE of each path's label against P_t. Computed in double precision: 1 - P cancels."""
    paths = path_probabilities([z.double() for z in logits], tasks)
    losses = [-(y * torch.log(p) + (1 - y) * torch.log(1 - p)) for p, (y, _) in zip(paths, targets)]
    return [masked_mean(loss.to(w.dtype), w) for loss, (_, w) in zip(losses, targets)]


def propensity(logits, t, tasks, config):
    """P of the events before conversion t [B]."""
    p = path_probabilities(logits, tasks)[tasks[t]["parent"]]
    return p.detach() if config["stop_gradients"] else p


def weighted_total(shares, task_weights):
    return sum(a * share for a, share in zip(task_weights, shares))
