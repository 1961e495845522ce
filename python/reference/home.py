"""HoME (Wang et al. 2024, arXiv 2408.05430): experts swish(BN(MLP(v))), first of groups of tasks, then of tasks; every set of experts
sees its input through a feature gate of low rank and has a gate of its own beside the mixing one."""

import torch
import torch.nn.functional as F

from .layers import fan_out_linear, mixture, mlp, stacked_linear

EPSILON = 1e-5


def groups(tasks):
    return 1


def task_groups(config, info):
    """Number of each task's group, and how many groups there are."""
    tasks = info["tasks"]
    if config["groups"]:
        return [[task["name"] in names for names in config["groups"]].index(True) for task in tasks], len(config["groups"])
    follows = [int(task["parent"] >= 0) for task in tasks]
    return follows, 2 if any(follows) else 1


class Home:
    """One forward pass of a training batch. `buffers`: the running statistics after it."""

    def __init__(self, weights, config):
        self.weights, self.config, self.buffers = weights, config, {}

    def expert(self, v, name, e):
        sizes = self.config["expert_hidden"]
        for layer in range(len(sizes) - 1):
            v = F.silu(stacked_linear(v, self.weights, f"{name}.{layer}", e))
        y = stacked_linear(v, self.weights, f"{name}.{len(sizes) - 1}", e)
        mean, variance = y.mean(0), y.var(0, unbiased=False)
        self.update(f"{name}.norm.running_mean", e, mean)
        self.update(f"{name}.norm.running_variance", e, variance * len(y) / (len(y) - 1))
        normed = (y - mean) / torch.sqrt(variance + EPSILON)
        return F.silu(normed * self.weights[f"{name}.norm.scale"][e] + self.weights[f"{name}.norm.shift"][e])

    def update(self, name, e, statistic):
        buffer = self.buffers.setdefault(name, self.weights[name].detach().clone())
        buffer[e] = (1 - self.config["momentum"]) * buffer[e] + self.config["momentum"] * statistic.detach()

    def gated(self, v, name, e, down):
        """v * 2 sigmoid((v B) A). down: how B is stored."""
        logits = stacked_linear(down(v, self.weights, f"{name}.feature_gate.down", e), self.weights, f"{name}.feature_gate.up", e)
        return v * 2 * torch.sigmoid(logits)

    def self_gated(self, logits, experts):
        return torch.sigmoid(logits) * experts[0] if len(experts) == 1 else mixture(logits, experts)

    def features(self, x, info):
        weights, config = self.weights, self.config
        group_of, groups = task_groups(config, info)
        tasks, n, m = len(info["tasks"]), config["meta_experts"], config["task_experts"]

        meta = []  # experts of each group, then the shared ones
        for s in range(groups + 1):
            v = self.gated(x, "meta", s, fan_out_linear)
            meta.append([self.expert(v, "meta.expert", s * n + k) for k in range(n)])
        own = [self.self_gated(fan_out_linear(x, weights, "meta.self_gate", s), meta[s]) for s in range(groups + 1)]
        z = [mixture(fan_out_linear(x, weights, "meta.group_gate", g), meta[g] + meta[groups]) + own[g] for g in range(groups)]
        z_shared = mixture(fan_out_linear(x, weights, "meta.shared_gate", 0), [e for experts in meta for e in experts]) + own[groups]

        u = [torch.cat([z_g, z_shared], dim=1) for z_g in z]
        v = self.gated(z_shared, "shared", 0, stacked_linear)
        shared = [self.expert(v, "shared.expert", k) for k in range(m)]
        of_group = []
        for g in range(groups):
            v = self.gated(u[g], "task", tasks + g, stacked_linear)
            of_group.append([self.expert(v, "task.expert", (tasks + g) * m + k) for k in range(m)])
        result = []
        for t in range(tasks):
            seen = u[group_of[t]]
            v = self.gated(seen, "task", t, stacked_linear)
            of_task = [self.expert(v, "task.expert", t * m + k) for k in range(m)]
            mixed = mixture(stacked_linear(seen, weights, "task.gate", t), of_task + of_group[group_of[t]] + shared)
            mixed = mixed + self.self_gated(stacked_linear(seen, weights, "task.self_gate", t), of_task)
            result.append(mlp(mixed, weights, "tower", t, config["tower_hidden"], config["activation"], False))
        return result


def features(x, weights, config, tasks, info):
    return Home(weights, config).features(x[0], info)


def buffers(x, weights, config, tasks, info):
    """The running statistics after a training batch, by name."""
    with torch.no_grad():
        home = Home(weights, config)
        home.features(x[0], info)
        return home.buffers
