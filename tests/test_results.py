"""The records in results/, and the tables that are rendered from them."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest
from conftest import ROOT

import leaderboard
from cli import UserError
from leaderboard import TABLES, Table, changes, is_of_today, percent, rendered, seconds, time_range, value
from recipe import RECIPES
from records import RUN, TIMING, append_record, commit_and_note, problem_with, read_records, sha256_of

FILES = sorted((ROOT / "results").glob("*.jsonl"))
FAST = asdict(RECIPES["fast"])
SETTINGS = {
    "pretrain_epochs": RECIPES["fast"].pretrain_epochs,
    "finetune_epochs": RECIPES["fast"].finetune_epochs,
    "muon_lr": 0.0,
}


def a_run(**values):
    empty = {name: {} if kind is dict else None for name, kind in RUN.items()}
    return empty | {"date": "2026-11-20", "experiment": "speedrun", "status": "ok"} | values


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_line_of_results_is_a_valid_record(path):
    found = read_records(str(path))
    assert found and [r["date"] for r in found] == sorted(r["date"] for r in found)
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in found)
    assert path.read_text(encoding="utf-8") == text, "not as append_record writes it"


def test_every_file_of_results_is_read_by_a_table():
    assert {path.stem for path in FILES} == {table.file for table in TABLES.values()}


@pytest.mark.parametrize("page", leaderboard.PAGES)
def test_tables_are_up_to_date(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert rendered(text, page) == text, "run python scripts/leaderboard.py"


def test_docs_results_shows_every_table_but_the_quickstarts_of_the_readme():
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    assert {name for name in TABLES if f"<!-- table: {name} -->" not in text} == {"quickstart"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of what leaderboard.py reads, in which it may write."""
    shutil.copytree(ROOT / "results", tmp_path / "results")
    (tmp_path / "docs").mkdir()
    for page in leaderboard.PAGES:
        shutil.copy(ROOT / page, tmp_path / page)
    monkeypatch.setattr(leaderboard, "ROOT", tmp_path)
    return tmp_path


def test_check_names_the_file_that_differs_and_rewriting_mends_it(project, monkeypatch):
    page = project / "docs/results.md"
    before = page.read_text(encoding="utf-8")
    page.write_text(before.replace("| 5.0 % |", "| 9.9 % |", 1), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["leaderboard.py", "--check"])
    with pytest.raises(UserError, match=r"^docs/results\.md: its tables differ from results/; run "):
        leaderboard.main()
    monkeypatch.setattr("sys.argv", ["leaderboard.py"])
    leaderboard.main()
    assert page.read_text(encoding="utf-8") == before


def test_a_new_record_changes_the_leaderboard(project):
    page = "<!-- table: leaderboard -->\n<!-- /table -->\n"
    assert "1 H100" not in rendered(page, "page")
    record = {"experiment": "speedrun", "machine": "1 H100 (NVIDIA H100 80 GB)", "variant": "rope", "recipe": "fast"}
    record |= {"corpus": "course", "correct": 300, "asked": 400, "seconds": {"total": 90}, "settings": FAST}
    append_record(str(project / "results/runs.jsonl"), record)
    of_a_former_recipe = {"settings": FAST | {"pretrain_epochs": 60}, "correct": 0}
    append_record(str(project / "results/runs.jsonl"), record | of_a_former_recipe)
    assert "| fast | rope | 1 H100 (NVIDIA H100 80 GB) | 2 min | 75.0 % |  |\n" in rendered(page, "page")


def test_leaderboard_is_ordered_by_the_mean_on_the_course():
    def run(variant: str, corpus: str, seed: int, correct: int) -> dict:
        common = {"recipe": "fast", "machine": "1 GPU", "asked": 10, "settings": FAST}
        return a_run(variant=variant, corpus=corpus, seed=seed, correct=correct, **common)

    runs = [
        run("vanilla", "embedded", 0, 10),
        run("vanilla", "course", 0, 8),
        run("rope", "course", 0, 7),
        run("rope", "course", 1, 10),
    ]
    rows = [line.split(" | ")[1] for line in TABLES["leaderboard"].render(runs).splitlines()[2:]]
    assert rows == ["rope", "vanilla"]


def test_check_prints_nothing_where_the_tables_are_up_to_date():
    command = [sys.executable, ROOT / "scripts/leaderboard.py", "--check"]
    said = subprocess.run(command, capture_output=True, text=True)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<!-- table: unheard -->\n<!-- /table -->\n", "page: no table is called unheard; "),
        ("<!-- table: step -->\n| a |\n", "page: 1 tables begin, 0 end; close each with <!-- /table -->"),
    ],
)
def test_a_wrong_marker_is_named(page, message):
    with pytest.raises(UserError) as error:
        rendered(page, "page")
    assert str(error.value).startswith(message)


