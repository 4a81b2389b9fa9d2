"""Where the lab is published, said once, and the buttons that follow from it.

    [project.urls]                                  in pyproject.toml
    Repository = "https://github.com/OWNER/NAME"

`make release` then puts links that open Binder and Colab into the README and at the head of each
lesson, and `make book` onto its pages. In Colab, which has a notebook and nothing else, the first
cell of a lesson installs `lab_utils` from there. Without the entry there are no such links.
"""

import re
import textwrap
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BRANCH = "main"

# What is replaced: in the README what stands between two comments, in a lesson the line of
# buttons below the title (there may be none), and the beginning of its set-up.
BUTTONS = re.compile(r"(?<=<!-- buttons -->\n).*?(?=<!-- end of buttons -->)", re.DOTALL)
HEAD = re.compile(r"(?<=^# %% \[markdown\]\n)(# # .*\n)(?:#\n# \[Open in .*\n)?", re.MULTILINE)
SET_UP = re.compile(
    r"^(?:import subprocess\nimport sys\n)?from importlib.util import find_spec\n\n"
    r"if find_spec.*\n(?:    .*\n)+",
    re.MULTILINE,
)
CHECK = """\
from importlib.util import find_spec

if find_spec("lab_utils") is None:
"""
RAISE = """\
raise ModuleNotFoundError(
    "This kernel has no lab_utils. Choose the kernel “DoRA Lab (Python 3)” at the top right; if "
    "it is not listed, run `make lab` in the folder of the lab."
)
"""
INSTALL = """\
if "google.colab" not in sys.modules:
{otherwise}
# Colab has all the packages that a lesson needs, but for the lab's own.
source = "git+{repository}@{branch}"
subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", source], check=True)
"""


class NotAnAddress(ValueError):
    """Binder and Colab cannot open the repository's address."""


class NoPlace(ValueError):
    """A text has no place for what is to be put into it."""


def read_repository(root: Path = ROOT) -> str | None:
    """Return the address of the repository, or None where pyproject.toml has none.

    Raises:
        NotAnAddress: it is not a repository on GitHub.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository")
    if address is None or re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", address):
        return address
    raise NotAnAddress(
        f"pyproject.toml: Repository is {address!r}. Write https://github.com/OWNER/NAME, or leave "
        "it out to have no buttons."
    )


def buttons(repository: str, lesson: str) -> str:
    """Return, as Markdown, the links that open a student's notebook in Binder and in Colab."""
    name = repository.removeprefix("https://github.com/")
    path = f"notebooks/dora/{lesson}.ipynb"
    binder = f"https://mybinder.org/v2/gh/{name}/{BRANCH}?urlpath=lab/tree/{path}"
    colab = f"https://colab.research.google.com/github/{name}/blob/{BRANCH}/{path}"
    return f"[Open in Binder]({binder}) · [Open in Colab]({colab})"


def in_readme(text: str, repository: str | None) -> str:
    """Return the README with the buttons of the first lesson, or without any."""
    line = (
        f"Without an installation: {buttons(repository, '01-mathematics')}\n" if repository else ""
    )
    return _replace(BUTTONS, text, line)


def in_lesson(text: str, lesson: str, repository: str | None) -> str:
    """Return the text of a lesson with its buttons and its first cell, or without any buttons."""
    line, imports, handler = "", "", RAISE
    if repository:
        line = f"#\n# {buttons(repository, lesson)}\n"
        otherwise = textwrap.indent(RAISE.rstrip(), "    ")
        imports = "import subprocess\nimport sys\n"
        handler = INSTALL.format(otherwise=otherwise, repository=repository, branch=BRANCH)
    text = _replace(HEAD, text, rf"\g<1>{line}")
    cell = imports + CHECK + textwrap.indent(handler, "    ")
    return _replace(SET_UP, text, cell)


def _replace(place: re.Pattern, text: str, new: str) -> str:
    replaced, count = place.subn(new, text, count=1)
    if not count:
        raise NoPlace(f"nothing there matches {place.pattern!r}: {text[:300]!r}")
    return replaced


def renew(root: Path = ROOT) -> None:
    """Put the buttons of the address, or none, into the README and the lessons' texts."""
    repository = read_repository(root)
    made = {root / "README.md": lambda text: in_readme(text, repository)}
    for lesson in sorted(root.glob("solutions/dora/*.py")):
        made[lesson] = lambda text, name=lesson.stem: in_lesson(text, name, repository)
    for path, change in made.items():
        text = path.read_text(encoding="utf-8")
        if change(text) != text:
            new = path.with_suffix(".new")
            new.write_text(change(text), encoding="utf-8")
            new.replace(path)
