"""Shared bottom (Caruana 1997): f_t = T_t(f(x))."""

from .layers import mlp


def groups(tasks):
    return 1


def features(x, weights, config, tasks, info):
    bottom = mlp(x[0], weights, "bottom", 0, config["bottom_hidden"], config["activation"], shared_input=True)
    return [mlp(bottom, weights, "tower", t, config["tower_hidden"], config["activation"], shared_input=True)
            for t in range(tasks)]
