"""A disk that is full while a class is graded: one sentence, and nothing is lost."""

import shutil
import subprocess

import classroom
import pytest


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 6 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")
def test_a_full_disk_is_one_sentence_and_the_next_call_goes_on(small_disk):
    course = classroom.make_course(small_disk / "course")
    for student in ("ada", "bob"):
        folder = course / "grading" / "submitted" / student / "dora"
        folder.mkdir(parents=True)
        shutil.copy(course / "notebooks" / "dora" / "01-mathematics.ipynb", folder)
    filler = small_disk / "filler"
    with pytest.raises(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    done = classroom.grade(course, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("lab_grader: the disk is full.")

    filler.unlink()
    done = classroom.grade(course)
    assert "Nothing needs your attention." in done.stdout
