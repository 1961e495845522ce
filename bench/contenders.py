"""One training run of another program than ektm, in a process of its own: reads a specification (JSON) from the command line,
prints a line of JSON. compare_training.py calls it.

A contender has training data in `batches(columns)`, one epoch in `train(batches)` and probabilities in `predict(columns)`."""

import json
import os
import sys
import time
import types
from pathlib import Path

import numpy
import pyarrow
import torch
import torch.nn.functional as F
from torch import nn


def read_split(folder, split):
    """The columns of an encoded split: ids [N,F], numbers [N,M], labels, observed [N,K], bags: name -> (offsets [N+1],
    values)."""
    parts = [pyarrow.ipc.open_file(pyarrow.memory_map(str(part))).read_all()
             for part in sorted((Path(folder) / split).glob("*.arrow"))]
    columns, bags = {}, {}
    for name in parts[0].column_names:
        column = pyarrow.concat_arrays([chunk for part in parts for chunk in part[name].chunks])
        if pyarrow.types.is_fixed_size_list(column.type):
            columns[name] = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
        elif name.startswith("bag."):
            bags[name[4:]] = column.offsets.to_numpy() - column.offsets[0].as_py(), column.flatten().to_numpy()
    columns["bags"] = bags
    return columns


def padded(offsets, values, longest):
    """A bag as a matrix [N, longest]: values + 1, 0 where there is none."""
    lengths = numpy.diff(offsets)
    matrix = numpy.zeros((len(lengths), longest), dtype=numpy.int64)
    matrix[numpy.arange(matrix.shape[1]) < lengths[:, None]] = values + 1
    return matrix


