"""Params files: plain state_dicts under the course's names, read without running code from them."""

import io
import pickle
import re
import warnings
from zipfile import BadZipFile

import torch
from torch import Tensor

from cli import UserError
from files import atomic_write
from model import GPT, GPTConfig

WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # what DataParallel and torch.compile put before a name


def save_params(model: GPT, path: str) -> None:
    """Writes the model's state_dict to `path` in one step. Raises UserError."""
    buffer = io.BytesIO()  # torch.save words a full disk in its own way
    torch.save(model.state_dict(), buffer)
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
    except (pickle.UnpicklingError, BadZipFile, RuntimeError, EOFError, ValueError, KeyError):
        raise UserError(
            f"{path}: not a whole params file, or one that holds more than tensors; write it anew"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: not a params file; one holds the names and tensors of a state_dict")
    state = {WRAPPERS.sub("", name): value for name, value in state.items()}
    # some course solutions for rope keep the table of rotations, which follows from the configuration
    return {name: value for name, value in state.items() if not name.endswith(".rope_cache")}


def trained_as(state: dict[str, Tensor]) -> dict[str, str | int]:
    """The variant, vocab_size, block_size and bottleneck_dim that a state_dict was trained as, as far as it tells."""
    found: dict[str, str | int] = {}
    if "tok_emb.weight" in state:
        found["vocab_size"] = len(state["tok_emb.weight"])
    if "pos_emb" in state:
        found["block_size"] = state["pos_emb"].size(1)
    if "down_block.C" in state:
        found |= {"variant": "perceiver", "bottleneck_dim": state["down_block.C"].size(1)}
    elif "blocks.0.attn.w2" in state:
        found["variant"] = "synthesizer"
    elif "blocks.0.attn.query.weight" in state:
        found["variant"] = "vanilla" if "pos_emb" in state else "rope"
    return found


def load_params(model: GPT, path: str, config: GPTConfig, corpus_path: str) -> None:
    """Fills the model, built from `config`, from a params file.

    Raises UserError that says what the file was trained as, and which option fits it, when that is not `config`.
    """
    state = read_params(path)
    found = trained_as(state)
    wanted = {name: getattr(config, name) for name in found}
    remedies = {
        "variant": f"{path}: was trained as {found.get('variant')}, not {config.variant}; say '{found.get('variant')}'",
        "vocab_size": f"{path}: was trained on a vocabulary of {found.get('vocab_size')} characters, {corpus_path} has "
        f"{config.vocab_size}; give the text that it was pretrained on",
        "bottleneck_dim": f"{path}: was trained with --bottleneck_dim {found.get('bottleneck_dim')}, not "
        f"{config.bottleneck_dim}; give that option",
        "block_size": f"{path}: has a block_size of {found.get('block_size')}, this project one of {config.block_size}",
    }
    for name, message in remedies.items():
        if name in found and found[name] != wanted[name]:
            raise UserError(message)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: not the parameters of a {config.variant} model of this size ({reason[:200]})"
        ) from None
