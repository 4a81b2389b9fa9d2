"""What students wrote is shown without doing anything: file names, last words, ids."""

import csv
import io
import logging
import os

import pytest
from classroom import folder_of, hand_in, make_course, run, solutions

from lab_grader.plain import MOST_CHARACTERS, PlainLog, csv_cell, plain, say

HARMFUL = {
    "colour": ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
    "title": ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
    "clear": ("\x1bc", "\\x1bc"),
    "8-bit-escape": ("\x9b2J", "\\x9b2J"),
    "line": ("a\nbob   10", "a\\nbob   10"),
    "return": ("a\rbob", "a\\rbob"),
    "backspace": ("a\x08b", "a\\x08b"),
    "next-line": ("a\x85b", "a\\x85b"),
    "line-separator": ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
    "right-to-left": ("a\u202etxt.exe", "a\\u202etxt.exe"),
    "isolate": ("\u2066a\u2069", "\\u2066a\\u2069"),
    "zero-width": ("a\u200bb", "a\\u200bb"),
    "half-an-emoji": ("a\ud83d", "a\\ud83d"),
    "no-utf-8": (os.fsdecode(b"caf\xe9"), "caf\\udce9"),
    "nothing": ("\0", "\\x00"),
}


@pytest.mark.parametrize("kind", HARMFUL)
def test_harmful_characters_are_shown(kind):
    given, shown = HARMFUL[kind]
    assert plain(given) == shown
    assert plain(plain(given)) == shown


def test_what_people_write_stays():
    for text in (
        "Ada Lovelace",
        "Łukasz Żak",
        "王小明",
        "عمر",
        "👍",
        "a  b",
        r"C:\notes",
        "50 % – ok",
    ):
        assert plain(text) == text


def test_a_long_text_is_cut():
    assert plain("x" * 10**6) == "x" * MOST_CHARACTERS + "… (1000000 characters)"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_say_prints_in_any_encoding_one_line_a_text(encoding):
    buffer = io.BytesIO()
    file = io.TextIOWrapper(buffer, encoding=encoding, newline="\n")
    say(["王\n小", "\x1b[2J", "\udce9"], file)
    file.flush()
    printed = buffer.getvalue()
    assert printed.count(b"\n") == 3
    assert not any(byte < 32 and byte != 10 for byte in printed)
    assert b"\\n" in printed


FORMULAS = ("=1+1", "=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1", " =1")


@pytest.mark.parametrize("text", [*FORMULAS, "＝1", "﹣1", "|x", "%x"])
def test_no_formula_stands_in_a_table(text):
    cell = csv_cell(text)
    assert cell.startswith("'")
    table = io.StringIO()
    csv.writer(table).writerow([cell])
    assert len(list(csv.reader(io.StringIO(table.getvalue())))) == 1


def test_numbers_and_names_stay_in_a_table():
    for value in (-1.5, 3, None, "ada", "17", "a=b", "O'Brien", "ada@uni.example", ""):
        assert csv_cell(value) == value


def test_a_log_is_plain():
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "no %s\nTraceback", ("\x1b[2J\r",), None)
    assert PlainLog().filter(record)
    assert record.getMessage() == "no \\x1b[2J\\r\n    Traceback"


# Each would run `evil.py`, or upset the grader, if the name of the other file were imported.
MODULES = (
    "grading.submitted.eve.dora.evil.x.py",
    "evil.x.py",
    "helper.v2.py",
    ".hidden.py",
    "..py",
    "grading.py",
    "no module.py",
    "torch.py",
    "torch.x.py",
    "dora/evil.py",
    ".ipynb_checkpoints/helper-checkpoint.py",
    "__main__.py",
    "sitecustomize.py",
    "\x1b[2Jmy.notes\n17: fine.py",
)


def test_no_name_of_a_file_runs_or_is_printed_as_it_is(tmp_path):
    course = make_course(tmp_path / "course")
    hand_in(course, "eve", solutions())
    folder = folder_of(course, "eve")
    mark = tmp_path / "it-ran"
    for name in (*MODULES, "evil.py", "__init__.py", os.fsdecode(b"caf\xe9.py")):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"open({str(mark)!r}, 'w')")
    done = run(course, "lab_grader", "vet", "dora")
    assert not mark.exists()
    assert "torch.py is left out: it would shadow the module torch" in done.stdout
    assert "helper.v2.py is left out: not graded" in done.stdout
    assert "\\x1b[2Jmy.notes\\n17: fine.py is left out" in done.stdout
    assert all(line.startswith("eve: ") for line in done.stdout.splitlines())
