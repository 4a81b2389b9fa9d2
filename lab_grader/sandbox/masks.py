"""What the student's process sees instead of the reference: the same names, and no code.

`from lab_utils import layers` still works, as lessons have it at their top. A function of a
hollow module raises, under its own name, so that a check finds and names the call as it does in
a notebook. Of a package (PEFT) only an empty folder is left.

The checks know what is expected, so they are hidden from every kernel, and so are the common
mistakes that lessons show. In the place of the checks are some that say nothing, for the cell in
which a student called one to see how far it is; in that of the quiz, which asks checks, too.
"""

import ast
import contextlib
import hashlib
from pathlib import Path

import lab_utils

CHECKS = str(Path(lab_utils.__file__).parent / "checks")
# Each is an answer except for one word.
MISTAKES = frozenset(map(str, (Path(CHECKS).parent / "mistakes").glob("*.py")))
QUIZ = str(Path(CHECKS).parent / "quiz.py")
# Errors where there is no such module, file, network, or person at a keyboard.
ERRORS_OF_A_SANDBOX = {
    *("ImportError", "ModuleNotFoundError", "OSError", "FileNotFoundError", "NotADirectoryError"),
    *("PermissionError", "ConnectionError", "ConnectionRefusedError", "URLError", "gaierror"),
    "StdinNotImplementedError",
}
SILENT = '''"""What a student's code sees here while it is graded: it says nothing."""


class CheckFailed(AssertionError):
    mistake = None


def _say_nothing(*_, **__):
    pass


for _name in {names}:
    globals()[_name] = _say_nothing
'''

NOT_HERE = "the reference is not here while its exercise is graded"
RAISE = ast.parse(f"raise NotImplementedError({NOT_HERE!r})").body[0]


def hollow(source: str) -> str:
    """Return a module's text with every function's body taken out."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [RAISE]
    return ast.unparse(tree)


def write_masks(hidden: frozenset[str], folder: Path) -> dict[str, str]:
    """Write what stands in for the checks and for some files and folders.

    Returns:
        The stand-ins, by what they stand for.
    """
    masks = {}
    for original in sorted({CHECKS} | with_compiled(hidden | MISTAKES | {QUIZ})):
        number = hashlib.sha256(original.encode()).hexdigest()[:16]
        mask = folder / f"{number}-{Path(original).name}"
        if mask.exists():
            pass  # an earlier call wrote it
        elif original == CHECKS:
            mask.mkdir()
            texts = sorted(Path(CHECKS).glob("*.py"))
            (mask / "__init__.py").write_text(SILENT.format(names=_names(texts, "check_")), "utf-8")
        elif original == QUIZ:
            mask.write_text(SILENT.format(names=_names([Path(QUIZ)])), "utf-8")
        elif Path(original).is_dir():
            mask.mkdir()
        else:
            mask.write_text(hollow(Path(original).read_text("utf-8")), "utf-8")
        masks[original] = str(mask)
    return masks


def _names(files: list[Path], beginning: str = "") -> list[str]:
    """Return what some modules define, read and not imported: that would take PyTorch."""
    return [
        node.name
        for file in files
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.startswith(beginning)
    ]


def with_compiled(hidden: frozenset[str]) -> frozenset[str]:
    """Return some files with the folders of compiled modules beside them, which hold their code."""
    folders = {Path(path).parent / "__pycache__" for path in hidden if path.endswith(".py")}
    for folder in folders:
        with contextlib.suppress(PermissionError):
            folder.mkdir(exist_ok=True)  # so that nothing can appear there later
    return hidden | {str(folder) for folder in folders if folder.exists()}


def stopped_by_what_is_missing(outputs: list[dict]) -> bool:
    """Whether a cell stopped at a hidden function, or at what a sandbox does not have."""
    last = outputs[-1] if outputs else {}
    if last.get("output_type") != "error":
        return False
    name, why = last["ename"], last["evalue"]
    return name in ERRORS_OF_A_SANDBOX or (name == "NotImplementedError" and why == NOT_HERE)
