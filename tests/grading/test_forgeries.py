"""Only an answer earns marks in lessons 04 to 07 either: what a forger has tried, and what it got.

A forger owns its process. It may import and replace what is there, read the question, and write
the reply. It gets what its reply is worth: numbers that only an answer gives.
"""

import shutil

import pytest

from lab_grader.running.execute import execute
from lab_grader.running.job import Cell, Job

pytestmark = [
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing"),
    pytest.mark.slow,
]

IMPORTS = "import copy, math, torch\nfrom torch import nn\nfrom lab_utils import data, layers\n"
SIGNATURES = {
    "add_adapters": "def add_adapters_to_model(model, adapter_type, rank=8, alpha=16.0):\n",
    "train_step": "def train_step(model, batch, optimizer, max_norm=1.0):\n",
    "paired_difference": "def paired_difference(lora_losses, dora_losses, confidence=0.95):\n",
    "compare_across_ranks": "def compare_across_ranks(ranks=(4, 8, 16, 32)):\n",
    "track_magnitude_changes": "def track_magnitude_changes(n_epochs=50):\n",
    "make_config": "def make_config(use_dora, rank=16):\n",
    "to_peft_state": "def to_peft_state(layer, prefix):\n",
    "choice_accuracy": "def choice_accuracy(scores, answers):\n",
    "lora_scaling": "def lora_scaling(alpha, rank, rank_stabilized):\n",
    "gradient_norms_by_rank": "def gradient_norms_by_rank(ranks, rank_stabilized):\n",
}
MODULES = {
    "add_adapters": "head_to_head",
    "train_step": "head_to_head",
    "paired_difference": "head_to_head",
    "compare_across_ranks": "rank_and_magnitude",
    "track_magnitude_changes": "rank_and_magnitude",
    "make_config": "peft_and_commonsense",
    "to_peft_state": "peft_and_commonsense",
    "choice_accuracy": "peft_and_commonsense",
    "lora_scaling": "rslora",
    "gradient_norms_by_rank": "rslora",
}