def auc(scores, labels):
    values, inverse, counts = numpy.unique(scores, return_inverse=True, return_counts=True)
    ranks = (numpy.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = labels.sum(dtype=numpy.int64)
    negatives = len(labels) - positives
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def initialise(model, std):
    """The start that ektm has: peers' own starts differ, and some learn slowly from theirs."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=std)
            if module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])


class TimedBatches:
    """Passes (inputs, targets) on and times the loop that takes them: from the batch after `warm_up` batches to the end. A probe
    ends after so many steps or, once some are timed, so many seconds."""

    def __init__(self, batches, warm_up, probe):
        self.batches, self.warm_up, self.probe = batches, warm_up, probe
        self.steps = self.rows = 0
        self.seconds = 0.0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        start = time.perf_counter() if self.steps >= self.warm_up else None
        for batch in self.batches:
            if start is None and self.steps >= self.warm_up:
                start = time.perf_counter()
            yield batch
            if start is not None:
                self.rows += len(batch[1])
            self.steps += 1
            if self.probe and (self.steps >= self.probe["steps"] or self.rows and
                               time.perf_counter() - start > self.probe["seconds"]):
                break
        if start is not None:
            self.seconds += time.perf_counter() - start


class MemoryBatches:
    """Shuffled batches of tensors that lie in memory: one indexed read a tensor, no object a row."""

    def __init__(self, inputs, targets, batch_rows):
        self.inputs, self.targets, self.batch_rows = inputs, targets, batch_rows

    def __len__(self):
        return -(-len(self.targets) // self.batch_rows)

    def __iter__(self):
        for rows in torch.randperm(len(self.targets)).split(self.batch_rows):
            if isinstance(self.inputs, dict):
                yield {name: tensor[rows] for name, tensor in self.inputs.items()}, self.targets[rows]
            else:
                yield self.inputs[rows], self.targets[rows]


def adam(parameters, spec):
    return torch.optim.Adam(parameters, lr=spec["learning_rate"], fused=spec["settings"].get("fused", False))


class Plain:
    """A PyTorch loop as one would write it by hand for speed: one embedding table for all fields, padded bags through
    embedding_bag, all experts' first layers in one product, deeper ones batched, the loss of all tasks at once."""

    def __init__(self, spec, info):
        settings = spec["settings"]
        self.spec, self.info = spec, info
        self.offsets = numpy.cumsum([1] + [table["rows"] for table in info["tables"]])  # row 0 is padding
        self.widths = [len(info["fields"])] + [bag["longest"] for bag in info["bags"]]
        self.embedding = nn.Parameter(torch.empty(int(self.offsets[-1]), spec["dim"]))
        self.sparse = settings.get("sparse", False)
        features = (len(info["fields"]) + len(info["bags"])) * spec["dim"] + len(info["numbers"])
        self.network = {"shared_bottom": PlainSharedBottom, "mmoe": PlainMmoe, "ple": PlainPle}[spec["model"]](
            features, len(info["tasks"]), spec["sizes"])
        nn.init.normal_(self.embedding, std=spec["init_std"])
        dense = list(self.network.parameters())
        if self.sparse:
            self.optimizers = [adam(dense, spec), torch.optim.SparseAdam([self.embedding], lr=spec["learning_rate"])]
        else:
            self.optimizers = [adam(dense + [self.embedding], spec)]
        self.loss_of_full_batch = torch.compile(self.loss, dynamic=False) if settings.get("compile") else self.loss

    def inputs(self, columns):
        parts = [columns["ids"] + self.offsets[[field["table"] for field in self.info["fields"]]]]
        for bag in self.info["bags"]:
            matrix = padded(*columns["bags"][bag["name"]], bag["longest"])
            parts.append(numpy.where(matrix > 0, matrix - 1 + self.offsets[bag["table"]], 0))
        ids = torch.from_numpy(numpy.concatenate(parts, axis=1, dtype=numpy.int64))
        numbers = torch.from_numpy(columns["numbers"].copy()) if self.info["numbers"] else torch.zeros(len(ids), 0)
        return {"ids": ids, "numbers": numbers}

    def targets(self, columns):
        return torch.from_numpy(numpy.stack([columns["labels"], columns["observed"]], axis=2)).float()  # [N,K,2]

    def batches(self, columns):
        return MemoryBatches(self.inputs(columns), self.targets(columns), self.spec["batch"])

    def embed(self, inputs):
        fields, *bags = inputs["ids"].split(self.widths, dim=1)
        parts = [F.embedding(fields, self.embedding, sparse=self.sparse).flatten(1)]
        for bag, ids in zip(self.info["bags"], bags):
            mode = "sum" if bag["sum_pooling"] else "mean"
            parts.append(F.embedding_bag(ids, self.embedding, mode=mode, sparse=self.sparse, padding_idx=0))
        return torch.cat(parts + [inputs["numbers"]], dim=1)

    def loss(self, x, targets):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.spec["settings"].get("bf16", False)):
            logits = self.network(x).float()  # [K,B]
        labels, observed = targets[..., 0].t(), targets[..., 1].t()
        values = F.binary_cross_entropy_with_logits(logits, labels, reduction="none") * observed
        return (values.sum(1) / observed.sum(1).clamp(min=1)).sum()

    def train(self, batches):
        for inputs, targets in batches:
            loss = self.loss_of_full_batch if len(targets) == self.spec["batch"] else self.loss
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss(self.embed(inputs), targets).backward()
            for optimizer in self.optimizers:
                optimizer.step()

    def predict(self, columns):
        inputs = self.inputs(columns)
        with torch.no_grad():
            return torch.cat([torch.sigmoid(self.network(self.embed({"ids": ids, "numbers": numbers}))).t()
                              for ids, numbers in zip(inputs["ids"].split(4096), inputs["numbers"].split(4096))]).numpy()


class FanOut(nn.Module):
    """`count` maps of one input as one product: [B,in] -> [count,B,out]."""

    def __init__(self, count, size_in, size_out, bias=True):
        super().__init__()
        self.count = count
        self.weight, self.bias = nn.Parameter(torch.empty(count * size_out, size_in)), None
        nn.init.uniform_(self.weight, -(6 / (size_in + size_out)) ** 0.5, (6 / (size_in + size_out)) ** 0.5)
        if bias:
            self.bias = nn.Parameter(torch.zeros(count * size_out))

    def forward(self, x):
        return F.linear(x, self.weight, self.bias).unflatten(1, (self.count, -1)).transpose(0, 1)


