"""A kept result is used if it is whole; else its submission is executed anew, and that is said."""

import errno
import os
from pathlib import Path
from unittest import mock

import pytest

from lab_grader import command_line as program
from lab_grader.running import cache as cache_module
from lab_grader.running.cache import Cache, key_of
from lab_grader.running.environment import everything
from lab_grader.running.job import Job, Result

RESULT = Result(
    {"01-mathematics": [None, [{"output_type": "stream", "name": "stdout", "text": "ä"}]]}, ["x"]
)
KEY = "0" * 64


@pytest.fixture
def cache(tmp_path):
    made = Cache(tmp_path)
    made.store(KEY, RESULT)
    return made


def test_what_was_kept_is_loaded(cache, capsys):
    assert cache.load(KEY) == RESULT
    assert cache.load("1" * 64) is None
    assert capsys.readouterr().err == ""


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def empty(path):
    path.write_bytes(b"")


def changed(path):
    path.write_bytes(path.read_bytes().replace(b"stdout", b"stderr"))


def older(path):
    path.write_bytes(path.read_bytes().split(b"\n")[1])


def other_fields(path):
    import hashlib

    text = b'{"results": {}}'
    path.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def binary(path):
    path.write_bytes(bytes(range(256)))


@pytest.mark.parametrize("damage", [cut, empty, changed, older, other_fields, binary])
def test_what_is_damaged_counts_as_not_there(cache, capsys, damage):
    damage(cache.folder / f"{KEY}.json")
    assert cache.load(KEY) is None
    assert "executed again" in capsys.readouterr().err


def test_the_key_depends_on_every_package_and_file(monkeypatch):
    job = Job({}, {})
    before = key_of(job)
    assert key_of(job) == before
    names = {"Python", "peft", "transformers", "scipy", "safetensors", "joblib"}
    names |= {"lab_utils/questions/layers.py", "lab_grader/wire/inside.py"}
    assert names <= set(everything())
    assert any(name.startswith("lab_utils/pretrained/") for name in everything())
    for name in names:
        other = everything() | {name: "4"}
        monkeypatch.setattr(cache_module, "everything", lambda other=other: other)
        assert key_of(job) != before


def test_a_damaged_file_is_replaced(cache):
    cut(cache.folder / f"{KEY}.json")
    cache.store(KEY, RESULT)
    assert cache.load(KEY) == RESULT


def test_a_full_disk_leaves_no_half_file_and_one_sentence(cache, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/where")

    monkeypatch.setattr(os, "fsync", full)
    before = sorted(Path(cache.folder).iterdir())
    with pytest.raises(OSError, match="No space left"):
        cache.store("2" * 64, RESULT)
    assert sorted(Path(cache.folder).iterdir()) == before
    monkeypatch.setattr(program, "run", lambda _: cache.store("2" * 64, RESULT))
    with (
        mock.patch.dict(os.environ),  # some of which it forgets
        pytest.raises(SystemExit, match=r"^lab_grader: the disk is full \(/some/where\)"),
    ):
        program.main()
