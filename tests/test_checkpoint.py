"""Params files travel both ways, are refused when they are something else, and are never half written."""

import json
import math
import os
import re
import shutil
import subprocess

import pytest
import torch
from conftest import COURSE_VARIANTS, TRIED, VARIANTS, small_model

import run
from attention import standard_rope_cache
from checkpoint import (
    corrupted,
    current_commit,
    entropy,
    fill,
    load_params,
    read_params,
    read_record,
    save_params,
    trained_as,
)
from cli import UserError
from dataset import CharCorruptionDataset
from files import file_hash, write_text
from model import GPT, WIRINGS, GPTConfig


def config(variant: str, vocab_size: int = 20, bottleneck_dim: int = 8) -> GPTConfig:
    return GPTConfig(vocab_size, 24, 3, 2, 16, variant, bottleneck_dim)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_parameters_travel(documents, tmp_path, variant, prefix):
    path = str(tmp_path / "a.params")
    model = GPT(config(variant))
    save_params(model, path)
    plain = torch.load(path, weights_only=True)
    torch.save({prefix + name: value for name, value in plain.items()}, path)
    other = GPT(config(variant))
    fill(other, path, "wiki.txt", documents)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


@pytest.mark.parametrize("variant", COURSE_VARIANTS)
def test_names_in_a_params_file_tell_the_variant(variant):
    assert trained_as(GPT(config(variant)).state_dict())["variant"] == variant


def trained(documents: CharCorruptionDataset, variant: str, rope_cache: torch.Tensor | None = None, **sizes) -> GPT:
    """A small model, with that table of rotations, whose head has learned to predict the text from large weights."""
    model = small_model(documents.vocab_size, variant, dropout=0.0, **sizes)
    if rope_cache is not None:
        tables = {f"blocks.{i}.attn.rope_cache": rope_cache for i in range(len(model.blocks))}
        model.load_state_dict(model.state_dict() | tables)
    with torch.no_grad():
        model.tok_emb.weight.mul_(200)
        for weight in model.hidden_matrices():
            weight.mul_(15)
    optimizer = torch.optim.Adam([model.head.weight], lr=0.1)
    x, y = documents.batch(torch.arange(12) % 6)
    for _ in range(50):
        optimizer.zero_grad()
        model(x, y)[1].backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("wiring", WIRINGS)
def test_wiring_of_a_perceiver_without_record_is_found_on_the_text(world, documents, capsys, wiring):
    model = trained(documents, "perceiver", wiring=wiring)
    save_params(model, "a.params")
    read = small_model(documents.vocab_size, "perceiver")
    random_state = torch.get_rng_state()
    load_params(read, "a.params", "wiki.txt", documents)
    assert torch.equal(torch.get_rng_state(), random_state) and read.training
    assert capsys.readouterr().out.startswith(f"a.params: wiring of the perceiver: {wiring} (a loss of ")
    assert read.config.wiring == wiring
    x, _ = documents.batch(torch.arange(6))
    assert torch.equal(read.eval()(x)[0], model.eval()(x)[0])


TURNED = standard_rope_cache(128, 16).flip(1) * torch.tensor([1.0, -1.0])
OWN_TABLES = {
    "pairs counted from 1": standard_rope_cache(128, 18)[:, 1:],
    "rising angles": standard_rope_cache(128, 16).flip(1),
    "different in each head": standard_rope_cache(128, 32),
}


@pytest.mark.parametrize("own", OWN_TABLES)
def test_own_table_of_rotations_is_taken_where_it_fits_the_text(world, documents, capsys, own):
    model = trained(documents, "rope", OWN_TABLES[own])
    save_params(model, "a.params")
    read = small_model(documents.vocab_size, "rope")
    load_params(read, "a.params", "wiki.txt", documents)
    assert capsys.readouterr().out.startswith("a.params: table of rotations: its own (a loss of ")
    x, _ = documents.batch(torch.arange(6))
    assert torch.equal(read.eval()(x)[0], model.eval()(x)[0])


def assert_turned(
    documents: CharCorruptionDataset, capsys: pytest.CaptureFixture, used: torch.Tensor, written: torch.Tensor
) -> None:
    """A file with the table `written` from code that turns by the table `used` is read as turning the other way."""
    model = trained(documents, "rope", used)
    tables = {name: written for name in model.state_dict() if name.endswith("rope_cache")}
    torch.save(model.state_dict() | tables, "a.params")
    read = small_model(documents.vocab_size, "rope")
    load_params(read, "a.params", "wiki.txt", documents)
    assert capsys.readouterr().out.startswith("a.params: table of rotations: its own, turning the other way (a loss ")
    x, _ = documents.batch(torch.arange(6))
    assert torch.equal(read.eval()(x)[0], model.eval()(x)[0])


