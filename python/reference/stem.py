"""STEM-Net (Su et al., AAAI 2024): each task has embeddings and experts of its own, and there are shared ones. A task's gate mixes
all experts; the gradient of task t does not enter the experts of other tasks."""

from .layers import mixture, mlp, stacked_linear


def groups(tasks):
    return tasks + 1


def gate_logits(x, weights, name, e, config):
    hidden = mlp(x, weights, f"{name}_hidden", e, config["gate_hidden"], config["activation"], False)
    return stacked_linear(hidden, weights, name, e)


def features(x, weights, config, tasks, info):
    own, shared = config["task_experts"], config["shared_experts"]
    hidden, activation = config["expert_hidden"], config["activation"]
    task_in, shared_in = x[:tasks], x[tasks]
    for level in range(config["levels"]):
        name = f"level{level}"
        task_experts = [[mlp(task_in[t], weights, f"{name}.task_expert", t * own + k, hidden, activation, False) for k in range(own)]
                        for t in range(tasks)]
        shared_experts = [mlp(shared_in, weights, f"{name}.shared_expert", k, hidden, activation, True) for k in range(shared)]
        mixed = []
        for t in range(tasks):
            seen = []
            for owner in range(tasks):
                stop = config["detach_others"] and owner != t
                seen += [expert.detach() if stop else expert for expert in task_experts[owner]]
            logits = gate_logits(task_in[t] + shared_in, weights, f"{name}.gate", t, config)
            mixed.append(mixture(logits, seen + shared_experts))
        if level + 1 < config["levels"]:
            everyone = [expert for experts in task_experts for expert in experts] + shared_experts
            shared_in = mixture(gate_logits(shared_in, weights, f"{name}.shared_gate", 0, config), everyone)
        task_in = mixed
    return [mlp(task_in[t], weights, "tower", t, config["tower_hidden"], activation, False) for t in range(tasks)]
