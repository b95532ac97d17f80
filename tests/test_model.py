"""The four variants: sizes, names, and that nothing looks into the future."""

import math

import numpy as np
import pytest
import torch
from conftest import VARIANTS

from model import GPT, GPTConfig

SMALL = {"n_layer": 3, "n_head": 2, "n_embd": 16, "bottleneck_dim": 8}


def small_model(variant: str) -> GPT:
    """A model of 24 positions without the zeros that would hide a leak, not training."""
    model = GPT(GPTConfig(30, 24, variant=variant, **SMALL)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return model


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("vanilla", 3_323_392), ("synthesizer", 3_076_988), ("perceiver", 3_339_776), ("rope", 3_323_392 - 128 * 256)],
)
def test_number_of_parameters(variant, expected):
    assert GPT(GPTConfig(256, 128, variant=variant, bottleneck_dim=64)).num_parameters() == expected


def linear(name: str, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def block(name: str, variant: str, length: int) -> dict[str, tuple[int, ...]]:
    names = {f"{name}.{ln}.{part}": (256,) for ln in ("ln1", "ln2") for part in ("weight", "bias")}
    names |= linear(f"{name}.mlp.0", 256, 1024) | linear(f"{name}.mlp.2", 1024, 256)
    names |= {f"{name}.attn.mask": (1, 1, length, length)}
    if variant == "synthesizer":
        names |= linear(f"{name}.attn.w1", 256, 256)
        names |= {f"{name}.attn.w2": (32, 127), f"{name}.attn.b2": (127,)}
    else:
        names |= linear(f"{name}.attn.key", 256, 256) | linear(f"{name}.attn.query", 256, 256)
    return names | linear(f"{name}.attn.value", 256, 256) | linear(f"{name}.attn.proj", 256, 256)


@pytest.mark.parametrize("variant", VARIANTS)
def test_state_dict_has_the_names_and_shapes_of_the_course(variant):
    names = {"tok_emb.weight": (200, 256), "head.weight": (200, 256)}
    names |= {"ln_f.weight": (256,), "ln_f.bias": (256,)}
    if variant != "rope":
        names["pos_emb"] = (1, 128, 256)
    if variant == "perceiver":
        names |= block("down_block", variant, 128) | block("up_block", variant, 128) | {"down_block.C": (1, 64, 256)}
        names |= block("blocks.0", variant, 64) | block("blocks.1", variant, 64)
    else:
        for n in range(4):
            names |= block(f"blocks.{n}", variant, 128)
    state = GPT(GPTConfig(200, 128, variant=variant, bottleneck_dim=64)).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == names
    assert all(value.dtype == torch.float32 for value in state.values())
    masks = [value for name, value in state.items() if name.endswith("mask")]
    assert all(torch.equal(mask, torch.tril(torch.ones_like(mask))) for mask in masks)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("T", [1, 5, 8, 9, 23, 24])
def test_nothing_depends_on_the_future(variant, T):
    """T is shorter than, equal to and longer than the perceiver's bottleneck of 8."""
    model = small_model(variant)
    idx = torch.randint(30, (2, T))
    logits, _ = model(idx)
    for t in range(1, T):
        changed = idx.clone()
        changed[:, t:] = (idx[:, t:] + torch.randint(1, 30, (2, T - t))) % 30
        torch.testing.assert_close(model(changed)[0][:, :t], logits[:, :t], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model(idx[:, :t])[0], logits[:, :t], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_past_is_seen_as_far_as_the_variant_reaches(variant):
    """Every position of the first eight reaches the end; past the bottleneck, only the input itself does."""
    model = small_model(variant)
    idx = torch.randint(30, (1, 20))
    logits, _ = model(idx)
    for t in range(20):
        changed = idx.clone()
        changed[:, t] = (idx[:, t] + 1) % 30
        moved = (model(changed)[0] - logits).abs().amax(dim=-1)[0]
        seen = torch.arange(20) >= t
        if variant == "perceiver" and t >= 8:
            seen = torch.arange(20) == t
        assert torch.equal(moved > 1e-6, seen)


def test_perceiver_blocks_are_the_equations():
    """Down: C asks the input (equation 5), up: the input asks the blocks' output (equation 6), both pre-LN."""
    model = small_model("perceiver")
    down, up = model.down_block, model.up_block
    x, y = torch.randn(2, 12, 16), torch.randn(2, 8, 16)
    inner = down.C + down.attn(down.ln1(x), down.ln1(down.C))
    torch.testing.assert_close(down(x), inner + down.mlp(down.ln2(inner)))
    inner = x + up.attn(up.ln1(y), up.ln1(x))
    torch.testing.assert_close(up(y, x), inner + up.mlp(up.ln2(inner)))


def test_basis_is_xavier_uniform():
    C = GPT(GPTConfig(30, 128, variant="perceiver", bottleneck_dim=64)).down_block.C[0]
    bound = np.sqrt(6 / (64 + 256))
    assert 0.99 * bound < C.abs().max() <= bound
    assert abs(C.std().item() - bound / np.sqrt(3)) < 0.01 * bound


def test_loss_is_the_mean_over_targets_that_are_not_padding():
    model = small_model("vanilla")
    idx, targets = torch.randint(30, (3, 10)), torch.randint(1, 30, (3, 10))
    targets[:, 6:] = 0
    logits, loss = model(idx, targets)
    scores = logits.detach().double().numpy()
    log_p = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    expected = -np.mean([log_p[b, t, targets[b, t]] for b in range(3) for t in range(6)])
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert model(idx)[1] is None


def test_too_long_a_sequence_is_refused():
    model = small_model("vanilla")
    assert model.get_block_size() == 24
    with pytest.raises(ValueError, match="25 characters"):
        model(torch.zeros(1, 25, dtype=torch.int64))


@pytest.mark.parametrize(
    "wrong", [{"variant": "linear"}, {"n_head": 3}, {"variant": "perceiver", "bottleneck_dim": 25}, {"n_layer": 1}]
)
def test_an_impossible_configuration_is_refused(wrong):
    with pytest.raises(ValueError, match=r"variant|n_head|bottleneck_dim|n_layer"):
        GPTConfig(30, 24, **({"variant": "perceiver"} | SMALL | wrong))


@pytest.mark.parametrize("variant", ["vanilla", "synthesizer", "rope"])
def test_the_whole_model_is_the_pre_ln_transformer(variant):
    """Embeddings, blocks and head written out in numpy around the attention layers, which have tests of their own."""
    model = small_model(variant)
    p = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
    erf = np.vectorize(math.erf)

    def layer_norm(x, name):
        mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

    def mlp(x, name):
        hidden = x @ p[f"{name}.0.weight"].T + p[f"{name}.0.bias"]
        return 0.5 * hidden * (1 + erf(hidden / np.sqrt(2))) @ p[f"{name}.2.weight"].T + p[f"{name}.2.bias"]

    idx = torch.randint(30, (2, 11))
    x = p["tok_emb.weight"][idx.numpy()]
    if variant != "rope":
        x = x + p["pos_emb"][:, :11]
    for n, block in enumerate(model.blocks):
        normed = layer_norm(x, f"blocks.{n}.ln1")
        x = x + block.attn(torch.from_numpy(normed).float()).detach().double().numpy()
        x = x + mlp(layer_norm(x, f"blocks.{n}.ln2"), f"blocks.{n}.mlp")
    expected = layer_norm(x, "ln_f") @ p["head.weight"].T
    np.testing.assert_allclose(model(idx)[0].detach().numpy(), expected, atol=1e-3, rtol=1e-4)


def test_initialisation_is_mingpt_s():
    model = GPT(GPTConfig(256, 128))
    for name, p in model.named_parameters():
        if p.dim() == 2:
            assert abs(p.std().item() - 0.02) < 0.001 and abs(p.mean().item()) < 0.001, name
        else:
            assert (p == (1 if ".ln" in f".{name}" and name.endswith("weight") else 0)).all(), name
