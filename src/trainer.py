"""The training loop: optimizer groups, schedule, precision, data parallelism, progress. It knows nothing of text."""

import ctypes
import math
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils._triton import has_triton
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

LOWEST_MULTIPLIER = 0.1  # of the learning rate, once the cosine has come down to it
STEPS_WORTH_COMPILING = 8000  # fewer should take less time as they are than torch.compile does: an estimate
# least for full-speed matmuls, most for which sorted rows share a length; the slower the matmuls, the dearer is padding
CPU_MICRO_BATCH_ROWS = {torch.bfloat16: (8, 16), torch.float32: (8, 8)}
CPU_LENGTH_MULTIPLE = {torch.bfloat16: 8, torch.float32: 2}  # torch prepares matmuls of bf16 anew for each shape


@dataclass
class TrainerConfig:
    """How to train. Tokens count padding: each row of a batch (B, T) has T of them."""

    max_epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 3e-4
    muon_lr: float = 0.0  # of Muon on model.hidden_matrices(); 0: AdamW trains every parameter
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    decay_all: bool = False  # weight decay on all parameters but biases; else on the matrices of matmuls only
    grad_norm_clip: float = 1.0
    lr_decay: bool = False  # linear warm-up, then a cosine; else a constant rate
    warmup_tokens: int = 512 * 20
    final_tokens: int = 10**9  # where the cosine is at its lowest
    device: str = "auto"  # auto, cpu, cuda or mps
    precision: str = "auto"  # auto, fp32 or bf16
    ignore_index: int = 0  # the target on which the model puts no loss
    micro_batch_rows: int = 0  # rows of a batch() computed at once; 0: 8 to 16 by each thread of a CPU, else all
    num_workers: int = 0  # of the DataLoader, for datasets that cannot make whole batches
    writer: SummaryWriter | None = None


def pick_device(name: str) -> torch.device:
    """The device of that name; auto is a CUDA GPU, else MPS, else the CPU. Raises ValueError if it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, here in available.items() if here)
    if not available[name]:
        raise ValueError(f"this machine, or this build of torch, has no {name} device")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of matmuls while training; auto is bf16 on CUDA GPUs and x86 CPUs with AVX-512 BF16, else fp32."""
    if name == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        name = "bf16" if fast else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]


