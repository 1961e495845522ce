"""PEPNet (Chang et al., KDD 2023). EPNet scales the embeddings by a gate that sees the domain, PPNet scales every hidden layer of a
task's tower by a gate that sees user and item; both read the embeddings without a gradient."""

import torch
import torch.nn.functional as F

from .embedding import columns
from .layers import ACTIVATIONS, fan_out_linear, stacked_linear


def groups(tasks):
    return 1


def named(x, names, otherwise, info):
    """The columns of the named features, or of the first `otherwise` ones."""
    dim = (x.shape[1] - len(info["numbers"])) // (len(info["fields"]) + len(info["bags"]))
    places = {name: where for name, where, _ in columns(info, dim)}
    return torch.cat([x[:, places[name]] for name in names or list(places)[:otherwise]], dim=1)


def features(x, weights, config, tasks, info):
    x = x[0]

    def gate(seen, hidden_name, hidden_index, name, index):
        hidden = F.relu(fan_out_linear(seen, weights, hidden_name, hidden_index))
        return config["gamma"] * torch.sigmoid(fan_out_linear(hidden, weights, name, index))

    def read(embeddings):
        return embeddings.detach() if config["detach_gates"] else embeddings

    e = x * gate(torch.cat([named(x, config["domain"], 1, info), read(x)], dim=1), "domain_gate.hidden", 0, "domain_gate.out", 0)
    prior = torch.cat([named(x, config["prior"], 2, info), read(e)], dim=1)
    result = []
    for t in range(tasks):
        h = e
        for layer in range(len(config["tower_hidden"])):
            linear = fan_out_linear if layer == 0 else stacked_linear
            h = ACTIVATIONS[config["activation"]](linear(h, weights, f"tower.{layer}", t))
            h = h * gate(prior, "prior_gate.hidden", layer, f"prior_gate.out{layer}", t)
        result.append(h)
    return result
