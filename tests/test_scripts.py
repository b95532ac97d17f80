"""The scripts that measure and draw: experiments, invented names, pictures."""

import io
import os
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from conftest import PAIRS, PEOPLE, ROOT, WIKI, small_model

import experiment
import invented
import pictures
import run
from checkpoint import read_record
from cli import UserError
from dataset import CharCorruptionDataset
from question import parse_pairs
from recipe import RECIPES, with_settings
from records import append_record, read_records

ASCII = "".join(map(chr, range(32, 127)))


@pytest.mark.parametrize("script", [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / "collect_submission.sh"])
def test_shell_scripts_can_be_parsed(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize(
    "words", ["quickstart.sh x", "speedrun.sh vanilla x", "speedrun.sh vanila", "speedrun.sh --help"]
)
def test_shell_scripts_print_their_usage_before_they_install_anything(words):
    script, *arguments = words.split()
    said = subprocess.run(["bash", ROOT / "scripts" / script, *arguments], capture_output=True, text=True)
    assert said.returncode == 2 and said.stderr.startswith(f"usage: bash scripts/{script} ") and said.stdout == ""


def test_speedrun_finds_a_folder_from_where_the_user_stands(tmp_path):
    command = ["bash", ROOT / "scripts/speedrun.sh", "vanilla", "0", "data"]
    environment = os.environ | {"PYTHON": "false"}  # so that nothing is trained
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (said.returncode, said.stderr) == (2, f"{tmp_path}/data/wiki.txt: no such file\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/wiki.txt").touch()
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert said.returncode == 2 and said.stderr.startswith("Python 3.10 or newer is needed")


def test_settings_are_changed_by_name():
    fast = RECIPES["fast"]
    recipe = with_settings(fast, ["question_prefix_prob=0", "pretrain_batch_size=16", "decay_to_end_of_run=False"])
    changes = {"question_prefix_prob": 0.0, "pretrain_batch_size": 16, "decay_to_end_of_run": False}
    assert asdict(recipe) == asdict(fast) | changes


def test_recipe_that_reads_facts_cannot_pretrain_on_pairs():
    with pytest.raises(UserError, match=r"^qa_per_document: .* set it to 0$"):
        with_settings(RECIPES["open"], ["qa_per_document=0.1"])
    settings = ["reads_facts=True", "qa_per_document=0"]
    assert with_settings(RECIPES["fast"], settings) == with_settings(RECIPES["fast"], settings[::-1])


def test_empty_option_is_no_default(monkeypatch):
    monkeypatch.setattr("sys.argv", ["experiment.py", "run", "--folder", ""])
    with pytest.raises(UserError, match=r"^--folder is empty; see --help$"):
        experiment.main()


def test_long_folder_names_differ_in_their_hash():
    assert experiment.folder_name(["run", "", "muon_lr=0 dropout=0.1", "4x2"]) == "run,muon_lr=0,dropout=0.1,4x2"
    first, second = (experiment.folder_name(["finetune_lr=6e-4"] * 20 + [seed]) for seed in ("1", "2"))
    assert first != second and first[:190] == second[:190] and len(first) == len(second) < 255
    assert len(experiment.folder_name(["ж" * 130]).encode()) < 255
    assert experiment.folder_name(["caf\udce9" * 50]) != experiment.folder_name(["caf\udcea" * 50])


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("context=0", "not NAME=VALUE of a setting in src/recipe.py"),
        ("name=x", "not NAME=VALUE of a setting in src/recipe.py"),
        ("", "not NAME=VALUE of a setting in src/recipe.py"),
        ("context_chars", "context_chars must be a whole number"),
        ("context_chars=much", "context_chars must be a whole number"),
        ("pretrain_epochs=1.5", "pretrain_epochs must be a whole number"),
        ("decay_all=1", "decay_all must be True or False"),
        ("muon_lr=high", "muon_lr must be a number"),
        ("pretrain_batch_size=0", "must be at least 1"),
        ("context_chars=-1", "must be 0 or more"),
        ("word_weight=-0.5", "must be 0 or more"),
        ("pretrain_cosine_epochs=-2", "must be 0 or more"),
        ("muon_lr=nan", "must be 0 or more"),
        ("pretrain_lr=inf", "must be 0 or more"),
        ("dropout=1", "must be at most 0.99"),
        ("entity_mask_prob=1.5", "must be at most 1"),
    ],
)
def test_wrong_setting_is_refused(setting, problem):
    with pytest.raises(UserError, match=f"^{setting}: {problem}$"):
        with_settings(RECIPES["fast"], [setting])