def parameter_groups(
    model: nn.Module, weight_decay: float, decay_all: bool = False, without: set[int] = frozenset()
) -> list[dict]:
    """Two optimizer groups: what is decayed, and all else, which is not.

    Decayed are the matrices that inputs are multiplied by; with `decay_all` everything but what is named bias, so the
    synthesizer's b2 too. Parameters whose id() is in `without` are left to another optimizer.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    decayed, rest = [], []
    for name, p in model.named_parameters():
        is_decayed = not name.endswith("bias") if decay_all else p.dim() == 2 and id(p) not in embeddings
        if id(p) not in without:
            (decayed if is_decayed else rest).append(p)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def matmul_weights(model: nn.Module) -> list[tuple[int, int]]:
    """(n, most): n weights of matmuls meet at most so many positions of a row. A model may say so itself: see GPT."""
    if hasattr(model, "matmul_weights"):
        return model.matmul_weights()
    return [(sum(p.numel() for p in parameter_groups(model, 0.0)[0]["params"]), sys.maxsize)]


def training_flops(weights: list[tuple[int, int]], lengths: Tensor) -> Tensor:
    """The arithmetic that a training step on rows of these lengths (B,) cannot do without: a scalar, int64.

    Forward 2 and backward 4 for each of the matmul_weights() and each position; attention's own products are left out.
    """
    return 6 * sum(n * lengths.clamp(max=most).sum() for n, most in weights)


def learning_rate_multiplier(tokens: int, warmup_tokens: int, final_tokens: int) -> float:
    """Linear warm-up, then max(0.1, (1 + cos(pi * progress)) / 2), which rises again when progress passes 1."""
    if tokens < warmup_tokens:
        return tokens / max(1, warmup_tokens)
    progress = (tokens - warmup_tokens) / max(1, final_tokens - warmup_tokens)
    return max(LOWEST_MULTIPLIER, 0.5 * (1.0 + math.cos(math.pi * progress)))


def final_tokens_of(run_tokens: int, warmup_tokens: int) -> int:
    """The final_tokens with which learning_rate_multiplier comes down to its lowest at run_tokens, and no sooner."""
    progress = math.acos(2 * LOWEST_MULTIPLIER - 1) / math.pi
    return warmup_tokens + int((run_tokens - warmup_tokens) / progress)


def micro_batches(x: Tensor, y: Tensor, rows: int, ignore_index: int, multiple: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Splits a batch (B, T) into parts of `rows` rows of similar length, without the columns that hold no target.

    For a causal model the columns behind the last target change nothing, so the parts have the batch's loss and
    gradients at about half the arithmetic. Lengths are rounded up to a `multiple`.
    """
    columns = torch.arange(1, y.size(1) + 1, device=y.device)
    lengths = ((y != ignore_index) * columns).amax(dim=1)  # (B,)
    for part in lengths.argsort(stable=True).split(rows):
        T = min(y.size(1), -(-int(lengths[part[-1]]) // multiple) * multiple)
        if T:  # else no row of the part has a target
            yield x[part, :T], y[part, :T]


def evenly(parts: list[tuple[Tensor, ...]], n: int) -> list[list[tuple[Tensor, ...]]]:
    """The parts of a batch in n lists of about as many tokens: the largest first, each to the list that has fewest."""
    lists: list[list[tuple[Tensor, ...]]] = [[] for _ in range(n)]
    tokens = [0] * n
    for part in sorted(parts, key=lambda part: part[0].numel(), reverse=True):
        least = tokens.index(min(tokens))
        lists[least].append(part)
        tokens[least] += part[0].numel()
    return lists


def equal_parts(x: Tensor, y: Tensor, rows: int, ignore_index: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Splits a batch (B, T) into parts of `rows` rows, the last of them filled up with rows that hold no target.

    So all parts of all batches have one shape, and it is compiled once; loss and gradients are the batch's.
    """
    missing = -len(x) % rows
    x, y = F.pad(x, (0, 0, 0, missing)), F.pad(y, (0, 0, 0, missing), value=ignore_index)
    yield from zip(x.split(rows), y.split(rows), strict=True)


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """The FLOP/s that this machine reaches in one large matmul, where it does nothing else: 0.1 to 0.5 s to measure."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.linspace(-1, 1, n * n, device=device).view(n, n).to(dtype)  # no draw from the generators
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        float((a @ a)[0, 0])  # which waits for a GPU
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)


def keep_freed_memory() -> None:
    """Has glibc, where that is the C library, keep the memory that a step frees for the next one.

    Given back to the system, it would come back as thousands of page faults a step, a tenth of a step's time.
    """
    with suppress(OSError, AttributeError, TypeError):  # no glibc
        mallopt, trim_threshold, mmap_threshold = ctypes.CDLL(None).mallopt, -1, -3
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)


def can_compile() -> bool:
    """Whether Triton is here, and what it needs: a C compiler, where it looks for one, and Python's headers."""
    compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]
    headers = os.path.join(sysconfig.get_path("include"), "Python.h")
    return has_triton() and any(map(shutil.which, compilers)) and os.path.exists(headers)


def compiled(model: nn.Module, device: torch.device, steps: int, accumulates: bool) -> nn.Module:
    """On a CUDA GPU the model as fused kernels, where `steps` are worth compiling and there is a compiler; else itself.

    The kernels are replayed as a CUDA graph, but not where gradients accumulate: they would lie in the graph's memory.
    """
    if device.type != "cuda" or steps < STEPS_WORTH_COMPILING:
        return model
    if not can_compile():
        print("no Triton, no C compiler or no Python.h here: training runs without torch.compile, slower")
        return model
    torch._dynamo.config.suppress_errors = True  # what cannot be compiled all the same runs as it is, after a warning
    torch._dynamo.config.optimize_ddp = False  # several graphs, for an overlap that so small a model does not need
    return torch.compile(model, mode=None if accumulates else "reduce-overhead", dynamic=False)


