"""The attention layers.

Self-attention maps (B, T, C) to (B, T, C), cross-attention (B, Tk, C) and (B or 1, Tq, C) to (B, Tq, C). Every layer is
causal: output t depends only on inputs 0..t. Its method weights() takes the inputs of forward() and returns the
attention weights, (B, nh, Tq, Tk), before dropout.

Shapes: B is the batch size, T the number of positions (Tq of queries, Tk of keys), C = n_embd, nh = n_head,
hs = n_embd / n_head.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:  # model.py imports this module
    from model import GPTConfig


class Dropout(nn.Module):
    """nn.Dropout with cheap random draws on a CPU, where one draw per element would be a noticeable part of a step.

    One 64-bit draw decides eight elements. Each element compares its 8 bits with p * 2**8, rounded up or down at random
    in each call, so that the probability of dropping an element is exactly p. On a CPU the draws come from `generator`,
    or from the global generator if it is None.
    """

    generator: torch.Generator | None = None

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p <= 255 / 256:  # above, the threshold could be 2**8, which an int8 cannot hold after the shift
            raise ValueError(f"dropout probability must be in [0, 255/256], got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None, generator=self.generator)
        uniform = draws.view(torch.int8)[: x.numel()].view(x.shape)  # uniform on -2**7 .. 2**7 - 1
        threshold = int(self.p * 2**8 + torch.rand((), generator=self.generator).item())  # this many of 2**8 drop
        keep = (uniform >= threshold - 2**7).view(torch.int8)  # int8 converts to float faster than bool does
        return x * keep.to(x.dtype).mul_(1.0 / (1.0 - self.p))


def mask_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: 0 where the mask (Tq, Tk) is 1, and -inf where it is 0."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask == 0, -math.inf)


def attention_weights(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(hs)) for each head, where query i sees keys 0..i.

    query (B or 1, nh, Tq, hs), key (B, nh, Tk, hs), mask (Tq, Tk) with 1 where a query sees a key.
    Returns (B, nh, Tq, Tk).
    """
    (B, nh, Tk, hs), Tq = key.shape, query.size(2)
    q = query.expand(B, -1, -1, -1).reshape(B * nh, Tq, hs)  # (B nh, Tq, hs)
    k = key.reshape(B * nh, Tk, hs)  # (B nh, Tk, hs)
    bias = mask_bias(mask, q.dtype)
    scores = torch.baddbmm(bias.expand(B * nh, Tq, Tk), q, k.transpose(1, 2), alpha=1.0 / math.sqrt(hs))
    return F.softmax(scores, dim=-1).view(B, nh, Tq, Tk)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: Dropout) -> Tensor:
    """softmax(Q K^T / sqrt(hs)) V for each head, where query i sees keys 0..i (handouts, equations 3 and 9).

    query (B or 1, nh, Tq, hs), key and value (B, nh, Tk, hs), mask (Tq, Tk) with 1 where a query sees a key. A query of
    batch size 1 is shared by the whole batch. Returns (B, nh, Tq, hs).
    """
    B, nh, Tk, hs = value.shape
    if query.is_cuda:
        query, p = query.expand(B, -1, -1, -1), dropout.p if dropout.training else 0.0
        # is_causal stands for the mask, aligned to the upper left corner: query i sees keys 0..i
        return F.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)
    # on a CPU, baddbmm, softmax and bmm are several times faster than scaled_dot_product_attention and its backward
    weights = dropout(attention_weights(query, key, mask)).view(B * nh, -1, Tk)  # (B nh, Tq, Tk)
    return torch.bmm(weights, value.reshape(B * nh, Tk, hs)).view(B, nh, -1, hs)


def causal_mask(block_size: int) -> Tensor:
    """(1, 1, block_size, block_size) floats, 1 on and below the diagonal: params files hold it in this shape."""
    return torch.tril(torch.ones(block_size, block_size)).view(1, 1, block_size, block_size)


