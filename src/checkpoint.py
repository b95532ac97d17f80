"""The files of a training run: its parameters, a record of how they were made, and its state until it is finished.

Params files are plain state_dicts under the course's names. Reading a file never runs code from it.
"""

import hashlib
import io
import json
import math
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from attention import causal_mask, standard_rope_cache
from cli import Stopped, UserError, heeded_signals
from dataset import CharCorruptionDataset
from engine import is_out_of_memory
from files import OutputFiles, atomic_write, file_hash, read_bytes, write_text
from inputs import Inputs
from model import GPT, WIRINGS, GPTConfig, evaluating
from recipe import MASK, PAD, VARIANTS, Run
from trainer import Trainer

TIME = "%Y%m%d-%H%M%S"

MIN_LOSS_GAP = 0.05  # nats per character: a smaller difference of losses decides nothing
WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # what DataParallel and torch.compile put before a name


def save_tensors(value: Any, path: str) -> None:
    """torch.save that replaces `path` in one step. Raises UserError."""
    buffer = io.BytesIO()  # torch.save would raise an error of its own for a full disk
    torch.save(value, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def read_tensors(path: str, advice: str) -> Any:
    """torch.load of tensors and plain values, on the CPU; never runs code. Raises UserError that ends in `advice`."""
    try:
        with warnings.catch_warnings():  # about unusual pickles, which are refused below
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {advice}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # torch.load raises many kinds of exceptions for other files
        if is_out_of_memory(error):
            raise UserError(f"{path}: does not fit in memory; close other programs, and try again") from None
        raise UserError(f"{path}: not a complete file of plain tensors; {advice}") from None


def save_params(model: GPT, path: str, record: dict[str, Any] | None = None) -> None:
    """Writes the model's state_dict, on the CPU, to `path`, and the record to `path`.json. Raises UserError."""
    save_tensors({name: value.cpu() for name, value in model.state_dict().items()}, path)
    if record is not None:
        write_text(OutputFiles(path).record, json.dumps(record | {"sha256": file_hash(path)}, indent=2) + "\n")


def text_hash(text: str) -> str:
    """The SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def current_commit() -> str:
    """The commit of this code, with "-dirty" if files but the records in results/ differ from it; "unknown" if git
    cannot say.
    """
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        diff = [*git, "diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude)results"]
        changed = subprocess.run(diff, capture_output=True)
        return f"{commit}-dirty" if changed.returncode else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def record_of(
    run: Run, inputs: Inputs, documents: CharCorruptionDataset, config: GPTConfig, processes: int
) -> dict[str, Any]:
    """What OUTPUT.json says: the run with all settings, the hashes of what it read, and where it ran."""
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    nodes = [f"--nnodes={processes // per_node}", "..."] if processes > per_node else []
    launcher = [sys.executable] if processes == 1 else ["torchrun", *nodes, f"--nproc_per_node={per_node}"]
    return {
        **asdict(run),
        "bottleneck_dim": run.bottleneck_dim if VARIANTS[run.variant].bottleneck else None,
        "wiring": config.wiring if VARIANTS[run.variant].bottleneck else None,
        "epochs": run.epochs,
        "processes": processes,
        "vocabulary": vocabulary_hash(documents),
        "text": text_hash(inputs.text),
        "pairs": None if inputs.pairs is None else text_hash(repr(inputs.pairs)),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        "commit": current_commit(),
        "command": shlex.join([*launcher, *sys.argv]),
        "started": time.strftime(TIME),
    }


def read_params(path: str) -> dict[str, Tensor]:
    """The state_dict in a params file, on the CPU, without wrappers' prefixes. Raises UserError; never runs code."""
    state = read_tensors(path, "pretrain or finetune writes one with --writing_params_path")
    if not isinstance(state, dict) or not all(isinstance(n, str) and isinstance(v, Tensor) for n, v in state.items()):
        raise UserError(f"{path}: not a params file; one holds the names and tensors of a state_dict")
    state = {WRAPPERS.sub("", name): value for name, value in state.items()}
    for name, value in state.items():
        try:
            finite = bool(value.isfinite().all())
        except (NotImplementedError, RuntimeError):
            raise UserError(f"{path}: {name} is sparse, quantized or the like; save it as a plain tensor") from None
        if not finite:
            raise UserError(f"{path}: {name} holds values that are not finite; train again")
    return state


def read_record(path: str) -> dict[str, Any]:
    """The record of the params file `path`, from `path`.json; {} if there is none or it describes other parameters."""
    json_path = OutputFiles(path).record
    if not os.path.exists(json_path):
        return {}
    content = read_bytes(json_path)
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{json_path}: not the record of a params file; rename it to use the parameters without it")
    if record.get("sha256") != file_hash(path):
        print(f"warning: {json_path} does not belong to {path}; it is not used", file=sys.stderr)
        return {}
    return record


def trained_as(state: dict[str, Tensor]) -> dict[str, str | int]:
    """The variant, vocab_size, block_size and bottleneck_dim that a state_dict was trained with, as far as it shows."""
    found: dict[str, str | int] = {}
    if any(name.startswith("down_block.") for name in state):
        found["variant"] = "perceiver"
        if "down_block.C" in state and state["down_block.C"].dim() == 3:
            found["bottleneck_dim"] = state["down_block.C"].size(1)
    elif "blocks.0.attn.w2" in state:
        found["variant"] = "synthesizer"
    elif "blocks.0.attn.query.weight" in state:
        found["variant"] = "vanilla" if "pos_emb" in state else "rope"
    if "tok_emb.weight" in state and state["tok_emb.weight"].dim() == 2:
        found["vocab_size"] = len(state["tok_emb.weight"])
    if "pos_emb" in state and state["pos_emb"].dim() == 3:
        found["block_size"] = state["pos_emb"].size(1)
    return found


def load_params(model: GPT, path: str, corpus_path: str, documents: CharCorruptionDataset) -> dict[str, Any]:
    """Reads a params file into the model with fill(), and returns its record.

    A file without a record may come from other code, so choose_by_loss() runs, and a warning is printed if the model
    predicts the text no better than the last character does.
    """
    record = fill(model, path, corpus_path, documents)
    if not record:
        choose_by_loss(model, path, corpus_path, documents)
        loss, guess = loss_on(documents, model), loss_of_bigrams(documents)
        if not loss < guess:
            print(
                f"warning: {path}: predicts {corpus_path} no better than the last character alone does (a loss of "
                f"{loss:.2f}, compared with {guess:.2f}); if it was pretrained on this text, evaluate it with the code "
                "that trained it",
                file=sys.stderr,
            )
    return record


# what to say of a file that was trained with another value of a field of GPTConfig
MISMATCHES = {
    "variant": "was trained as {value}, not {wanted}; give '{value}'",
    "vocab_size": "was trained on a vocabulary of {value} characters, but {text} has {wanted}; give the text that it "
    "was pretrained on",
    "bottleneck_dim": "was trained with --bottleneck_dim {value}, not {wanted}; give that option",
    "block_size": "has block_size {value}, but this project uses {wanted}",
}


def fill(model: GPT, path: str, corpus_path: str, documents: CharCorruptionDataset) -> dict[str, Any]:
    """Reads a params file into the model, and returns its record, {} if there is none.

    `documents` are those of the text `corpus_path`. Raises UserError if the vocabulary of the record is not theirs, or
    if the file does not fit model.config; it says what the file was trained as, and what to give.
    """
    config = model.config
    state, record = read_params(path), read_record(path)
    if "vocabulary" in record and record["vocabulary"] != vocabulary_hash(documents):
        raise UserError(
            f"{path}: its vocabulary differs from that of {corpus_path}; give the text that it was trained on"
        )
    found = {"variant": record["variant"]} if "variant" in record else {}
    reason = ""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        found = trained_as(state) | found
    for name, value in found.items():
        wanted = getattr(config, name)
        if value != wanted:
            raise UserError(f"{path}: " + MISMATCHES[name].format(value=value, wanted=wanted, text=corpus_path))
    if reason:
        raise UserError(f"{path}: not the parameters of a {config.variant} model of this size ({reason[:200]})")
    masks = [mask for name, mask in model.named_buffers() if name.endswith("mask")]
    if not all(torch.equal(mask, causal_mask(mask.size(-1)).to(mask)) for mask in masks):
        raise UserError(f"{path}: its attention masks are not causal; evaluate it with the code that trained it")
    wiring, question = record.get("wiring") or config.wiring, record.get("question") or "{name}"
    if wiring not in list(WIRINGS) or not isinstance(question, str) or question.count("{name}") != 1:
        raise UserError(
            f"{OutputFiles(path).record}: its wiring or question is unknown; rename it to use the parameters without it"
        )
    config.wiring = wiring
    return record


def choose_by_loss(model: GPT, path: str, corpus_path: str, documents: CharCorruptionDataset) -> None:
    """Chooses, by the loss on some documents, what a params file from other code does not say; prints the choice.

    A perceiver gets the wiring (model.WIRINGS) with the lowest loss. A rope model keeps its table of rotations, as it
    is or turning the other way, whichever has the lower loss. Unless the loss of this choice is below those of all
    others, the standard table included, by at least MIN_LOSS_GAP, a standard table stays as it is, and anything else
    raises UserError.
    """
    own = {name: table.clone() for name, table in model.named_buffers() if name.endswith("rope_cache")}
    head_size = model.config.n_embd // model.config.n_head
    standard = {name: standard_rope_cache(len(table), head_size) for name, table in own.items()}
    default = None
    if model.variant.bottleneck:
        kind, candidates = "wiring of the perceiver", list(WIRINGS)
        choices = {wiring: (wiring, {}) for wiring in WIRINGS}
    elif own:
        kind, candidates = "table of rotations", ["its own", "its own, turning the other way"]
        turned = {name: table * torch.tensor([1.0, -1.0]) for name, table in own.items()}
        tables = dict(zip(candidates, (own, turned), strict=True))
        if all(t.shape == standard[name].shape and (t - standard[name]).abs().max() <= 0.01 for name, t in own.items()):
            default = "its own"
        else:
            tables["the standard one"] = standard
        choices = {choice: (model.config.wiring, table) for choice, table in tables.items()}
    else:
        return

    def use(choice: str) -> None:
        model.config.wiring, table = choices[choice]
        model.load_state_dict(model.state_dict() | table)

    losses = {}
    for choice in choices:
        use(choice)
        losses[choice] = loss_on(documents, model)
    best = min(candidates, key=losses.get)
    use(best)
    found, other = losses.pop(best), min(losses.values())
    measured = f"a loss of {found:.2f} on {corpus_path}, and {other:.2f} with another"
    if not found <= other - MIN_LOSS_GAP:  # also where both are NaN
        if default is None:
            raise UserError(f"{path}: no {kind} fits: {best} has {measured}; evaluate it with the code that trained it")
        use(default)
    elif best != default:
        print(f"{path}: {kind}: {best} ({measured})")


def loss_on(documents: CharCorruptionDataset, model: GPT) -> float:
    """The loss of the model, in nats per character, on at most 64 corrupted documents, the same in each call."""
    with evaluating(model):
        return model(*corrupted(documents, 64))[1].item()


def loss_of_bigrams(documents: CharCorruptionDataset) -> float:
    """The loss, in nats per character, of the best guess from the last character alone, on corrupted documents.

    This is the entropy H(y | x) = H(x, y) - H(x).
    """
    x, y = corrupted(documents, 4096)
    x, y = x[y != PAD], y[y != PAD]
    return entropy(x * documents.vocab_size + y) - entropy(x)


def entropy(ids: Tensor) -> float:
    """The entropy, in nats, of the distribution that the ids (n,) are drawn from.

    The entropy of a sample is too low on average, which is corrected (Miller 1955, "Note on the bias of information
    estimates").
    """
    p = ids.unique(return_counts=True)[1] / len(ids)
    return -(p * p.log()).sum().item() + (len(p) - 1) / (2 * len(ids))


def corrupted(documents: CharCorruptionDataset, at_most: int) -> tuple[Tensor, Tensor]:
    """x and y of at most that many documents, the same in each call."""
    full = [i for i, document in enumerate(documents.data) if document]
    with torch.random.fork_rng([]):  # the draws of a run do not change
        torch.manual_seed(0)
        return documents.batch(torch.tensor(full[:: math.ceil(len(full) / at_most)]))


def vocabulary_hash(documents: CharCorruptionDataset) -> str:
    """A hash of the characters of the vocabulary, in order."""
    return text_hash("".join(documents.itos[i] for i in range(documents.vocab_size) if i not in (PAD, MASK)))


def keep_params(path: str, every: int, record: dict[str, Any]) -> Callable[[Trainer], dict[str, float]]:
    """A callback for the end of an epoch that saves the parameters as `path`.EPOCH, every `every` epochs."""

    def keep(trainer: Trainer) -> dict[str, float]:
        if trainer.rank == 0 and trainer.epoch % every == 0:
            trainer.check_finite()
            try:
                kept = OutputFiles(path).kept(trainer.epoch)
                save_params(trainer.model, kept, record | {"epochs_done": trainer.epoch})
            except UserError as error:
                print(f"\n{error}; training continues without it", file=sys.stderr)
        return {}

    return keep


# what decides the result of a training run, and how to set it: only a run with the same values resumes a state
COMPARED = {
    "function": "{}",
    "variant": "{}",
    "recipe": "--recipe {}",
    "bottleneck_dim": "--bottleneck_dim {}",
    "seed": "--seed {}",
    "device": "--device {}",
    "precision": "--precision {}",
    "question": "--question {}",
    "reading_params_path": "--reading_params_path {}",
    "wiring": "parameters of the wiring {}",
    "processes": "{} processes (torchrun --nproc_per_node)",
    "pretrain_lr": "--pretrain_lr {}",
    "pretrain_epochs": "--pretrain_epochs {}",
    "finetune_lr": "--finetune_lr {}",
    "finetune_epochs": "--finetune_epochs {}",
    "scratch_epochs": "--finetune_epochs {}",
}
WITHOUT_EFFECT = {"pretrain": ("finetune_", "scratch_"), "finetune": ("pretrain_",)}  # how such settings begin


def difference(record: dict[str, Any], kept: dict[str, Any]) -> str | None:
    """Why the run of `record` cannot resume the run of `kept`, and which option to give; None if it can."""
    settings, kept_settings = ({**r, **r["recipe"], "recipe": r["recipe"]["name"]} for r in (record, kept))
    without_effect = WITHOUT_EFFECT[kept["function"]]
    for name, option in COMPARED.items():
        if settings[name] != kept_settings[name] and not name.startswith(without_effect):
            value = kept_settings[name]
            if value is None:
                return f"it ran without {option.split()[0]}; leave it out"
            return f"it ran with {option.format(shlex.quote(str(value)))}; give that"
    for name, setting in record["recipe"].items():
        value = kept["recipe"][name]
        if setting != value and not name.startswith(without_effect):
            return f"its recipe has {name}={value}; set that in src/recipe.py"
    for name, path in (("text", "pretrain_corpus_path"), ("pairs", "finetune_corpus_path")):
        if record[name] != kept[name]:
            return f"{record[path]} differs from {kept[path]} as it was at the start of the run; give the same content"
    return None


class StateKeeper:
    """Writes a trainer's state every few minutes, and when the process is told to stop. Goes into trainer.on_step_end.

    `record` says what the run is: see difference(). `command` is the one that resumes it.
    """

    def __init__(self, path: str, minutes: float, record: dict[str, Any], command: str) -> None:
        self.path, self.seconds, self.record, self.command = path, 60 * minutes, record, command
        self.written_at = time.monotonic()
        self.signal_number = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The first SIGINT, SIGTERM or SIGHUP waits for the end of the step; a second one ends the process as usual.

        An ignored signal stays ignored, as under nohup and in a shell's background jobs. Under torchrun later signals
        wait too, since torchrun forwards a signal that the terminal has already sent.
        """
        handlers = {}

        def restore() -> None:
            for number, handler in handlers.items():
                signal.signal(number, handler)

        def note(signal_number: int, frame: object) -> None:
            self.signal_number = signal_number
            if not dist.is_initialized():
                restore()

        if threading.current_thread() is threading.main_thread():  # only the main thread may set handlers
            for number in heeded_signals("SIGINT", "SIGTERM", "SIGHUP"):
                handlers[number] = signal.signal(number, note)
        try:
            yield
        finally:
            restore()

    def __call__(self, trainer: Trainer) -> None:
        if trainer.epoch == trainer.config.max_epochs:  # the final parameters are written next
            return
        due = time.monotonic() - self.written_at >= self.seconds
        # agreed among all processes: the signal that stops them (0: none), and whether the state is due
        stop_by, due = trainer.engine.over_processes(
            torch.tensor([self.signal_number, due]), dist.ReduceOp.MAX
        ).tolist()
        if stop_by or due:
            try:
                self.write(trainer)
            except UserError as error:
                if stop_by:
                    raise
                print(f"\n{error}; training continues, and tries again", file=sys.stderr)
        if stop_by:
            at = f"stopped after step {trainer.steps}"
            raise Stopped(stop_by, f"{at}; its state is kept in {self.path}. To resume: {self.command}")

    def write(self, trainer: Trainer) -> None:
        """Writes the state, from the first process. Raises UserError."""
        state = trainer.state_dict()
        self.written_at = time.monotonic()
        if trainer.rank == 0:
            save_tensors({"run": self.record, "trainer": state}, self.path)

    def read(self, trainer: Trainer) -> dict[str, Any]:
        """Loads the state into the trainer. Returns the record of the run that wrote it. Raises UserError."""
        advice = "move it away to start again"
        state = read_tensors(self.path, advice)
        try:
            reason = difference(self.record, state["run"])
            if reason is None:
                trainer.load_state_dict(state["trainer"])
                return state["run"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            if is_out_of_memory(error):
                raise
            raise UserError(f"{self.path}: not the state of a run of this version of the project; {advice}") from None
        raise UserError(
            f"{self.path}: the unfinished run differs: {reason}, or name another --writing_params_path to start again"
        )

    def remove(self) -> None:
        """Removes the state of a finished run."""
        Path(self.path).unlink(missing_ok=True)
