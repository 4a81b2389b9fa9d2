"""Take the README's pictures of the running lab, in Chromium.

    docs/lab.png      lesson 01 in JupyterLab, with a slider moved
    docs/check.png    what a check says about a wrong answer
    docs/result.png   the comparison of lesson 04

`make pictures` calls it. The README's alternative text says what a picture shows.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path

import in_browser
from in_browser import LabPage
from PIL import Image
from release import NOTEBOOKS, ROOT, SOLUTIONS, make_start_page

DOCS = ROOT / "docs"
MOST_BYTES = 150_000  # of a picture, as a README loads them all
WRONG_ANSWER = """\
def decompose(weight, norm_dim=1, eps=1e-8):
    magnitude = weight.norm(dim=1, keepdim=True).clamp_min(eps)
    return magnitude, weight / magnitude"""


def lab(lesson: LabPage) -> bytes:
    """Make DoRA's m smaller by ten steps of its slider; take the whole page."""
    lesson.run(lesson.index("from lab_utils import"))
    lesson.run(lesson.index("widgets.vector_explorer()"))
    lesson.picture()
    for _ in range(10):
        lesson.move(lesson.active.locator(".noUi-handle").last)
    return lesson.page.screenshot()


def check(lesson: LabPage) -> bytes:
    """Answer with a norm over the wrong axis; take the check's cell with its message."""
    lesson.run(lesson.index("from lab_utils import"))
    exercise = lesson.index("def decompose(")
    lesson.type(exercise, WRONG_ANSWER)
    lesson.run(exercise)
    test = lesson.index('checks.check_decompose(decompose, "columns")')
    lesson.run(test)
    lesson.select(exercise)
    top = lesson.active.bounding_box()
    lesson.page.evaluate(
        "it => window.jupyterapp.shell.currentWidget.content.activeCellIndex = it", test
    )
    bottom = lesson.active.bounding_box()
    height = bottom["y"] + bottom["height"] - top["y"]
    return lesson.page.screenshot(clip=top | {"height": height})


def result(lesson: LabPage) -> bytes:
    """Take the figure of final losses and paired differences."""
    lesson.select(lesson.index("plots.final_losses("))
    return lesson.outputs.locator("img").screenshot()


def save(picture: bytes, path: Path) -> None:
    """Write a PNG with a palette of 256 colours, to keep it small.

    Raises:
        ValueError: it is too large for a README.
    """
    small = io.BytesIO()
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    palette = image.quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette.save(small, "PNG", optimize=True)
    if len(small.getvalue()) > MOST_BYTES:
        raise ValueError(f"{path} would have {len(small.getvalue())} bytes, above {MOST_BYTES}")
    path.write_bytes(small.getvalue())
    print(f"{path.relative_to(ROOT)}: {image.width} x {image.height}, {path.stat().st_size} bytes")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, in_browser.chromium() as browser:
        where, arguments = in_browser.make_lab()
        start = Path(folder, where)
        lessons = start / NOTEBOOKS.name
        shutil.copytree(NOTEBOOKS, lessons)
        make_start_page(start)
        shutil.copy(SOLUTIONS / "04-head-to-head.ipynb", lessons)  # solved, with its outputs
        window = browser.new_context(viewport=in_browser.VIEWPORT)
        with in_browser.serve(start, *arguments, in_browser.EXPOSE) as server:
            lesson = LabPage(window, server, start)
            for take, name in (
                (lab, "01-mathematics"),
                (check, "01-mathematics"),
                (result, "04-head-to-head"),
            ):
                lesson.open(lessons / f"{name}.ipynb")
                save(take(lesson), DOCS / f"{take.__name__}.png")
            lesson.shut_down()


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as missing:
        sys.exit(str(missing))