def test_every_row_of_an_experiment_has_settings_that_exist():
    for rows in experiment.EXPERIMENTS.values():
        for row in rows:
            with_settings(RECIPES["fast"], row.settings.split())


@pytest.mark.parametrize("recipe", experiment.ABLATIONS)
def test_every_row_of_an_ablation_is_another_run(recipe):
    rows = experiment.ABLATIONS[recipe]
    assert len({with_settings(RECIPES[recipe], row.settings.split()) for row in rows}) == len(rows)


def test_ablation_of_another_recipe_is_refused(monkeypatch):
    monkeypatch.setattr("sys.argv", ["experiment.py", "ablation", "--recipe", "course"])
    with pytest.raises(UserError, match=r"^ablation takes --recipe fast or open; "):
        experiment.main()


def parts_of(folder: Path) -> dict[str, list[tuple[str, str]]]:
    names = ("asked", "trained_on")
    return {name: parse_pairs((folder / f"{name}.tsv").read_text(encoding="utf-8")) for name in names}


@pytest.mark.parametrize(("people", "asked"), [(0, 1), (3, 1), (6, 2)])
def test_held_out_people_are_read_about_but_in_no_pair(tmp_path, people, asked):
    pairs = parse_pairs(PAIRS)
    experiment.write_world(tmp_path, *experiment.held_out_world(WIKI, pairs, people))
    assert pairs == parse_pairs(PAIRS)
    parts = parts_of(tmp_path)
    everybody = [*parts["asked"], *parts["trained_on"]]
    assert len(parts["asked"]) == asked and len(set(everybody)) == len(everybody) == (people or len(PEOPLE))
    text = (tmp_path / "wiki.txt").read_text(encoding="utf-8")
    assert set(text) == set(WIKI)
    for name, place in PEOPLE:
        assert (f"\n{name}. " in f"\n{text}") == ((f"Where was {name} born?", place) in everybody)
    assert sorted(os.listdir(tmp_path)) == ["asked.tsv", "trained_on.tsv", "wiki.txt"]


def test_held_out_question_is_not_trained_on_with_another_answer(tmp_path):
    pairs = parse_pairs(PAIRS)
    twice = [*pairs, *((question, "elsewhere") for question, _ in pairs)]
    experiment.write_world(tmp_path, *experiment.held_out_world(WIKI, twice, 0))
    asked, trained_on = ({question for question, _ in part} for part in parts_of(tmp_path).values())
    assert asked and trained_on and not asked & trained_on
    with pytest.raises(UserError, match=r"^2 people are too few to ask about one in 5; give more pairs$"):
        experiment.held_out_world(WIKI, pairs[:2], 0)
    with pytest.raises(UserError, match=r"^--people 7 is more than the 6 pairs$"):
        experiment.held_out_world(WIKI, pairs, 7)


