"""Configure JupyterLab for the lab in an environment; `set_up.sh` calls it.

python scripts/configure.py          # the environment of this Python, as with conda and on Binder
python scripts/configure.py .venv
"""

import json
import sys
from pathlib import Path

KERNEL = "--IPKernelApp.kernel_class=lab_utils.jupyter.Kernel"
SERVER = """\
from lab_utils.jupyter import save_pictures

c.FileContentsManager.pre_save_hook = save_pictures
"""
# Formgrader takes its exporter from the folder that JupyterLab is started in, which may be another
# than the course's. A student's environment lacks what this imports.
NBGRADER = """\
from importlib.util import find_spec

if find_spec("nh3"):
    from lab_grader.marks import safe_html

    safe_html.configure(c)
"""
SETTINGS = {
    # At its first start JupyterLab would ask whether it may fetch news.
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false"},
    # What an explorer shows last is saved, too: see `lab_utils.jupyter.save_pictures`.
    "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True},
    # Room for the whole names of the lessons.
    "@jupyterlab/filebrowser-extension:browser": {"showLastModifiedColumn": False},
}
# Panels of nbgrader that the lab has no use for: lessons are written as text, and handed out and in
# by other ways than nbgrader's exchange.
PAGE = {
    "disabledExtensions": {
        "@jupyter/nbgrader:create-assignment": True,
        "@jupyter/nbgrader:assignment-list": True,
        "@jupyter/nbgrader:course-list": True,
    }
}


def configure(venv: Path) -> None:
    """Write the settings into an environment that has the kernel `python3`.

    Raises:
        FileNotFoundError: it has no such kernel.
        OSError: a file cannot be read or written.
    """
    spec = venv / "share/jupyter/kernels/python3/kernel.json"
    if not spec.exists():
        raise FileNotFoundError(
            f"{venv} has no kernel python3. Register one there: python -m ipykernel install "
            f"--prefix {venv} --name python3, then call this again."
        )
    kernel = json.loads(spec.read_text(encoding="utf-8"))
    if KERNEL not in kernel["argv"]:
        kernel["argv"].append(KERNEL)
    lab = venv / "share/jupyter/lab/settings"
    for path, text in (
        (spec, json.dumps(kernel, indent=1)),
        (venv / "etc/jupyter/jupyter_server_config.py", SERVER),
        (venv / "etc/jupyter/nbgrader_config.py", NBGRADER),
        (lab / "overrides.json", json.dumps(SETTINGS, indent=1)),
        (lab / "page_config.json", json.dumps(PAGE, indent=1)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(path)


if __name__ == "__main__":
    configure(Path(sys.argv[1] if sys.argv[1:] else sys.prefix))
