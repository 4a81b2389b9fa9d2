"""Only an answer earns marks: what is expected is not where a student's code runs.

Each submission here would earn marks if the checks, or what they expect, were in reach, or if a
check compared with what the answer could change.
"""

import shutil

import jupytext
import pytest
import release

from lab_grader.running.execute import execute
from lab_grader.running.job import Cell, Job
from lab_utils import checks

pytestmark = [
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing"),
    pytest.mark.slow,
]

IMPORTS = "import torch\nfrom torch import nn\nimport torch.nn.functional as F\n"
DECOMPOSE = "def decompose(weight, norm_dim=1, eps=1e-8):\n"
RECOMPOSE = "def recompose(magnitude, direction):\n"
LAYER = "class DoRALayer(nn.Module):\n    pass\n"
TESTS = {
    "decompose": "checks.check_decompose(decompose)",
    "recompose": "checks.check_recompose(recompose)",
    "coupling": "checks.check_coupling(coupling)",
    "DoRALayer": "checks.check_dora_layer(DoRALayer)",
}

# By what is tested: texts of exercise cells, none of which is an answer.
ATTACKS = {
    "decompose": {
        "imports_the_reference": DECOMPOSE
        + "    from lab_utils import decomposition\n"
        + "    return decomposition.decompose(weight, norm_dim)",
        "reads_the_check": DECOMPOSE
        + "    import pathlib, lab_utils.checks as c\n"
        + "    text = pathlib.Path(c.__file__).with_name('mathematics.py').read_text()\n"
        + "    exec(text, globals())\n"
        + "    return decomposition.decompose(weight, norm_dim)",
        "replaces_what_asks": "import lab_utils.questions.functions as f, sys\n"
        "f.ask_call = lambda *a, **k: {'result': 'right', 'after': []}\n"
        "f.__dict__['close'] = lambda *a: True\n" + DECOMPOSE + "    return None",
        "replaces_the_checks": "import lab_utils.checks as c\n"
        "for name in list(vars(c)):\n"
        "    if name.startswith('check_'): setattr(c, name, lambda *a, **k: None)\n"
        + DECOMPOSE
        + "    return None",
    },
    "recompose": {
        "zeros_its_arguments": RECOMPOSE
        + "    magnitude.zero_(); direction.zero_()\n    return torch.zeros_like(direction)",
        "gives_back_itself": RECOMPOSE
        + "    class Equal:\n"
        + "        def __eq__(self, other): return True\n"
        + "        def __getattr__(self, name): return lambda *a, **k: True\n"
        + "    return Equal()",
        "forges_the_reply": "import lab_grader.wire.inside as inside\n"
        "from lab_grader.wire.values import pack\n"
        "def forged(namespace, question):\n"
        "    return pack({'result': {'result': torch.ones(3, 5), 'after': []}})\n"
        "inside.answer = forged\n" + RECOMPOSE + "    return None",
        "forges_no_reply": "import lab_grader.wire.inside as inside\n"
        "inside.answer = lambda *a: ''\n" + RECOMPOSE + "    return None",
        "a_sparse_tensor": RECOMPOSE + "    return (magnitude + direction).to_sparse()",
        "a_meta_tensor": RECOMPOSE + "    return direction.to('meta')",
    },
    "coupling": {
        "asks_a_check": "import contextlib, io, re\nfrom lab_utils import checks\n"
        "def coupling(delta_m, delta_d):\n"
        "    said = io.StringIO()\n"
        "    with contextlib.redirect_stdout(said):\n"
        "        try: checks.check_coupling(lambda m, d: 0.0)\n"
        "        except BaseException as error: print(error)\n"
        "    found = re.findall(r'expected (-?[0-9.]+)', said.getvalue())\n"
        "    return float(found[0]) if found else float('nan')",
        "zeros_its_arguments": "def coupling(delta_m, delta_d):\n"
        "    delta_m[:] = [0.0] * len(delta_m)\n"
        "    return float('nan')",
    },
    "DoRALayer": {
        "imports_the_case": LAYER + "from lab_utils.checks.layer.case import Case",
        "subclasses_the_reference": "from lab_utils import layers\n"
        "class DoRALayer(layers.DoRALayer):\n    pass",
        "subclasses_a_mistake": "import sys, lab_utils\n"
        "sys.path.insert(0, lab_utils.__path__[0] + '/mistakes')\n"
        "import from_scratch\n"
        "class DoRALayer(from_scratch.NormNotDetached):\n    pass",
        "says_what_is_wanted": "import lab_utils.questions.layers as q\n"
        "for name in list(q.STEPS):\n"
        "    q.STEPS[name] = lambda *a: {'trainable': [], 'original_layer': True, 'copies': []}\n"
        "q._build = lambda *a: None\n" + LAYER,
    },
}
RIGHT = {
    "decompose": DECOMPOSE
    + "    m = weight.norm(dim=norm_dim, keepdim=True)\n    return m, weight / m.clamp_min(eps)",
    "recompose": RECOMPOSE + "    return magnitude * direction",
    "coupling": "import statistics\ndef coupling(delta_m, delta_d):\n"
    "    varies = len(set(delta_m)) > 1 and len(set(delta_d)) > 1\n"
    "    return statistics.correlation(delta_m, delta_d) if varies else float('nan')",
}