class Trainer:
    """Trains `model`, called as model(x, y) -> (logits, loss), on a dataset of (x, y) pairs.

    A dataset with a method batch(indices) -> (x, y) makes its batches itself, on the device, as padded int64 (B, T)
    whose targets end in `ignore_index`; they are cut into micro-batches, which suits a causal model whose loss is the
    mean over all other targets. On a CPU, if the model has a method twin(), each thread but the first has a twin that
    works on micro-batches of its own; for so small a model that is faster than all threads on one, waiting for the
    slowest of them in each operation. Any other torch Dataset goes through a DataLoader. `test_dataset` may be None;
    otherwise its mean loss is reported after each epoch. Functions in `on_epoch_end` are called with the trainer and
    return figures to log, name to value; those in `on_step_end` are called with the trainer and may raise to stop.

    In a process group (torchrun), each process takes its share of every batch, and the gradients are those of the
    whole one. Raises ValueError when the last batch of an epoch has fewer rows than there are processes, and
    FloatingPointError when the loss or the gradient is no longer finite.
    """

    def __init__(
        self, model: nn.Module, train_dataset: Dataset, test_dataset: Dataset | None, config: TrainerConfig
    ) -> None:
        keep_freed_memory()
        self.rank, self.world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.device = pick_device(config.device)
        self.dtype = pick_precision(config.precision, self.device)
        self.model = model.to(self.device)
        steps = config.max_epochs * math.ceil(len(train_dataset) / config.batch_size)
        # what is called where there are no twins
        self.parallel = compiled(model, self.device, steps, config.micro_batch_rows > 0)
        if self.world_size > 1:
            self.parallel = DistributedDataParallel(self.parallel, broadcast_buffers=False)
        self.train_dataset = train_dataset
        self.test_dataset = test_dataset
        self.config = config
        self.micro_batch_rows = config.micro_batch_rows
        self.twins: list[nn.Module] = []  # of the model, for the other threads of a CPU
        if self.device.type == "cpu":
            self.divide_among_threads()
        self.most_rows = math.ceil(min(config.batch_size, len(train_dataset)) / self.world_size)  # of a batch, so far
        self.on_step_end: list[Callable[[Trainer], None]] = []
        self.on_epoch_end: list[Callable[[Trainer], dict[str, float]]] = []
        self.optimizers = self.make_optimizers()
        self.matmul_weights = matmul_weights(self.model)
        self.steps = 0
        self.tokens = 0  # seen so far by all processes, padding counted: what the schedule goes by
        self.epoch = 0  # epochs completed
        self.order = torch.empty(0, dtype=torch.int64)  # what the epoch under way has yet to see
        self.last = torch.zeros(()), torch.zeros(())  # the last step's loss and gradient norm
        for dataset in filter(None, (train_dataset, test_dataset)):
            last_batch = len(dataset) % config.batch_size or config.batch_size
            if last_batch < self.world_size:
                few = f"the last batch of an epoch has {last_batch} rows for {self.world_size} processes"
                raise ValueError(f"{few}; start fewer (torchrun --nproc_per_node)")

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW (Loshchilov and Hutter 2019); with a muon_lr, Muon (Jordan et al. 2024) for the hidden matrices."""
        config = self.config
        hidden = self.model.hidden_matrices() if config.muon_lr else []
        groups = parameter_groups(self.model, config.weight_decay, config.decay_all, {id(p) for p in hidden})
        fused = self.device.type != "mps"
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=fused)
        ]
        if hidden:
            optimizers.append(torch.optim.Muon(hidden, lr=config.muon_lr, weight_decay=config.weight_decay))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["highest_lr"] = group["lr"]  # what the schedule multiplies
        return optimizers

    def divide_among_threads(self) -> None:
        """Makes a twin for each further thread that finds work in a batch: two parts, if they come out that large.

        How many rows a part may have: CPU_MICRO_BATCH_ROWS.
        """
        least, most = CPU_MICRO_BATCH_ROWS[self.dtype]
        batch_size, rows = self.config.batch_size, self.micro_batch_rows  # 0: to be chosen
        threads = 1
        if self.world_size == 1 and hasattr(self.model, "twin") and hasattr(self.train_dataset, "batch"):
            threads = min(torch.get_num_threads(), math.ceil(batch_size / (rows or least)))
        self.twins = [self.model.twin() for _ in range(threads - 1)]
        self.pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self.micro_batch_rows = rows or min(most, max(least, math.ceil(batch_size / (2 * threads))))

    def batches(self, dataset: Dataset, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The pairs of the dataset in this order, in batches on the device: of each batch, the rows of this process."""
        batches = [rows[self.rank :: self.world_size] for rows in order.split(self.config.batch_size)]
        if hasattr(dataset, "batch"):
            yield from map(dataset.batch, batches)
        else:
            indices = [rows.tolist() for rows in batches]
            for x, y in DataLoader(dataset, batch_sampler=indices, num_workers=self.config.num_workers):
                yield x.to(self.device), y.to(self.device)

    def parts(self, x: Tensor, y: Tensor, dataset: Dataset) -> list[tuple[Tensor, Tensor, Tensor | float]]:
        """The batch in micro-batches, each with its share of the targets of the batch, as all processes have it."""
        if not hasattr(dataset, "batch"):
            return [(x, y, len(x) / int(self.over_processes(torch.tensor(len(x)))))]
        ignored = self.config.ignore_index
        if self.device.type == "cpu":
            split = micro_batches(x, y, self.micro_batch_rows, ignored, CPU_LENGTH_MULTIPLE[self.dtype])
        else:
            self.most_rows = max(self.most_rows, len(x))
            split = equal_parts(x, y, self.rows_at_once(), ignored)
        targets = self.over_processes((y != ignored).sum())
        return [(part_x, part_y, (part_y != ignored).sum() / targets) for part_x, part_y in split]

    def rows_at_once(self) -> int:
        """How many rows of a batch are computed at once, on a CPU by each thread."""
        return min(self.micro_batch_rows or self.most_rows, self.most_rows)

    def over_processes(self, value: Tensor, operation: Any = dist.ReduceOp.SUM) -> Tensor:
        """The sum (or maximum) of a value over all processes; the value itself where there is one."""
        if self.world_size > 1:
            dist.all_reduce(value, operation)
        return value

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, of all processes; called by each of them.

        Raises FloatingPointError rather than give parameters that the last step spoiled.
        """
        self.check_finite()
        random: dict[str, Tensor] = {"cpu": torch.get_rng_state()}
        if self.device.type != "cpu":
            random["device"] = torch.get_device_module(self.device).get_rng_state()
        of_all = [random] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(of_all, random)
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "steps": self.steps,
            "tokens": self.tokens,
            "epoch": self.epoch,
            "order": self.order,
            "random": of_all,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a run where state_dict() was called; train() then goes on as if it had not been interrupted.

        With a DataLoader, which draws once as it begins, only at the end of an epoch.
        """
        self.model.load_state_dict(state["model"])
        for optimizer, optimizer_state in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(optimizer_state)
        self.steps, self.tokens, self.epoch = state["steps"], state["tokens"], state["epoch"]
        self.order = state["order"].to(self.device)
        random = state["random"][self.rank]
        torch.set_rng_state(random["cpu"])
        if "device" in random:
            torch.get_device_module(self.device).set_rng_state(random["device"])

    def autocast(self) -> torch.autocast:
        """A context in which matmuls have the precision of this run; weights are cast once in each."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One update of the parameters. Returns the loss and the gradient's norm before clipping, on the device."""
        config = self.config
        self.tokens += int(self.over_processes(torch.tensor(y.numel())))
        if config.lr_decay:
            multiplier = learning_rate_multiplier(self.tokens, config.warmup_tokens, config.final_tokens)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["highest_lr"] * multiplier
        self.steps += 1
        total = self.backward(self.parts(x, y, self.train_dataset))
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_norm_clip)
        self.last = self.over_processes(total), norm
        if self.device.type == "cpu":
            self.check_finite()  # before the parameters are spoiled; a GPU would have to wait for it
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return self.last

    def backward(self, parts: list[tuple[Tensor, Tensor, Tensor | float]]) -> Tensor:
        """Leaves the gradients of a batch, given in parts, in the model's parameters. Returns its loss."""
        if not self.twins:
            return self.backward_of(self.parallel, parts)
        for twin in self.twins:
            twin.train(self.model.training)
            twin.generator.manual_seed(int(torch.randint(2**63 - 1, ())))
        models = [self.model, *self.twins]
        losses = list(self.pool.map(self.backward_of, models, evenly(parts, len(models))))
        for parameter, *others in zip(*(model.parameters() for model in models), strict=True):
            for other in others:
                if other.grad is not None:  # else the thread had no part
                    parameter.grad += other.grad
                    other.grad = None
        return sum(losses)

    def backward_of(self, model: nn.Module, parts: list[tuple[Tensor, Tensor, Tensor | float]]) -> Tensor:
        """Adds the gradients of the parts to those of the model's parameters. Returns the sum of the losses."""
        total = torch.zeros((), device=self.device)
        with self.autocast():
            for number, (x, y, share) in enumerate(parts, 1):
                exchange = number == len(parts) or self.world_size == 1
                with nullcontext() if exchange else model.no_sync():
                    loss = model(x, y)[1] * share
                    (loss * self.world_size).backward()  # which DistributedDataParallel divides by
                total += loss.detach()
        return total

    def check_finite(self) -> None:
        """Raises FloatingPointError when the last step's loss or gradient norm is infinite or not a number."""
        loss, norm = self.last
        if not (math.isfinite(loss) and math.isfinite(norm)):
            lr = self.optimizers[0].param_groups[0]["lr"]
            raise FloatingPointError(
                f"step {self.steps}, learning rate {lr:.2e}: loss {float(loss)}, gradient norm {float(norm)}"
            )

    @torch.no_grad()
    def test_loss(self) -> float:
        """The mean loss over the batches of the test dataset, without dropout."""
        self.model.eval()
        losses = []
        for x, y in self.batches(self.test_dataset, torch.arange(len(self.test_dataset), device=self.device)):
            with self.autocast():
                parts = self.parts(x, y, self.test_dataset)
                losses.append(sum(self.model(part_x, part_y)[1] * share for part_x, part_y, share in parts))
        return float(self.over_processes(torch.stack(losses).mean()))

    def train(self) -> None:
        """Runs config.max_epochs epochs, each over every pair once in a new order; or what is left of them."""
        n = len(self.train_dataset)
        bar = tqdm(
            total=self.config.max_epochs * math.ceil(n / self.config.batch_size),
            initial=self.steps,
            unit="step",
            dynamic_ncols=True,
            disable=self.rank > 0,
        )
        self.ceiling = self.world_size * matmul_ceiling(self.device, self.dtype)
        with bar:
            self.run_epochs(bar, n)

    def run_epochs(self, bar: tqdm, n: int) -> None:
        """train() under a progress bar, over n pairs."""
        shown_at, done = time.perf_counter(), torch.zeros(2, dtype=torch.int64, device=self.device)
        while self.epoch < self.config.max_epochs:
            self.model.train()
            bar.set_description(f"epoch {self.epoch + 1}/{self.config.max_epochs}", refresh=False)
            if not len(self.order):
                self.order = self.new_order(n)
            for x, y in self.batches(self.train_dataset, self.order):
                loss, norm = self.step(x, y)
                self.order = self.order[self.config.batch_size :]
                lengths = x.reshape(len(x), -1).count_nonzero(dim=1)  # (B,), without padding
                done += torch.stack((lengths.sum(), training_flops(self.matmul_weights, lengths)))
                bar.update()
                if time.perf_counter() - shown_at > 1.0 or self.steps == bar.total:
                    self.check_finite()  # a GPU has to wait for it, so seldom, and then has done what is counted
                    now = time.perf_counter()
                    rates = (self.world_size * done / (now - shown_at)).tolist()
                    self.report(bar, float(loss), float(norm), *rates)
                    shown_at, done = now, torch.zeros_like(done)
                if not len(self.order) and self.end_epoch(bar):
                    shown_at, done = time.perf_counter(), torch.zeros_like(done)  # what it took is no training time
                for function in self.on_step_end:
                    function(self)

    def new_order(self, n: int) -> Tensor:
        """A permutation of n rows, the same in all processes."""
        order = torch.randperm(n, device=self.device)
        if self.world_size > 1:
            dist.broadcast(order, src=0)
        return order

    def end_epoch(self, bar: tqdm) -> bool:
        """Counts the epoch and reports what is measured after each; False when that is nothing."""
        self.epoch += 1
        figures = {} if self.test_dataset is None else {"test loss": self.test_loss()}
        for function in self.on_epoch_end:
            figures |= function(self)
        for name, value in figures.items():
            if self.rank == 0:
                bar.write(f"epoch {self.epoch}: {name} {value:.4g}")
            self.log(name, value)
        return bool(figures)

    def report(self, bar: tqdm, loss: float, norm: float, tokens_per_second: float, flops_per_second: float) -> None:
        """Shows the state of the run in the bar and in TensorBoard.

        The share of the ceiling is model FLOPs utilization (Chowdhery et al. 2022, appendix B, but for attention's own
        products) of what this machine's largest matmuls reach; padding counts for nothing.
        """
        lr = self.optimizers[0].param_groups[0]["lr"]
        mfu = 100 * flops_per_second / self.ceiling
        bar.set_postfix_str(
            f"loss {loss:.3f}, lr {lr:.2e}, {tokens_per_second / 1000:.1f}k tokens/s, {mfu:.0f} % of the ceiling"
        )
        figures = {
            "loss": loss,
            "learning rate": lr,
            "gradient norm": norm,
            "tokens per second": tokens_per_second,
            "MFU (%)": mfu,
        }
        for name, value in figures.items():
            self.log(name, value)

    def log(self, name: str, value: float) -> None:
        """One point of a TensorBoard curve; where it cannot be written the curves end, and training goes on."""
        if self.config.writer is not None:
            try:
                self.config.writer.add_scalar(name, value, self.steps)
            except OSError as error:  # a full disk
                print(f"\n{error.strerror or error}: TensorBoard's curves end; training goes on", file=sys.stderr)
                self.config.writer = None
