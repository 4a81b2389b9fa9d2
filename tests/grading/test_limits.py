"""What a submission may take ends, in time, output, processes and memory: singly and in all."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing, suppress
from dataclasses import replace
from unittest.mock import Mock

import pytest
import zmq
from classroom import hand_in, make_course, solutions

from lab_grader.running import bounds
from lab_grader.running.execute import execute
from lab_grader.running.job import Cell, Job
from lab_grader.running.kernel import (
    PATIENCE_SECONDS,
    Died,
    EndedBefore,
    Kernel,
    RemoteError,
    TimedOut,
)
from lab_grader.sandbox import bubblewrap, cgroup, place, usage
from lab_grader.sandbox.limits import Limits
from lab_grader.sandbox.place import Sandbox

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")

LIMITS = Limits(cell_seconds=5, memory_bytes=3 << 29)
ROOM = LIMITS.output_bytes


@pytest.fixture(scope="module")
def sandbox():
    with closing(Sandbox(LIMITS)) as sandbox, sandbox.holding({}):
        yield sandbox


@pytest.fixture
def kernel(sandbox):
    with Kernel(sandbox, frozenset(), LIMITS) as kernel:
        kernel.start()
        yield kernel


@pytest.fixture
def patient(sandbox):
    """A kernel whose cells may take longer, on a busy machine too."""
    with Kernel(sandbox, frozenset(), replace(LIMITS, cell_seconds=40)) as kernel:
        kernel.start()
        yield kernel


def said(outputs):
    return "".join(o.get("text") or "\n".join(o.get("traceback", [])) for o in outputs)


REPEAT = """
import threading, time
kernel, shell = get_ipython().kernel, get_ipython()
parent, idents = kernel.get_parent("shell"), kernel._shell_parent_ident.get()
def repeat():
    while True:
        time.sleep(0.05)
        kernel.session.send(
            kernel.shell_stream, "execute_reply", {content}, parent, ident=idents
        )
threading.Thread(target=repeat, daemon=True).start()
while True:
    try:
        while True: time.sleep(0.01)
    except KeyboardInterrupt: pass
"""


@pytest.mark.parametrize("content", ["{'status': 'ok', 'user_expressions': {}}", "{}", "[1]"])
def test_a_reply_that_comes_again_and_again_gives_no_more_time(kernel, content):
    start = time.monotonic()
    with suppress(Died):
        kernel.run(REPEAT.replace("{content}", content), ROOM)
    assert time.monotonic() - start < LIMITS.cell_seconds + 3 * PATIENCE_SECONDS


@pytest.mark.parametrize(
    "message",
    [
        "'status', {}",
        "'status', []",
        "'status', {'execution_state': ['idle']}",
        "'stream', {'name': 'stdout', 'text': ['a']}",
        "'stream', {'name': 7, 'text': 8}",
        "'error', {}",
        "'display_data', {'data': 3}",
    ],
)
def test_a_message_of_another_form_ends_the_kernel_at_most(kernel, message):
    cell = f"k = get_ipython().kernel\nk.session.send(k.iopub_socket, {message}, k.get_parent())"
    try:
        kernel.run(cell, ROOM)
    except Died as death:
        assert "something that is no" in str(death)
    assert said(kernel.run("print(1)", ROOM)) == "1\n"


def ask(kernel, body, printed=lambda _: None):
    """Let the kernel answer as a student's object would make it; the question itself is none."""
    kernel.run(
        "import gc, sys, os, time, signal, threading\n"
        f"def answer(*_):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n    return b'done'\n"
        "inside = sys.modules['lab_grader.wire.inside']\ninside.answer = answer\n"
        "line = next(o for o in gc.get_objects() if type(o).__name__ == 'Line')",
        ROOM,
    )
    return kernel.exchange(b"?", printed)


def test_what_is_printed_during_a_question_comes_back_before_its_answer(kernel):
    texts = []
    assert ask(kernel, "print('one', file=sys.stdout); sys.stdout.flush()", texts.append) == b"done"
    assert "".join(texts) == "one\n"
    assert ask(kernel, "pass", texts.append) == b"done"


