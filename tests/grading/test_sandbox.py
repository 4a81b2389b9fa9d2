"""The walls between a student's code and everything else, and between one kernel and the next."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import matplotlib
import matplotlib.font_manager  # makes a file with the fonts that it found
import psutil
import pytest

from lab_grader.running.execute import execute
from lab_grader.running.job import Cell, Job
from lab_grader.running.kernel import CannotStart, Died, Kernel
from lab_grader.sandbox.limits import Limits
from lab_grader.sandbox.place import Sandbox, Unconfined
from lab_utils import layers

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")

REFERENCE = frozenset([layers.__file__])
LIMITS = Limits(cell_seconds=20)


def printed(kernel, source):
    """What a cell prints, or its error."""
    outputs = kernel.run(source, LIMITS.output_bytes)
    return "".join(o.get("text") or "\n".join(o.get("traceback", [])) for o in outputs).strip()


@pytest.fixture(scope="module")
def sandbox():
    with closing(Sandbox(LIMITS)) as sandbox, sandbox.holding({"data/mine.txt": b"mine"}):
        yield sandbox


@pytest.fixture
def kernel(sandbox):
    with Kernel(sandbox, REFERENCE, LIMITS) as kernel:
        yield kernel


def test_the_reference_is_hidden_from_a_kernel_and_not_from_the_next(sandbox):
    read = f"print('lora_A' in open({layers.__file__!r}).read())"
    shows = []
    for hidden in (REFERENCE, frozenset(), REFERENCE):
        with Kernel(sandbox, hidden, LIMITS) as kernel:
            shows.append(printed(kernel, read.replace("lora_A", "kaiming_uniform_")))
    assert shows == ["False", "True", "False"]


def test_a_kernel_sees_what_it_may_see_whatever_the_graders_umask_is():
    """Folders are made above what it sees, and it is not the user who makes them."""
    before = os.umask(0o077)
    try:
        with (
            closing(Sandbox(LIMITS)) as sandbox,
            sandbox.holding({}),
            Kernel(sandbox, REFERENCE, LIMITS) as kernel,
        ):
            assert printed(kernel, "import os; print(oct(os.umask(0)))") == "0o22"
    finally:
        os.umask(before)


def test_no_other_process_shows_what_is_hidden(kernel):
    """The fork server's files are not masked, and its user may be the student's."""
    said = printed(
        kernel,
        "import glob, os\n"
        "for place in glob.glob('/proc/[0-9]*'):\n"
        "    if place == f'/proc/{os.getpid()}': continue\n"
        f"    for way in ('/root{layers.__file__}', '/mem', '/environ', '/fd/0'):\n"
        "        try: open(place + way, 'rb').read(10); print('GOT', place + way)\n"
        "        except OSError: print('refused')\n",
    )
    assert "GOT" not in said
    assert said.count("refused") == 4  # of the fork server


def test_the_fork_server_imports_what_is_needed_and_nothing_that_may_be_hidden():
    """What it has, every kernel finds in its memory. It has one thread, as a fork has."""
    look = (
        "import os, sys\n"
        "heavy = ('torch', 'torch._dynamo', 'scipy.stats', 'transformers', 'peft')\n"
        "print(len(os.listdir('/proc/1/task')), *(name for name in heavy if name in sys.modules))"
    )
    said = []
    with closing(Sandbox(LIMITS)) as sandbox:
        for needs in ((), ("optimizers",), ("scipy",), ("transformers",)):
            with (
                sandbox.holding({}, frozenset(needs)),
                Kernel(sandbox, frozenset(), LIMITS) as kernel,
            ):
                said.append(printed(kernel, look))
    assert said == [
        "1 torch",
        "1 torch torch._dynamo",
        "1 torch torch._dynamo scipy.stats",
        "1 torch torch._dynamo scipy.stats transformers",
    ]


def test_the_first_error_of_a_kernel_imports_nothing(kernel):
    """It is shown by a dozen packages, a quarter of a second for each kernel otherwise."""
    printed(kernel, "import sys; before = set(sys.modules)")
    assert "ZeroDivisionError" in printed(kernel, "1 / 0")
    assert printed(kernel, "print(sorted(set(sys.modules) - before))") == "[]"


def test_a_kernel_has_no_rights_and_cannot_get_any(kernel):
    said = printed(kernel, "print(open('/proc/self/status').read())")
    rights = dict(line.split(":\t") for line in said.splitlines() if ":\t" in line)
    assert {int(rights[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert rights["NoNewPrivs"] == "1"
    assert set(rights["Uid"].split()).isdisjoint({"0", str(os.getuid())})
    unmount = "import ctypes\nprint(ctypes.CDLL(None).umount2({!r}, 2))"
    assert printed(kernel, unmount.format(layers.__file__.encode())) == "-1"
    assert "lora_A = " not in printed(kernel, f"print(open({layers.__file__!r}).read())")


def test_what_is_mounted_in_a_folder_in_memory_is_there_and_read_only(kernel):
    """So is the lab itself where it lies in /tmp."""
    (fonts,) = Path(matplotlib.get_cachedir()).glob("fontlist*.json")
    said = printed(
        kernel,
        f"print(len(open('/tmp/{fonts.name}').read()))\n"
        f"try: open('/tmp/{fonts.name}', 'a')\n"
        "except OSError: print('refused')",
    )
    assert said == f"{fonts.stat().st_size}\nrefused"


def test_its_limits_are_those_that_were_asked_for(kernel):
    said = printed(
        kernel,
        "import resource as r\nprint([r.getrlimit(w)[1] for w in (r.RLIMIT_AS, r.RLIMIT_CPU, "
        "r.RLIMIT_NPROC, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE, r.RLIMIT_CORE)])",
    )
    asked = [2 * LIMITS.memory_bytes, LIMITS.cpu_seconds, LIMITS.threads]
    asked += [LIMITS.file_bytes, LIMITS.open_files, 0]
    assert said == str(asked)


@pytest.mark.parametrize("ends_by_itself", [False, True])
def test_nothing_outlives_a_kernel(sandbox, ends_by_itself):
    """Not a process that has left its group and session, not a file, not a changed variable."""
    leave = (
        "import os, sys, time\n"
        "for folder in ('/tmp', '/dev/shm', '.'): open(f'{folder}/left', 'w').write('x')\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0: time.sleep(1000)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "import scipy; scipy.left = 1; os.environ['LEFT'] = '1'\n"
        "print('left')"
    )
    look = (
        "import os, scipy\n"
        "seen = [os.path.exists(f'{f}/left') for f in ('/tmp', '/dev/shm', '.')]\n"
        "names = [open(f'/proc/{p}/comm').read().strip() for p in os.listdir('/proc') "
        "if p.isdigit()]\n"
        "print(seen, hasattr(scipy, 'left'), 'LEFT' in os.environ, len(names), "
        "open('data/mine.txt').read())"
    )
    with Kernel(sandbox, frozenset(), LIMITS) as kernel:
        assert printed(kernel, leave) == "left"
        assert printed(kernel, look) == "[True, True, True] True True 3 mine"
        if ends_by_itself:
            with pytest.raises(Died):
                printed(kernel, "os._exit(0)")
    with Kernel(sandbox, frozenset(), LIMITS) as kernel:
        # the fork server and the kernel itself
        assert printed(kernel, look) == "[False, False, False] False False 2 mine"


def test_one_submission_finds_nothing_of_another():
    """In the same sandbox, and from the same fork server."""
    names = ("mnt", "uts", "ipc", "net")
    look = (
        "import os\nprint(sorted(os.listdir('.')), sorted(os.listdir('/given')), os.getuid(), "
        f"*(os.readlink('/proc/self/ns/' + name) for name in {names}))"
    )
    shown = []
    with closing(Sandbox(LIMITS)) as sandbox:
        server = sandbox._server.pid
        for name in ("a.txt", "b/c.txt"):
            with sandbox.holding({name: b""}), Kernel(sandbox, REFERENCE, LIMITS) as kernel:
                shown.append(printed(kernel, look).split(" "))
            *_, first = psutil.Process(server).children(recursive=True)
            common = [os.readlink(f"/proc/{first.pid}/ns/{name}") for name in names]
            assert set(shown[-1][3:]).isdisjoint(common), "a namespace that the next one has too"
        assert list(sandbox.given.iterdir()) == list(sandbox.sockets.iterdir()) == []
        assert sandbox._server.pid == server
        assert sandbox.folder.exists()
    assert not sandbox.folder.exists()
    assert [found[:2] for found in shown] == [["['a.txt']"] * 2, ["['b']"] * 2]
    assert len({found[2] for found in shown}) == (2 if os.geteuid() == 0 else 1)


def test_kernels_do_not_share_their_random_numbers(sandbox):
    drawn = set()
    for _ in range(2):
        with Kernel(sandbox, frozenset(), LIMITS) as kernel:
            draw = "import random, numpy\nprint(random.random(), numpy.random.rand())"
            drawn.update(printed(kernel, draw).split())
    assert len(drawn) == 4


def test_a_sandbox_that_was_killed_starts_anew(sandbox):
    with Kernel(sandbox, REFERENCE, LIMITS) as kernel:
        assert printed(kernel, "print(1)") == "1"
        subprocess.run(["pkill", "-KILL", "-P", str(sandbox._server.pid)], check=True)
        while sandbox.kernel_runs():
            time.sleep(0.01)
        with pytest.raises(Died, match="its process ended"):
            printed(kernel, "print(2)")
        assert printed(kernel, "print(3)") == "3"


# A kernel as it is if we subscribe to its outputs between two parts of its first message: ipykernel
# does not notice that, so it says nothing by itself.
SAYS_NOTHING_BY_ITSELF = """
import sys
from ipykernel import iostream, ipkernel, kernelapp
iostream.IOPubThread._handle_subscription = lambda *_: None
publish = ipkernel.IPythonKernel._publish_status
ipkernel.IPythonKernel._publish_status = lambda self, status, *arguments, **named: (
    None if status == "starting" else publish(self, status, *arguments, **named)
)
kernelapp.launch_new_instance(argv=["-f", sys.argv[1], "--log-level=ERROR"])
"""


def test_a_kernel_that_says_nothing_by_itself_is_asked(monkeypatch):
    monkeypatch.setattr("lab_grader.running.kernel.START_SECONDS", 20)
    # What the debugger says about frozen modules would come first.
    python = (sys.executable, "-Xfrozen_modules=off")
    argv = (*python, "-c", SAYS_NOTHING_BY_ITSELF, "{connection_file}")
    monkeypatch.setattr(Unconfined, "ARGV", argv)
    unconfined = Unconfined()
    with unconfined.holding({}), Kernel(unconfined, frozenset(), LIMITS) as kernel:
        assert printed(kernel, "print(1)") == "1"


def test_where_no_kernel_can_start_nobody_gets_a_mark():
    cells = [
        Cell("def recompose(m, d): return m * d", "exercise", "def recompose(m, d): pass"),
        Cell("checks.check_recompose(recompose)", "test"),
    ]
    too_small = Limits(memory_bytes=1 << 20)
    with pytest.raises(CannotStart, match="a kernel did not start"):
        execute(Job({"01-mathematics": cells}, {}, too_small))


def test_the_fork_server_runs_in_a_sandbox_only():
    """It ends every process that it may, which outside would be all of the user's."""
    done = subprocess.run(
        [sys.executable, "-m", "lab_grader.sandbox.fork_server"],
        cwd=Path(layers.__file__).parents[1],
        input=b"",  # no order, in case that it runs
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert b"it starts as the first of a sandbox" in done.stderr
