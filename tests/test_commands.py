"""Every command, end to end on a small world, and every mistake that a user can make on the command line."""

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from conftest import PAIRS, PEOPLE, ROOT, VARIANTS, WIKI, Enough, command, write_params

import attention
import run
import steps
from cli import UserError
from dataset import CharCorruptionDataset, MixedDataset, NameDataset
from readings import FactDataset, SalientSpanDataset
from recipe import RECIPES, Variant, with_settings
from recipe import VARIANTS as VARIANT_TABLE


def chain(variant: str, recipe: str) -> None:
    """Pretrain, finetune and evaluate, as the README has it but for the epochs."""
    extra = ["--bottleneck_dim", "64"] if variant == "perceiver" else []
    common = [variant, "wiki.txt", *extra, "--recipe", recipe, "--finetune_corpus_path", "birth_places_train.tsv"]
    run.main(["pretrain", *common, "--writing_params_path", f"{variant}.pretrain.params", "--pretrain_epochs", "2"])
    finetune = ["finetune", *common, "--finetune_epochs", "3"]
    reading = ["--reading_params_path", f"{variant}.pretrain.params"]
    run.main([*finetune, *reading, "--writing_params_path", f"{variant}.finetune.params"])
    for split, path in (("dev", "birth_dev.tsv"), ("test", "birth_test_inputs.tsv")):
        outputs = ["--eval_corpus_path", path, "--outputs_path", f"{variant}.pretrain.{split}.predictions"]
        run.main(["evaluate", *common, "--reading_params_path", f"{variant}.finetune.params", *outputs])


@pytest.mark.parametrize(
    ("variant", "recipe"),
    [*((variant, "course") for variant in VARIANTS), *(("vanilla", r) for r in RECIPES if r != "course")],
)
def test_pretrain_finetune_evaluate(world, capsys, variant, recipe):
    chain(variant, recipe)
    out = capsys.readouterr().out
    state = torch.load(f"{variant}.finetune.params")
    params = {name: p for name, p in state.items() if not name.endswith((".mask", ".rope_cache"))}
    if recipe.startswith("course"):
        words, decayed = "all but biases", [p for name, p in params.items() if not name.endswith("bias")]
    else:
        words = "matrices of matmuls"
        decayed = [p for name, p in params.items() if p.dim() == 2 and name != "tok_emb.weight"]
    assert f"data has {len(WIKI)} characters, {len(set(WIKI)) + 2} unique.\n" in out
    assert f"number of parameters: {sum(p.numel() for p in params.values())}\n" in out
    assert out.count(f"weight decay on {sum(p.numel() for p in decayed)} parameters: {words}\n") == 2
    if variant == "perceiver":
        assert torch.load("perceiver.finetune.params")["down_block.C"].shape[1] == 64
    assert "Correct: " in out and " out of 6.0: " in out
    assert "No gold birth places provided; returning (0,0)\n" in out
    assert f"Predictions written to {variant}.pretrain.test.predictions; no targets provided\n" in out
    for split in ("dev", "test"):
        assert Path(f"{variant}.pretrain.{split}.predictions").read_text().count("\n") == len(PEOPLE)
    assert len(list(Path("expt/run").glob(f"*-{variant}-*/events*"))) == 2


def test_new_variant_is_one_class_and_one_row(world, monkeypatch, capsys):
    monkeypatch.setattr(attention, "Mine", type("Mine", (attention.CausalSelfAttention,), {}), raising=False)
    monkeypatch.setitem(VARIANT_TABLE, "mine", Variant("Mine"))
    chain("mine", "course")
    assert "Correct: " in capsys.readouterr().out
    with pytest.raises(UserError, match=r"mine\.finetune\.params: was trained as mine, not vanilla; give 'mine'"):
        run.main(
            ["evaluate", "vanilla", "wiki.txt", "--reading_params_path", "mine.finetune.params", *EVALUATE.split()[2:]]
        )


def test_new_recipe_is_one_entry(world, monkeypatch, capsys):
    monkeypatch.setitem(RECIPES, "mine", replace(RECIPES["fast"], name="mine", context_chars=3))
    chain("vanilla", "mine")
    assert "Correct: " in capsys.readouterr().out


def finetune(seed: int, *more: str) -> dict[str, torch.Tensor]:
    words = "finetune rope wiki.txt --writing_params_path a.params --finetune_corpus_path birth_places_train.tsv"
    run.main([*words.split(), "--finetune_epochs", "40", "--seed", str(seed), *more])
    return torch.load("a.params")


def test_a_seed_repeats_a_run_and_finetuning_learns_the_pairs(world, capsys):
    more = ["--eval_corpus_path", "birth_dev.tsv", "--finetune_lr", "1e-3"]
    first, again, other = finetune(1, *more), finetune(1, *more), finetune(2, *more)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert "epoch 40: dev accuracy (%) 100" in capsys.readouterr().out


def test_finetuned_parameters_answer_and_can_be_finetuned_further(world, capsys):
    finetune(1, "--finetune_lr", "1e-3")
    words = "rope wiki.txt --reading_params_path a.params"
    run.main(["evaluate", *words.split(), "--eval_corpus_path", "birth_dev.tsv", "--outputs_path", "p"])
    assert "Correct: 6.0 out of 6.0: 100.0%\n" in capsys.readouterr().out
    assert Path("p").read_text(encoding="utf-8").splitlines() == [place for _, place in PEOPLE]
    before = torch.load("a.params")
    finetuning = ["--finetune_corpus_path", "birth_places_train.tsv", "--finetune_epochs", "1", "--finetune_lr", "1e-9"]
    run.main(["finetune", *words.split(), *finetuning, "--writing_params_path", "b.params"])
    for name, value in torch.load("b.params").items():
        torch.testing.assert_close(value, before[name], atol=1e-7, rtol=0)


