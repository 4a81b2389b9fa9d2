"""A class of sixty, with everything that was ever tried against stock nbgrader in it.

One run grades all of them, two at a time. Honest students sit beside hostile ones and must get
what they earned; a hostile one gets what the answers are worth, and touches nobody else's.
"""

import json
import os
import re
import shutil
import socket
import threading

import nbformat
import pytest
import release
from classroom import (
    EXERCISES,
    LESSON,
    POINTS,
    cell_of,
    folder_of,
    grade,
    hand_in,
    make_course,
    marks,
    marks_without,
    notebook_with,
    outputs,
    solutions,
    text_of,
)

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")

SECONDS = 5  # for a cell
WRONG = (
    "def decompose(weight, norm_dim=1, eps=1e-8):\n"
    "    return weight.norm(dim=norm_dim, keepdim=True), weight\n"
)
ALL, NOTHING = marks_without(), marks_without(*EXERCISES)
NO_DECOMPOSE = marks_without("decompose")


def before(exercise, code):
    """Answers with code above the solution of an exercise."""
    right = solutions()
    return right | {exercise: f"{code}\n{right[exercise]}"}


def after(exercise, code):
    """Answers with code below the solution of an exercise."""
    right = solutions()
    return right | {exercise: f"{right[exercise]}\n{code}"}


def inside(code):
    """Answers whose `recompose` does something before it returns what is right."""
    body = "\n".join(f"    {line}" for line in code.splitlines())
    text = f"def recompose(magnitude, direction):\n{body}\n    return magnitude * direction"
    return solutions() | {"recompose": text}


def wrong_and(code):
    """A wrong `decompose`, and code that is to make it count as right."""
    return solutions() | {"decompose": f"{WRONG}\n{code}"}


def behind_magics():
    """Answers below magics that are not here, or that run what is not here."""
    magics = {
        "decompose": "%%time\n%%capture\nimport google.colab",
        "recompose": "%%memit -r 1\n%matplotlib widget",
        "count-trainable": "%tensorflow_version 2.x\n%run setup.py\n%nosuch 1",
    }
    return {name: f"{magics[name]}\n{text}" for name, text in solutions().items()}


