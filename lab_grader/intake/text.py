"""Read a notebook that was saved as text, a script or Markdown, by jupytext, Jupyter or VS Code.

jupytext splits it into cells. What its header says is not obeyed: it may name a format for which
jupytext calls another program.
"""

import re
from typing import Any

from lab_grader.intake.submitted import NotGradable

MOST_BYTES = 1 << 20
MARKED = re.compile(r"^# (?:%%|In\[)", re.MULTILINE)  # where a cell begins, in a script
IN = re.compile(r"^# In\[.*\]:?$", re.MULTILINE)  # as nbconvert writes it
HEADER = re.compile(r"\A(?:#!.*\n|# coding.*\n)*\s*(?P<mark>(?:# )?)---\n(?:.*\n)*?(?P=mark)---\n")
SUFFIXES = (".py", ".md", ".rmd", ".qmd")
QUARTO = re.compile(r"^```\{python\b.*\}$", re.MULTILINE)  # R Markdown and Quarto write code so


def is_text(name: str) -> bool:
    """Return whether a file may hold a notebook as text, by its name."""
    return name.lower().endswith(SUFFIXES)


def cells_of_text(content: bytes, name: str) -> list[dict[str, Any]]:
    """Return the cells of a notebook, as those of its JSON would be.

    Raises:
        NotGradable: it has none, or is too large.
    """
    from jupytext.jupytext import TextNotebookConverter  # takes half a second, and is rarely needed

    if len(content) > MOST_BYTES:
        raise NotGradable(f"a text of more than {MOST_BYTES >> 20} MB")
    text = HEADER.sub("", content.decode("utf-8-sig", "replace").replace("\r\n", "\n"))
    if not name.lower().endswith(".py"):
        text, how = QUARTO.sub("```python", text), {"extension": ".md", "format_name": "markdown"}
    elif MARKED.search(text):
        text, how = IN.sub("# %%", text), {"extension": ".py", "format_name": "percent"}
    else:  # a paragraph is a cell
        how = {"extension": ".py", "format_name": "light"}
    try:
        notebook = TextNotebookConverter(how, None).reads(text)
    except Exception as error:  # a text may be anything
        raise NotGradable(f"not a readable notebook ({type(error).__name__}: {error})") from error
    return [
        {"cell_type": cell.cell_type, "source": cell.source.strip("\n")} for cell in notebook.cells
    ]