@pytest.fixture
def trainers(monkeypatch) -> list:
    """The trainers that commands make from here on; they do not train."""
    made = []

    class Captured(steps.Trainer):
        def train(self) -> None:
            made.append(self)

    monkeypatch.setattr(steps, "Trainer", Captured)
    return made


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pretrain", {"max_epochs": 650, "batch_size": 128, "learning_rate": 6e-3, "muon_lr": 0.0}),
        ("finetune", {"max_epochs": 75, "batch_size": 256, "learning_rate": 6e-4, "muon_lr": 0.0}),
        ("finetune --reading_params_path a.params", {"max_epochs": 10, "batch_size": 256, "learning_rate": 6e-4}),
        ("finetune --finetune_epochs 7", {"max_epochs": 7}),
        ("finetune --finetune_epochs 7 --reading_params_path a.params", {"max_epochs": 7}),
        (
            "finetune --recipe fast --reading_params_path a.params",
            {"max_epochs": 6, "batch_size": 64, "learning_rate": 3e-4, "muon_lr": 0.0},
        ),
        ("pretrain --recipe course2024", {"max_epochs": 650, "batch_size": 128, "learning_rate": 6e-3}),
        ("pretrain --recipe course2024 --pretrain_epochs 9", {"max_epochs": 9}),
        ("finetune --recipe course2024", {"max_epochs": 75, "batch_size": 256, "learning_rate": 6e-4}),
        ("pretrain --recipe fast", {"max_epochs": 20, "batch_size": 64, "learning_rate": 3e-3, "muon_lr": 0.02}),
        ("pretrain --recipe open", {"max_epochs": 24, "batch_size": 64, "learning_rate": 3e-3, "muon_lr": 0.02}),
        (
            "finetune --recipe open --reading_params_path a.params",
            {"max_epochs": 6, "batch_size": 64, "learning_rate": 3e-4, "muon_lr": 0.0},
        ),
    ],
)
def test_recipes_reach_the_trainer(world, trainers, words, expected):
    from optim import learning_rate_multiplier

    write_params("a.params")
    function, *options = words.split()
    common = "vanilla wiki.txt --writing_params_path b --finetune_corpus_path birth_places_train.tsv"
    run.main([function, *common.split(), *options, "--device", "cpu", "--precision", "fp32"])
    config, fast = trainers[0].config, "fast" in words or "open" in words
    assert expected.items() <= vars(config).items()
    course = {"betas": (0.9, 0.95), "weight_decay": 0.1, "grad_norm_clip": 1.0, "lr_decay": True}
    course |= {"warmup_tokens": 512 * 20, "device": "cpu", "precision": "fp32", "decay_all": not fast}
    if fast:  # the rate comes down to its lowest at the end of the run, no sooner
        rows = {"pretrain --recipe fast": 7 * 1.02, "pretrain --recipe open": 7}.get(words, 7 * 2)  # of an epoch
        end = config.max_epochs * rows * 127
        rates = [learning_rate_multiplier(share * end, 512 * 20, config.final_tokens) for share in (0.9, 1.0)]
        assert rates[0] > 0.15 and rates[1] == pytest.approx(0.1, abs=1e-3)
    else:  # that of the later years falls once, over the run
        cosine_epochs = config.max_epochs if "pretrain --recipe course2024" in words else 200
        course["final_tokens"] = cosine_epochs * 7 * 128
    assert course.items() <= vars(config).items()
    dropouts = {m.p for m in trainers[0].model.modules() if isinstance(m, attention.Dropout)}
    assert dropouts == {0.0 if fast else 0.1}
    assert len(trainers[0].train_dataset) == (7 if function == "pretrain" or fast else 6)  # documents, or pairs


@pytest.mark.parametrize("function", ["pretrain", "finetune"])
def test_what_params_leave_open_is_chosen_by_the_loss_on_all_characters(world, trainers, monkeypatch, function):
    from checkpoint import load_params

    def spy(model, path, corpus_path, documents):
        targets.append("the span" if documents.loss_on_span else "all characters")
        return load_params(model, path, corpus_path, documents)

    targets = []
    monkeypatch.setattr(steps, "load_params", spy)
    write_params("a.params")
    words = f"{function} vanilla wiki.txt --recipe fast --reading_params_path a.params --writing_params_path b"
    run.main([*words.split(), "--finetune_corpus_path", "birth_places_train.tsv", "--device", "cpu"])
    assert targets == ["all characters"]


def test_recipe_decides_how_the_text_is_read(world, trainers, monkeypatch):
    recipes = {}

    def spy(dataset: type) -> Callable:
        def build(*arguments):
            recipes[dataset] = arguments[-1]
            return dataset(*arguments)

        return build

    monkeypatch.setattr(steps, "SalientSpanDataset", spy(SalientSpanDataset))
    monkeypatch.setattr(steps, "FactDataset", spy(FactDataset))
    for name in RECIPES:
        words = f"pretrain vanilla wiki.txt --recipe {name} --writing_params_path b"
        run.main([*words.split(), "--finetune_corpus_path", "birth_places_train.tsv", "--device", "cpu"])
    datasets = {name: trainer.train_dataset for name, trainer in zip(RECIPES, trainers, strict=True)}
    assert type(datasets["course"]) is type(datasets["course2024"]) is CharCorruptionDataset
    assert type(datasets["fast"]) is MixedDataset and datasets["fast"].qa_per_document == 0.02
    spans, facts = datasets["fast"].documents, datasets["open"]
    assert type(spans) is SalientSpanDataset
    assert (spans.entity_mask_prob, spans.context_chars, spans.question_prefix_prob) == (1.0, 6, 1.0)
    assert spans.documents.loss_on_span and not datasets["course"].loss_on_span
    assert type(facts) is FactDataset and (facts.context_chars, facts.prefix_words) == (6, 3)
    assert facts.documents.loss_on_span
    assert recipes == {SalientSpanDataset: RECIPES["fast"], FactDataset: RECIPES["open"]}
    assert recipes[SalientSpanDataset].weight_by_answer_odds is True and recipes[FactDataset].word_weight == 0.3


