"""The course: `nbgrader` reads this file when it is called in this folder."""

import contextlib
from pathlib import Path

from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbgrader.converters import Autograde, GenerateAssignment, GenerateFeedback
from nbgrader.preprocessors import ClearHiddenTests, ClearMarkScheme

from lab_grader import door
from lab_grader.intake import collect
from lab_grader.marks import safe_html

COURSE = Path(__file__).resolve().parent
GRADING = COURSE / "grading"  # students' work and marks, in one folder that git ignores
with contextlib.suppress(FileExistsError):  # a file there is told by what needs the folder
    GRADING.mkdir()  # for the gradebook, which SQLite makes, but not its folder

c = get_config()  # noqa: F821 nbgrader provides it

c.CourseDirectory.root = str(COURSE)
c.CourseDirectory.course_id = "dora-lab"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "notebooks"

c.CourseDirectory.submitted_directory = "grading/submitted"
c.CourseDirectory.autograded_directory = "grading/autograded"
c.CourseDirectory.feedback_directory = "grading/feedback"
c.CourseDirectory.db_url = f"sqlite:///{GRADING / 'gradebook.db'}"

# What an LMS hands out lies in grading/downloaded/dora/archive, as Moodle or Canvas name it.
c.ZipCollectApp.downloaded_directory = "grading/downloaded"
c.ZipCollectApp.extractor_plugin = collect.Extractor
c.ZipCollectApp.collector_plugin = collect.Collector

# nbgrader copies all files of a source folder into the release: the solutions' text sources
# must not go with it. Nor does a student's torch.py, which would be imported instead of torch.
c.CourseDirectory.ignore = [".ipynb_checkpoints", "__pycache__", "*.py", "*.pyc"]

# A test cell that a student deleted comes back, and fails, instead of losing its exercise.
c.OverwriteCells.add_missing_cells = True

# An open question stands in a locked cell, with a mark scheme that students do not get and that
# comes back for the marker. nbgrader expects it in a "task" cell, but then asks for a mark by hand
# for the question as well as for the answer, and of those who did not answer, too.
c.ClearMarkScheme.enforce_metadata = False

# nbgrader's own doors, its command line and Formgrader's button, vet and execute in the sandbox and
# give the marks of make grade; where there is no sandbox they refuse.
c.Autograde.autograde_preprocessors = door.confined(Autograde.autograde_preprocessors.default())
c.Autograde.exporter_class = door.Door

# A cell of a lesson takes a few seconds; an endless loop is cut here.
c.ExecutePreprocessor.timeout = 30

# Students' pages are made by lab_grader. Those of Formgrader's button show no hidden test and no
# mark scheme either: whatever a release strips.
c.GenerateFeedback.preprocessors = [
    ClearHiddenTests,
    ClearMarkScheme,
    *GenerateFeedback.preprocessors.default(),
]

# What a student wrote runs in no page, neither in a student's feedback nor in Formgrader.
safe_html.configure(c)

# Nor does it reach a terminal as it is.
c.Application.logging_config = {
    "filters": {"plain": {"()": "lab_grader.plain.PlainLog"}},
    "handlers": {"console": {"filters": ["plain"]}},
}

# Outputs of widgets are kept in a notebook's metadata, where nbgrader leaves them.
c.GenerateAssignment.preprocessors = [
    *GenerateAssignment.preprocessors.default(),
    ClearMetadataPreprocessor,
]
c.ClearMetadataPreprocessor.enabled = True
c.ClearMetadataPreprocessor.clear_cell_metadata = False
c.ClearMetadataPreprocessor.preserve_nb_metadata_mask = {"kernelspec", "language_info"}
