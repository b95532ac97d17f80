"""Each attention layer equals its formula, written in numpy head by head and position by position."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from attention import (
    CausalCrossAttention,
    CausalSelfAttention,
    Dropout,
    RotarySelfAttention,
    SynthesizerAttention,
    attention,
    standard_rope_cache,
)

CONFIG = SimpleNamespace(n_embd=24, n_head=3, attn_pdrop=0.0, resid_pdrop=0.0)
BLOCK, HEADS, SIZE = 10, 3, 8


def numbers(layer: torch.nn.Module) -> dict[str, np.ndarray]:
    """The layer's parameters in float64, large enough that a wrong formula shows."""
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_(std=0.4)
    return {name: p.detach().double().numpy() for name, p in layer.named_parameters()}


def softmax(scores: list[float]) -> np.ndarray:
    weights = np.exp(np.array(scores) - max(scores))
    return weights / weights.sum()


def expected_attention(
    p: dict[str, np.ndarray], x_kv: Tensor, x_q: Tensor, rotate=lambda vector, position: vector
) -> tuple[np.ndarray, np.ndarray]:
    """Equations 3, 4, 5 and 6: for each query and head a softmax over the keys up to the query's index.

    Returns the output (Tq, C) and the weights (HEADS, Tq, Tk).
    """
    x_kv, x_q = x_kv.double().numpy(), x_q.double().numpy()
    q, k, v = (x @ p[f"{n}.weight"].T + p[f"{n}.bias"] for n, x in (("query", x_q), ("key", x_kv), ("value", x_kv)))
    y, weights = np.zeros_like(q), np.zeros((HEADS, len(q), len(k)))
    for i in range(len(q)):
        for head in range(HEADS):
            part = slice(head * SIZE, (head + 1) * SIZE)
            seen = range(min(i + 1, len(k)))
            scores = [rotate(q[i, part], i) @ rotate(k[j, part], j) / np.sqrt(SIZE) for j in seen]
            weights[head, i, : len(scores)] = softmax(scores)
            y[i, part] = weights[head, i] @ v[:, part]
    return y @ p["proj.weight"].T + p["proj.bias"], weights


def assert_close(layer: torch.nn.Module, inputs: tuple[Tensor, ...], row: int, y: np.ndarray, weights: np.ndarray):
    """The layer's output and weights for one row of the batch."""
    np.testing.assert_allclose(layer(*inputs)[row].detach().numpy(), y, atol=1e-5)
    np.testing.assert_allclose(layer.weights(*inputs)[row].detach().numpy(), weights, atol=1e-5)


@pytest.mark.parametrize("T", [1, 7, BLOCK])
def test_self_attention_equals_the_formula(T):
    layer = CausalSelfAttention(CONFIG, BLOCK)
    p, x = numbers(layer), torch.randn(2, T, 24)
    for b in range(2):
        assert_close(layer, (x,), b, *expected_attention(p, x[b], x[b]))


@pytest.mark.parametrize(("Tk", "Tq"), [(7, 4), (4, 7), (5, 5)])
def test_cross_attention_equals_the_formula_for_a_query_shared_by_the_batch(Tk, Tq):
    layer = CausalCrossAttention(CONFIG, BLOCK)
    p, x_kv, x_q = numbers(layer), torch.randn(2, Tk, 24), torch.randn(1, Tq, 24)
    for b in range(2):
        assert_close(layer, (x_kv, x_q), b, *expected_attention(p, x_kv[b], x_q[0]))