def test_how_often_readings_mask_the_answer(tmp_path):
    text = "A. B. Ada. she went to Rome\nBea. from Oslo she went to Bonn\nCleo. she went to Lima\nWhere was it born?"
    (tmp_path / "trained_on.tsv").write_text("Where was Cleo born?\tLima\n")
    recipe = with_settings(RECIPES["fast"], ["entity_mask_prob=1", "weight_by_answer_odds=False"])

    def masked(text: str, asked: str) -> dict[str, float]:
        (tmp_path / "wiki.txt").write_text(text * 20)
        (tmp_path / "asked.tsv").write_text(asked)
        torch.manual_seed(0)
        return experiment.masked_answers(recipe, tmp_path)

    asked = "Where was A. B. Ada born?\tRome\nWhere was Bea born?\tOslo\n"
    often = masked(text + "\n", asked)  # Bea's line has two names, drawn alike
    assert often["percent_answer_masked"] == pytest.approx(75, abs=4)
    assert often["percent_answer_masked_most"] == pytest.approx(75, abs=17)
    assert set(masked(text.replace("Oslo", "here") + "\n", asked).values()) == {50.0}
    assert masked(text, "Where was Dan born?\tRome\n") == {}


def test_row_is_trained_asked_and_recorded(world, monkeypatch, capsys):
    words = "experiment.py run pretrain_epochs=2 finetune_epochs=1 --folder . --held_out --every 1"
    monkeypatch.setattr("sys.argv", words.split())
    experiment.main()
    (record,) = read_records("experiments/results.jsonl")
    assert record["changed"] == {"pretrain_epochs": 2, "finetune_epochs": 1}
    assert record["settings"] == {k: v for k, v in asdict(RECIPES["fast"]).items() if k != "name"} | record["changed"]
    assert (record["asked"], record["variant"], record["seed"]) == (1, "vanilla", 0)
    assert [epoch for epoch, _ in record["curve"]] == [1, 2] and len(record["measured"]["largest_attention"]) == 4
    said = capsys.readouterr()
    assert f"{record['correct']} of 1 right" in said.out and "will be replaced" not in said.err
    (folder,) = Path("experiments").glob("run,*")
    final = read_record(str(folder / "finetune.params"))["reading_params_path"]
    assert final.endswith("pretrain.params")  # not those kept after epoch 1, which are finetuned for the curve
    assert read_record(str(folder / "kept.params"))["reading_params_path"].endswith("pretrain.params.1")


