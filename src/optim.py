"""The optimizers: what is decayed, AdamW and Muon, and the learning rate over a run."""

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn as nn
from torch import Tensor

if TYPE_CHECKING:  # trainer imports this module
    from trainer import TrainerConfig

LOWEST_MULTIPLIER = 0.1  # of the learning rate; the cosine does not fall below it
NEWTON_SCHULZ_STEPS = 5
NS_A, NS_B, NS_C = 3.4445, -4.7750, 2.0315  # of each step


def parameter_groups(
    model: nn.Module, weight_decay: float, decay_all: bool, excluded: Collection[nn.Parameter] = ()
) -> list[dict]:
    """Two optimizer groups: the parameters with weight decay, and those without.

    The matrices of matmuls are decayed; with `decay_all`, all parameters whose name does not end in bias (so the
    synthesizer's b2, too). `excluded` parameters are left to another optimizer.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    skipped = {id(p) for p in excluded}
    decayed, rest = [], []
    for name, p in model.named_parameters():
        is_decayed = (not name.endswith("bias")) if decay_all else (p.dim() == 2 and id(p) not in embeddings)
        if id(p) not in skipped:
            (decayed if is_decayed else rest).append(p)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def orthogonalized(matrices: Tensor) -> Tensor:
    """(n, rows, cols) -> the same: a matrix U S V^T (its singular value decomposition) becomes roughly U V^T.

    Newton-Schulz steps, X <- a X + b (X X^T) X + c (X X^T)^2 X (Jordan et al. 2024), bring most of S to 0.7 .. 1.2.
    """
    rows, cols = matrices.shape[-2:]
    if rows > cols:
        return orthogonalized(matrices.mT).mT
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # singular values of at most 1
    if x.dtype == torch.float32 and cols >= 2 * rows:
        return product_of_steps(x @ x.mT) @ x
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.mT  # (n, rows, rows)
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=NS_B, alpha=NS_C), x, beta=NS_A)
    return x


def product_of_steps(square: Tensor) -> Tensor:
    """X X^T (n, rows, rows) -> Q (n, rows, rows), where Q X is what the steps of orthogonalized() make of X.

    Only matmuls of (rows, rows) are left, which saves time for a wide X. In bf16, errors of X X^T grow too large.
    """
    step = product = step_matrix(square)
    for _ in range(NEWTON_SCHULZ_STEPS - 1):
        square = step @ square @ step  # X X^T after the step
        step = step_matrix(square)
        product = step @ product
    return product


def step_matrix(square: Tensor) -> Tensor:
    """X X^T (n, rows, rows) -> the matrix (n, rows, rows) that a Newton-Schulz step multiplies X by."""
    matrix = torch.baddbmm(square, square, square, beta=NS_B, alpha=NS_C)
    matrix.diagonal(dim1=-2, dim2=-1).add_(NS_A)
    return matrix


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized: Muon (Jordan et al. 2024), with the momentum and scaling of torch.optim.Muon.

    Matrices of the same shape are orthogonalized together, in `dtype`. torch.optim.Muon always does it in bf16. On a
    CPU without AVX-512, that takes sixty times as long as fp32: findings/bf16_matmul_without_avx512.sh.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float, dtype: torch.dtype) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:
        """Updates the matrices that have a gradient."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            by_shape: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                state["momentum_buffer"].lerp_(p.grad, 1 - momentum)
                update = p.grad.lerp(state["momentum_buffer"], momentum)  # Nesterov momentum
                by_shape.setdefault(p.shape, []).append((p, update))
            for (rows, cols), pairs in by_shape.items():
                updates = orthogonalized(torch.stack([update for _, update in pairs]).to(self.dtype))
                for (p, _), update in zip(pairs, updates, strict=True):
                    p.mul_(1 - lr * group["weight_decay"])
                    p.add_(update, alpha=-lr * math.sqrt(max(1, rows / cols)))


def make_optimizers(model: nn.Module, config: "TrainerConfig", muon_dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov and Hutter 2019); with config.muon_lr, also Muon on model.hidden_matrices().

    muon_dtype is what Muon computes in; parameters and momentum stay as they are.
    """
    hidden = model.hidden_matrices() if config.muon_lr else []
    groups = parameter_groups(model, config.weight_decay, config.decay_all, excluded=hidden)
    fused = next(model.parameters()).device.type != "mps"
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=fused)
    optimizers: list[torch.optim.Optimizer] = [adamw]
    if hidden:
        optimizers.append(Muon(hidden, config.muon_lr, config.weight_decay, muon_dtype))
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
        return tokens / warmup_tokens
    progress = (tokens - warmup_tokens) / max(1, final_tokens - warmup_tokens)
    return max(LOWEST_MULTIPLIER, 0.5 * (1.0 + math.cos(math.pi * progress)))


def final_tokens_of(run_tokens: float, warmup_tokens: int) -> int:
    """The final_tokens for which learning_rate_multiplier reaches its lowest value exactly at run_tokens."""
    progress = math.acos(2 * LOWEST_MULTIPLIER - 1) / math.pi
    return warmup_tokens + int((run_tokens - warmup_tokens) / progress)
