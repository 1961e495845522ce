"""Target attention (DIN: Zhou et al., KDD 2018): sum_j a_j e_j, a_j = MLP([e_j, q, e_j - q, e_j * q])."""

import torch

from .layers import mlp, stacked_linear


def attended(values, query, weights, name, group, config):
    """values [n,d], query [d] -> [d]. The network of this group of embeddings; its weights are tensors <name>.0.weight, ..., <name>.score.weight."""
    queries = query.expand_as(values)
    pairs = torch.cat([values, queries, values - queries, values * queries], dim=1)
    hidden = mlp(pairs, weights, name, group, config["hidden"], "relu", shared_input=False)
    share = stacked_linear(hidden, weights, f"{name}.score", group)
    if config["normalize"] == "softmax":
        share = torch.softmax(share, dim=0)
    return (share * values).sum(0)
