"""Each attention layer against its formula, written out in numpy head by head and position by position."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from attention import (
    CausalCrossAttention,
    CausalSelfAttention,
    Dropout,
    RotarySelfAttention,
    SynthesizerAttention,
    attention,
)

CONFIG = SimpleNamespace(n_embd=24, n_head=3, attn_pdrop=0.0, resid_pdrop=0.0)
BLOCK, HEADS, SIZE = 10, 3, 8


def numbers(layer: torch.nn.Module) -> dict[str, np.ndarray]:
    """The layer's parameters in float64, made large enough that a wrong formula shows."""
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_(std=0.4)
    return {name: p.detach().double().numpy() for name, p in layer.named_parameters()}


def softmax(scores: list[float]) -> np.ndarray:
    weights = np.exp(np.array(scores) - max(scores))
    return weights / weights.sum()


def expected_attention(p, x_kv, x_q, rotate=lambda vector, position: vector) -> np.ndarray:
    """Equations 3, 4, 5 and 6: for each query and head a softmax over the keys up to the query's index."""
    q, k, v = (x @ p[f"{n}.weight"].T + p[f"{n}.bias"] for n, x in (("query", x_q), ("key", x_kv), ("value", x_kv)))
    y = np.zeros_like(q)
    for i in range(len(q)):
        for head in range(HEADS):
            part = slice(head * SIZE, (head + 1) * SIZE)
            seen = range(min(i + 1, len(k)))
            scores = [rotate(q[i, part], i) @ rotate(k[j, part], j) / np.sqrt(SIZE) for j in seen]
            y[i, part] = sum(a * v[j, part] for j, a in zip(seen, softmax(scores), strict=True))
    return y @ p["proj.weight"].T + p["proj.bias"]


@pytest.mark.parametrize("T", [1, 7, BLOCK])
def test_self_attention(T):
    layer = CausalSelfAttention(CONFIG, BLOCK)
    p, x = numbers(layer), torch.randn(2, T, 24)
    y = layer(x).detach().numpy()
    for b in range(2):
        np.testing.assert_allclose(y[b], expected_attention(p, x[b].double().numpy(), x[b].double().numpy()), atol=1e-5)


@pytest.mark.parametrize(("Tk", "Tq"), [(7, 4), (4, 7), (5, 5)])
def test_cross_attention_with_a_query_shared_by_the_batch(Tk, Tq):
    layer = CausalCrossAttention(CONFIG, BLOCK)
    p, x_kv, x_q = numbers(layer), torch.randn(2, Tk, 24), torch.randn(1, Tq, 24)
    y = layer(x_kv, x_q).detach().numpy()
    for b in range(2):
        expected = expected_attention(p, x_kv[b].double().numpy(), x_q[0].double().numpy())
        np.testing.assert_allclose(y[b], expected, atol=1e-5)


def test_rotary_self_attention():
    def rotate(vector: np.ndarray, position: int) -> np.ndarray:
        pairs = vector[0::2] + 1j * vector[1::2]  # a pair of features is a complex number
        theta = np.array([10000.0 ** (-2 * (i - 1) / SIZE) for i in range(1, SIZE // 2 + 1)])
        turned = pairs * np.exp(1j * position * theta)
        return np.stack((turned.real, turned.imag), axis=1).ravel()

    layer = RotarySelfAttention(CONFIG, BLOCK)
    p, x = numbers(layer), torch.randn(2, 9, 24)
    y = layer(x).detach().numpy()
    for b in range(2):
        expected = expected_attention(p, x[b].double().numpy(), x[b].double().numpy(), rotate)
        np.testing.assert_allclose(y[b], expected, atol=1e-5)


def test_rotary_scores_depend_on_the_distance_only():
    layer = RotarySelfAttention(CONFIG, BLOCK)
    q, k = torch.randn(1, 1, 1, SIZE), torch.randn(1, 1, 1, SIZE)
    q, k = layer.position(q.expand(1, 1, BLOCK, SIZE)), layer.position(k.expand(1, 1, BLOCK, SIZE))
    scores = (q @ k.transpose(-1, -2))[0, 0]
    for distance in range(BLOCK):
        along = scores.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-5, rtol=0)
    assert scores[:, 0].std() > 0.01


@pytest.mark.parametrize("T", [1, 6, BLOCK - 1, BLOCK])
def test_synthesizer_attention(T):
    """Equation 11, with B and b_2 shared by the heads; the last position of a full block has no score as a key."""
    layer = SynthesizerAttention(CONFIG, BLOCK)
    assert layer.w2.shape == (SIZE, BLOCK - 1) and layer.b2.shape == (BLOCK - 1,)
    p, x = numbers(layer), torch.randn(2, T, 24)
    y = layer(x).detach().numpy()
    for b in range(2):
        rows = x[b].double().numpy()
        hidden = np.maximum(rows @ p["w1.weight"].T + p["w1.bias"], 0)
        v = rows @ p["value.weight"].T + p["value.bias"]
        out = np.zeros_like(v)
        for i in range(T):
            for head in range(HEADS):
                part = slice(head * SIZE, (head + 1) * SIZE)
                seen = range(min(i + 1, BLOCK - 1))
                weights = softmax([hidden[i, part] @ p["w2"][:, j] + p["b2"][j] for j in seen])
                out[i, part] = sum(a * v[j, part] for j, a in zip(seen, weights, strict=True))
        np.testing.assert_allclose(y[b], out @ p["proj.weight"].T + p["proj.bias"], atol=1e-5)


@pytest.mark.parametrize(("Tq", "Tk"), [(6, 6), (4, 7), (7, 4)])
def test_attention_agrees_with_torch_forward_and_backward(Tq, Tk):
    """Also where it is not square, which a GPU leaves to torch."""
    q, k, v = (torch.randn(2, 3, T, 8, requires_grad=True) for T in (Tq, Tk, Tk))
    ours = attention(q, k, v, torch.tril(torch.ones(Tq, Tk)), Dropout(0.0))
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(ours, theirs)
    direction = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, (q, k, v), direction), torch.autograd.grad(theirs, (q, k, v), direction), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_dropout_drops_a_tenth_anywhere_and_keeps_the_mean():
    dropout = Dropout(0.1).train()
    x = torch.ones(1000, 403)  # not a multiple of the eight elements that one draw decides
    y = dropout(x)
    assert sorted(y.unique().tolist()) == pytest.approx([0.0, 1 / 0.9])
    dropped = torch.stack([dropout(x) == 0 for _ in range(40)]).double()  # each call rounds 25.6/256 up or down
    assert abs(dropped.mean() - 0.1) < 0.001
    for phase in range(8):  # each of the eight is as likely
        assert abs(dropped.flatten(1)[:, phase::8].mean() - 0.1) < 0.001
    dropped = dropped[0]
    neighbours = (dropped.flatten()[1:] * dropped.flatten()[:-1]).mean()
    assert abs(neighbours - 0.01) < 0.002  # independent of each other
    assert not torch.equal(y, dropout(x))
    assert torch.equal(Dropout(0.1).eval()(x), x)


def test_dropout_zeroes_the_gradient_where_it_zeroed_the_value():
    x = torch.randn(50, 50, requires_grad=True)
    y = Dropout(0.3).train()(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(y == 0, 0.0, 1 / 0.7))
