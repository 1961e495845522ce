"""Golden parity: what the C++ program computes against the plain PyTorch reference, from the same start weights.

ektm_golden (tests/golden) writes a file a case; tests/golden/cases.h lists them. The reference runs in float64, so every
difference is the C++ program's rounding in float32, or an error of one of the two."""

import copy
import functools
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from conftest import build_folder

from reference import ektm, training
from reference.case import Case

# The tensors are small: waiting threads would only compete for the cores, here and in ektm_golden.
torch.set_num_threads(1)

# Relative to each number, and never more than this relative to a tensor's largest number.
RELATIVE = 1e-5
# Relative to a tensor's largest number, for numbers that are sums of larger ones that cancel: an error of some float32 roundings
# (1.2e-7) of the largest terms is left. The worst seen, a gradient through a softmax over 9 experts, is 2e-6.
CANCELLED = 3e-6
# Of a tensor's largest gradient: one float32 rounding.
ROUNDING = 2.0**-23


@functools.cache
def golden_files():
    """Runs ektm_golden once. The files by case, or what went wrong."""
    program = build_folder() / "bin" / "ektm_golden"
    if not program.exists():
        return {}, f"{program} does not exist. Build the target ektm_golden, or set EKTM_BUILD to the build folder that has it."
    golden_files.folder = tempfile.TemporaryDirectory(prefix="ektm_golden_")
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    result = subprocess.run([program, golden_files.folder.name], env=environment, capture_output=True, text=True)
    if result.returncode:
        return {}, f"{program} failed with exit code {result.returncode}: {result.stderr}"
    return {path.stem: path for path in sorted(Path(golden_files.folder.name).glob("*.safetensors"))}, ""


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        files, _ = golden_files()
        exact = [name for name in files if not name.endswith("_bf16")]
        metafunc.parametrize("case", exact or ["ektm_golden"], indirect=True)


def load(name):
    files, problem = golden_files()
    if problem:
        pytest.fail(problem)
    return Case(files[name])


@pytest.fixture
def case(request):
    return load(request.param)


def start(case, dtype=torch.float64):
    return {name: tensor.to(dtype) for name, tensor in case.group("start").items()}


def batches(case, dtype=torch.float64):
    return [case.batch(k, dtype) for k in range(3)]


def assert_close(name, found, expected, extra=None):
    """extra: tolerated on top, a tensor like expected."""
    found, expected = found.double(), expected.double()
    assert found.shape == expected.shape, f"{name}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    assert torch.isfinite(found).all(), f"{name}: not finite"
    error, largest = (found - expected).abs(), expected.abs().max()
    extra = torch.zeros_like(expected) if extra is None else extra.double()
    bound = torch.minimum(RELATIVE * expected.abs() + CANCELLED * largest, RELATIVE * largest) + extra
    over = error > bound
    if over.any():
        worst = int((error - bound).argmax())
        raise AssertionError(f"{name}: {int(over.sum())} of {over.numel()} numbers differ; the worst, number {worst}: found "
                             f"{found.flatten()[worst]:.9g}, expected {expected.flatten()[worst]:.9g}, tolerated error "
                             f"{bound.flatten()[worst]:.2g}; largest number of the tensor {largest:.3g}")


def assert_group_close(found, expected, extra=None):
    assert found.keys() == expected.keys()
    for name in expected:
        assert_close(name, found[name], expected[name], extra and extra.get(name))


def check_pass(case, config, weights, dtype=torch.float64):
    """Outputs, losses and gradients of batch 0."""
    output, (total, names, values), grads = training.gradients(config, case.info, weights, case.batch(0, dtype))
    assert_group_close(case.group("output"), output)
    assert names == case.loss_names
    assert_close("loss/values", case.tensors["loss/values"], values)
    assert_close("loss/total", case.tensors["loss/total"], total[None])
    assert_group_close(case.group("grad"), grads)


def check_steps(case, config, weights):
    """Weights after three steps. Adam and AdaGrad divide by the root of the squared gradients, which amplifies the rounding
    error of gradients that are small beside the tensor's largest; `reach` says by how much, number by number. So one rounding of
    the largest gradient is followed to each weight, and no more is tolerated. Few numbers need it (2 in ple_three_levels)."""
    expected, reach = training.train(config, case.info, weights, batches(case), case.total_steps)
    assert_group_close(case.group("end"), expected, {name: ROUNDING * r for name, r in reach.items()})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_outputs_losses_and_gradients(case, dtype):
    check_pass(case, case.config, start(case, dtype), dtype)


def test_weights_after_three_steps(case):
    check_steps(case, case.config, start(case))


