"""GPT: embeddings, blocks, head. Four variants differ in their attention and in how positions enter."""

import copy
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F

from attention import CausalCrossAttention, CausalSelfAttention, Dropout, RotarySelfAttention, SynthesizerAttention

PAD = 0  # the id of the padding character; the loss ignores it

# the attention inside an ordinary block of each variant
ATTENTION = {
    "vanilla": CausalSelfAttention,
    "perceiver": CausalSelfAttention,
    "synthesizer": SynthesizerAttention,
    "rope": RotarySelfAttention,
}


@dataclass
class GPTConfig:
    """What a GPT is built from; widths and lengths are counted in features and characters.

    Raises ValueError for an unknown variant, heads that do not divide n_embd, a bottleneck outside 1..block_size,
    or a perceiver of fewer than two layers.
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

    def __post_init__(self) -> None:
        if self.variant not in ATTENTION:
            raise ValueError(f"unknown variant {self.variant!r}: choose from {', '.join(ATTENTION)}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        if self.variant == "perceiver":
            if not 1 <= self.bottleneck_dim <= self.block_size:
                raise ValueError(f"bottleneck_dim {self.bottleneck_dim} is not in 1..{self.block_size} (block_size)")
            if self.n_layer < 2:
                raise ValueError("the perceiver needs n_layer of at least 2: one block down, one up")


class MLP(nn.Sequential):
    """The feed-forward half of a block, 4x as wide inside."""

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
        self.attn = ATTENTION[config.variant](config, block_size)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class DownProjectBlock(nn.Module):
    """The perceiver's first block: a learned basis C asks the input, T positions become m (handout, equation 5)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(config.n_embd)
        self.ln2 = nn.LayerNorm(config.n_embd)
        self.C = nn.Parameter(torch.empty(1, config.bottleneck_dim, config.n_embd))
        nn.init.xavier_uniform_(self.C[0])  # of the matrix (m, C)
        self.attn = CausalCrossAttention(config, config.block_size)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, min(m, T), C). Basis vectors past T see all of x; no query may look at them."""
        basis = self.C[:, : x.size(1)]
        y = basis + self.attn(self.ln1(x), self.ln1(basis))
        return y + self.mlp(self.ln2(y))


class UpProjectBlock(nn.Module):
    """The perceiver's last block: the embedded input asks the m inner positions (handout, equation 6)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(config.n_embd)
        self.ln2 = nn.LayerNorm(config.n_embd)
        self.attn = CausalCrossAttention(config, config.block_size)
        self.mlp = MLP(config)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """y (B, m, C) from the blocks, x (B, T, C) the embedded input -> (B, T, C)."""
        x = x + self.attn(self.ln1(y), self.ln1(x))
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    """A causal language model over characters (Radford et al. 2018), as the course's fork of minGPT has it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.block_size = config.block_size
        self.variant = config.variant
        perceiver = config.variant == "perceiver"

        self.tok_emb = nn.Embedding(config.vocab_size, config.n_embd)
        if config.variant != "rope":
            self.pos_emb = nn.Parameter(torch.zeros(1, config.block_size, config.n_embd))
        self.drop = Dropout(config.embd_pdrop)
        if perceiver:
            self.down_block = DownProjectBlock(config)
            self.up_block = UpProjectBlock(config)
        n_block, length = (
            (config.n_layer - 2, config.bottleneck_dim) if perceiver else (config.n_layer, config.block_size)
        )
        self.blocks = nn.Sequential(*(Block(config, length) for _ in range(n_block)))
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
        """The longest sequence, in characters, that the model takes."""
        return self.block_size

    def num_parameters(self) -> int:
        """The number of trained scalars; masks are not counted."""
        return sum(p.numel() for p in self.parameters())

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The matrices inside the blocks, which Muon is made for; embeddings and head are none."""
        outside = (self.tok_emb.weight, self.head.weight)
        return [p for p in self.parameters() if p.dim() == 2 and all(p is not other for other in outside)]

    def matmul_weights(self) -> list[tuple[int, int]]:
        """(n, most): n weights of matmuls meet at most so many positions of a sequence.

        Behind the perceiver's bottleneck these are its m; the query of its basis, one for all rows, is left out.
        """
        n = sum(p.numel() for p in (*self.hidden_matrices(), self.head.weight))
        if self.variant != "perceiver":
            return [(n, self.block_size)]
        down, up = self.down_block, self.up_block
        inner = [self.blocks, down.attn.proj, down.mlp, up.attn.key, up.attn.value]
        behind = sum(p.numel() for part in inner for p in part.parameters() if p.dim() == 2)
        return [(n - behind - down.attn.query.weight.numel(), self.block_size), (behind, down.C.size(1))]

    def twin(self) -> "GPT":
        """A model with the very same parameters, but gradients of its own, and dropout drawn from its `generator`.

        So that several threads can go forward and backward at once, and end in the same gradients each time.
        """
        twin = copy.deepcopy(self)
        twin.generator = torch.Generator()
        for own, shared in zip(twin.parameters(), self.parameters(), strict=True):
            own.data = shared.data
        for module in twin.modules():
            if isinstance(module, Dropout):
                module.generator = twin.generator
        return twin

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Scores the next character at every position.

        idx (B, T) int64, T <= block_size; targets (B, T) int64 with PAD where no loss falls. Returns logits
        (B, T, vocab_size), and with targets the mean cross-entropy in nats a target character, else None. Raises
        ValueError when T is longer than block_size.
        """
        if idx.size(1) > self.block_size:
            raise ValueError(f"a sequence of {idx.size(1)} characters is longer than block_size {self.block_size}")

        x = self.tok_emb(idx)  # (B, T, C)
        if self.variant != "rope":
            x = x + self.pos_emb[:, : idx.size(1)]
        x = self.drop(x)
        if self.variant == "perceiver":
            x = self.up_block(self.blocks(self.down_block(x)), x)
        else:
            x = self.blocks(x)
        logits = self.head(self.ln_f(x))  # (B, T, vocab_size)

        if targets is None:
            return logits, None
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD)
        return logits, loss
