"""How fast training and answering are, beside the plain loop and beside what the machine can do.

python benchmarks/speed.py step        a training step of each variant, the plain loop, and the machine's ceilings
python benchmarks/speed.py recipes     a step of pretraining by course, open and fast, and what a character costs
python benchmarks/speed.py curve       the loss of the plain loop and of ours over the same documents
python benchmarks/speed.py muon        a step of torch.optim.Muon and of ours, with and without oneDNN
python benchmarks/speed.py answers     how long 500 answers, a batch, and run.py --help take
python benchmarks/speed.py lengths     time and memory of a step, for a block_size of 128 to 2048
python benchmarks/speed.py documents   the time to start and to make a batch, for 3 thousand to 3 million documents
python benchmarks/speed.py pretrain    the course's whole pretraining, without and with its start

Prints a table, and appends a record of each of its rows to experiments/speed.jsonl.
"""

import multiprocessing
import platform
import re
import resource
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

try:
    import torch
except ModuleNotFoundError:  # or the virtual environment is not active
    print("speed.py: error: torch is not installed; pip install -r requirements.txt", file=sys.stderr)
    sys.exit(2)

from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

import steps
from answering import answer
from checkpoint import current_commit
from cli import Parser, UserError, dropping_output, exit_on_user_error, positive
from dataset import CharCorruptionDataset, NameDataset
from engine import DTYPES, configure_torch, matmul_ceiling, matmul_weights, pick_device, pick_precision, training_flops
from files import check_folder, read_text
from model import GPT, GPTConfig
from optim import Muon
from plain import PlainGPT, PlainTrainer
from question import COURSE_TEMPLATE, parse_pairs
from recipe import BLOCK_SIZE, RECIPES, VARIANTS, Recipe, Run
from records import Record, append_record, commit_and_note, corpus_name, machine
from steps import Setup, make_trainer, pretraining_config, pretraining_data
from trainer import Trainer, TrainerConfig

RUN = Path(__file__).parents[1] / "src" / "run.py"
FOLDER = Path("experiments")
COURSE = RECIPES["course"]
STEPS_IN_A_TURN = 3
CURVES = 3  # of ours, in each precision
KILLED = "its process was killed, probably for lack of memory"


def model_config(variant: str, documents: CharCorruptionDataset, recipe: Recipe = COURSE) -> GPTConfig:
    """The course's model for these documents, with the recipe's dropout."""
    return steps.model_config(variant, VARIANTS[variant].bottleneck_dim, documents, recipe.dropout)


def trainer_of(
    variant: str,
    documents: CharCorruptionDataset,
    precision: str = "auto",
    recipe: Recipe = COURSE,
    pairs: NameDataset | None = None,
) -> Trainer:
    """A trainer for pretraining by the recipe; `fast` needs the pairs."""
    configure_torch()
    if torch.cuda.is_available():
        torch._dynamo.config.suppress_errors = False  # what does not compile is not to be timed as if it did
    torch.manual_seed(0)
    documents.loss_on_span = recipe.loss_on_span
    setup = Setup(documents, pairs, GPT(model_config(variant, documents, recipe)), COURSE_TEMPLATE)
    run = Run("pretrain", variant, "", recipe, precision=precision)
    return make_trainer(run, setup, pretraining_data(setup, recipe), pretraining_config(recipe))


def plain_trainer_of(documents: CharCorruptionDataset) -> PlainTrainer:
    """The plain loop with the same parameters to begin with."""
    torch.manual_seed(0)
    return PlainTrainer(PlainGPT(model_config("vanilla", documents)), COURSE.pretrain_lr, COURSE.decay_all)


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """How long a call takes, to the end of what it started on a GPU."""
    start = time.perf_counter()
    function()
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()
    return time.perf_counter() - start


def peak_megabytes() -> float:
    """The largest memory this process has had so far."""
    if Path("/proc/self/status").exists():  # on Linux, ru_maxrss counts what the parent had
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def record_of(measured: dict[str, Any], variant: str | None, precision: str | None, by: str = "ours") -> Record:
    """The part of a record that differs from row to row; `by` is the implementation."""
    bottlenecked = variant is not None and VARIANTS[variant].bottleneck
    bottleneck_dim = VARIANTS[variant].bottleneck_dim if bottlenecked else None
    kind = {"variant": variant, "bottleneck_dim": bottleneck_dim, "precision": precision, "implementation": by}
    return kind | {"measured": measured}