def test_recipe_decides_what_finetuning_reads(world, trainers):
    write_params("a.params")
    common = "finetune vanilla wiki.txt --finetune_corpus_path birth_places_train.tsv --writing_params_path b"
    for recipe in ("fast", "open"):
        run.main([*common.split(), "--recipe", recipe, "--device", "cpu", "--reading_params_path", "a.params"])
        run.main([*common.split(), "--recipe", recipe, "--device", "cpu"])  # not pretrained, so it reads pairs alone
        (mixed, pairs), trainers[:] = [trainer.train_dataset for trainer in trainers], []
        assert type(mixed) is MixedDataset and mixed.qa_per_document == 1.0
        assert type(mixed.documents) is SalientSpanDataset and mixed.documents.documents.loss_on_span
        assert mixed.documents.question_prefix_prob == 1.0 and mixed.documents.entity_mask_prob == 1.0
        assert type(pairs) is NameDataset
    run.main([*common.split(), "--device", "cpu", "--reading_params_path", "a.params"])
    assert type(trainers[0].train_dataset) is NameDataset


def test_warmup_setting_applies_to_pretraining_only(world, trainers, monkeypatch):
    monkeypatch.setitem(RECIPES, "longer", replace(RECIPES["course"], name="longer", pretrain_warmup_tokens=999))
    common = "vanilla wiki.txt --recipe longer --writing_params_path b --finetune_corpus_path birth_places_train.tsv"
    for function in ("pretrain", "finetune"):
        run.main([function, *common.split()])
    assert [trainer.config.warmup_tokens for trainer in trainers] == [999, 512 * 20]


def test_unanswerable_questions_are_named_and_the_rest_answered(world, capsys):
    finetune(1)
    long = "W" * 127
    Path("birth_test_inputs.tsv").write_text(f"Where was Björk born?\nWhere was 王 born?\n{long}\n", encoding="utf-8")
    words = "evaluate rope wiki.txt --reading_params_path a.params --eval_corpus_path birth_test_inputs.tsv"
    run.main([*words.split(), "--outputs_path", "p"])
    first, second, third, end = Path("p").read_text(encoding="utf-8").split("\n")
    assert first and (second, third, end) == ("", "", "")
    (warning,) = (line for line in capsys.readouterr().err.split("\n") if "birth_test_inputs" in line)
    assert "2 of 3 questions cannot be asked; their answers stay empty: line 2: the character '王'" in warning
    assert "; line 3: the question has 127" in warning and "..." not in warning
    Path("birth_test_inputs.tsv").write_text(f"Where was Björk born?\n{long}\n{long}\n{long}\n{long}\n")
    run.main([*words.split(), "--outputs_path", "p"])
    err = capsys.readouterr().err
    assert "4 of 5 questions cannot be asked" in err and err.count("the question has 127") == 3 and "; ...\n" in err


def test_torch_is_configured_before_anything_is_built(world, monkeypatch, capsys):
    monkeypatch.setattr(steps, "configure_torch", Mock(side_effect=Enough))
    with pytest.raises(Enough):
        run.main(f"pretrain vanilla wiki.txt {PRETRAIN}".split())
    assert "data has" not in capsys.readouterr().out


def test_defaults_outside_the_recipes():
    defaults = run.parse(["pretrain", "vanilla", "w", "--writing_params_path", "a"])
    assert (defaults.bottleneck_dim, defaults.tb_expt_name, defaults.seed) == (32, "run", 0)
    assert defaults.checkpoint_minutes == 5


@pytest.mark.skipif(os.name == "nt", reason="a shell pipe")
def test_closed_pipe_causes_no_traceback(world):
    first_line = f"data has {len(WIKI)} characters, {len(set(WIKI)) + 2} unique.\n"
    for words, read in {
        f"-u '{ROOT / 'src/dataset.py'}' namedata | head -1": first_line,
        f"-u '{ROOT / 'src/dataset.py'}' namedata | true": "",  # closed before the first line
        f"'{ROOT / 'london_baseline.py'}' | true": "",
    }.items():
        result = subprocess.run(
            ["env", "-u", "PYTHONUNBUFFERED", "bash", "-c", f"'{sys.executable}' {words}"],
            cwd=world,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert (result.stdout, result.stderr) == (read, "")


def test_london_baseline(world):
    for words in ([], ["birth_dev.tsv"]):
        assert command(str(ROOT / "london_baseline.py"), *words, cwd=world).stdout == (
            "Correct: 2.0 out of 6.0: 33.33%\n"
        )
    words = ["birth_test_inputs.tsv", "--outputs_path", "london.txt"]
    result = command(str(ROOT / "london_baseline.py"), *words, cwd=world)
    problem = "birth_test_inputs.tsv: has no places to compare with; each line must be question<TAB>place"
    assert (result.returncode, result.stderr) == (2, f"london_baseline.py: error: {problem}\n")
    torch.save({}, world / "a.params")
    result = command(str(ROOT / "london_baseline.py"), "--outputs_path", "a.params", cwd=world)
    assert result.returncode == 2 and "a.params: holds parameters, and would be overwritten" in result.stderr


def test_examples_without_numpy_and_torch_end_in_one_line(world):
    result = command("-S", str(ROOT / "src/dataset.py"), "namedata", cwd=world)
    problem = "dataset.py: error: numpy is not installed; pip install -r requirements.txt\n"
    assert (result.returncode, result.stderr) == (2, problem)


@pytest.mark.parametrize("script", ["src/run.py", "london_baseline.py", "scripts/compare.py", "corpus/build.py"])
def test_help_needs_no_package(script, world):
    result = command("-S", str(ROOT / script), "--help", cwd=world)
    assert result.returncode == 0 and "usage" in result.stdout, result.stderr


def test_first_question_like_no_other_is_asked_with_a_warning(world, capsys):
    rows = "Where was Zed born?\tNowhere\nBirthplace of Björk?\tReykjavík\nBirthplace of Alan Turing?\tLondon\n"
    Path("mixed.tsv").write_text(rows, encoding="utf-8")
    run.main(["finetune", "vanilla", "wiki.txt", "--finetune_epochs", "1", *TRAIN.split()])
    capsys.readouterr()
    evaluate = "evaluate vanilla wiki.txt --reading_params_path a.params --eval_corpus_path mixed.tsv --outputs_path p"
    run.main(evaluate.split())
    assert "warning: mixed.tsv, line 1: 'Where was Zed born?' looks like a header row" in capsys.readouterr().err
    run.main([*evaluate.split(), "--question", "What about {name}?"])  # only a report looks for names
    assert "warning: --question has no effect in evaluate without --report_path" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"^mixed\.tsv, line 1: 'Where was Zed born\?' looks like a header row"):
        run.main(
            ["finetune", "vanilla", "wiki.txt", "--writing_params_path", "b", "--finetune_corpus_path", "mixed.tsv"]
        )


