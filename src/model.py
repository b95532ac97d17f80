"""GPT: embeddings, blocks, head. recipe.VARIANTS says how the variants differ.

Shapes: B is the batch size, T the number of positions, C = n_embd, nh = n_head, m = bottleneck_dim.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F

import attention
from attention import CausalCrossAttention, Dropout
from recipe import PAD, VARIANTS


@dataclass(frozen=True)
class Wiring:
    """How the perceiver's first and last block use the embedded input x, the basis C and the inner blocks' output y.

    The assignment leaves these choices open, and a params file does not show them.
    """

    residual: bool  # add C, and x in the last block, to the output of the attention
    norm_input: bool  # keys and values of the first block: ln1(x), otherwise x
    norm_query: bool  # query of the last block: ln1(x), otherwise x


# the first three are those of public solutions: docs/compatibility.md
WIRINGS = {
    # C + attn(ln1(x), ln1(C)) in the first block, x + attn(ln1(y), ln1(x)) in the last
    "residual": Wiring(residual=True, norm_input=True, norm_query=True),
    # C + attn(x, ln1(C)), x + attn(ln1(y), x)
    "residual_raw_input": Wiring(residual=True, norm_input=False, norm_query=False),
    # attn(ln1(x), ln1(C)), attn(ln1(y), x)
    "direct_raw_query": Wiring(residual=False, norm_input=True, norm_query=False),
    # attn(ln1(x), ln1(C)), attn(ln1(y), ln1(x))
    "direct": Wiring(residual=False, norm_input=True, norm_query=True),
}


@dataclass
class GPTConfig:
    """The settings of a GPT. Lengths are in characters, widths in features.

    Raises ValueError for an unknown variant or wiring, and for an n_embd that is not a multiple of n_head. With a
    bottleneck, also for a bottleneck_dim outside 1..block_size, and for too few layers; without one, for a wiring other
    than the default. Setting an attribute that is not a field raises AttributeError: the model would not read it.
    """

    vocab_size: int
    block_size: int
    n_layer: int = 4
    n_head: int = 8
    n_embd: int = 256
    variant: str = "vanilla"
    bottleneck_dim: int = 32  # m, the length of the perceiver's inner sequence
    embd_pdrop: float = 0.1
    resid_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    wiring: str = "residual"  # of the perceiver's projection blocks, a row of WIRINGS; may be changed in model.config

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"unknown variant {self.variant!r}: choose from {', '.join(VARIANTS)}")
        if self.wiring not in WIRINGS:
            raise ValueError(f"unknown wiring {self.wiring!r}: choose from {', '.join(WIRINGS)}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        if VARIANTS[self.variant].bottleneck:
            if not 1 <= self.bottleneck_dim <= self.block_size:
                raise ValueError(f"bottleneck_dim {self.bottleneck_dim} is not in 1..{self.block_size} (block_size)")
            if self.n_layer < 2:
                raise ValueError(f"{self.variant} needs n_layer of at least 2: one block down, one block up")
        elif self.wiring != GPTConfig.wiring:
            raise ValueError(f"{self.variant} has no wiring; leave it out")
        if self.n_layer < 1:
            raise ValueError(f"n_layer is {self.n_layer}; a GPT has at least one block")

    def __setattr__(self, name: str, value: Any) -> None:
        fields = self.__dataclass_fields__
        if name not in fields:
            advice = f'give variant="{name}"' if name in VARIANTS else f"its fields are {', '.join(fields)}"
            raise AttributeError(f"GPTConfig has no field {name!r}; {advice}")
        super().__setattr__(name, value)


class MLP(nn.Sequential):
    """The feed-forward half of a block, four times as wide inside."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(
            nn.Linear(config.n_embd, 4 * config.n_embd),
            nn.GELU(),
            nn.Linear(4 * config.n_embd, config.n_embd),
            Dropout(config.resid_pdrop),
        )