class Stacked(nn.Module):
    """`count` maps of inputs of their own: [count,B,in] -> [count,B,out]."""

    def __init__(self, count, size_in, size_out, bias=True):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(count, size_in, size_out)), None
        nn.init.uniform_(self.weight, -(6 / (size_in + size_out)) ** 0.5, (6 / (size_in + size_out)) ** 0.5)
        if bias:
            self.bias = nn.Parameter(torch.zeros(count, 1, size_out))

    def forward(self, x):
        return torch.bmm(x, self.weight) if self.bias is None else torch.baddbmm(self.bias, x, self.weight)


def stack(count, size_in, hidden, shared_input):
    layers = []
    for i, size in enumerate(hidden):
        layers += [(FanOut if shared_input and i == 0 else Stacked)(count, size_in, size), nn.ReLU(inplace=True)]
        size_in = size
    return nn.Sequential(*layers)


class PlainSharedBottom(nn.Module):
    def __init__(self, features, tasks, sizes):
        super().__init__()
        self.bottom = stack(1, features, sizes["bottom_hidden"], True)
        self.towers = stack(tasks, sizes["bottom_hidden"][-1], sizes["tower_hidden"], True)
        self.heads = Stacked(tasks, sizes["tower_hidden"][-1], 1)

    def forward(self, x):
        return self.heads(self.towers(self.bottom(x)[0])).squeeze(2)


class PlainMmoe(nn.Module):
    def __init__(self, features, tasks, sizes):
        super().__init__()
        self.experts = stack(sizes["experts"], features, sizes["expert_hidden"], True)
        self.gates = FanOut(tasks, features, sizes["experts"], bias=False)
        self.towers = stack(tasks, sizes["expert_hidden"][-1], sizes["tower_hidden"], False)
        self.heads = Stacked(tasks, sizes["tower_hidden"][-1], 1)

    def forward(self, x):
        gates = torch.softmax(self.gates(x), dim=2).transpose(0, 1)  # [B,K,E]
        mixed = torch.bmm(gates, self.experts(x).transpose(0, 1)).transpose(0, 1)
        return self.heads(self.towers(mixed)).squeeze(2)


class PlainPle(nn.Module):
    def __init__(self, features, tasks, sizes):
        super().__init__()
        self.tasks, self.own, self.shared = tasks, sizes["task_experts"], sizes["shared_experts"]
        self.levels = nn.ModuleList()
        size_in, out, all_experts = features, sizes["expert_hidden"][-1], tasks * self.own + self.shared
        for level in range(sizes["levels"]):
            if level == 0:  # one input for all
                self.levels.append(nn.ModuleDict({
                    "all": stack(all_experts, size_in, sizes["expert_hidden"], True),
                    "gates": FanOut(tasks, size_in, self.own + self.shared, bias=False)}))
            else:
                self.levels.append(nn.ModuleDict({
                    "task": stack(tasks * self.own, size_in, sizes["expert_hidden"], False),
                    "shared": stack(self.shared, size_in, sizes["expert_hidden"], True),
                    "gates": Stacked(tasks, size_in, self.own + self.shared, bias=False)}))
            if level + 1 < sizes["levels"]:
                self.levels[-1]["shared_gate"] = FanOut(1, size_in, all_experts, bias=False)
            size_in = out
        self.towers = stack(tasks, out, sizes["tower_hidden"], False)
        self.heads = Stacked(tasks, sizes["tower_hidden"][-1], 1)

    def forward(self, x):
        task_in, shared_in = x, x  # [B,D] at the first level, then [K,B,H] and [B,H]
        for level in self.levels:
            gates = torch.softmax(level["gates"](task_in), dim=2)  # [K,B,own+shared]
            if "all" in level:
                own, shared = level["all"](task_in).split([self.tasks * self.own, self.shared])
            else:
                own, shared = level["task"](task_in.repeat_interleave(self.own, dim=0)), level["shared"](shared_in)
            candidates = torch.cat([own.unflatten(0, (self.tasks, self.own)), shared.expand(self.tasks, -1, -1, -1)], dim=1)
            task_in = (gates.permute(0, 2, 1).unsqueeze(3) * candidates).sum(1)
            if "shared_gate" in level:
                gate = torch.softmax(level["shared_gate"](shared_in), dim=2).transpose(0, 1)  # [B,1,all]
                shared_in = torch.bmm(gate, torch.cat([own, shared]).transpose(0, 1)).squeeze(1)
        return self.heads(self.towers(task_in)).squeeze(2)