def test_own_table_is_turned_the_other_way_where_that_fits_the_text(world, documents, capsys):
    assert_turned(documents, capsys, OWN_TABLES["rising angles"], TURNED)


def test_table_that_does_not_fit_the_text_is_refused(world, documents):
    model = trained(documents, "rope")
    tables = {f"blocks.{i}.attn.rope_cache": OWN_TABLES["rising angles"] for i in range(3)}
    torch.save(model.state_dict() | tables, "a.params")
    with pytest.raises(UserError, match=r"^a\.params: no table of rotations fits: its own has a loss of .*[^\n]$"):
        load_params(small_model(documents.vocab_size, "rope"), "a.params", "wiki.txt", documents)


def test_perceiver_whose_wiring_does_not_show_is_refused(world, documents):
    save_params(small_model(documents.vocab_size, "perceiver"), "a.params")
    with pytest.raises(UserError, match=r"^a\.params: no wiring of the perceiver fits: .*[^\n]$"):
        load_params(small_model(documents.vocab_size, "perceiver"), "a.params", "wiki.txt", documents)


def test_perceiver_that_predicts_nothing_is_refused(world, documents):
    state = small_model(documents.vocab_size, "perceiver").state_dict()
    zeros = {name: torch.zeros_like(value) for name, value in state.items() if not name.endswith("mask")}
    torch.save(state | zeros, "a.params")
    with pytest.raises(UserError, match=r"^a\.params: no wiring of the perceiver fits: "):
        load_params(small_model(documents.vocab_size, "perceiver"), "a.params", "wiki.txt", documents)


@pytest.mark.parametrize("variant", VARIANTS)
def test_mask_that_is_not_causal_is_refused(world, documents, variant):
    state = small_model(documents.vocab_size, variant).state_dict()
    name = next(name for name in state if name.endswith("mask"))
    torch.save(state | {name: torch.ones_like(state[name])}, "a.params")
    with pytest.raises(UserError, match=r"^a\.params: its attention masks are not causal; evaluate it with [^\n]*$"):
        load_params(small_model(documents.vocab_size, variant), "a.params", "wiki.txt", documents)


def test_standard_table_turns_the_other_way_where_that_fits_the_text(world, documents, capsys):
    """As for code that swaps the two features of each pair."""
    standard = standard_rope_cache(128, 16)
    assert_turned(documents, capsys, standard * torch.tensor([1.0, -1.0]), standard)


def test_entropy_of_the_next_character_is_that_of_the_chain_that_wrote_the_text():
    """0 is followed by 0 or 1 equally often, and 1 by 0: two of three characters are 0."""
    generator = torch.Generator().manual_seed(0)
    text = [0]
    for coin in torch.randint(2, (10000,), generator=generator).tolist():
        text.append(coin if text[-1] == 0 else 0)
    x, y = torch.tensor(text[:-1]), torch.tensor(text[1:])
    assert entropy(x * 2 + y) - entropy(x) == pytest.approx(2 / 3 * math.log(2), abs=0.01)


def test_entropy_of_few_draws_is_not_too_low():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(10, (200, 100), generator=generator)  # 100 draws from ten equally likely ids, 200 times
    assert sum(map(entropy, draws)) / 200 == pytest.approx(math.log(10), abs=0.02)


def test_file_that_predicts_no_better_than_the_last_character_is_warned_of(world, documents, capsys):
    model = small_model(documents.vocab_size, dropout=0.0)
    save_params(model, "a.params")
    load_params(model, "a.params", "wiki.txt", documents)
    error = capsys.readouterr().err
    assert re.fullmatch(r"warning: a\.params: predicts wiki\.txt no better .* of 3\..* with 1\..*\); if .*\n", error)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model(*corrupted(documents, 64))[1].backward()
        optimizer.step()
    save_params(model, "a.params")
    load_params(model, "a.params", "wiki.txt", documents)
    assert capsys.readouterr().err == ""


def test_standard_table_stays_where_no_direction_fits_better(world, documents, capsys):
    save_params(small_model(documents.vocab_size, "rope"), "a.params")
    load_params(small_model(documents.vocab_size, "rope"), "a.params", "wiki.txt", documents)
    assert capsys.readouterr().out == ""


