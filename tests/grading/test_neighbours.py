"""What a student's kernel may ask of Linux, and what it could do to the grader and to the next."""

import json
import platform
import shutil
import signal
import subprocess
import sys

import pyseccomp
import pytest
import release
from classroom import as_ordinary_user, as_this_user

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")

# Each line of its input holds the cells of one student; what they say goes back as JSON.
PROGRAM = """
import json, sys
from contextlib import closing
from lab_grader.running.kernel import Kernel
from lab_grader.sandbox.limits import Limits
from lab_grader.sandbox.place import Sandbox

limits = Limits(cell_seconds=20)
with closing(Sandbox(limits)) as sandbox:
    server = sandbox._server.pid
    for line in sys.stdin:
        with sandbox.holding({}), Kernel(sandbox, frozenset(), limits) as kernel:
            outputs = [output for cell in json.loads(line) for output in kernel.run(cell, 10**6)]
        texts = (o.get("text") or "\\n".join(o["traceback"]) for o in outputs)
        assert sandbox._server.pid == server, "the fork server was ended"
        print(json.dumps("".join(texts)), flush=True)
"""


@pytest.fixture(scope="module", params=["this user", "an ordinary user"])
def students(request):
    """A function that runs the cells of some students, one after the other in one sandbox.

    It returns what the cells of each said.
    """
    start = as_this_user if request.param == "this user" else as_ordinary_user
    command, environment = start(sys.executable, "-c", PROGRAM)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=release.ROOT, env=environment, stdin=pipe, stdout=pipe, text=True
    ) as program:

        def run(*cells):
            for lines in cells:
                program.stdin.write(json.dumps(lines) + "\n")
            program.stdin.flush()
            return [json.loads(program.stdout.readline()) for _ in cells]

        yield run


REFUSED = """
    add_key request_key keyctl unshare setns mount umount2 move_mount open_tree fsopen mount_setattr
    pivot_root chroot ptrace process_vm_readv process_vm_writev process_madvise pidfd_open
    pidfd_getfd kcmp bpf perf_event_open userfaultfd io_uring_setup io_uring_enter kexec_load
    init_module finit_module delete_module memfd_create memfd_secret shmget msgget semget mq_open
    personality clone3 open_by_handle_at name_to_handle_at fanotify_init inotify_init1 quotactl
    swapon reboot acct syslog setuid setgid setgroups setns seccomp landlock_create_ruleset sync
    setpriority ioprio_set sched_setattr clock_settime settimeofday sethostname iopl vmsplice splice
"""
CALL = """
import ctypes, errno, os, resource, socket
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, *arguments):
    ctypes.set_errno(0)
    got = libc.syscall(*map(ctypes.c_long, arguments))
    print(name, "refused" if got == -1 and ctypes.get_errno() == errno.ENOSYS else f"GOT {got}")
"""


def test_calls_that_no_kernel_needs_are_unknown_to_it(students):
    numbers = {n: pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, n) for n in REFUSED.split()}
    known = {name: number for name, number in numbers.items() if number >= 0}
    assert len(known) > 55
    # the arguments that would do no harm if it were allowed
    lines = [f"refused({name!r}, {number}, 0, 0, 0, 0, 0)" for name, number in known.items()]
    (said,) = students([CALL + "\n".join(lines)])
    assert said.split("\n")[:-1] == [f"{name} refused" for name in known]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of calls")
def test_no_process_gets_new_namespaces(students):
    flags = {"user": 1 << 28, "net": 1 << 30, "pid": 1 << 29, "mount": 1 << 17, "ipc": 1 << 27}
    lines = [f"refused({name!r}, 56, {flag | signal.SIGCHLD}, 0, 0, 0, 0)"
             for name, flag in flags.items()]  # fmt: skip
    (said,) = students([CALL + "\n".join(lines)])
    assert said.split("\n")[:-1] == [f"{name} refused" for name in flags]


def test_sockets_of_other_families_are_refused(students):
    cell = """
import socket
for family in (16, 17, 38, 40, 10):  # netlink, packet, alg, vsock, IPv6
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        try: socket.socket(family, kind); print("GOT", family)
        except OSError: print("refused")
socket.socketpair()[0].close()
"""
    (said,) = students([cell])
    assert said.split() == ["refused"] * 15


