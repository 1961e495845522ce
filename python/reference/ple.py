"""Progressive layered extraction (Tang et al., RecSys 2020). In each level a task's gate mixes its own and the shared experts;
the shared gate mixes the experts of all tasks and the shared ones, and is absent in the last level."""

from .layers import fan_out_linear, mixture, mlp, stacked_linear


def groups(tasks):
    return 1


def features(x, weights, config, tasks, info):
    own, shared = config["task_experts"], config["shared_experts"]
    hidden, activation = config["expert_hidden"], config["activation"]
    task_in = [x[0]] * tasks
    shared_in = x[0]
    for level in range(config["levels"]):
        name = f"level{level}"
        if level == 0:  # all experts see x and are stored as one group: those of task 0, of task 1, ..., the shared ones
            task_experts = [[mlp(x[0], weights, f"{name}.expert", t * own + k, hidden, activation, True) for k in range(own)]
                            for t in range(tasks)]
            shared_experts = [mlp(x[0], weights, f"{name}.expert", tasks * own + k, hidden, activation, True)
                              for k in range(shared)]
            gate_logits = [fan_out_linear(x[0], weights, f"{name}.gate", t) for t in range(tasks)]
        else:
            task_experts = [[mlp(task_in[t], weights, f"{name}.task_expert", t * own + k, hidden, activation, False)
                             for k in range(own)] for t in range(tasks)]
            shared_experts = [mlp(shared_in, weights, f"{name}.shared_expert", k, hidden, activation, True)
                              for k in range(shared)]
            gate_logits = [stacked_linear(task_in[t], weights, f"{name}.gate", t) for t in range(tasks)]
        task_in = [mixture(gate_logits[t], task_experts[t] + shared_experts) for t in range(tasks)]
        if level + 1 < config["levels"]:
            everyone = [expert for experts in task_experts for expert in experts] + shared_experts
            shared_in = mixture(fan_out_linear(shared_in, weights, f"{name}.shared_gate", 0), everyone)
    return [mlp(task_in[t], weights, "tower", t, config["tower_hidden"], activation, False) for t in range(tasks)]
