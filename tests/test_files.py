"""Reading and writing files: nothing lost, nothing invented, mistakes in one line."""

import errno
import json
import os
import subprocess
import sys
import zipfile
from unittest.mock import Mock

import pytest
import torch
from conftest import ROOT

from cli import UserError, exit_on_user_error
from files import (
    ANSWERS,
    ARCHIVE,
    BINARY,
    PARAMS,
    RECORD,
    REPORT,
    ROWS,
    TEXT,
    OutputFiles,
    atomic_write,
    check_folder,
    check_writable,
    is_open_file,
    locked,
    read_text,
    write_text,
)


def test_text_is_read_without_byte_order_mark_and_with_unix_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffBjörk\r\nAda\rLovelace\n".encode())
    assert read_text(str(path)) == "Björk\nAda\rLovelace\n"


def test_link_is_written_through_and_an_error_leaves_no_traces(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_write(str(tmp_path / "link")) as file:
        file.write(b"new")
    assert (tmp_path / "real").read_text() == "new" and (tmp_path / "link").is_symlink()
    with pytest.raises(ZeroDivisionError), atomic_write(str(tmp_path / "real")) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert (tmp_path / "real").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_checks_create_no_files(tmp_path):
    check_writable(str(tmp_path / "new"), TEXT)
    check_folder(tmp_path / "a" / "b" / "c", "")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(UserError, match="a is a file, not a folder; name another"):
        check_folder(tmp_path / "a" / "b", "name another")
    with pytest.raises(UserError, match=r"x: cannot be written \(File name too long\); name another"):
        check_folder(tmp_path / ("x" * 300), "name another")
    with pytest.raises(UserError, match=r"^the name of an output is empty; name a file$"):
        check_writable("", TEXT)


def test_unwritable_paths_are_named(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "no" / "file")
    with pytest.raises(UserError, match=r"link: the folder .*no does not exist"):
        check_writable(str(tmp_path / "link"), TEXT)
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    with pytest.raises(UserError, match=r"cannot be written \(File name too long\)"):
        check_writable(str(tmp_path / ("a" * (longest - 4))), TEXT)  # the temporary file has a longer name


def test_lock_removes_half_written_files_of_its_own_output_only(tmp_path):
    own = {f".run1{end}.77.part" for end in ("", ".json", ".state", ".20", ".20.json")}
    others = {".run10.77.part", ".run10.state.77.part", ".run1.txt.77.part", "run1.77.part", ".run1.state"}
    for name in own | others:
        (tmp_path / name).write_text("half")
    with locked(str(tmp_path / "run1")):
        assert {path.name for path in tmp_path.iterdir()} == others | {".run1.lock"}
    assert {path.name for path in tmp_path.iterdir()} == others
    with locked(str(tmp_path / "run1.20")):  # another run, which is writing its parameters
        (tmp_path / ".run1.20.77.part").write_text("half")
        with locked(str(tmp_path / "run1")):
            assert (tmp_path / ".run1.20.77.part").exists()


def test_lock_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / ".a.lock").mkdir()  # cannot be opened, like one that another user's killed run has left
    with pytest.raises(UserError, match=r"a: its lock .*\.a\.lock cannot be written"), locked(str(tmp_path / "a")):
        pass


def test_lock_on_a_file_that_has_been_removed_is_not_held(tmp_path, monkeypatch):
    def flock(file, operation):
        if not calls:  # the run before ends between open() and flock()
            os.unlink(tmp_path / ".a.lock")
        calls.append(operation)
        lock(file, operation)

    calls, lock = [], pytest.importorskip("fcntl").flock
    monkeypatch.setattr("fcntl.flock", flock)
    a = str(tmp_path / "a")
    with locked(a), pytest.raises(UserError, match="another run is writing it"), locked(a):
        pass
    assert len(calls) == 3


@pytest.mark.skipif(os.name == "nt", reason="has no flock")
def test_file_system_without_locks_refuses_nobody(tmp_path, monkeypatch):
    def fails(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fails)
    with locked(str(tmp_path / "a")), locked(str(tmp_path / "a")):
        pass
    assert not list(tmp_path.iterdir())


def test_error_about_a_name_of_two_lines_is_one_line():
    with pytest.raises(UserError) as error:
        read_text("no\nsuch\r\u2028file")
    assert str(error.value) == "no\\nsuch\\r\\u2028file: no such file"


def test_first_process_prints_and_every_process_reports_errors(monkeypatch, capsys):
    def main() -> None:
        print("said")
        print("said", file=sys.stderr)
        raise UserError("a: no such file")

    monkeypatch.setattr("sys.argv", ["run.py"])
    monkeypatch.setenv("RANK", "3")  # alone, it says nothing
    with pytest.raises(SystemExit):
        exit_on_user_error(main)
    assert capsys.readouterr() == ("said\n", "said\nrun.py: error: a: no such file\n")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(SystemExit):
        exit_on_user_error(main)
    assert capsys.readouterr() == ("", "run.py: error in process 3: a: no such file\n")


