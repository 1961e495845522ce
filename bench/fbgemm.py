"""FBGEMM's table-batched embeddings on the CPU, on the ids that bench_embedding wrote, in a process of its own. Prints JSON."""

import json
import statistics
import sys
import time

import numpy
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode, EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen

OPTIMIZERS = {"sgd": EmbOptimType.EXACT_SGD, "adagrad": EmbOptimType.EXACT_ADAGRAD,
              "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD, "adam": EmbOptimType.ADAM}


def main():
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec["threads"])
    fields, batch, dim = spec["fields"], spec["batch"], spec["dim"]
    ids = numpy.fromfile(spec["ids"], dtype=numpy.int32).reshape(-1, batch, fields)
    # Its own order: all rows of the first field, then of the second; one id a bag.
    steps = [torch.from_numpy(step.T.astype(numpy.int64).ravel()) for step in ids]
    offsets = torch.arange(fields * batch + 1)
    tables = SplitTableBatchedEmbeddingBagsCodegen(
        embedding_specs=[(spec["rows"] // fields, dim, EmbeddingLocation.HOST, ComputeDevice.CPU)] * fields,
        optimizer=OPTIMIZERS[spec["optimizer"]], learning_rate=0.001, eps=1e-8, pooling_mode=PoolingMode.SUM,
        bounds_check_mode=BoundsCheckMode.NONE)
    for weights in tables.split_embedding_weights():
        weights.normal_(std=0.01)
    grad = torch.randn(batch, fields * dim)
    gathers, updates = [], []
    for i, indices in enumerate(steps):
        start = time.perf_counter()
        x = tables(indices, offsets)
        middle = time.perf_counter()
        x.backward(grad)  # the optimiser's step is part of it
        end = time.perf_counter()
        if i >= spec["warm_up"]:
            gathers.append(middle - start)
            updates.append(end - middle)
    print(json.dumps({"gather_seconds": statistics.median(gathers), "update_seconds": statistics.median(updates)}))


if __name__ == "__main__":
    main()