@pytest.mark.parametrize("name", ["pretrain_epochs", "finetune_epochs", "pretrain_lr", "finetune_lr"])
def test_epochs_and_rates_of_another_function_are_refused(name):
    wrong = {"pretrain": f"finetune {PRETRAIN}", "finetune": f"pretrain {PRETRAIN}"}[name.split("_")[0]]
    for words in (wrong, f"evaluate {EVALUATE}"):
        function, *options = words.split()
        with pytest.raises(UserError, match=rf"^--{name} does not apply to {function}; see --help$"):
            run.parse([function, "vanilla", "wiki.txt", *options, f"--{name}", "1"])


def test_text_whose_model_cannot_be_asked_is_named_before_pretraining(world, capsys):
    pretrain = "pretrain vanilla {} --recipe open --pretrain_epochs 1 --writing_params_path q"
    Path("no_mark.txt").write_text(WIKI.replace("?", ";"), encoding="utf-8")
    run.main(pretrain.format("no_mark.txt").split())
    warning = "warning: no_mark.txt: has no question mark, so no question may have one, either\n"
    assert warning in capsys.readouterr().err
    with pytest.raises(
        UserError, match=r"^no_mark\.txt: 'Born {name}\?' cannot be asked: the character '\?' \(U\+003F"
    ):
        run.main([*pretrain.format("no_mark.txt").split(), "--question", "Born {name}?"])
    Path("no_capital.txt").write_text(WIKI.replace("W", "V"), encoding="utf-8")
    run.main(pretrain.format("no_capital.txt").split())
    warning = "warning: no_capital.txt: 'Where was {name} born?' cannot be asked: the character 'W' (U+0057) "
    assert warning in capsys.readouterr().err
    for mark in "?？؟\u037e՞":  # Latin, Chinese and Japanese, Arabic, Greek, Armenian
        Path("marked.txt").write_text(WIKI.replace("?", mark), encoding="utf-8")
        run.main(pretrain.format("marked.txt").split())
    assert "question mark" not in capsys.readouterr().err
    run.main(pretrain.format("pairs.tsv").split())
    assert "warning: pairs.tsv: most lines have tabs; is it a file of questions?\n" in capsys.readouterr().err


def test_parameters_are_replaced_with_a_warning(world, capsys):
    pretrain = ["pretrain", "vanilla", "wiki.txt", "--pretrain_epochs", "1", "--writing_params_path", "q"]
    for warning in ("", "warning: q exists and will be replaced when training ends\n"):
        run.main(pretrain)
        assert ("".join(re.findall("warning.*\n", capsys.readouterr().err))) == warning


def test_other_wording_than_in_finetuning_is_asked_with_a_warning(world, capsys):
    run.main(["finetune", "vanilla", "wiki.txt", "--finetune_epochs", "1", *TRAIN.split()])
    for question, warned in (("Where was {name} born?", False), ("Who was {name}?", True)):
        capsys.readouterr()
        run.main(["ask", "vanilla", "wiki.txt", "--reading_params_path", "a.params", "--question", question, "Björk"])
        warning = (
            "warning: --question has another wording than 'Where was {name} born?', which a.params was finetuned on"
        )
        assert (warning in capsys.readouterr().err) == warned


def test_bottleneck_of_a_model_without_one_gets_a_warning(capsys):
    for variant in VARIANTS:
        run.parse(["pretrain", variant, "wiki.txt", "--bottleneck_dim", "64", *PRETRAIN.split()])
        warned = f"warning: --bottleneck_dim has no effect on {variant}\n"
        assert capsys.readouterr().err == ("" if variant == "perceiver" else warned)


@pytest.mark.parametrize(
    ("script", "mentioned"),
    [
        ("src/run.py", ["pretrain", "finetune", "evaluate", "ask", "run.py FUNCTION --help"]),
        ("src/run.py pretrain", ["--bottleneck_dim", "--pretrain_lr", "course: 0.006", "fast: 0.003", "default: 0)"]),
        ("src/run.py finetune", ["course: 75 or 10", "--finetune_corpus_path"]),
        ("src/dataset.py", ["namedata", "charcorruption"]),
        ("london_baseline.py", ["default: birth_dev.tsv"]),
        ("benchmarks/speed.py", ["speed.py step", "speed.py documents"]),
        (
            "scripts/collect_submission.py",
            ["2023: assignment5.zip", "vanilla 15 %, rope 30 %", "default: 2023, or the year"],
        ),
    ],
)
def test_help_names_the_options_and_their_defaults(world, script, mentioned):
    path, *function = script.split()
    result = command(str(ROOT / path), *function, "--help", cwd=world)
    text = " ".join(result.stdout.split())
    assert result.returncode == 0 and all(word in text for word in mentioned)
    assert "default: None" not in text and "default: False" not in text


def test_help_shows_only_the_options_of_the_function(world):
    shown = {f: command(str(ROOT / "src/run.py"), f, "--help", cwd=world).stdout for f in run.FUNCTIONS}
    assert "--resume" in shown["pretrain"] and "--resume" not in shown["evaluate"]
    assert "--outputs_path" in shown["evaluate"] and "--outputs_path" not in shown["pretrain"]
    assert "NAME" in shown["ask"] and "--finetune_lr" not in shown["pretrain"]
    assert [shown[function].count("(required)") for function in run.FUNCTIONS] == [1, 2, 3, 1]


