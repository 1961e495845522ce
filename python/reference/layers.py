"""Small networks with weights taken from a dictionary by name. One network at a time: index e picks expert or task e of a
tensor that holds all of them."""

import contextlib

import torch
import torch.nn.functional as F

# Factors of products are rounded to bfloat16, forward and backward, inside of `rounded_products`.
_rounded = False


@contextlib.contextmanager
def rounded_products(rounded=True):
    global _rounded
    before, _rounded = _rounded, rounded
    try:
        yield
    finally:
        _rounded = before


def _round(x):
    return x.to(torch.bfloat16).to(x.dtype)


class _RoundedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(_round(x), _round(weight))
        return _round(x) @ _round(weight)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return _round(grad) @ weight.T, x.T @ _round(grad)


def product(x, weight):
    """x [B,in] @ weight [in,out]."""
    return _RoundedProduct.apply(x, weight) if _rounded else x @ weight


ACTIVATIONS = {"relu": F.relu, "silu": F.silu, "gelu": F.gelu, "tanh": torch.tanh}


def fan_out_linear(x, weights, name, e):
    """Map e of several maps of the same input: weight [in,E,out], bias [E,out] or absent."""
    bias = weights.get(f"{name}.bias")
    return product(x, weights[f"{name}.weight"][:, e]) + (0 if bias is None else bias[e])


def stacked_linear(x, weights, name, e):
    """Map e of several maps of inputs of their own: weight [E,in,out], bias [E,1,out] or absent."""
    bias = weights.get(f"{name}.bias")
    return product(x, weights[f"{name}.weight"][e]) + (0 if bias is None else bias[e, 0])


def mlp(x, weights, name, e, hidden, activation, shared_input):
    """Hidden layers <name>.0, <name>.1, ... of network e, an activation after each. shared_input: the first layer's weights are
    stored as those of maps of one input."""
    for layer in range(len(hidden)):
        linear = fan_out_linear if shared_input and layer == 0 else stacked_linear
        x = ACTIVATIONS[activation](linear(x, weights, f"{name}.{layer}", e))
    return x


def mixture(gate_logits, experts):
    """sum_k softmax(gate_logits)_k * experts[k]: [B,E] and E tensors [B,H] -> [B,H]."""
    gate = torch.softmax(gate_logits, dim=1)
    return sum(gate[:, k : k + 1] * expert for k, expert in enumerate(experts))