def test_records_with_the_same_key_share_a_row():
    table = Table(
        "runs",
        where=lambda r: r["status"] == "ok",
        row=lambda r: r["variant"],
        columns={"": lambda row: row[0]["variant"], "%": percent, "time": time_range},
        order=lambda row: row[0]["variant"],
    )
    runs = [
        a_run(variant="vanilla", seed=0, correct=4, asked=4, seconds={"total": 120}),
        a_run(variant="vanilla", seed=0, correct=1, asked=4, seconds={"total": 150}),  # the same seed again
        a_run(variant="rope", correct=97, asked=400, seconds={"pretrain": 7200}),
        a_run(variant="vanilla", seed=1, correct=2, asked=4, seconds={"total": 600, "pretrain": 1}),
        a_run(variant="vanilla", correct=4, asked=4, status="superseded"),
    ]
    assert table.render(runs).splitlines()[2:] == [
        "| rope | 24.3 % | 2.0 h |",
        "| vanilla | 37.5 % (2 seeds) | 2 to 10 min |",
    ]


def test_run_without_settings_is_in_no_table_of_whole_runs():
    asked = {"corpus": "course", "correct": 1, "asked": 4, "curve": [[1, 2.0]], "changed": {}}
    run = a_run(experiment="run", variant="vanilla", seed=0, settings=None, **asked)
    for name, recipe in (("fast", "fast"), ("course", "course"), ("ablation", "fast")):
        assert not TABLES[name].where(run | {"recipe": recipe})


@pytest.mark.parametrize(("name", "other"), [("recipe", "open"), ("variant", "rope"), ("corpus", "course-600")])
def test_runs_of_several_recipes_variants_or_corpora_do_not_share_a_cell(name, other):
    run = a_run(recipe="fast", variant="vanilla", corpus="course", seed=0, correct=1, asked=4)
    not_asked = run | {name: other, "correct": None, "asked": None}
    assert percent([run, not_asked, run | {"seed": 1, "correct": 2}]) == "37.5 % (2 seeds)"
    with pytest.raises(UserError, match=rf"^a cell mixes \(fast, vanilla, course\) and .*{other}.*; tell them apart"):
        percent([run, run | {name: other}])


@pytest.mark.parametrize(
    ("name", "other"),
    [
        (name, other)
        for name in ("wordings", "relations", "open-ablation", "sweep")
        for other in ({"commit": "0123456"}, {"recipe": "course"}, {"variant": "rope"})
        # sweep shows all variants, relations new seeds at any commit
        if (name, *other) not in {("sweep", "variant"), ("relations", "commit")}
    ]
    + [
        ("relations", {"changed": {"word_weight": 0.0}}),
        ("quickstart-seeds", {"commit": None, "experiment": "wordings"}),
    ],
)
def test_tables_show_what_they_were_written_for(name, other):
    table = TABLES[name]
    records = read_records(str(ROOT / f"results/{table.file}.jsonl"))
    others = [record | other | {"correct": 0} for row in table.rows(records) for record in row]
    assert others and table.render(records + others) == table.render(records)


def test_changes_names_what_differs_from_the_recipe():
    course = {"finetune_lr": 6e-4, "finetune_epochs": 10, "finetune_batch_size": 256}
    for changed, text in [
        ({}, "nothing"),
        ({"pretrain_epochs": 30}, "nothing"),
        ({"muon_lr": 0.0, "weight_by_answer_odds": False}, "`muon_lr=0`, `weight_by_answer_odds=False`"),
        (course | {"muon_lr": 0.0}, "the course's finetuning, `muon_lr=0`"),
        (course | {"finetune_qa_per_document": 0.0}, "the course's finetuning"),
        ({"finetune_lr": 1.5e-4, "finetune_epochs": 2, "finetune_batch_size": 32}, "two gentle epochs on the pairs"),
        ({"finetune_epochs": 10}, "`finetune_epochs=10`"),
    ]:
        assert changes([a_run(changed=changed)]) == text
    and_the_text = a_run(changed=course, settings={"finetune_qa_per_document": 1.0})
    assert changes([and_the_text]) == "`finetune_lr=0.0006`, `finetune_epochs=10`, `finetune_batch_size=256`"


def test_time_that_is_not_known_is_not_printed():
    runs = [a_run(), a_run(seconds={"pretrain": 1200}), a_run(seconds={"pretrain": 1200, "total": 1300})]
    assert [seconds([run]) for run in runs] == ["", "1,200", "1,300"] and seconds([]) == ""


