"""Reading and writing files safely, and the names of all files that a run writes. Imports no torch."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cli import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LARGEST_PROCESS_ID = 2**22  # on 64-bit Linux


def read_bytes(path: str, most: int = -1) -> bytes:
    """The content of a file, or its first `most` bytes. Raises UserError."""
    try:
        with open(path, "rb") as file:
            return file.read(most)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; give a file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def file_hash(path: str) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits. Raises UserError."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def decode(raw: bytes, path: str) -> str:
    """The UTF-8 text without its byte order mark, every line ended by LF. Raises UserError if it is not UTF-8."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None
    return unix_lines(text)


def unix_lines(text: str) -> str:
    """The text with every line ended by LF instead of CRLF, or the CRCRLF that some tools turn it into."""
    return re.sub(r"\r+\n", "\n", text)


def read_text(path: str) -> str:
    """The text of a file, which must not be empty. Raises UserError."""
    text = decode(read_bytes(path), path)
    if not text.strip():
        raise UserError(f"{path}: the file is empty")
    if "\r" in text and "\n" not in text:
        raise UserError(f"{path}: its lines end with CR alone; save it with LF or CRLF")
    return text


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turns an OSError, such as that of a full disk, into a UserError that says `what` cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what} cannot be written ({error.strerror or error})") from None