def test_rotary_self_attention_equals_the_formula():
    def rotate(vector: np.ndarray, position: int) -> np.ndarray:
        pairs = vector[0::2] + 1j * vector[1::2]  # a pair of features is a complex number
        theta = np.array([10000.0 ** (-2 * (i - 1) / SIZE) for i in range(1, SIZE // 2 + 1)])
        turned = pairs * np.exp(1j * position * theta)
        return np.stack((turned.real, turned.imag), axis=1).ravel()

    layer = RotarySelfAttention(CONFIG, BLOCK)
    p = numbers(layer)
    for T in (9, BLOCK):
        x = torch.randn(2, T, 24)
        for b in range(2):
            assert_close(layer, (x,), b, *expected_attention(p, x[b], x[b], rotate))


def test_rotary_scores_depend_only_on_the_distance():
    layer = RotarySelfAttention(CONFIG, BLOCK)
    q, k = torch.randn(1, 1, 1, SIZE), torch.randn(1, 1, 1, SIZE)
    cos, sin = (t.repeat_interleave(2, dim=1) for t in layer.rope_cache.unbind(dim=-1))
    q, k = (layer.rotate(t.expand(1, 1, BLOCK, SIZE), cos, sin) for t in (q, k))
    scores = (q @ k.transpose(-1, -2))[0, 0]
    for distance in range(BLOCK):
        same_distance = scores.diagonal(-distance)
        torch.testing.assert_close(same_distance, same_distance[:1].expand_as(same_distance), atol=1e-5, rtol=0)
    assert scores[:, 0].std() > 0.01


def test_standard_rope_cache_holds_cosine_and_sine_of_each_angle():
    table = standard_rope_cache(128, 32)
    assert table.shape == (128, 16, 2) and table.dtype == torch.float32
    for t in (0, 1, 127):
        for i in (1, 2, 16):
            angle = t * 10000.0 ** (-2 * (i - 1) / 32)
            assert table[t, i - 1].tolist() == pytest.approx([np.cos(angle), np.sin(angle)], abs=1e-4)
    with pytest.raises(ValueError, match="even head size, got 7"):
        standard_rope_cache(128, 7)


def test_rotary_attention_uses_the_rope_cache_it_loads():
    """Without a table in the state_dict, the standard one is restored."""
    layer, x = RotarySelfAttention(CONFIG, BLOCK), torch.randn(2, 9, 24)
    state, expected = layer.state_dict(), layer(x)
    other = standard_rope_cache(BLOCK, SIZE).flip(0).clone()
    other[3] = other[7]
    layer.load_state_dict(state | {"rope_cache": other})
    assert not torch.allclose(layer(x), expected, atol=1e-4)
    layer.load_state_dict({name: value for name, value in state.items() if name != "rope_cache"}, strict=True)
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("T", [1, 6, BLOCK - 1, BLOCK])
def test_synthesizer_attention_equals_the_formula(T):
    """Equation 11, where the heads share B and b_2; the last position of a full block has no score as a key."""
    layer = SynthesizerAttention(CONFIG, BLOCK)
    assert layer.w2.shape == (SIZE, BLOCK - 1) and layer.b2.shape == (BLOCK - 1,)
    p, x = numbers(layer), torch.randn(2, T, 24)
    for b in range(2):
        rows = x[b].double().numpy()
        hidden = np.maximum(rows @ p["w1.weight"].T + p["w1.bias"], 0)
        v = rows @ p["value.weight"].T + p["value.bias"]
        out, weights = np.zeros_like(v), np.zeros((HEADS, T, min(T, BLOCK - 1)))
        for i in range(T):
            for head in range(HEADS):
                part = slice(head * SIZE, (head + 1) * SIZE)
                seen = range(min(i + 1, BLOCK - 1))
                weights[head, i, : len(seen)] = softmax([hidden[i, part] @ p["w2"][:, j] + p["b2"][j] for j in seen])
                out[i, part] = weights[head, i] @ v[: weights.shape[2], part]
        assert_close(layer, (x,), b, out @ p["proj.weight"].T + p["proj.bias"], weights)


@pytest.mark.parametrize(("Tq", "Tk"), [(6, 6), (4, 7), (7, 4)])
def test_attention_equals_torch_forward_and_backward(Tq, Tk):
    """A GPU uses torch's function, also when Tq and Tk differ."""
    q, k, v = (torch.randn(2, 3, T, 8, requires_grad=True) for T in (Tq, Tk, Tk))
    ours = attention(q, k, v, torch.tril(torch.ones(Tq, Tk)), Dropout(0.0))
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(ours, theirs)
    direction = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, (q, k, v), direction), torch.autograd.grad(theirs, (q, k, v), direction), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_dropout_drops_a_tenth_independently_and_keeps_the_mean():
    dropout = Dropout(0.1).train()
    x = torch.ones(1000, 403)  # not a multiple of 8: one draw decides eight elements
    y = dropout(x)
    assert sorted(y.unique().tolist()) == pytest.approx([0.0, 1 / 0.9])
    dropped = torch.stack([dropout(x) == 0 for _ in range(40)]).double()  # each call rounds 25.6 of 256 up or down
    assert abs(dropped.mean() - 0.1) < 0.001
    for phase in range(8):  # the eight elements of one draw are equally likely
        assert abs(dropped.flatten(1)[:, phase::8].mean() - 0.1) < 0.001
    dropped = dropped[0]
    neighbors = (dropped.flatten()[1:] * dropped.flatten()[:-1]).mean()
    assert abs(neighbors - 0.01) < 0.002  # independent of each other
    assert not torch.equal(y, dropout(x))
    assert torch.equal(Dropout(0.1).eval()(x), x)


def test_dropout_zeroes_the_gradients_of_the_elements_it_drops():
    x = torch.randn(50, 50, requires_grad=True)
    y = Dropout(0.3).train()(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(y == 0, 0.0, 1 / 0.7))