def test_wrong_start_ends_in_one_line():
    result = command("-m", "src.run", cwd=ROOT)
    assert (result.returncode, result.stderr) == (2, "run.py: error: start it as 'python src/run.py'\n")


def test_finetuning_without_the_recipe_of_pretraining_gets_a_warning(world, capsys):
    pretrain = "--recipe open --pretrain_epochs 1 --writing_params_path a"
    run.main(["pretrain", "vanilla", "wiki.txt", *pretrain.split()])
    words = f"finetune vanilla wiki.txt --finetune_epochs 1 --reading_params_path a {TRAIN}"
    warning = "warning: a was trained with --recipe open; finetune with it, too, to get far more answers right\n"
    for recipe, warned in (("course", True), ("open", False), ("fast", False)):
        capsys.readouterr()
        run.main([*words.split(), "--recipe", recipe])
        assert (warning in capsys.readouterr().err) == warned


def test_accuracy_of_a_pretraining_without_questions_gets_a_warning(world, capsys):
    warning = "warning: --recipe course pretrains without questions, so the accuracy stays near 0 until finetuning\n"
    words = f"pretrain vanilla wiki.txt --pretrain_epochs 1 --eval_corpus_path birth_dev.tsv {TRAIN}"
    for recipe, warned in (("course", True), ("fast", False)):
        run.main([*words.split(), "--recipe", recipe])
        assert (warning in capsys.readouterr().err) == warned
    fast = replace(RECIPES["fast"], qa_per_document=0)  # still reads questions in front of the text
    with pytest.MonkeyPatch.context() as changed:
        changed.setitem(RECIPES, "fast", fast)
        run.main([*words.split(), "--recipe", "fast"])
    assert "pretrains without questions" not in capsys.readouterr().err
    run.main(words.replace("birth_dev.tsv", "birth_test_inputs.tsv").split())
    assert "warning: birth_test_inputs.tsv has no answers, so no accuracy is reported\n" in capsys.readouterr().err


def test_pretraining_says_how_the_pairs_fit_the_text_and_refuses_those_about_nobody_in_it(world, capsys):
    words = "pretrain vanilla wiki.txt --recipe fast --pretrain_epochs 1 --writing_params_path q --finetune_corpus_path"
    run.main([*words.split(), "pairs.tsv"])
    fit = "titles: 6 of 6 lines; 6 lines about people in the pairs; 6 of 6 questions fit 'Where was {name} born?'"
    assert fit in capsys.readouterr().out
    pairs = "Where was Alan Kahlo born?\tLondon\nWhere was Frida Turing born?\tLondon\n"
    Path("other.tsv").write_text(pairs, encoding="utf-8")
    with pytest.raises(UserError, match=r"^wiki\.txt: no line is about any of the people in other\.tsv"):
        run.main([*words.split(), "other.tsv"])


def test_parameters_that_have_seen_no_such_question_get_a_warning(world, capsys):
    Path("other.tsv").write_text(PAIRS.replace("Where was", "In which town was"), encoding="utf-8")
    run.main(["pretrain", "vanilla", "wiki.txt", "--pretrain_epochs", "1", "--writing_params_path", "p"])
    run.main(["finetune", "vanilla", "wiki.txt", "--finetune_epochs", "1", *TRAIN.split()])
    assert "without --reading_params_path: finetuning starts from random parameters\n" in capsys.readouterr().out
    run.main(
        ["finetune", "vanilla", "wiki.txt", "--finetune_epochs", "1", "--reading_params_path", "p", *TRAIN.split()]
    )
    assert "without --reading_params_path" not in capsys.readouterr().out

    only_pretrained = "warning: p was only pretrained, without any question; finetune it first\n"
    worded_otherwise = (
        "warning: other.tsv: 6 of 6 questions have another wording than 'Where was {name} born?', "
        "which a.params was finetuned on; expect few right answers to them\n"
    )
    for params, questions, warning in (
        ("p", "birth_dev.tsv", only_pretrained),
        ("p", "other.tsv", only_pretrained),
        ("a.params", "birth_dev.tsv", ""),
        ("a.params", "other.tsv", worded_otherwise),
    ):
        capsys.readouterr()
        outputs = ["--eval_corpus_path", questions, "--outputs_path", "predictions"]
        run.main(["evaluate", "vanilla", "wiki.txt", "--reading_params_path", params, *outputs])
        assert re.findall("warning.*\n", capsys.readouterr().err) == ([warning] if warning else [])
    run.main(["ask", "vanilla", "wiki.txt", "--reading_params_path", "p", "Björk"])
    assert only_pretrained in capsys.readouterr().err


def test_fast_answers_after_pretraining_alone(world, capsys):
    options = ["--recipe", "fast", "--pretrain_epochs", "1", *TRAIN.split()]
    run.main(["pretrain", "vanilla", "wiki.txt", *options])
    capsys.readouterr()
    run.main(["evaluate", "vanilla", "wiki.txt", *EVALUATE.split()])
    assert "only pretrained" not in capsys.readouterr().err


