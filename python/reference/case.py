"""A golden case: the file that ektm_golden wrote (its header comment gives the format)."""

import json
from dataclasses import dataclass

import safetensors
import torch


@dataclass
class Batch:
    ids: torch.Tensor  # [B,F]
    bags: list  # (offsets [B+1], values) a bag field
    numbers: torch.Tensor  # [B,N]
    labels: torch.Tensor  # [B,K]
    observed: torch.Tensor  # [B,K]
    weights: torch.Tensor  # [B]

    def targets(self):
        """(label [B], weight [B]) of each task."""
        return [(self.labels[:, t], self.observed[:, t] * self.weights) for t in range(self.labels.shape[1])]


class Case:
    def __init__(self, path):
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}
        self.name = path.stem
        self.info = json.loads(metadata["info"])
        self.config = json.loads(metadata["config"])
        self.loss_names = json.loads(metadata["loss_names"])
        self.total_steps = int(metadata["total_steps"])

    def group(self, prefix):
        """The tensors named <prefix>/..., by the rest of their name."""
        return {name[len(prefix) + 1 :]: tensor for name, tensor in self.tensors.items() if name.startswith(prefix + "/")}

    def batch(self, k, dtype):
        parts = self.group(f"batch{k}")
        bags = [(parts[f"bag{j}_offsets"].long(), parts[f"bag{j}_values"].long()) for j in range(len(self.info["bags"]))]
        weights = parts.get("weights", torch.ones(len(parts["ids"])))
        return Batch(parts["ids"].long(), bags, parts["numbers"].to(dtype), parts["labels"].to(dtype),
                     parts["observed"].to(dtype), weights.to(dtype))