def describe_machine(device: torch.device) -> None:
    print(f"{machine(device)}, torch {torch.__version__}, Python {platform.python_version()}")
    precisions = dict.fromkeys(("fp32", pick_precision("auto", device)))  # bf16 takes minutes where it is emulated
    ceilings = (f"{p} {matmul_ceiling(device, DTYPES[p]) / 1e12:.2f} TFLOP/s" for p in precisions)
    print(f"matmul ceiling: {', '.join(ceilings)}")
    a = torch.zeros(2**26, device=device)
    b = torch.empty_like(a)
    copying = min(seconds(lambda: b.copy_(a), device) for _ in range(5))
    print(f"memory: {2 * a.numel() * 4 / copying / 1e9:.0f} GB/s in a copy of {a.numel() * 4 / 1e6:.0f} MB\n")


def take_turns(kind: str, text: str, pipe: Connection) -> None:
    """Times one kind of step, such as "rope, bf16" or "plain loop, fp32", in a process of its own, as a user would have
    it. For each seed of batches that comes through the pipe, sends (seconds, floor) of each step, and for None its
    largest memory.
    """
    documents = CharCorruptionDataset(text, BLOCK_SIZE)
    name, precision = kind.split(", ")
    trainer = plain_trainer_of(documents) if name == "plain loop" else trainer_of(name, documents, precision)
    device = getattr(trainer, "device", torch.device("cpu"))
    weights = matmul_weights(trainer.model)
    with suppress(EOFError, ConnectionError):  # after Ctrl-C, nobody is at the other end
        for seed in iter(pipe.recv, None):
            torch.manual_seed(seed)
            indices = torch.randperm(len(documents), device=device).split(COURSE.pretrain_batch_size)
            turn = [documents.batch(rows) for rows in indices[:STEPS_IN_A_TURN]]
            times = [seconds(lambda b=batch: trainer.step(*b), device) for batch in turn]
            ceiling = matmul_ceiling(device, DTYPES[precision])
            floors = [int(training_flops(weights, x.count_nonzero(dim=1))) / ceiling for x, _ in turn]
            pipe.send(list(zip(times, floors, strict=True))[1:])  # the first one finds the caches cold
        pipe.send(peak_megabytes())


def reply(pipe: Connection, message: int | None, kind: str) -> Any:
    """What the process of take_turns() at the other end answers. Raises UserError if it has ended."""
    try:
        pipe.send(message)
        return pipe.recv()
    except (EOFError, OSError):
        raise UserError(f"{kind}: {KILLED}") from None


def step(text: str, rounds: int) -> Iterator[Record]:
    """One row a kind of step; all take turns on the same batches, so that other load falls on all of them."""
    device = pick_device("auto")
    best = pick_precision("auto", device)
    kinds = [f"{variant}, {best}" for variant in VARIANTS]
    if device.type == "cpu":
        kinds += ["plain loop, fp32"] if best == "fp32" else ["vanilla, fp32", "plain loop, fp32"]
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C is for this process alone
    for kind in kinds:
        pipes[kind], theirs = context.Pipe()
        context.Process(target=take_turns, args=(kind, text, theirs), daemon=True).start()
        theirs.close()  # so that the end of the process is noticed
    signal.signal(signal.SIGINT, handler)
    measured: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for seed in tqdm(range(rounds + 1), unit="round", leave=False):
        for kind, pipe in pipes.items():
            turn = reply(pipe, seed, kind)
            measured[kind] += turn if seed else []  # the first turn warms up
    print(f"{'a step of 128 documents':26}{'seconds':>9}{'floor':>9}{'times':>7}{'documents/s':>13}", end="")
    print(f"{'as fast as plain':>18}{'process MB':>12}" if device.type == "cpu" else "")
    medians = {kind: statistics.median(one for one, _ in measured[kind]) for kind in kinds}
    for kind in kinds:
        floor = statistics.median(floor for _, floor in measured[kind])
        ratio = statistics.median(one / floor for one, floor in measured[kind])
        speed = COURSE.pretrain_batch_size / medians[kind]
        print(f"{kind:26}{medians[kind]:9.3f}{floor:9.3f}{ratio:7.2f}{speed:13.0f}", end="")
        figures = {"seconds": round(medians[kind], 3), "floor_seconds": round(floor, 3)}
        figures |= {"times_floor": round(ratio, 2), "documents_per_second": round(speed)}
        if device.type == "cpu":
            as_fast, megabytes = medians["plain loop, fp32"] / medians[kind], reply(pipes[kind], None, kind)
            print(f"{as_fast:18.1f}{megabytes:12.0f}", end="")
            figures |= {"times_as_fast_as_plain": round(as_fast, 1), "process_mb": round(megabytes)}
        print()
        name, precision = kind.split(", ")
        plain = name == "plain loop"
        yield record_of(figures, "vanilla" if plain else name, precision, "plain" if plain else "ours")
    print("\nfloor: 6 FLOP per matmul weight and position without padding, at the ceiling measured at that moment")