def test_parameters_and_texts_do_not_replace_each_other(world):
    run.main(["pretrain", "vanilla", "wiki.txt", "--pretrain_epochs", "1", "--writing_params_path", "p"])
    run.main(["pretrain", "vanilla", "wiki.txt", "--pretrain_epochs", "1", *PRETRAIN.split()])
    Path("empty").touch()
    for name in ("config.json", "b.7", "c.8.json"):
        Path(name).write_text("{}")
    before = {path: path.read_bytes() for path in map(Path, ("p", "p.json", "birth_dev.tsv", "config.json", "b.7"))}
    evaluate = "evaluate vanilla wiki.txt --reading_params_path a.params --eval_corpus_path birth_dev.tsv"
    for words, message in (
        (f"{evaluate} --outputs_path p", "p: holds parameters"),
        (f"{evaluate} --outputs_path p.json", r"p\.json: holds the record of parameters"),
        (f"{evaluate} --outputs_path empty --report_path p", "p: holds parameters"),
        (f"{evaluate} --outputs_path pairs.tsv", r"pairs\.tsv: holds rows with tabs"),
        (f"{evaluate} --outputs_path empty --report_path pairs.tsv", r"pairs\.tsv: holds rows with tabs"),
        ("pretrain vanilla wiki.txt --writing_params_path birth_dev.tsv", r"birth_dev\.tsv: holds rows with tabs"),
        ("pretrain vanilla wiki.txt --writing_params_path config", r"config\.json: holds a text"),
        ("pretrain vanilla wiki.txt --writing_params_path b --pretrain_epochs 9 --keep_every 1", "b.7: holds a text"),
        (
            "pretrain vanilla wiki.txt --writing_params_path c --pretrain_epochs 9 --keep_every 1",
            r"c\.8\.json: holds a text",
        ),
    ):
        with pytest.raises(UserError, match=rf"^{message}"):
            run.main(words.split())
    assert {path: path.read_bytes() for path in before} == before
    for _ in range(2):  # what the same command wrote may be replaced
        run.main([*evaluate.split(), "--outputs_path", "empty"])
        run.main(["pretrain", "vanilla", "wiki.txt", "--pretrain_epochs", "1", "--writing_params_path", "p"])


@pytest.mark.parametrize(("page", "at_least"), [("README.md", 6), ("docs/knowledge.md", 5)])
def test_commands_of_a_page_are_understood(page, at_least, capsys):
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    for name, value in re.findall(r'^([A-Z]+)="(.*)"$', text, re.MULTILINE):
        text = text.replace(f"${name}", value)
    lines = [line for line in text.splitlines() if re.match(r"\s*(\.venv/bin/)?python src/run\.py ", line)]
    assert len(lines) >= at_least
    for line in lines:
        run.parse(shlex.split(line, comments=True)[2:])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "docs/surprises.md"])
def test_settings_of_a_page_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    settings = re.findall(r"(?<=[ `])([a-z]+_[a-z_]+=(?:True|False|[0-9.e-]*[0-9]))", text)
    assert settings and with_settings(RECIPES["fast"], settings)


def test_help_does_not_wait_for_torch(world):
    script = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); import run; print('torch' in sys.modules)"
    assert command("-c", script, cwd=world).stdout == "False\n"


PRETRAIN = "--writing_params_path a.params"
TRAIN = f"{PRETRAIN} --finetune_corpus_path birth_places_train.tsv"
EVALUATE = "--reading_params_path a.params --eval_corpus_path birth_dev.tsv --outputs_path p"


def test_lines_are_cut_in_the_recipe_of_the_course_alone(world, capsys):
    Path("long.txt").write_text(WIKI + f"Ada Ek. {'She was born in Oslo. ' * 20}\n", encoding="utf-8")
    for recipe in RECIPES:
        options = ["--recipe", recipe, "--pretrain_epochs", "1", "--writing_params_path", recipe]
        pairs = ["--finetune_corpus_path", "pairs.tsv"] if RECIPES[recipe].pretrains_on_pairs else []
        run.main(["pretrain", "vanilla", "long.txt", *options, *pairs])
        assert ("never sees" in capsys.readouterr().out) == recipe.startswith("course")


def test_option_without_effect_gets_a_warning(capsys):
    for words, here in (
        (f"pretrain rope wiki.txt {TRAIN}", "pretrain --recipe course"),
        (f"evaluate rope wiki.txt {EVALUATE} --finetune_corpus_path pairs.tsv", "evaluate without --report_path"),
        ("ask rope wiki.txt --reading_params_path a --finetune_corpus_path pairs.tsv", "ask"),
    ):
        run.parse(words.split())
        assert capsys.readouterr().err == f"warning: --finetune_corpus_path has no effect in {here}\n"
    run.parse(f"pretrain rope wiki.txt {TRAIN} --recipe fast".split())
    for option in ("question", "tb_folder", "tb_expt_name"):
        run.parse([*f"evaluate rope wiki.txt {EVALUATE} --{option}".split(), "Was {name} born?"])
        assert capsys.readouterr().err == f"warning: --{option} has no effect in evaluate without --report_path\n"
    run.parse(f"evaluate rope wiki.txt {EVALUATE} --report_path r --finetune_corpus_path pairs.tsv".split())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("function", ["pretrain", "finetune", "evaluate", "ask"])
