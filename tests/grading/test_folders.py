"""Folders of a run that was killed are removed by the next run, and no others."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lab_grader.sandbox import folders
from lab_grader.sandbox.folders import Folder, remove, remove_left_behind

LEAVE = """
import os
from lab_grader.sandbox.folders import Folder
folder = Folder()
(folder.path / "given").mkdir()
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def temporary(monkeypatch):
    """A folder for temporary files, with a path that is short enough for sockets."""
    folder = tempfile.mkdtemp(dir="/tmp")
    monkeypatch.setattr(folders.tempfile, "tempdir", folder)
    yield Path(folder)
    shutil.rmtree(folder)


def test_what_a_killed_process_left_is_removed(temporary):
    environment = os.environ | {"TMPDIR": str(temporary)}
    subprocess.run([sys.executable, "-c", LEAVE], env=environment, check=False)
    (left,) = temporary.glob("lab-*")
    used = Folder()
    remove_left_behind()
    assert not left.exists()
    assert used.path.exists(), "its process lives"
    used.close()
    assert list(temporary.iterdir()) == []


def test_what_is_none_of_ours_stays(temporary):
    (temporary / "lab-notes").mkdir()
    (temporary / "lab-file").write_text("mine")
    (temporary / "elsewhere").mkdir()
    (temporary / "elsewhere" / folders.IN_USE).touch()
    (temporary / "lab-link").symlink_to("elsewhere")
    before = sorted(temporary.rglob("*"))
    remove_left_behind()
    assert sorted(temporary.rglob("*")) == before


def test_a_deep_folder_is_removed(tmp_path):
    """Deeper than Python's own function goes."""
    top = tmp_path / "top"
    top.mkdir()
    here = os.getcwd()
    try:
        os.chdir(top)
        for _ in range(3000):
            os.mkdir("a")
            os.chdir("a")
    finally:
        os.chdir(here)
    remove(top)
    assert not top.exists()
