"""The optimisers and the learning-rate schedule, each number of a tensor on its own.

Besides new weights each returns a sensitivity, shaped as the weights: by how much an error of 1 in the gradient moves the weight.
Adam divides by sqrt(v), so the rounding of a small gradient is amplified; a comparison has to know by how much."""

import math

import torch


def learning_rate_factor(config, step, total_steps):
    """On both learning rates, step counted from 0: rises over warmup_steps, then falls to final_ratio."""
    warmup = config["warmup_steps"]
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    shape = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[config["schedule"]]
    return shape if config["schedule"] == "constant" else config["final_ratio"] + (1 - config["final_ratio"]) * shape


def clip_factor(gradients, clip_norm):
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
    return clip_norm / norm if clip_norm > 0 and norm > clip_norm else 1.0


class Adam:
    """Kingma & Ba 2015, weight decay decoupled (Loshchilov & Hutter 2019)."""

    def __init__(self, config, weight_decay):
        self.config, self.weight_decay, self.steps = config, weight_decay, 0
        self.m, self.v = {}, {}

    def start_step(self):
        self.steps += 1

    def update(self, name, weight, gradient, rate, rows=slice(None)):
        """New values and sensitivity of `rows` of a weight; moments of the other rows stay. gradient: of these rows."""
        c = self.config
        m = self.m.setdefault(name, torch.zeros_like(weight))
        v = self.v.setdefault(name, torch.zeros_like(weight))
        m[rows] = c["beta1"] * m[rows] + (1 - c["beta1"]) * gradient
        v[rows] = c["beta2"] * v[rows] + (1 - c["beta2"]) * gradient**2
        m_hat = m[rows] / (1 - c["beta1"] ** self.steps)
        v_hat = v[rows] / (1 - c["beta2"] ** self.steps)
        step = rate / (v_hat.sqrt() + c["epsilon"])
        return weight[rows] * (1 - rate * self.weight_decay) - step * m_hat, step


class Adagrad:
    def __init__(self, config, rowwise):
        self.config, self.rowwise, self.sums = config, rowwise, {}

    def start_step(self):
        pass

    def update(self, name, weight, gradient, rate, rows=slice(None)):
        squares = self.sums.setdefault(name, torch.zeros_like(weight[:, :1] if self.rowwise else weight))
        squares[rows] += (gradient**2).mean(1, keepdim=True) if self.rowwise else gradient**2
        step = (rate / (squares[rows].sqrt() + self.config["epsilon"])).expand_as(gradient)
        return weight[rows] - step * gradient, step


class Sgd:
    def start_step(self):
        pass

    def update(self, name, weight, gradient, rate, rows=slice(None)):
        return weight[rows] - rate * gradient, torch.full_like(gradient, rate)


def embedding_optimizer(config):
    if config["optimizer"] == "adam":
        return Adam(config, weight_decay=0)
    if config["optimizer"] == "sgd":
        return Sgd()
    return Adagrad(config, rowwise={"adagrad": False, "rowwise_adagrad": True}[config["optimizer"]])
