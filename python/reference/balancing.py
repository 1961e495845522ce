"""Loss balancing on plain vectors: the gradients of the tasks, one dictionary each, become one (docs/balancing.md)."""

import math

import numpy
import torch
from scipy.optimize import minimize

from .optimizers import Adam

# Layers that are stored as maps of one input: weight [in,E,out], bias [E,out].
FAN_OUT = ("expert.0", "gate", "bottom.0")
X = "x"  # the embedded input, [G,B,D]


def map_dimension(name, tensor):
    """Along which maps of several tasks or experts lie, or None."""
    layer = name.rpartition(".")[0]
    if layer in FAN_OUT:
        return 1 if tensor.dim() == 3 else 0
    return 0 if tensor.dim() == 3 else None


def maps(gradients):
    """(name, slice) of every map."""
    for name, tensor in gradients.items():
        dimension = map_dimension(name, tensor)
        if dimension is None:
            yield name, ()
        else:
            yield from ((name, (slice(None),) * dimension + (e,)) for e in range(tensor.shape[dimension]))


class LearnedNumber:
    """By Adam."""

    def __init__(self, start, rate):
        self.value, self.rate = torch.tensor(start, dtype=torch.float64), rate
        self.adam = Adam({"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}, 0)

    def step(self, gradient):
        self.adam.start_step()
        self.value = self.adam.update("number", self.value[None], torch.tensor([gradient], dtype=torch.float64), self.rate)[0][0]


class Random:
    """SplitMix64 over (seed, stream), as in src/base/random.h."""

    MASK = 2**64 - 1

    @classmethod
    def mix(cls, x):
        x = (x + 0x9E3779B97F4A7C15) & cls.MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & cls.MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & cls.MASK
        return x ^ (x >> 31)

    def __init__(self, seed, stream):
        self.state = self.mix(seed ^ self.mix((stream + 0x632BE59BD9B4E019) & self.MASK))

    def shuffle(self, values):
        for i in range(len(values), 1, -1):
            j = (self.mix(self.state) * i) >> 64
            self.state = (self.state + 1) & self.MASK
            values[i - 1], values[j] = values[j], values[i - 1]


def least_on_simplex(n, function):
    """function(w) -> value, gradient"""
    result = minimize(function, numpy.full(n, 1 / n), jac=True, bounds=[(0, 1)] * n, method="SLSQP",
                      constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: numpy.ones(n)},
                      options={"ftol": 1e-16, "maxiter": 1000})
    return result.x


def pcgrad(g, step, seed):
    random = Random(Random.mix(seed), step)
    total = torch.zeros_like(g[0])
    for i in range(len(g)):
        others = [j for j in range(len(g)) if j != i]
        random.shuffle(others)
        own = g[i].clone()
        for j in others:
            if own @ g[j] < 0:
                own -= (own @ g[j]) / (g[j] @ g[j]) * g[j]
        total += own
    return total


def cagrad(g, c):
    n, mean = len(g), g.mean(0)
    radius = c * mean.norm()
    scale = float(mean.norm() ** 2)

    def worst(w):
        w = torch.tensor(w, requires_grad=True)
        mixed = w @ g
        value = (mixed @ mean + radius * mixed.norm()) / scale
        value.backward()
        return float(value.detach()), w.grad.numpy()

    mixed = torch.from_numpy(least_on_simplex(n, worst)) @ g
    return n * (mean + radius * mixed / mixed.norm())


def mgda(g, losses, normalize):
    n = len(g)
    divisor = {"none": torch.ones(n, dtype=g.dtype), "norm": g.norm(dim=1), "loss": torch.tensor(losses, dtype=g.dtype)}[normalize]
    scaled = g / divisor[:, None]
    scale = float((scaled.mean(0) ** 2).sum())

    def square(w):
        point = torch.from_numpy(w) @ scaled
        return float(point @ point) / scale, (2 * scaled @ point / scale).numpy()

    return n * torch.from_numpy(least_on_simplex(n, square)) @ g


class Balancer:
    def __init__(self, config, tasks, seed):
        self.method, self.keys, self.seed, self.tasks = config["balance"], config["balancing"], seed, tasks
        start = {"uncertainty": 0.0, "gradnorm": 1.0}.get(self.method)
        if start is not None:
            self.learned = [LearnedNumber(start, self.keys["learning_rate"]) for _ in tasks]
        self.windows, self.window = [[] for _ in tasks], []  # dwa: mean losses of each task, losses of the open window
        self.first = [None] * len(tasks)  # gradnorm
        self.averages = {}  # metabalance: by map and task, (sum, sum of the weights)

    def combine(self, losses, gradients, step):
        """losses: a number a task, 0 without an observed row. gradients: a dictionary a task."""
        all_maps = list(maps(gradients[0]))
        total = {name: torch.zeros_like(tensor) for name, tensor in gradients[0].items()}

        def of(task, place):
            return gradients[task][place[0]][place[1]]

        def put(place, value):
            total[place[0]][place[1]] = value

        tasks = range(len(gradients))
        shared = [place for place in all_maps if sum(bool((of(t, place) != 0).any()) for t in tasks) >= 2]
        g = torch.stack([torch.cat([of(t, place).flatten() for place in shared]) for t in tasks])
        active = [t for t in tasks if (g[t] != 0).any()]

        if self.method in ("uncertainty", "dwa", "gradnorm"):
            weights = getattr(self, "weights_" + self.method)(losses, g, active)
            for place in all_maps:
                put(place, sum(weights[t] * of(t, place) for t in tasks))
        elif self.method == "metabalance":
            for place in all_maps:
                factors = self.factors_metabalance(place, [float(of(t, place).norm()) for t in tasks])
                put(place, sum(factors[t] * of(t, place) for t in tasks))
        else:
            if self.method == "pcgrad":
                joint = pcgrad(g[active], step, self.seed)
            elif self.method == "cagrad":
                joint = cagrad(g[active], self.keys["c"])
            else:
                joint = mgda(g[active], [losses[t] for t in active], self.keys["normalize"])
            for place in all_maps:
                put(place, sum(of(t, place) for t in tasks))
            sizes = [of(0, place).numel() for place in shared]
            for place, part in zip(shared, joint.split(sizes)):
                put(place, part.view_as(of(0, place)))
        return total

    def weights_uncertainty(self, losses, g, active):
        weights = [math.exp(-s.value) for s in self.learned]
        for s, weight, loss in zip(self.learned, weights, losses):
            if loss > 0:
                s.step(0.5 - weight * loss)
        return weights

    def weights_dwa(self, losses, g, active):
        ratios = [means[-1] / means[-2] if len(means) >= 2 else 1.0 for means in self.windows]
        powers = [math.exp(ratio / self.keys["temperature"]) for ratio in ratios]
        self.window.append(losses)
        if len(self.window) == self.keys["window_steps"]:
            for means, values in zip(self.windows, zip(*self.window)):
                seen = [value for value in values if value > 0]
                means += [sum(seen) / len(seen)] if seen else []
            self.window = []
        return [len(losses) * power / sum(powers) for power in powers]

    def weights_gradnorm(self, losses, g, active):
        weights = [float(w.value) for w in self.learned]
        for t in active:
            self.first[t] = self.first[t] or losses[t]
        w = torch.tensor([weights[t] for t in active], dtype=torch.float64, requires_grad=True)
        norms = (w[:, None] * g[active]).norm(dim=1)
        rates = torch.tensor([losses[t] / self.first[t] for t in active])
        target = norms.detach().mean() * (rates / rates.mean()) ** self.keys["alpha"]
        (norms - target).abs().sum().backward()
        for t, gradient in zip(active, w.grad.tolist()):
            self.learned[t].step(gradient)
        after = sum(float(self.learned[t].value) for t in active)
        for t in active:
            self.learned[t].value = self.learned[t].value * float(w.detach().sum()) / after
        return weights

    def factors_metabalance(self, place, norms):
        decay, relax = self.keys["decay"], self.keys["relax"]
        target = self.tasks.index(self.keys["target"] or self.tasks[-1])
        averages = []
        for t, norm in enumerate(norms):
            key = (place[0], str(place[1]), t)
            if norm > 0:
                total, weight = self.averages.get(key, (0, 0))
                self.averages[key] = (decay * total + (1 - decay) * norm, decay * weight + 1 - decay)
            total, weight = self.averages.get(key, (0, 1))
            averages.append(total / weight)
        factors = []
        for t, average in enumerate(averages):
            scaled = average > 0 and averages[target] > 0
            scaled = scaled and {"both": True, "shrink": average > averages[target], "enlarge": average < averages[target]}[self.keys["direction"]]
            factors.append(relax * averages[target] / average + 1 - relax if scaled else 1)
        return factors