def notebook(text, test):
    return [Cell(IMPORTS, "lesson", IMPORTS), Cell(text, "exercise"), Cell(TESTS[test], "test")]


@pytest.fixture(scope="module")
def results():
    notebooks = {
        f"{test}-{name}": notebook(text, test)
        for test, texts in ATTACKS.items()
        for name, text in texts.items()
    }
    # A right answer after all of them, with a call of a check left in its cell.
    notebooks |= {
        f"{test}-right": notebook(
            f"from lab_utils import checks\n{text}\nassert {TESTS[test]} is None\n", test
        )
        for test, text in RIGHT.items()
    }
    result = execute(Job(notebooks, {}))
    return {name: outputs[-1] for name, outputs in result.outputs.items()}


@pytest.mark.parametrize(
    "name", [f"{test}-{name}" for test, texts in ATTACKS.items() for name in texts]
)
def test_what_is_no_answer_earns_nothing(results, name):
    errors = [output for output in results[name] if output.output_type == "error"]
    assert errors, "it passed"
    assert errors[0].ename in ("CheckFailed", "NameError")
    assert "raise " not in errors[0].evalue


@pytest.mark.parametrize("test", RIGHT)
def test_a_right_answer_with_a_call_of_a_check_left_in_it_passes(results, test):
    assert [output.output_type for output in results[f"{test}-right"]] == ["stream"]


def test_nothing_of_the_checks_is_left_but_names_that_say_nothing():
    look = (
        "import importlib, io, contextlib, pathlib, pkgutil\n"
        "from lab_utils import checks\n"
        "print(sorted(name for name in vars(checks) if name.startswith('check_')))\n"
        "print([p.name for p in pathlib.Path(checks.__file__).parent.iterdir()])\n"
        "said = io.StringIO()\n"
        "with contextlib.redirect_stdout(said):\n"
        "    checks.check_decompose(lambda *a: 1, 'rows', seed=3)\n"
        "print(repr(said.getvalue()))\n"
        "for name in ('report', 'subject', 'head_to_head', 'from_scratch', 'layer.case'):\n"
        "    try: importlib.import_module(f'lab_utils.checks.{name}')\n"
        "    except ModuleNotFoundError: print('not there')\n"
    )
    cells = [Cell(look, "student"), Cell("x", "manual")]
    (said,) = execute(Job({"n": cells}, {})).outputs["n"][0]
    lines = said.text.splitlines()
    expected = sorted(name for name in checks.__all__ if name.startswith("check_"))
    assert lines == [str(expected), "['__init__.py']", "''", *["not there"] * 5]


@pytest.mark.parametrize("path", sorted(release.SOLUTIONS.glob("*.py")), ids=lambda path: path.stem)
def test_what_a_lesson_imports_can_be_imported_where_the_checks_are_hidden(path):
    code = [cell for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    imports = [cell.source for cell in code if "\nfrom lab_utils" in cell.source]
    tests = [cell.source for cell in code if cell.metadata.get("nbgrader", {}).get("grade")]
    assert imports
    cells = [Cell(text, "student") for text in imports]
    marked = [text for text in tests if text.startswith("checks.")]
    result = execute(Job({path.stem: [*cells, Cell(marked[0], "test")]}, {}))
    for outputs in result.outputs[path.stem][: len(cells)]:
        assert [o.evalue for o in outputs if o.output_type == "error"] == []
