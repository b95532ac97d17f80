"""Reading what a user gives and writing what they get. No torch here, so that mistakes are answered at once."""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cli import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def read_bytes(path: str) -> bytes:
    """The content of a file. Raises UserError."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, a text file is needed") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def decode(raw: bytes, path: str) -> str:
    """UTF-8 text without its byte order mark, its lines ended by LF. Raises UserError for other bytes."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None
    return unix_lines(text)


def unix_lines(text: str) -> str:
    """The text with its lines ended by LF, as Windows' CRLF (and what tools make of CRLF in haste, CRCRLF) is too."""
    return re.sub(r"\r+\n", "\n", text)


def read_text(path: str) -> str:
    """The text of a file that must hold some. Raises UserError."""
    text = decode(read_bytes(path), path)
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    return text


def parse_questions(text: str, name: str = "data") -> list[tuple[str, str | None]]:
    """The (question, place) pairs of a TSV text, place None in every pair where the text holds no places.

    `name` is what error messages call the text. Blank lines at the end are no rows. Raises UserError.
    """
    lines = unix_lines(text).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    with_places = "\t" in lines[0] if lines else False
    pairs: list[tuple[str, str | None]] = []
    for number, line in enumerate(lines, 1):
        question, *places = line.split("\t")
        if not question.strip():
            raise UserError(f"{name}, line {number}: no question; remove the line or write 'Where was NAME born?'")
        if len(places) > 1:
            raise UserError(f"{name}, line {number}: {len(places) + 1} columns, 'question<TAB>place' has 2")
        if with_places != bool(places):
            found, first = ("a", "none") if places else ("no", "one")
            raise UserError(
                f"{name}, line {number}: {found} tab, but line 1 has {first}; give every line a place, or no line"
            )
        if places and not places[0].strip():
            raise UserError(f"{name}, line {number}: no place behind the tab")
        pairs.append((question, places[0] if places else None))
    return pairs


def parse_pairs(text: str, name: str = "data") -> list[tuple[str, str]]:
    """The (question, place) pairs of a TSV text in which every row has a place. Raises UserError."""
    pairs = parse_questions(text, name)
    if not pairs or pairs[0][1] is None:
        raise UserError(f"{name}, line 1: no tab; training needs 'question<TAB>place' rows")
    return [(question, place) for question, place in pairs if place is not None]


def name_in(question: str) -> str:
    """The NAME of 'Where was NAME born?', or the whole question when it is worded otherwise."""
    match = re.fullmatch(r"Where was (.+) born\?", question)
    return match[1] if match else question


def read_predictions(path: str, pairs: Sequence[tuple[str, str | None]]) -> list[str]:
    """The predictions in a file, one a line, for the questions of `pairs`. Raises UserError for another number."""
    lines = decode(read_bytes(path), path).removesuffix("\n").split("\n")
    if len(lines) != len(pairs):
        raise UserError(f"{path}: {len(lines)} predictions for {len(pairs)} questions; evaluate again")
    return lines


def count_right(pairs: Sequence[tuple[str, str | None]], predictions: Sequence[str]) -> int:
    """How many predictions are the place of their pair."""
    return sum(place == prediction for (_, place), prediction in zip(pairs, predictions, strict=True))


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Makes an OSError, such as that of a full disk, a UserError: that `what`, which names it, cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what} cannot be written ({error.strerror or error})") from None


def check_writable(path: str) -> None:
    """Raises UserError unless a file can be written at `path`: said at the start, not after hours of training."""
    if not path:
        raise UserError("the name of an output is empty; name a file")
    target = behind(path)
    folder = target.parent if os.path.islink(path) else Path(path).parent
    if not folder.is_dir():
        raise UserError(f"{path}: the folder {folder} does not exist; create it first")
    if os.path.isdir(path):
        raise UserError(f"{path}: is a folder; name a file in it")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path}: is a device or the like; name a file")
    with writing(f"{path}:"):
        with suppress(FileNotFoundError):
            os.lstat(part_of(target))  # refuses a name that is too long
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Holds the output `path` for this process: a second one that wants it gets a UserError.

    The lock goes with the process, however it ends; what a killed one had half written is then removed. Where the
    system (Windows) or the file system has no flock, nothing is held.
    """
    if fcntl is None:
        yield
        return
    target = behind(path)
    lock = target.with_name(f".{target.name}.lock")
    held = False
    while not held:
        with writing(f"{path}: its lock {lock}"):  # which another user's killed run may have left
            file = open(lock, "wb")  # noqa: SIM115, it stays open for as long as the lock is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(f"{path}: another run is writing it; wait for it, or name another output") from None
        except OSError:  # not on this file system
            file.close()
            lock.unlink(missing_ok=True)
            yield
            return
        with suppress(FileNotFoundError):  # the run before may have removed this file between the two calls
            held = os.path.samestat(os.fstat(file.fileno()), os.stat(lock))
    beside = r"(\.json|\.state|\.\d+|\.\d+\.json)?"  # what a run writes beside its parameters
    for other in target.parent.iterdir():
        if re.fullmatch(rf"\.{re.escape(target.name)}{beside}\.\d+\.part", other.name):
            with suppress(PermissionError):  # another user's
                other.unlink(missing_ok=True)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        file.close()


def check_folder(folder: Path) -> None:
    """Raises UserError unless files can be written in `folder`, which may have to be made for it."""
    folder = Path(os.path.normpath(folder))
    existing = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    if not os.path.isdir(existing):
        raise UserError(f"{folder}: {existing} is in the way; it is a file")
    with writing(f"{folder}:"), suppress(FileNotFoundError):
        os.lstat(folder)  # refuses a name that is too long
    check_writable(str(existing / "file"))


def behind(path: str) -> Path:
    """The file that is written for `path`: a link is followed."""
    return Path(os.path.realpath(path))


def part_of(target: Path) -> Path:
    """Where this process writes what will be `target`."""
    return target.with_name(f".{target.name}.{os.getpid()}.part")


@contextmanager
def atomic_write(path: str) -> Iterator[BinaryIO]:
    """A file object whose content replaces `path` in one step when the block ends; an error leaves `path` as it was.

    A link is followed. Raises UserError where the disk is full or the like.
    """
    target = behind(path)
    part = part_of(target)
    try:
        with writing(f"{path}:"):
            with open(part, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)  # gone already, unless something went wrong


def write_text(path: str, text: str) -> None:
    """Writes a text as UTF-8, in one step. Raises UserError."""
    with atomic_write(path) as file:
        file.write(text.encode())
