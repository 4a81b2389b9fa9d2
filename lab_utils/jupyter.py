"""What `scripts/set_up.sh` changes in JupyterLab, so that a look changes nothing in a notebook."""

from ipykernel.ipkernel import IPythonKernel

VIEW = "application/vnd.jupyter.widget-view+json"


class Kernel(IPythonKernel):
    """The kernel of the lab, which says the same of itself on every machine.

    JupyterLab writes what a kernel says of its language into the notebook as soon as one is opened.
    With the version of the Python in it, the notebook would then differ from the one released.
    """

    language_info = {  # noqa: RUF012 as the base class has it
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    }


def save_pictures(model: dict, **_: object) -> None:
    """Remove from a saved notebook the widgets that could not be shown later.

    A widget lives as long as its kernel. What is saved is shown beside it: the picture of an
    explorer, the findings of a quiz. A progress bar has nothing beside it and is left out. The page
    that saves keeps its widgets. Jupyter Server calls this before it writes a file.
    """
    if model["type"] != "notebook" or not isinstance(model.get("content"), dict):
        return
    model["content"]["metadata"].pop("widgets", None)
    for cell in model["content"]["cells"]:
        kept = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            view = data.pop(VIEW, None)
            if view is None or {"image/png", "text/html"} & data.keys():
                kept.append(output)
        if "outputs" in cell:
            cell["outputs"] = kept
