"""The hybrid experts and critics of MetaHeac (Zhu et al., KDD 2021): p_t = sum_c g_tc sigmoid(critic_c(f_t)), a mixture of probabilities."""

import torch
import torch.nn.functional as F

from .embedding import columns
from .layers import mixture, mlp, stacked_linear


def groups(tasks):
    return 1


def forward(x, weights, config, info):
    x = x[0]
    embedded = len(info["fields"]) + len(info["bags"])
    dim = (x.shape[1] - len(info["numbers"])) // embedded
    mean = sum(x[:, where] for _, where, is_embedded in columns(info, dim) if is_embedded) / embedded
    experts = [mlp(x, weights, "expert", k, config["expert_hidden"], config["activation"], True) for k in range(config["experts"])]
    logits = []
    for t in range(len(info["tasks"])):
        own = weights["task_embedding.weight"][t].expand(len(x), -1)
        seen = torch.cat([own, mean], dim=1)

        def gate(name):
            return F.linear(seen, weights[f"{name}.weight"].T, weights[f"{name}.bias"])

        f = mixture(gate("expert_gate"), experts)
        critic_gate = torch.softmax(gate("critic_gate"), dim=1)
        p = 0
        for c in range(config["critics"]):
            hidden = mlp(f, weights, "critic", c, config["critic_hidden"], config["activation"], True)
            p = p + critic_gate[:, c] * torch.sigmoid(stacked_linear(hidden, weights, "head", c)[:, 0])
        logits.append(torch.log(p) - torch.log1p(-p))
    return {"logits": logits}