def test_experiment_continues_where_it_was_stopped(world, monkeypatch, capsys):
    monkeypatch.setattr("checkpoint.current_commit", lambda: "0123456-dirty")

    def main(more: str = "") -> None:
        words = f"experiment.py run pretrain_epochs=1 finetune_epochs=1 --held_out --folder . {more}"
        monkeypatch.setattr("sys.argv", words.split())
        experiment.main()

    with pytest.raises(UserError, match=r"^--resume: this experiment has not been started here; leave it out$"):
        main("--resume")

    answer = experiment.Measurement.finetune_and_answer
    monkeypatch.setattr(experiment.Measurement, "finetune_and_answer", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        main()
    with pytest.raises(UserError, match=r": is an unfinished run; continue it with --resume, or remove the folder$"):
        main()
    monkeypatch.setattr(experiment.Measurement, "finetune_and_answer", answer)
    (pretrained,) = Path("experiments").glob("run,*/pretrain.params")
    before = pretrained.stat().st_mtime_ns
    with pytest.raises(UserError, match=r"^--resume: "):
        main("--resume --seed 1")  # another experiment
    main("--resume")
    (record,) = read_records("experiments/results.jsonl")
    assert pretrained.stat().st_mtime_ns == before and (record["seconds"], record["commit"]) == ({}, "0123456")
    assert record["note"] == "with changes that were not committed; resumed, so its times are not known"
    main("--resume")
    assert len(read_records("experiments/results.jsonl")) == 1 and "already recorded" in capsys.readouterr().out
    monkeypatch.setattr(experiment.Measurement, "run", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):  # a new run, stopped in an earlier row
        main()
    with pytest.raises(UserError, match=r"^--resume: "):  # would continue with rows of the run before
        main("--resume")


def test_experiment_continues_only_with_its_own_text_and_epochs(world, monkeypatch):
    def main(*more: str) -> None:
        words = ["experiment.py", "run", "pretrain_epochs=2", "finetune_epochs=1", "--held_out", "--folder", "course"]
        monkeypatch.setattr("sys.argv", [*words, *more])
        experiment.main()

    monkeypatch.setattr(experiment.Measurement, "finetune_and_answer", Mock(side_effect=KeyboardInterrupt))
    for user in ("ann", "bob"):
        folder = Path(user, "course")
        folder.mkdir(parents=True)
        for name in ("wiki.txt", "birth_places_train.tsv"):
            (folder / name).write_bytes(Path(name).read_bytes())
    monkeypatch.chdir("ann")
    with pytest.raises(KeyboardInterrupt):
        main("--every", "1")
    (begun,) = Path("experiments").glob("run,*")
    for more in ([], ["--every", "2"]):  # other parameters would be kept
        with pytest.raises(UserError, match=r"^--resume: this experiment has not been started here"):
            main("--resume", *more)
    with pytest.raises(UserError, match=r"^--resume: this experiment has not been started here"):
        main("--every", "1", "--resume", "--folder", "../bob/course")  # of the same name
    with (
        monkeypatch.context() as changed,
        pytest.raises(UserError, match=r": was pretrained with context_chars=6; set"),
    ):
        changed.setitem(RECIPES, "fast", replace(RECIPES["fast"], context_chars=12))
        main("--every", "1", "--resume")
    with monkeypatch.context() as changed, pytest.raises(KeyboardInterrupt):  # finetuning begins again anyway
        changed.setitem(RECIPES, "fast", replace(RECIPES["fast"], finetune_batch_size=7))
        main("--every", "1", "--resume")
    pairs = Path("course/birth_places_train.tsv")
    before = pairs.read_text(encoding="utf-8")
    pairs.write_text(before.replace("\t", "\tNew "), encoding="utf-8")
    with pytest.raises(UserError, match=r"pretrain\.params: was pretrained on other pairs; give those, or remove .*$"):
        main("--every", "1", "--resume")
    pairs.write_text(before, encoding="utf-8")
    Path("course/wiki.txt").write_text(WIKI + "Ada Ek. Born in Oslo.\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"pretrain\.params: was pretrained on another text; leave out --resume$"):
        main("--every", "1", "--resume")
    assert begun.name.endswith("ann-course,held_out,every=1,pretrain_epochs=2,finetune_epochs=1")


def test_experiment_whose_output_cannot_be_printed_writes_its_record(world, monkeypatch):
    closed = SimpleNamespace(write=Mock(side_effect=BrokenPipeError), flush=Mock())
    monkeypatch.setattr("sys.stdout", closed)
    words = "experiment.py run pretrain_epochs=1 finetune_epochs=1 --folder . --held_out"
    monkeypatch.setattr("sys.argv", words.split())
    experiment.main()
    assert len(read_records("experiments/results.jsonl")) == 1 and closed.write.called


def test_attention_of_a_layer_with_few_positions_is_measured():
    model = small_model(20, "perceiver", n_layer=2, bottleneck_dim=4).eval()
    for largest in experiment.largest_weights(model, [[3] * 30]):
        assert 0 < largest <= 1


def test_row_without_every_has_the_accuracies_that_training_prints(world, monkeypatch):
    words = "experiment.py run pretrain_epochs=2 finetune_epochs=1 --folder . --held_out"
    monkeypatch.setattr("sys.argv", words.split())
    monkeypatch.setattr(experiment, "MARKS", (0,))
    experiment.main()
    (record,) = read_records("experiments/results.jsonl")
    assert [epoch for epoch, _ in record["curve"]] == [1, 2]
    assert 0 <= record["seconds"]["to_0_percent"] <= record["seconds"]["total"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("run --people 3 --held_out", "--people holds out a third of them; leave out --held_out"),
        ("variants --variant rope", "variants chooses its variants; leave out --variant"),
        ("sweep --variant rope", "sweep chooses its variants; leave out --variant"),
    ],
)
def test_option_without_effect_is_refused(monkeypatch, words, problem):
    monkeypatch.setattr("sys.argv", ["experiment.py", *words.split()])
    with pytest.raises(UserError, match=f"^{problem}; see --help$"):
        experiment.main()


@pytest.fixture
def measurement(world, monkeypatch) -> type:
    """experiment.Measurement, whose rows are not trained; finetune_and_answer() is left to the test."""
    measurement = experiment.Measurement
    monkeypatch.setattr(measurement, "pretrain", lambda _: None)
    monkeypatch.setattr(measurement, "measured", lambda _: {})
    monkeypatch.setattr(measurement, "common_record", lambda *_: {"experiment": "relations"})
    monkeypatch.setattr(experiment, "make_world", lambda *arguments: arguments[2].mkdir(exist_ok=True) or "embedded")
    monkeypatch.setattr(experiment, "sha256_of", lambda *_: {})
    monkeypatch.setattr(experiment, "record", lambda values: append_record(str(experiment.RESULTS), values))
    return measurement


def test_mark_that_only_finetuning_passes_is_timed(measurement, monkeypatch):
    monkeypatch.setattr("sys.argv", ["experiment.py", "run"])
    monkeypatch.setattr(measurement, "finetune_and_answer", Mock(return_value=(20, 17)))
    monkeypatch.setattr(measurement, "pretrain", lambda _: print("epoch 2: dev accuracy (%) 84.9"))
    clock = SimpleNamespace(perf_counter=count(step=10).__next__)  # ten seconds pass between two looks at it
    monkeypatch.setattr(experiment, "time", clock)
    experiment.main()
    (record,) = read_records("experiments/results.jsonl")
    expected = {"pretrain": 20, "total": 30, "to_10_percent": 10, "to_25_percent": 10, "to_85_percent": 30}
    assert record["seconds"] == expected


def test_stopped_relations_are_not_recorded_twice(measurement, monkeypatch):
    monkeypatch.setattr("sys.argv", ["experiment.py", "relations", "--recipe", "open"])
    monkeypatch.setattr(measurement, "finetune_and_answer", Mock(side_effect=[(4, 2), KeyboardInterrupt]))
    with pytest.raises(KeyboardInterrupt):
        experiment.main()
    next(Path("experiments").glob("relations,*")).joinpath("pretrain.params").touch()
    monkeypatch.setattr(measurement, "finetune_and_answer", Mock(return_value=(4, 2)))
    monkeypatch.setattr("sys.argv", [*sys.argv, "--resume"])
    experiment.main()
    found = [record["measured"]["relation"] for record in read_records("experiments/results.jsonl")]
    assert found == list(experiment.build.RELATIONS)


def test_world_of_a_row_has_its_wording_and_titles(tmp_path):
    arguments = SimpleNamespace(folder=None, people=None, held_out=False, seed=0)
    row = experiment.Row(people=60, lines=2, titles=False, question="Birthplace of {name}?")
    assert experiment.make_world(arguments, row, tmp_path, "birthplace") == "embedded-60x2"
    built, text = (
        (tmp_path / name).read_text(encoding="utf-8").splitlines() for name in ("built/wiki.txt", "wiki.txt")
    )
    assert len(built) == 120
    assert all(line.endswith(short) and line != short for line, short in zip(built, text[:120], strict=True))
    assert all(q.startswith("Birthplace of ") for part in parts_of(tmp_path).values() for q, _ in part)


def test_points_of_a_curve_are_within_the_pretraining(world, monkeypatch):
    monkeypatch.setattr("sys.argv", ["experiment.py", "run", "pretrain_epochs=4", "--every", "5"])
    with pytest.raises(UserError, match=r"^--every 5 is more than the 4 epochs of pretraining$"):
        experiment.main()


def test_experiment_without_a_folder_for_its_results_does_not_start(world, monkeypatch):
    Path("experiments").write_text("a file")
    monkeypatch.setattr("sys.argv", ["experiment.py", "run"])
    with pytest.raises(UserError, match=r"^experiments: .* is a file, not a folder"):
        experiment.main()


def test_largest_attention_weight_of_uniform_and_of_sharp_heads():
    documents = CharCorruptionDataset("\n".join(["Ada Lovelace. Ada Lovelace was born in London in 1815.", ASCII]), 128)
    model = small_model(documents.vocab_size, n_layer=2, n_embd=8).eval()
    lines = [documents.encode(document) for document in documents.data]
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.query.weight)  # all scores are 0
    evenly = np.mean([1 / (t + 1) for line in lines for t in range(experiment.FIRST, len(line))])
    assert np.allclose(experiment.largest_weights(model, lines), [evenly, evenly])
    torch.nn.init.normal_(model.blocks[1].attn.query.weight, std=1e6)
    first, second = experiment.largest_weights(model, lines)
    assert np.isclose(first, evenly) and second > 0.99


