"""What a check shows in an open notebook: the same lines, with colours, points and a link."""

import pytest
from IPython.core.interactiveshell import InteractiveShell
from torch import nn

from lab_utils import checks
from lab_utils.checks import page


@pytest.fixture
def displayed(monkeypatch):
    """What is displayed, as if a notebook were open."""
    pages = []
    monkeypatch.setattr(page, "_is_open", lambda: True)
    monkeypatch.setattr(page, "display", pages.append)
    return pages


def right(weight, norm_dim=1, eps=1e-8):
    magnitude = weight.norm(dim=norm_dim, keepdim=True)
    return magnitude, weight / magnitude.clamp_min(eps)


def over_the_other_dimension(weight, norm_dim=1, eps=1e-8):
    return right(weight, 1 - norm_dim, eps)


def test_a_check_that_passes(displayed, capsys):
    checks.check_decompose(right, "rows")
    (shown,) = displayed
    assert not capsys.readouterr().out
    html = shown._repr_html_()
    assert "✓ ok" in html and "FAIL" not in html
    assert "  ok    " in repr(shown) and "<" not in repr(shown)


def test_a_check_that_fails_names_the_mistake_and_leads_to_its_section(displayed):
    with pytest.raises(checks.CheckFailed) as failed:
        checks.check_decompose(over_the_other_dimension, "rows")
    (shown,) = displayed
    html = shown._repr_html_()
    assert "✗ FAIL" in html and "Known mistake: norm over the wrong axis." in html
    assert 'href="#3.-Decompose-a-matrix-that-you-can-see"' in html
    assert len(failed.value._render_traceback_()) == 1, "it stands on the page already"
    assert "Known mistake" in str(failed.value), "and whole in what nbgrader keeps"


def test_an_error_is_told_once_and_by_what_is_known_of_it(displayed):
    def no_keepdim(weight, norm_dim=1, eps=1e-8):
        magnitude = weight.norm(dim=norm_dim)
        return magnitude, weight / magnitude

    def misspelt(weight, norm_dim=1, eps=1e-8):
        return wieght.norm(dim=norm_dim), weight  # noqa: F821

    for wrong in (no_keepdim, misspelt):
        with pytest.raises(checks.CheckFailed):
            checks.check_decompose(wrong, "rows")
    known, usual = displayed
    for shown in displayed:
        for told in (repr(shown), shown._repr_html_()):
            assert told.count(" raised ") == 1
    assert "Known mistake: summed dimension dropped." in repr(known)
    assert "The usual cause" not in repr(known), "where the mistake is known"
    assert "The usual cause is a name that is spelt in two ways" in repr(usual)


def test_code_above_a_raise_that_was_left(displayed):
    def left(weight, norm_dim=1, eps=1e-8):
        """Split."""
        weight = weight.norm()
        raise NotImplementedError()

    def blank(weight, norm_dim=1, eps=1e-8):
        """Split."""
        # YOUR CODE HERE
        raise NotImplementedError()

    with pytest.raises(checks.CheckFailed, match=r"code stands above its line .* delete that line"):
        checks.check_decompose(left, "rows")
    with pytest.raises(checks.CheckFailed, match="is not written yet: write it in place of"):
        checks.check_decompose(blank, "rows")
    assert "raise NotImplementedError()" in displayed[0]._repr_html_()

    class Blank(nn.Module):
        """A layer."""

        def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
            super().__init__()
            # YOUR CODE HERE
            raise NotImplementedError()

    with pytest.raises(checks.CheckFailed, match="is not written yet: write it in place of"):
        checks.check_lora_layer(Blank, "start")


def test_what_a_student_wrote_is_no_html(displayed):
    def loud(weight, norm_dim=1, eps=1e-8):
        print("<script>alert(1)</script>")
        raise ValueError("<img src=x onerror=alert(2)>")

    with pytest.raises(checks.CheckFailed):
        checks.check_decompose(loud, "rows")
    html = displayed[0]._repr_html_()
    assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html


def test_elsewhere_a_check_prints_plain_lines(monkeypatch, capsys):
    monkeypatch.setattr(page, "display", lambda shown: pytest.fail("this is no open notebook"))
    monkeypatch.setenv("JPY_SESSION_NAME", "/somewhere/01.ipynb")
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
    checks.check_decompose(right, "rows")
    assert capsys.readouterr().out.startswith("decompose · rows")


