"""Test cells are read, needed cells are found, and the reference is hollowed out."""

import ast
import inspect
from pathlib import Path

import nbformat
import pytest
import release
import torch

import lab_grader.wire.calls as cells
import lab_utils
from lab_grader.intake.dependencies import needed
from lab_grader.running.execute import execute
from lab_grader.running.job import Cell, Job
from lab_grader.sandbox.masks import CHECKS, hollow, write_masks
from lab_utils import checks
from lab_utils.checks.subject import REFERENCE_LAYERS, REFERENCE_MATHEMATICS


def test_a_test_cell_is_read():
    (call, other) = cells.read_test_cell(
        "checks.check_decompose(decompose, 'rows', seed=-3, dtype=torch.float64)\n"
        "### BEGIN HIDDEN TESTS\n"
        "checks.check_dora_layer(DoRALayer)\n"
        "### END HIDDEN TESTS"
    )
    assert call.arguments == (cells.Student("decompose"), "rows")
    assert call.named == {"seed": -3, "dtype": torch.float64}
    assert call.names() == {"decompose"}
    assert call.forbids == frozenset(REFERENCE_MATHEMATICS)
    assert other.forbids == frozenset(REFERENCE_LAYERS)
    assert call.seeded


@pytest.mark.parametrize("name", [n for n in checks.__all__ if n.startswith("check_")])
def test_a_check_declares_whether_it_takes_a_seed(name):
    check = getattr(checks, name)
    taken = inspect.signature(check).parameters.values()
    assert check.seeded is any(p.name == "seed" or p.kind is p.VAR_KEYWORD for p in taken)
    assert all(Path(file).exists() for file in check.forbids)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "full marks to everybody"),
        ("# nothing", "full marks to everybody"),
        ("assert decompose(1) == 2", "each line of a test cell is"),
        ("x = checks.check_decompose(decompose)", "each line of a test cell is"),
        ("checks.check_nothing(decompose)", "has no check_nothing"),
        ("checks.check_decompose('rows')", "nothing that the student wrote"),
        ("checks.check_decompose(decompose, weight=torch.ones(3))", "may be a literal"),
        ("checks.check_decompose(decompose, dtype=torch.save)", "may be a literal"),
        ("checks.check_decompose(", "is not Python"),
    ],
)
def test_another_form_of_a_test_cell_is_refused(source, why):
    with pytest.raises(cells.NotATestCell, match=why):
        cells.read_test_cell(source)


