"""The attention layers: which positions look where, and how strongly.

Every layer maps (B, T, n_embd) to (B, T, n_embd) and is causal: output t depends on inputs 0..t only.
Shapes in comments: B batch, T positions (Tq of queries, Tk of keys), nh heads, hs = n_embd / n_head, C = n_embd.
"""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:  # which imports this module
    from model import GPTConfig

torch.backends.cuda.enable_cudnn_sdp(False)  # the other kernels are known to take the perceiver's shared query


class Dropout(nn.Module):
    """nn.Dropout, made cheap on a CPU, where drawing one float an element costs more than a layer's matmuls.

    A 64-bit draw decides eight elements, against a threshold in 2**-8 that is rounded at random for each call: every
    element is dropped with probability p. On a CPU the draws are those of `generator`, of the global one if it is None.
    """

    generator: torch.Generator | None = None

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p <= 255 / 256:
            raise ValueError(f"dropout probability must be in [0, 255/256], got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None, generator=self.generator)
        uniform = draws.view(torch.int8)[: x.numel()].view(x.shape)  # each of -2**7 .. 2**7 - 1 equally likely
        dropped = int(self.p * 2**8 + torch.rand((), generator=self.generator).item())  # of the 2**8 values
        keep = (uniform >= dropped - 2**7).view(torch.int8)  # which becomes a float faster than a bool does
        return x * keep.to(x.dtype).mul_(1.0 / (1.0 - self.p))


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: Dropout) -> Tensor:
    """softmax(Q K^T / sqrt(hs)) V for each head, where query i sees keys 0..i (handouts, equations 3 and 9).

    query (B, nh, Tq, hs), key and value (B, nh, Tk, hs), mask (Tq, Tk) with 1 where a query may look; the batch of
    the query may be 1 (a query shared by all). Returns (B, nh, Tq, hs).
    """
    query = query.expand(key.size(0), -1, -1, -1)
    if query.is_cuda:  # is_causal is aligned to the upper left, which is "query i sees keys 0..i"
        p = dropout.p if dropout.training else 0.0
        return F.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)
    # on a CPU these three calls are several times faster than scaled_dot_product_attention and its backward
    (B, nh, Tq, hs), Tk = query.shape, key.size(2)
    q, k, v = (t.reshape(B * nh, -1, hs) for t in (query, key, value))
    bias = torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask == 0, -math.inf)
    scores = torch.baddbmm(bias.expand(B * nh, Tq, Tk), q, k.transpose(1, 2), alpha=1.0 / math.sqrt(hs))
    weights = dropout(F.softmax(scores, dim=-1))  # (B * nh, Tq, Tk)
    return torch.bmm(weights, v).view(B, nh, Tq, hs)


def causal_mask(block_size: int) -> Tensor:
    """(1, 1, block_size, block_size) floats, 1 on and below the diagonal: kept in params files under this shape."""
    return torch.tril(torch.ones(block_size, block_size)).view(1, 1, block_size, block_size)