def recipes(text: str, pairs_path: str, rounds: int) -> Iterator[Record]:
    """A step of each recipe, its batch included. They take turns, so that other load falls on all of them."""
    device = pick_device("auto")
    pairs, trainers = parse_pairs(read_text(pairs_path), pairs_path), {}
    for name in ("course", "open", "fast"):
        documents = CharCorruptionDataset(text, BLOCK_SIZE)
        names = NameDataset(documents, pairs, pairs_path)
        trainers[name] = trainer_of("vanilla", documents, recipe=RECIPES[name], pairs=names)
    measured: dict[str, list[tuple[float, int]]] = {name: [] for name in trainers}  # seconds, characters
    for turn in tqdm(range(STEPS_IN_A_TURN * rounds + 1), unit="turn", leave=False):
        for name, trainer in trainers.items():
            rows = torch.randperm(len(trainer.train_dataset), device=device)[: trainer.config.batch_size]
            torch.manual_seed(turn)
            characters = int(trainer.train_dataset.batch(rows)[0].count_nonzero())
            torch.manual_seed(turn)  # the same batch
            took = seconds(lambda t=trainer, r=rows: t.step(*t.train_dataset.batch(r)), device)
            measured[name] += [(took, characters)] if turn else []  # the first turn warms up
    each = {name: [1e6 * took / characters for took, characters in steps] for name, steps in measured.items()}
    print(f"{'recipe':10}{'documents':>10}{'characters':>12}{'seconds':>9}{'us a character':>16}{'of course':>11}")
    for name, trainer in trainers.items():
        took, characters = map(statistics.median, zip(*measured[name], strict=True))
        ratio = statistics.median(one / course for one, course in zip(each[name], each["course"], strict=True))
        documents, per_character = trainer.config.batch_size, statistics.median(each[name])
        print(f"{name:10}{documents:10}{characters:12.0f}{took:9.3f}{per_character:16.1f}{ratio:11.2f}")
        figures = {"recipe": name, "documents": documents, "characters": round(characters), "seconds": round(took, 3)}
        figures |= {"microseconds_per_character": round(per_character, 1), "times_course": round(ratio, 2)}
        yield record_of(figures, "vanilla", pick_precision("auto", device))


def muon(documents: CharCorruptionDataset, rounds: int) -> Iterator[Record]:
    """A step of Muon on the vanilla model's matrices, on the CPU. Without oneDNN is how torch multiplies bf16 without
    AVX-512."""
    device = torch.device("cpu")
    model = GPT(model_config("vanilla", documents))
    for p in model.hidden_matrices():
        p.grad = torch.randn_like(p)
    optimizers = {
        "torch.optim.Muon, bf16": torch.optim.Muon(model.hidden_matrices(), lr=0.02),
        "ours, bf16": Muon(model.hidden_matrices(), 0.02, 0.1, torch.bfloat16),
        "ours, fp32": Muon(model.hidden_matrices(), 0.02, 0.1, torch.float32),
    }
    print(f"{'ms a step':26}{'with oneDNN':>13}{'without':>10}")
    times: dict[tuple[str, bool], list[float]] = {}
    for _ in tqdm(range(rounds + 1), unit="round", leave=False):
        for name, optimizer in optimizers.items():
            for enabled in (True, False):
                with torch.backends.mkldnn.flags(enabled=enabled):
                    times.setdefault((name, enabled), []).append(seconds(optimizer.step, device))
    for name in optimizers:
        # the first round warms up
        with_onednn, without = (1000 * statistics.median(times[name, enabled][1:]) for enabled in (True, False))
        print(f"{name:26}{with_onednn:13.1f}{without:10.1f}")
        by, precision = name.split(", ")
        milliseconds = {"milliseconds": round(with_onednn, 1), "milliseconds_without_onednn": round(without, 1)}
        yield record_of(milliseconds, "vanilla", precision, by)