def peer_inputs(info, columns):
    """name -> column, ids and values of bags + 1: 0 is padding in the peers."""
    inputs = {field["name"]: columns["ids"][:, i] + 1 for i, field in enumerate(info["fields"])}
    inputs |= {bag["name"]: padded(*columns["bags"][bag["name"]], bag["longest"]) for bag in info["bags"]}
    return inputs | {name: columns["numbers"][:, i] for i, name in enumerate(info["numbers"])}


class RecHub:
    """torch-rechub: its models, its MTLTrainer. Batch normalisation, which its layers always have and the others do not, is taken
    out: the same model for everyone, and faster than with it."""

    def __init__(self, spec, info):
        from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
        from torch_rechub.models import multi_task
        from torch_rechub.trainers import MTLTrainer

        self.spec, self.info = spec, info
        features, owners = [], {}
        for field in info["fields"] + info["bags"]:
            kind = {} if field in info["fields"] else {"pooling": "sum" if field["sum_pooling"] else "mean", "padding_idx": 0}
            features.append((SequenceFeature if kind else SparseFeature)(
                field["name"], info["tables"][field["table"]]["rows"] + 1, spec["dim"],
                shared_with=owners.get(field["table"]), **kind))
            owners.setdefault(field["table"], field["name"])
        features += [DenseFeature(name) for name in info["numbers"]]
        sizes, types = spec["sizes"], ["classification"] * len(info["tasks"])
        towers = [{"dims": sizes["tower_hidden"]} for _ in types]
        if spec["model"] == "shared_bottom":
            self.model = multi_task.SharedBottom(features, types, {"dims": sizes["bottom_hidden"]}, towers)
        elif spec["model"] == "mmoe":
            self.model = multi_task.MMOE(features, types, sizes["experts"], {"dims": sizes["expert_hidden"]}, towers)
        else:
            self.model = multi_task.PLE(features, types, sizes["levels"], sizes["task_experts"], sizes["shared_experts"],
                                        {"dims": sizes["expert_hidden"]}, towers)
        for module in list(self.model.modules()):
            if isinstance(module, nn.Sequential):
                for i, layer in enumerate(module):
                    if isinstance(layer, (nn.BatchNorm1d, nn.Dropout)):
                        module[i] = nn.Identity()
        initialise(self.model, spec["init_std"])
        self.trainer = MTLTrainer(self.model, types, optimizer_params={
            "lr": spec["learning_rate"], "fused": spec["settings"].get("fused", False)})

    def batches(self, columns):
        if self.spec["settings"].get("memory_batches"):
            inputs = {name: torch.from_numpy(column.copy()) for name, column in peer_inputs(self.info, columns).items()}
            return MemoryBatches(inputs, torch.from_numpy(columns["labels"].copy()), self.spec["batch"])
        from torch_rechub.utils.data import DataGenerator
        inputs = peer_inputs(self.info, columns)
        loaders = DataGenerator(inputs, columns["labels"]).generate_dataloader(
            inputs, columns["labels"], inputs, columns["labels"], batch_size=self.spec["batch"],
            num_workers=self.spec["settings"].get("workers", 0))
        return loaders[0]

    def train(self, batches):
        self.trainer.train_one_epoch(batches)

    def predict(self, columns):
        inputs = {name: torch.from_numpy(column.copy()) for name, column in peer_inputs(self.info, columns).items()}
        self.model.eval()
        with torch.no_grad():
            return torch.cat([self.model({name: column[rows] for name, column in inputs.items()})
                              for rows in torch.arange(len(columns["ids"])).split(4096)]).numpy()


