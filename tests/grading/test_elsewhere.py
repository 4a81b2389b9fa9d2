"""The grader away from home: a Dask cluster, PostgreSQL, an ordinary user, no sandbox."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import release
from classroom import (
    as_ordinary_user,
    grade,
    hand_in,
    make_course,
    marks,
    marks_without,
    run,
    solutions,
    write_course,
)

from lab_utils import decomposition

needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")
WRONG = {"recompose": "def recompose(magnitude, direction):\n    return magnitude + direction"}
STUDENTS = {"right": ({}, marks_without()), "wrong": (WRONG, marks_without("recompose"))}
EXPECTED = {student: expected for student, (_, expected) in STUDENTS.items()}


def small_course(folder):
    return with_submissions(make_course(folder / "course"))


def with_submissions(course):
    for student, (answers, _) in STUDENTS.items():
        hand_in(course, student, solutions() | answers)
    return course


@pytest.fixture
def cluster(tmp_path):
    """A scheduler without workers; yields its address and a function that starts workers."""
    file = tmp_path / "scheduler.json"
    with contextlib.ExitStack() as stack:

        def start(*arguments, **environment):
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(file)],
                cwd=tmp_path,
                env=os.environ | environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return process

        start("scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1")
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        import json

        address = json.loads(file.read_text())["address"]
        yield address, start


def wait_for(client, workers):
    deadline = time.monotonic() + 60
    while len(client.nthreads()) != workers:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@needs_bwrap
def test_on_a_dask_cluster(tmp_path, cluster):
    """A cluster is refused that has no workers, some with several threads or other versions."""
    from dask.distributed import Client

    address, start = cluster
    course = small_course(tmp_path)
    refused = grade(course, "--dask", address, check=False)
    assert refused.returncode != 0
    assert "has no workers" in refused.stderr

    with Client(address) as client:
        threaded = start("worker", "--nworkers", "1", "--nthreads", "2", "--no-dashboard")
        client.wait_for_workers(1, timeout=60)
        refused = grade(course, "--dask", address, check=False)
        assert refused.returncode != 0
        assert "--nthreads 1" in refused.stderr
        assert marks(course) == {}
        threaded.terminate()
        threaded.wait()

        metadata = tmp_path / "others" / "peft-0.1.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.1\n")
        wait_for(client, 0)
        others = {"PYTHONPATH": str(metadata.parents[1])}
        other = start("worker", "--nworkers", "1", "--nthreads", "1", "--no-dashboard", **others)
        wait_for(client, 1)
        refused = grade(course, "--dask", address, check=False)
        assert refused.returncode != 0
        assert f"peft is 0.1 there and {version('peft')} here. Install" in refused.stderr
        assert marks(course) == {}
        other.terminate()
        other.wait()

        wait_for(client, 0)
        start("worker", "--nworkers", "2", "--nthreads", "1", "--no-dashboard")
        wait_for(client, 2)
    grade(course, "--dask", address, "--no-feedback")
    assert marks(course) == EXPECTED


def postgres_programs():
    """The folder of Debian's newest PostgreSQL server, or None."""
    folders = [Path(shutil.which("initdb") or "/none").resolve().parent]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists()), None)


@pytest.fixture
def postgres():
    """A real PostgreSQL server that listens on a socket in a folder of its own.

    On Debian: apt install postgresql. As root the server runs as nobody, since it refuses root.
    """
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = tempfile.mkdtemp(prefix="pg", dir="/tmp")
    command = []
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

    def call(program, *arguments):
        subprocess.run(
            [*command, str(programs / program), *arguments],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )

    data = ("-D", f"{folder}/data")
    text = ("--encoding", "UTF8", "--no-locale")  # whatever the environment says
    call("initdb", *data, *text, "--username", "grader", "--auth", "trust", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder}"
    call("pg_ctl", *data, "-w", "-l", f"{folder}/log", "-o", options, "start")
    try:
        yield f"postgresql+psycopg://grader@/postgres?host={folder}"
    finally:
        call("pg_ctl", *data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@needs_bwrap
def test_with_a_postgresql_gradebook(tmp_path, postgres):
    course = write_course(tmp_path / "course", f"c.CourseDirectory.db_url = {postgres!r}")
    run(course, "nbgrader", "generate_assignment", "dora")
    grade(with_submissions(course), "--no-feedback")
    assert marks(course, postgres) == EXPECTED
    assert not (course / "grading" / "gradebook.db").exists()


GRADE_ONE = """
import os
from lab_grader.running.execute import execute
from lab_grader.running.job import Cell, Job
from lab_grader.sandbox.bubblewrap import check_available
assert os.geteuid() != 0
check_available()
spy = '''
import glob, os
others = set(glob.glob('/proc/[0-9]*')) - {f'/proc/{os.getpid()}'}
assert len(others) == 1  # the fork server, from which nothing is hidden
for path in ('/etc/shadow', 'SOURCE', *(f'{other}/rootREFERENCE' for other in others)):
    try: print('GOT', open(path).read()[:50])
    except OSError: print('refused')
print('HOLLOW', 'not here while' in open('REFERENCE').read())
for path in ('/mine', '/dev/mine', '/usr/mine'):
    try: open(path, 'w'); print('WROTE', path)
    except OSError: print('refused')
'''
cells = [
    Cell("def recompose(m, d): return m * d", "exercise", "def recompose(m, d): pass"),
    Cell(spy, "student"),
    Cell("checks.check_recompose(recompose)", "test"),
]
print(execute(Job({"01-mathematics": cells}, {})))
"""


@needs_bwrap
def test_as_an_ordinary_user(tmp_path):
    """Without root a kernel lives in a user namespace; the same code, marks and walls."""
    program = GRADE_ONE.replace("SOURCE", str(release.SOLUTIONS / "01-mathematics.py"))
    program = program.replace("REFERENCE", decomposition.__file__)
    command, environment = as_ordinary_user(sys.executable, "-c", program)
    done = subprocess.run(
        command, cwd=release.ROOT, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "weight = magnitude * direction" in said
    assert "CheckFailed" not in said
    assert said.count("refused") == 6
    assert "HOLLOW True" in said
    assert "GOT" not in said
    assert "WROTE" not in said


def test_without_bubblewrap_it_asks_for_the_choice(tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("alembic", "prlimit"):
        program = shutil.which(name) or str(Path(sys.executable).parent / name)
        (tools / name).symlink_to(program)
    course = small_course(tmp_path)
    monkeypatch.setenv("PATH", str(tools))
    done = run(course, "lab_grader", "grade", "dora", check=False)
    assert done.returncode != 0
    assert "bubblewrap is not installed" in done.stderr
    assert "--no-sandbox" in done.stderr
    assert marks(course) == {}
    grade(course, "--no-sandbox", "--no-feedback")
    assert marks(course) == EXPECTED


def test_help_explains_itself(tmp_path):
    text = run(tmp_path, "lab_grader", "--help").stdout
    assert all(command in text for command in ("grade", "feedback", "export", "vet"))
    assert "never changes" in text
    options = run(tmp_path, "lab_grader", "grade", "--help").stdout
    assert all(o in options for o in ("--jobs", "--students", "--dask", "--no-sandbox", "--again"))


def test_a_folder_that_is_no_course(tmp_path):
    done = run(tmp_path, "lab_grader", "grade", "dora", check=False)
    assert done.returncode == 1
    assert textwrap.shorten(done.stderr, 60).startswith("lab_grader: ")
    assert "has no nbgrader_config.py" in done.stderr
