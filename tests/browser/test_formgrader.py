"""An instructor's evening in Formgrader: release, grade by its button, mark by hand; regrade."""

import shutil

import classroom
import in_browser
import pytest
import release

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is missing")

LESSON = "07-rslora-challenge"
ANSWER = "Alpha stayed fixed, so alpha / rank fell eightfold: log the gradient norms first."
# Formgrader's page of a submission loads MathJax from the network, which a test must not need.
# This is what the page calls of it, and typesets nothing.
MATHJAX = """window.MathJax = {Hub: {
    Config() {}, Queue() {}, Startup: {signal: {Interest: tell => tell('End')}}
}}"""


class Formgrader:
    """Formgrader in JupyterLab, as its menu opens it."""

    def __init__(self, context, server):
        url, token = server
        self.page = context.new_page()
        self.page.goto(f"{url}/lab/workspaces/formgrader?reset&token={token}")
        self.page.locator('.lm-MenuBar-itemLabel:text-is("Nbgrader")').click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text("Formgrader", exact=True).click()
        self.frame = self.page.frame_locator(".jp-IFrame iframe")
        self.table = self.frame.locator("#main-table")

    def follow(self, *links):
        for name in links:
            self.frame.get_by_role("link", name=name, exact=True).click()

    def generate(self):
        """Press Generate in the row of the assignment; return what the dialog says."""
        self.table.locator(".assign a").click()
        dialog = self.frame.locator(".modal-dialog")
        said = dialog.locator(".modal-body > div > p")
        said.wait_for(timeout=60_000)
        text = said.inner_text()
        dialog.get_by_role("button", name="Close").first.click()
        dialog.wait_for(state="hidden")
        return text

    def autograde(self):
        """Press the button of the only student in Manage Submissions; return what is said."""
        self.submissions()
        self.table.locator(".autograde a").click()
        dialog = self.frame.locator(".modal-dialog")
        said = dialog.locator(".modal-body > div > p")
        said.wait_for(timeout=300_000)
        text = said.inner_text()
        dialog.get_by_role("button", name="Close").first.click()
        dialog.wait_for(state="hidden")
        return text

    def submissions(self):
        """Return the row of the only student in Manage Submissions."""
        self.follow("Manual Grading", "Manage Assignments")
        self.table.locator(".num-submissions a").click()
        return self.row("ada")

    def open_submission(self):
        """Open the notebook of the only student; return its row in Manual Grading."""
        self.follow("Manual Grading", "dora", LESSON)
        row = self.row("Submission #1")
        self.follow("Submission #1")
        for loaded in (".extra-credit[placeholder]", ".comment[placeholder]"):  # one answer each
            self.frame.locator(loaded).first.wait_for(state="attached")
        return row

    def row(self, text):
        row = self.table.locator("tr").filter(has_text=text)
        row.wait_for()
        return row.inner_text().split("\t")

    def points(self, grade_id):
        """Return the points that the checks gave, and those given by hand."""
        field = self.frame.locator(f"#{grade_id}")
        return field.get_attribute("placeholder"), field.input_value()

    def fill(self, field, text):
        """Write a mark or a comment, go on, and wait until it is stored."""
        self.frame.locator(field).fill(text)
        with self.page.expect_request_finished(
            lambda sent: sent.method == "PUT" and "/formgrader/api/" in sent.url
        ):
            self.frame.locator(field).blur()


def half_right():
    answers = classroom.solutions(LESSON) | {"plan": ANSWER}
    right = answers["gradient-norms"]
    wrong = right.replace("rank_stabilized=rank_stabilized", "rank_stabilized=False")
    assert wrong != right
    return answers | {"gradient-norms": wrong}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course that nothing was released of."""
    return classroom.write_course(tmp_path_factory.mktemp("term") / "course", lessons=[LESSON])


@pytest.fixture(scope="module")
def server(chromium, course):
    with in_browser.serve(course, "lab") as address:
        yield address


def test_release_grade_and_mark_by_hand(context, server, course):
    context.route("https://**/mathjax/**", lambda route: route.fulfill(body=MATHJAX))

    formgrader = Formgrader(context, server)
    assert formgrader.row("dora")[0].strip() == "dora"
    assert formgrader.generate() == "Successfully created the student version of 'dora':"
    released = course / "notebooks" / "dora" / f"{LESSON}.ipynb"
    assert released.read_text() == (release.NOTEBOOKS / released.name).read_text()

    mark = course / "it-ran"
    answers = half_right()
    answers["plan"] += f"\n\n<script>document.title = '{mark}'</script>"
    outside = f"import pathlib\ntry: pathlib.Path({str(mark)!r}).touch()\nexcept OSError: pass\n"
    answers["gradient-norms"] = outside + answers["gradient-norms"]
    classroom.hand_in(course, "ada", answers, LESSON)
    assert "Success" in formgrader.autograde()
    assert not mark.exists(), "the button runs students' code in the sandbox"
    row = formgrader.submissions()
    assert row[3:5] == ["needs manual grading", "4 / 10"]

    row = formgrader.open_submission()
    assert row[2:5] == ["4 / 10", "4 / 6", "0 / 4"]
    assert formgrader.points("norms-usual") == ("2", "")
    assert formgrader.points("norms-stabilized") == ("0", "")
    cells = formgrader.frame.locator(".cell")
    said = cells.filter(has=formgrader.frame.locator("#norms-stabilized")).inner_text()
    assert "FAIL" in said and "Known mistake: rank_stabilized ignored." in said
    page = formgrader.frame.locator("#notebook-container").first.inner_text()
    assert ANSWER in page and "Runs that separate the causes" in page, "the answer and its rubric"

    formgrader.fill("#plan", "2.5")
    formgrader.fill("#plan-comment", "Which runs?")
    assert formgrader.submissions()[3:5] == ["graded", "6.5 / 10"]

    classroom.grade(course, "--again")
    formgrader = Formgrader(context, server)
    row = formgrader.open_submission()
    assert row[2:5] == ["6.5 / 10", "4 / 6", "2.5 / 4"]
    assert formgrader.points("plan") == (None, "2.5")
    assert formgrader.frame.locator("#plan-comment").input_value() == "Which runs?"