def test_wiring_is_kept_in_the_record_of_what_is_trained_from_it(world, documents, monkeypatch):
    monkeypatch.setattr("steps.GPT", lambda config: small_model(config.vocab_size, "perceiver"))
    save_params(trained(documents, "perceiver", wiring="direct"), "a.params")
    words = "finetune perceiver wiki.txt --reading_params_path a.params --writing_params_path b.params"
    run.main([*words.split(), "--finetune_corpus_path", "pairs.tsv", "--finetune_epochs", "1"])
    assert read_record("b.params")["wiring"] == "direct"
    read = small_model(documents.vocab_size, "perceiver")
    load_params(read, "b.params", "wiki.txt", documents)
    assert read.config.wiring == "direct"


@pytest.mark.parametrize("wrong", [{"wiring": "new"}, {"wiring": ["direct"]}, {"question": 5}, {"question": "Where?"}])
def test_record_with_unknown_values_is_refused(world, documents, wrong):
    model = small_model(documents.vocab_size, "perceiver")
    save_params(model, "a.params")
    write_text("a.params.json", json.dumps({"sha256": file_hash("a.params")} | wrong))
    with pytest.raises(UserError, match=r"^a\.params\.json: its wiring or question is unknown; rename it"):
        load_params(model, "a.params", "wiki.txt", documents)


@pytest.mark.parametrize(
    ("written", "read", "message"),
    [
        (config("rope"), config("vanilla"), "trained as rope, not vanilla"),
        (config("vanilla"), config("rope"), "trained as vanilla, not rope"),
        (config("vanilla"), config("synthesizer"), "trained as vanilla, not synthesizer"),
        (config("synthesizer"), config("perceiver"), "trained as synthesizer, not perceiver"),
        (config("perceiver"), config("vanilla"), "trained as perceiver, not vanilla"),
        (config("perceiver"), config("perceiver", bottleneck_dim=4), "--bottleneck_dim 8, not 4"),
        (config("vanilla"), config("vanilla", vocab_size=21), "vocabulary of 20 characters, but wiki.txt has 21"),
        (GPTConfig(20, 32, 3, 2, 16), config("vanilla"), "block_size 32, but this project uses 24"),
        (GPTConfig(20, 24, 2, 2, 16), config("vanilla"), "not the parameters of a vanilla model"),
    ],
)
def test_other_file_is_refused_with_what_it_is(documents, tmp_path, written, read, message):
    path = str(tmp_path / "a.params")
    save_params(GPT(written), path)
    with pytest.raises(UserError, match=message) as error:
        fill(GPT(read), path, "wiki.txt", documents)
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("variant", "change"),
    [
        ("vanilla", lambda state: {name: value for name, value in state.items() if not name.endswith("mask")}),
        ("vanilla", lambda state: state | {"start_emb": torch.zeros(1, 1, 16)}),
        ("perceiver", lambda state: {name: value for name, value in state.items() if name != "down_block.C"}),
        ("rope", lambda state: state | {"blocks.0.attn.rope_cache": torch.ones(4, 24, 2)}),  # transposed
        ("rope", lambda state: state | {"blocks.0.attn.rope_cache": torch.ones(4, 8, 2)}),
        ("vanilla", lambda state: {"tok_emb.weight": torch.tensor(1.0)}),
    ],
    ids=["no masks", "a parameter more", "no basis", "another order of the table", "too few positions", "a number"],
)
def test_file_of_another_shape_is_refused_in_one_line(documents, tmp_path, variant, change):
    path = str(tmp_path / "a.params")
    torch.save(change(GPT(config(variant)).state_dict()), path)
    with pytest.raises(UserError) as error:
        fill(GPT(config(variant)), path, "wiki.txt", documents)
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


def test_commit_is_dirty_unless_only_records_differ(tmp_path, monkeypatch):
    def git(*words: str) -> None:
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True)

    for name in filter(lambda name: name.startswith("GIT_"), list(os.environ)):  # those of a hook, say
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (tmp_path / "src").mkdir()
    (tmp_path / "results").mkdir()
    for name in ("src/checkpoint.py", "results/runs.jsonl"):
        (tmp_path / name).write_text("1")
    monkeypatch.setattr("checkpoint.__file__", str(tmp_path / "src" / "checkpoint.py"))
    if shutil.which("git") is None:
        assert current_commit() == "unknown"
        return
    git("init")
    assert current_commit() == "unknown"
    git("add", ".")
    git("commit", "-m", "all")
    (tmp_path / "results/runs.jsonl").write_text("2")
    assert re.fullmatch("[0-9a-f]{40}", current_commit())
    (tmp_path / "src/checkpoint.py").write_text("2")
    assert re.fullmatch("[0-9a-f]{40}-dirty", current_commit())