class DeepCtr:
    """DeepCTR-Torch: its models and its fit(), without regularisation and metrics. fit() builds a DataLoader over rows itself;
    with `memory_batches` that class is replaced."""

    def __init__(self, spec, info):
        # Its import looks up newer versions on the network by this module; without it, it does not.
        sys.modules["requests"] = types.ModuleType("requests")
        from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
        from deepctr_torch.models import multitask

        self.spec, self.info = spec, info
        columns = []
        for field in info["fields"] + info["bags"]:
            table = info["tables"][field["table"]]
            column = SparseFeat(field["name"], table["rows"] + 1, spec["dim"], embedding_name=f"table{field['table']}")
            if field in info["bags"]:
                column = VarLenSparseFeat(column, field["longest"], "sum" if field["sum_pooling"] else "mean")
            columns.append(column)
        columns += [DenseFeat(name, 1) for name in info["numbers"]]
        sizes, tasks = spec["sizes"], len(info["tasks"])
        common = {"tower_dnn_hidden_units": sizes["tower_hidden"], "l2_reg_linear": 0, "l2_reg_embedding": 0, "l2_reg_dnn": 0,
                  "task_types": ["binary"] * tasks, "task_names": [task["name"] for task in info["tasks"]], "seed": spec["seed"]}
        if spec["model"] == "shared_bottom":
            self.model = multitask.SharedBottom(columns, bottom_dnn_hidden_units=sizes["bottom_hidden"], **common)
        elif spec["model"] == "mmoe":
            self.model = multitask.MMOE(columns, num_experts=sizes["experts"], expert_dnn_hidden_units=sizes["expert_hidden"],
                                        gate_dnn_hidden_units=[], **common)
        else:
            self.model = multitask.PLE(columns, shared_expert_num=sizes["shared_experts"],
                                       specific_expert_num=sizes["task_experts"], num_levels=sizes["levels"],
                                       expert_dnn_hidden_units=sizes["expert_hidden"], gate_dnn_hidden_units=[], **common)
        initialise(self.model, spec["init_std"])
        self.model.compile(adam(self.model.parameters(), spec), loss=["binary_crossentropy"] * tasks)

    def matrix(self, columns):
        inputs = peer_inputs(self.info, columns)
        # float32 is what the models compute with; ids above 2^24 would not be exact in it.
        return {name: inputs[name].astype(numpy.float32) for name in self.model.feature_index}

    def batches(self, columns):
        self.inputs, self.labels = self.matrix(columns), columns["labels"].astype(numpy.float32)
        return None

    def train(self, batches):
        from deepctr_torch.models import basemodel

        def loader(dataset, shuffle, batch_size):
            if self.spec["settings"].get("memory_batches"):
                batches.batches = MemoryBatches(*dataset.tensors, batch_size)
            else:
                batches.batches = torch.utils.data.DataLoader(dataset=dataset, shuffle=shuffle, batch_size=batch_size)
            return batches

        basemodel.DataLoader = loader
        self.model.fit(dict(self.inputs), self.labels, batch_size=self.spec["batch"], epochs=1, verbose=0)

    def predict(self, columns):
        matrix = torch.from_numpy(numpy.column_stack(list(self.matrix(columns).values())))
        self.model.eval()
        with torch.no_grad():
            return torch.cat([self.model(rows) for rows in matrix.split(4096)]).numpy()


def main():
    spec = json.loads(sys.argv[1])
    # The peers print; the result alone goes to standard output.
    result_out, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(spec["seed"])
    info = json.loads((Path(spec["data"]) / "manifest.json").read_text())["content"]["dataset"]
    splits = {split: read_split(spec["data"], split) for split in ("train", "valid", "test")}
    for bag in info["bags"]:
        bag["longest"] = max(int(numpy.diff(columns["bags"][bag["name"]][0]).max()) for columns in splits.values())
    contender = {"plain": Plain, "rechub": RecHub, "deepctr": DeepCtr}[spec["contender"]](spec, info)
    batches = TimedBatches(contender.batches(splits["train"]), spec["warm_up"], spec["probe"])

    def aucs(split):
        columns = splits[split]
        scores = contender.predict(columns)
        return [auc(scores[seen, t], columns["labels"][seen, t])
                for t, seen in enumerate(columns["observed"].astype(bool).T)]

    best = None
    for _ in range(spec["epochs"]):
        contender.train(batches)
        if spec["probe"]:
            break
        valid = numpy.mean(aucs("valid"))
        if best is None or valid > best[0]:  # as ektm: the epoch that is best on the validation split is measured
            best = valid, aucs("test")
    result = {"samples_per_s": batches.rows / batches.seconds, "steps": batches.steps}
    if best:
        result["auc"] = dict(zip([task["name"] for task in info["tasks"]], best[1]))
    print(json.dumps(result), file=result_out, flush=True)


if __name__ == "__main__":
    main()
