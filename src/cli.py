"""What all commands share: errors that a user can fix, signals before the work begins, and parsing of options.

Does not import torch, so that mistakes are reported at once.
"""

import argparse
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO


class UserError(ValueError):
    """A mistake that the user can fix; the message is one line: the file, line or option, and what to do about it."""

    def __str__(self) -> str:
        # the name of a file may have several lines
        return re.sub(r"[\r\n\v\f\x85\u2028\u2029]", lambda end: repr(end[0])[1:-1], super().__str__())


class Stopped(Exception):
    """A signal ended a run whose state is kept; the message says how to resume it."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def one_of_several() -> bool:
    """Whether this process is one of several that torchrun started."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1")


def exit_on_user_error(main: Callable[[], None]) -> None:
    """Runs a command; a UserError becomes one line on stderr and exit code 2, a signal one line and 128 + its number.

    Of the processes that torchrun starts, only the first prints; errors are printed by whichever process has them.
    Under %run, the process keeps running.
    """
    with suppress(AttributeError):  # in a notebook
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without ⁇ shows \u2047
    program, rank = Path(sys.argv[0]).name, os.environ.get("RANK", "0") if one_of_several() else "0"
    try:
        with ExitStack() as stack:
            if rank != "0":
                stack.enter_context(redirect_stdout(io.StringIO()))
                stack.enter_context(redirect_stderr(io.StringIO()))
            main()
        if sys.stdout is not None:  # closed, as by >&-
            sys.stdout.flush()
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "numpy", "tqdm", "tensorboard"):
            raise
        print(f"{program}: error: {error.name} is not installed; pip install -r requirements.txt", file=sys.stderr)
        end(2)
    except UserError as error:
        print(f"{program}: error{'' if rank == '0' else f' in process {rank}'}: {error}", file=sys.stderr)
        end(2)
    except Stopped as stopped:
        if rank == "0":
            print(f"{program}: {stopped}", file=sys.stderr)
        end(128 + stopped.signal_number)
    except KeyboardInterrupt:
        if rank == "0":
            print(f"{program}: interrupted; unfinished outputs were not written", file=sys.stderr)
        end(130)
    except BrokenPipeError:  # the reader closed the pipe, as head does
        discard_unwritable()
        sys.exit(1)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:  # an error on a file carries its name
            raise
        discard_unwritable()
        print(f"{program}: error: standard output: cannot be written ({error.strerror})", file=sys.stderr)
        sys.exit(2)
    finally:
        if in_ipython():
            forget_modules()


def discard_unwritable() -> None:
    """Points standard output and standard error at os.devnull if they cannot be written, so that Python's flush at
    exit does not fail.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed, as by >&-
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class DroppingStream:
    """A text stream that drops what it cannot write: to a closed pipe or terminal, or to a full disk."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()


@contextmanager
def dropping_output() -> Iterator[None]:
    """In this context, output that cannot be written is dropped, so that it does not end a long run."""
    try:
        with ExitStack() as stack:
            for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
                # None: closed, as by 2>&-, which tqdm does not expect
                stream = stream or stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(redirect(DroppingStream(stream)))
            yield
    finally:
        discard_unwritable()


def heeded_signals(*names: str) -> list[signal.Signals]:
    """Those of the signals that this system has and that are not ignored, as nohup ignores SIGHUP."""
    numbers = (getattr(signal, name, None) for name in names)
    return [number for number in numbers if number is not None and signal.getsignal(number) is not signal.SIG_IGN]


def in_ipython() -> bool:
    """Whether the command was started by %run, in Jupyter or IPython."""
    return "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None


def end(code: int) -> None:
    """Ends the process; under %run it does nothing, because a SystemExit would be shown below the error's line."""
    if not in_ipython():
        sys.exit(code)


def forget_modules() -> None:
    """Makes the next import read the modules of this folder again: they may have been edited."""
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if path is not None and Path(path).parent == Path(__file__).parent:
            del sys.modules[name]


def raise_on_interrupt() -> None:
    """From here on Ctrl-C raises KeyboardInterrupt, so that files are closed; an ignored SIGINT stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a description, and shows a default only where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        shown = action.default not in (None, []) and action.default is not False
        return super()._get_help_string(action) if shown else action.help


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose help shows defaults, that refuses empty values, and whose errors are UserErrors, one line
    each.
    """

    def __init__(self, description: str | None, **kwargs: str) -> None:
        super().__init__(description=description, formatter_class=HelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")

    def parse_args(self, *words: Any) -> argparse.Namespace:
        return self.without_empty(super().parse_args(*words))

    def parse_intermixed_args(self, *words: Any) -> argparse.Namespace:
        return self.without_empty(super().parse_intermixed_args(*words))

    def without_empty(self, found: argparse.Namespace) -> argparse.Namespace:
        """What was parsed. Raises UserError for an empty value, such as "$DEV" in a shell without that variable."""
        for action in self._actions:
            if getattr(found, action.dest, None) == "":
                self.error(f"{'/'.join(action.option_strings) or action.dest} is empty")
        return found


def positive(kind: type) -> Callable[[str], float]:
    """An argparse type: a finite number above zero; for int, a whole one."""

    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    parse.__name__ = f"positive {'whole number' if kind is int else 'number'}"  # for argparse's message
    return parse


def seed(text: str) -> int:
    """An argparse type: a whole number that every generator takes as its seed."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise ValueError
    return value
