"""Cross-stitch networks (Misra et al., CVPR 2016): after each hidden layer h'_t = sum_j a_tj h_j."""

from .layers import ACTIVATIONS, fan_out_linear, stacked_linear


def groups(tasks):
    return 1


def features(x, weights, config, tasks, info):
    inputs = [x[0]] * tasks
    for layer in range(len(config["hidden"])):
        linear = stacked_linear if layer else fan_out_linear  # all first layers see x and are stored as maps of one input
        hidden = [ACTIVATIONS[config["activation"]](linear(inputs[t], weights, f"network.{layer}", t)) for t in range(tasks)]
        stitch = weights[f"stitch.{layer}"]
        inputs = [sum(stitch[t, j] * hidden[j] for j in range(tasks)) for t in range(tasks)]
    return inputs
