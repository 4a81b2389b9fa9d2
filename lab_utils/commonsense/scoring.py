"""How likely a language model finds each choice of a row: batched, and exact to rounding.

The prompt is `Question: …\\nAnswer:`, and what is scored is the choice behind it. In WinoGrande the
choice goes into the blank and what is scored is the rest of the sentence, which is the same for
both choices; a HellaSwag choice continues the text as it is. Where choices are phrases of any
length, a score is the log-likelihood per byte of the choice, so that a long one is not worse for
being long (`acc_norm` in EleutherAI's evaluation harness); where they are names, or true and false,
it is the plain log-likelihood.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PLAIN = ("boolq", "winogrande")  # the tasks without a normalisation by length
SHORTEST_LINE = 64  # tokens


@dataclass(frozen=True)
class Text:
    """A tokenized prompt and answer.

    Attributes:
        tokens: of both.
        start: index of the answer's first token, 1 or more.
        weight: what each answer token's log-likelihood is multiplied by.
    """

    tokens: list[int]
    start: int
    weight: float

    @property
    def answer_length(self) -> int:
        """How many tokens are scored."""
        return len(self.tokens) - self.start


@dataclass(frozen=True)
class Batch:
    """Texts packed into lines, several in a row, and where their answer tokens are.

    Attributes:
        tokens: `(lines, length)`, 0 where no text is.
        owners: `(lines, length)`, the index of the text that a token belongs to, -1 for none.
        places: `(lines, length)`, a token's index in its own text.
        before: `(scored,)`, index into the flattened `tokens` of the token before each answer
            token, whose output predicts it.
        targets: `(scored,)`, the answer tokens.
        texts: `(scored,)`, the text that each belongs to.
        weights: `(scored,)`, 0 for entries that only fill up.
    """

    tokens: Tensor
    owners: Tensor
    places: Tensor
    before: Tensor
    targets: Tensor
    texts: Tensor
    weights: Tensor

    def tensors(self) -> list[Tensor]:
        """Return all fields, in their order."""
        return [getattr(self, field.name) for field in fields(self)]

    def to(self, device: torch.device | str) -> "Batch":
        """Return the same batch on a device."""
        return Batch(*(tensor.to(device) for tensor in self.tensors()))


def parts(task: str, question: str, choice: str) -> tuple[str, str]:
    """Return the text that a model is given, and the text whose likelihood is the score."""
    if task == "winogrande":
        before, after = question.split("_")
        return before + choice, after
    if task == "hellaswag":
        return question, f" {choice}"
    return f"Question: {question}\nAnswer:", f" {choice}"


def encode(tokenizer, task: str, question: str, choice: str) -> Text:
    """Tokenize one choice of a row; prompt and answer apart, so that no token spans both.

    Raises:
        ValueError: the prompt or the answer has no token.
    """
    prompt, answer = (
        tokenizer(part, add_special_tokens=False)["input_ids"]
        for part in parts(task, question, choice)
    )
    if not prompt or not answer:
        raise ValueError(f"{question!r} with {choice!r} leaves nothing to score, or no prompt")
    weight = 1.0 if task in PLAIN else 1 / len(choice.encode())
    return Text(prompt + answer, len(prompt), weight)


def line_length(texts: Iterable[Text]) -> int:
    """Return the power of two, 64 or more, that fits the longest text."""
    longest = max(len(text.tokens) for text in texts)
    return max(SHORTEST_LINE, 1 << (longest - 1).bit_length())


def pack(texts: Sequence[Text], length: int) -> list[list[int]]:
    """Return which texts go into each line: the longest first, each into the first with room."""
    lines, room = [], []
    for i in sorted(range(len(texts)), key=lambda i: -len(texts[i].tokens)):
        size = len(texts[i].tokens)
        line = next((n for n, free in enumerate(room) if free >= size), len(lines))
        if line == len(lines):
            lines.append([])
            room.append(length)
        lines[line].append(i)
        room[line] -= size
    return lines


def make_batch(
    texts: Sequence[Text], lines: Sequence[Sequence[int]], length: int, shape: tuple[int, int]
) -> Batch:
    """Lay out texts in a batch.

    Args:
        texts: all that `lines` names.
        lines: from `pack`.
        length: of a line, in tokens.
        shape: how many lines and how many scored tokens to fill up to.
    """
    rows, scored = shape
    tokens, places = torch.zeros(2, rows, length, dtype=torch.long)
    owners = torch.full((rows, length), -1)
    before, targets, of_text, weights = [], [], [], []
    for n, line in enumerate(lines):
        at = 0
        for i in line:
            text, end = texts[i], at + len(texts[i].tokens)
            tokens[n, at:end] = torch.tensor(text.tokens)
            owners[n, at:end] = i
            places[n, at:end] = torch.arange(end - at)
            before += range(n * length + at + text.start - 1, n * length + end - 1)
            targets += text.tokens[text.start :]
            of_text += [i] * text.answer_length
            weights += [text.weight] * text.answer_length
            at = end
    filler = [0] * (scored - len(targets))
    return Batch(
        tokens,
        owners,
        places,
        *(torch.tensor(column + filler) for column in (before, targets, of_text)),
        torch.tensor(weights + filler, dtype=torch.float32),
    )


def log_likelihoods(model: nn.Module, batch: Batch) -> Tensor:
    """Return the weighted log-likelihood of every answer token, `(scored,)`, in float32.

    Args:
        model: `LlamaForCausalLM`, with adapters or without.
        batch: on the model's device.
    """
    # A token sees those before it in its own text. A mask of four dimensions is taken as it is;
    # without one, transformers looks for packed texts itself, and waits for the GPU to do so.
    same_text = batch.owners[:, :, None] == batch.owners[:, None, :]
    decoder = model.model(
        input_ids=batch.tokens,
        attention_mask=same_text.tril()[:, None],
        position_ids=batch.places,
        use_cache=False,
    )
    # Only answers need logits, and in float32: bfloat16 has steps of 0.125 near 20.
    hidden = decoder.last_hidden_state.flatten(0, 1).index_select(0, batch.before).float()
    logits = F.linear(hidden, model.lm_head.weight.float())
    return -F.cross_entropy(logits, batch.targets, reduction="none") * batch.weights


def choice_scores(
    model: nn.Module, tokenizer, task: str, rows: Sequence[dict], lines_per_batch: int = 16
) -> list[list[float]]:
    """Return the score of every choice of every row: the highest is the model's answer.

    Args:
        model, tokenizer: as `load_language_model` returns them; the model with adapters or without.
        task: one of `lab_utils.commonsense.TASKS`, which decides the prompt and the normalisation.
        rows: questions with their choices.
        lines_per_batch: how many lines, see `Batch`, go through the model at once.
    """
    texts = [encode(tokenizer, task, row["question"], c) for row in rows for c in row["choices"]]
    scores = iter(score_texts(model, texts, lines_per_batch).tolist())
    return [[next(scores) for _ in row["choices"]] for row in rows]


@torch.no_grad()
def score_texts(model: nn.Module, texts: Sequence[Text], lines_per_batch: int = 16) -> Tensor:
    """Return the weighted log-likelihood of every text's answer, `(texts,)`, on the CPU."""
    device = model.lm_head.weight.device
    length = line_length(texts)
    lines = pack(texts, length)
    scores = torch.zeros(len(texts), device=device)
    for n in range(0, len(lines), lines_per_batch):
        some = lines[n : n + lines_per_batch]
        scored = sum(texts[i].answer_length for line in some for i in line)
        batch = make_batch(texts, some, length, (len(some), scored)).to(device)
        scores.index_add_(0, batch.texts, log_likelihoods(model, batch))
    return scores.cpu()  # the only wait for the GPU


def correct(scores: Sequence[Sequence[float]], rows: Sequence[dict]) -> list[bool]:
    """Return whether the right choice of each row scores above every other; NaN is above none."""
    return [
        all(of_row[row["answer"]] > s for i, s in enumerate(of_row) if i != row["answer"])
        for of_row, row in zip(scores, rows, strict=True)
    ]