def test_the_tolerance_of_weights_is_small(case):
    """What is added for amplified rounding stays below 1 % of the learning rate for all but a few numbers."""
    _, reach = training.train(case.config, case.info, start(case), batches(case), case.total_steps)
    extra = ROUNDING * torch.cat([r.flatten() for r in reach.values()])
    rate = max(case.config["optimizer"]["learning_rate"], case.config["embedding"]["learning_rate"])
    share = float((extra > 0.01 * rate).double().mean())
    assert share < 0.01, f"{share:.2%} of the numbers"


def test_one_wrong_weight_is_noticed(case):
    """Every trained tensor takes part: a change of 1e-3 in its most influential number must not pass."""
    weights = start(case)
    for name, gradient in case.group("grad").items():
        if case.name == "ektm_mmoe_one" and name in ("router.query", "router.key"):
            assert gradient.abs().max() == 0  # of a single conversion the softmax is 1, whatever the similarity
            continue
        assert gradient.abs().max() > 0, f"{name} has no influence on the loss"
        changed = dict(weights)
        changed[name] = weights[name].clone()
        changed[name].view(-1)[gradient.abs().argmax()] += 1e-3
        with pytest.raises(AssertionError):
            check_pass(case, case.config, changed)


# A case against the reference with one setting changed: the case really exercises that setting.
OTHER_SETTINGS = [
    ("ektm_mix", "model.serve", "enhanced"),
    ("mmoe_silu", "model.activation", "gelu"),
    ("ektm_dot_none", "model.normalize", "softmax"),
    ("ektm_cosine", "model.similarity", "label"),
    ("ektm_cosine_none", "model.normalize", "softmax"),
    ("ektm_label", "model.normalize", "none"),
    ("ektm_label_none", "model.normalize", "softmax"),
    ("ektm_gate", "model.detach_sources", False),
    ("ektm_detach_own", "model.detach_own", False),
    ("ektm_detach_both", "model.detach_sources", False),
    ("ektm_detach_both", "model.detach_own", False),
    ("ektm_weights", "model.transmit", "gate"),
    ("ektm_detach_both", "model.detach_own", False),
    ("ektm_full_weight", "model.share_weight", True),
    ("ektm_mix", "model.detach_sources", False),
    ("ektm_mix_attached", "model.detach_own", True),
    ("ektm_mmoe_parallel", "model.transmit", "gate"),
    ("ektm_mmoe_parallel", "model.router", False),
    ("ektm_mmoe_parallel", "model.transmitter", False),
    ("ektm_no_enhanced", "model.enhanced", True),
    ("ektm_hard_none", "model.hard", "weight"),
    ("ektm_hinge", "model.hard", "none"),
    ("ektm_focal", "model.hard", "none"),
    ("ektm_focal", "model.gamma", 1),
    ("ektm_weights", "model.lambda", 1),
    ("ektm_weights", "model.alpha", 1),
    ("ektm_weights", "model.gamma", 1),
    ("cross_stitch_silu", "model.activation", "gelu"),
    ("aitm_silu", "model.activation", "gelu"),
    ("aitm_parallel", "model.constraint", 0.5),
    ("aitm_sequential", "model.constraint", 0),
    ("esmm_task_weights", "loss.task_weights", {}),
    ("escm2_ipw_parallel", "model.stop_gradients", False),
    ("escm2_ipw_attached", "model.stop_gradients", True),
    ("escm2_ipw_weights", "model.lambda_c", 1),
    ("escm2_ipw_weights", "model.lambda_g", 1),
    ("escm2_ipw_weights", "model.clip", 0.05),
    ("escm2_dr_parallel", "model.stop_gradients", False),
    ("escm2_dr_attached", "model.stop_gradients", True),
    ("escm2_dr_weights", "model.lambda_c", 1),
    ("escm2_dr_weights", "model.lambda_g", 1),
    ("escm2_dr_weights", "model.lambda_i", 1),
    ("escm2_dr_weights", "model.clip", 0.05),
    ("dcmt_parallel", "model.stop_gradients", False),
    ("dcmt_attached", "model.stop_gradients", True),
    ("dcmt_weights", "model.cvr_weight", 1),
    ("dcmt_weights", "model.path_weight", 1),
    ("dcmt_weights", "model.lambda", 0.001),
    ("dcmt_weights", "model.clip", 0.05),
    ("dcmt_weights", "model.self_normalize", False),
    ("dcmt_not_normalized", "model.self_normalize", True),
    ("stem_parallel", "model.detach_others", False),
    ("stem_attached", "model.detach_others", True),
    ("pepnet_parallel", "model.detach_gates", False),
    ("pepnet_parallel", "model.gamma", 1),
    ("pepnet_columns", "model.domain", ["price", "tags"]),
    ("pepnet_columns", "model.prior", ["tags", "price", "user"]),
    ("mkt_parallel", "model.stop_gradients", False),
    ("mkt_parallel", "model.pretrain", 0.9),
    ("mkt_parallel", "model.polar", 0.4),
    ("mkt_entity", "model.entity", ["tags", "age"]),
    ("mkt_joint", "model.stop_gradients", True),
    ("home_groups", "model.groups", [["b"], ["c", "click"], ["a"]]),
    ("cross_distil_parallel", "model.distill", 0.2),
    ("cross_distil_parallel", "model.auxiliary", 0),
    ("cross_distil_parallel", "model.pairs", 7),
    ("cross_distil_corrected", "model.margin", -100),
    ("task_weights", "loss.task_weights", {}),
    ("l2_and_decay", "embedding.l2", 0),
    ("attention", "attention.normalize", "softmax"),
    ("attention", "attention.targets", {}),
    ("attention", "attention.targets", {"history": "last_item"}),
    ("attention_softmax", "attention.normalize", "none"),
    ("attention_softmax", "attention.targets", {"history": "last_item"}),
    ("single_task_attention_softmax", "attention.normalize", "none"),
]
OTHER_STEPS = [
    ("mmoe_parallel", "embedding.optimizer", "sgd"),
    ("mmoe_parallel", "embedding.learning_rate", 0.011),
    ("mmoe_parallel", "optimizer.learning_rate", 0.011),
    ("mmoe_parallel", "optimizer.beta1", 0.8),
    ("mmoe_parallel", "optimizer.beta2", 0.99),
    ("mmoe_parallel", "embedding.beta1", 0.8),
    ("mmoe_parallel", "embedding.beta2", 0.99),
    ("adagrad", "embedding.optimizer", "rowwise_adagrad"),
    ("rowwise_adagrad", "embedding.optimizer", "adagrad"),
    ("sgd", "embedding.optimizer", "adagrad"),
    ("l2_and_decay", "optimizer.weight_decay", 0),
    ("l2_and_decay", "embedding.l2", 0.11),
    ("clip", "optimizer.clip_norm", 0),
    ("clip", "optimizer.clip_norm", 0.01),
    ("ektm_mix_own", "model.mix_prior", 1),
    ("ektm_mix_own", "model.mix_own", 1),
    ("warmup_cosine", "optimizer.schedule", "linear"),
    ("warmup_cosine", "optimizer.warmup_steps", 2),
    ("warmup_cosine", "optimizer.final_ratio", 0.2),
    *((f"{method}_{model}", "loss.balance", "fixed")
      for method in ("uncertainty", "dwa", "gradnorm", "pcgrad", "cagrad", "mgda", "metabalance") for model in ("mmoe", "ektm")),
    ("pcgrad_mmoe", "loss.balance", "cagrad"),
    ("cagrad_mmoe", "loss.balance", "mgda"),
    ("uncertainty_mmoe", "loss.balancing.learning_rate", 0.02),
    ("dwa_mmoe", "loss.balancing.temperature", 1),
    ("dwa_mmoe", "loss.balancing.window_steps", 2),
    ("gradnorm_mmoe", "loss.balancing.learning_rate", 0.02),
    ("gradnorm_mmoe", "loss.balancing.alpha", 20),
    ("gradnorm_ektm", "loss.balancing.alpha", 20),
    ("cagrad_mmoe", "loss.balancing.c", 0.3),
    ("mgda_norm", "loss.balancing.normalize", "loss"),
    ("metabalance_shrink", "loss.balancing.direction", "both"),
    ("metabalance_shrink", "loss.balancing.target", "b"),
    ("metabalance_shrink", "loss.balancing.relax", 0.4),
    ("metabalance_shrink", "loss.balancing.decay", 0.4),
    ("home_groups", "model.momentum", 0.1),
]


