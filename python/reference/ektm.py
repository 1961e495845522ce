"""EKTM, as reconstructed in docs/method.md: router, transmitters and enhanced heads over the features f_t [B,d] of a backbone."""

import itertools
import math

import torch
import torch.nn.functional as F

from .layers import mlp, product, rounded_products, stacked_linear


def roots_and_conversions(tasks):
    """Task numbers. Where no task follows another, every task is treated as a conversion and there is no root."""
    roots = [t for t, task in enumerate(tasks) if task["parent"] < 0]
    conversions = [t for t, task in enumerate(tasks) if task["parent"] >= 0]
    return (roots, conversions) if conversions else ([], roots)


def similarities(own, sources, i, weights, config):
    """s^_i [B,T] of CVR task i: own feature [B,d], sources: T features [B,d]."""
    if config["similarity"] == "dot":
        query = product(own, weights["router.query"])
        scores = [(query * (product(source, weights["router.key"]))).sum(1) / math.sqrt(config["similarity_width"]) for source in sources]
    elif config["similarity"] == "cosine":
        scores = [(F.normalize(own, dim=1, eps=1e-8) * F.normalize(source, dim=1, eps=1e-8)).sum(1) for source in sources]
    elif config["similarity"] == "label":
        scores = [weights["router.label_similarity"][i, j].expand(len(own)) for j in range(len(sources))]
    else:
        raise ValueError(config["similarity"])
    s = torch.stack(scores, dim=1)
    if config["normalize"] == "softmax":
        return torch.softmax(s, dim=1)
    return torch.sigmoid(s) if config["similarity"] == "dot" else s


def packet(own, i, roots, conversions, weights, config):
    """F_i [B,d] of CVR task i. roots: their features, conversions: the features of all CVR tasks."""
    source = (lambda f: f.detach()) if config["detach_sources"] else (lambda f: f)
    from_roots = [source(f) for f in roots]
    if not config["router"]:
        return sum(from_roots) / len(from_roots)
    # The own feature is no other task's: detach_own alone decides whether it gets a gradient, wherever it is used.
    sources = [own if j == i else source(f) for j, f in enumerate(conversions)]
    s = similarities(own, sources, i, weights, config)
    return (sum(from_roots) + sum(s[:, j : j + 1] * f for j, f in enumerate(sources))) / (len(roots) + len(conversions))


def head(h, weights, name, i):
    with rounded_products(False):
        return stacked_linear(h, weights, name, i)[:, 0]


def mixed(i, base_logits, roots, conversions, weights, config):
    """sum_j a_ij u_j + b_i [B]: u_j is the logit of task j's base head without its bias. Without a router only the roots and i itself give."""
    own = conversions[i]
    total = 0
    for j, logit in enumerate(base_logits):
        if not config["router"] and j not in roots and j != own:
            continue
        bias = weights["head.bias"][j, 0, 0]
        source, kept = logit - bias, not (config["detach_own"] if j == own else config["detach_sources"])
        total = total + weights["transmitter.mix.coefficients"][i, j] * (source if kept else source.detach())
    bias = weights["head.bias"][own, 0, 0]
    return total + (bias.detach() if config["detach_own"] else bias)


def mix_start(similarity, rows, rarer, tasks, config):
    """a [T,K] before training; with mix_start: labels of the labels' statistics: docs/method.md."""
    _, conversions = roots_and_conversions(tasks)
    k = config["mix_positives"]
    rich = [float(n) / (float(n) + k) for n in rarer]
    start = torch.zeros(len(conversions), len(tasks), dtype=torch.float64)
    for i, own in enumerate(conversions):
        others = [j for j in conversions if j != own]
        for j in others:
            z = float(similarity[own, j]) * math.sqrt(float(rows[own, j]))
            if z > 1 and config["router"] and config["mix_start"] == "labels":
                start[i, j] = (1 - rich[own]) * rich[j] / sum(rich[o] for o in others) * (1 - 1 / z**2)
        start[i, own] = 1 - start[i].sum()
    return start


def shift_to_positives(logits, labels, weight):
    """d such that sum of weight * sigmoid(logits + d) is that of weight * labels, by bisection."""
    low, high = -200.0, 200.0
    for _ in range(200):
        middle = (low + high) / 2
        if (weight * torch.sigmoid(logits + middle)).sum() < (weight * labels).sum():
            low = middle
        else:
            high = middle
    return low


def smallest_within(a, r, low, high):
    """The smallest of x'ax / 2 - r'x with low <= x <= high: of all choices of what lies at which bound, the one that is a minimum."""
    for at in itertools.product((0, -1, 1), repeat=len(r)):  # 0: free
        at = torch.tensor(at)
        x, free = torch.where(at < 0, low, torch.where(at > 0, high, 0.0)), at == 0
        if free.any():
            x[free] = torch.linalg.solve(a[free][:, free], r[free] - a[free][:, ~free] @ x[~free])
        slope = a @ x - r
        inside = ((low <= x) & (x <= high))[free].all()
        if inside and (slope[at < 0] >= 0).all() and (slope[at > 0] <= 0).all():
            return x
    raise ArithmeticError("no choice of bounds is a minimum")


