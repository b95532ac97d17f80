"""Parameter groups, AdamW and Muon, and the learning rate schedule."""

import copy
import math

import pytest
import torch
from conftest import COURSE_VARIANTS, VARIANTS, small_model, trainer_config

from optim import (
    Muon,
    final_tokens_of,
    learning_rate_multiplier,
    make_optimizers,
    orthogonalized,
    parameter_groups,
    scale_learning_rates,
)
from trainer import TrainerConfig


@pytest.mark.parametrize(
    ("tokens", "multiplier"),
    [
        (0, 0.0),
        (50, 0.5),
        (100, 1.0),
        (600, 0.5),  # half way from warm-up to final_tokens
        (350, 0.5 * (1 + math.cos(math.pi / 4))),
        (1100, 0.1),  # the cosine is 0 here, the floor holds
        (1600, 0.5),  # past final_tokens it rises again
        (2100, 1.0),
    ],
)
def test_learning_rate_warms_up_falls_and_rises_again(tokens, multiplier):
    assert learning_rate_multiplier(tokens, 100, 1100) == pytest.approx(multiplier)


def test_final_tokens_bring_the_rate_to_its_lowest_at_the_end_of_the_run():
    final_tokens = final_tokens_of(5000, 100)
    assert learning_rate_multiplier(5000, 100, final_tokens) == pytest.approx(0.1, abs=1e-3)
    assert learning_rate_multiplier(4900, 100, final_tokens) > 0.105


@pytest.mark.parametrize("decay_all", [False, True])
@pytest.mark.parametrize("variant", COURSE_VARIANTS)
def test_weight_decay_applies_to_matmul_weights_or_to_all_but_biases(variant, decay_all):
    model = small_model(20, variant)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, rest = parameter_groups(model, 0.1, decay_all)
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    decayed, rest = ({names[id(p)] for p in group["params"]} for group in (decayed, rest))
    assert decayed | rest == set(names.values()) and not decayed & rest
    matmuls = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    matmuls |= {name for name in names.values() if name.endswith(".w2")}
    biases = {f"{n}.bias" for n, m in model.named_modules() if getattr(m, "bias", None) is not None}
    assert decayed == (set(names.values()) - biases if decay_all else matmuls)
    assert TrainerConfig().decay_all  # as the course's


@pytest.mark.parametrize("variant", VARIANTS)
def test_muon_trains_the_matrices_inside_the_blocks_and_adamw_the_rest(variant):
    model = small_model(20, variant)
    optimizers = adamw, muon = make_optimizers(model, trainer_config(learning_rate=1e-3, muon_lr=0.02), torch.float32)
    assert isinstance(adamw, torch.optim.AdamW) and isinstance(muon, Muon)
    assert [group["weight_decay"] for o in optimizers for group in o.param_groups] == [0.1, 0.0, 0.1]
    names = {id(p): name for name, p in model.named_parameters()}
    by_adamw, by_muon = ([names[id(p)] for g in o.param_groups for p in g["params"]] for o in optimizers)
    assert sorted(by_adamw + by_muon) == sorted(names.values())
    assert {"tok_emb.weight", "head.weight"} <= set(by_adamw)
    assert all("block" in name and name.endswith(("weight", "w2")) and "ln" not in name for name in by_muon)


def test_learning_rates_are_scaled_from_their_highest_value():
    config = trainer_config(learning_rate=1e-3, muon_lr=0.02)
    optimizers = adamw, muon = make_optimizers(small_model(20), config, torch.float32)
    for multiplier in (0.5, 0.1):
        scale_learning_rates(optimizers, multiplier)
        assert [group["lr"] for group in adamw.param_groups] == pytest.approx([1e-3 * multiplier] * 2)
        assert [group["lr"] for group in muon.param_groups] == pytest.approx([0.02 * multiplier])


SHAPES = [(8, 8), (16, 4), (4, 16), (8, 8), (4, 16)]


def parameters_with_gradients(seed):
    torch.manual_seed(seed)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    for p in parameters:
        p.grad = torch.randn_like(p)
    return parameters


def test_muon_takes_the_steps_of_torch_muon():
    ours, theirs = parameters_with_gradients(0), parameters_with_gradients(0)
    start = [p.detach().clone() for p in ours]
    muon = Muon(ours, lr=0.02, weight_decay=0.1, dtype=torch.bfloat16)
    torch_muon = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1)
    for _ in range(3):
        muon.step()
        torch_muon.step()
        for p, reference in zip(ours, theirs, strict=True):
            p.grad = reference.grad = torch.randn_like(p)
    for p, reference, before in zip(ours, theirs, start, strict=True):
        torch.testing.assert_close(p - before, reference - before, atol=2e-4, rtol=2e-2)


def test_muon_can_continue_from_the_state_of_torch_muon():
    ours, theirs = parameters_with_gradients(0), parameters_with_gradients(0)
    muon, torch_muon = Muon(ours, 0.02, 0.1, torch.bfloat16), torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1)
    torch_muon.step()
    muon.load_state_dict(copy.deepcopy(torch_muon.state_dict()))
    for p, reference in zip(ours, theirs, strict=True):
        p.data.copy_(reference.data)
    muon.step()
    torch_muon.step()
    for p, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, reference, atol=2e-4, rtol=1e-3)


def test_muon_leaves_a_matrix_without_a_gradient_as_it_is():
    parameters = parameters_with_gradients(0)
    before = parameters[0].detach().clone()
    parameters[0].grad = None
    Muon(parameters, lr=0.02, weight_decay=0.1, dtype=torch.float32).step()
    assert torch.equal(parameters[0], before)


@pytest.mark.parametrize("shape", [(2, 32, 32), (3, 32, 8), (1, 8, 32)])
def test_orthogonalized_matrices_keep_their_singular_vectors_and_have_singular_values_near_one(shape):
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.linspace(0.2, 1.0, min(shape[1:]))
    result = u.mT @ orthogonalized(u * values @ vh) @ vh.mT
    singular = result.diagonal(dim1=1, dim2=2)
    assert singular.min() > 0.6 and singular.max() < 1.3
    assert (result - torch.diag_embed(singular)).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(2, 16, 64), (2, 64, 16)])
def test_wide_and_tall_matrices_take_the_same_newton_schulz_steps_as_others(shape):
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrices = u * torch.logspace(0, -4, 16) @ vh  # most singular values are small, as those of a gradient
    single, double = orthogonalized(matrices), orthogonalized(matrices.double())  # double takes every step on X itself
    torch.testing.assert_close(single.double(), double, atol=1e-3, rtol=0)


def test_a_matrix_of_zeros_stays_zero():
    for shape in ((1, 4, 4), (1, 4, 8)):
        assert torch.equal(orthogonalized(torch.zeros(shape)), torch.zeros(shape))