def curve(documents: CharCorruptionDataset, steps: int) -> Iterator[Record]:
    """The loss of both loops on the same batches, the plain one on the CPU.

    Ours runs CURVES times in each precision. These runs differ only in their dropout, so their spread is its noise.
    """
    device = pick_device("auto")
    precisions = ["fp32", "bf16"] if pick_precision("auto", device) == "bf16" else ["fp32"]
    plain = plain_trainer_of(documents)
    ours = [trainer_of("vanilla", documents, precision) for precision in precisions for _ in range(CURVES)]
    losses: list[list[float]] = []  # of each step: the plain loop's, then of each of ours
    points: list[list[float]] = []  # of each row: steps, the plain loop's mean, then of ours means and their spreads
    print(f"means over the steps since the row before; of ours the mean of {CURVES} runs and their standard deviation")
    print(f"{'steps':>8}{'plain, fp32':>15}" + "".join(f"{'ours, ' + precision:>15}" for precision in precisions))
    with tqdm(total=steps, unit="step", leave=False) as bar:
        while len(losses) < steps:
            order = torch.randperm(len(documents), device=device)
            for x, y in islice(ours[0].batches(documents, order), steps - len(losses)):
                all_of_ours = [float(trainer.step(x, y)[0]) for trainer in ours]
                for group in plain.optimizer.param_groups:
                    group["lr"] = ours[0].optimizers[0].param_groups[0]["lr"]
                losses.append([float(plain.step(x.cpu(), y.cpu())[0]), *all_of_ours])
                bar.update()
                if len(losses) % 20 == 0 or len(losses) == steps:
                    points.append([len(losses), *means_over(losses[(len(losses) - 1) // 20 * 20 :])])
                    done, of_plain, *of_ours = points[-1]
                    pairs = zip(of_ours[::2], of_ours[1::2], strict=True)
                    bar.write(
                        f"{done:8}{of_plain:15.3f}" + "".join(f"{mean:9.3f} {spread:5.3f}" for mean, spread in pairs)
                    )
    at, of_plain, *of_ours = zip(*points, strict=True)
    yield record_of({"loss": curve_of(at, of_plain)}, "vanilla", "fp32", "plain")
    for precision, means, spreads in zip(precisions, of_ours[::2], of_ours[1::2], strict=True):
        measured = {"loss": curve_of(at, means), "spread": curve_of(at, spreads), "runs": CURVES}
        yield record_of(measured, "vanilla", precision)


def curve_of(at: Sequence[int], values: Sequence[float]) -> list[list[float]]:
    """[[steps, value], ...], rounded."""
    return [[steps, round(value, 3)] for steps, value in zip(at, values, strict=True)]


def means_over(losses: list[list[float]]) -> list[float]:
    """The mean over these steps of the plain loop, and of ours by precision, each with the spread of its runs."""
    plain, *ours = map(statistics.mean, zip(*losses, strict=True))
    by_precision = [ours[first : first + CURVES] for first in range(0, len(ours), CURVES)]
    return [plain, *(figure for runs in by_precision for figure in (statistics.mean(runs), statistics.stdev(runs)))]


def answers(documents: CharCorruptionDataset, questions_path: str) -> Iterator[Record]:
    """What a user waits for besides training. The model has learned to end its answers, from the questions alone."""
    device = pick_device("auto")
    trainer = trainer_of("vanilla", documents)
    names = trainer.train_dataset = NameDataset(documents, read_text(questions_path), questions_path)
    trainer.config.max_epochs = 10
    trainer.train()
    questions = [question for question, _ in names.data]
    answer(trainer.model, documents, questions[:10])  # warms up
    took = seconds(lambda: answer(trainer.model, documents, questions), device)
    print(f"answering {len(questions)} questions: {took:.2f} s")
    indices = torch.arange(min(COURSE.pretrain_batch_size, len(documents)), device=device)
    batch = min(seconds(lambda: documents.batch(indices), device) for _ in range(50))
    print(f"making a batch of {len(indices)}: {1000 * batch:.2f} ms")
    measured = {"questions": len(questions), "seconds": round(took, 2), "batch_of_128_ms": round(1000 * batch, 2)}
    for name, words in (("help_seconds", ["--help"]), ("usage_error_seconds", ["pretrain", "vanilla", "no such file"])):
        run = min(
            seconds(lambda words=words: subprocess.run([sys.executable, RUN, *words], capture_output=True), device)
            for _ in range(3)
        )
        print(f"run.py {' '.join(words)}: {run:.2f} s")
        measured[name] = round(run, 2)
    yield record_of(measured, "vanilla", "fp32")  # answers are always decoded in fp32


def time_pretraining(documents: CharCorruptionDataset, epochs: int) -> tuple[float, float]:
    """The seconds of so many epochs of the course's pretraining, and of one before, in which a GPU's kernels are
    compiled."""
    trainer = trainer_of("vanilla", documents)
    trainer.config.max_epochs = epochs
    order = torch.arange(len(documents), device=trainer.device)
    first = seconds(lambda: [trainer.step(*batch) for batch in trainer.batches(documents, order)], trainer.device)
    trainer.steps = trainer.tokens = 0
    return seconds(trainer.train, trainer.device), first


def pretrain(documents: CharCorruptionDataset, epochs: int) -> Iterator[Record]:
    """A whole pretraining. An epoch before it, in which a GPU's kernels are compiled, is timed separately."""
    device = pick_device("auto")
    start = time.perf_counter()
    training, first = time_pretraining(documents, epochs)
    total = time.perf_counter() - start
    print(f"{epochs} epochs: {training:.0f} s")
    print(f"with the start and an epoch before them, which took {first:.0f} s: {total:.0f} s")
    measured = {
        "epochs": epochs,
        "seconds": round(training),
        "first_seconds": round(first),
        "total_seconds": round(total),
    }
    yield record_of(measured, "vanilla", pick_precision("auto", device))


class Blocks(Dataset):
    """Blocks full of random characters."""

    def __init__(self, rows: int, block_size: int) -> None:
        self.ids = torch.randint(2, 256, (rows, block_size))

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.ids.to(indices.device)[indices]
        return rows[:, :-1], rows[:, 1:]


def step_of_blocks(variant: str, block_size: int, rows: int) -> tuple[float, float]:
    """The seconds of a step on full blocks, and the megabytes that it took beyond what was there before."""
    configure_torch()
    torch.manual_seed(0)
    model = GPT(GPTConfig(256, block_size, variant=variant, bottleneck_dim=VARIANTS[variant].bottleneck_dim))
    trainer = Trainer(model, Blocks(rows, block_size), None, TrainerConfig(batch_size=rows))
    trainer.model.train()
    x, y = trainer.train_dataset.batch(torch.arange(rows, device=trainer.device))
    on_gpu = trainer.device.type == "cuda"
    before = torch.cuda.memory_allocated() / 1e6 if on_gpu else peak_megabytes()
    took = min(seconds(lambda: trainer.step(x, y), trainer.device) for _ in range(4))
    return took, (torch.cuda.max_memory_allocated() / 1e6 if on_gpu else peak_megabytes()) - before


def lengths(rows: int) -> Iterator[Record]:
    """A step on full blocks of every length, the number of rows the same."""
    device = pick_device("auto")
    variants = ("vanilla", "synthesizer", "perceiver")
    print(f"{'block_size':>10}" + "".join(f"{variant + ' s':>15}{'MB':>8}" for variant in variants))
    for block_size in (128, 256, 512, 1024, 2048):
        print(f"{block_size:10}", end="")
        for variant in variants:
            took, megabytes = in_a_process(step_of_blocks, variant, block_size, rows)
            print(f"{took:15.3f}{megabytes:8.0f}", end="", flush=True)
            figures = {"block_size": block_size, "rows": rows, "seconds": round(took, 3), "mb": round(megabytes)}
            yield record_of(figures, variant, pick_precision("auto", device))
        print()


def start_of_documents(text: str, count: int) -> tuple[float, float, float, float]:
    """The megabytes of `count` documents, the seconds until they are a dataset, its memory, and a batch's seconds."""
    documents = [document for document in text.split("\n") if document]
    long = "\n".join(documents[i % len(documents)] for i in range(count))
    before = peak_megabytes()
    start = time.perf_counter()
    dataset = CharCorruptionDataset(long, BLOCK_SIZE)
    took = time.perf_counter() - start
    memory = peak_megabytes() - before
    order = torch.randperm(len(dataset)).split(COURSE.pretrain_batch_size)
    batch = statistics.median(seconds(lambda rows=rows: dataset.batch(rows), rows.device) for rows in order[:23])
    return len(long.encode()) / 1e6, took, memory, batch


def documents_sweep(text: str) -> Iterator[Record]:
    """The text over and over, up to 3 million documents."""
    print(f"{'documents':>10}{'text MB':>9}{'start s':>9}{'ms a MB':>9}{'memory MB':>11}{'MB a MB':>9}{'batch ms':>10}")
    for count in (3_000, 30_000, 300_000, 3_000_000):
        size, took, memory, batch = in_a_process(start_of_documents, text, count)
        print(f"{count:10}{size:9.1f}{took:9.2f}{1000 * took / size:9.1f}{memory:11.0f}{memory / size:9.1f}", end="")
        print(f"{1000 * batch:10.2f}", flush=True)
        figures = {"documents": count, "text_mb": round(size, 1), "start_seconds": round(took, 2)}
        figures |= {
            "ms_per_mb": round(1000 * took / size, 1),
            "memory_mb": round(memory),
            "batch_ms": round(1000 * batch, 2),
        }
        yield record_of(figures, None, None)


def in_a_process(function: Callable, *arguments: object) -> Any:
    """What the function returns in a new process, whose memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            print()
            raise UserError(f"{function.__name__}: {KILLED}") from None


MEASUREMENTS = re.findall(r"speed\.py (\w+)", __doc__)
# each option: the measurements that use it, its default, and what it is
OPTIONS = {
    "corpus_path": ([what for what in MEASUREMENTS if what != "lengths"], "wiki.txt", "the pretraining text"),
    "steps": (["curve"], 300, "the number of steps"),
    "rounds": (["step", "recipes", "muon"], 7, "the number of rounds"),
    "rows": (["lengths"], 4, "the rows of a batch"),
    "epochs": (["pretrain"], COURSE.pretrain_epochs, "the number of epochs"),
    "pairs_path": (["recipes"], "birth_places_train.tsv", "the pairs"),
    "questions_path": (["answers"], "birth_dev.tsv", "the questions"),
}


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("what", choices=MEASUREMENTS)
    for name, (uses, default, text) in OPTIONS.items():
        kind = positive(int) if isinstance(default, int) else str
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{', '.join(uses)}: {text}")
    arguments = parser.parse_args()
    for name, (uses, default, _) in OPTIONS.items():
        if arguments.what not in uses and getattr(arguments, name) != default:
            parser.error(f"--{name} has no effect on {arguments.what}")
    configure_torch()  # before the first matmul
    text, documents, corpus = None, None, None
    if arguments.what in OPTIONS["corpus_path"][0]:
        text = read_text(arguments.corpus_path)
        documents = CharCorruptionDataset(text, BLOCK_SIZE, arguments.corpus_path)
        corpus = corpus_name(Path(arguments.corpus_path).resolve().parent)
    if arguments.what == "step" and len(documents) <= COURSE.pretrain_batch_size:
        parser.error(f"--corpus_path {arguments.corpus_path}: has no second batch; give more than 128 lines")
    measurements = {
        "step": lambda: step(text, arguments.rounds),
        "recipes": lambda: recipes(text, arguments.pairs_path, arguments.rounds),
        "curve": lambda: curve(documents, arguments.steps),
        "muon": lambda: muon(documents, arguments.rounds),
        "answers": lambda: answers(documents, arguments.questions_path),
        "lengths": lambda: lengths(arguments.rows),
        "documents": lambda: documents_sweep(text),
        "pretrain": lambda: pretrain(documents, arguments.epochs),
    }
    check_folder(FOLDER, "start from another folder")
    FOLDER.mkdir(exist_ok=True)
    device = torch.device("cpu") if arguments.what == "muon" else pick_device("auto")
    describe_machine(device)
    common = commit_and_note(current_commit()) | {
        "machine": machine(device),
        "experiment": arguments.what,
        "command": shlex.join(["python", *sys.argv]),
        "corpus": corpus,
    }
    records = FOLDER / "speed.jsonl"
    with dropping_output():  # under nohup, a closed terminal must not cost the records
        for row in measurements[arguments.what]():
            append_record(str(records), common | row)
        print(f"Recorded in {records}")


if __name__ == "__main__":
    exit_on_user_error(main)
