"""The command line: `python -m lab_grader --help`."""

import argparse
import os
import signal
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from filelock import Timeout
from sqlalchemy.exc import SQLAlchemyError

from lab_grader.grade import Outcome, compare, describe, grade, keep_traceback, make_pages, vet_all
from lab_grader.intake.collect import collect_course
from lab_grader.intake.course import Course, CourseError, about_gradebook
from lab_grader.marks.export import Policy, export, left_blank
from lab_grader.marks.lms import COMMENTS, GRADE, WorksheetError, fill_worksheet, zip_pages
from lab_grader.marks.standing import extend, read_standings
from lab_grader.places import about_file
from lab_grader.plain import plain, say
from lab_grader.running.workers import ClusterError, Workers, forget_settings
from lab_grader.sandbox.bubblewrap import NoSandbox, check_available

Command = Callable[[Course, Namespace], int]  # returns the exit code

DESCRIPTION = """\
Grade a class with nbgrader's folders and gradebook. Students' code runs in a sandbox, tests run
outside of it, several submissions at a time; an interrupted run continues where it stopped.
"""
RETURN = {
    "moodle": "Moodle, View all submissions › Upload multiple feedback files in a zip",
    "canvas": "Canvas, the assignment › Re-Upload Submissions",
}
EPILOG = """\
Run it in the course's folder, after `make release`. It reads submissions from
grading/submitted/STUDENT/ASSIGNMENT/ and never changes them. It writes nbgrader's gradebook,
grading/autograded, grading/feedback, and grading/marks/*.csv.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    main = argparse.ArgumentParser(
        "python -m lab_grader",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main.add_argument("--course", type=Path, default=Path(), help="the course's folder; default .")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, do: Command, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        made.set_defaults(do=do)
        made.add_argument("assignment", metavar="ASSIGNMENT", help="such as dora")
        return made

    made = command("grade", _grade, "vet, execute, record, make feedback, export")
    _add_students(made)
    _add_jobs(made)
    _add_ways_to_grade(made)
    made = command(
        "feedback", _feedback, "rebuild students' pages, after marks by hand and comments"
    )
    _add_students(made)
    _add_jobs(made)
    made = command(
        "report", _report, "write a page on what the class got wrong: marks, mistakes, checks"
    )
    made.add_argument(
        "--names", action="store_true", help="show names; by default students are numbers"
    )
    _add_tables(command("export", _export, "rewrite the tables of marks"))
    made = command("extend", _extend, "give one student more time than the due date")
    made.add_argument("student", metavar="STUDENT")
    made.add_argument(
        "--days", type=float, required=True, help="after the due date; 0 removes the extension"
    )
    command(
        "return",
        _return,
        "pack the pages for Moodle's and Canvas' upload, as their files were named",
    )
    command(
        "collect",
        _collect,
        "sort the LMS's download into grading/submitted, and list what was left out",
    )
    _add_students(command("vet", _vet, "say what is wrong with submissions, and grade nothing"))
    return main


def _add_students(made: argparse.ArgumentParser) -> None:
    made.add_argument("--students", nargs="+", metavar="ID", help="only these; default all")


def _at_least_1(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return int(text)


def _add_jobs(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--jobs",
        type=_at_least_1,
        default=os.cpu_count(),
        metavar="N",
        help="how many submissions at a time on this machine; default one per core "
        "(%(default)s). Each takes about 1 GB of memory",
    )


def _add_ways_to_grade(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="run on the workers of a Dask scheduler, such as tcp://10.0.0.1:8786; each worker "
        "with --nthreads 1, and this lab and bubblewrap installed",
    )
    made.add_argument(
        "--again",
        action="store_true",
        help="also execute submissions that were executed before and have not changed",
    )
    made.add_argument(
        "--dry-run",
        action="store_true",
        help="record nothing; say who would gain and who would lose points, after a change of a "
        "check or of a lesson",
    )
    made.add_argument("--no-feedback", action="store_true", help="make no pages for students")
    made.add_argument(
        "--no-sandbox",
        action="store_true",
        help="run students' code with your permissions: only for code that you trust",
    )


def _add_tables(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--allow-unmarked",
        action="store_true",
        help="export the points so far where answers wait for a mark; by default blank",
    )
    made.add_argument(
        "--absent-zero",
        action="store_true",
        help="give students who handed in nothing 0 instead of a blank",
    )
    made.add_argument(
        "--worksheet",
        type=Path,
        metavar="FILE",
        help="fill in this grading worksheet of Moodle's, too; the result is in grading/marks",
    )
    made.add_argument(
        "--grade-column",
        default=GRADE,
        metavar="HEADER",
        help="its column of marks, if it is not in English; default %(default)s",
    )
    made.add_argument(
        "--comments-column", default=COMMENTS, metavar="HEADER", help="default %(default)s"
    )


def run(arguments: list[str]) -> int:
    """Do what the command line asks; return the exit code."""
    chosen = parser().parse_args(arguments)
    return chosen.do(Course(chosen.course, chosen.assignment), chosen)


def _grade(course: Course, chosen: Namespace) -> int:
    students = _students(course, chosen)
    if not chosen.no_sandbox:
        check_available()
    if chosen.dry_run:
        return _compare(course, students, chosen)
    with course.only_grader():
        outcome = grade(
            course,
            students,
            jobs=chosen.jobs,
            dask=chosen.dask,
            sandbox=not chosen.no_sandbox,
            again=chosen.again,
            feedback=not chosen.no_feedback,
        )
    if not chosen.students:
        outcome.misplaced = course.misplaced()
    if not students:
        say([_nothing_handed_in(course), ""])
    say(describe(course, outcome))
    return 1 if outcome.failed or outcome.misplaced else 0


def _compare(course: Course, students: list[str], chosen: Namespace) -> int:
    outcome = Outcome()
    with course.only_grader():
        say(compare(course, students, chosen.jobs, chosen.dask, not chosen.no_sandbox, outcome))
    return _say_failures(outcome)


def _feedback(course: Course, chosen: Namespace) -> int:
    students, outcome = _students(course, chosen), Outcome()
    graded = {it.student for it in read_standings(course) if it.score is not None}
    shown = [s for s in students if s in graded]
    with Workers(min(chosen.jobs, len(shown))) as workers:
        make_pages(course, shown, workers, outcome)
    for student in sorted(set(students) - graded):
        outcome.failed[student] = "no page: this was not graded yet; run make grade"
    return _say_failures(outcome)


def _report(course: Course, chosen: Namespace) -> int:
    from lab_grader.marks.report import write_report  # SciPy and Matplotlib: seconds

    say([f"Open {write_report(course, chosen.names)} in a browser."])
    return 0


def _export(course: Course, chosen: Namespace) -> int:
    policy = Policy(chosen.allow_unmarked, chosen.absent_zero)
    say(map(str, export(course, policy)))
    say(left_blank(read_standings(course), policy))
    if chosen.worksheet:
        columns = chosen.grade_column, chosen.comments_column
        filled = fill_worksheet(course, chosen.worksheet, policy, *columns)
        say([str(filled.path), *filled.said])
    return 0


def _extend(course: Course, chosen: Namespace) -> int:
    until = extend(course, chosen.student, chosen.days)
    say([f"{plain(chosen.student)}: due {until:%Y-%m-%d %H:%M} UTC. Run make grade."])
    return 0


def _return(course: Course, chosen: Namespace) -> int:
    returned = zip_pages(course)
    say(f"{RETURN[lms]}: {path}" for lms, path in returned.archives.items())
    if returned.left:
        say([f"not from a download, so not in an archive: {', '.join(returned.left)}"])
    if not returned.archives:
        raise CourseError("no student whose files came in a download has a page.")
    return 0


def _collect(course: Course, chosen: Namespace) -> int:
    collected = collect_course(course)
    say(collected.describe())
    return 0 if collected.is_complete else 1


def _vet(course: Course, chosen: Namespace) -> int:
    students, outcome = _students(course, chosen), Outcome()
    if not students:
        say([_nothing_handed_in(course)])
    with Workers(min(os.cpu_count(), len(students))) as workers:
        for student, submission in vet_all(course, students, workers, outcome):
            say(f"{student}: needs attention: {plain(text)}" for text in submission.problems)
            say(f"{student}: will be repaired: {plain(text)}" for text in submission.mended)
    return _say_failures(outcome)


def _students(course: Course, chosen: Namespace) -> list[str]:
    """Return whom the command line names, or everybody."""
    everybody = course.students()
    unknown = sorted(set(chosen.students or ()) - set(everybody))
    if unknown:
        raise CourseError(
            f"nothing was handed in by {', '.join(unknown)}: "
            f"there is no {course.folder('submitted', unknown[0])}."
        )
    return chosen.students or everybody


def _nothing_handed_in(course: Course) -> str:
    return f"Nothing was handed in: there is no {course.submitted}/STUDENT/{course.assignment}."


def _say_failures(outcome: Outcome) -> int:
    """Say who failed, and why; return the exit code."""
    say((f"{plain(s)}: {plain(why)}" for s, why in outcome.failed.items()), sys.stderr)
    return 1 if outcome.failed else 0


def main() -> None:
    """Run, and end with one sentence where something is not as it must be."""
    try:
        _undo_what_services_do()
        forget_settings()
        sys.exit(run(sys.argv[1:]))
    except (CourseError, ClusterError, NoSandbox, WorksheetError) as error:
        _end(str(error))
    except Timeout as error:
        _end(f"this course is being graded by another process ({error}).")
    except SQLAlchemyError as error:
        _end(about_gradebook(error))
    except KeyboardInterrupt:
        _end("stopped; run it again, and it continues where it was.")
    except OSError as error:
        _end(about_file(error))
    except Exception as error:
        path = keep_traceback(Path(tempfile.gettempdir()))
        _end(
            f"stopped by an internal error, {type(error).__name__}: {error}. What was graded is "
            f"kept. Please report it, with what is in {path}."
        )


def _undo_what_services_do() -> None:
    """Start as from a shell: with the standard streams open and no signal ignored or blocked, and
    with all rights to the files that are made here.

    Otherwise, the next file to be opened, such as the gradebook, takes the number of a closed
    stream, and what a library prints is written into it; and where SIGCHLD is ignored, nothing that
    waits for a process sees it end.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8"))
    os.umask(os.umask(0o077) & 0o077)
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _end(sentence: str) -> None:
    sys.exit(f"lab_grader: {plain(sentence, most=5000)}")
