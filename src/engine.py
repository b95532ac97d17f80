"""Forward and backward of a batch, on a CPU or a GPU, in one process or several.

On a GPU: autocast and torch.compile. On a CPU: short micro-batches, and one replica of the model per thread.
"""

import ctypes
import inspect
import math
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.nn as nn
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils._triton import has_triton
from torch.utils.data import Dataset

from optim import parameter_groups
from recipe import PAD

if TYPE_CHECKING:  # trainer imports this module
    from trainer import TrainerConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
STEPS_WORTH_COMPILING = 8000  # an estimate: shorter runs save less time than torch.compile takes
# (min, max) rows: fewer make matmuls slow; more rows are padded to one length, which costs most in fp32
CPU_MICRO_BATCH_ROWS = {torch.bfloat16: (8, 16), torch.float32: (8, 8)}
# each new shape costs bf16 matmuls extra time and memory, so lengths and numbers of targets are rounded up
CPU_LENGTH_MULTIPLE = {torch.bfloat16: 8, torch.float32: 2}
CPU_TARGETS_MULTIPLE = {torch.bfloat16: 128, torch.float32: 1}

MicroBatch = tuple[Tensor, Tensor, Tensor | float]  # x, y, and its share of the targets of the whole batch


def configure_torch() -> None:
    """Sets all process-wide switches. Call it once, before training or answering."""
    torch.backends.cuda.enable_cudnn_sdp(False)  # this kernel does not support the perceiver's shared query
    keep_freed_memory()
    if torch.cuda.is_available():  # importing torch._dynamo takes a second
        torch._dynamo.config.suppress_errors = True  # a model that does not compile runs uncompiled, after a warning
        with suppress(AttributeError):  # a version that does not have it
            # compile the backward with the forward, where errors are suppressed; later, an error would end the run
            torch._functorch.config.force_non_lazy_backward_lowering = True
        torch._dynamo.config.optimize_ddp = False  # overlaps computing and exchange; not worth it for small models


def keep_freed_memory() -> None:
    """Tells glibc, if that is the C library, to keep the memory that a step frees, for all threads of the next step.

    Returning it to the system causes thousands of page faults per step. If each thread kept its own, the process
    would grow by 100 MB.
    """
    with suppress(OSError, AttributeError, TypeError):  # no glibc
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # M_TRIM_THRESHOLD and so on, of malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30) or mallopt(mmap_threshold, 2**25)  # 2**25 is the maximum before glibc 2.35
        mallopt(arena_max, 1)


