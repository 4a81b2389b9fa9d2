"""What `scripts/set_up.sh` changes in JupyterLab: its kernel, and what it saves."""

import symtable
from types import TracebackType
from typing import Any

from ipykernel.ipkernel import IPythonKernel
from ipykernel.zmqshell import ZMQInteractiveShell

from lab_utils.saved import cells_around

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
LONGEST = 60  # characters of a cell's first line in a message


class Kernel(IPythonKernel):
    """The kernel of the lab, which says the same of itself on every machine.

    JupyterLab writes what a kernel says of its language into the notebook as soon as one is opened.
    With the version of the Python in it, the notebook would then differ from the one released, and
    a look would change it.

    Where a cell lacks a name that another cell sets, the error says which one to run.
    """

    language_info = {  # noqa: RUF012 as the base class has it
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    }

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.shell.set_custom_exc((NameError,), _show_where_it_is_set)


def _show_where_it_is_set(
    shell: ZMQInteractiveShell,
    kind: type[NameError],
    error: NameError,
    trace: TracebackType,
    tb_offset: int | None = None,
) -> None:
    this = shell.get_parent().get("metadata", {}).get("cellId", "")
    cell = cell_that_sets(error.name or "", cells_around(this))
    if cell and error.name not in shell.user_ns:
        error.args = (f"{error}. The cell that begins with “{cell}” sets it: run that cell first.",)
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)


def cell_that_sets(name: str, cells: list[dict[str, Any]]) -> str:
    """Return the first line of the first cell of a notebook that sets a name; "" if none does.

    Cells that are no plain Python, such as those with magics, are passed over.
    """
    for source in ("".join(c["source"]) for c in cells if c["cell_type"] == "code"):
        try:
            table = symtable.symtable(source, "<cell>", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if name in table.get_identifiers():
            found = table.lookup(name)
            if found.is_assigned() or found.is_imported():
                first = source.strip().splitlines()[0]
                return first if len(first) <= LONGEST else f"{first[:LONGEST]}…"
    return ""


def save_pictures(model: dict, **_: object) -> None:
    """Remove from a saved notebook the widgets that could not be shown later.

    A widget lives as long as its kernel. What is saved is shown beside it: the picture of an
    explorer, as it was dragged last, and the findings of a quiz. A progress bar has nothing beside
    it and is left out. The page that saves keeps its widgets. Jupyter Server calls this before it
    writes a file.
    """
    if model["type"] != "notebook" or not isinstance(model.get("content"), dict):
        return
    widgets = model["content"]["metadata"].pop("widgets", {})
    states = {name: it["state"] for name, it in widgets.get(STATE, {}).get("state", {}).items()}
    for cell in model["content"]["cells"]:
        kept = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            view = data.pop(VIEW, None)
            if view is not None and "image/png" in data:
                _renew_picture(output, states, view["model_id"])
            if view is None or {"image/png", "text/html"} & data.keys():
                kept.append(output)
        if "outputs" in cell:
            cell["outputs"] = kept


def _renew_picture(output: dict, states: dict[str, dict], widget: str) -> None:
    """Put the picture that a widget shows now into what is saved beside it, with its text.

    Args:
        output: what is saved: the first picture, and after it which controls it has.
        states: of each widget, as the page has it.
        widget: the id of the one whose picture it is.
    """
    for child in states.get(widget, {}).get("children", []):
        for shown in states.get(child.removeprefix("IPY_MODEL_"), {}).get("outputs", []):
            if "image/png" in shown.get("data", {}):
                old, new = output["data"], shown["data"]
                html, controls = "".join(new["text/html"]), "".join(old["text/html"])
                alt, named = "".join(new["text/plain"]), "".join(old["text/plain"])
                old["image/png"] = new["image/png"]
                old["text/html"] = html + controls[controls.index("<p>") :]
                old["text/plain"] = alt + named[named.rindex("\n") :]
                output["metadata"] = shown["metadata"]