def with_setting(config, key, value):
    config = copy.deepcopy(config)
    *sections, name = key.split(".")
    place = functools.reduce(lambda part, section: part[section], sections, config)
    assert place[name] != value
    place[name] = value
    return config


def setting_ids(settings):
    return [f"{name}-{key}={value}" for name, key, value in settings]


@pytest.mark.parametrize("name, key, value", OTHER_SETTINGS, ids=setting_ids(OTHER_SETTINGS))
def test_another_setting_is_noticed(name, key, value):
    case = load(name)
    weights = start(case)
    # So that a similarity, or a choice of heads, that this case does not use can be computed at all.
    weights.setdefault("router.label_similarity", torch.eye(len(case.info["tasks"]), dtype=torch.float64))
    weights.setdefault("serve.enhanced", torch.ones(len(case.info["tasks"]), dtype=torch.float64))
    config = with_setting(case.config, key, value)
    with pytest.raises(AssertionError):
        check_pass(case, config, weights)


@pytest.mark.parametrize("name, key, value", OTHER_STEPS, ids=setting_ids(OTHER_STEPS))
def test_another_optimiser_setting_is_noticed(name, key, value):
    case = load(name)
    config = with_setting(case.config, key, value)
    with pytest.raises(AssertionError):
        check_steps(case, config, start(case))