def observed(output, batch, weights, config, tasks):
    """The mix's state after it has seen a batch, by name; output: of the batch, before the step. src/nn/online_regression.h has the formulas."""
    roots, conversions = roots_and_conversions(tasks)
    targets = batch.targets()
    old = {name: weights[f"transmitter.mix.{name}"].double() for name in ("start", "coefficients", "information", "response", "scale", "batches")}
    base = output["base_logits" if config["enhanced"] else "own_logits"].double()
    u = base - weights["head.bias"][:, 0].double()
    n = old["batches"] + 1
    keep = 1 - 1 / n
    new = {"batches": n, "coefficients": old["start"].clone(), "information": keep * old["information"], "response": keep * old["response"],
           "scale": old["scale"].clone()}
    for i, own in enumerate(conversions):
        y, w, z = targets[own][0].double(), targets[own][1].double(), output["enhanced_logits"][i].double()
        open_ = [j for j in range(len(tasks)) if config["router"] or j in roots or j == own]
        if 0 < (w * y).sum() < w.sum():
            p = torch.sigmoid(z + shift_to_positives(z, y, w))
            s = w * (p * (1 - p) + (y - p) ** 2) / 2
            centred = u - (u * s).sum(1, keepdim=True) / s.sum()
            now = (s * centred**2).sum(1) / s.sum()
            new["scale"][i] = torch.where(old["scale"][i] > 0, 0.9 * old["scale"][i] + 0.1 * now, now)
            d = new["scale"][i].clamp_min(1).sqrt()
            for j in open_:
                for k in open_:
                    information = (s * centred[j] * centred[k]).sum()
                    new["information"][i, j, k] += information / (d[j] * d[k])
                    new["response"][i, j] += information / d[j] * (old["coefficients"] - old["start"])[i, k]
                new["response"][i, j] += (w * (y - p) * u[j]).sum() / d[j]
        d = new["scale"][i].clamp_min(1).sqrt()
        ridge = config["mix_prior"] * (1 + config["mix_warmup"] / n) * torch.eye(len(tasks), dtype=torch.float64)
        start, least = old["start"][i], -torch.ones(len(tasks), dtype=torch.float64)
        least[own] = min(config["mix_own"], float(start[own]))
        new["coefficients"][i] += smallest_within(new["information"][i] + ridge, new["response"][i], (least - start) * d, (1 - start) * d) / d
    return {f"transmitter.mix.{name}": value.to(weights["head.bias"].dtype) for name, value in new.items()}


def followed(output, batch, weights, tasks):
    """The shift of the served enhanced logits after a batch: a tenth of a Newton step, of 1 at most, towards where they predict as many events as the base heads; a tenth of a
    row of slope holds it near 0 where the heads are sure."""
    _, conversions = roots_and_conversions(tasks)
    shift = weights["serve.shift"].double().clone()
    for i, own in enumerate(conversions):
        weight = batch.targets()[own][1].double()
        base, enhanced = torch.sigmoid(output["base_logits"][own].double()), torch.sigmoid(output["enhanced_logits"][i].double() + shift[i])
        slope = float((weight * enhanced * (1 - enhanced)).sum())
        if slope > 0:
            shift[i] += min(max((float((weight * (base - enhanced)).sum()) - 0.1 * float(shift[i])) / (slope + 0.1), -1.0), 1.0) / 10
    return {"serve.shift": shift.to(weights["head.bias"].dtype)}


def forward(features, weights, config, tasks):
    """features: one [B,d] a task. Logits of the served, base and enhanced heads, as lists of [B]."""
    roots, conversions = roots_and_conversions(tasks)
    base_logits = [head(f, weights, "head", t) for t, f in enumerate(features)]
    root_features = [features[r] for r in roots]
    conversion_features = [features[c] for c in conversions]
    enhanced_logits = []
    for i, f in enumerate(conversion_features):
        own = f.detach() if config["detach_own"] else f
        knowledge = packet(own, i, root_features, conversion_features, weights, config)
        if not config["transmitter"]:
            logit = head(own + knowledge, weights, "enhanced", i)
        else:
            hidden = mlp(knowledge, weights, "transmitter.mlp", i, config["transmitter_hidden"], config["activation"], False)
            message = stacked_linear(hidden, weights, "transmitter.out", i)
            if config["transmit"] == "concat":
                logit = head(torch.cat([own, message], dim=1), weights, "enhanced", i)
            else:
                gate = torch.sigmoid(stacked_linear(torch.cat([own, knowledge], dim=1), weights, "transmitter.gate", i))
                if config["transmit"] == "gate":
                    logit = head(own + gate * message, weights, "enhanced", i)
                elif config["transmit"] == "residual":
                    base = base_logits[conversions[i]]
                    logit = (base.detach() if config["detach_own"] else base) + head(gate * message, weights, "enhanced", i)
                elif config["transmit"] == "mix":
                    logit = mixed(i, base_logits, roots, conversions, weights, config) + head(gate * message, weights, "enhanced", i)
                else:
                    raise ValueError(config["transmit"])
        enhanced_logits.append(logit)
    served = list(base_logits)
    for i, t in enumerate(conversions):
        if not (config["enhanced"] and config["serve"] == "validated" and weights["serve.enhanced"][t] == 0):
            served[t] = enhanced_logits[i]
    mix = config["transmitter"] and config["transmit"] == "mix"
    return {"logits": served, "base_logits": base_logits if config["enhanced"] else None, "enhanced_logits": enhanced_logits,
            "own_logits": base_logits if mix and not config["enhanced"] else None}
