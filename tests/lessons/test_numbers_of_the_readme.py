"""The README's sizes and times, and lesson 01's arithmetic, are those of their sources."""

import math
import re

import pytest
import release
from prose import README, said, text_of

from lab_utils.models import load_pretrained

TEXT = text_of(README)
LESSONS = (release.ROOT / "benchmarks" / "lessons.txt").read_text("utf-8")
GRADING = (release.ROOT / "benchmarks" / "grading.txt").read_text("utf-8")


def number(pattern, text):
    found = re.search(pattern, text)
    assert found, pattern
    return float(found[1].replace(",", ""))


def test_the_size_of_the_tiny_language_model():
    size = f"{sum(parameter.numel() for parameter in load_pretrained().parameters()):,}"
    assert f"a tiny language model ({size} parameters)" in TEXT
    said("03-decomposition", f"four transformer blocks, {size} parameters")
    assert len(load_pretrained().blocks) == 4


def test_how_long_the_lessons_compute():
    slowest = max(map(float, re.findall(r"s +([\d.]+) s   ", LESSONS)))
    everything = number(r"all lessons +([\d.]+) s", LESSONS)
    assert f"{everything:.0f} s in all on 2 cores, the longest cell {slowest:.0f} s" in TEXT


def test_how_long_a_class_takes():
    """The first run of the file is the one that the README speaks of."""
    assert GRADING.index("--class 200") < GRADING.index("--class 20 ")
    took = number(r"The class took ([\d.]+) min", GRADING)
    each = number(r"lab_grader grade +([\d.]+) ", GRADING)
    faster = number(r"lab_grader is ([\d.]+) times as fast", GRADING)
    assert f"took {took:.1f} minutes, {each:.1f} s per submission: {faster:.0f} times as" in TEXT
    assert took * 60 / 200 == pytest.approx(each, abs=0.05)


def test_the_memory_of_a_submission():
    most = number(r"rest, ([\d,]+) MB at most", GRADING)
    assert f"each with up to {most / 1000:.1f} GB of memory" in TEXT


def test_what_lesson_01_counts():
    added = {rank: 4096 / (rank * 2 * 4096) for rank in (4, 32)}
    said(
        "01-mathematics",
        f"The same 4,096 at every rank: {added[4]:.1%} of LoRA's count at rank 4 and "
        f"{added[32]:.1%} at rank 32",
    )


def test_the_push_of_lesson_01_that_only_turns():
    said("01-mathematics", "(about 1.05 at 105°)")
    angle = math.radians(105)
    x, y = 2 + 1.05 * math.cos(angle), 1.05 * math.sin(angle)
    assert math.hypot(x, y) == pytest.approx(2, abs=0.01)
    assert math.degrees(math.atan2(y, x)) == pytest.approx(30, abs=0.5)
