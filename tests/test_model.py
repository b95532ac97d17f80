"""The four variants: parameters, names, equations, and that no position sees the future."""

import math

import numpy as np
import pytest
import torch
from conftest import COURSE_VARIANTS, VARIANTS

import attention
from checkpoint import fill, load_params
from model import GPT, WIRINGS, GPTConfig
from recipe import VARIANTS as TABLE
from recipe import Variant

SMALL = {"n_layer": 3, "n_head": 2, "n_embd": 16, "bottleneck_dim": 8}


def perturbed_model(variant: str, **settings) -> GPT:
    """A model of 24 positions in eval mode; random parameters, as zeros could hide a leak."""
    model = GPT(GPTConfig(30, 24, variant=variant, **SMALL, **settings)).eval()
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
    if variant == "rope":
        names |= {f"{name}.attn.rope_cache": (length, 16, 2)}
    if variant == "synthesizer":
        names |= linear(f"{name}.attn.w1", 256, 256)
        names |= {f"{name}.attn.w2": (32, 127), f"{name}.attn.b2": (127,)}
    else:
        names |= linear(f"{name}.attn.key", 256, 256) | linear(f"{name}.attn.query", 256, 256)
    return names | linear(f"{name}.attn.value", 256, 256) | linear(f"{name}.attn.proj", 256, 256)


def course_names(variant: str) -> dict[str, tuple[int, ...]]:
    """The names and shapes in the course's params files, for 200 characters and a bottleneck of 64."""
    names = {"tok_emb.weight": (200, 256), "head.weight": (200, 256)}
    names |= {"ln_f.weight": (256,), "ln_f.bias": (256,)}
    if variant != "rope":
        names["pos_emb"] = (1, 128, 256)
    if variant == "perceiver":
        names |= block("down_block", variant, 128) | block("up_block", variant, 128) | {"down_block.C": (1, 64, 256)}
        return names | block("blocks.0", variant, 64) | block("blocks.1", variant, 64)
    for n in range(4):
        names |= block(f"blocks.{n}", variant, 128)
    return names


@pytest.mark.parametrize("variant", COURSE_VARIANTS)
def test_state_dict_has_the_names_and_shapes_of_the_course(variant):
    state = GPT(GPTConfig(200, 128, variant=variant, bottleneck_dim=64)).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == course_names(variant)
    assert all(value.dtype == torch.float32 for value in state.values())
    masks = [value for name, value in state.items() if name.endswith("mask")]
    assert all(torch.equal(mask, torch.tril(torch.ones_like(mask))) for mask in masks)


@pytest.mark.parametrize("variant", COURSE_VARIANTS)
def test_file_of_the_course_loads_strictly_and_silently(documents, tmp_path, capsys, variant):
    state = {name: torch.randn(shape) * 0.1 for name, shape in course_names(variant).items()}
    angles = np.arange(128)[:, None] * 10000.0 ** (-2 * np.arange(16) / 32)
    for name, value in state.items():
        if name.endswith("mask"):
            state[name] = torch.tril(torch.ones_like(value))
        elif name.endswith("rope_cache"):
            state[name] = torch.tensor(np.stack([np.cos(angles), np.sin(angles)], axis=-1), dtype=torch.float32)
    path = str(tmp_path / "course.params")
    torch.save(state, path)
    model = GPT(GPTConfig(200, 128, variant=variant, bottleneck_dim=64))
    # random weights do not show the wiring of a perceiver, so it is not looked for
    read = fill if variant == "perceiver" else load_params
    read(model, path, "wiki.txt", documents)
    loaded = model.state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[name], value) for name, value in state.items())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("T", [1, 5, 8, 9, 23, 24])
