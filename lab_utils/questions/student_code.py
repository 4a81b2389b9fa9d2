"""Run a student's code: an error becomes a sentence, and calls of the reference are noticed."""

import contextlib
import linecache
import sys
import traceback
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch

from lab_utils.questions.usual_causes import usual_cause

# Frames of these files are not the student's.
LAB_UTILS = str(Path(__file__).resolve().parents[1])
SITE_PACKAGES = str(Path(torch.__file__).resolve().parents[1])
LONGEST_ERROR = 1000
# What changes the numbers of all code that runs later: how it is read and set, and what to say.
SETTINGS = (
    (
        torch.is_grad_enabled,
        torch.set_grad_enabled,
        "switches gradients off for all code that runs later: write `with torch.no_grad():`, which "
        "switches them on again at its end.",
    ),
    (
        torch.get_default_dtype,
        torch.set_default_dtype,
        "sets PyTorch's default dtype for all code that runs later: give each tensor its own, with "
        "dtype=torch.float64 or .double().",
    ),
)
GIVEN = "super().__init__()"  # stands in a stub above what a student writes


class StudentCodeFailed(Exception):
    """The student's code is not written yet, raised an error, or called the reference.

    Args:
        lines: the lines of the student's own code that raised, where they are known.
    """

    def __init__(self, text: str, lines: list[str] | None = None) -> None:
        super().__init__(text)
        self.lines = lines or []


@contextlib.contextmanager
def student_code(step: str, reference: Collection[str] = ()) -> Iterator[None]:
    """Run the student's code, without its warnings and without luck.

    Memory that it takes and never fills holds NaN, and not what another tensor left there, which
    may look right. `SETTINGS` are afterwards as they were before.

    Args:
        step: what the code is asked to do, for messages.
        reference: the files and folders whose code the student may not call.

    Raises:
        StudentCodeFailed: see there.
    """
    called = []
    forbidden = tuple(reference)

    def watch(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(forbidden):
            called.append(f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}")

    failure = cause = None
    settings = [get() for get, _, _ in SETTINGS]
    # A warning is not a wrong answer, nor is what is written to stderr.
    with warnings.catch_warnings(), contextlib.redirect_stderr(sys.stdout), _no_leftovers():
        warnings.simplefilter("ignore")
        before = sys.getprofile()
        if forbidden:  # watching every call slows a training many times over
            sys.setprofile(watch)
        try:
            yield
        except NotImplementedError as error:
            failure, cause = f"{step} is not written yet{_what_is_left(error)}", error
        except (KeyboardInterrupt, StudentCodeFailed):
            raise
        except BaseException as error:
            failure, cause = _what_was_raised(step, error), error
        finally:
            sys.setprofile(before)
            left = _restored(settings)
    if called:
        raise StudentCodeFailed(
            f"{step} calls {called[0]}, which is the reference; this exercise asks for your own "
            "code, so a layer or function of lab_utils or PEFT, wrapped, subclassed or handed "
            "back, earns no marks."
        )
    if failure:
        raise StudentCodeFailed(failure, _own_lines(cause)) from cause
    if left:
        raise StudentCodeFailed(f"{step} {left}")


def _restored(settings: list[Any]) -> str:
    """Put the settings back; say what the code did to one, if it changed one."""
    problem = ""
    for (get, put, said), before in zip(SETTINGS, settings, strict=True):
        if get() != before:
            put(before)
            problem = problem or said
    return problem


@contextlib.contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Let PyTorch's global generator, the CPU's, draw what follows from a seed.

    Afterwards it goes on as if nothing had been drawn. `torch.manual_seed` would also write down
    the stack of calls for each kind of device that is not there, which takes longer than a layer.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def _no_leftovers() -> Iterator[None]:
    """Let `torch.empty` and its kin return NaN."""
    mode = torch.get_deterministic_debug_mode()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    # Fills memory as torch.use_deterministic_algorithms does, which would import the compiler.
    torch.set_deterministic_debug_mode("warn")
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = fill


def _what_was_raised(step: str, error: BaseException) -> str:
    kind, text = type(error).__name__, _text_of(error)
    own = _own_frames(error)
    line = (own[-1].line or "") if own else ""
    return f"{step} raised {kind}: {text}{usual_cause(kind, text, step, line)}"


def _what_is_left(error: NotImplementedError) -> str:
    """Say which line raises, and to delete it if the student's code is above it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if (frame.line or "").strip() != "raise NotImplementedError()":
        return " (it raised NotImplementedError)."
    above = [linecache.getline(frame.filename, n).strip() for n in range(1, frame.lineno)]
    while above and (above[-1] in ("", GIVEN) or above[-1].startswith("#")):
        above.pop()
    if above and not above[-1].endswith(('"""', ":")):
        return f": code stands above its line {frame.lineno}, so delete that line, {frame.line}."
    return f": write it in place of line {frame.lineno}, {frame.line}."


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:LONGEST_ERROR]
    except Exception:
        return "(an error whose text cannot be read)"


def _own_lines(error: BaseException) -> list[str]:
    """Return the lines that led to an error, without those of the lab and of its packages."""
    return [f"in {frame.name}, line {frame.lineno}:  {frame.line}" for frame in _own_frames(error)]


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    below = frames[2:]  # without who runs it, and `student_code`
    return [f for f in below if not f.filename.startswith((LAB_UTILS, SITE_PACKAGES))]