# Bodies and prologues that fit every exercise.
FOR_ALL = {
    "imports_the_check": (
        "",
        "    from lab_utils.checks import {module} as m\n"
        "    return m._run, m.interval, m._simulate, m._share, m._measured\n",
    ),
    "replaces_what_asks": (
        "import importlib, sys\n"
        "for name in ('functions', 'head_to_head', 'peft_and_commonsense', 'student_code'):\n"
        "    module = importlib.import_module(f'lab_utils.questions.{name}')\n"
        "    for part in list(vars(module)):\n"
        "        if part.startswith(('ask_', 'student_')):\n"
        "            setattr(module, part, lambda *a, **k: {'result': 1.0, 'after': []})\n",
        "    return None\n",
    ),
    "replies_with_the_question": (
        "import lab_grader.wire.inside as inside\n"
        "from lab_grader.wire.values import pack, unpack\n"
        "def forged(namespace, question):\n"
        "    name, text, file, function, arguments, step, reference = unpack(question)\n"
        "    if text is None: return pack(True)\n"
        "    if function == 'ask_call':\n"
        "        return pack({'result': {'result': arguments[0][0], 'after': arguments[0]}})\n"
        "    return pack({'result': {str(n): a for n, a in enumerate(arguments)}})\n"
        "inside.answer = forged\n",
        "    return None\n",
    ),
    "replies_with_nothing": (
        "import lab_grader.wire.inside as inside\ninside.answer = lambda *a: b''\n",
        "    return None\n",
    ),
    "is_equal_to_all": (
        "class Equal(float):\n"
        "    def __eq__(self, other): return True\n"
        "    def __sub__(self, other): return 0.0\n"
        "    __rsub__ = __add__ = __radd__ = __abs__ = __sub__\n"
        "    __hash__ = float.__hash__\n",
        "    return Equal('nan')\n",
    ),
    "asks_a_check": (
        "import contextlib, io, re\nfrom lab_utils import checks\n"
        "def heard(student):\n"
        "    said = io.StringIO()\n"
        "    with contextlib.redirect_stdout(said):\n"
        "        for name in dir(checks):\n"
        "            try: getattr(checks, name)(student)\n"
        "            except BaseException as error: print(error)\n"
        "    return [float(n) for n in re.findall(r'expected (-?[0-9.]+)', said.getvalue())]\n",
        "    return heard(lambda *a, **k: 0.0)[0]\n",
    ),
}
# What is said in place of a model's work: what was sent, and zeros for what had to be
# had to be computed.
ADDS_NOTHING = (
    "import lab_grader.wire.inside as inside\n"
    "from lab_grader.wire.values import pack, unpack\n"
    "def forged(namespace, question):\n"
    "    name, text, file, function, arguments, step, reference = unpack(question)\n"
    "    if text is None: return pack(True)\n"
    "    if function != 'ask_adapted':\n"
    "        return pack({'result': {'raised': None, 'output': torch.zeros(2, 6, 256)}})\n"
    "    kind, state, blocks, rank, alpha, inputs, targets, values, rate = arguments\n"
    "    zeros = torch.zeros(*inputs.shape, 256)\n"
    "    names = [n.removesuffix('.lora_A') for n in values if n.endswith('lora_A')]\n"
    "    return pack({'result': {\n"
    "        'module': True, 'same object': False, 'base': state, 'base at the end': state,\n"
    "        'base trainable': list(state), 'parameters': state | values, 'shared': {},\n"
    "        'trainable': list(values), 'scalings': {n: alpha / rank for n in names},\n"
    "        'at the start': zeros, 'output': zeros, 'output in training': zeros,\n"
    "        'after a step': state | {n: v + 1 for n, v in values.items()},\n"
    "    }})\n"
    "inside.answer = forged\n"
)
OF_ONE = {
    "add_adapters": {
        "says_what_is_wanted": (ADDS_NOTHING, "    return None\n"),
        "runs_the_base": (
            ADDS_NOTHING.replace(
                "torch.zeros(*inputs.shape, 256)\n",
                "q.small_model(state, blocks)(inputs).detach()\n",
            ).replace(
                "import lab_grader",
                "import lab_utils.questions.head_to_head as q\nimport lab_grader",
                1,
            ),
            "    return None\n",
        ),
        "borrows_the_labs": (
            "",
            "    from lab_utils import adapters\n"
            "    return adapters.add_adapters_to_model(model, adapter_type, rank, alpha)\n",
        ),
    },
    "train_step": {
        "borrows_the_labs": (
            "",
            "    from lab_utils import training\n"
            "    loss = data.next_byte_loss\n"
            "    return training.train_step(model, batch, loss, optimizer, max_norm)\n",
        ),
        "takes_no_step_and_says_so": ("", "    return 14.436253547668457, 4.498617649078369\n"),
    },
    "paired_difference": {
        "sets_its_arguments": (
            "",
            "    lora_losses[:] = [0.0] * len(lora_losses)\n"
            "    dora_losses[:] = [0.0] * len(dora_losses)\n"
            "    return 0.0, 0.0, 0.0\n",
        ),
        "borrows_the_labs": (
            "",
            "    from lab_utils import comparison\n"
            "    found = comparison.paired_difference(lora_losses, dora_losses)\n"
            "    return found.mean, found.low, found.high\n",
        ),
    },
    "choice_accuracy": {
        "empties_its_arguments": ("", "    scores.clear(); answers.clear()\n    return 1.0\n"),
        "remembers": ("", "    return 2 / 3\n"),
    },
    "to_peft_state": {
        "borrows_the_labs": (
            "",
            "    from lab_utils import peft_bridge\n"
            "    return peft_bridge.to_peft_state(layer, prefix)\n",
        ),
    },
    "lora_scaling": {
        "borrows_a_layers": (
            "",
            "    layer = layers.LoRALayer(nn.Linear(256, 256), rank, alpha,\n"
            "                             rank_stabilized=rank_stabilized)\n"
            "    return layer.scaling\n",
        ),
    },
}


def attacks():
    for exercise, signature in SIGNATURES.items():
        for name, (prologue, body) in {**FOR_ALL, **OF_ONE.get(exercise, {})}.items():
            text = prologue + signature + body.replace("{module}", MODULES[exercise])
            yield f"{exercise}-{name}", exercise, text


@pytest.fixture(scope="module")
def results():
    def notebook(exercise, text):
        function = SIGNATURES[exercise].split("(")[0].removeprefix("def ")
        aspect = ', "frozen"' if exercise == "add_adapters" and "forged" in text else ""
        test = f"checks.check_{exercise}({function}{aspect})"
        return [Cell(IMPORTS, "lesson", IMPORTS), Cell(text, "exercise"), Cell(test, "test")]

    notebooks = {name: notebook(exercise, text) for name, exercise, text in attacks()}
    result = execute(Job(notebooks, {}))
    return {name: outputs[-1] for name, outputs in result.outputs.items()}


@pytest.mark.parametrize("name", [name for name, _, _ in attacks()])
def test_what_is_no_answer_earns_nothing(results, name):
    errors = [output for output in results[name] if output.output_type == "error"]
    assert errors, "it passed"
    assert errors[0].ename in ("CheckFailed", "Unreadable"), errors[0].evalue
