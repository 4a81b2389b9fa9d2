"""A student's first hour: lesson 01 from the first click to the last check."""

import nbformat
import release

SOLUTION = nbformat.read(release.SOLUTIONS / "01-mathematics.ipynb", as_version=4)


def answer(grade_id):
    """Return what the solution writes into an exercise."""
    cells = (cell for cell in SOLUTION.cells if "nbgrader" in cell.metadata)
    return next(cell.source for cell in cells if cell.metadata.nbgrader.grade_id == grade_id)


def test_a_student_works_through_it(lesson, folder):
    lesson.open(folder / "notebooks" / "dora" / "01-mathematics.ipynb")
    assert not lesson.page.get_by_text("Create Assignment").count(), "no student's business"
    first_check = lesson.index("checks.check_decompose(")

    out_of_order = lesson.index("plots.decomposition(weight)")
    lesson.run(out_of_order)
    assert "“# Set-up: run this cell first. " in lesson.said(out_of_order)

    lesson.menu("Run", "runmenu:run-all")
    lesson.wait_for_error(first_check)
    counts = lesson.counts()
    before = [i for i in range(first_check) if lesson.cells[i].cell_type == "code"]
    assert all(counts[i] for i in before), "Run All stops before the first exercise"
    assert not any(counts[first_check + 1 :]), "Run All goes on after a check that failed"
    assert "is not written yet: write it in place of line" in lesson.said(first_check)

    exercise = lesson.index("def decompose(")
    right = answer("decompose")
    wrong = right.replace("norm(dim=norm_dim", "norm(dim=1 - norm_dim")
    assert wrong != right
    lesson.type(exercise, wrong)
    lesson.run(exercise)
    lesson.run(first_check)
    said = lesson.said(first_check)
    assert "✗ FAIL magnitude" in said and "0 of 2 points" in said
    assert "Known mistake: norm over the wrong axis." in said
    assert "See the section “3. Decompose a matrix that you can see”" in said
    assert "Traceback" not in said
    lesson.active.get_by_role("link", name="3. Decompose a matrix").click()
    lesson.page.wait_for_function(
        """() => [...document.querySelectorAll('h2')].some(it => {
            const top = it.getBoundingClientRect().top;
            return it.innerText.startsWith('3. Decompose') && top > 0 && top < innerHeight;
        })"""
    )

    lesson.type(exercise, right)
    lesson.run(exercise)
    lesson.run(first_check)
    said = lesson.said(first_check)
    assert "✓ ok magnitude" in said and "2 of 2 points" in said
    assert "FAIL" not in said and "CheckFailed" not in said

    said = lesson.validate()
    assert "check_recompose" in said and "check_count_trainable" in said
    assert "check_decompose" not in said

    explorer = lesson.index("widgets.vector_explorer()")
    lesson.run(explorer)
    handles = lesson.active.locator(".noUi-handle")
    lesson.picture()
    assert handles.count() == 3
    for handle in handles.all():
        lesson.move(handle)
    lesson.assert_fits()

    lesson.menu("Run", "runmenu:restart-and-run-all")
    lesson.page.locator(".jp-Dialog .jp-mod-accept").click()
    second = lesson.index("checks.check_recompose(")
    lesson.wait_for_error(second)
    assert "is not written yet" in lesson.said(second)
    assert "FAIL" not in lesson.said(first_check)

    for name, grade_id in (("def recompose(", "recompose"), ("def count_t", "count-trainable")):
        lesson.type(lesson.index(name), answer(grade_id))
    assert "Success! Your notebook passes all the tests." in lesson.validate()

    overview = lesson.index("progress.overview()")  # of what Validate saved
    lesson.executed = max(count or 0 for count in lesson.counts())
    lesson.run(overview)
    said = lesson.said(overview)
    assert "✓\xa0decompose" in said and "✗\xa0recompose" in said