class Block(nn.Module):
    """A pre-LN Transformer block."""

    def __init__(self, config: GPTConfig, block_size: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(config.n_embd)
        self.ln2 = nn.LayerNorm(config.n_embd)
        self.attn = getattr(attention, VARIANTS[config.variant].attention)(config, block_size)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """x (B, T, C) -> (B, T, C); with a mask keep (B, T), only the n positions where it is True: (n, C)."""
        x = x + self.attn(self.ln1(x))
        if keep is not None:
            x = x[keep]  # (n, C)
        return x + self.mlp(self.ln2(x))


class DownProjectBlock(nn.Module):
    """The perceiver's first block: a learned basis C queries the input, T positions become m (handout, equation 5)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(config.n_embd)
        self.ln2 = nn.LayerNorm(config.n_embd)
        self.C = nn.Parameter(torch.empty(1, config.bottleneck_dim, config.n_embd))
        nn.init.xavier_uniform_(self.C[0])  # as a matrix (m, n_embd)
        self.attn = CausalCrossAttention(config, config.block_size)
        self.mlp = MLP(config)
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, min(m, T), C). Skips the basis vectors past T: no query of the last block may see them."""
        wiring, basis = WIRINGS[self.config.wiring], self.C[:, : x.size(1)]  # (1, min(m, T), C)
        y = self.attn(self.ln1(x) if wiring.norm_input else x, self.ln1(basis))  # (B, min(m, T), C)
        if wiring.residual:
            y = basis + y
        return y + self.mlp(self.ln2(y))


class UpProjectBlock(nn.Module):
    """The perceiver's last block: the embedded input queries the m inner positions (handout, equation 6)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(config.n_embd)
        self.ln2 = nn.LayerNorm(config.n_embd)
        self.attn = CausalCrossAttention(config, config.block_size)
        self.mlp = MLP(config)
        self.config = config

    def forward(self, y: Tensor, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """y (B, min(m, T), C) from the inner blocks, x (B, T, C) the embedded input -> (B, T, C).

        With a mask keep (B, T), only the n positions where it is True: (n, C).
        """
        wiring = WIRINGS[self.config.wiring]
        z = self.attn(self.ln1(y), self.ln1(x) if wiring.norm_query else x)  # (B, T, C)
        if wiring.residual:
            z = x + z
        if keep is not None:
            z = z[keep]  # (n, C)
        return z + self.mlp(self.ln2(z))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Turns off dropout and gradients, and restores the mode of the model afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


class GPT(nn.Module):
    """A causal language model over characters (Radford et al. 2018), with the names of the course's fork of minGPT."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config = replace(config)  # a copy, and validated again: its fields may have changed
        self.variant = variant = VARIANTS[config.variant]

        self.tok_emb = nn.Embedding(config.vocab_size, config.n_embd)
        if variant.learned_positions:
            self.pos_emb = nn.Parameter(torch.zeros(1, config.block_size, config.n_embd))
        self.drop = Dropout(config.embd_pdrop)
        n_blocks, length = config.n_layer, config.block_size
        if variant.bottleneck:
            self.down_block = DownProjectBlock(config)
            self.up_block = UpProjectBlock(config)
            n_blocks, length = config.n_layer - 2, config.bottleneck_dim
        self.blocks = nn.Sequential(*(Block(config, length) for _ in range(n_blocks)))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.apply(self._init_weights)

    @staticmethod
    def _init_weights(module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def get_block_size(self) -> int:
        """The length of the longest sequence that the model takes, in characters."""
        return self.config.block_size

    def num_parameters(self) -> int:
        """The number of trained scalars, without the masks."""
        return sum(p.numel() for p in self.parameters())

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The matrices inside the blocks, which Muon trains: all but the embeddings and the head."""
        outside = (self.tok_emb.weight, self.head.weight)
        return [p for p in self.parameters() if p.dim() == 2 and all(p is not other for other in outside)]

    def matmul_weights(self) -> list[tuple[int, int]]:
        """Pairs (n, most): n weights of matmuls are each used for at most `most` positions of a sequence.

        In the perceiver, the weights inside the bottleneck are used for m positions. The query projection of its first
        block is left out: it is computed once for the whole batch.
        """
        n = sum(p.numel() for p in (*self.hidden_matrices(), self.head.weight))
        if not self.variant.bottleneck:
            return [(n, self.config.block_size)]
        down, up = self.down_block, self.up_block
        inner = [self.blocks, down.attn.proj, down.mlp, up.attn.key, up.attn.value]
        n_inner = sum(p.numel() for part in inner for p in part.parameters() if p.dim() == 2)
        n_outer = n - n_inner - down.attn.query.weight.numel()
        return [(n_outer, self.config.block_size), (n_inner, self.config.bottleneck_dim)]

    def replica(self) -> "GPT":
        """A model with the same parameters and buffers, but with its own gradients and its own `generator` for dropout.

        With one replica per thread, several threads run forward and backward at once, and the gradients stay the same.
        """
        replica = copy.deepcopy(self)
        replica.generator = torch.Generator()
        for own, shared in zip(replica.parameters(), self.parameters(), strict=True):
            own.data = shared.data
        for own, shared in zip(replica.buffers(), self.buffers(), strict=True):
            own.data = shared.data
        for module in replica.modules():
            if isinstance(module, Dropout):
                module.generator = replica.generator
        return replica

    def embed(self, idx: Tensor) -> Tensor:
        """idx (B, T) int64 -> (B, T, C). Raises ValueError when T is longer than block_size."""
        T = idx.size(1)
        if self.config.block_size < T:
            raise ValueError(f"a sequence of {T} characters is longer than block_size {self.config.block_size}")

        x = self.tok_emb(idx)  # (B, T, C)
        if self.variant.learned_positions:
            x = x + self.pos_emb[:, :T]
        return self.drop(x)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Scores the next character at every position.

        idx (B, T) int64, T <= block_size; targets (B, T) int64, PAD where no loss is wanted. Returns logits
        (B, T, vocab_size), and the mean cross-entropy in nats per target character, or None without targets. Raises
        ValueError when T is longer than block_size.
        """
        logits = self.logits(idx)  # (B, T, vocab_size)
        return logits, None if targets is None else self.loss(logits, targets)

    @staticmethod
    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        """logits (..., vocab_size), targets (...) int64 -> the mean cross-entropy over the targets that are not PAD."""
        return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=PAD)

    def skips(self) -> bool:
        """Whether loss_at_targets() skips anything.

        Training with dropout does not, so that its random numbers stay those of forward(). Nor does a subclass that has
        a forward() of its own.
        """
        return type(self).forward is GPT.forward and not (self.training and self.config.resid_pdrop)

    def skipped_weights(self) -> int:
        """How many weights of matmuls loss_at_targets() leaves unused where it skips a position."""
        last = self.up_block if self.variant.bottleneck else self.blocks[-1]
        skipped = [p for p in (*last.mlp.parameters(), self.head.weight) if p.dim() == 2]
        return sum(p.numel() for p in skipped) if self.skips() else 0

    def loss_at_targets(self, idx: Tensor, targets: Tensor, multiple: int = 1) -> Tensor:
        """idx and targets (B, T) -> the loss of forward(), a scalar.

        If skips() is true, it leaves out the last MLP and the head at positions without a target. It keeps the first
        few of these, if there are enough, to round the number of positions up to a `multiple`.
        """
        if not self.skips():
            return self(idx, targets)[1]
        keep = targets != PAD  # (B, T)
        without_target = (~keep).flatten().cumsum(0).view_as(keep)  # how many there are, up to each position
        keep |= without_target <= -int(keep.sum()) % multiple
        return self.loss(self.logits(idx, keep), targets[keep])

    def logits(self, idx: Tensor, keep: Tensor | None = None) -> Tensor:
        """idx (B, T) -> (B, T, vocab_size); with a mask keep (B, T), only where it is True: (n, vocab_size)."""
        x = self.embed(idx)  # (B, T, C)
        if self.variant.bottleneck:
            y = self.blocks(self.down_block(x))  # (B, min(m, T), C)
            x = self.up_block(y, x, keep)  # (B, T, C) or (n, C)
        else:
            *blocks, last = self.blocks
            for block in blocks:
                x = block(x)  # (B, T, C)
            x = last(x, keep)  # (B, T, C) or (n, C)
        return self.head(self.ln_f(x))

    def attention_weights(self, idx: Tensor) -> list[Tensor]:
        """The attention weights of every layer for idx (B, T): a list of (B, nh, Tq, Tk), in the order of computation.

        Call it in eval mode: the layers' inputs have dropout in training mode. Raises ValueError as forward() does.
        """
        weights: list[Tensor] = []
        with ExitStack() as hooks:
            for layer in self.modules():
                if hasattr(layer, "weights"):  # a layer of attention.py; the hook sees its inputs
                    hook = layer.register_forward_pre_hook(lambda layer, inputs: weights.append(layer.weights(*inputs)))
                    hooks.enter_context(hook)
            self.logits(idx)
        return weights