@pytest.mark.parametrize(
    "body", ["while True: print('more' * 1000)", "while True: time.sleep(0.01)"]
)
def test_a_question_that_takes_too_long_is_interrupted_and_the_next_is_answered(kernel, body):
    with pytest.raises(TimedOut, match="it took more than 5 s"):
        ask(kernel, body)
    assert ask(kernel, "pass") == b"done"


IMMUNE = """
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt: pass
"""


def test_a_note_says_when_linux_killed_a_kernel_for_memory(kernel, monkeypatch):
    counts = iter([kernel_kills := usage.killed_for_memory(), kernel_kills + 1])
    monkeypatch.setattr(place, "killed_for_memory", lambda: next(counts))
    kernel.stop()
    kernel.start()
    with pytest.raises(Died, match=r"its process ended: Linux killed it, .*no memory left"):
        kernel.run("import os; os.kill(os.getpid(), 9)", ROOM)


@pytest.mark.parametrize(
    ("code", "seconds", "memory", "why"),
    [
        (0, 1, False, "exit code 0"),
        (3, 300, True, "exit code 3"),  # however much it took: it ended by itself
        (-signal.SIGSEGV, 1, True, "SIGSEGV"),
        (-signal.SIGKILL, 1, False, "SIGKILL"),
        (-signal.SIGKILL, 300, False, "it took more than 300 s of processor time"),
        (-40, 1, False, "exit code -40"),  # a signal without a name
    ],
)
def test_a_note_says_how_a_kernel_ended(code, seconds, memory, why):
    assert place.ending(code, seconds, memory, Limits()) == f"its process ended: {why}"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (IMMUNE, "it took more than 5 s and could not be interrupted"),
        ("os._exit(3)", "its process ended: exit code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "its process ended: SIGKILL"),
        ("line.close()", "something that is not a message"),
        ("line._socket.shutdown(2)", "something that is not a message"),
        ("line.send(77, b'')", "something that is not a message"),
        ("line._socket.sendall(b'\\xff' * 100)", "bytes are more than"),
        ("line._socket.sendall(bytes(3)); time.sleep(60)", "something that is not a message"),
        ("line.send(3, bytes(20 << 20))", "bytes are more than"),
        # a byte now and then gives no more time
        (
            "line._socket.sendall(b'\\3\\0\\0\\0\\0\\0\\0\\1\\0')\n"
            "def drip():\n"
            "    while True: line._socket.sendall(b'x'); time.sleep(0.05)\n"
            f"threading.Thread(target=drip, daemon=True).start()\n{IMMUNE}",
            "could not be interrupted",
        ),
    ],
)
def test_a_line_that_is_misused_ends_the_kernel_at_most(kernel, body, why):
    start = time.monotonic()
    with pytest.raises(Died, match=why):
        ask(kernel, body)
    assert time.monotonic() - start < LIMITS.cell_seconds + 3 * PATIENCE_SECONDS
    assert ask(kernel, "pass") == b"done"


def test_an_error_outside_of_the_students_code_is_told(kernel):
    with pytest.raises(RemoteError, match="no luck"):
        ask(kernel, "raise RuntimeError('no luck')")
    assert ask(kernel, "pass") == b"done"


def test_an_answer_that_is_not_bytes_comes_at_once_as_nothing(kernel):
    start = time.monotonic()
    assert ask(kernel, "return 'text'") == b""
    assert time.monotonic() - start < LIMITS.cell_seconds
    assert ask(kernel, "pass") == b"done"


def recompose(body):
    lead = Cell("import os, time\nfrom lab_utils import checks", "student")
    text = f"def recompose(m, d):\n    {body}\n    return m * d"
    return [
        lead,
        Cell(text, "exercise", "def recompose(m, d): pass"),
        Cell("checks.check_recompose(recompose)", "test"),
    ]


def run(cells, **limits):
    return execute(Job({"01-mathematics": cells}, {}, Limits(**limits)))


