"""A course folder to grade in, and students who hand something in."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import nbformat
import release
from nbgrader.api import Gradebook

from lab_grader.intake.dependencies import needed

LESSON = "01-mathematics"


@cache
def points_of(*lessons, by_hand=False):
    """The points of the cells that checks mark, or those that a person marks, by `grade_id`."""
    cells = [
        c for name in lessons for c in release.read_lesson(release.SOLUTIONS / f"{name}.py").cells
    ]
    return {
        cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader.points
        for cell in cells
        if cell.metadata.get("nbgrader", {}).get("grade")
        and (cell.cell_type == "markdown") == by_hand
    }


def most_points(*lessons):
    """The points of some lessons, those that a person gives included."""
    return sum(sum(points_of(*lessons, by_hand=it).values()) for it in (False, True))


def tests_by_exercise(lesson):
    """The `grade_id`s of the tests of a lesson, by that of the answer which they follow."""
    found = {}
    for cell in release.read_lesson(release.SOLUTIONS / f"{lesson}.py").cells:
        nbgrader = cell.metadata.get("nbgrader", {})
        if nbgrader.get("solution"):
            tests = found[nbgrader.grade_id] = []
        elif nbgrader.get("grade"):
            tests.append(nbgrader.grade_id)
    return found


POINTS = points_of(LESSON)
EXERCISES = tests_by_exercise(LESSON)


# Settings under which `nbgrader autograde` is nbgrader's own, without sandbox.
STOCK = (
    "from nbconvert.exporters import NotebookExporter",
    "c.Autograde.exporter_class = NotebookExporter",
    "c.Autograde.autograde_preprocessors = Autograde.autograde_preprocessors.default()",
)


def write_course(folder, *settings, lessons=(LESSON,)):
    """Make a course of some lessons with the project's own configuration."""
    text = (release.ROOT / "nbgrader_config.py").read_text()
    folder.mkdir(exist_ok=True)
    (folder / "nbgrader_config.py").write_text("\n".join([text, *settings, ""]))
    source = folder / "solutions" / "dora"
    source.mkdir(parents=True)
    for lesson in lessons:
        for suffix in (".ipynb", ".py"):
            shutil.copy(release.SOLUTIONS / f"{lesson}{suffix}", source)
    return folder


