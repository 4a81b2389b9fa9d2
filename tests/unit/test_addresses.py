"""Binder and Colab: one address in pyproject.toml, and what follows from it."""

import shutil

import addresses
import jupytext
import pytest

MADE_UP = "https://github.com/a-school/dora-lab"
URLS = f'\n[project.urls]\nRepository = "{MADE_UP}"\n'


@pytest.fixture
def published(tmp_path):
    """A copy of the README and the lessons, of a lab whose address is known."""
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(addresses.ROOT / name, tmp_path)
    shutil.copytree(addresses.ROOT / "solutions", tmp_path / "solutions")
    set_address(tmp_path, URLS)
    return tmp_path


def set_address(root, urls):
    """Write pyproject.toml with this table of addresses, and no other."""
    text = (addresses.ROOT / "pyproject.toml").read_text()
    before, _, after = text.partition("\n[project.urls]\n")
    after = after[after.index("\n[") :] if "\n[" in after else ""
    (root / "pyproject.toml").write_text(before + after + urls)


def texts(root):
    return {path: path.read_text() for path in [root / "README.md", *root.rglob("*.py")]}


def test_the_texts_go_with_the_address_in_pyproject():
    repository = addresses.read_repository()
    readme = (addresses.ROOT / "README.md").read_text()
    assert addresses.in_readme(readme, repository) == readme
    lessons = sorted(addresses.ROOT.glob("solutions/dora/*.py"))
    assert lessons
    for path in lessons:
        text = path.read_text()
        assert addresses.in_lesson(text, path.stem, repository) == text, "run make release"


def test_buttons_open_the_students_notebook(published):
    addresses.renew(published)
    name = MADE_UP.removeprefix("https://github.com/")
    for lesson in sorted(published.glob("solutions/dora/*.py")):
        notebook = f"notebooks/dora/{lesson.stem}.ipynb"
        assert (addresses.ROOT / notebook).is_file()
        head = jupytext.read(lesson).cells[0].source.splitlines()
        assert head[0].startswith("# 3.1.2 DoRA")
        assert head[2] == (
            f"[Open in Binder](https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/{notebook})"
            f" · [Open in Colab](https://colab.research.google.com/github/{name}/blob/main/{notebook})"
        )
    readme = (published / "README.md").read_text()
    assert readme.count("[Open in Binder]") == readme.count("[Open in Colab]") == 1
    assert "notebooks/dora/01-mathematics.ipynb)" in readme


def test_a_second_time_changes_nothing_and_without_an_address_all_is_as_before(published):
    addresses.renew(published)
    once = texts(published)
    addresses.renew(published)
    assert texts(published) == once
    set_address(published, "")
    addresses.renew(published)
    after = texts(published)
    assert after != once
    assert not any("Open in" in text or "google.colab" in text for text in after.values())
    set_address(published, URLS)
    addresses.renew(published)
    assert texts(published) == once
    assert not list(published.rglob("*.new"))


@pytest.mark.parametrize("in_colab", [True, False])
def test_the_first_cell_installs_the_lab_in_colab_and_nowhere_else(published, in_colab):
    addresses.renew(published)
    for lesson in sorted(published.glob("solutions/dora/*.py")):
        cells = jupytext.read(lesson).cells
        first = next(cell.source for cell in cells if cell.cell_type == "code")
        called = run_without_lab_utils(addresses.SET_UP.search(first)[0], in_colab)
        if in_colab:
            (command,) = called
            assert command[1:4] == ["-m", "pip", "install"]
            assert command[-1] == f"git+{MADE_UP}@main"
        else:
            assert str(called) == called.args[0]
            assert "This kernel has no lab_utils." in called.args[0]


def run_without_lab_utils(source, in_colab):
    """Run a cell where `lab_utils` is missing; return what it called, or its error."""
    called = []

    class Modules:
        """Stands for `sys`, `subprocess` and `importlib.util`."""

        modules = {"google.colab": None} if in_colab else {}
        executable = "python"

        @staticmethod
        def run(command, check):
            assert check
            called.append(command)

        @staticmethod
        def find_spec(name):
            assert name == "lab_utils"

    def import_module(name, *_):
        if name in ("sys", "subprocess", "importlib.util"):
            return Modules
        raise ModuleNotFoundError(name)

    builtins = {"__import__": import_module, "ModuleNotFoundError": ModuleNotFoundError}
    try:
        exec(source, {"__builtins__": builtins})
    except ModuleNotFoundError as error:
        return error
    return called


@pytest.mark.parametrize(
    "address",
    [
        "https://gitlab.com/a-school/dora-lab",
        "git@github.com:a-school/dora-lab.git",
        "https://github.com/a-school",
        "https://github.com/a-school/dora-lab/",
        "",
    ],
)
def test_an_address_that_cannot_be_opened_is_refused(published, address):
    set_address(published, f'\n[project.urls]\nRepository = "{address}"\n')
    before = texts(published)
    with pytest.raises(addresses.NotAnAddress, match=r"Write https://github\.com/OWNER/NAME"):
        addresses.renew(published)
    assert texts(published) == before


def test_a_lesson_without_a_place_is_refused():
    with pytest.raises(addresses.NoPlace):
        addresses.in_lesson("# %% [markdown]\n# # A title\n\n# %%\nimport torch\n", "x", MADE_UP)