def test_all_cells_together_have_a_limit_of_time():
    sleep = [Cell(f"time.sleep(4)  # {n}", "student") for n in range(50)]
    start = time.monotonic()
    result = run([*recompose("pass")[:1], *sleep, *recompose("pass")[1:]], submission_seconds=3)
    assert time.monotonic() - start < 60
    assert result.notes == ["it took more than 3 s, and what was left of it is not run"]
    *_, tested = result.outputs["01-mathematics"]
    assert "the submission had taken more than 3 s before" in json.dumps(tested)


def test_all_cells_together_have_a_limit_of_output():
    loud = [Cell(f"print('x' * 250_000)  # {n}", "student") for n in range(60)]
    result = run([*loud, *recompose("pass")], submission_output_bytes=2 << 20)
    assert len(json.dumps(result.outputs)) < 3 << 20
    assert "CheckFailed" not in json.dumps(result.outputs)


def test_what_a_check_lets_print_has_a_limit():
    result = run(recompose("print('x' * 200_000)"))
    *_, tested = result.outputs["01-mathematics"]
    assert len(json.dumps(tested)) < ROOM + 20_000
    assert "more output; cut here" in json.dumps(tested)
    assert "CheckFailed" not in json.dumps(tested)


COUNTS = """
calls = 0

def recompose(m, d):
    global calls
    calls += 1
    print(f"call {calls}")
    return m * d
"""


def test_what_a_check_asked_is_asked_again_only_after_another_cell():
    test = Cell("checks.check_recompose(recompose)", "test")
    lead, _, _ = recompose("pass")
    exercise = Cell(COUNTS, "exercise", "def recompose(m, d): pass")
    result = run([lead, exercise, test, test, Cell("calls = 1000", "student"), test])
    *_, first, second, _, third = result.outputs["01-mathematics"]
    assert "call 1\n" in said(first), "what is printed is shown"
    assert said(first) == said(second)
    assert "call 1001\n" in said(third)
    assert "CheckFailed" not in json.dumps(result.outputs)


IDLE = """
import os, time
held = bytes(50 << 20).replace(bytes(1), b'1')
for _ in range(10):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
time.sleep(1)
print("idle")
"""


def test_what_processes_share_counts_once(patient):
    assert said(patient.run(IDLE, ROOM)) == "idle\n"
    assert said(patient.run("time.sleep(1); print('still there')", ROOM)) == "still there\n"


@pytest.mark.parametrize(
    "take",
    [
        "held = [bytes(100 << 20).replace(bytes(1), b'1') for _ in range(16)]",
        # in several processes
        "for _ in range(4):\n"
        "    if os.fork() == 0: held = bytes(450 << 20).replace(bytes(1), b'1'); time.sleep(60)",
        # at sockets whose clients have ended
        "import socket\nheld = []\nfor n in range(3):\n"
        "    held.append(socket.socket(socket.AF_UNIX)); held[-1].bind(f'/tmp/{n}')\n"
        "    held[-1].listen(4096)\n"
        "    for _ in range(4096):\n"
        "        client = socket.socket(socket.AF_UNIX); client.settimeout(1)\n"
        "        client.connect(f'/tmp/{n}'); client.send(bytes(1 << 10)); client.close()",
    ],
)
def test_memory_has_a_limit(patient, take):
    with pytest.raises(Died, match="it took more than 1,536 MB of memory"):
        patient.run(f"import os, time\n{take}\ntime.sleep(60)", ROOM)


def test_memory_that_no_process_has_is_refused(kernel):
    """Shared memory stays after it is taken out of a process's count, unless it is a file."""
    cell = """
import mmap, os
zero = os.open("/dev/zero", os.O_RDWR)
for file in (-1, zero):
    try: mmap.mmap(file, 1 << 20); print("GOT", file)
    except OSError as error: print(type(error).__name__)
print(os.read(zero, 3), os.path.exists("/dev/full"), len(mmap.mmap(-1, 4096, mmap.MAP_PRIVATE)))
with open("/tmp/file", "wb+") as file:
    file.truncate(4096)
    print(len(mmap.mmap(file.fileno(), 4096)))
"""
    expected = "PermissionError\nOSError\nb'\\x00\\x00\\x00' True 4096\n4096\n"
    assert said(kernel.run(cell, ROOM)) == expected