def split_heads(x: Tensor, n_head: int) -> Tensor:
    """(B, T, C) -> (B, nh, T, hs)."""
    B, T, C = x.shape
    return x.view(B, T, n_head, C // n_head).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, nh, T, hs) -> (B, T, C)."""
    B, nh, T, hs = x.shape
    return x.transpose(1, 2).reshape(B, T, nh * hs)


def project(x: Tensor, n_head: int, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """[split_heads(layer(x), n_head) for layer in layers], computed as one matmul, which is faster than several."""
    weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
    return tuple(split_heads(part, n_head) for part in F.linear(x, weight, bias).chunk(len(layers), dim=-1))


class DotProductAttention(nn.Module):
    """The common part of self- and cross-attention: the parameters, and causal attention of each head.

    Subclasses say how queries, keys and values come from the inputs of forward().
    """

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

    def query_key_value(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The inputs of forward() -> query (B or 1, nh, Tq, hs), key and value (B, nh, Tk, hs)."""
        raise NotImplementedError

    def mask_for(self, query: Tensor, key: Tensor) -> Tensor:
        """(Tq, Tk), 1 where a query sees a key."""
        return self.mask[0, 0, : query.size(2), : key.size(2)]

    def forward(self, *inputs: Tensor) -> Tensor:
        """The inputs of query_key_value() -> (B, Tq, C)."""
        q, k, v = self.query_key_value(*inputs)
        y = attention(q, k, v, self.mask_for(q, k), self.attn_drop)  # (B, nh, Tq, hs)
        return self.resid_drop(self.proj(merge_heads(y)))

    def weights(self, *inputs: Tensor) -> Tensor:
        """The inputs of query_key_value() -> attention weights (B, nh, Tq, Tk)."""
        q, k, _ = self.query_key_value(*inputs)
        return attention_weights(q, k, self.mask_for(q, k))


class CausalSelfAttention(DotProductAttention):
    """Multi-head self-attention (handouts, equations 3, 4 and 9, 10)."""

    def query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, C) -> query, key and value, each (B, nh, T, hs)."""
        return project(x, self.n_head, self.query, self.key, self.value)


class CausalCrossAttention(DotProductAttention):
    """Queries from one sequence, keys and values from another; query i sees keys 0..i (handout, equations 5 and 6)."""

    def query_key_value(self, x_kv: Tensor, x_q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_kv (B, Tk, C), x_q (B or 1, Tq, C) -> query (B or 1, nh, Tq, hs), key and value (B, nh, Tk, hs)."""
        q = split_heads(self.query(x_q), self.n_head)  # (B or 1, nh, Tq, hs)
        return q, *project(x_kv, self.n_head, self.key, self.value)  # key and value (B, nh, Tk, hs)


def standard_rope_cache(block_size: int, head_size: int) -> Tensor:
    """The cosine and sine of t * theta_i for each position t and pair of features i: (block_size, hs / 2, 2) floats.

    theta_i = 10000^(-2(i-1)/hs), i = 1..hs/2 (Su et al. 2021, RoFormer, section 3.2.2). Raises ValueError for an odd
    head size.
    """
    if head_size % 2:
        raise ValueError(f"rotary embedding needs an even head size, got {head_size}")
    theta = 10000.0 ** (-torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)  # (hs / 2,)
    angle = torch.outer(torch.arange(block_size, dtype=torch.float32), theta)  # (block_size, hs / 2)
    return torch.stack((angle.cos(), angle.sin()), dim=-1)


class RotarySelfAttention(CausalSelfAttention):
    """Self-attention whose queries and keys are rotated by their position (Su et al. 2021, RoFormer, equation 34).

    Params files hold the cosines and sines as `rope_cache`, under the course's name and shape. The model uses the table
    of the file: (block_size, hs / 2, 2) if all heads share it, (block_size, C / 2, 2) if each head has its own pairs. A
    state_dict without a table loads with the standard one.
    """

    def __init__(self, config: "GPTConfig", block_size: int) -> None:
        super().__init__(config, block_size)
        head_size = config.n_embd // config.n_head
        self.register_buffer("rope_cache", standard_rope_cache(block_size, head_size))  # (block_size, hs / 2, 2)
        # (hs, hs), turns each pair by 90 degrees
        quarter_turns = torch.block_diag(*[torch.tensor([[0.0, 1.0], [-1.0, 0.0]])] * (head_size // 2))
        self.register_buffer("quarter_turns", quarter_turns, persistent=False)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        block_size, head_size = len(self.rope_cache), self.key.out_features // self.n_head
        table = state_dict.setdefault(f"{prefix}rope_cache", standard_rope_cache(block_size, head_size))
        shapes = (block_size, head_size // 2, 2), (block_size, self.key.out_features // 2, 2)
        # a table of the same shape is copied in place, since replicas share it
        if table.shape in shapes and table.shape != self.rope_cache.shape:
            self.rope_cache = self.rope_cache.new_empty(table.shape)  # filled below
        super()._load_from_state_dict(state_dict, prefix, *args)

    def query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, C) -> rotated query, rotated key and value, each (B, nh, T, hs)."""
        q, k, v = super().query_key_value(x)
        table = self.rope_cache[: x.size(1)].to(q.dtype).repeat_interleave(2, dim=1)  # (T, hs or C, 2)
        n_tables = table.size(1) // q.size(-1)  # 1 if the heads share one, else nh
        # (1 or nh, T, hs) each
        cos, sin = (split_heads(part[None], n_tables)[0].contiguous() for part in table.unbind(dim=-1))
        return self.rotate(q, cos, sin), self.rotate(k, cos, sin), v

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x (B, nh, T, hs) -> the same: each pair (x_{2i-1}, x_{2i}) is rotated; cos and sin are (1 or nh, T, hs)."""
        # one small matmul is faster than many slices
        return torch.addcmul(x * cos, x @ self.quarter_turns.to(x.dtype), sin)


class SynthesizerAttention(nn.Module):
    """softmax(ReLU(X A_i + b_1) B + b_2) (X V_i): each position computes its weights by itself, without dot products
    between positions (Tay et al. 2020, Dense Synthesizer; handout, equation 11).

    The heads share B (w2) and b_2 (b2), which score block_size - 1 keys: the length of x = masked_string[:-1]. The last
    position of a full block has no score as a key, so no position attends to it.
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
        weights = self.weights(x)  # (B, nh, T, Tk)
        v = split_heads(self.value(x), self.n_head)[:, :, : weights.size(-1)]  # (B, nh, Tk, hs)
        y = self.attn_drop(weights) @ v  # (B, nh, T, hs)
        return self.resid_drop(self.proj(merge_heads(y)))

    def weights(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> attention weights (B, nh, T, Tk), where Tk is T, but at most block_size - 1."""
        T = x.size(1)
        Tk = min(T, self.b2.numel())
        h = split_heads(F.relu(self.w1(x)), self.n_head)  # (B, nh, T, hs)
        scores = F.linear(h, self.w2[:, :Tk].T, self.b2[:Tk])  # (B, nh, T, Tk)
        # adding -inf takes three quarters of the time of masked_fill, whose backward copies the gradient
        return F.softmax(scores + mask_bias(self.mask[0, 0, :T, :Tk], scores.dtype), dim=-1)