@cache
def released_course(*lessons):
    """A course of some lessons after its release, made once; what `make_course` copies."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    write_course(folder, lessons=lessons)
    run(folder, "nbgrader", "generate_assignment", "dora")
    return folder


def make_course(folder, *settings, lessons=(LESSON,)):
    """Make a course as `write_course` does, and release it."""
    shutil.copytree(released_course(*lessons), folder, dirs_exist_ok=True)
    with open(folder / "nbgrader_config.py", "a") as config:
        config.write("\n".join(settings))
    return folder


def run(
    course,
    module,
    *arguments,
    check=True,
    timeout=1200,
    limits=("--as=16000000000",),
    environment=None,
):
    """Call a module's command line in a course folder, bounded in time and memory."""
    command = [shutil.which("prlimit"), *limits, sys.executable, "-m", module, *arguments]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # nbgrader calls alembic
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": path} | (environment or {})
    done = subprocess.run(
        command, cwd=course, env=environment, capture_output=True, text=True, timeout=timeout
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


AS_ORDINARY_USER = """
set -e
# Python may be installed in a folder of root's: show its files where they are, and nothing else.
if [ -n "$HIDDEN" ]; then
    mount --bind "$BASE" "$STASH"
    mount -t tmpfs -o mode=755 none "$HIDDEN"
    mkdir -p "$BASE"
    mount --bind "$STASH" "$BASE"
fi
exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all "$@"
"""


def as_this_user(*command):
    """The command and the environment that run it."""
    return command, os.environ | {"OMP_NUM_THREADS": "1"}


def as_ordinary_user(*command):
    """The command and the environment that run it as a user who is not root."""
    command, environment = as_this_user(*command)
    if os.geteuid() == 0:
        closed = [p for p in Path(sys.base_prefix).parents if not p.stat().st_mode & 1]
        stash = tempfile.mkdtemp()
        environment |= {"BASE": sys.base_prefix, "STASH": stash, "HOME": "/tmp", "TMPDIR": "/tmp"}
        environment["HIDDEN"] = str(closed[-1]) if closed else ""
        command = ["unshare", "--mount", "sh", "-c", AS_ORDINARY_USER, "sh", *command]
    return command, environment


def grade(course, *options, check=True):
    """Call `make grade`'s command."""
    options = options if "--jobs" in options else ("--jobs", "1", *options)
    return run(course, "lab_grader", "grade", "dora", *options, check=check)


def folder_of(course, student):
    folder = course / "grading" / "submitted" / student / "dora"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def notebook_with(answers, lesson=LESSON):
    """A released notebook with answers in its exercise cells, by `grade_id`."""
    notebook = nbformat.read(release.NOTEBOOKS / f"{lesson}.ipynb", as_version=4)
    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(grade_id, cell.source)
    return notebook


def solutions(lesson=LESSON):
    """The solved exercises of a lesson, by `grade_id`."""
    cells = nbformat.read(release.SOLUTIONS / f"{lesson}.ipynb", as_version=4).cells
    return {
        cell.metadata.nbgrader.grade_id: cell.source
        for cell in cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }


def solutions_of(lessons):
    """The solved exercises of several lessons, by `grade_id`."""
    return {name: text for lesson in lessons for name, text in solutions(lesson).items()}


def without_demonstrations(notebook):
    """Leave out the code that no exercise needs: a grade does not depend on it, its time does."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    nbgrader = [cell.metadata.get("nbgrader", {}) for cell in code]
    graded = {i for i, m in enumerate(nbgrader) if m.get("solution") or m.get("grade")}
    kept = needed([(cell.source, cell.source) for cell in code], graded, set())
    left_out = [cell for i, cell in enumerate(code) if i not in kept]
    notebook.cells = [cell for cell in notebook.cells if cell not in left_out]
    return notebook


def cell_of(notebook, grade_id):
    (found,) = (
        cell
        for cell in notebook.cells
        if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id
    )
    return found


def hand_in(course, student, answers, lesson=LESSON):
    """Put a notebook into a student's folder; return its path."""
    path = folder_of(course, student) / f"{lesson}.ipynb"
    nbformat.write(notebook_with(answers, lesson), path)
    return path


def database(course):
    return f"sqlite:///{course / 'grading' / 'gradebook.db'}"


def marks(course, url=None):
    """Every student's automatic marks, by the test's `grade_id`."""
    with Gradebook(url or database(course)) as gradebook:
        return {
            submission.student.id: {
                grade.name: grade.auto_score
                for notebook in submission.notebooks
                for grade in notebook.grades
            }
            for submission in gradebook.assignment_submissions("dora")
        }


def told(course, student, lessons):
    """What each graded cell of a student's notebooks says, and the errors that it ended with."""
    found = {}
    for lesson in lessons:
        path = Path(course, "grading", "autograded", student, "dora", f"{lesson}.ipynb")
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade"):
                text = "".join(o.get("text", "") for o in cell.outputs)
                errors = [(o.ename, o.evalue) for o in cell.outputs if o.output_type == "error"]
                found[cell.metadata.nbgrader.grade_id] = text, errors
    return found


def marks_without(*lost):
    """All points of the lesson but those of some exercises or tests."""
    lost = {test for name in lost for test in EXERCISES.get(name, (name,))}
    return {test: 0 if test in lost else points for test, points in POINTS.items()}


def outputs(course, student, lesson=LESSON):
    """The outputs in a student's autograded notebook: by `grade_id`, else by position."""
    path = Path(course, "grading", "autograded", student, "dora", f"{lesson}.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    return {
        cell.metadata.get("nbgrader", {}).get("grade_id", index): cell.outputs
        for index, cell in enumerate(cells)
        if cell.cell_type == "code"
    }


def text_of(outputs):
    """What some outputs say, as one text."""
    parts = (o.get("text") or "\n".join(o.get("traceback", [])) for o in outputs)
    return "\n".join(parts)