def project(x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """[layer(x) for layer in layers] as one matmul of all their weights, which is faster than several."""
    weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
    return F.linear(x, weight, bias).chunk(len(layers), dim=-1)


def split_heads(x: Tensor, n_head: int) -> Tensor:
    """(B, T, C) -> (B, nh, T, hs)."""
    B, T, C = x.shape
    return x.view(B, T, n_head, C // n_head).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, nh, T, hs) -> (B, T, C)."""
    B, nh, T, hs = x.shape
    return x.transpose(1, 2).reshape(B, T, nh * hs)


class QueryKeyValue(nn.Module):
    """What self- and cross-attention share: their parameters, and heads that attend causally."""

    def __init__(self, config: "GPTConfig", block_size: int) -> None:
        super().__init__()
        self.key = nn.Linear(config.n_embd, config.n_embd)
        self.query = nn.Linear(config.n_embd, config.n_embd)
        self.value = nn.Linear(config.n_embd, config.n_embd)
        self.attn_drop = Dropout(config.attn_pdrop)
        self.resid_drop = Dropout(config.resid_pdrop)
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.register_buffer("mask", causal_mask(block_size))
        self.n_head = config.n_head

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (B or 1, nh, Tq, hs), k and v (B, nh, Tk, hs) -> (B, Tq, C)."""
        mask = self.mask[0, 0, : q.size(2), : k.size(2)]
        y = attention(q, k, v, mask, self.attn_drop)  # (B, nh, Tq, hs)
        return self.resid_drop(self.proj(merge_heads(y)))


class CausalSelfAttention(QueryKeyValue):
    """Multi-head self-attention (handouts, equations 3, 4 and 9, 10)."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        q, k, v = (split_heads(t, self.n_head) for t in project(x, self.query, self.key, self.value))  # (B, nh, T, hs)
        return self.attend(self.position(q), self.position(k), v)

    def position(self, x: Tensor) -> Tensor:
        """What tells a query or key (B, nh, T, hs) its position: nothing here, a rotation in RotarySelfAttention."""
        return x


class CausalCrossAttention(QueryKeyValue):
    """Queries of one sequence over keys and values of another; query i sees keys 0..i (handout, equations 5 and 6)."""

    def forward(self, x_kv: Tensor, x_q: Tensor) -> Tensor:
        """x_kv (B, Tk, C), x_q (B or 1, Tq, C) -> (B, Tq, C)."""
        q = split_heads(self.query(x_q), self.n_head)  # (B or 1, nh, Tq, hs)
        k, v = (split_heads(t, self.n_head) for t in project(x_kv, self.key, self.value))  # (B, nh, Tk, hs)
        return self.attend(q, k, v)


class RotarySelfAttention(CausalSelfAttention):
    """Self-attention whose queries and keys are rotated by their position (Su et al. 2021, RoFormer, equation 34)."""

    def __init__(self, config: "GPTConfig", block_size: int) -> None:
        super().__init__(config, block_size)
        head_size = config.n_embd // config.n_head
        if head_size % 2:
            raise ValueError(f"rotary embedding needs an even head size, got {head_size}")
        # theta_i = 10000^(-2(i-1)/hs), i = 1..hs/2
        theta = 10000.0 ** (-torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
        angle = torch.outer(torch.arange(block_size, dtype=torch.float32), theta).repeat_interleave(2, dim=1)
        self.register_buffer("cos", angle.cos(), persistent=False)  # (block_size, hs)
        self.register_buffer("sin", angle.sin(), persistent=False)
        turn = torch.block_diag(*[torch.tensor([[0.0, 1.0], [-1.0, 0.0]])] * (head_size // 2))
        self.register_buffer("turn", turn, persistent=False)  # (hs, hs): a quarter turn of each pair

    def position(self, x: Tensor) -> Tensor:
        """Rotates the neighbouring pairs (x_{2i-1}, x_{2i}) of position t by the angle t * theta_i."""
        T = x.size(2)
        cos, sin = self.cos[:T].to(x.dtype), self.sin[:T].to(x.dtype)
        return torch.addcmul(x * cos, x @ self.turn.to(x.dtype), sin)  # one small matmul is faster than many slices


class SynthesizerAttention(nn.Module):
    """softmax(ReLU(X A_i + b_1) B + b_2) (X V_i): the weights come from each position alone, without a dot product
    between positions (Tay et al. 2020, Dense Synthesizer; handout, equation 11).

    B (w2) and b_2 (b2) are shared by the heads and score block_size - 1 keys, all that x = masked_string[:-1] holds;
    a key at the very last position of a full block has no score and is not attended to.
    """

    def __init__(self, config: "GPTConfig", block_size: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.n_embd, config.n_embd)
        self.w2 = nn.Parameter(torch.empty(config.n_embd // config.n_head, block_size - 1))
        self.b2 = nn.Parameter(torch.zeros(block_size - 1))
        nn.init.uniform_(self.w2, -0.001, 0.001)  # nearly uniform attention at the start
        self.value = nn.Linear(config.n_embd, config.n_embd)
        self.attn_drop = Dropout(config.attn_pdrop)
        self.resid_drop = Dropout(config.resid_pdrop)
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        self.register_buffer("mask", causal_mask(block_size))
        self.n_head = config.n_head

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        T = x.size(1)
        Tk = min(T, self.b2.numel())
        h = split_heads(F.relu(self.w1(x)), self.n_head)  # (B, nh, T, hs)
        v = split_heads(self.value(x), self.n_head)[:, :, :Tk]  # (B, nh, Tk, hs)
        scores = F.linear(h, self.w2[:, :Tk].T, self.b2[:Tk])  # (B, nh, T, Tk)
        scores = scores.masked_fill_(self.mask[:, :, :T, :Tk] == 0, -math.inf)
        y = self.attn_drop(F.softmax(scores, dim=-1)) @ v  # (B, nh, T, hs)
        return self.resid_drop(self.proj(merge_heads(y)))