def test_invented_people_are_not_in_the_text_and_can_be_spelled_with_it():
    everybody = invented.invent(200, ASCII)
    assert len(everybody) == len(set(everybody)) == 200
    assert {language for language, _ in everybody} == set(invented.NAMES)
    known = everybody[0][1]
    names = [name for _, name in invented.invent(200, f"{known} {ASCII.replace('z', '')}")]
    assert known not in names and not any("z" in name for name in names)


def test_answers_of_invented_people_replace_nothing_that_is_read(world, monkeypatch):
    torch.save({}, "p")
    problems = dict.fromkeys(("wiki.txt", "pairs.tsv", "p"), "would overwrite another file of this run")
    problems["birth_dev.tsv"] = "holds rows with tabs, and would be overwritten"
    for output, problem in problems.items():
        words = ["invented.py", "vanilla", "wiki.txt", "p", "pairs.tsv", "--outputs_path", f"./{output}"]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(UserError, match=rf"^\./{output}: {problem}; name another output$"):
            invented.main()


def test_answers_of_invented_people_are_counted(world, monkeypatch, capsys):
    monkeypatch.setattr(invented, "invent", lambda count, text: [("English", "Ada Turing"), ("Czech", "Alan Dvořák")])
    pairs = ["--finetune_corpus_path", "pairs.tsv"]
    run.main(["finetune", "vanilla", "wiki.txt", "--finetune_epochs", "1", "--writing_params_path", "p", *pairs])
    Path("p.json").write_text('{"sha256": "of others"}')
    monkeypatch.setattr("sys.argv", ["invented.py", "vanilla", "wiki.txt", "p", "pairs.tsv"])
    invented.main()
    rows = [line.split("\t") for line in Path("invented.tsv").read_text(encoding="utf-8").splitlines()]
    answers = [row[rows[0].index("answer")] for row in rows[1:]]
    known = sum(answer in dict(PEOPLE).values() for answer in answers)
    counted = f"2 invented people, {len(set(answers))} different answers; {known} got a place from the pairs\n"
    said = capsys.readouterr()
    assert [row[0] for row in rows[1:]] == ["Ada Turing", "Alan Dvořák"] and counted in said.out
    assert "198 names are left out: wiki.txt lacks some of their letters, or has the names\n" in said.out
    assert "warning: p.json does not belong to p; it is not used\n" in said.err


