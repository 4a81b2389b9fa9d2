"""The models that the lessons adapt: one transformer block, and a tiny language model of four."""

from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

CHECKPOINT = Path(__file__).parent / "pretrained" / "tiny-language-model.safetensors"
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")  # the projections of a block's attention


class SimpleTransformerBlock(nn.Module):
    """Causal attention, then an MLP, each behind a layer norm and beside a residual path.

    Args:
        d_model: width of the residual path.
        n_heads: attention heads, of `d_model / n_heads` features each.

    Raises:
        ValueError: `d_model` is not a multiple of `n_heads`.
    """

    def __init__(self, d_model: int = 128, n_heads: int = 4) -> None:
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"d_model is {d_model}; it must be a multiple of n_heads, {n_heads}")
        self.n_heads = n_heads
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)
        self.v_proj = nn.Linear(d_model, d_model, bias=False)
        self.o_proj = nn.Linear(d_model, d_model, bias=False)
        self.mlp_up = nn.Linear(d_model, 4 * d_model)
        self.mlp_down = nn.Linear(4 * d_model, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, length, d_model)` to the same shape; position i sees positions 0 to i."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp_down(F.gelu(self.mlp_up(self.norm2(x))))

    def attention(self, x: Tensor) -> Tensor:
        """Map `(batch, length, d_model)` to the same shape."""
        batch, length, d_model = x.shape
        heads = (batch, length, self.n_heads, d_model // self.n_heads)
        q, k, v = (
            project(x).view(heads).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, d_model))


class TinyLanguageModel(nn.Module):
    """A decoder-only language model over bytes: it predicts each byte of a text from those before.

    A vocabulary of all 256 bytes needs no tokenizer: `list(text.encode())` are the tokens.

    Args:
        d_model, n_heads: as in `SimpleTransformerBlock`.
        n_blocks: how many blocks.
        context: the longest sequence, in bytes.
    """

    def __init__(
        self, d_model: int = 128, n_heads: int = 4, n_blocks: int = 4, context: int = 128
    ) -> None:
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(256, d_model)
        self.position = nn.Embedding(context, d_model)
        self.blocks = nn.ModuleList(
            SimpleTransformerBlock(d_model, n_heads) for _ in range(n_blocks)
        )
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens, `(batch, length)`, to the logits of each next token, `(batch, length, 256)`.

        Raises:
            ValueError: `length` is above the context.
        """
        length = tokens.shape[1]
        if length > self.context:
            raise ValueError(f"tokens has length {length}; the context is {self.context}")
        x = self.embedding(tokens) + self.position.weight[:length]
        for block in self.blocks:
            x = block(x)
        # the embedding is the output layer too ("tied"), which saves 256 * d_model parameters
        return F.linear(self.norm(x), self.embedding.weight)


def attention_layers(model: TinyLanguageModel) -> list[str]:
    """Return the names of the four projections of every block, which adapters replace."""
    return [f"blocks.{block}.{kind}" for block in range(len(model.blocks)) for kind in ATTENTION]


def load_pretrained(checkpoint: Path = CHECKPOINT) -> TinyLanguageModel:
    """Return the tiny language model that `pretrained/pretrain.py` trained, in evaluation mode."""
    model = TinyLanguageModel()
    model.load_state_dict(load_file(checkpoint))
    return model.eval()