def test_no_position_depends_on_the_future(variant, T):
    """Lengths below, at and above the perceiver's bottleneck of 8."""
    model = perturbed_model(variant)
    idx = torch.randint(30, (2, T))
    logits, _ = model(idx)
    for t in range(1, T):
        changed = idx.clone()
        changed[:, t:] = (idx[:, t:] + torch.randint(1, 30, (2, T - t))) % 30
        torch.testing.assert_close(model(changed)[0][:, :t], logits[:, :t], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model(idx[:, :t])[0], logits[:, :t], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", COURSE_VARIANTS)
def test_every_position_sees_the_whole_past_or_the_bottleneck(variant):
    """In the perceiver, later positions see the first 8, the bottleneck, and of the others only themselves."""
    model = perturbed_model(variant)
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


def test_each_wiring_of_the_perceiver_equals_its_equations():
    """C queries the input (equation 5), the input queries the inner blocks' output (equation 6)."""
    equations = {
        "residual": (
            lambda attn, ln, C, x: C + attn(ln(x), ln(C)),
            lambda attn, ln, x, y: x + attn(ln(y), ln(x)),
        ),
        "residual_raw_input": (
            lambda attn, ln, C, x: C + attn(x, ln(C)),
            lambda attn, ln, x, y: x + attn(ln(y), x),
        ),
        "direct_raw_query": (
            lambda attn, ln, C, x: attn(ln(x), ln(C)),
            lambda attn, ln, x, y: attn(ln(y), x),
        ),
        "direct": (
            lambda attn, ln, C, x: attn(ln(x), ln(C)),
            lambda attn, ln, x, y: attn(ln(y), ln(x)),
        ),
    }
    assert equations.keys() == WIRINGS.keys() and GPTConfig(30, 24).wiring == "residual"
    x, y, idx = torch.randn(2, 12, 16), torch.randn(2, 8, 16), torch.randint(30, (2, 12))
    state, outputs = perturbed_model("perceiver").state_dict(), []
    for wiring, (first, last) in equations.items():
        model = perturbed_model("perceiver", wiring=wiring)
        model.load_state_dict(state)
        down, up = model.down_block, model.up_block
        inner = first(down.attn, down.ln1, down.C, x)
        torch.testing.assert_close(down(x), inner + down.mlp(down.ln2(inner)))
        inner = last(up.attn, up.ln1, x, y)
        torch.testing.assert_close(up(y, x), inner + up.mlp(up.ln2(inner)))
        outputs.append(model(idx)[0])
    for n, output in enumerate(outputs):
        assert all((output - other).abs().max() > 0.01 for other in outputs[:n])


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("T", [5, 9, 24])
def test_no_wiring_lets_a_position_depend_on_the_future(wiring, T):
    model, idx = perturbed_model("perceiver", wiring=wiring), torch.randint(30, (2, T))
    logits = model(idx)[0]
    for t in range(1, T):
        torch.testing.assert_close(model(idx[:, :t])[0], logits[:, :t], atol=1e-5, rtol=1e-5)


def test_basis_is_xavier_uniform():
    C = GPT(GPTConfig(30, 128, variant="perceiver", bottleneck_dim=64)).down_block.C[0]
    bound = np.sqrt(6 / (64 + 256))
    assert 0.99 * bound < C.abs().max() <= bound
    assert abs(C.std().item() - bound / np.sqrt(3)) < 0.01 * bound


def test_loss_is_the_mean_over_targets_without_padding():
    model = perturbed_model("vanilla")
    idx, targets = torch.randint(30, (3, 10)), torch.randint(1, 30, (3, 10))
    targets[:, 6:] = 0
    logits, loss = model(idx, targets)
    scores = logits.detach().double().numpy()
    log_p = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    expected = -np.mean([log_p[b, t, targets[b, t]] for b in range(3) for t in range(6)])
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert model(idx)[1] is None


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("multiple", "kept"), [(1, 15), (5, 15), (8, 16), (64, 30)])
def test_the_loss_alone_is_that_of_forward_and_skips_positions_without_a_target(variant, multiple, kept):
    model = perturbed_model(variant)
    idx, targets = torch.randint(30, (3, 10)), torch.randint(1, 30, (3, 10))
    targets[:, ::2] = 0
    expected = model(idx, targets)[1]
    last_mlp = (model.up_block if variant == "perceiver" else model.blocks[-1]).mlp
    rows = []
    for layer in (last_mlp, model.head):
        layer.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].shape[:-1].numel()))
    loss = model.loss_at_targets(idx, targets, multiple)
    assert rows == [kept, kept]
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(each, list(model.parameters())) for each in (loss, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_a_subclass_with_a_forward_of_its_own_is_trained_on_its_loss():
    class Doubled(GPT):
        def forward(self, idx, targets=None):
            logits, loss = super().forward(idx, targets)
            return logits, 2 * loss

    model = Doubled(GPTConfig(30, 24, n_layer=2, n_embd=32)).eval()
    idx, targets = torch.randint(30, (3, 10)), torch.randint(1, 30, (3, 10))
    assert torch.equal(model.loss_at_targets(idx, targets), model(idx, targets)[1])


@pytest.mark.parametrize("variant", COURSE_VARIANTS)
def test_training_drops_embeddings_and_in_each_block_weights_and_both_outputs(variant):
    model = GPT(GPTConfig(30, 24, variant=variant, **SMALL)).train()
    layers, called = [m for m in model.modules() if isinstance(m, attention.Dropout)], []
    for layer in layers:
        layer.register_forward_hook(lambda layer, *_: called.append(layer))
    model(torch.randint(30, (2, 10)))
    assert len(layers) == 1 + 3 * model.config.n_layer
    assert sorted(map(id, called)) == sorted(map(id, layers))


def test_with_dropout_the_loss_alone_draws_the_random_numbers_of_forward():
    model = GPT(GPTConfig(30, 24, n_layer=2, n_embd=32))
    idx, targets = torch.randint(30, (3, 10)), torch.randint(1, 30, (3, 10))
    targets[:, ::2] = 0
    torch.manual_seed(0)
    expected = model(idx, targets)[1]
    torch.manual_seed(0)
    assert torch.equal(model.loss_at_targets(idx, targets), expected)


def test_a_sequence_longer_than_the_block_is_refused():
    model = perturbed_model("vanilla")
    assert model.get_block_size() == 24
    with pytest.raises(ValueError, match="25 characters"):
        model(torch.zeros(1, 25, dtype=torch.int64))


@pytest.mark.parametrize(
    "wrong",
    [
        {"variant": "linear"},
        {"wiring": "loose"},
        {"variant": "vanilla", "wiring": "direct"},
        {"n_head": 3},
        {"variant": "perceiver", "bottleneck_dim": 25},
        {"n_layer": 1},
        {"variant": "vanilla", "n_layer": 0},
    ],
)
def test_an_impossible_configuration_is_refused(wrong):
    with pytest.raises(ValueError, match=r"variant|wiring|n_head|bottleneck_dim|n_layer"):
        GPTConfig(30, 24, **({"variant": "perceiver"} | SMALL | wrong))


@pytest.mark.parametrize("variant", ["vanilla", "synthesizer", "rope"])
def test_the_whole_model_equals_the_pre_ln_transformer(variant):
    """Embeddings, blocks and head in numpy; tests/test_attention.py checks the attention layers."""
    model = perturbed_model(variant)
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


@pytest.mark.parametrize("variant", COURSE_VARIANTS)
def test_initialization_follows_mingpt(variant):
    model = GPT(GPTConfig(256, 128, variant=variant))
    for name, p in model.named_parameters():
        if name == "down_block.C":
            continue  # test_basis_is_xavier_uniform
        if name.endswith(".w2"):  # uniform on -0.001 .. 0.001
            assert p.abs().max() <= 0.001 and abs(p.std() - 0.001 / math.sqrt(3)) < 2e-5, name
        elif p.dim() == 2:
            assert abs(p.std().item() - 0.02) < 0.001 and abs(p.mean().item()) < 0.001, name
        else:
            assert (p == (1 if ".ln" in f".{name}" and name.endswith("weight") else 0)).all(), name


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("T", [1, 6, 24])
def test_attention_weights_are_those_of_the_forward_pass(variant, T):
    """The forward pass hands its weights to each layer's attn_drop, in this order."""
    model, idx = perturbed_model(variant), torch.randint(30, (2, T))
    used = []
    for name, module in model.named_modules():
        if name.endswith("attn_drop"):
            module.register_forward_hook(lambda module, inputs, output: used.append(inputs[0]))
    model(idx)
    expected = [weights.clone() for weights in used]
    found = model.attention_weights(idx)
    assert len(found) == 3
    for weights, reference in zip(found, expected, strict=True):
        assert torch.equal(weights, reference.view_as(weights))
    lengths = [(24, 24)] * 3 if variant != "perceiver" else [(8, 24), (8, 8), (24, 8)]
    for weights, (Tq, Tk) in zip(found, lengths, strict=True):
        Tk = min(T, Tk, 23 if variant == "synthesizer" else 24)
        assert weights.shape == (2, 2, min(T, Tq), Tk)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
        assert (weights.triu(1) == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_replica_shares_values_but_not_gradients_or_draws(variant):
    model = GPT(GPTConfig(30, 24, variant=variant, **SMALL))
    replica = model.replica()
    for own, shared in zip(replica.state_dict().values(), model.state_dict().values(), strict=True):
        assert own.data_ptr() == shared.data_ptr()
    idx = torch.randint(1, 30, (2, 12))
    before = torch.get_rng_state()
    replica.generator.manual_seed(1)
    loss = replica(idx, idx)[1]
    loss.backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in model.parameters()) and all(p.grad is not None for p in replica.parameters())
    replica.generator.manual_seed(1)
    assert torch.equal(replica(idx, idx)[1], loss)
    assert not torch.equal(replica(idx, idx)[1], loss)


def test_the_model_keeps_a_copy_of_its_config():
    config = GPTConfig(30, 24, variant="rope", **SMALL)
    model = GPT(config)
    assert model.config == config
    config.variant = "linear"
    assert model.config.variant == "rope"
    with pytest.raises(ValueError, match="unknown variant 'linear'"):
        GPT(config)


def test_a_setting_that_the_model_does_not_read_is_refused():
    with pytest.raises(TypeError, match="rope"):
        GPTConfig(30, 24, rope=True)
    config = GPTConfig(30, 24)
    with pytest.raises(AttributeError, match=r"no field 'rope'; give variant=\"rope\""):
        config.rope = True
    with pytest.raises(AttributeError, match=r"no field 'n_heads'; its fields are .*n_head"):
        config.n_heads = 4
    config.n_head = 4
    assert GPT(config).config.n_head == 4


def test_a_rope_file_without_a_table_loads_strictly_with_the_standard_one():
    model = perturbed_model("rope")
    state = model.state_dict()
    old = {name: value for name, value in state.items() if not name.endswith("rope_cache")}
    assert len(old) == len(state) - 3
    own = {name: value.flip(0) if name.endswith("rope_cache") else value for name, value in state.items()}
    idx = torch.randint(30, (2, 12))
    expected = model(idx)[0]
    other = perturbed_model("rope")
    other.load_state_dict(own)
    assert not torch.allclose(other(idx)[0], expected, atol=1e-3)
    other.load_state_dict(old)
    assert torch.equal(other(idx)[0], expected) and len(old) == len(state) - 3


def test_a_new_attention_variant_is_one_class_and_one_row(monkeypatch):
    class MeanAttention(torch.nn.Module):
        """Every position takes the mean of the values up to its own."""

        def __init__(self, config, block_size):
            super().__init__()
            self.value = torch.nn.Linear(config.n_embd, config.n_embd)

        def weights(self, x):
            T = x.size(1)
            rows = torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None]
            return rows.expand(x.size(0), 1, T, T)

        def forward(self, x):
            return self.weights(x)[:, 0] @ self.value(x)

    monkeypatch.setattr(attention, "MeanAttention", MeanAttention, raising=False)
    monkeypatch.setitem(TABLE, "mean", Variant("MeanAttention", learned_positions=False))
    model = GPT(GPTConfig(30, 24, variant="mean", **SMALL))
    assert not hasattr(model, "pos_emb") and isinstance(model.blocks[0].attn, MeanAttention)
    idx = torch.randint(1, 30, (2, 12))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = model.eval()(idx, idx)[1]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert [weights.shape for weights in model.attention_weights(idx)] == [(2, 1, 12, 12)] * 3


@pytest.mark.parametrize("variant", VARIANTS)
def test_layer_norms_see_fp32_under_bf16_autocast(variant):
    """With bf16 inputs a CPU adds their gradients up in bf16, far off: findings/layer_norm_gradient_in_bf16.sh."""
    model = perturbed_model(variant)
    seen = []
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0].dtype, output.dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.full((2, 20), 5))
    assert len(seen) >= 7 and set(seen) == {(torch.float32, torch.float32)}


def test_replica_follows_when_parameters_with_another_table_are_loaded():
    model = perturbed_model("rope")
    replica, other = model.replica(), perturbed_model("rope").state_dict()
    own = {name: value.flip(0) if name.endswith("rope_cache") else value for name, value in other.items()}
    model.load_state_dict(own)
    idx = torch.randint(2, 30, (2, 24))
    assert torch.equal(replica.eval()(idx)[0], model.eval()(idx)[0])