class OutputFiles:
    """The names of all files that a run writes for one output, temporary ones included."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.record = f"{path}.json"  # how the parameters were made
        self.state = f"{path}.state"  # what --resume reads, until the run is complete

    def kept(self, epoch: int) -> str:
        """The parameters that --keep_every keeps after an epoch."""
        return f"{self.path}.{epoch}"

    def is_kept(self, path: str) -> bool:
        """Whether --keep_every may write this file, at some epoch, or its record."""
        kept = re.escape(os.path.realpath(self.path)) + r"\.\d+(\.json)?"
        return re.fullmatch(kept, os.path.realpath(path)) is not None

    @property
    def lock(self) -> Path:
        target = resolve_link(self.path)
        return target.with_name(f".{target.name}.lock")

    def unfinished(self) -> Iterator[Path]:
        """Partly written files that killed runs left behind."""
        target = resolve_link(self.path)
        part = re.compile(rf"\.{re.escape(target.name)}(\.\d+)?(\.json|\.state)?\.\d+\.part")
        names = []
        with suppress(PermissionError):  # a folder that may be written but not listed
            names = os.listdir(target.parent)
        for name in names:
            found = part.fullmatch(name)
            # "m.2" is what a run with the output "m" keeps after epoch 2, or another run's output
            if found and not (found[1] and target.with_name(f".{target.name}{found[1]}.lock").exists()):
                yield target.with_name(name)


# kinds of files, as messages call them
PARAMS, ARCHIVE, RECORD = "parameters", "an archive", "the record of parameters"
REPORT, ANSWERS, ROWS, TEXT = "a report", "answers of ask", "rows with tabs", "a text"
BINARY = "something other than text"


def kind_of(path: str) -> str | None:
    """The kind of a file; ROWS are any other rows with tabs, such as questions, and TEXT is any other UTF-8. None if
    there is no such file, or it is empty.
    """
    beginning = read_bytes(path, 1000) if os.path.isfile(path) else b""
    if not beginning:
        return None
    # b"\x80": a pickle, in which torch wrote parameters before 1.6
    if beginning.startswith(b"\x80") or (beginning.startswith(b"PK") and b"data.pkl" in beginning):
        return PARAMS
    if beginning.startswith(b"PK"):
        return ARCHIVE if beginning.startswith(b"src/", 30) else BINARY  # the first name in a submission
    if b"\0" in beginning or not is_utf8(beginning):
        return BINARY
    if re.match(rb'\{\s*"function":', beginning):
        return RECORD
    if beginning.startswith(b"question\tprediction\t"):
        return REPORT
    if beginning.startswith(b"name\tanswer\t"):
        return ANSWERS
    return ROWS if b"\t" in read_bytes(path) else TEXT


def is_utf8(beginning: bytes) -> bool:
    """Whether the first bytes of a file are UTF-8; the last character may be cut off."""
    try:
        beginning.decode()
    except UnicodeDecodeError as error:
        return error.start > len(beginning) - 4 and error.reason == "unexpected end of data"
    return True


def check_replaceable(path: str, kind: str | None) -> None:
    """Raises UserError if a file at `path` is write-protected, or of another kind, and so there by mistake; None stands
    for any kind.
    """
    if os.path.exists(path) and not os.stat(path).st_mode & 0o222:
        raise UserError(f"{path}: is write-protected; name another output")
    found = None if kind is None else kind_of(path)
    if found not in (None, kind):
        raise UserError(f"{path}: holds {found}, and would be overwritten; name another output")


def resolve_link(path: str) -> Path:
    """The file that is written for `path`: links are followed."""
    return Path(os.path.realpath(path))


def is_open_file(path: str) -> bool:
    """Whether the path names an open file, such as /dev/stdout: what it stands for must not be replaced."""
    for _ in range(40):  # links
        if os.path.realpath(os.path.dirname(path)).startswith("/proc/"):
            return True
        if not os.path.islink(path):
            break
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    return False


def part_of(target: Path, process: int) -> Path:
    """The temporary file in which that process writes `target`."""
    return target.with_name(f".{target.name}.{process}.part")


def check_writable(path: str, kind: str | None, others: Iterable[str] = ()) -> None:
    """Raises UserError unless a file can be written at `path`, and a file there is of that kind; None stands for any.

    It may be none of the other files that are read or written. Called at the start, not after hours of training.
    """
    if not path:
        raise UserError("the name of an output is empty; name a file")
    if os.path.realpath(path) in map(os.path.realpath, others):
        raise UserError(f"{path}: would overwrite another file of this run; name another output")
    target = resolve_link(path)
    folder = target.parent if os.path.islink(path) else Path(path).parent
    if not os.path.isdir(folder):
        raise UserError(f"{path}: the folder {folder} does not exist, or may not be entered; name another")
    if os.path.isdir(path):
        raise UserError(f"{path}: is a folder; name a file in it")
    if (os.path.exists(path) and not os.path.isfile(path)) or is_open_file(path):
        raise UserError(f"{path}: is not a regular file; name one")
    check_replaceable(path, kind)
    with writing(f"{path}:"):
        check_name_fits(part_of(target, LARGEST_PROCESS_ID))
        with tempfile.TemporaryFile(dir=folder):
            pass


def check_name_fits(path: Path) -> None:
    """Raises OSError if the name is too long for the file system."""
    with suppress(FileNotFoundError):
        os.lstat(path)


def check_folder(folder: Path, advice: str) -> None:
    """Raises UserError, which ends in `advice`, unless files can be written in `folder` or it can be created."""
    folder = Path(os.path.normpath(folder))
    existing = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    if not os.path.isdir(existing):
        raise UserError(f"{folder}: {existing} is a file, not a folder; {advice}")
    try:
        check_name_fits(folder)
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); {advice}") from None


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Locks the output `path` for this process. Raises UserError if another process has locked it.

    The lock ends with the process, however it ends. Partly written files of killed runs are removed at the start. If
    the system (Windows) or the file system has no flock, nothing is locked.
    """
    if fcntl is None:
        yield
        return
    files = OutputFiles(path)
    lock = files.lock
    held = False
    while not held:
        with writing(f"{path}: its lock {lock}"):  # another user's killed run may have left it
            file = open(lock, "wb")  # noqa: SIM115, it stays open for as long as the lock is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(f"{path}: another run is writing it; wait for it, or name another output") from None
        except OSError:  # the file system has no locks
            file.close()
            lock.unlink(missing_ok=True)
            yield
            return
        with suppress(FileNotFoundError):  # the run before may have removed this file between the two calls
            held = os.path.samestat(os.fstat(file.fileno()), os.stat(lock))
    for part in files.unfinished():
        with suppress(PermissionError):  # another user's
            part.unlink(missing_ok=True)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        file.close()


@contextmanager
def atomic_write(path: str) -> Iterator[BinaryIO]:
    """A file object whose content replaces `path` in one step when the block ends; an error leaves `path` as it was.

    A link is followed. Raises UserError if the disk is full, for instance.
    """
    target = resolve_link(path)
    part = part_of(target, os.getpid())
    try:
        with writing(f"{path}:"):
            with open(part, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileNotFoundError):  # there is none to replace
                shutil.copymode(target, part)
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)  # gone already, unless something went wrong


def write_text(path: str, text: str) -> None:
    """Writes a text as UTF-8, in one step. Raises UserError."""
    with atomic_write(path) as file:
        file.write(text.encode())