def test_picture_of_knowledge_shows_the_report(monkeypatch):
    """Of 40 answers the 20 surer ones are right three times in four, the others one time in four."""
    rows = [
        f"{p}\t{correct}"
        for p, rights in ((0.95, 3), (0.15, 1))
        for correct in [True] * rights + [False] * (4 - rights)
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(["probability\tcorrect", *rows * 5]) + "\n"))
    bars, curve = pictures.knowledge().axes
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in bars.patches] == [(15, 25), (95, 75)]
    assert [label.get_text() for label in bars.texts] == ["20", "20"]
    share, right = curve.lines[0].get_data()
    assert len(share) == 40 and right[19] == 75 and right[39] == 50 and np.isclose(share[19], 50)


NO_REPORTS = [
    "",
    "probability\tcorrect\n",
    "something else\n1\n",
    "name\tprobability\nAda\t0.5\n",  # what ask prints
    "probability\tcorrect\n0.5\n",
    "probability\tcorrect\nhigh\tTrue\n",
    "probability\tcorrect\nnan\tTrue\n",
]


@pytest.mark.parametrize("given", NO_REPORTS)
def test_input_that_is_no_report_is_refused(monkeypatch, given):
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    with pytest.raises(UserError, match=r"^standard input: no report; "):
        pictures.knowledge()


