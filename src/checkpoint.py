"""Params files: plain state_dicts under the course's names, read without running code from them."""

import io
import re
import warnings

import torch
from torch import Tensor

from cli import UserError
from files import atomic_write
from model import GPT, GPTConfig

WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # what DataParallel and torch.compile put before a name


def save_params(model: GPT, path: str) -> None:
    """Writes the model's state_dict, as tensors of the CPU, to `path` in one step. Raises UserError."""
    buffer = io.BytesIO()  # torch.save words a full disk in its own way
    torch.save({name: value.cpu() for name, value in model.state_dict().items()}, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def read_params(path: str) -> dict[str, Tensor]:
    """The state_dict in a params file, on the CPU, without wrappers' prefixes. Raises UserError; never runs code."""
    try:
        with warnings.catch_warnings():  # about pickles of strange make; they are refused below
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; pretrain or finetune writes one with --writing_params_path") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception:  # torch.load raises many kinds for the many ways of not being a params file
        raise UserError(
            f"{path}: not a whole params file, or one that holds more than tensors; write it anew"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(n, str) and isinstance(v, Tensor) for n, v in state.items()):
        raise UserError(f"{path}: not a params file; one holds the names and tensors of a state_dict")
    state = {WRAPPERS.sub("", name): value for name, value in state.items()}
    # some course solutions for rope keep the table of rotations, which follows from the configuration
    return {name: value for name, value in state.items() if not name.endswith(".rope_cache")}


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


def load_params(model: GPT, path: str, config: GPTConfig, corpus_path: str) -> None:
    """Fills the model, built from `config`, from a params file.

    Raises UserError that says what the file was trained as, and which option fits it, when that is not `config`.
    """
    state = read_params(path)
    for name, value in trained_as(state).items():
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
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: not the parameters of a {config.variant} model of this size ({reason[:200]})"
        ) from None
