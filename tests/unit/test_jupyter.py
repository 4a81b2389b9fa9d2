"""What the lab changes in JupyterLab: a kernel that is the same everywhere, and what is saved."""

import copy
import json
import os
import subprocess
import sys

import nbformat
import release
from ipykernel.kernelspec import write_kernel_spec

from lab_utils import jupyter
from lab_utils.saved import cells_around


def model(*outputs):
    cells = [{"cell_type": "markdown", "source": ""}, {"cell_type": "code", "outputs": [*outputs]}]
    return {"type": "notebook", "content": {"cells": cells, "metadata": {"widgets": {}}}}


def output(**data):
    return {"output_type": "display_data", "data": data, "metadata": {}}


def saved(*outputs):
    made = model(*copy.deepcopy(outputs))
    jupyter.save_pictures(model=made, path="a.ipynb")
    assert "widgets" not in made["content"]["metadata"]
    return made["content"]["cells"][1]["outputs"]


def test_a_widget_with_a_picture_beside_it_is_saved_as_the_picture():
    explorer = output(**{jupyter.VIEW: {"model_id": "1"}, "image/png": "abc", "text/plain": "A."})
    assert saved(explorer) == [output(**{"image/png": "abc", "text/plain": "A."})]


def test_what_is_saved_of_an_explorer_is_what_it_shows_now():
    def picture(name, after=""):
        return {
            "image/png": name,
            "text/html": f"<img alt='{name}'>{after}",
            "text/plain": name + after.replace("<p>", "\n").replace("</p>", ""),
        }

    controls = "<p>Its control: slope.</p>"
    first = output(**{jupyter.VIEW: {"model_id": "1"}}, **picture("first", controls))
    states = {
        "1": {"state": {"children": ["IPY_MODEL_2", "IPY_MODEL_3"]}},
        "2": {"state": {"description": "slope"}},
        "3": {"state": {"outputs": [output(**picture("last"))]}},
        "4": {"state": {"outputs": [output(**picture("another explorer's"))]}},
    }
    made = model(first)
    made["content"]["metadata"]["widgets"] = {jupyter.STATE: {"state": states}}
    jupyter.save_pictures(model=made, path="a.ipynb")
    assert made["content"]["cells"][1]["outputs"] == [output(**picture("last", controls))]


def test_a_progress_bar_is_not_saved_and_all_else_is():
    bar = output(**{jupyter.VIEW: {"model_id": "1"}, "text/plain": "  0%| | 0/93"})
    stream = {"output_type": "stream", "name": "stdout", "text": "hello"}
    error = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
    assert saved(bar, stream, error, output(**{"text/plain": "3"})) == [
        stream,
        error,
        output(**{"text/plain": "3"}),
    ]


def test_what_is_no_notebook_is_left_alone():
    text = {"type": "file", "content": "hello"}
    jupyter.save_pictures(model=text, path="a.txt")
    assert text == {"type": "file", "content": "hello"}


def test_what_the_kernel_says_is_what_is_released_and_names_no_version():
    assert release.METADATA["language_info"] == jupyter.Kernel.language_info
    assert "version" not in jupyter.Kernel.language_info


def test_an_error_says_which_cell_to_run_first():
    lesson = nbformat.read(release.NOTEBOOKS / "05-rank-and-magnitude.ipynb", 4).cells
    assert jupyter.cell_that_sets("checks", lesson).startswith("# Set-up: run this cell first.")
    assert jupyter.cell_that_sets("panels", lesson).startswith("# The table: ")
    assert jupyter.cell_that_sets("track_magnitude_changes", lesson).startswith("def track_mag")
    assert jupyter.cell_that_sets("weigth", lesson) == ""
    assert jupyter.cell_that_sets("rows", lesson) == "", "only of a function"
    own = ["%matplotlib inline\nx = 1", "x = (", "\n\nx, y = 1, 2", "for z in y: w = z", "", "\0"]
    own = [{"cell_type": "raw", "source": "x = 1"}] + [
        {"cell_type": "code", "source": source.splitlines(True)} for source in own
    ]
    assert jupyter.cell_that_sets("x", own) == "x, y = 1, 2"
    assert jupyter.cell_that_sets("w", own) == "for z in y: w = z"


def test_a_notebook_that_was_renamed_while_its_kernel_runs_is_found(tmp_path, monkeypatch):
    cells = [{"id": "a", "cell_type": "code", "source": "x = 1"}]
    (tmp_path / "renamed.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "another.ipynb").write_text(json.dumps({"cells": [{"id": "b"}]}))
    for name, odd in enumerate(("no notebook", "[]", '{"cells": 1}', '{"cells": [1]}', "\xe9")):
        (tmp_path / f"{name}.ipynb").write_bytes(odd.encode("latin-1"))
    (tmp_path / "folder.ipynb").mkdir()
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert cells_around("a") == []
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "lesson.ipynb"))
    assert cells_around("a") == cells and cells_around("c") == []


def configure(environment):
    """What Binder does, in an environment that is not this one."""
    python = environment / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@" {environment}\n')
    python.chmod(0o755)
    path = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    return subprocess.run(
        [release.ROOT / "postBuild"], cwd=release.ROOT, env=path, capture_output=True, text=True
    )


def test_an_environment_that_make_did_not_set_up_is_configured_by_one_command(tmp_path):
    spec = tmp_path / "share/jupyter/kernels/python3"
    write_kernel_spec(spec)  # as the package ipykernel brings it
    assert configure(tmp_path).returncode == 0
    argv = json.loads((spec / "kernel.json").read_text())["argv"]
    assert argv[-1] == "--IPKernelApp.kernel_class=lab_utils.jupyter.Kernel"
    assert "save_pictures" in (tmp_path / "etc/jupyter/jupyter_server_config.py").read_text()


def test_an_environment_without_a_kernel_is_named(tmp_path):
    done = configure(tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path} has no kernel python3" in done.stderr.splitlines()[-1]
