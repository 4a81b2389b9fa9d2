"""SECURITY.md names a test for each wall and limit, and each of them is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_is_named_exists():
    named = set(re.findall(r"test_\w+(?:\.py)?", (ROOT / "SECURITY.md").read_text()))
    files = list((ROOT / "tests").rglob("test_*.py"))
    known = {path.name for path in files}
    for path in files:
        known |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
    assert len(named) > 20
    assert named <= known, named - known