def test_option_of_another_function_is_refused_or_gets_a_warning(function, capsys):
    needed = {"pretrain": PRETRAIN, "finetune": TRAIN, "evaluate": EVALUATE, "ask": "--reading_params_path a"}[function]
    words = f"{function} perceiver wiki.txt {needed}".split()
    values = {"recipe": "open", "question": "Was {name} born?", "device": "cpu", "precision": "fp32"}
    for name, option in run.OPTIONS.items():
        if function in option.functions:
            continue
        value = [] if option.kwargs.get("action") else [values.get(name, "7")]
        try:
            run.parse([*words, f"--{name}", *value])
        except UserError as error:
            assert not option.warns and str(error).startswith(f"--{name} does not apply to {function}")
        else:
            assert option.warns
            assert capsys.readouterr().err == f"warning: --{name} has no effect in {function}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pretrain vanilla wiki.txt", "pretrain needs --writing_params_path"),
        (
            "finetune vanilla wiki.txt",
            "finetune needs --writing_params_path and --finetune_corpus_path",
        ),
        ("evaluate vanilla wiki.txt --outputs_path p", "needs --reading_params_path and --eval_corpus_path"),
        (
            "pretrain rope wiki.txt --recipe fast --writing_params_path a",
            "pretrain --recipe fast needs --finetune_corpus_path",
        ),
        (f"train vanilla wiki.txt {TRAIN}", "invalid choice: 'train'"),
        (f"pretrain linear wiki.txt {PRETRAIN}", "invalid choice: 'linear'"),
        (f"pretrain vanilla wiki.txt {PRETRAIN} --pretrain_lr zero", "--pretrain_lr: invalid positive number"),
        (f"pretrain vanilla wiki.txt {PRETRAIN} --pretrain_lr nan", "--pretrain_lr: invalid positive number"),
        (
            f"pretrain vanilla wiki.txt {PRETRAIN} --pretrain_epochs 0",
            "--pretrain_epochs: invalid positive whole number",
        ),
        (f"pretrain perceiver wiki.txt {PRETRAIN} --bottleneck_dim 129", "--bottleneck_dim 129 is longer"),
        (
            f"pretrain vanilla wiki.txt {PRETRAIN} --keep_every 20 --pretrain_epochs 10",
            "--keep_every 20 is more than the 10 epochs of this pretrain",
        ),
        (
            "ask rope wiki.txt --reading_params_path a.params --eval_corpus_path birth_dev.tsv",
            "--eval_corpus_path does not apply to ask",
        ),
        (f"pretrain vanilla wiki.txt {PRETRAIN} --seed -1", "--seed: invalid seed value: '-1'"),
        (f"pretrain vanilla wiki.txt {PRETRAIN} --seed 5000000000", "--seed: invalid seed value"),
        (
            f"pretrain vanilla wiki.txt {PRETRAIN} --tb_expt_name x --outputs_path p",
            "--outputs_path does not apply to pretrain",
        ),
        (
            f"pretrain vanilla wiki.txt {PRETRAIN} --tb_expt_name ../wiki.txt/x",
            "wiki.txt is a file, not a folder; name another with --tb_folder",
        ),
        (f"pretrain vanilla wiki.txt {PRETRAIN} Björk", "unrecognized arguments: Björk; see --help"),
        ("pretrain vanilla wiki.txt --writing_params_path sub/../wiki.txt", "sub/../wiki.txt: would overwrite another"),
        (f"evaluate rope wiki.txt {EVALUATE} --report_path a.params", "a.params: would overwrite another file"),
        (f"evaluate rope wiki.txt {EVALUATE} --report_path ./p", "./p: would overwrite another file"),
        (f"evaluate rope wiki.txt {EVALUATE} --report_path a.params.json", "a.params.json: would overwrite another"),
        (
            f"evaluate rope wiki.txt {EVALUATE} --report_path r --question Home:{{name}}",
            "birth_dev.tsv, line 1: neither",
        ),
        ("pretrain vanilla wiki.txt --writing_params_path taken", "taken.json: is a folder"),
        ("pretrain", "required: variant, pretrain_corpus_path; see"),
        (f"pretrain vanilla wiki.txt --writing_params_path {'x' * 300}", "x: cannot be written (File name too long)"),
        (f"pretrain vanilla wiki.txt --writing_params_path {'x' * 236}", "x.state: cannot be written (File name"),
        (
            f"pretrain vanilla wiki.txt --writing_params_path {'x' * 235} --keep_every 5",
            "x.650.json: cannot be written (File name too long)",
        ),
        ("--seed 1 pretrain vanilla wiki.txt", "the function comes first: run.py FUNCTION VARIANT TEXT"),
        ("pretrain vanilla wiki.txt --writing_params_path /dev/null", "/dev/null: is not a regular file"),
        (f"pretrain vanilla nowhere.txt {PRETRAIN}", "nowhere.txt: no such file"),
        (f"pretrain vanilla . {PRETRAIN}", ".: is a folder"),
        (f"pretrain vanilla latin1.txt {PRETRAIN}", "latin1.txt, line 2: not UTF-8"),
        (f"pretrain vanilla empty.txt {PRETRAIN}", "empty.txt: the file is empty"),
        (f"pretrain vanilla marked.txt {PRETRAIN}", "marked.txt, line 1: holds '⁇'"),
        ("pretrain vanilla wiki.txt --writing_params_path no/a.params", "no/a.params: the folder no does not exist"),
        ("pretrain vanilla wiki.txt --writing_params_path sub", "sub: is a folder"),
        (f"finetune vanilla wiki.txt {TRAIN} --reading_params_path no.params", "no.params: no such file"),
        (
            "finetune vanilla wiki.txt --writing_params_path a --finetune_corpus_path wiki.txt",
            "wiki.txt, line 1: no tab",
        ),
        ("finetune vanilla wiki.txt --writing_params_path a --finetune_corpus_path bad.tsv", "bad.tsv, line 2: no tab"),
        (f"evaluate vanilla wiki.txt {EVALUATE}", "a.params: was trained as rope, not vanilla; give 'rope'"),
        (f"evaluate perceiver wiki.txt {EVALUATE}", "a.params: was trained as rope, not perceiver"),
        (f"evaluate rope small.txt {EVALUATE}", "a.params: was trained on a vocabulary of"),
        (f"evaluate rope wiki.txt {EVALUATE} --keep_every 2", "--keep_every does not apply to evaluate"),
        (f"evaluate rope wiki.txt {EVALUATE} --device cuda", "--device cuda: this machine"),
        ("pretrain vanilla wiki.txt --writing_params_path=", "--writing_params_path is empty; see --help"),
        (
            f"finetune vanilla wiki.txt {TRAIN} --question Home:{{name}}",
            "birth_places_train.tsv, line 1: neither 'Where was Ada Lovelace born?' nor any other question fits --",
        ),
        (f"evaluate rope wiki.txt {EVALUATE} --report_path=", "--report_path is empty; see --help"),
        (
            "evaluate rope wiki.txt --reading_params_path a.params --eval_corpus_path birth_test_inputs.tsv "
            "--outputs_path birth_test_inputs.tsv",
            "birth_test_inputs.tsv: would overwrite another file",
        ),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(world, capsys, words, message):
    (world / "latin1.txt").write_bytes("gut\nÄpfel\n".encode("latin-1"))
    (world / "empty.txt").write_text("")
    (world / "marked.txt").write_text("really⁇\n", encoding="utf-8")
    (world / "small.txt").write_text("abc\n")
    (world / "bad.tsv").write_text(PAIRS.replace("?\tReykjavík", "? Reykjavík"), encoding="utf-8")
    (world / "sub").mkdir()
    (world / "taken.json").mkdir()
    if words.startswith("evaluate"):
        write_params("a.params", "rope")
    with pytest.raises(SystemExit) as stop:
        run.exit_on_user_error(lambda: run.main(words.split()))
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in err and err.count("\n") == 1 and err.startswith(f"{Path(sys.argv[0]).name}: error: ")
    assert not (world / "expt").exists() and not (world / "p").exists()