def test_append_record_adds_one_line_and_fills_in_what_is_not_known(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.touch()
    append_record(str(path), {"experiment": "speedrun", "note": "Søren", "seconds": {"total": 3}})
    append_record(str(path), a_run(variant="rope", curve=[[1, 0.5], [2, 1]]))
    first, second = read_records(str(path))
    assert list(first) == list(RUN) and first["note"] == "Søren" and first["changed"] == {} and first["status"] == "ok"
    assert first["commit"] is None and len(first["date"]) == 10
    assert second["curve"] == [[1, 0.5], [2, 1]]
    assert path.read_bytes().count(b"\n") == 2
    append_record(str(path), {"experiment": "run", "command": "caf\udce9"})  # as Python has bytes that are not UTF-8
    assert read_records(str(path))[-1]["command"] == "caf\udce9"


def test_records_value_and_time_are_those_of_the_same_run():
    runs = [a_run(correct=1, asked=4, seconds={"total": 90}), a_run(correct=2, asked=4, seconds={"total": 60})]
    assert (percent(runs), seconds(runs), value("correct")(runs)) == ("50.0 %", "60", "2")


def test_record_that_the_disk_takes_only_in_part_is_an_error(tmp_path, monkeypatch):
    class NearlyFull(io.FileIO):
        def write(self, data: bytes) -> int:
            return super().write(data[:10])

    monkeypatch.setattr("records.open", lambda path, mode, buffering: NearlyFull(path, mode), raising=False)
    with pytest.raises(UserError, match="No space left on device"):
        append_record(str(tmp_path / "runs.jsonl"), a_run())


def test_append_record_does_not_join_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "runs.jsonl"
    append_record(str(path), a_run(note="first"))
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    append_record(str(path), a_run(note="second"))
    assert [r["note"] for r in read_records(str(path))] == ["first", "second"]


def test_append_record_writes_nothing_that_is_not_a_record(tmp_path):
    path = tmp_path / "runs.jsonl"
    for record, problem in [
        ({}, "experiment has the wrong type"),
        (a_run(accuracy=1), "accuracy is not a key"),
        (a_run(seed=True), "seed has the wrong type"),
        (a_run(measured={"loss": float("nan")}), "a number is not finite"),
    ]:
        with pytest.raises(UserError, match=rf"runs\.jsonl: the record was not added: {problem}"):
            append_record(str(path), record)
    assert not path.exists()
    with pytest.raises(UserError, match=r"no[/\\]runs\.jsonl: cannot be written"):
        append_record(str(tmp_path / "no/runs.jsonl"), a_run())


def test_speed_has_records_of_its_own(tmp_path):
    path = tmp_path / "speed.jsonl"
    append_record(str(path), {"experiment": "step", "implementation": "plain", "measured": {"seconds": 1.5}})
    assert list(read_records(str(path))[0]) == list(TIMING)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"date": "20.11.2026"}, "date is not YYYY-MM-DD"),
        ({"date": "20261120"}, "date is not YYYY-MM-DD"),
        ({"commit": "main"}, "commit is not the hash of a commit"),
        ({"status": "fine"}, "status is fine, which is not known"),
        ({"variant": "mamba"}, "variant is mamba, which is not known"),
        ({"recipe": "slow"}, "recipe is slow, which is not known"),
        ({"correct": 3}, "correct and asked do not fit together"),
        ({"correct": 5, "asked": 4}, "correct and asked do not fit together"),
        ({"changed": {"muon_lr": 0.0}}, "changed is not part of settings"),
        ({"changed": {"muon_lr": 0.1}, "settings": SETTINGS}, "changed is not part of settings"),
        ({"curve": [[2, 1], [1, 2]]}, "curve is not [[epoch, value], ...] with rising epochs"),
        ({"loss_curve": [1, 2]}, "loss_curve is not [[epoch, value], ...] with rising epochs"),
        ({"seconds": 3}, "seconds has the wrong type"),
    ],
)
def test_a_record_that_cannot_be_right_is_refused(values, problem):
    assert problem_with(a_run(), RUN) is None
    assert problem_with(a_run(**values), RUN) == problem


@pytest.mark.parametrize(
    ("line", "problem"), [("{", "not JSON"), ("[]", "not a JSON object"), ("{}", "date is missing")]
)
def test_a_line_that_is_not_a_record_is_named(tmp_path, line, problem):
    path = tmp_path / "runs.jsonl"
    append_record(str(path), a_run())
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=rf"runs\.jsonl, line 2: {problem}"):
        read_records(str(path))


def test_the_hash_of_a_data_file_is_that_of_sha256sum(tmp_path):
    (tmp_path / "wiki.txt").write_bytes(b"abc")
    assert sha256_of(str(tmp_path / "wiki.txt")) == {"wiki.txt": "ba7816bf8f01"}


def test_changes_that_were_not_committed_are_noted_beside_other_notes():
    changes = "with changes that were not committed"
    for commit, notes, expected in [
        ("0123456", (), ("0123456", None)),
        ("0123456-dirty", (), ("0123456", changes)),
        ("0123456-dirty", ("resumed", "slow"), ("0123456", f"{changes}; resumed; slow")),
        ("unknown", ("slow",), (None, "slow")),
    ]:
        assert tuple(commit_and_note(commit, *notes).values()) == expected


def test_record_is_of_today_if_its_settings_are_those_of_the_recipe():
    today = asdict(RECIPES["open"])
    del today["name"]
    no_pretraining = today | {"pretrain_epochs": 0}
    before_there_were_rare_words = {name: value for name, value in today.items() if name != "word_weight"}
    for of_record in (today, no_pretraining):
        assert is_of_today({"recipe": "open", "settings": of_record})
    for of_record in (before_there_were_rare_words, today | {"word_weight": 0.0}, today | {"pretrain_epochs": 60}):
        assert not is_of_today({"recipe": "open", "settings": of_record})
    assert is_of_today({"recipe": None, "settings": None})
