"""Installing the lab: the package lists agree, and a set-up that fails says why."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def constraints():
    """The version of each package, on this platform and Python."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.lstrip().startswith("#")]
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in here}


def test_every_dependency_is_constrained_to_a_version_that_it_allows():
    extras = PROJECT["optional-dependencies"].values()
    for line in [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]:
        requirement = Requirement(line)
        if requirement.name != PROJECT["name"]:
            assert constraints()[canonicalize_name(requirement.name)] in requirement.specifier, line
    assert constraints()["torch"] == "2.13.0"


@pytest.mark.slow
def test_the_constraints_are_what_make_lock_makes(tmp_path):
    """With the pins that are there, it adds none and drops none. It needs a network."""
    command = re.search(r"^lock:.*?uv (pip compile .*?) \$\(ARGS\)$", MAKEFILE, re.M | re.S)[1]
    made = tmp_path / "constraints.txt"
    shutil.copy(ROOT / "constraints.txt", made)
    arguments = shlex.split(command.replace("\\\n", " "))
    arguments[-1] = str(made)
    uv = Path(sys.executable).with_name("uv")
    done = subprocess.run([uv, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
    if "Failed to fetch" in done.stderr or "error sending request" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    assert made.read_text() == (ROOT / "constraints.txt").read_text()


def test_environment_yml_holds_the_packages_and_versions_of_the_student_install():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert "3.11" in Requirement(f"python{PROJECT['requires-python']}").specifier
    options = [line for line in pip["pip"] if line.startswith("--")]
    assert options == ["--constraint constraints.txt", "--editable ."]
    found = dict(line.split("==") for line in pip["pip"] if not line.startswith("--"))
    names = [Requirement(line).name for line in PROJECT["dependencies"]]
    assert found == {name: constraints()[canonicalize_name(name)] for name in names}


def plain_environment():
    """What these tests inherit: nothing that `make check` was told, and no settings of pip."""
    told = ("MAKE", "PIP_", "PYTHON", "VENV", "TORCH")
    return {name: value for name, value in os.environ.items() if not name.startswith(told)}


@pytest.fixture
def checkout(tmp_path):
    """A folder with what the set-up reads, and a `run` that calls it there."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "scripts/set_up.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "notebooks" / "dora").mkdir(parents=True)

    def run(**environment):
        return subprocess.run(
            ["make", "lab"],
            cwd=tmp_path,
            env=plain_environment() | environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


def program(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


def test_no_python(checkout, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "env", "make", "sh"):
        (tools / name).symlink_to(shutil.which(name))
    done = checkout(PATH=str(tools))
    assert done.returncode != 0
    assert "The lab needs Python 3.11 or newer, and found none." in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_old_python(checkout, tmp_path):
    old = program(tmp_path / "python3.8", '[ "$1" = --version ] && echo Python 3.8.19; exit 1')
    done = checkout(PYTHON=old)
    assert done.returncode != 0
    assert f"PYTHON is {old}, which is Python 3.8.19. The lab needs Python 3.11" in done.stderr


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        ({"python3": "3.12.4", "python3.11": "3.11.2"}, "python3"),
        ({"python3": "3.14.1", "python3.11": "3.11.2"}, "python3.11"),
        ({"python3": "3.14.1"}, "python3"),
    ],
)
def test_a_tested_python_is_preferred_and_another_one_is_named(
    checkout, tmp_path, installed, chosen
):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "dirname", "env", "make", "mkdir", "sh", "tee", "touch", "uname"):
        (tools / name).symlink_to(shutil.which(name))
    for name, version in installed.items():
        as_it = f"import sys; sys.version_info = ({version.replace('.', ', ')})"
        program(
            tools / name,
            f'[ "$1" = --version ] && {{ echo Python {version}; exit; }}\n'
            f'[ "$1" = -c ] && exec {sys.executable} -c "{as_it}; $2"\n'
            'echo "venv by $0"; exit 1\n',
        )
    done = checkout(PATH=str(tools))
    assert f"venv by {tools / chosen}\n" in done.stderr
    untested = "tested with Python 3.11 to 3.13, and this is Python 3.14.1." in done.stdout
    assert untested == (installed[chosen] == "3.14.1")


def fake_python(path, pip):
    """A Python whose venvs hold a `python` that does what the shell text `pip` says."""
    return program(
        path,
        'if [ "$2" = venv ]; then mkdir -p .venv/bin; cp "$0.pip" .venv/bin/python; fi\n'
        f": {program(path.with_suffix('.pip'), pip)}\n",
    )


def renew_constraints(folder):
    """Make them newer than what is installed, for which "now" may be the same tick of the clock."""
    installed = (folder / ".venv" / "lab.stamp").stat().st_mtime_ns
    os.utime(folder / "constraints.txt", ns=(installed + 10**7,) * 2)


def test_full_disk(checkout, tmp_path):
    pip = 'echo "ERROR: [Errno 28] No space left on device"; exit 1'
    done = checkout(PYTHON=fake_python(tmp_path / "python", pip))
    assert done.returncode != 0
    assert "Installing the lab failed: the disk is full." in done.stderr
    assert not (tmp_path / ".venv" / "lab.stamp").exists()


@pytest.mark.slow
def test_no_network_and_the_next_call_works(checkout, tmp_path):
    """With a real venv and a real pip, and an index where nobody listens."""
    done = checkout(PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert done.returncode != 0
    assert "Installing the lab failed: the package index could not be reached." in done.stderr
    assert (tmp_path / ".venv" / "unfinished").exists()

    # the next call, with an installation that works, makes the environment anew and goes on
    (tmp_path / ".venv" / "rubble").touch()
    works = fake_python(tmp_path / "python", "exit 0")
    program(tmp_path / "jupyter", 'echo "$PWD: jupyter $*"')
    text = (tmp_path / "python").read_text()
    (tmp_path / "python").write_text(
        text.replace("mkdir -p .venv/bin", "rm -r .venv; mkdir -p .venv/bin; cp jupyter .venv/bin")
    )
    done = checkout(PYTHON=works, ARGS="--no-browser --port 8899")
    assert done.returncode == 0, done.stderr
    called = (
        "notebooks: jupyter lab 00-start.ipynb --ServerApp.ip=127.0.0.1 --no-browser --port 8899"
    )
    assert called in done.stdout
    assert not (tmp_path / ".venv" / "rubble").exists()
    assert not (tmp_path / ".venv" / "unfinished").exists()

    again = checkout(PYTHON=works)
    assert "Installing" not in again.stdout, "a second call must skip the set-up"
    renew_constraints(tmp_path)
    assert "Installing" in checkout(PYTHON=works).stdout, "new constraints must be installed"


def test_a_log_keeps_every_line_in_its_order(checkout, tmp_path):
    python = fake_python(tmp_path / "python", 'for i in 1 2 3; do echo "$2 $i"; done; exit 1')
    log = tmp_path / "log"
    environment = plain_environment() | {"PYTHON": python}
    with open(log, "w") as file:
        command = ["scripts/set_up.sh", "."]
        subprocess.run(command, cwd=tmp_path, env=environment, stdout=file, stderr=file)
    first, *_, last = lines = log.read_text().splitlines()
    assert first.startswith("Installing the lab into .venv")
    assert [line for line in lines if line.startswith("pip ")] == ["pip 1", "pip 2", "pip 3"]
    assert last.startswith("Installing the lab failed: the messages above say why.")


def test_other_projects_settings_do_not_leak_in(checkout, tmp_path):
    pip = 'echo "ran with ${PYTHONPATH-nothing} ${PIP_TARGET-nothing} ${PIP_USER-nothing}"; exit 0'
    python = fake_python(tmp_path / "python", pip)
    done = checkout(PYTHON=python, PYTHONPATH="/other", PIP_TARGET="/other", PIP_USER="1")
    assert "ran with nothing nothing nothing" in done.stderr
    assert "/other" not in done.stderr


def test_only_who_asks_for_it_gets_the_cpu_build_and_everybody_is_told_what_is_fetched(
    checkout, tmp_path
):
    python = fake_python(tmp_path / "python", 'echo "called with $*"')
    done = checkout(PYTHON=python)
    assert "make TORCH=cpu ... takes the CPU build" in done.stdout
    assert "--extra-index-url" not in done.stderr
    renew_constraints(tmp_path)
    done = checkout(PYTHON=python, TORCH="cpu")
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in done.stderr


def test_a_moved_folder_and_another_python_are_set_up_anew(checkout, tmp_path):
    """The scripts of an environment name its folder, and its packages belong to one Python."""
    python = fake_python(tmp_path / "python", '[ "$1" = --version ] && echo Python 3.11.7; exit 0')
    assert "Making .venv" not in checkout(PYTHON=python).stderr
    rubble = tmp_path / ".venv" / "rubble"
    rubble.touch()
    assert "Installing" not in checkout(PYTHON=python).stdout
    made_for = tmp_path / ".venv" / "made-for"
    for then in (
        f"/elsewhere, {made_for.read_text().split(', ')[1]}",
        f"{tmp_path}, Python 3.10.1",
    ):
        made_for.write_text(then)
        assert "Installing" in checkout(PYTHON=python).stdout, then
        assert "Installing" not in checkout(PYTHON=python).stdout, then


def test_scripts_keep_their_line_ends_where_git_would_change_them(tmp_path):
    """Git for Windows checks text out with other line ends, which bash cannot read."""
    git = ("git", "-c", "core.autocrlf=true", "-C", str(tmp_path / "clone"))
    subprocess.run(["git", "init", "-q", str(tmp_path / "clone")], check=True)
    for name in (".gitattributes", "scripts/set_up.sh", "Makefile"):
        (tmp_path / "clone" / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "clone" / name)
    subprocess.run([*git, "add", "."], check=True, capture_output=True)
    (tmp_path / "clone" / "scripts" / "set_up.sh").unlink()
    subprocess.run([*git, "checkout", "-q", "--", "."], check=True)
    assert b"\r\n" not in (tmp_path / "clone" / "scripts" / "set_up.sh").read_bytes()


def test_the_version_is_said_the_same_everywhere():
    changes = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## (\d\S*)", changes, re.MULTILINE)[1]  # below what is unreleased
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert newest == cited == PROJECT["version"]