def test_a_descriptor_gives_no_hold_on_others_and_no_memory_that_nobody_has(students):
    cell = """
import errno, fcntl, os
folder, file, (_, pipe) = os.open("/usr", 0), open("/tmp/mine", "w+"), os.pipe()
asked = {
    "changes": lambda: fcntl.fcntl(folder, fcntl.F_NOTIFY, 0x8000003F),
    "lease": lambda: fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK),
    "owner": lambda: fcntl.fcntl(file, fcntl.F_SETOWN, 1),
    "signal": lambda: fcntl.fcntl(file, fcntl.F_SETSIG, 9),
    "pipe": lambda: fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20),
    "lock": lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7),
    "lock of a file": lambda: fcntl.fcntl(file, fcntl.F_OFD_SETLK, bytes(32)),
}
for name, ask in asked.items():
    try: ask(); print("GOT", name)
    except OSError as error: print(errno.errorcode[error.errno])
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
copy = os.dup(file.fileno())
"""
    (said,) = students([cell])
    assert said.split() == ["ENOSYS"] * 7


def test_nothing_carries_over_in_key_rings(students):
    numbers = [pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, n) for n in ("add_key", "keyctl")]
    leave = f"""
import ctypes
libc = ctypes.CDLL(None)
for ring in (-3, -4, -5):  # of the session, the user and the user's session
    print(libc.syscall({numbers[0]}, b"user", b"left", b"answer", 6, ring))
"""
    find = f"""
import ctypes
libc = ctypes.CDLL(None)
for ring in (-3, -4, -5):
    print(libc.syscall({numbers[1]}, 10, ring, b"user", b"left", 0))
"""
    assert students([leave], [find]) == ["-1\n-1\n-1\n"] * 2


def test_the_folder_of_the_sockets_stays_as_it_is(students):
    """A socket that was replaced by a link would make the grader connect to another one."""
    cell = """
import os, socket
one = sorted(os.listdir("/sockets"))[0]
def attempt(what, function, *arguments):
    try: function(*arguments); print("GOT", what)
    except OSError as error: print(what, type(error).__name__, error.errno)
def bind(path): socket.socket(socket.AF_UNIX).bind(path)
attempt("unlink", os.unlink, f"/sockets/{one}")
attempt("rename", os.rename, f"/sockets/{one}", "/sockets/mine")
attempt("exchange", os.rename, "/tmp", f"/sockets/{one}")
attempt("link", os.symlink, "/run/docker.sock", "/sockets/mine")
attempt("mkdir", os.mkdir, "/sockets/mine")
attempt("mkfifo", os.mkfifo, "/sockets/mine")
attempt("write", open, "/sockets/mine", "w")
attempt("bind", bind, "/sockets/mine")
attempt("chmod", os.chmod, f"/sockets/{one}", 0)
attempt("chmod folder", os.chmod, "/sockets", 0o777)
print(len(os.listdir("/sockets")))
"""
    (said,) = students([cell, "print('still there')"])
    assert "GOT" not in said
    assert said.endswith("\n5\nstill there\n")


def test_stderr_is_not_shared(students):
    files = """
import os, stat
for number in range(256):
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode): continue
        {}
    except OSError: print("refused")
"""
    write = files.format("os.write(number, b'the answer of the first'); print('written')")
    read = files.format("print(open(f'/proc/self/fd/{number}').read())")
    first, second = students([write], [read + "print(os.listdir('/said'))"])
    assert "written" in first
    assert "answer" not in second
    assert second.endswith("[]\n")


def test_the_fork_server_is_out_of_reach(students):
    """Its limits and its schedule are those of the next student's kernel."""
    attack = """
import os, resource, signal
def attempt(what, function, *arguments):
    try: function(*arguments)
    except OSError as error: pass
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    attempt(number, os.kill, 1, number)
attempt("limit", resource.prlimit, 1, resource.RLIMIT_CPU, (1, 1))
attempt("limit", resource.prlimit, 1, resource.RLIMIT_AS, (1 << 20, 1 << 20))
attempt("limit", resource.prlimit, 1, resource.RLIMIT_NOFILE, (3, 3))
attempt("nice", os.setpriority, os.PRIO_PROCESS, 1, 19)
attempt("idle", os.sched_setscheduler, 1, os.SCHED_IDLE, os.sched_param(0))
attempt("core", os.sched_setaffinity, 1, {max(os.sched_getaffinity(0))})
"""
    look = """
import os, resource
print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), sorted(os.sched_getaffinity(0)),
      *(resource.getrlimit(which) for which in range(16)))
"""
    before, attacked, after = students([look], [attack], [look])
    assert attacked == ""
    assert before == after
