"""One-gate mixture of experts (Ma et al., KDD 2018): f_t = T_t(sum_k softmax(W x)_k e_k(x)), one gate for all tasks."""

from .layers import fan_out_linear, mixture, mlp


def groups(tasks):
    return 1


def features(x, weights, config, tasks, info):
    x = x[0]
    experts = [mlp(x, weights, "expert", k, config["expert_hidden"], config["activation"], shared_input=True)
               for k in range(config["experts"])]
    mixed = mixture(fan_out_linear(x, weights, "gate", 0), experts)
    return [mlp(mixed, weights, "tower", t, config["tower_hidden"], config["activation"], shared_input=True)
            for t in range(tasks)]