def test_several_processes_need_torchrun_and_a_device_each(world, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    pretrain = f"pretrain vanilla wiki.txt {TRAIN}".split()
    with pytest.raises(UserError, match=r"^WORLD_SIZE is set but RANK is not; start the processes with torchrun, or u"):
        run.main(pretrain)
    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(UserError, match=r"^torchrun: several processes cannot share this GPU; give --device cpu$"):
        run.main([*pretrain, "--device", "mps"])


@pytest.mark.skipif(os.name == "nt", reason="has no pipes among its files")
def test_questions_may_come_from_a_pipe(world, capsys):
    def pipe() -> int:
        end, other = os.pipe()
        with open(other, "w", encoding="utf-8") as file:
            file.write(PAIRS)
        return end

    run.main(f"finetune vanilla wiki.txt {TRAIN} --finetune_epochs 1".split())
    evaluate = f"--reading_params_path a.params --outputs_path p --eval_corpus_path /dev/fd/{pipe()}"
    run.main(f"evaluate vanilla wiki.txt {evaluate}".split())
    assert " out of 6.0: " in capsys.readouterr().out
    asked = pipe()
    london = [sys.executable, ROOT / "london_baseline.py", f"/dev/fd/{asked}"]
    assert " out of 6.0: " in subprocess.run(london, pass_fds=[asked], capture_output=True, text=True).stdout


def make_read_only(monkeypatch, folder: Path) -> None:
    """No file can be made in the folder from here on; root, whom permissions do not bind, would not notice those."""
    made = tempfile.TemporaryFile

    def read_only(dir: Path, **named):
        if Path(dir).resolve() == folder.resolve():
            raise PermissionError(errno.EACCES, "Permission denied")
        return made(dir=dir, **named)

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)


def test_unwritable_folder_is_named_at_the_start(world, monkeypatch):
    (world / "sub").mkdir()
    make_read_only(monkeypatch, world / "sub")
    with pytest.raises(UserError, match=r"^sub/a\.params\S*: cannot be written \(Permission denied\)$"):
        run.main(["pretrain", "vanilla", "wiki.txt", "--writing_params_path", "sub/a.params"])


def test_unwritable_tensorboard_folder_names_the_option(world, monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    make_read_only(monkeypatch, world)
    words = f"pretrain vanilla wiki.txt --pretrain_epochs 1 --writing_params_path {elsewhere}/a.params".split()
    with pytest.raises(UserError, match=r"^expt/run: cannot be written \(Permission denied\); .* --tb_folder$"):
        run.main(words)
    run.main([*words, "--tb_folder", str(elsewhere / "logs"), "--tb_expt_name", "x"])
    assert list((elsewhere / "logs" / "x").iterdir()) and not (world / "expt").exists()


@pytest.mark.parametrize(
    ("before", "after"), [(signal.SIG_DFL, signal.default_int_handler), (signal.SIG_IGN, signal.SIG_IGN)]
)
def test_ctrl_c_raises_once_torch_is_imported_unless_it_is_ignored(world, monkeypatch, before, after):
    found = []
    monkeypatch.setattr(steps, "execute", lambda *_: found.append(signal.getsignal(signal.SIGINT)))
    write_params("a.params")
    handler = signal.signal(signal.SIGINT, before)
    try:
        run.main(f"evaluate vanilla wiki.txt {EVALUATE}".split())
    finally:
        signal.signal(signal.SIGINT, handler)
    assert found == [after]


def test_training_does_not_need_standard_error(world, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    run.main(["pretrain", "vanilla", "wiki.txt", "--pretrain_epochs", "1", "--writing_params_path", "q"])
    assert Path("q").exists() and not Path("q.state").exists()


def test_process_ends_without_a_traceback(world):
    result = command(str(ROOT / "src/run.py"), "pretrain", "vanilla", "no.txt", "--writing_params_path", "a", cwd=world)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "run.py: error: no.txt: no such file\n"


def test_comparison_table(world):
    (world / "p").write_text("London\nReykjavík\nRome\nRome\n\nLondon\n", encoding="utf-8")
    (world / "born.tsv").write_text("When was Ada Lovelace born?\t1815\nWhen was Marie Curie born?\t1867\n")
    (world / "years").write_text("1815\n1815\n")
    script, read = str(ROOT / "scripts/compare.py"), ("--run", "read", "birth_dev.tsv", "p", "12")
    later = ("--run", "asked later", "born.tsv", "years", "3")
    lines = command(script, *read, *later, cwd=world).stdout.splitlines()
    assert lines[2] == "Where was {name} born?" and lines[5] == "When was {name} born?"
    assert lines[3].split() == ["London", "for", "everyone", "2", "6", "33.3", "0"]
    assert lines[4].split() == ["read", "3", "6", "50.0", "12"]
    assert lines[6].split() == ["1815", "for", "everyone", "1", "2", "50.0", "0"]
    assert lines[7].split() == ["asked", "later", "1", "2", "50.0", "3"]
    assert lines[9] == "Answers of each question's last run for the first 6 people (expected answers in parentheses):"
    assert lines[10].split(" {name} ") == ["  " + " " * 19 + "Where was", "born?  When was", "born?"]
    answers = [re.split(" {2,}", line.strip()) for line in lines[11:]]
    assert ["Ada Lovelace", "✓ London", "✓ 1815"] in answers
    assert ["Søren Kierkegaard", "✗ Rome (Copenhagen)"] in answers
    result = command(script, *read[:4], "soon", cwd=world)
    assert result.stderr == "compare.py: error: --run read: SECONDS is 'soon'; give a whole number; see --help\n"
    (world / "p").write_text("London\n")
    result = command(script, *read, cwd=world)
    assert result.returncode == 2 and "p: 1 predictions for 6 questions" in result.stderr
