"""Params files travel both ways, are refused when they are something else, and are never half written."""

import os

import pytest
import torch
from conftest import TRIED, VARIANTS

from checkpoint import load_params, read_params, read_record, save_params, trained_as
from cli import UserError
from model import GPT, GPTConfig


def config(variant: str, vocab_size: int = 20, bottleneck_dim: int = 8) -> GPTConfig:
    return GPTConfig(vocab_size, 24, 3, 2, 16, variant, bottleneck_dim)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_parameters_travel(tmp_path, variant, prefix):
    path = str(tmp_path / "a.params")
    model = GPT(config(variant))
    save_params(model, path)
    plain = torch.load(path, weights_only=True)
    torch.save({prefix + name: value for name, value in plain.items()}, path)
    other = GPT(config(variant))
    load_params(other, path, "wiki.txt")
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert trained_as(plain)["variant"] == variant


def test_a_table_of_rotations_in_the_file_is_no_hindrance(tmp_path):
    path = str(tmp_path / "a.params")
    model = GPT(config("rope"))
    torch.save(model.state_dict() | {"blocks.0.attn.rope_cache": torch.zeros(24, 4, 2)}, path)
    load_params(GPT(config("rope")), path, "wiki.txt")


@pytest.mark.parametrize(
    ("written", "read", "message"),
    [
        (config("rope"), config("vanilla"), "trained as rope, not vanilla"),
        (config("vanilla"), config("rope"), "trained as vanilla, not rope"),
        (config("vanilla"), config("synthesizer"), "trained as vanilla, not synthesizer"),
        (config("synthesizer"), config("perceiver"), "trained as synthesizer, not perceiver"),
        (config("perceiver"), config("vanilla"), "trained as perceiver, not vanilla"),
        (config("perceiver"), config("perceiver", bottleneck_dim=4), "--bottleneck_dim 8, not 4"),
        (config("vanilla"), config("vanilla", vocab_size=21), "vocabulary of 20 characters, wiki.txt has 21"),
        (GPTConfig(20, 32, 3, 2, 16), config("vanilla"), "block_size of 32, this project one of 24"),
        (GPTConfig(20, 24, 2, 2, 16), config("vanilla"), "not the parameters of a vanilla model"),
    ],
)
def test_other_file_is_refused_with_what_it_is(tmp_path, written, read, message):
    path = str(tmp_path / "a.params")
    save_params(GPT(written), path)
    with pytest.raises(UserError, match=message) as error:
        load_params(GPT(read), path, "wiki.txt")
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not a params file"),
        lambda path: path.write_bytes(b"abc"),
        lambda path: path.write_bytes(b"born"),
        lambda path: torch.save({0: torch.zeros(1)}, path),
        lambda path: path.write_bytes(path.read_bytes()[:-500]),
        lambda path: torch.save([1, 2, 3], path),
        lambda path: torch.save({"epoch": 3}, path),
        lambda path: torch.save({"head.weight": torch.eye(3).to_sparse()}, path),
        lambda path: torch.save({"head.weight": torch.eye(3).to(torch.float8_e4m3fn)}, path),
        lambda path: torch.save({"head.weight": torch.empty(3, device="meta")}, path),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_broken_files_end_in_one_line(tmp_path, make):
    path = tmp_path / "a.params"
    save_params(GPT(config("vanilla")), str(path))
    make(path)
    TRIED["broken or arbitrary files"] += 1
    with pytest.raises(UserError) as error:
        read_params(str(path))
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_command_with_bytes_that_are_not_utf8_is_recorded(tmp_path):
    path = str(tmp_path / "a.params")
    save_params(GPT(config("vanilla")), path, {"command": "run.py caf\udce9"})  # as Python has bytes that are not UTF-8
    assert read_record(path)["command"] == "run.py caf\udce9"


@pytest.mark.skipif(os.name == "nt", reason="has no limits of this kind")
def test_full_disk_leaves_the_old_file(tmp_path):
    import resource

    path = tmp_path / "a.params"
    save_params(GPT(config("vanilla")), str(path))
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))  # no file may grow further
    try:
        with pytest.raises(UserError, match=r"a\.params: cannot be written \(File too large\)"):
            save_params(GPT(config("rope")), str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.params"]