def test_a_socket_holds_no_more_than_it_is_counted_for(kernel):
    cell = """
import socket
one, other = socket.socketpair()
for option in (socket.SO_SNDBUF, socket.SO_RCVBUF, 32, 33):
    try: one.setsockopt(socket.SOL_SOCKET, option, 1 << 24); print("GOT", option)
    except OSError: print("refused")
for make in (socket.socket, socket.socketpair):
    try: make(socket.AF_UNIX, socket.SOCK_DGRAM); print("GOT", make)
    except OSError: print("refused")
one.setblocking(False)
sent = 0
try:
    while True: sent += one.send(bytes(1 << 10))
except BlockingIOError: print(sent)
"""
    *refused, sent = said(kernel.run(cell, ROOM)).split()
    assert refused == ["refused"] * 6
    assert 0 < int(sent) <= usage.socket_bytes()


def test_linux_ends_a_kernel_before_anything_else(kernel):
    assert said(kernel.run("print(open('/proc/self/oom_score_adj').read())", ROOM)) == "1000\n\n"


def test_memory_has_a_limit_between_two_requests(kernel):
    """While the grader is busy with something else, a thread of the student's goes on."""
    cell = """
import threading, time
def take():
    held = []
    while True:
        try: held.append(b'1' * (1 << 24))
        except MemoryError: time.sleep(0.1)  # and keep what there is
threading.Thread(target=take, daemon=True).start()
"""
    kernel.run(cell, ROOM)
    deadline = time.monotonic() + 60
    while kernel.place.kernel_runs() and time.monotonic() < deadline:
        time.sleep(0.1)  # nothing is asked
    assert not kernel.place.kernel_runs()
    with pytest.raises(EndedBefore, match="it took more than 1,536 MB of memory"):
        kernel.run("print(1)", ROOM)


FORK = """
import os, time
try:
    while os.fork(): pass
    time.sleep(60)
except BlockingIOError: print("no more")
"""


def test_what_is_asked_next_is_not_blamed_for_what_was_left_behind(patient):
    kernel = patient
    kernel._guard._place = closed = Mock(usage=Mock(return_value=(65, 0)))
    with pytest.raises(EndedBefore, match="it had more than 64 processes"):
        kernel.run("import time; time.sleep(4)", ROOM)
    assert closed.kill_kernel.called
    with pytest.raises(Died, match="it had more than 64 processes") as raised:
        kernel.run(f"import time; time.sleep(1)\n{FORK}\ntime.sleep(30)", ROOM)
    assert raised.type is Died
    assert said(kernel.run("print(1)", ROOM)) == "1\n"


@pytest.mark.parametrize("role", ["lesson", "student"])
def test_a_cell_that_leaves_too_much_behind_is_left_out_and_the_next_is_not(role, monkeypatch):
    """Also one of the lesson's, if it calls what a student wrote, on a machine that looks late."""
    monkeypatch.setattr(bounds, "WATCH_SECONDS", 0.6)
    lead, exercise, test = recompose("kept\n    if not m.numel(): left")
    leaving = "def leave():\n    for _ in range(80):\n        if os.fork() == 0: time.sleep(60)"
    keeping = """
import pathlib
kept = time.monotonic()
while len([*pathlib.Path("/proc").glob("[0-9]*")]) > 64 and time.monotonic() < kept + 20:
    time.sleep(0.1)  # until they are noticed
"""
    leave, keep = Cell("left = leave()", role), Cell(keeping, "student")
    result = run([lead, Cell(leaving, "student"), leave, keep, exercise, test])
    assert "CheckFailed" not in json.dumps(result.outputs), result.notes
    assert result.notes[-1] == "01-mathematics: cell 3: it had more than 64 processes"


def test_a_machine_that_never_comes_to_look_holds_nobody_up(kernel):
    kernel.run("1", ROOM)
    kernel._guard.end()
    start = time.monotonic()
    kernel.ask_whether_it_runs()
    assert time.monotonic() - start < 2 * LIMITS.cell_seconds


MEMORY_BYTES = 1 << 28


