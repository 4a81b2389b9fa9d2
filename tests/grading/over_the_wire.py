"""A pytest plugin: checks get everything that they check over the wire, as when grading."""

import functools

from lab_grader.wire import inside
from lab_grader.wire.remote import RemoteObject
from lab_utils import checks


class EveryFile:
    def issuperset(self, _):
        return True


class ThisProcess:
    """Answers as a student's kernel does; the sandbox around it is tried elsewhere."""

    hidden = EveryFile()

    def __init__(self, student):
        self.student = student

    def deliver(self, name, question):
        return inside.answer({name: self.student}, question)


def over_the_wire(check):
    @functools.wraps(check)
    def checked(student, *arguments, **named):
        name = getattr(student, "__name__", "student")
        return check(RemoteObject(ThisProcess(student), name), *arguments, **named)

    return checked


def pytest_configure():
    for name in checks.__all__:
        if name.startswith("check_"):
            setattr(checks, name, over_the_wire(getattr(checks, name)))
