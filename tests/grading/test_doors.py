"""nbgrader's own commands are safe doors: they vet, run in the sandbox, and give the same marks."""

import os
import shutil
import subprocess
import sys

import pytest
import release
from classroom import (
    LESSON,
    POINTS,
    STOCK,
    folder_of,
    grade,
    hand_in,
    make_course,
    marks,
    marks_without,
    run,
    solutions,
)
from ipykernel.kernelspec import write_kernel_spec

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")

NOTHING = dict.fromkeys(POINTS, 0)


def hostile(path):
    """Right answers in a cell that first writes a file outside, where it can."""
    right = solutions()
    return right | {"decompose": f"open({str(path)!r}, 'w').write('it ran')\n{right['decompose']}"}


def hand_in_a_class(course, mark):
    """Return the marks that each must get."""
    hand_in(course, "honest", solutions())
    hand_in(course, "half", solutions() | {"recompose": "# I do not know"})
    hand_in(course, "writer", hostile(mark))
    hand_in(course, "renamed", solutions()).rename(folder_of(course, "renamed") / "mine (2).ipynb")
    (folder_of(course, "damaged") / f"{LESSON}.ipynb").write_text('{"cells": [')
    hand_in(course, "linked", solutions())
    os.symlink("/etc/passwd", folder_of(course, "linked") / "data.txt")
    os.mkfifo(folder_of(course, "linked") / "pipe")
    hand_in(course, "stamped", solutions())
    (folder_of(course, "stamped") / "timestamp.txt").write_text("when I was done")
    (folder_of(course, "stamped") / "a\x1b[2Jb\nc.txt").write_text("x")
    everything = marks_without()
    return {
        "honest": everything,
        "half": marks_without("recompose"),
        "writer": everything,  # what stands below the line that stopped runs, too
        "renamed": everything,
        "damaged": NOTHING,
        "linked": everything,
        "stamped": everything,
    }


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return make_course(tmp_path_factory.mktemp("doors") / "course")


def test_the_command_line_grades_as_make_grade(course, tmp_path):
    mark = tmp_path / "it-ran"
    expected = hand_in_a_class(course, mark)
    done = run(course, "nbgrader", "autograde", "dora", check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "\x1b[2J" not in done.stderr
    assert marks(course) == expected
    assert not mark.exists()
    copied = {p.name for p in (course / "grading" / "autograded").rglob("*") if p.is_file()}
    assert copied == {f"{LESSON}.ipynb", "timestamp.txt"} - {"timestamp.txt"}

    kept = {p: p.stat().st_mtime_ns for p in (course / "grading" / "cache").iterdir()}
    grade(course, "--no-feedback")
    assert marks(course) == expected
    again = {p: p.stat().st_mtime_ns for p in (course / "grading" / "cache").iterdir()}
    assert again == kept, "both doors take from one cache"


def test_without_the_doors_the_same_code_runs(tmp_path):
    """As nbgrader has it, the student's code writes outside: that is what is held back."""
    course, mark = make_course(tmp_path / "course", *STOCK), tmp_path / "it-ran"
    hand_in(course, "writer", hostile(mark))
    run(course, "nbgrader", "autograde", "dora", check=False)
    assert mark.exists()


def test_no_door_opens_without_a_sandbox(course, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("alembic", "python"):
        (tools / name).symlink_to(os.path.join(os.path.dirname(sys.executable), name))
    mark = tmp_path / "it-ran"
    hand_in(course, "writer", hostile(mark))
    environment = {"PATH": str(tools)}
    done = run(
        course, "nbgrader", "autograde", "dora", "--force", check=False, environment=environment
    )
    assert done.returncode == 1
    assert "bubblewrap" in done.stderr and "Traceback" not in done.stderr
    assert not mark.exists()


def test_nothing_of_nbgrader_executes_a_notebook(course, tmp_path):
    """Nor does an Autograde whose exporter is nbgrader's own."""
    mark = tmp_path / "it-ran"
    hand_in(course, "writer", hostile(mark))
    plain_exporter = "--Autograde.exporter_class=nbconvert.exporters.NotebookExporter"
    done = run(
        course,
        "nbgrader",
        "autograde",
        "dora",
        "--force",
        "--student=writer",
        plain_exporter,
        check=False,
    )
    assert done.returncode == 1
    assert "run only in the sandbox" in done.stderr
    assert not mark.exists()


SHOWN_ELSEWHERE = """
import nbformat
from nbconvert.exporters import HTMLExporter
from nbgrader.apps.baseapp import NbGrader

app = NbGrader()
app.load_config_file()  # as Formgrader does
texts = ["<script>JS</script>", "$\\\\href{x}{a}$", "$\\\\mmlToken{mi}[href='x']{b}$"]
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(t) for t in texts])
for settings in ({}, {"config": app.config}):
    page, _ = HTMLExporter(template_name="basic", **settings).from_notebook_node(notebook)
    print([text in page for text in ("<script>JS", "href{", "mmlToken{")])
"""


def test_pages_run_nothing_wherever_jupyterlab_is_started(tmp_path):
    """Formgrader's exporter is configured in the environment, not in the course's folder alone."""
    write_kernel_spec(tmp_path / "share/jupyter/kernels/python3")
    program = release.ROOT / "scripts" / "configure.py"
    subprocess.run([sys.executable, program, tmp_path], check=True)
    environment = os.environ | {"JUPYTER_CONFIG_PATH": str(tmp_path / "etc/jupyter")}
    done = subprocess.run(
        [sys.executable, "-c", SHOWN_ELSEWHERE],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "[True, True, True]\n[False, False, False]\n"
