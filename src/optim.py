"""The optimizers: what is decayed, AdamW and Muon, and the learning rate over a run."""

import math
from collections.abc import Collection, Iterable

import torch
import torch.nn as nn

LOWEST_MULTIPLIER = 0.1  # of the learning rate; the cosine does not fall below it


def parameter_groups(
    model: nn.Module, weight_decay: float, decay_all: bool = False, excluded: Collection[nn.Parameter] = ()
) -> list[dict]:
    """Two optimizer groups: the parameters with weight decay, and those without.

    Decayed are the matrices that inputs are multiplied by; with `decay_all`, everything not named bias (so the
    synthesizer's b2 too). `excluded` parameters are left to another optimizer.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    skipped = {id(p) for p in excluded}
    decayed, rest = [], []
    for name, p in model.named_parameters():
        is_decayed = not name.endswith("bias") if decay_all else p.dim() == 2 and id(p) not in embeddings
        if id(p) not in skipped:
            (decayed if is_decayed else rest).append(p)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def make_optimizers(
    model: nn.Module,
    learning_rate: float,
    muon_lr: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.95),
    weight_decay: float = 0.1,
    decay_all: bool = False,
) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov and Hutter 2019); with a muon_lr, also Muon (Jordan et al. 2024) on model.hidden_matrices()."""
    hidden = model.hidden_matrices() if muon_lr else []
    groups = parameter_groups(model, weight_decay, decay_all, excluded=hidden)
    fused = next(model.parameters()).device.type != "mps"
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=fused)]
    if hidden:
        optimizers.append(torch.optim.Muon(hidden, lr=muon_lr, weight_decay=weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["highest_lr"] = group["lr"]  # what the schedule multiplies
    return optimizers


def scale_learning_rates(optimizers: Iterable[torch.optim.Optimizer], multiplier: float) -> None:
    """Sets each group's learning rate to its highest one times the multiplier."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["highest_lr"] * multiplier


def learning_rate_multiplier(tokens: int, warmup_tokens: int, final_tokens: int) -> float:
    """Linear warm-up, then max(0.1, (1 + cos(pi * progress)) / 2), which rises again when progress passes 1."""
    if tokens < warmup_tokens:
        return tokens / max(1, warmup_tokens)
    progress = (tokens - warmup_tokens) / max(1, final_tokens - warmup_tokens)
    return max(LOWEST_MULTIPLIER, 0.5 * (1.0 + math.cos(math.pi * progress)))


def final_tokens_of(run_tokens: int, warmup_tokens: int) -> int:
    """The final_tokens for which learning_rate_multiplier reaches its lowest value exactly at run_tokens."""
    progress = math.acos(2 * LOWEST_MULTIPLIER - 1) / math.pi
    return warmup_tokens + int((run_tokens - warmup_tokens) / progress)