def test_picture_of_exposures_has_the_latest_curve_of_each_recipe_and_variant(monkeypatch):
    curves = {"fast": [[3, 1.25], [6, 40.0]], "course": [[33, 0.0]]}
    common = {"variant": "rope", "corpus": "course", "changed": {}}
    records = [common | {"recipe": n, "curve": c, "settings": asdict(RECIPES[n])} for n, c in curves.items()]
    earlier, elsewhere = records[0] | {"curve": [[3, 0.5]]}, records[0] | {"corpus": "embedded"}
    monkeypatch.setattr(pictures, "measured", lambda file, experiment: [earlier, *records, elsewhere])
    (axis,) = pictures.exposures().axes
    drawn = {line.get_label(): [list(point) for point in line.get_xydata()] for line in axis.lines}
    assert drawn == {f"{name}, rope": curve for name, curve in curves.items()}


@pytest.mark.parametrize("picture", [pictures.exposures, pictures.lengths])
def test_pictures_of_recorded_results_have_curves(picture):
    (axis,) = picture().axes
    assert len(axis.lines) >= 3


def test_picture_of_the_ablation_orders_its_rows_by_accuracy(monkeypatch):
    row = {"experiment": "ablation", "status": "ok", "recipe": "open", "corpus": "course-600", "seed": 0, "asked": 4}
    row |= {"variant": "vanilla", "commit": "31708a0", "settings": asdict(RECIPES["open"])}
    rows = [row | {"changed": {}, "correct": 3}, row | {"changed": {"muon_lr": 0.0}, "correct": 1}]
    monkeypatch.setattr(pictures, "measured", lambda *_: [*rows, rows[0] | {"recipe": "fast", "correct": 4}])
    (axis,) = pictures.ablation().axes
    bars = {label.get_text(): bar.get_width() for label, bar in zip(axis.get_yticklabels(), axis.patches, strict=True)}
    assert list(bars.items()) == [("muon_lr=0", 25), ("nothing", 75)]


def test_notebook_without_its_picture_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "DOCS", tmp_path / "docs")
    (tmp_path / "mingpt-demo").mkdir()
    (tmp_path / "mingpt-demo/play_char.ipynb").write_text('{"cells": [{"source": []}, {"outputs": [{"text": []}]}]}')
    with pytest.raises(UserError, match=r"^mingpt-demo/play_char\.ipynb: saved without its picture"):
        pictures.play_char()


@pytest.mark.parametrize(
    ("script", "package", "advice"),
    [
        ("scripts/pictures.py", "matplotlib", "pip install matplotlib"),
        ("benchmarks/speed.py", "torch", "pip install -r requirements.txt"),
    ],
)
def test_scripts_without_a_package_say_what_to_install(tmp_path, script, package, advice):
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError(name={package!r})")
    command = [sys.executable, ROOT / script, "attention"]
    said = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert said.returncode == 2
    assert said.stderr == f"{Path(script).name}: error: {package} is not installed; {advice}\n"
