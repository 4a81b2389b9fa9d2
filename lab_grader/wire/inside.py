"""The end of the wire in the student's process: answer one question about one of its objects.

This runs in the interpreter that runs the student's code, which may have changed any of it. So
nothing is decided here: `remote` reads what leaves as arrays and plain values only. The question
itself arrives as text and runs in a separate namespace.
"""

import asyncio
import builtins
import contextlib
import functools
import importlib
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from types import CodeType
from typing import Any

import torch
import torch.nn.functional as F
from IPython import get_ipython
from IPython.utils.text import LSString, SList
from torch import Tensor, nn

from lab_grader.wire import line
from lab_grader.wire.values import pack, unpack
from lab_utils.questions.student_code import StudentCodeFailed, student_code

# Lessons import these. Imported here, they let `fresh_start` see what a notebook changed in them.
for name in ("comparison", "plots", "widgets"):
    importlib.import_module(f"lab_utils.{name}")

LONGEST_PRINTED = 1 << 20  # characters of what the student's code prints during a question


def begin(address: str, most_bytes: int) -> None:
    """Answer the grader's questions from now on, between cells and in the same thread.

    Args:
        address: the grader's socket.
        most_bytes: the size limit of a message.
    """
    end = socket.socket(socket.AF_UNIX)
    end.connect(address)
    to_grader = line.Line(end, most_bytes)
    shell = get_ipython()
    # exit() and quit() ask the front end to end the process; here, other cells still need it.
    shell.ask_exit = lambda: None
    shell.system, shell.getoutput = _run_in_shell, _output_of_shell
    # The first output opens a pipe, which a student's code may leave no descriptor for.
    print(flush=True)
    asyncio.get_running_loop().add_reader(end, _answer_next, to_grader, os.getpid())
    fresh_start()


def _answer_next(to_grader: line.Line, pid: int) -> None:
    _end_if_forked(pid)
    while (message := to_grader.receive(None)) is None:
        pass
    to_grader.send(line.BEGUN)
    printed = _Printed()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with contextlib.redirect_stdout(printed):
            answered = answer(get_ipython().user_global_ns, message[1])
            # The student's code may have replaced `answer`; then there is nothing to read.
            reply = line.ANSWER, answered if isinstance(answered, bytes) else b""
    except BaseException as error:
        described = "".join(traceback.format_exception_only(error)).strip()
        reply = line.ERROR, described.encode(errors="replace")
    finally:
        signal.signal(signal.SIGINT, before)
    _end_if_forked(pid)
    if text := printed.getvalue():
        to_grader.send(line.PRINTED, text.encode(errors="replace"))
    to_grader.send(*reply)


def _run_in_shell(command: str) -> None:
    """Do what `!command` does, without a terminal: IPython uses one, and a sandbox has none."""
    shell = get_ipython()
    said, shell.user_ns["_exit_code"] = _in_shell(shell.var_expand(command, depth=1))
    print(said, end="")


def _output_of_shell(command: str, split: bool = True, depth: int = 0) -> SList | LSString:
    """Do what `lines = !command` does, without a terminal."""
    said, _ = _in_shell(get_ipython().var_expand(command, depth=depth + 1))
    return SList(said.splitlines()) if split else LSString(said)


def _in_shell(command: str) -> tuple[str, int]:
    """Return the output of a command, and its exit code."""
    # A pipe would be kept open by processes that the command leaves behind.
    with tempfile.TemporaryFile() as file:
        code = subprocess.call(
            command, shell=True, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
        file.seek(0)
        return file.read().decode(errors="replace"), code


def _end_if_forked(pid: int) -> None:
    """End this process if it is a fork of the notebook's: it would answer in that one's place."""
    if os.getpid() != pid:
        os._exit(1)


class _Printed(io.StringIO):
    """Keeps printed text, up to a maximum length."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        super().write(text[: max(0, LONGEST_PRINTED - self.tell())])
        return len(text)


def answer(namespace: dict[str, Any], question: bytes) -> bytes:
    """Ask about one of the student's objects; return the packed reply.

    Args:
        namespace: the notebook's variables.
        question: as `remote.RemoteObject` packed it; without a text: does the object exist?
    """
    name, text, file, function, arguments, step, reference = unpack(question)
    if text is None:
        return pack(name in namespace)
    try:
        with student_code(step, reference):
            asked = {"__name__": "question", "__builtins__": builtins}
            exec(_compiled(text, file), asked)
            reply = {"result": asked[function](namespace[name], *arguments)}
    except StudentCodeFailed as failure:
        reply = {"failed": str(failure), "lines": failure.lines}
    return pack(reply)


@functools.lru_cache
def _compiled(text: str, file: str) -> CodeType:
    return compile(text, file, "exec")


def fresh_start() -> bool:
    """Forget a notebook's variables; return whether nothing else of this process was changed.

    If nothing was, the next notebook finds what it would find in a new process.
    """
    get_ipython().reset(new_session=False)
    now = _state()
    if not _at_start:
        _at_start.update(now)
    return all(key in now and now[key] == value for key, value in _at_start.items())


_at_start: dict[Any, Any] = {}


def _state() -> dict[str, Any]:
    """Return the state that code may change for everything that runs later in this process."""
    modules = {
        name: module
        for name, module in sys.modules.items()
        if name.startswith(("lab_utils", "lab_grader"))
    }
    places = {"builtins": builtins, "torch": torch, "nn": nn, "F": F, "Tensor": Tensor} | modules
    state = {(place, n): id(v) for place, owner in places.items() for n, v in vars(owner).items()}
    shell = get_ipython()
    return state | {
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "folder": (os.getcwd(), sorted(os.listdir())),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "transformers": (len(shell.input_transformers_cleanup), len(shell.ast_transformers)),
    }
