"""MKT (Guan et al. 2024, as reconstructed): a multi-entity model finds knowledge that all entities (scenarios) share and knowledge of their
own; the target networks, which are served, let the common part in through a gate a layer, without a gradient back."""

import torch
import torch.nn.functional as F

from .ektm import head
from .layers import ACTIVATIONS, fan_out_linear, mixture, mlp, stacked_linear
from .losses import bce, masked_mean
from .pepnet import named


def groups(tasks):
    return 1


def forward(x, weights, config, info):
    x, tasks, act = x[0], len(info["tasks"]), ACTIVATIONS[config["activation"]]

    def read(values):
        return values.detach() if config["stop_gradients"] else values

    entity = named(x, config["entity"], 1, info)
    hidden = F.relu(fan_out_linear(torch.cat([entity, read(x)], dim=1), weights, "scale.hidden", 0))
    aligned = 2 * torch.sigmoid(fan_out_linear(hidden, weights, "scale.out", 0)) * x

    layers = range(len(config["hidden"]))
    knowledge = []  # of each extractor: its hidden layers; the common one first
    for k in range(1 + config["extractors"]):
        values, outputs = aligned, []
        for layer in layers:
            linear = fan_out_linear if layer == 0 else stacked_linear
            values = act(linear(values, weights, f"extractor.{layer}", k))
            outputs.append(values)
        knowledge.append(outputs)

    served = []
    for t in range(tasks):
        h = x
        for layer in layers:
            linear = fan_out_linear if layer == 0 else stacked_linear
            h = act(linear(h, weights, f"target.{layer}", t))
            common = read(knowledge[0][layer])
            gate = torch.sigmoid(stacked_linear(h, weights, f"gate.own{layer}", t) + fan_out_linear(common, weights, f"gate.common{layer}", t))
            h = h + gate * common
        served.append(head(h, weights, "head", t))

    common = knowledge[0][-1]
    own = mixture(fan_out_linear(entity, weights, "choice", 0), [outputs[-1] for outputs in knowledge[1:]])
    both = torch.cat([common, own], dim=1)
    pretrain = [head(mlp(both, weights, "pretrain.tower", t, config["tower_hidden"], config["activation"], shared_input=True), weights,
                     "pretrain.head", t) for t in range(tasks)]
    # A relu may leave either at zero: their cosine is zero then.
    polar = (common * own).sum(1) ** 2 / ((common ** 2).sum(1) * (own ** 2).sum(1) + 1e-12)
    return {"logits": served, "pretrain": pretrain, "polar": [polar]}


def loss(output, batch, task_weights, config, info):
    names = [task["name"] for task in info["tasks"]]
    polar = masked_mean(output["polar"][0], torch.stack([w for _, w in batch.targets()]).amax(0))
    served, pretrain, total = [], [], 0
    for t, (y, w) in enumerate(batch.targets()):
        served.append(masked_mean(bce(output["logits"][t], y), w))
        pretrain.append(masked_mean(bce(output["pretrain"][t], y), w))
        total = total + task_weights[t] * (served[t] + config["pretrain"] * pretrain[t] + config["polar"] * polar * bool((w > 0).any()))
    return total, names + [name + ".pretrain" for name in names] + ["polar"], served + pretrain + [polar]
