"""Pretrain the tiny language model on Python's language reference.

    python lab_utils/pretrained/pretrain.py    # on a GPU if there is one; minutes on 2 CPU cores
    python lab_utils/pretrained/pretrain.py --steps 20 --folder /tmp/trial

Writes the checkpoint and, beside it, a JSON file with the command, the versions and the losses.
"""

import argparse
import json
import platform
import shlex
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.optim.lr_scheduler import OneCycleLR
from tqdm.auto import tqdm

from lab_utils import data, models


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Pretrain the tiny language model.")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=64, help="windows of 128 bytes")
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path, default=models.CHECKPOINT.parent)
    return parser.parse_args()


def random_windows(
    text: torch.Tensor, context: int, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `count` windows from anywhere in a text, and the bytes that follow."""
    starts = torch.randint(len(text) - context, (count, 1), generator=generator)
    window = text[starts + torch.arange(context + 1)]
    return window[:, :-1], window[:, 1:]


def main() -> None:
    options = arguments()
    torch.manual_seed(options.seed)
    model = models.TinyLanguageModel().to(options.device)
    generator = torch.Generator().manual_seed(options.seed)
    text = (data.TEXTS / "language-reference.txt").read_bytes()
    held_out = len(text) // 20
    train = torch.tensor(list(text[:-held_out]))
    validation = data.windows(text[-held_out:], model.context)

    decayed = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": options.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
    )
    scheduler = OneCycleLR(
        optimizer, options.learning_rate, total_steps=options.steps, pct_start=0.05
    )
    losses, started = [], time.time()
    every = max(1, options.steps // 30)
    for step in tqdm(range(1, options.steps + 1)):
        inputs, targets = random_windows(train, model.context, options.batch_size, generator)
        logits = model(inputs.to(options.device))
        loss = data.next_byte_loss(logits, targets.to(options.device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step % every == 0 or step == options.steps:
            with torch.no_grad():
                logits = model(validation.inputs.to(options.device))
                held = data.next_byte_loss(logits, validation.targets.to(options.device))
            losses.append([step, round(loss.item(), 4), round(held.item(), 4)])
            tqdm.write(f"step {step}: train {loss:.3f}, held out {held:.3f} nats per byte")

    checkpoint = options.folder / models.CHECKPOINT.name
    save_file({name: t.cpu().contiguous() for name, t in model.state_dict().items()}, checkpoint)
    cuda = options.device.startswith("cuda")
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "settings": {k: v for k, v in vars(options).items() if k != "folder"},
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "seconds": round(time.time() - started, 1),
        "losses": {"columns": ["step", "train", "held out"], "rows": losses},
    }
    checkpoint.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