def test_a_cgroup_holds_the_limit_on_memory():
    command = cgroup.confining(MEMORY_BYTES).command
    if not command:
        pytest.skip("systemd makes no cgroup with a limit on memory here")
    take = f"held = bytes({2 * MEMORY_BYTES}).replace(bytes(1), b'1')"
    done = subprocess.run([*command, sys.executable, "-c", take])
    assert done.returncode == -signal.SIGKILL


# Stand-ins for systemd: what they do, and whether their cgroup is used.
RUN = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"'
SYSTEMDS = {
    "no bus": ("echo Failed to connect to bus >&2; exit 1", False),
    "no say, as in a container": (RUN, False),
    "another limit": ("echo max", False),
    "the limit": (f"echo {MEMORY_BYTES}", True),
    "an older one": (
        f'case "$*" in *OOMPolicy*) echo Unknown assignment >&2; exit 1;; esac; '
        f"echo {MEMORY_BYTES}",
        True,
    ),
    "one that hangs": ("exec sleep 60", False),
    "no program": ("\0", False),
}


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """What puts a stand-in for systemd-run at its place."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(cgroup, "BOOTED", tmp_path)
    monkeypatch.setattr(cgroup, "SECONDS", 4)
    cgroup.confining.cache_clear()

    def put(does):
        program = tmp_path / "systemd-run"
        program.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n{does}\n')
        if does == "\0":
            program.write_bytes(b"\x7fELF nothing")
        program.chmod(0o755)
        return tmp_path / "asked"

    yield put
    cgroup.confining.cache_clear()


@pytest.mark.parametrize("does", SYSTEMDS)
def test_a_cgroup_is_used_where_its_limit_is_seen(systemd, does):
    text, used = SYSTEMDS[does]
    asked = systemd(text)
    found = cgroup.confining(MEMORY_BYTES)
    assert bool(found.command) == used
    assert bool(found.why_not) != used
    if used:
        assert found.command[0] == str(asked.parent / "systemd-run")
        assert f"MemoryMax={MEMORY_BYTES}" in found.command
        assert ("--user" in found.command) == (os.geteuid() != 0)
        assert "$" not in "".join(found.command)
        assert ("OOMPolicy=continue" in found.command) == (does != "an older one")


@pytest.mark.parametrize(
    ("limit", "said"),
    [("--nofile=64", "-n, open files (64 instead of 256)"), ("--cpu=200", "-t, seconds of")],
)
def test_a_shell_with_lower_limits_is_one_sentence(tmp_path, limit, said):
    """Nobody is graded under other limits than everybody else."""
    course = make_course(tmp_path / "course")
    hand_in(course, "ada", solutions())
    command = ["prlimit", limit, sys.executable, "-m", "lab_grader", "grade", "dora"]
    done = subprocess.run(command, cwd=course, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and said in done.stderr, done.stderr


def test_a_note_says_where_systemd_makes_no_cgroup(systemd, capsys):
    systemd(SYSTEMDS["no bus"][0])
    bubblewrap.check_available()
    assert "systemd makes no cgroup (Failed to connect to bus); memory" in capsys.readouterr().err


@pytest.mark.parametrize("fails_later", [False, True])
def test_a_sandbox_starts_in_its_cgroup(systemd, fails_later, capsys):
    """Or without one, if systemd makes none when it counts."""
    most = cgroup.memory_of_sandbox(LIMITS)
    then = "echo Failed to start >&2; exit 1" if fails_later else RUN
    asked = systemd(f'case "$*" in *bwrap*) {then};; esac; echo {most}')
    with (
        closing(Sandbox(LIMITS)) as sandbox,
        sandbox.holding({}),
        Kernel(sandbox, frozenset(), LIMITS) as kernel,
    ):
        assert said(kernel.run("print(1)", ROOM)) == "1\n"
    assert f"MemoryMax={most}" in asked.read_text().splitlines()[-1]
    assert " -- bwrap" in asked.read_text().splitlines()[-1]
    note = capsys.readouterr().err
    assert ("a sandbox goes on without a cgroup" in note and "Failed to start" in note) == (
        fails_later
    )


def test_files_in_memory_have_a_limit(kernel):
    cell = """