def test_what_fails_is_not_lost_among_what_holds():
    hold = [f"  ok    property {number}" for number in range(9)]
    lines = ["exercise · aspect", "printed", *hold, "  FAIL  the tenth"]
    many = page.Page(lines, "", None)._repr_html_()
    folded = many[many.index("<details>") : many.index("</details>")]
    assert "9 properties hold" in folded and all(line[8:] in folded for line in hold)
    assert "the tenth" not in folded and "✗ FAIL" in many and "printed" not in folded
    few = page.Page(["exercise · aspect", *hold[:8], "  FAIL  the ninth"], "", None)._repr_html_()
    assert "<details>" not in few and few.count("✓ ok") == 8


def test_the_title_comes_first_whatever_the_students_code_prints_before_it(displayed, ran):
    def loud(weight, norm_dim=1, eps=1e-8):
        print(weight.shape)
        return right(weight, norm_dim, eps)

    lines = ["tensor(1.)", "decompose · rows · weight (3, 5)", "tensor(2.)", "  ok    lengths"]
    both = page.Page([*lines, "decompose · columns", "  ok    shapes"], "", None)
    assert repr(both).splitlines() == [lines[1], lines[0], *lines[2:], *repr(both).splitlines()[4:]]
    html = both._repr_html_()
    assert html.index("decompose · rows") < html.index("tensor(1.)") < html.index("lengths")
    assert html.index("lengths") < html.index("decompose · columns") < html.index("shapes")
    assert html.count("font-weight: bold") == 2
    ran.append("def decompose(weight)")
    checks.check_decompose(loud, "rows")
    assert "syntax error" in repr(displayed[0])


def test_what_the_students_code_prints_hides_nothing_and_halts_no_browser():
    printed = [f"step {number}" for number in range(100_000)]
    told = page.Page([*printed, "exercise · aspect", "  FAIL  a property"], "", None)
    html = told._repr_html_()
    folded = html[html.index("<details>") : html.index("</details>")]
    assert "100,000 lines that your code printed" in folded and "step 0\n" in folded
    assert "✗ FAIL" not in folded and "✗ FAIL" in html
    assert len(html) < 10_000 and "99500 more lines" in html and len(repr(told)) < 10_000


def test_a_long_line_of_the_students_is_seen_whole_and_code_in_a_sentence_is_marked(displayed):
    def long_line(weight, norm_dim=1, eps=1e-8):
        return np.array([weight, weight, weight]), weight.norm(dim=norm_dim), "<b>" * 20  # noqa: F821

    with pytest.raises(checks.CheckFailed):
        checks.check_decompose(long_line, "rows")
    html = displayed[0]._repr_html_()
    assert "white-space: pre;" not in html and "overflow-x" not in html
    assert "<code>import numpy as np</code>" in html and "`" not in html and "<b>" not in html


@pytest.fixture
def ran(monkeypatch):
    """The cells that were run, in a shell of their own."""
    shell = InteractiveShell()
    monkeypatch.setattr(page, "get_ipython", lambda: shell)
    yield shell.history_manager.input_hist_raw
    shell.history_manager.end_session()


def test_a_version_that_is_no_python_is_not_taken_for_the_one_that_is_checked(displayed, ran):
    ran += ["def decompose(weight):\n    return 1", "def decompose(weight)\n    return 2"]
    checks.check_decompose(right, "rows")
    ran += ["%timeit 1\ndef decompose(weight):\n    return 3", "1 +"]
    checks.check_decompose(right, "rows")
    before, after = displayed
    for told in (repr(before), before._repr_html_()):
        assert "The last cell with decompose that you ran has a syntax error" in told
    assert "syntax error" not in after._repr_html_(), "of that name, and of no other cell"


def test_a_long_sentence_is_broken_between_words_and_the_students_lines_stay_whole():
    """Validate's window is some 110 characters wide, and cuts off the rest of a line."""
    own = "in decompose, line 2:  " + "magnitude = " + "weight, " * 20
    text = (
        "decompose(weight of (3, 5)): "
        + "expected finite numbers, found NaN " * 5
        + "\nWhy.\n\nSo."
    )
    code, *said = checks.CheckFailed(text, [own])._render_traceback_()
    assert code == own
    assert max(map(len, said)) <= 100
    assert " ".join(" ".join(said).split()) == " ".join(f"CheckFailed: {text}".split())
    assert said[-3:] == ["Why.", "", "So."]
