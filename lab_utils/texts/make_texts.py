"""Write the texts of the language task beside this script, from the CPython that runs it.

    language-reference.txt    what the base model was pretrained on: Python's language reference,
                              as `help("topics")` shows it
    code-{train,validation,test}.txt
                              what it is adapted to: source code of standard modules, dealt out
                              function by function so that no passage is in two parts

The committed texts come from CPython 3.11.7; other versions have other words.
"""

import re
import sysconfig
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

TEXTS = Path(__file__).resolve().parent
LIBRARY = Path(sysconfig.get_path("stdlib"))
MODULES = ["calendar", "shutil", "tempfile", "textwrap", "tokenize"]
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
PASSAGE = 60  # characters


def blocks_of(module: str) -> list[str]:
    """Cut a module where a function, a method or a class begins."""
    source = (LIBRARY / f"{module}.py").read_text("utf-8").strip()
    return re.split(r"\n\n+(?=(?:    )?(?:def|async def|class|@))", source)


def passages(block: str) -> set[str]:
    """Return every run of 60 characters."""
    return {block[i : i + PASSAGE] for i in range(len(block) - PASSAGE + 1)}


def split_code() -> dict[str, str]:
    """Deal the blocks of all modules out, each to the part that lacks most of its share.

    A block that has a passage in common with any other goes to the training part.
    """
    blocks = [block for module in MODULES for block in blocks_of(module)]
    counts = Counter(passage for block in blocks for passage in passages(block))
    parts = {part: "" for part in SHARES}
    for block in blocks:
        alone = all(counts[passage] == 1 for passage in passages(block))
        lacking = min(SHARES, key=lambda part: len(parts[part]) / SHARES[part])
        parts[lacking if alone else "train"] += block + "\n\n"
    return parts


def main() -> None:
    """Write every text and their licence."""
    reference = "\n".join(topics[name].strip() + "\n" for name in sorted(topics))
    (TEXTS / "language-reference.txt").write_text(reference, encoding="utf-8")
    for part, code in split_code().items():
        (TEXTS / f"code-{part}.txt").write_text(code, encoding="utf-8")
    (TEXTS / "LICENSE.txt").write_text((LIBRARY / "LICENSE.txt").read_text("utf-8"), "utf-8")


if __name__ == "__main__":
    main()