# Answers, and the marks that they must get.
CODE = {
    "right": (solutions, ALL),
    "blank": (dict, NOTHING),
    "wrong": (lambda: wrong_and(""), NO_DECOMPOSE),
    "no-python": (
        lambda: solutions() | {"recompose": "def recompose("},
        marks_without("recompose"),
    ),
    "prints": (lambda: inside("print('hello')"), ALL),
    "warns": (lambda: inside("import warnings\nwarnings.warn('careful')"), ALL),
    "writes-to-stderr": (lambda: inside("import sys\nprint('oh', file=sys.stderr)"), ALL),
    "loops-after-def": (lambda: after("recompose", "while True: pass"), ALL),
    "loops-inside": (lambda: inside("while True: pass"), marks_without("recompose")),
    "loops-deaf": (
        lambda: after(
            "recompose",
            "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        ),
        marks_without("recompose"),
    ),
    "20-gigabytes": (lambda: after("recompose", "import torch\ntorch.empty(20 << 30)"), ALL),
    "memory-bomb": (
        lambda: inside("kept = []\nwhile True: kept.append(bytearray(1 << 28))"),
        marks_without("recompose"),
    ),
    "fork-bomb": (lambda: inside("import os\nwhile True: os.fork()"), marks_without("recompose")),
    "exits-cell": (lambda: after("decompose", "import os\nos._exit(1)"), NO_DECOMPOSE),
    "exits-inside": (lambda: inside("import os\nos._exit(1)"), marks_without("recompose")),
    "kills-all": (lambda: inside("import os\nos.kill(-1, 9)"), marks_without("recompose")),
    "exits-as-in-a-console": (lambda: after("decompose", "exit()\nquit()"), ALL),
    "compares-with-the-reference-first": (
        lambda: before("decompose", "expected = decomposition.decompose(torch.ones(2, 2))"),
        ALL,
    ),
    "uses-what-is-elsewhere-first": (
        lambda: before(
            "decompose",
            "!pip install x\n%pip install y\nfrom google.colab import drive\n"
            "drive.mount('/x')\nname = input()\n%cd /content\nopen('/content/data.csv')\n"
            "(said,) = !echo $name 1\nassert said.endswith('1')",
        ),
        ALL,
    ),
    "magics-of-elsewhere": (lambda: behind_magics(), ALL),
    "shows-anything": (
        lambda: after(
            "recompose",
            "from IPython.display import display\nnested = {}\n"
            "for _ in range(900): nested = {'a': nested}\n"
            "display({'text/plain': 7, 'image/png': [1], 'x/y': {'z': 1}, '': None}, raw=True,\n"
            "    metadata={'text/plain': float('nan'), 'image/png': nested})\n"
            "display({'application/json': nested, 'text/plain': '\\ud800'}, raw=True)",
        ),
        ALL,
    ),
    "system-exit-cell": (lambda: after("recompose", "raise SystemExit"), ALL),
    "system-exit-inside": (lambda: inside("raise SystemExit"), marks_without("recompose")),
    "prints-100-megabytes": (lambda: after("recompose", "print('x' * 10**8)"), ALL),
    "prints-in-tests": (lambda: inside("for _ in range(50): print('x' * 10**6)"), ALL),
    "prints-for-ever": (
        lambda: inside("while True: print('x' * 1000, flush=True)"),
        marks_without("recompose"),
    ),
    "fills-the-disk": (
        lambda: inside(
            "for n in range(10**6):\n    open(f'/sockets/{n}', 'wb').write(bytes(10**6))"
        ),
        marks_without("recompose"),
    ),
    "links-among-sockets": (
        lambda: after(
            "recompose",
            "import os\nfor n in range(100):\n"
            "    try: os.symlink('/nowhere', f'/sockets/{n}')\n    except OSError: pass",
        ),
        ALL,
    ),
    "forks-and-goes-on": (
        lambda: after("decompose", "import os\nfor _ in range(4): os.fork()"),
        ALL,
    ),
    "idle-processes": (
        lambda: after(
            "recompose",
            "import os, time\nfor _ in range(20):\n    if os.fork() == 0: time.sleep(1000)",
        ),
        ALL,
    ),
    "new-namespaces": (
        lambda: after(
            "recompose",
            "import ctypes\nlibc = ctypes.CDLL(None)\nassert libc.unshare(1 << 28) == -1\n"
            "assert libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == -1",
        ),
        ALL,
    ),
    "repeats-its-reply": (
        lambda: inside(
            "import threading, time\nkernel = get_ipython().kernel\n"
            "parent, idents = kernel.get_parent('shell'), kernel._shell_parent_ident.get()\n"
            "def repeat():\n    while True:\n        time.sleep(0.1)\n"
            "        kernel.session.send(kernel.shell_stream, 'execute_reply',\n"
            "            {'status': 'ok'}, parent, ident=idents)\n"
            "threading.Thread(target=repeat, daemon=True).start()\nwhile True: pass"
        ),
        marks_without("recompose"),
    ),
    "magic-lines": (
        lambda: after(
            "recompose",
            "\n".join(f"%time x{n}\n" + "y = (1, 2, 3, 4)\n" * 60 for n in range(90)),
        ),
        marks_without("recompose"),
    ),
    "float32-default": (
        lambda: after("recompose", "import torch\ntorch.set_default_dtype(torch.float64)"),
        ALL,
    ),
    # what is meant to decide a mark from within
    "patches-torch": (
        lambda: wrong_and(
            "import torch\ntorch.allclose = torch.equal = lambda *a, **k: True\n"
            "torch.testing.assert_close = lambda *a, **k: None"
        ),
        NO_DECOMPOSE,
    ),
    "patches-checks": (
        lambda: wrong_and(
            "from lab_utils import checks\nimport lab_utils.checks.report as report\n"
            "checks.check_decompose = lambda *a, **k: None\nreport.close = lambda *a, **k: True\n"
            "report.Report.expect = lambda *a, **k: True"
        ),
        NO_DECOMPOSE,
    ),
    "transforms-input": (
        lambda: {
            "decompose": "get_ipython().input_transformers_cleanup.append(lambda l: ['pass\\n'])"
        },
        NOTHING,
    ),
    "swaps-modules": (
        lambda: wrong_and(
            "import sys, types\nfake = types.ModuleType('checks')\n"
            "fake.check_decompose = lambda *a, **k: None\n"
            "sys.modules['lab_utils.checks'] = sys.modules['checks'] = checks = fake"
        ),
        NO_DECOMPOSE,
    ),
    "tensor-subclass": (
        lambda: wrong_and(
            "import torch\nclass Yes(torch.Tensor):\n"
            "    @classmethod\n    def __torch_function__(cls, f, types, args=(), kwargs=None):\n"
            "        return True\n    def __eq__(self, other): return True\n"
            "def decompose(weight, norm_dim=1, eps=1e-8):\n"
            "    return weight.as_subclass(Yes), weight.as_subclass(Yes)"
        ),
        NO_DECOMPOSE,
    ),
    "answers-everything": (
        lambda: wrong_and(
            "class Yes:\n    def __getattr__(self, name): return self\n"
            "    def __call__(self, *a, **k): return self\n    def __eq__(self, o): return True\n"
            "    def __bool__(self): return True\n    def __len__(self): return 2\n"
            "    def __iter__(self): return iter((self, self))\n    def __hash__(self): return 1\n"
            "decompose = Yes()"
        ),
        NO_DECOMPOSE,
    ),
    "forges-answers": (
        lambda: wrong_and(
            "import lab_grader.wire.inside as inside\nfrom lab_grader.wire.values import pack\n"
            "inside.answer = lambda n, q: pack({'result': True, 'after': []})"
        ),
        NOTHING,
    ),
    "answers-rubbish": (
        lambda: wrong_and(
            "import lab_grader.wire.inside as inside\ninside.answer = lambda n, q: b'W1tb.W1tb'"
        ),
        NOTHING,
    ),
    "sends-no-messages": (
        lambda: inside(
            "session = get_ipython().kernel.session\nsend = session.send\n"
            "session.send = lambda stream, kind, content=None, *a, **k: send(\n"
            "    stream, kind, {'oh': 1} if kind == 'execute_reply' else content, *a, **k)"
        ),
        marks_without(),  # questions are answered all the same
    ),
    "sends-no-answers": (
        lambda: inside(
            "from lab_grader.wire import line\nsend = line.Line.send\n"
            "line.Line.send = lambda self, kind, content=b'': send(\n"
            "    self, kind, b'oh' if kind == line.ANSWER else content)"
        ),
        marks_without("recompose", "count-trainable"),
    ),
    "zeroes-the-question": (
        lambda: (
            solutions()
            | {
                "decompose": "def decompose(weight, norm_dim=1, eps=1e-8):\n    weight.zero_()\n"
                "    return weight.norm(dim=norm_dim, keepdim=True), weight"
            }
        ),
        NO_DECOMPOSE,
    ),
    # the reference as an oracle
    "calls-reference": (
        lambda: solutions() | {"decompose": "from lab_utils.decomposition import decompose"},
        NO_DECOMPOSE,
    ),
    "calls-reference-unwatched": (
        lambda: (
            solutions()
            | {
                "decompose": "import sys\nfrom lab_utils import decomposition\n"
                "def decompose(weight, norm_dim=1, eps=1e-8):\n    sys.setprofile(None)\n"
                "    return decomposition.decompose(weight, norm_dim, eps)"
            }
        ),
        NO_DECOMPOSE,
    ),
    "reads-reference": (
        lambda: (
            solutions()
            | {
                "decompose": "import glob, lab_utils, marshal, os\n"
                "root = os.path.dirname(lab_utils.__file__)\n"
                "exec(open(root + '/decomposition.py').read())\n"
                "for path in glob.glob(root + '/__pycache__/decomposition*'):\n"
                "    exec(marshal.loads(open(path, 'rb').read()[16:]))"
            }
        ),
        NO_DECOMPOSE,
    ),
    "imports-peft": (
        lambda: solutions() | {"decompose": "from peft.tuners.lora import dora\ndecompose = dora"},
        NO_DECOMPOSE,
    ),
    "hard-codes-visible": (
        lambda: (
            solutions()
            | {
                "count-trainable": "def count_trainable(i, o, r, method, norm_dim=1):\n"
                "    return {'lora': 34, 'dora': 39 if norm_dim else 46}[method]"
            }
        ),
        marks_without("count-trainable"),
    ),
}


def changed(change):
    """A submission of a right notebook of which something else was changed."""

    def hand_it_in(course, student):
        path = hand_in(course, student, solutions())
        notebook = nbformat.read(path, as_version=4)
        notebook = change(notebook) or notebook
        path.write_text(json.dumps(notebook))

    return hand_it_in


def in_cell(test, **metadata):
    def change(notebook):
        cell_of(notebook, test).metadata.nbgrader.update(metadata)

    return changed(change)


def delete_tests(notebook):
    notebook.cells = [
        cell for cell in notebook.cells if not cell.metadata.get("nbgrader", {}).get("grade")
    ]


def delete_exercise(notebook):
    notebook.cells.remove(cell_of(notebook, "recompose"))


def copy_test(place):
    def change(notebook):
        cell = cell_of(notebook, "count-lora")
        notebook.cells.insert(notebook.cells.index(cell) + place, nbformat.from_dict(cell))

    return changed(change)


def edit_tests(notebook):
    for test in POINTS:
        cell_of(notebook, test).source = "pass"
    for exercise in EXERCISES:
        cell_of(notebook, exercise).source = "pass"


def add_cell(course, student):
    notebook = notebook_with(
        solutions() | {"recompose": "def recompose(m, d):\n    return times(m, d)"}
    )
    helper = nbformat.v4.new_code_cell(
        "from operator import mul\n\ndef times(a, b): return mul(a, b)"
    )
    notebook.cells.insert(3, helper)
    nbformat.write(notebook, folder_of(course, student) / f"{LESSON}.ipynb")


def big_output(notebook):
    text = "x" * (200 << 20)
    cell_of(notebook, "decompose").outputs = [nbformat.v4.new_output("stream", text=text)]


def big_comment(notebook):
    notebook.cells[1].source += "\n# " + "x" * (200 << 20)


def with_file(name, text, answers=solutions):
    def hand_it_in(course, student):
        hand_in(course, student, answers())
        (folder_of(course, student) / name).write_text(text)

    return hand_it_in


def with_link(course, student):
    hand_in(course, student, solutions())
    os.symlink(hand_in(course, "right", solutions()), folder_of(course, student) / "other.ipynb")
    os.symlink("/etc/passwd", folder_of(course, student) / "data.txt")
    os.mkfifo(folder_of(course, student) / "pipe")


def linked_notebook(course, student):
    os.symlink(
        hand_in(course, "right", solutions()), folder_of(course, student) / f"{LESSON}.ipynb"
    )


def renamed(course, student):
    path = hand_in(course, student, solutions())
    path.rename(path.with_name("my homework (1).ipynb"))


def empty_folder(course, student):
    folder_of(course, student)


def corrupt(course, student):
    (folder_of(course, student) / f"{LESSON}.ipynb").write_text('{"cells": [')


def deep(course, student):
    (folder_of(course, student) / f"{LESSON}.ipynb").write_text("[" * 100_000)


def old_format(course, student):
    notebook = nbformat.convert(notebook_with(solutions()), 3)
    (folder_of(course, student) / f"{LESSON}.ipynb").write_text(json.dumps(notebook))


# How a folder was handed in, the marks that it must get, and what the instructor is told.
FOLDERS = {
    "tests-deleted": (changed(delete_tests), ALL, "decompose-rows was deleted, and is put back"),
    "exercise-deleted": (
        changed(delete_exercise),
        marks_without("recompose"),
        "recompose was deleted",
    ),
    "tests-edited": (changed(edit_tests), NOTHING, None),
    "test-copied-before": (copy_test(0), ALL, "a copy of count-lora"),
    "test-copied-after": (copy_test(1), ALL, "a copy of count-lora"),
    "points-1000": (in_cell("count-lora", points=1000), ALL, None),
    "test-is-solution": (in_cell("count-lora", solution=True), ALL, None),
    "test-not-graded": (in_cell("count-lora", grade=False), ALL, None),
    "schema-1": (in_cell("count-lora", schema_version=1), ALL, None),
    "schema-99": (in_cell("count-lora", schema_version=99), ALL, None),
    "unknown-cell": (in_cell("count-lora", grade_id="mine"), ALL, "count-lora: known by their id"),
    "200-megabytes-stored": (changed(big_output), ALL, None),
    "200-megabytes-comment": (changed(big_comment), ALL, "cell 2 has 200 MB of text"),
    "helper-cell": (add_cell, ALL, None),
    "shadows-torch": (
        with_file("torch.py", "raise SystemExit", lambda: wrong_and("")),
        NO_DECOMPOSE,
        "torch.py is left out: it would shadow the module torch",
    ),
    "links": (with_link, ALL, "data.txt: a link"),
    "linked-notebook": (linked_notebook, NOTHING, f"{LESSON}.ipynb: a link"),
    "renamed": (renamed, ALL, f"my homework (1).ipynb is graded as {LESSON}.ipynb"),
    "empty-folder": (empty_folder, NOTHING, f"{LESSON}.ipynb is missing"),
    "corrupt": (corrupt, NOTHING, "not a readable notebook"),
    "deep": (deep, NOTHING, "not a readable notebook"),
    "format-3": (old_format, ALL, None),
    "format-9": (changed(lambda n: n | {"nbformat": 9}), NOTHING, "the format 9"),
}

SPIES = """
import os, socket, sqlite3
def attempt(what, function):
    try:
        print("GOT", what, str(function())[:200])
    except BaseException as error:
        print("refused", what, type(error).__name__)
"""


def spy(course, port):
    """Answers that look for everything which is not theirs, and print what they got."""
    paths = [
        "/etc/shadow",
        str(course / "grading" / "submitted" / "right" / "dora" / f"{LESSON}.ipynb"),
        str(course / "solutions" / "dora" / f"{LESSON}.ipynb"),
        str(course / "nbgrader_config.py"),
        str(release.SOLUTIONS / f"{LESSON}.py"),
    ]
    gradebook = str(course / "grading" / "gradebook.db")
    lines = [f"attempt({path!r}, lambda: open({path!r}).read())" for path in paths]
    lines += [
        f"attempt('gradebook', lambda: sqlite3.connect({gradebook!r})"
        ".execute('UPDATE grade SET manual_score=0').connection.commit())",
        f"attempt('port', lambda: socket.create_connection(('127.0.0.1', {port}), 3))",
        "attempt('outside', lambda: socket.create_connection(('1.1.1.1', 53), 3))",
        "attempt('secret', lambda: os.environ['SECRET_OF_THE_GRADER'])",
        "attempt('write', lambda: open('/usr/mine', 'w'))",
        "attempt('root', lambda: open('/mine', 'w'))",
        "attempt('lab', lambda: open(__import__('lab_utils').__file__, 'a'))",
        "attempt('hidden', lambda: [p for p in os.listdir('.') if p.endswith('.ipynb')][0])",
    ]
    return after("recompose", SPIES + "\n".join(lines))


def generated(number):
    """One of many honest students: each exercise right, wrong or blank; all texts differ."""
    answers, lost = {}, []
    for place, exercise in enumerate(EXERCISES):
        kind = number // 3**place % 3
        if kind == 0:
            answers[exercise] = f"{solutions()[exercise]}\n# by student {number}"
        else:
            lost.append(exercise)
            answers[exercise] = f"# student {number}" if kind == 1 else f"1 / 0  # {number}"
    return answers, marks_without(*lost)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The course after the run, what it printed, and whether anybody connected."""
    course = make_course(
        tmp_path_factory.mktemp("class") / "course", f"c.ExecutePreprocessor.timeout = {SECONDS}"
    )
    server = socket.create_server(("127.0.0.1", 0))
    connected = []
    threading.Thread(target=lambda: connected.append(server.accept()), daemon=True).start()
    for student, (answers, _) in CODE.items():
        hand_in(course, student, answers())
    for student, (put, _, _) in FOLDERS.items():
        put(course, student)
    hand_in(course, "asks-exit", inside("get_ipython().exit_now = True"))
    hand_in(course, "spy", spy(course, server.getsockname()[1]))
    for number in range(1, 60 - len(CODE) - len(FOLDERS)):
        hand_in(course, f"honest-{number:02}", generated(number)[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_OF_THE_GRADER", "1")
        done = grade(course, "--jobs", "2")
    return course, done.stdout, connected


@pytest.fixture(scope="module")
def all_marks(graded):
    return marks(graded[0])


def test_everybody_is_in_the_gradebook(graded, all_marks):
    handed_in = sorted(path.name for path in (graded[0] / "grading" / "submitted").iterdir())
    assert sorted(all_marks) == handed_in
    assert len(handed_in) >= 60


@pytest.mark.parametrize("student", CODE)
def test_marks_of_code(all_marks, student):
    assert all_marks[student] == CODE[student][1]


@pytest.mark.parametrize("student", FOLDERS)
def test_marks_of_folders_and_what_is_reported(graded, all_marks, student):
    _, expected, told = FOLDERS[student]
    assert all_marks[student] == expected
    if told is not None:
        lines = [line for line in graded[1].splitlines() if line.startswith(f"  {student}: ")]
        assert any(told in line for line in lines), lines


def test_marks_of_the_honest(all_marks):
    honest = [student for student in all_marks if student.startswith("honest-")]
    for student in honest:
        assert all_marks[student] == generated(int(student[-2:]))[1], student


def test_a_kernel_that_ends_later_costs_no_other_exercise(all_marks):
    """It ends at some moment after it was asked to: in this exercise, or in a later one."""
    innocent = {
        test: mark for test, mark in all_marks["asks-exit"].items() if "recompose" not in test
    }
    assert innocent == {test: points for test, points in POINTS.items() if "recompose" not in test}


def test_nothing_leaves_the_sandbox(graded, all_marks):
    course, _, connected = graded
    text = text_of(outputs(course, "spy")["recompose"])
    assert text.count("refused") == 13, text
    assert "GOT" not in text
    assert connected == []
    assert all_marks["spy"] == ALL
    handed_in = course / "grading" / "submitted" / "links" / "dora"
    kept = course / "grading" / "autograded" / "links" / "dora"
    assert {path.name for path in kept.iterdir()} == {f"{LESSON}.ipynb"}
    assert (handed_in / "data.txt").is_symlink(), "a submission is never changed"


def test_what_a_student_reads(graded):
    course, _, _ = graded
    assert "is the reference" in text_of(outputs(course, "calls-reference")["decompose-rows"])
    assert f"took more than {SECONDS} s" in text_of(
        outputs(course, "loops-inside")["recompose-test"]
    )
    assert "recompose was stopped" in text_of(outputs(course, "memory-bomb")["recompose-test"])
    assert "hello" in text_of(outputs(course, "prints")["recompose-test"])
    assert "Read-only file system" in text_of(outputs(course, "fills-the-disk")["recompose-test"])
    exits = outputs(course, "exits-cell")
    assert "This cell was stopped" in text_of(exits["decompose"])
    assert "name 'decompose' is not defined" in text_of(exits["decompose-rows"])
    for student in ("prints-100-megabytes", "prints-in-tests"):
        size = sum(len(text_of(found)) for found in outputs(course, student).values())
        assert 0 < size < 2_000_000


def test_no_hidden_test_is_on_any_page(graded):
    course, _, _ = graded
    hidden = set()
    for cell in nbformat.read(release.SOLUTIONS / f"{LESSON}.ipynb", as_version=4).cells:
        for region in re.findall(r"BEGIN HIDDEN TESTS\n(.*?)### END", cell.source, re.DOTALL):
            hidden |= {line.strip() for line in region.splitlines()}
    assert len(hidden) > 8
    pages = list((course / "grading" / "feedback").rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        text = re.sub(r"<[^>]*>", "", page.read_text())
        text = text.replace("&quot;", '"').replace("&#39;", "'")
        assert "HIDDEN TESTS" not in text
        for line in hidden:
            assert line not in text, (page, line)
    wrong = course / "grading" / "feedback" / "wrong" / "dora" / "index.html"
    assert "Known mistake: no normalisation." in wrong.read_text()


def test_a_second_run_has_nothing_to_do(graded, all_marks):
    course, first, _ = graded
    database = course / "grading" / "gradebook.db"
    written = database.stat().st_mtime_ns
    again = grade(course)
    assert again.stdout == first
    assert marks(course) == all_marks
    assert database.stat().st_mtime_ns == written
