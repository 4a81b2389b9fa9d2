"""A tiny language model and a few rows, which the tests of commonsense questions share."""

import gzip
import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lab_utils import commonsense


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A folder with a model of two random layers and a tokenizer of one token a byte."""
    path = tmp_path_factory.mktemp("tiny-model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,  # the default gives all choices nearly the same score
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def language_model(model_folder):
    """The model and its tokenizer."""
    return commonsense.load_language_model(str(model_folder))


@pytest.fixture(scope="session")
def write_rows():
    """A function that writes rows as `load_rows` reads them from a folder."""

    def write(path, rows):
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    return write


@pytest.fixture(scope="session")
def score_alone(language_model):
    """The log-likelihood of one answer, with the model's own forward and nothing beside it."""
    model, tokenizer = language_model

    def score(prompt, answer):
        prompt, answer = (tokenizer(text)["input_ids"] for text in (prompt, answer))
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0]
        likelihoods = logits.log_softmax(dim=-1)[len(prompt) - 1 : -1]
        return sum(row[token].item() for row, token in zip(likelihoods, answer, strict=True))

    return score
