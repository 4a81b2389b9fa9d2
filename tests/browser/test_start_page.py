"""The way in: the page that `make lab` opens, and a look that changes nothing."""

import re

import nbformat
import release

CHANGED = "() => window.jupyterapp.shell.currentWidget.context.model.dirty"


def test_make_lab_opens_the_start_page(context, server, lesson):
    """With the map of the lessons, from which one comes to a lesson, an exercise, and back."""
    url, token = server
    where = re.search(r"jupyter\" lab (\S+)", (release.ROOT / "Makefile").read_text())[1]
    page = context.new_page()
    page.goto(f"{url}/lab/tree/{where}?reset&token={token}")
    page.wait_for_function("() => window.jupyterapp?.restored.then(() => true)")
    table = page.locator(".jp-OutputArea-output table")
    table.wait_for()
    rows = table.locator("tbody tr").all_inner_texts()
    lessons = sorted(release.NOTEBOOKS.glob("*.ipynb"))
    assert [row[:2] for row in rows] == [*(path.name[:2] for path in lessons), "al"]
    total = sum(
        cell.metadata.get("nbgrader", {}).get("points", 0)
        for path in lessons
        for cell in nbformat.read(path, 4).cells
        if cell.cell_type == "code"
    )
    assert f"0 of {total}" in rows[-1]
    picture = page.locator(".jp-OutputArea-output img").first
    assert picture.is_visible()
    ground = """it => {
        const canvas = new OffscreenCanvas(1, 1).getContext('2d');
        canvas.drawImage(it, 0, 0);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    }"""
    assert picture.evaluate(ground) == [0, 0, 0, 0], "the ground of the page, dark or light"

    for name in page.locator(".jp-DirListing-itemText").all():
        seen, needed = name.evaluate("it => [it.clientWidth, it.scrollWidth]")
        assert needed <= seen, "a name in the list of files is cut off"

    table.get_by_role("link", name="recompose").click()
    page.wait_for_function(
        """() => {
            const {context, content} = window.jupyterapp.shell.currentWidget;
            const there = cell => cell.model.sharedModel.source.startsWith('def recompose(');
            const cell = content.widgets.find(there);
            const top = cell?.node.getBoundingClientRect().top;
            return context.path === 'dora/01-mathematics.ipynb'
                && -innerHeight < top && top < innerHeight;
        }"""
    )
    page.close()


def test_a_look_changes_nothing(lesson, folder):
    for path in [
        *(folder / "notebooks").glob("0*.ipynb"),
        *(folder / "notebooks" / "dora").glob("0*.ipynb"),
    ]:
        before = path.read_bytes()
        lesson.open(path)
        lesson.page.wait_for_function("() => window.jupyterapp.shell.currentWidget.context.isReady")
        lesson.page.wait_for_timeout(500)  # the kernel says what it is
        assert not lesson.page.evaluate(CHANGED), path.name
        lesson.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        lesson.page.wait_for_timeout(300)
        assert path.read_bytes() == before, path.name


def test_a_saved_explorer_is_a_picture_the_next_day(lesson, folder):
    path = folder / "notebooks" / "dora" / "01-mathematics.ipynb"
    before = path.read_bytes()
    lesson.open(path)
    lesson.run(lesson.index("from lab_utils import"))
    explorer = lesson.index("widgets.vector_explorer()")
    lesson.run(explorer)
    lesson.picture()
    lesson.move(lesson.active.locator(".noUi-handle").first)
    last = lesson.active.locator(".jupyter-widgets img").get_attribute("alt")
    quiz = lesson.index("quiz.which_mistake(")
    lesson.run(quiz)
    lesson.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    lesson.select(explorer)
    assert lesson.active.locator(".jupyter-widgets img").count(), "it still moves"

    lesson.open(path)
    for cell, shows in ((explorer, "img"), (quiz, "details")):
        lesson.select(cell)
        lesson.outputs.locator(shows).first.wait_for()
        assert "Error displaying widget" not in lesson.said(cell)
    lesson.select(explorer)
    assert lesson.outputs.locator("img").get_attribute("alt") == last, "as it was dragged"
    path.write_bytes(before)