import ctypes, os
written, kept = 0, []
for folder in ("/tmp", "/dev/shm", "."):
    try:
        for number in range(1000):
            kept.append(open(f"{folder}/{number}", "wb", buffering=0))
            os.unlink(f"{folder}/{number}") if number % 2 else None
            written += kept[-1].write(bytes(16 << 20))
    except OSError as error: print(error.errno)
print(written)
print(ctypes.CDLL(None).memfd_create(b"more", 0))
"""
    *errors, written, more = said(kernel.run(cell, ROOM)).split()
    assert errors == ["28"] * 3
    assert int(written) <= LIMITS.scratch_bytes
    assert more == "-1"


def test_files_have_a_limit_in_number(kernel):
    cell = "for n in range(20_000): open(f'/tmp/{n}', 'w').close()"
    assert "No space left" in said(kernel.run(cell, ROOM))


def test_open_files_have_a_limit(kernel):
    cell = "held = []\nwhile True: held.append(open('/dev/null'))"
    assert "Too many open files" in said(kernel.run(cell, ROOM))
    assert int(said(kernel.run("print(len(held))", ROOM))) < LIMITS.open_files
    assert said(kernel.run("held.clear(); print(1)", ROOM)) == "1\n"


def test_processes_have_a_limit(patient):
    cell = "import os, time\nfor _ in range(80):\n    if os.fork() == 0: time.sleep(60)\n"
    with pytest.raises(Died, match="it had more than 64 processes"):
        patient.run(f"{cell}time.sleep(60)", ROOM)


def test_a_message_that_is_too_large_is_not_received(kernel):
    """The grader would take many times its size to read it."""
    assert kernel._client.iopub_channel.socket.getsockopt(zmq.MAXMSGSIZE) == LIMITS.message_bytes
    assert "x" not in said(kernel.run("print('x' * (20 << 20))", ROOM))
    kernel.run("display({'text/plain': 'y' * (20 << 20)}, raw=True)", ROOM)
    assert said(kernel.run("print(1)", ROOM)) == "1\n"  # what comes later is received


def test_a_reply_that_is_too_large_costs_no_more_than_itself(kernel):
    outputs = kernel.run("answer = 42\nraise ValueError('x' * (10 << 20))", ROOM)
    assert [it.evalue for it in outputs] == [
        "an error or another reply of more than 16 MB is left out"
    ]
    kernel.run("assert answer == 42", ROOM)
    assert ask(kernel, "pass") == b"done"
    with pytest.raises(Died, match="its process ended"):
        kernel.run("import os; os._exit(0)", ROOM)


def test_a_reply_that_is_too_large_between_two_requests_keeps_nobody_waiting(kernel):
    cut = """
import threading, time
kernel = get_ipython().kernel
parent, ident = kernel.get_parent(), kernel._parent_ident["shell"]
def send():
    time.sleep(0.2)
    reply = {"x": "x" * (20 << 20)}
    kernel.session.send(kernel.shell_stream, "execute_reply", reply, parent=parent, ident=ident)
threading.Thread(target=send).start()
"""
    kernel.run(cut, ROOM)
    assert kernel._cuts["shell"].poll(5000)
    began = time.monotonic()
    assert said(kernel.run("print(1)", ROOM)) == "1\n"
    assert time.monotonic() - began < LIMITS.cell_seconds


def test_a_kernel_is_stopped_whatever_fails(sandbox, monkeypatch):
    """A context of ZeroMQ that is left to its destructor may wait for ever."""
    kernel = Kernel(sandbox, frozenset(), LIMITS)
    kernel.start()
    context = kernel._manager.context

    def fail(*_):
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(kernel._client, "stop_channels", fail)
        patch.setattr(sandbox, "stop_kernel", fail)
        patch.setattr(kernel._manager, "cleanup_resources", fail)
        with pytest.raises(OSError, match="no"):
            kernel.stop()
    assert context.closed
    with Kernel(sandbox, frozenset(), LIMITS) as another:
        assert said(another.run("print(1)", ROOM)) == "1\n"