def pick_device(name: str) -> torch.device:
    """The device of that name; auto is a CUDA GPU, else the CPU. Raises ValueError if there is none."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = "cuda" if available["cuda"] else "cpu"  # nobody has tried MPS yet
    if not available[name]:
        raise ValueError(f"this machine, or this build of torch, has no {name} device")
    return torch.device(name)


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch raises this when the memory of any device is used up."""
    messages = ("out of memory", "allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, MemoryError) or any(message in str(error) for message in messages)


def pick_precision(name: str, device: torch.device) -> str:
    """fp32 or bf16: the precision of matmuls in training. auto is bf16 on CUDA GPUs and CPUs where it is faster."""
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and cpu_is_faster_in_bf16()
    return "bf16" if fast else "fp32"


def cpu_is_faster_in_bf16() -> bool:
    """Whether matmuls of this CPU are faster in bf16: with AMX, or with AVX-512 BF16, but not Intel's.

    Without AMX, Intel's takes nearly twice as long as fp32: findings/bf16_without_amx.sh.
    """
    has = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch do not have it: fp32 there
    return has.get("amx_bf16", False) or (has.get("avx512_bf16", False) and "Intel" not in has.get("cpu_name", "Intel"))


def trimmed_micro_batches(x: Tensor, y: Tensor, rows: int, multiple: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Splits a batch (B, T) into micro-batches of `rows` rows of similar length, cut off after the last target.

    In a causal model the columns after the last target change nothing: loss and gradients are those of the batch, for
    about half the arithmetic. Lengths are rounded up to a `multiple`.
    """
    columns = torch.arange(1, y.size(1) + 1, device=y.device)  # (T,)
    lengths = ((y != PAD) * columns).amax(dim=1)  # (B,)
    for part in lengths.argsort(stable=True).split(rows):
        longest = int(lengths[part[-1]])  # they are sorted
        T = min(y.size(1), math.ceil(longest / multiple) * multiple)
        if T:  # otherwise these rows have no target
            yield x[part, :T], y[part, :T]


def equal_micro_batches(x: Tensor, y: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Splits a batch (B, T) into micro-batches of `rows` rows, the last one filled up with rows without a target.

    All micro-batches have one shape, so torch.compile runs once; loss and gradients are those of the batch.
    """
    missing = -len(x) % rows
    x, y = F.pad(x, (0, 0, 0, missing)), F.pad(y, (0, 0, 0, missing), value=PAD)
    yield from zip(x.split(rows), y.split(rows), strict=True)


def balance(parts: list[MicroBatch], n: int) -> list[list[MicroBatch]]:
    """Distributes micro-batches over n lists of similar token counts: largest first, each to the shortest list."""
    lists: list[list[MicroBatch]] = [[] for _ in range(n)]
    tokens = [0] * n
    for part in sorted(parts, key=lambda part: part[0].numel(), reverse=True):
        shortest = tokens.index(min(tokens))
        lists[shortest].append(part)
        tokens[shortest] += part[0].numel()
    return lists


def can_compile() -> bool:
    """Whether Triton is installed with what it needs: a C compiler that it finds, and Python's headers."""
    compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]
    headers = os.path.join(sysconfig.get_path("include"), "Python.h")
    return has_triton() and any(map(shutil.which, compilers)) and os.path.exists(headers)


def compiled(model: nn.Module, device: torch.device, steps: int, accumulates: bool) -> nn.Module:
    """The compiled model, if there is a CUDA GPU and a compiler and the run is long enough; otherwise the model itself.

    Kernels are replayed as a CUDA graph unless gradients accumulate, which would be stored in the graph's memory.
    """
    if device.type != "cuda" or steps < STEPS_WORTH_COMPILING:
        return model
    if not can_compile():
        print("no Triton, C compiler or Python.h found: training runs without torch.compile, slower")
        return model
    return torch.compile(model, mode=None if accumulates else "reduce-overhead", dynamic=False)


def data_parallel(model: nn.Module) -> DistributedDataParallel:
    """The model with gradients averaged over processes. Its buffers are constants, so they are not synchronized."""
    known = inspect.signature(DistributedDataParallel).parameters
    option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # before torch 2.13
    return DistributedDataParallel(model, **{option: False})


def makes_batches(dataset: Dataset) -> bool:
    """Whether a dataset has a method batch(indices) -> (x, y) and makes padded batches itself."""
    return hasattr(dataset, "batch")


class Engine:
    """Computes losses and gradients of batches for a model, called as model(x, y) -> (logits, loss).

    Padded batches are int64 (B, T), with only PAD after the last target of a row. They are split into micro-batches,
    which is correct for a causal model whose loss is the mean over the targets that are not PAD. Other batches are not
    split. On a CPU, if the model has a method replica(), each thread but the first trains a replica on its own
    micro-batches. For a model this small, that is faster than sharing each operation among all threads.

    In a process group (torchrun), each process computes its share of a batch, and gradients are those of the batch.

    micro_batch_rows is the effective micro-batch size, per thread on a CPU.
    """

    def __init__(self, model: nn.Module, train_dataset: Dataset, config: "TrainerConfig") -> None:
        self.rank, self.world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.device = pick_device(config.device)
        self.dtype = DTYPES[pick_precision(config.precision, self.device)]
        self.model = model.to(self.device)
        steps = config.max_epochs * math.ceil(len(train_dataset) / config.batch_size)
        self.wrapped = compiled(model, self.device, steps, accumulates=config.micro_batch_rows > 0)
        if self.world_size > 1:
            self.wrapped = data_parallel(self.wrapped)
        self.replicas: list[nn.Module] = []  # one per extra thread of a CPU
        # a dataset with most_rows() adds rows of its own
        most_rows = getattr(train_dataset, "most_rows", lambda rows: rows)
        if self.device.type == "cpu":
            batch_rows = most_rows(config.batch_size)
            self.divide_among_threads(batch_rows, config.micro_batch_rows, makes_batches(train_dataset))
        else:
            batch_rows = most_rows(math.ceil(min(config.batch_size, len(train_dataset)) / self.world_size))
            self.micro_batch_rows = min(config.micro_batch_rows or batch_rows, batch_rows)

    def divide_among_threads(self, batch_rows: int, micro_batch_rows: int, padded: bool) -> None:
        """Creates one replica per extra CPU thread that a batch has work for, and sets self.micro_batch_rows.

        If micro_batch_rows is 0, each thread gets two micro-batches of a batch, within CPU_MICRO_BATCH_ROWS.
        """
        rows = min(micro_batch_rows, batch_rows)
        least, most = CPU_MICRO_BATCH_ROWS[self.dtype]
        threads = 1
        if self.world_size == 1 and hasattr(self.model, "replica") and padded:
            threads = min(torch.get_num_threads(), math.ceil(batch_rows / (rows or least)))
        self.replicas = [self.model.replica() for _ in range(threads - 1)]
        self.pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self.micro_batch_rows = rows or min(most, max(least, math.ceil(batch_rows / (2 * threads))))

    def backward(self, x: Tensor, y: Tensor, padded: bool) -> Tensor:
        """Adds the gradients of a batch to the model's parameters. Returns its loss, a scalar on the device."""
        parts = self.micro_batches(x, y, padded)
        if not parts and self.world_size > 1:  # on a CPU: no target here, but the others wait for us
            parts = [(x[:1], x[:1].clamp(min=PAD + 1), 0.0)]
        loss = self.backward_in_threads(parts) if self.replicas else self.accumulate(self.wrapped, parts)
        return self.over_processes(loss)

    def share_of_loss(self, x: Tensor, y: Tensor, padded: bool) -> Tensor:
        """This process's share of the loss of a batch; the shares of all processes sum to the loss. No gradients."""
        with torch.no_grad(), self.autocast():
            parts = self.micro_batches(x, y, padded)
            losses = (self.loss_of(self.model, x, y) * share for x, y, share in parts)
            return sum(losses, start=torch.zeros((), device=self.device))

    def micro_batches(self, x: Tensor, y: Tensor, padded: bool) -> list[MicroBatch]:
        """Splits a batch. A share is the part's targets (its rows, if not padded) over those of all processes."""
        if not padded:
            return [(x, y, len(x) / int(self.over_processes(torch.tensor(len(x)))))]
        if self.device.type == "cpu":
            multiple = CPU_LENGTH_MULTIPLE[self.dtype]
            split = trimmed_micro_batches(x, y, self.micro_batch_rows, multiple)
        else:
            split = equal_micro_batches(x, y, self.micro_batch_rows)
        targets = self.over_processes((y != PAD).sum())
        return [(part_x, part_y, (part_y != PAD).sum() / targets) for part_x, part_y in split]

    def backward_in_threads(self, parts: list[MicroBatch]) -> Tensor:
        """accumulate() in the model and its replicas at once, then the gradients summed in the model."""
        for replica in self.replicas:
            replica.train(self.model.training)
            replica.generator.manual_seed(int(torch.randint(2**63 - 1, ())))
        models = [self.model, *self.replicas]
        losses = list(self.pool.map(self.accumulate, models, balance(parts, len(models))))
        for parameter, *others in zip(*(model.parameters() for model in models), strict=True):
            for other in others:
                if other.grad is not None:  # otherwise its thread had no micro-batch
                    parameter.grad += other.grad
                    other.grad = None
        return sum(losses)

    def accumulate(self, model: nn.Module, parts: list[MicroBatch]) -> Tensor:
        """Adds each micro-batch's gradients, times its share, to the model's. Returns the losses, summed likewise."""
        total = torch.zeros((), device=self.device)
        with self.autocast():
            for number, (x, y, share) in enumerate(parts, 1):
                exchange = number == len(parts) or self.world_size == 1
                with nullcontext() if exchange else model.no_sync():
                    loss = self.loss_of(model, x, y) * share
                    (loss * self.world_size).backward()  # DistributedDataParallel divides by world_size
                total += loss.detach()
        return total

    def loss_of(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The loss of model(x, y). On a CPU it is that of model.loss_at_targets(x, y, multiple), if there is one."""
        if not self.uses_loss_at_targets(model):
            return model(x, y)[1]
        return model.loss_at_targets(x, y, CPU_TARGETS_MULTIPLE[self.dtype])

    def uses_loss_at_targets(self, model: nn.Module) -> bool:
        """Whether the model has loss_at_targets(x, y, multiple), and with it skipped_weights(), and is on a CPU.

        A GPU is slow where shapes depend on the data.
        """
        return self.device.type == "cpu" and hasattr(model, "loss_at_targets")

    def autocast(self) -> torch.autocast:
        """A context in which matmuls have the precision of the run; each weight is cast once."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def over_processes(self, value: Tensor, operation: Any = dist.ReduceOp.SUM) -> Tensor:
        """The sum (or another reduction) of a value over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(value, operation)
        return value

    def from_first_process(self, value: Tensor) -> Tensor:
        """Overwrites a value with that of the first process, and returns it."""
        if self.world_size > 1:
            dist.broadcast(value, src=0)
        return value

    def random_states(self) -> list[dict[str, Tensor]]:
        """The states of the random generators of all processes. Every process has to call it."""
        own: dict[str, Tensor] = {"cpu": torch.get_rng_state()}
        if self.device.type != "cpu":
            own["device"] = torch.get_device_module(self.device).get_rng_state()
        states = [own] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(states, own)
        return states

    def set_random_state(self, states: list[dict[str, Tensor]]) -> None:
        """Restores the generators of this process from random_states()."""
        own = states[self.rank]
        torch.set_rng_state(own["cpu"])
        if "device" in own:
            torch.get_device_module(self.device).set_rng_state(own["device"])


def matmul_weights(model: nn.Module) -> list[tuple[int, int]]:
    """Pairs (n, most): n matmul weights apply to at most `most` positions of a row; a model may define its own."""
    if hasattr(model, "matmul_weights"):
        return model.matmul_weights()
    return [(sum(p.numel() for p in parameter_groups(model, 0.0, decay_all=False)[0]["params"]), sys.maxsize)]


def training_flops(weights: list[tuple[int, int]], lengths: Tensor) -> Tensor:
    """The FLOPs of matmuls in a training step on rows of these lengths (B,): a scalar, int64.

    Each of the matmul_weights() takes 2 FLOPs per position forward and 4 backward. Attention's products are left out.
    """
    return 6 * sum(n * lengths.clamp(max=most).sum() for n, most in weights)


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """The FLOP/s of one large matmul on an otherwise idle machine; measuring takes 0.1 to 0.5 s."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.linspace(-1, 1, n * n, device=device).view(n, n).to(dtype)  # random numbers would advance the generators
    least = 0.3 if device.type == "cuda" else 0.0  # a GPU raises its clock under load
    seconds: list[float] = []
    while len(seconds) < 4 or sum(seconds) < least:
        start = time.perf_counter()
        float((a @ a)[0, 0])  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)


class Throughput:
    """Tokens and FLOPs per second since restart(), without padding (id PAD). Counts stay on the device until read."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.weights = matmul_weights(engine.model)
        self.ceiling = engine.world_size * matmul_ceiling(engine.device, engine.dtype)
        self.restart()

    def restart(self) -> None:
        """Starts again from zero."""
        self.started = time.perf_counter()
        self.done = torch.zeros(2, dtype=torch.int64, device=self.engine.device)  # tokens, FLOPs of this process

    def count(self, x: Tensor, y: Tensor) -> None:
        """Adds a step on the batch x, y (B, ...)."""
        lengths = x.reshape(len(x), -1).count_nonzero(dim=1)  # (B,)
        flops = training_flops(self.weights, lengths)
        if self.engine.uses_loss_at_targets(self.engine.wrapped):
            without_target = lengths.sum() - (y != PAD).sum()
            flops -= 6 * self.engine.model.skipped_weights() * without_target
        self.done += torch.stack((lengths.sum(), flops))

    def seconds(self) -> float:
        """How long ago restart() was called."""
        return time.perf_counter() - self.started

    def read(self) -> tuple[float, float]:
        """Tokens per second and MFU in percent, of all processes together; then restarts.

        MFU is model FLOPs utilization (Chowdhery et al. 2022, appendix B, without attention's own products),
        relative to the largest matmuls of this machine.
        """
        tokens, flops = (self.engine.world_size * self.done / self.seconds()).tolist()
        self.restart()
        return tokens, 100 * flops / self.ceiling