@pytest.mark.parametrize("path", sorted(release.SOLUTIONS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_every_test_cell_of_the_course_can_be_graded(path):
    found = 0
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade"):
            if cell.metadata.nbgrader.solution:
                continue
            for call in cells.read_test_cell(cell.source):
                assert isinstance(call.forbids, frozenset)
                found += 1
    assert found


def test_a_lesson_that_cannot_be_graded_is_named():
    job = Job({"01-mathematics": [None, Cell("assert decompose", "test")]}, {}, sandbox=False)
    with pytest.raises(cells.NotATestCell, match=r"^01-mathematics, cell 2: line 1, 'assert deco"):
        execute(job)


def chosen(*sources, wanted, always=()):
    return sorted(needed([(source, "") for source in sources], set(always), {wanted}))


def test_cells_that_bind_what_is_used_are_needed():
    assert chosen("import math", "x = 1", "def f(): return math.pi", wanted="f") == [0, 2]
    assert chosen("y = 1", "def f(x):\n    y = 2\n    return x", wanted="f") == [1]
    assert chosen("class A: pass", "class B(A):\n    z = 3", "z = B()", wanted="B") == [0, 1]
    assert chosen("import a.b as c", "f = lambda: c.d", wanted="f") == [0, 1]
    assert chosen("a = 1", "a.b[0].c = 2", "f = a", wanted="f") == [0, 1, 2]
    assert chosen("from math import *", "f = 1", wanted="f") == [0, 1]
    assert chosen("%matplotlib inline", "f = (", "f = 1", wanted="f") == [2]
    assert chosen("g = h", "h = 1", "f = 2", wanted="f", always=[0]) == [0, 2]
    assert chosen("a = 1\n!ls", "f = a", wanted="f") == [0, 1]


@pytest.mark.parametrize(
    "text",
    [
        "%%time\ndef f(): return torch.ones(1)",
        "%%capture\ndef f(): return torch.ones(1)",
        "%%capture said --no-stderr\ndef f(): return torch.ones(1)",
        "%%time\n%%capture\ndef f(): return torch.ones(1)",
        "%%prun\ndef f(): return torch.ones(1)",
        "%%writefile f.py\nimport torch",
        "%run f.py",
        "%time f = torch.nn.Linear(1, 1)",
        "%timeit torch.ones(1)",
        "x = %sql torch",
        "!echo $torch",
        "!echo {torch}",
        "found = !echo $torch",
        "exec('f = torch.ones')",
        "f = eval('torch.ones')",
        "f = lambda: globals()['torch'].ones(1)",
        "import sys\nf = lambda: sys.modules['__main__'].torch.ones(1)",
        "import __main__\nf = lambda: __main__.torch.ones(1)",
        "from __main__ import torch as f",
        "get_ipython().run_cell('f = torch.ones')",
        "ip = get_ipython()\nip.ex('f = torch.ones')",
        "import sys\nf = lambda: sys._getframe(1).f_globals['torch']",
        "f = await torch.ones(1)",
        "async for f in torch.ones(1): pass",
        "def f(): return f.__globals__['torch'].ones(1)",
        "%time await torch.ones(1)",
    ],
)
def test_what_cannot_be_read_for_sure_uses_everything(text):
    cells = [("import torch", "import torch"), ("y = 1", "y = 1"), (text, "def f(): pass")]
    assert 0 in needed(cells, {2}, {"f"})


@pytest.mark.parametrize(
    "text", ["def f(", "%matplotlib inline", "!ls", "%pip install x", "return 3", "if __name__: f"]
)
def test_what_is_read_for_sure_uses_what_it_names(text):
    cells = [("import torch", "import torch"), (text, "def f(): pass")]
    assert needed(cells, {1}, {"f"}) == {1}


def test_an_exercise_binds_what_it_was_released_with():
    assert needed([("def f(", "def f(): pass")], set(), {"f"}) == {0}


@pytest.mark.parametrize(
    "path", sorted(Path(lab_utils.__file__).parent.glob("*.py")), ids=lambda path: path.stem
)
def test_a_hollow_module_has_the_names_and_no_code(path):
    real, empty = ast.parse(path.read_text()), ast.parse(hollow(path.read_text()))

    def functions(tree):
        kinds = ast.FunctionDef | ast.AsyncFunctionDef
        return [node for node in ast.walk(tree) if isinstance(node, kinds)]

    outer = [node.name for node in ast.iter_child_nodes(real) if hasattr(node, "name")]
    assert [node.name for node in ast.iter_child_nodes(empty) if hasattr(node, "name")] == outer
    assert all(len(node.body) == 1 for node in functions(empty))
    assert all(isinstance(node.body[0], ast.Raise) for node in functions(empty))
    names = {"__name__": f"hollow_{path.stem}", "__file__": str(path)}
    try:
        exec(compile(path.read_text(), str(path), "exec"), dict(names))
    except ModuleNotFoundError as error:
        pytest.skip(f"{error}: the module itself cannot be imported here")
    exec(compile(empty, str(path), "exec"), names)


def test_what_is_compiled_is_hidden_too(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "layers.py").write_text("def f(): return 42")
    (tmp_path / "masks").mkdir()
    masks = write_masks(frozenset([str(package / "layers.py")]), tmp_path / "masks")
    assert masks.keys() >= {str(package / "layers.py"), str(package / "__pycache__"), CHECKS}
    assert "42" not in Path(masks[str(package / "layers.py")]).read_text()
