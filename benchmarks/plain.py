"""The same vanilla model and training step, written the plain way: what src/ is measured and checked against.

One padded batch from a DataLoader, three matmuls for query, key and value, masked_fill and softmax over the whole
block, nn.Dropout, fp32, AdamW one tensor at a time. The parameters have the names of src/model.py.
"""

import math

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F

from model import GPT, GPTConfig
from optim import parameter_groups
from recipe import PAD


class PlainAttention(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        for name in ("key", "query", "value", "proj"):
            setattr(self, name, nn.Linear(config.n_embd, config.n_embd))
        self.attn_drop, self.resid_drop = nn.Dropout(config.attn_pdrop), nn.Dropout(config.resid_pdrop)
        self.register_buffer("mask", torch.tril(torch.ones(1, 1, config.block_size, config.block_size)))
        self.n_head = config.n_head

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (
            layer(x).view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))  # (B, nh, T, T)
        scores = scores.masked_fill(self.mask[:, :, :T, :T] == 0, -math.inf)
        y = self.attn_drop(F.softmax(scores, dim=-1)) @ v
        return self.resid_drop(self.proj(y.transpose(1, 2).reshape(B, T, C)))


class PlainBlock(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.ln1, self.ln2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.attn = PlainAttention(config)
        dropout = nn.Dropout(config.resid_pdrop)
        self.mlp = nn.Sequential(nn.Linear(C, 4 * C), nn.GELU(), nn.Linear(4 * C, C), dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class PlainGPT(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(config.vocab_size, config.n_embd)
        self.pos_emb = nn.Parameter(torch.zeros(1, config.block_size, config.n_embd))
        self.drop = nn.Dropout(config.embd_pdrop)
        self.blocks = nn.Sequential(*(PlainBlock(config) for _ in range(config.n_layer)))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.apply(GPT._init_weights)

    def forward(self, idx: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        x = self.drop(self.tok_emb(idx) + self.pos_emb[:, : idx.size(1)])
        logits = self.head(self.ln_f(self.blocks(x)))
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD)


class PlainTrainer:
    """Has the step() of trainer.Trainer, without its schedule."""

    def __init__(self, model: nn.Module, learning_rate: float, decay_all: bool) -> None:
        self.model = model.train()
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, 0.1, decay_all), lr=learning_rate, betas=(0.9, 0.95), foreach=False
        )

    def step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        _, loss = self.model(x, y)
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach(), norm
