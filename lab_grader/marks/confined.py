"""What replaces the step of nbgrader's pipeline that would execute a notebook."""

from nbformat import NotebookNode
from nbgrader.converters.base import NbGraderException
from nbgrader.preprocessors import Execute, NbGraderPreprocessor


class Confined(NbGraderPreprocessor):
    """Takes the step in which nbgrader would execute a notebook, and refuses: it has no sandbox."""

    def preprocess(self, notebook: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Refuse.

        Raises:
            NbGraderException: always.
        """
        raise NbGraderException("students' notebooks run only in the sandbox: run make grade")


def confined(steps: list[type]) -> list[type]:
    """Return nbgrader's steps with `Confined` instead of `Execute`."""
    return [Confined if step is Execute else step for step in steps]
