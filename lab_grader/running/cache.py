"""Results of executed submissions, kept by the hash of all that decides them."""

import hashlib
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from lab_grader.running.environment import everything
from lab_grader.running.job import FailedTest, Job, Result


def key_of(job: Job) -> str:
    """Return the hash of a job and of the code that will run it."""
    digest = hashlib.sha256()
    for name, version in sorted(everything().items()):
        digest.update(f"{name} {version}\n".encode())
    described = asdict(job) | {"files": sorted(job.files)}
    digest.update(json.dumps(described, sort_keys=True).encode())
    for name in sorted(job.files):
        digest.update(hashlib.sha256(job.files[name]).digest())
    return digest.hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all, whenever the power goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _written(result: Result) -> str:
    """Return what a file holds: the hash of the result's text, and on the next line that text."""
    text = json.dumps(asdict(result))
    return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def _read(written: bytes) -> Result:
    """Return the result that a file holds.

    Raises:
        ValueError, TypeError, KeyError: it contains no result, or only a part of one.
    """
    digest, _, text = written.partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        raise ValueError("it is damaged, or of another version")
    found = json.loads(text)
    return Result(**found | {"failed": [FailedTest(**one) for one in found["failed"]]})


class Cache:
    """A folder with a file for each result."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: str) -> Result | None:
        """Return the result of a key, or None if there is no usable one.

        A line on stderr says so if a file was cut short or written by another version; its
        submission is then executed again.
        """
        path = self.folder / f"{key}.json"
        try:
            return _read(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            print(
                f"lab_grader: {path} cannot be used ({error}); the submission is executed again.",
                file=sys.stderr,
            )
            return None

    def store(self, key: str, result: Result) -> None:
        """Keep a result."""
        write_atomically(self.folder / f"{key}.json", _written(result))
