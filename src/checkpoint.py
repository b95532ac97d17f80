"""What a run leaves on the disk: its parameters, a record of how they came about, and its state while it lasts.

Params files are plain state_dicts under the course's names. Nothing is read in a way that could run code from it.
"""

import hashlib
import io
import json
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cli import Stopped, UserError
from files import atomic_write, read_bytes, write_text
from model import GPT, GPTConfig
from trainer import Trainer

WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # what DataParallel and torch.compile put before a name


def save_tensors(value: Any, path: str) -> None:
    """torch.save to `path` in one step. Raises UserError."""
    buffer = io.BytesIO()  # torch.save words a full disk in its own way
    torch.save(value, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def read_tensors(path: str, advice: str) -> Any:
    """torch.load of tensors and plain values, on the CPU; never runs code. Raises UserError that ends in `advice`."""
    try:
        with warnings.catch_warnings():  # about pickles of strange make; they are refused below
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {advice}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception:  # torch.load raises many kinds for the many ways of not being such a file
        raise UserError(f"{path}: not a whole file of tensors, or one that holds more than tensors; {advice}") from None


def save_params(model: GPT, path: str, record: dict[str, Any] | None = None) -> None:
    """Writes the model's state_dict, as tensors of the CPU, to `path`, and the record to `path`.json. UserError."""
    save_tensors({name: value.cpu() for name, value in model.state_dict().items()}, path)
    if record is not None:
        write_text(f"{path}.json", json.dumps(record | {"sha256": sha256(path)}, indent=2) + "\n")


def sha256(path: str) -> str:
    """The hash of a file's content, in hexadecimal digits."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


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
            raise UserError(f"{path}: {name} holds values that are not finite; train anew")
    # some course solutions for rope keep the table of rotations, which follows from the configuration
    return {name: value for name, value in state.items() if not name.endswith(".rope_cache")}


def read_record(path: str) -> dict[str, Any]:
    """What `path`.json says of the params file `path`; {} where there is none, or one of other parameters."""
    json_path = f"{path}.json"
    if not os.path.exists(json_path):
        return {}
    try:
        record = json.loads(read_bytes(json_path))
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{json_path}: not the record of a params file; remove it to do without")
    if record.get("sha256") != sha256(path):
        print(f"{json_path}: belongs to other parameters than {path} holds; not used", file=sys.stderr)
        return {}
    return record


def trained_as(state: dict[str, Tensor]) -> dict[str, str | int]:
    """The variant, vocab_size, block_size and bottleneck_dim that a state_dict was trained as, as far as it tells."""
    found: dict[str, str | int] = {}
    if "down_block.C" in state and state["down_block.C"].dim() == 3:
        found |= {"variant": "perceiver", "bottleneck_dim": state["down_block.C"].size(1)}
    elif "blocks.0.attn.w2" in state:
        found["variant"] = "synthesizer"
    elif "blocks.0.attn.query.weight" in state:
        found["variant"] = "vanilla" if "pos_emb" in state else "rope"
    if "tok_emb.weight" in state:
        found["vocab_size"] = len(state["tok_emb.weight"])
    if "pos_emb" in state and state["pos_emb"].dim() == 3:
        found["block_size"] = state["pos_emb"].size(1)
    return found


def load_params(model: GPT, path: str, config: GPTConfig, corpus_path: str, vocabulary: str | None = None) -> None:
    """Fills the model, built from `config`, from a params file; `vocabulary` is the hash of the text's.

    Raises UserError that says what the file was trained as, and which option fits it, when that is not `config`.
    """
    state, record = read_params(path), read_record(path)
    if vocabulary not in (None, record.get("vocabulary", vocabulary)):
        raise UserError(
            f"{path}: was trained on other characters than {corpus_path} has; give the text of its training"
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
        if value == wanted:
            continue
        mismatch = {
            "variant": f"was trained as {value}, not {wanted}; say '{value}'",
            "vocab_size": f"was trained on a vocabulary of {value} characters, {corpus_path} has {wanted}; "
            "give the text that it was pretrained on",
            "bottleneck_dim": f"was trained with --bottleneck_dim {value}, not {wanted}; give that option",
            "block_size": f"has a block_size of {value}, this project one of {wanted}",
        }
        raise UserError(f"{path}: {mismatch[name]}")
    if reason:
        raise UserError(f"{path}: not the parameters of a {config.variant} model of this size ({reason[:200]})")


def keep_params(path: str, every: int, run: dict[str, Any]) -> Callable[[Trainer], dict[str, float]]:
    """What a trainer calls after each epoch to have its parameters kept every so many of them, as `path`.EPOCH."""

    def keep(trainer: Trainer) -> dict[str, float]:
        if trainer.rank == 0 and trainer.epoch % every == 0:
            trainer.check_finite()
            try:
                save_params(trainer.model, f"{path}.{trainer.epoch}", run | {"epochs_done": trainer.epoch})
            except UserError as error:
                print(f"\n{error}; training goes on without it", file=sys.stderr)
        return {}

    return keep


class StateKeeper:
    """Writes a trainer's state every few minutes, and when the process is told to stop: one of its on_step_end.

    `run` says what the run is; a state is taken up only by a run of the same description, but for `command` and the
    like. `go_on` is the command that does so.
    """

    NOT_COMPARED = ("versions", "commit", "command", "started", "micro_batch_rows", "threads")

    def __init__(self, path: str, minutes: float, run: dict[str, Any], go_on: str) -> None:
        self.path, self.seconds, self.run, self.go_on = path, 60 * minutes, run, go_on
        self.written_at = time.monotonic()
        self.signal_number = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """A first SIGINT or SIGTERM waits for the end of the step; a second one ends the process as usual.

        Not under torchrun, which passes on what the terminal has already sent.
        """

        def note(signal_number: int, frame: object) -> None:
            self.signal_number = signal_number
            if not dist.is_initialized():
                restore()

        signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        handlers = {number: signal.signal(number, note) for number in signals}

        def restore() -> None:
            for number, handler in handlers.items():
                signal.signal(number, handler)

        try:
            yield
        finally:
            restore()

    def __call__(self, trainer: Trainer) -> None:
        if trainer.epoch == trainer.config.max_epochs:  # the parameters themselves come next
            return
        due = time.monotonic() - self.written_at >= self.seconds
        wanted = trainer.over_processes(torch.tensor(max(self.signal_number, int(due))), dist.ReduceOp.MAX)
        if wanted:
            try:
                self.write(trainer)
            except UserError as error:
                if wanted > 1:
                    raise
                print(f"\n{error}; training goes on, and tries again", file=sys.stderr)
        if wanted > 1:
            at = f"stopped after step {trainer.steps}"
            raise Stopped(int(wanted), f"{at}; its state is kept in {self.path}. To go on: {self.go_on}")

    def write(self, trainer: Trainer) -> None:
        """Writes the state, from the first process. Raises UserError."""
        state = trainer.state_dict()
        self.written_at = time.monotonic()
        if trainer.rank == 0:
            save_tensors({"run": self.run, "trainer": state}, self.path)

    def read(self, trainer: Trainer) -> dict[str, Any]:
        """Gives the trainer the state that was written. Returns what it says of its run. Raises UserError."""
        advice = "remove it to begin anew"
        state = read_tensors(self.path, advice)
        try:
            for name, value in self.run.items():
                if name not in self.NOT_COMPARED and state["run"][name] != value:
                    was = f"{name} {state['run'][name]}, this one has {value}"
                    raise UserError(f"{self.path}: the run that it is the state of had {was}; {advice}")
            trainer.load_state_dict(state["trainer"])
            return state["run"]
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError):
            raise UserError(f"{self.path}: not the state of a run of this project; {advice}") from None

    def remove(self) -> None:
        """Removes the state, which a finished run needs no more."""
        Path(self.path).unlink(missing_ok=True)
