"""Rows of all tables in one tensor, and the input of each group of embeddings."""

import torch

from .attention import attended


def first_rows(info):
    """Row of the whole tensor at which each table starts."""
    starts = [0]
    for table in info["tables"]:
        starts.append(starts[-1] + table["rows"])
    return starts


def touched_rows(info, batch):
    """Ascending rows that a batch looks up, whatever their gradient."""
    starts = first_rows(info)
    rows = [batch.ids[:, f] + starts[field["table"]] for f, field in enumerate(info["fields"])]
    rows += [values + starts[bag["table"]] for bag, (_, values) in zip(info["bags"], batch.bags)]
    return torch.unique(torch.cat(rows))


def columns(info, dim):
    """(name, slice of x's columns, embedded or not) of each feature, as they lie in x."""
    names = [feature["name"] for feature in info["fields"] + info["bags"]]
    embedded = [(name, slice(k * dim, (k + 1) * dim), True) for k, name in enumerate(names)]
    first = len(names) * dim
    return embedded + [(name, slice(first + k, first + k + 1), False) for k, name in enumerate(info["numbers"])]


def group_input(info, batch, weights, group, config):
    """x_g [B,D]: the embeddings of the single-valued fields, the pooled bags, the numbers. weights: embedding.weights
    [R, groups * dim], and those of attention."""
    starts, dim = first_rows(info), config["embedding"]["dim"]
    own = weights["embedding.weights"][:, group * dim : (group + 1) * dim]
    parts = [own[batch.ids[:, f] + starts[field["table"]]] for f, field in enumerate(info["fields"])]
    by_name = {field["name"]: part for field, part in zip(info["fields"], parts)}
    for bag, (offsets, values) in zip(info["bags"], batch.bags):
        target = config["attention"]["targets"].get(bag["name"])
        pooled = []
        for b in range(len(offsets) - 1):
            rows = own[values[offsets[b] : offsets[b + 1]] + starts[bag["table"]]]
            if target:
                pooled.append(attended(rows, by_name[target][b], weights, "attention." + bag["name"], group, config["attention"]))
            else:
                pooled.append(rows.sum(0) if bag["sum"] else rows.mean(0))
        parts.append(torch.stack(pooled))
    return torch.cat(parts + [batch.numbers], dim=1)