@pytest.mark.parametrize("name", ["ektm_detach_both", "ektm_gate_detach_both", "ektm_mix_detach_both", "ektm_residual_detach_both"])
def test_detaching_both_leaves_the_backbone_alone(name):
    """With detach_sources and detach_own, backbone, base heads and embeddings learn from the base losses only: their gradients
    are those of the backbone without EKTM."""
    case = load(name)
    bare = dict(case.config, model=case.config["model"]["backbone"])
    own = {n: w for n, w in start(case).items() if not n.startswith(("router.", "transmitter.", "enhanced.", "serve."))}
    _, _, expected = training.gradients(bare, case.info, own, case.batch(0, torch.float64))
    found = case.group("grad")
    assert len(expected) < len(found)
    assert_group_close({n: found[n] for n in expected}, expected)


@pytest.mark.parametrize("name", ["mmoe_bf16", "ektm_bf16"])
def test_bf16_is_the_reference_with_rounded_factors(name):
    """Where rounding error in float32 moves a factor over the middle between two bfloat16 numbers, it changes by 2^-8: so the bound of a
    tensor is 4e-3 of its largest number. Over all tensors the distance to the reference that rounds is a fraction of that to the one that
    does not."""
    case = load(name)
    assert case.config["precision"] == "bf16"
    distance = {}
    for precision in ("bf16", "f32"):
        output, (total, _, values), grads = training.gradients(dict(case.config, precision=precision), case.info, start(case),
                                                               case.batch(0, torch.float64))
        expected = {**{f"output/{n}": t for n, t in output.items()}, **{f"grad/{n}": t for n, t in grads.items()}, "loss/values": values}
        error = {n: ((case.tensors[n].double() - t).abs().max() / t.abs().max()).item() for n, t in expected.items()}
        if precision == "bf16":
            assert max(error.values()) < 4e-3, error
        distance[precision] = sum(error.values())
    assert distance["bf16"] < 0.3 * distance["f32"], distance


@pytest.mark.parametrize("name", ["ektm_label", "ektm_label_none"])
def test_label_similarity_holds_the_conversions(name):
    """Of the correlations that ektm_golden gives, 0.1 (i + j) - 0.25 between tasks i and j, those of the tasks 1, 2 and 3."""
    expected = torch.tensor([[1, 0.05, 0.15], [0.05, 1, 0.25], [0.15, 0.25, 1]])
    assert_close(name, load(name).tensors["start/router.label_similarity"], expected)


@pytest.mark.parametrize("name", ["ektm_mix", "ektm_mix_own", "ektm_mix_detach_own", "ektm_mix_no_router", "ektm_mix_roots", "ektm_mix_two_roots"])
def test_where_the_mix_starts(name):
    """Of the statistics that ektm_golden gives: correlations as above, 400 rows each, 100 (t + 1) rows of task t's rarer label."""
    case = load(name)
    tasks = case.info["tasks"]
    numbers = torch.arange(len(tasks), dtype=torch.float64)
    similarity = 0.1 * (numbers[:, None] + numbers[None, :]) - 0.25
    similarity.fill_diagonal_(1)
    found = load(name).tensors["start/transmitter.mix.start"]
    expected = ektm.mix_start(similarity, torch.full((len(tasks), len(tasks)), 400.0), 100 * (numbers + 1), tasks, case.config["model"])
    assert_close(name, found, expected)
    assert_close(name, found.sum(1).double(), torch.ones(len(found), dtype=torch.float64))
    own_alone = found[torch.arange(len(found)), [t for t in range(len(tasks)) if tasks[t]["parent"] >= 0] or list(range(len(tasks)))] == 1
    assert own_alone.all() == (name not in ("ektm_mix", "ektm_mix_detach_own", "ektm_mix_two_roots"))  # the others: mix_start: own, no router, or no other task with related labels