def test_missing_package_is_one_line_and_2(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run.py"])
    with pytest.raises(SystemExit) as stop:
        exit_on_user_error(Mock(side_effect=ModuleNotFoundError("no torch", name="torch")))
    message = "run.py: error: torch is not installed; pip install -r requirements.txt\n"
    assert (stop.value.code, capsys.readouterr().err) == (2, message)
    with pytest.raises(ModuleNotFoundError):  # a fault of the code
        exit_on_user_error(Mock(side_effect=ModuleNotFoundError("no engin", name="engin")))


def test_folder_of_an_output_that_cannot_be_entered_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"the folder .* does not exist, or may not be entered; name another"):
        check_writable(f"{tmp_path}/{'x' * 300}/a.params", PARAMS)


def test_folder_that_cannot_be_listed_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("files.os.listdir", Mock(side_effect=PermissionError))  # root may list every folder
    with locked(f"{tmp_path}/a.params"):
        write_text(f"{tmp_path}/a.params", "")
    assert (tmp_path / "a.params").exists()


def test_interruption_is_one_line_and_130(capsys):
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        exit_on_user_error(main)
    assert stop.value.code == 130 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_output_to_a_full_disk_is_one_line_and_2(world):
    with open("/dev/full", "w") as full:
        words = [sys.executable, ROOT / "src" / "dataset.py", "charcorruption"]
        said = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    message = "dataset.py: error: standard output: cannot be written (No space left on device)\n"
    assert (said.returncode, said.stderr) == (2, message)


def test_terminal_without_the_marks_shows_their_codes(monkeypatch, tmp_path):
    with open(tmp_path / "out", "w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        exit_on_user_error(lambda: print("⁇"))
    assert (tmp_path / "out").read_text() == "\\u2047\n"


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="has no /proc")
def test_file_behind_an_open_stream_is_not_replaced(tmp_path):
    with open(tmp_path / "notes", "w") as notes:
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{notes.fileno()}")
        for path in (f"/dev/fd/{notes.fileno()}", str(tmp_path / "link")):
            with pytest.raises(UserError, match=r": is not a regular file; name one$"):
                check_writable(path, None)
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert not is_open_file(str(tmp_path / "a"))  # and it ends


def test_file_keeps_its_mode_and_a_protected_one_is_not_replaced(tmp_path):
    path = tmp_path / "a"
    path.touch(mode=0o600)
    write_text(str(path), "new")
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_text() == "new"
    path.chmod(0o400)
    with pytest.raises(UserError, match=r"a: is write-protected; name another output$"):
        check_writable(str(path), TEXT)


def test_kept_parameters_are_recognized(tmp_path):
    files = OutputFiles(str(tmp_path / "a"))
    assert files.is_kept(files.kept(20)) and files.is_kept(OutputFiles(files.kept(20)).record)
    assert not files.is_kept(files.path) and not files.is_kept(files.record) and not files.is_kept(files.state)


def test_lines_that_end_with_cr_alone_are_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"Ada. Born in Rome.\rBo. Born in Oslo.\r")
    with pytest.raises(UserError, match=r"a\.txt: its lines end with CR alone; save it with LF or CRLF$"):
        read_text(str(tmp_path / "a.txt"))


def test_file_is_replaced_only_by_one_of_its_kind(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "new.params")
    torch.save({"a": torch.ones(1)}, tmp_path / "old.params", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("src/run.py", "")
    (tmp_path / "p.json").write_text(json.dumps({"function": "pretrain"}, indent=2))
    (tmp_path / "config.json").write_text('{"rate": 1}')
    (tmp_path / "utf16.tsv").write_text("Where was Ada born?", encoding="utf-16")
    (tmp_path / "empty").touch()
    kinds = {"new.params": PARAMS, "old.params": PARAMS, "a.zip": ARCHIVE, "p.json": RECORD}
    with zipfile.ZipFile(tmp_path / "thesis.docx", "w") as archive:
        archive.writestr("word/document.xml", "")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "long.txt").write_text("é" * 999)  # the 1,000th byte is in the middle of a character
    (tmp_path / "odd.txt").write_text("a" + "é" * 999)
    kinds |= {"config.json": TEXT, "utf16.tsv": BINARY, "thesis.docx": BINARY, "a.png": BINARY}
    kinds |= {"long.txt": TEXT, "odd.txt": TEXT}
    for name, text in (("report", "question\tprediction\n"), ("asked", "name\tanswer\n"), ("pairs", "a\tb\n")):
        (tmp_path / name).write_text(text.replace("\n", "\tx\n"))
    kinds |= {"report": REPORT, "asked": ANSWERS, "pairs": ROWS}
    for name, found in kinds.items():
        for kind in (PARAMS, ARCHIVE, RECORD, REPORT, ANSWERS, ROWS, TEXT):
            if kind == found:
                check_writable(str(tmp_path / name), kind)
                continue
            with pytest.raises(UserError, match=rf"{name}: holds {found}, and would be overwritten; name another"):
                check_writable(str(tmp_path / name), kind)
    for name in ("empty", "new"):
        check_writable(str(tmp_path / name), PARAMS)
