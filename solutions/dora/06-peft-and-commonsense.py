# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3.1.2 DoRA · Lesson 06: PEFT and commonsense
#
# [Start](../00-start.ipynb) | [← 05 · rank and magnitude](05-rank-and-magnitude.ipynb) | [07 · the rsLoRA challenge →](07-rslora-challenge.ipynb)
#
# **About 35 minutes.** You need lesson 02 or its ideas; lesson 04 helps.
#
# After this lesson you can
# - take a published gain apart: against what, on which tasks, with what spread;
# - use DoRA through PEFT: configure, adapt, train, merge, save, load;
# - move an adapter between this lab and PEFT, and prove that it is the same;
# - score commonsense questions with a language model, and read a measurement of LoRA against DoRA;
# - say when to use which, and on what evidence.

# %% jupyter={"source_hidden": true} tags=["remove-cell"]
# Set-up: run this cell first. Its code is folded; a click on the dots shows it.
from importlib.util import find_spec

if find_spec("lab_utils") is None:
    raise ModuleNotFoundError(
        "This kernel has no lab_utils. Choose the kernel “DoRA Lab (Python 3)” at the top right; if "
        "it is not listed, run `make lab` in the folder of the lab."
    )

import json
import statistics
import tempfile
import warnings
from pathlib import Path
from textwrap import fill

import torch
from IPython.display import Markdown, display
from peft import LoraConfig, PeftModel, get_peft_model
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from lab_utils import (
    adapters,
    checks,
    commonsense,
    comparison,
    data,
    peft_bridge,
    plots,
    progress,
    published,
    quiz,
    training,
    widgets,
)
from lab_utils.commonsense import measurement

# PEFT 0.21 asks transformers for a method by its old name, which still works: nothing to act on.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)

# %% [markdown]
# ## 1. The published number, recomputed
#
# "DoRA: +3.7 points on commonsense reasoning" is a claim that you may have met. Suppose that a shop says
# its new running shoe is 3.7% faster. You would ask: than which shoe, on which track, and how much
# do two runs with the same shoe differ? Here are the same three questions for [table 1 of the
# paper](https://arxiv.org/abs/2402.09353): LLaMA-7B, eight tasks, accuracy in per cent.

# %% jupyter={"source_hidden": true} tags=["nbval-check-output", "remove-input"]
# The table: table 1 of the paper.
table = published.commonsense_table()
dora = published.find(table, "LLaMA-7B", "DoRA", 32)
lora = published.find(table, "LLaMA-7B", "LoRA", 32)
own = published.find(table, "LLaMA-7B", "LoRA (own run)", 32)
print(f"{'':12}{'LoRA':>7}{'LoRA':>11}{'DoRA':>7}{'gain':>7}")
print(f"{'':12}{'quoted':>7}{'own run':>11}")
for task in published.TASKS:
    gain = dora[task] - lora[task]
    print(f"{task:12}{lora[task]:7.1f}{own[task]:11.1f}{dora[task]:7.1f}{gain:+7.1f}")
averages = [published.average(row) for row in (lora, own, dora)]
print(f"{'average':12}{averages[0]:7.2f}{averages[1]:11.2f}{averages[2]:7.2f}")
print()
print(f"DoRA against the LoRA row in the table: {averages[2] - averages[0]:+.2f}")
print(f"DoRA against the LoRA row that its authors ran: {averages[2] - averages[1]:+.2f}")
share = (dora["HellaSwag"] - lora["HellaSwag"]) / len(published.TASKS)
print(f"HellaSwag alone gives {share:.2f} of the first")

# %% [markdown]
# **Than which shoe?** The LoRA row of the table is quoted from [another
# paper](https://arxiv.org/abs/2304.01933). The authors' own run of LoRA, which their
# [repository](https://github.com/NVlabs/DoRA/tree/main/commonsense_reasoning) lists, got 1.5 points more.
#
# **On which track?** Drag: which task carries the average, and does that hold for the other models?

# %%
widgets.published_explorer()

# %% [markdown]
# **How much do two runs differ?** Others trained DoRA with the authors' code and settings again
# ([issue 14](https://github.com/NVlabs/DoRA/issues/14), [issue
# 26](https://github.com/NVlabs/DoRA/issues/26)):

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: published gains, and re-runs.
pairs = published.pairs(table).items()
gains = {name: a["average"] - b["average"] for name, (a, b) in pairs}
for rank in (8, 16):
    drops = [f"{r['rerun'] - r['published']:+.1f}" for r in published.reruns() if r["rank"] == rank]
    print(f"DoRA at rank {rank} run again, against the published run: {', '.join(drops)} points")
plots.show(
    plots.published_and_rerun(gains, published.reruns(), own["average"]),
    "Left, published gains: "
    + ", ".join(f"{name} {gain:+.1f}" for name, gain in gains.items())
    + ". Right, averages of DoRA on LLaMA-7B as published and as run again: close at ranks 32 and "
    "64, 3 points higher at rank 4, 5 lower at rank 8 and 15 to 24 lower at rank 16.",
)

# %% [markdown]
# So DoRA is ahead in each of these ten pairs, by 0.3 to 4.4 points. (Table 15 has larger gains, up to 37
# points, where LoRA scored below guessing on some tasks: lesson 05.) But re-runs ended 5 points below the
# published number at rank 8 and 15 to 24 below it at rank 16, more than any of the ten gains. One ended 3
# points above it at rank 4, and at ranks 32 and 64 they came close. Read this with care, too: whoever opens
# an issue has a problem to report, so these runs are no fair sample (the author of issue 26 found every
# other setting fine); and the authors' own checkpoints gave the published scores in both issues, so it is
# the training that differs. (Rank 64 is 76.8 here, as in the repository, and 72.1 in table 15 of the
# paper. The difference is HellaSwag: 85.9 in one, 40.7 in the other.)
#
# Two things help to read the table. *The search*: LoRA's settings were kept from the other paper, and
# only DoRA's learning rate was adjusted (section 5.1). *The spread*: each number is a single run, as the
# first author [says](https://github.com/NVlabs/DoRA/issues/2); five more runs of one setting (LLaMA3-8B,
# rank 16) were mostly alike. One number for each setting cannot say how much of a gain comes from the
# method and how much from the run. A notebook cannot repeat it: that takes 7 billion weights and 170,000
# training examples. Section 6 measures what fits on one GPU.

# %% [markdown]
# ## 2. PEFT: a configuration and a model
#
# [PEFT](https://huggingface.co/docs/peft) is the library that production code uses. DoRA is one
# flag of its `LoraConfig`, and `get_peft_model` puts adapters into a model. To see it work we need
# a Llama model. Nobody has to download one: ours is made from a configuration, with random weights, so it
# shows how things are done and says nothing about quality.


# %% tags=["nbval-check-output"]
def small_llama():
    """A Llama of 2 blocks that reads bytes; the same at every call."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config)


for use_dora in (False, True):
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj"],
        use_dora=use_dora,
        task_type="CAUSAL_LM",
    )
    print("DoRA" if use_dora else "LoRA", end=": ")
    get_peft_model(small_llama(), config).print_trainable_parameters()

# %% [markdown]
# `v_proj` maps 64 features to 32 here, and DoRA adds one magnitude for each output: $2 \times (64 +
# 32)$ numbers.
#
# Train it for a few steps, merge it, save it, load it again:

# %%
task = data.language_task()
model = get_peft_model(small_llama(), config).train()  # config is DoRA's, from above
optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=5e-3)
losses = []
for batch in tqdm(
    task.train.inputs[:160].split(8), bar_format="{n_fmt} of {total_fmt} steps {bar}"
):
    optimizer.zero_grad()
    loss = model(input_ids=batch, labels=batch).loss
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"loss: {losses[0]:.2f} before the first step, {losses[-1]:.2f} after {len(losses) - 1}")
assert losses[-1] < losses[0]

# %% tags=["nbval-check-output"]
model.eval()
text = task.test.inputs[:2]
with tempfile.TemporaryDirectory() as folder, torch.no_grad():
    model.save_pretrained(folder)
    for path in sorted(Path(folder).glob("adapter_*")):
        print(path.name)
    saved = json.loads(Path(folder, "adapter_config.json").read_text())
    for name in ("peft_type", "r", "lora_alpha", "use_dora", "use_rslora"):
        print(f"    {name}: {saved[name]}")
    loaded = PeftModel.from_pretrained(small_llama(), folder).eval()
    expected = model(text).logits
    print("loaded again, the same output:", torch.equal(loaded(text).logits, expected))
    merged = loaded.merge_and_unload()
    close = torch.allclose(merged(text).logits, expected, atol=1e-5)
    print(f"merged into a plain {type(merged).__name__}, the same to 1e-5: {close}")

# %% [markdown]
# The folder holds only the adapter, a few kilobytes; to load it, you need the same base model. A
# merged model has no adapter and runs as fast as before, for LoRA and DoRA alike. (Unmerged, DoRA
# is slower than LoRA: [PEFT's page on
# DoRA](https://huggingface.co/docs/peft/package_reference/lora_variant_dora) gives times.)

# %% [markdown]
# ### Exercise 1: `make_config` (3 points)
#
# Write the configuration of the paper's commonsense runs (its table 8), for LoRA or for DoRA:
#
# - rank as given, and `lora_alpha` twice the rank;
# - dropout 0.05;
# - the layers `q_proj`, `k_proj`, `v_proj`, `up_proj` and `down_proj`;
# - `task_type="CAUSAL_LM"`, so that PEFT wraps and saves it as a language model;
# - everything else as PEFT has it by default.
#
# The layers may be given as a list, a tuple, a set, or a pattern that matches the same layers of a
# Llama.
#
# <details><summary>Hint: names</summary>
#
# The example above has all of them but `lora_dropout`. `LoraConfig?` in a cell shows the rest.
# </details>


# %% nbgrader={"grade": false, "grade_id": "make-config", "locked": false, "schema_version": 3, "solution": true, "task": false}
def make_config(use_dora, rank=16):
    """Return a peft.LoraConfig as in the paper's table 8.

    use_dora: True for DoRA, False for LoRA
    rank: of the adapters
    """
    ### BEGIN SOLUTION
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.05,
        target_modules=["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"],
        task_type="CAUSAL_LM",
        use_dora=use_dora,
    )
    ### END SOLUTION


# %% [markdown]
# LoRA or DoRA (1 point), rank and alpha (1 point), layers and the rest (1 point):

# %% nbgrader={"grade": true, "grade_id": "config-method", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_make_config(make_config, "method")
### BEGIN HIDDEN TESTS
checks.check_make_config(make_config, "method", rank=24)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "config-scaling", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_make_config(make_config, "scaling")
### BEGIN HIDDEN TESTS
checks.check_make_config(make_config, "scaling", rank=24)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "config-layers", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_make_config(make_config, "layers")
### BEGIN HIDDEN TESTS
checks.check_make_config(make_config, "layers", rank=24)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Is it the same DoRA?
#
# Below, the lab's tiny language model gets this lab's DoRA adapters, which are trained for ten
# steps. They are written as a PEFT adapter, and PEFT loads them into the same base. If both are the
# same DoRA, outputs and *gradients* agree, so that either side could continue the training.


# %% jupyter={"source_hidden": true} tags=["remove-input"]
# Helpers, and ten steps of training.
def loss_and_gradients(model):
    """The loss on a batch, and the gradient of every trained parameter by this lab's name for it."""
    model.zero_grad()
    loss = task.loss(model(task.train.inputs[:4]), task.train.targets[:4])
    loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            name = name.removeprefix("base_model.model.").replace(".default", "")
            name = name.removesuffix(".weight").replace("lora_magnitude_vector", "magnitude")
            gradients[name] = parameter.grad.flatten()
    return loss.item(), gradients


ours = adapters.add_adapters_to_model(
    task.base, "dora", rank=8, generator=torch.Generator().manual_seed(0)
)
optimizer = training.make_optimizer(ours, learning_rate=5e-3, weight_decay=0.01)
for batch in training.batch_order(len(task.train), 8, 1, seed=0)[0, :10]:
    examples = task.train.inputs[batch], task.train.targets[batch]
    training.train_step(ours, examples, task.loss, optimizer)

# %% tags=["nbval-check-output"]
with tempfile.TemporaryDirectory() as folder:
    adapter = Path(folder, "adapter")
    peft_bridge.save_peft_adapter(ours, adapter)
    theirs = PeftModel.from_pretrained(data.load_pretrained(), adapter, is_trainable=True).eval()
    back = peft_bridge.load_peft_adapter(task.base, adapter)

loss, gradients = loss_and_gradients(ours.eval())
other_loss, other_gradients = loss_and_gradients(theirs)
print("same loss to 1e-5:", abs(loss - other_loss) < 1e-5)
print("gradients of the same parameters:", gradients.keys() == other_gradients.keys())
for kind in ("lora_A", "lora_B", "magnitude"):
    pairs = [(g, other_gradients[name]) for name, g in gradients.items() if name.endswith(kind)]
    same = all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)
    print(f"  {kind}: {len(pairs)} layers, the same to 1e-5: {same}")
print("read back by this lab, the same output:", torch.equal(back(text), ours(text)))

# %% [markdown]
# PEFT's format cannot express three things. It has one magnitude per *output* neuron and no other kind,
# so an adapter with `norm_dim=0` is refused; merge it instead. The other two show only in training: PEFT
# always detaches the norm, and its dropout differs, as lesson 02 explains.

# %% tags=["nbval-check-output"]
per_input = adapters.add_adapters_to_model(task.base, "dora-input")
try:
    peft_bridge.to_peft_state(
        adapters.adapter_layers(per_input)["blocks.0.q_proj"], "blocks.0.q_proj"
    )
except ValueError as error:
    print(fill(str(error), 88))

# %% [markdown]
# ## 4. PEFT's file format
#
# What is in `adapter_model.safetensors`? One name and one tensor for each trained parameter:

# %% tags=["nbval-check-output"]
state = {name: tuple(p.shape) for name, p in theirs.named_parameters() if p.requires_grad}
print("in PEFT's model:")
for name, shape in list(state.items())[:3]:
    print(f"  {name}  {shape}")
print("in PEFT's file:")
layer = adapters.adapter_layers(ours)["blocks.0.q_proj"]
written = peft_bridge.to_peft_state(layer, "base_model.model.blocks.0.q_proj")
for name, tensor in written.items():
    print(f"  {name}  {tuple(tensor.shape)}")

# %% [markdown]
# The rules: every name starts with where the layer is in PEFT's wrapper (`base_model.model.` and
# the layer's own name), then a dot. `lora_A` and `lora_B` are separate layers in PEFT, so their
# tensor is called `weight`. The name of the adapter (`default`) is in the model and not in the
# file. The magnitude is flat, and the scaling is not in the tensors: PEFT computes it from
# `lora_alpha` and `r`.

# %% [markdown]
# ### Exercise 2: `to_peft_state` (4 points)
#
# You get a layer of this lab, a `LoRALayer` with the parameters `lora_A` and `lora_B`, or a
# `DoRALayer`, which also has `magnitude`, of shape `(out_features, 1)`. What must hold:
# - the result is a dict from PEFT's names to the tensors to write;
# - the tensors are detached, in PEFT's shapes (with rank 1, too), and hold the layer's numbers in its own
#   dtype or a wider one; they may share memory with the layer;
# - the layer stays as it is: same parameters, same numbers, still trainable.
#
# <details><summary>Hint: which kind is it?</summary>
#
# `hasattr(layer, "magnitude")`, or go through `layer.named_parameters()` and take what has
# `requires_grad`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "to-peft-state", "locked": false, "schema_version": 3, "solution": true, "task": false}
def to_peft_state(layer, prefix):
    """Return a layer's trained tensors under the names that PEFT gives them in a file.

    layer: a LoRALayer or a DoRALayer of lab_utils.layers
    prefix: such as "base_model.model.blocks.0.q_proj", without a dot at the end
    returns {name: tensor} with
        prefix.lora_A.weight, (rank, in_features)
        prefix.lora_B.weight, (out_features, rank)
        prefix.lora_magnitude_vector, (out_features,), for a DoRALayer only
    """
    ### BEGIN SOLUTION
    state = {
        f"{prefix}.lora_A.weight": layer.lora_A.detach().clone(),
        f"{prefix}.lora_B.weight": layer.lora_B.detach().clone(),
    }
    if hasattr(layer, "magnitude"):
        state[f"{prefix}.lora_magnitude_vector"] = layer.magnitude.detach().flatten().clone()
    return state
    ### END SOLUTION


# %% [markdown]
# A LoRA layer (2 points) and a DoRA layer (2 points):

# %% nbgrader={"grade": true, "grade_id": "state-lora", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_to_peft_state(to_peft_state, "lora")
### BEGIN HIDDEN TESTS
checks.check_to_peft_state(
    to_peft_state,
    "lora",
    in_features=5,
    out_features=9,
    rank=3,
    prefix="base_model.model.mlp",
    seed=61,
)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "state-dora", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_to_peft_state(to_peft_state, "dora")
### BEGIN HIDDEN TESTS
checks.check_to_peft_state(
    to_peft_state,
    "dora",
    in_features=5,
    out_features=9,
    rank=3,
    prefix="base_model.model.mlp",
    seed=62,
)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Score a choice by its likelihood
#
# A commonsense question has two to five choices, and exactly one is right. The paper lets the model
# *write* an answer and looks for a word in the text; an answer in another form counts as wrong, so
# scores below guessing occur in its tables. This lab asks the model instead how likely it finds
# each choice as the continuation of the question: its score is the log-likelihood of the choice,
# the sum of $\log p$ of its tokens. Where choices differ in length, it is divided by the length in bytes, so
# that a long choice is at no disadvantage. (In WinoGrande a choice fills a blank, and what is scored is the
# rest of the sentence.) The highest score is the model's answer, and there is no text that an evaluation
# could fail to read.

# %% [markdown]
# ### Exercise 3: `choice_accuracy` (3 points)
#
# Return the share of questions that are answered right, as a plain float that is not rounded. Questions
# have different numbers of choices, so `scores` is a list of lists, not a tensor. Scores are below 0, and
# no two choices of a question score the same. Both lists stay as they are.
#
# <details><summary>Hint</summary>
#
# `row.index(max(row))` is the index of the highest score of one question. `zip(scores, answers)`
# goes through both lists together.
# </details>


# %% nbgrader={"grade": false, "grade_id": "choice-accuracy", "locked": false, "schema_version": 3, "solution": true, "task": false}
def choice_accuracy(scores, answers):
    """Return the share of questions whose right choice has the highest score.

    scores: for each question a list of floats, the log-likelihood of each choice
    answers: for each question the index of the right choice, counted from 0
    returns a float from 0 to 1
    """
    ### BEGIN SOLUTION
    right = [row.index(max(row)) == answer for row, answer in zip(scores, answers, strict=True)]
    return sum(right) / len(right)
    ### END SOLUTION


# %% [markdown]
# Four choices each (2 points), and two to five (1 point):

# %% nbgrader={"grade": true, "grade_id": "accuracy-equal", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_choice_accuracy(choice_accuracy, "equal")
### BEGIN HIDDEN TESTS
checks.check_choice_accuracy(choice_accuracy, "equal", questions=31, seed=63)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "accuracy-ragged", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_choice_accuracy(choice_accuracy, "ragged")
### BEGIN HIDDEN TESTS
checks.check_choice_accuracy(choice_accuracy, "ragged", questions=31, seed=64)
### END HIDDEN TESTS

# %% [markdown]
# ### A real language model, if there is one here
#
# [SmolLM2-135M](https://arxiv.org/abs/2502.02737) is a Llama of 135 million weights that runs on a
# laptop; the lab uses its *Instruct* form, which was tuned to follow instructions. The next cell asks it
# one question for each task, from a few that were written for this lab. Without the model it says how to
# get it, and you can go on: section 6 uses results that come with the lab.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# Ask the real model, if it is there.
try:
    language_model, tokenizer = commonsense.load_language_model()
except commonsense.NoLanguageModel as missing:
    print(missing)
else:
    for name in commonsense.TASKS:
        row = commonsense.example_rows(name)[0]
        (scores,) = commonsense.choice_scores(language_model, tokenizer, name, [row])
        print(f"{name}: {row['question']}")
        for index, (choice, score) in enumerate(zip(row["choices"], scores, strict=True)):
            marks = " right" * (index == row["answer"]) + " chosen" * (score == max(scores))
            print(f"    {score:8.3f}  {choice} {marks}")

# %% [markdown]
# ## 6. The measurement
#
# What fits on one GPU: SmolLM2-135M-Instruct (its layers came from a package that stores them in 4 bits
# a weight, and were unpacked to bfloat16). It was adapted with PEFT to rows (one question each) of seven
# of the eight tasks (HellaSwag's were not available), and tested on 500 other rows of each. The plan
# follows section 1. Learning rates were searched for each method and rank: three seeds chose, on rows
# held out from training, each row counting the same. Other seeds report, the same ones for both methods
# and so with the same batches. Every run is kept. (The training and test rows of PIQA, SIQA and WinoGrande
# come from one public part, so compare these accuracies with each other and not with published ones.)
#
# The command is `python -m benchmarks.commonsense --results FILE`; it continues where it was stopped. With
# `--rates` and `--grid-seeds` it then made more runs: 0.00006 at rank 32, where the best rate had been the
# lowest, and more seeds at 0.002 and 0.006. **Tables, figures and printed sentences are computed from the
# file** that comes with the lab, with the number of seeds behind them.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: the search over learning rates.
records = comparison.read_results(comparison.RESULTS / "commonsense.jsonl", measurement.Run)
accuracies = {}
for run in records:
    if run["adapter_type"] != "frozen" and run["seed"] < 3:  # the three seeds that choose
        by_rate = accuracies.setdefault(run["rank"], {}).setdefault(run["adapter_type"], {})
        by_rate.setdefault(run["learning_rate"], []).append(1 - run["validation_error"])
accuracies = {rank: accuracies[rank] for rank in sorted(accuracies)}
first = next(run for run in records if run["adapter_type"] == "lora")
print(
    f"{len(records)} runs on one {first['made_with']['device']}: {first['train_rows']:,} rows to train "
    f"on, {sum(first['test_rows'].values()):,} to test on, {first['epochs']} epochs"
)
plots.show(
    plots.validation_by_rate(accuracies),
    "Validation accuracy over the learning rate for LoRA and DoRA, a panel for each rank. "
    + " ".join(
        f"{plots.NAMES[method]} at rank {rank}: "
        + ", ".join(
            f"{100 * sum(by_rate[rate]) / len(by_rate[rate]):.1f}% at {plots.rate_text(rate)} (runs: {len(by_rate[rate])})"
            for rate in sorted(by_rate)
        )
        + "."
        for rank, by_method in accuracies.items()
        for method, by_rate in by_method.items()
    ),
)

# %% [markdown]
# At the chosen rates, accuracies and their standard errors: how much an accuracy would vary with
# other test rows. *Zero-shot* is the model before any training.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The table: accuracies at the chosen rates.
summary = measurement.summarise(records)
display(Markdown(measurement.table(summary)))
for row in summary["methods"]:
    edge = ", the lowest or highest tried, so a better one may lie beyond" if row["at_edge"] else ""
    print(
        f"{plots.NAMES[row['adapter_type']]}, rank {row['rank']}: {row['seeds']} seeds at the rate "
        f"{plots.rate_text(row['learning_rate'])}{edge}"
    )
for rank, by_method in accuracies.items():
    searched = {len(runs) for by_rate in by_method.values() for runs in by_rate.values()}
    print(
        f"rank {rank}: {len(by_method['lora'])} rates tried, {min(searched)} seeds chose among them"
    )

# %% [markdown]
# Those standard errors bound what any of these numbers says about its task. The comparison of the
# methods is sharper, because both answered the same questions after the same batches: take the
# difference seed by seed, and its interval. (It is over seeds; the test rows stay as they are.)

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The paired differences.
for rank, differences in summary["differences"].items():
    gap = differences["average"]
    if gap.low <= 0 <= gap.high:
        verdict = "not decided: the interval contains zero"
    else:
        verdict = f"{'DoRA' if gap.mean > 0 else 'LoRA'} is ahead, with this model, data and search"
    at = {r["adapter_type"]: r["learning_rate"] for r in summary["methods"] if r["rank"] == rank}
    if at["lora"] != at["dora"]:
        verdict += f", at a rate of {at['dora']:g} against {at['lora']:g} for LoRA"
    sentence = (
        f"rank {rank}: DoRA minus LoRA {100 * gap.mean:+.2f} points on average "
        f"({gap.confidence:.0%} interval {100 * gap.low:+.2f} to {100 * gap.high:+.2f}, "
        f"{gap.seeds} paired seeds): {verdict}"
    )
    print(fill(sentence, 88))
adapted = [row["average"] for row in summary["methods"]]
before = summary["zero_shot"]["average"]
print(
    f"before training {before:.1%} on average, after it {min(adapted):.1%} to {max(adapted):.1%}:\n"
    f"adapting gives {100 * (min(adapted) - before):.1f} points or more, by whichever method"
)

# %% [markdown]
# That holds *at the chosen rates*. How good is the choice? There are 1,291 validation rows, so each
# accuracy in the first figure has a standard error of about 1.4 points, and several rates are that close
# to each other: which of them wins is luck. It also depends on how rows count. If every task counted the
# same, WinoGrande would have a seventh of the weight with its 77 rows, and DoRA at rank 8 would have got
# LoRA's rate. (The likelihood of the right choice is a finer measure than right or wrong; these runs did
# not record it. And the grid is coarse: each rate is about three times the one before.) So look at **the
# whole curve**: every rate, on the test rows, with all seeds.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: accuracy and difference at every rate.
tested = {
    rank: {
        method: {
            rate: {
                run["seed"]: run["average_accuracy"]
                for run in comparison.select(
                    records, adapter_type=method, rank=rank, learning_rate=rate
                )
            }
            for rate in by_rate
        }
        for method, by_rate in by_method.items()
    }
    for rank, by_method in accuracies.items()
}
at_each_rate = measurement.at_each_rate(records)


def of_both(rank, rate):
    """LoRA's mean accuracy over the seeds that DoRA was trained with as well."""
    lora, dora = (tested[rank][method][rate] for method in ("lora", "dora"))
    return statistics.fmean(lora[seed] for seed in lora.keys() & dora.keys())


lines = [
    f"rank {rank:2}, rate {plots.rate_text(rate)}: LoRA {of_both(rank, rate):.1%}, DoRA minus LoRA "
    f"{100 * gap.mean:+.2f} points ({100 * gap.low:+.2f} to {100 * gap.high:+.2f}, {gap.seeds} seeds)"
    for rank, by_rate in at_each_rate.items()
    for rate, gap in by_rate.items()
]
print("\n".join(lines))
plots.show(
    plots.accuracy_by_rate(tested, at_each_rate),
    "Test accuracy over the learning rate for LoRA and DoRA, a column for each rank, and below it "
    "their difference with intervals, both over the seeds of both. " + "; ".join(lines),
)

# %% [markdown]
# **A decided difference that is an artefact.** At rank 8 the three choosing seeds gave LoRA the rate
# 0.0006 and DoRA 0.002. For LoRA these two differed by less than one validation row. Then seven other
# seeds, paired, find DoRA 1.3 points ahead, with an interval far from zero. But at 0.002 *both* methods
# reach 52.5%, and at 0.0006 both reach 51.4%: what was measured is the learning rate. The protocol of
# this section was fair, and only the curve shows the problem. Choosing by ten seeds instead of three would
# not have settled it. Two rates were run with all ten (0.0006 and 0.002 at rank 8, 0.0002 and 0.002 at
# rank 32). For both methods and ranks, 0.002 makes four or five fewer errors on the validation rows, and
# each of these differences has an interval that contains zero.
#
# **At equal rates the methods tie**, from 0.0002 to 0.002 and at both ranks: six differences, of 0.12
# points at most. Corrected for six, no interval with ten pairs behind it (there are four) reaches half a
# point in DoRA's favour (in LoRA's, one reaches 0.6); those with three pairs reach up to 0.9 either way.
# (At rank 8 they tie at 0.006, too.) That is over seeds. Over test rows, the standard error of a
# difference is 1.2 points at most: for other questions, up to 2.3 points are not ruled out. On these seven
# tasks the paper's gain is +2.9 points over the quoted LoRA and +1.9 over the authors' own. So this model
# does not have the first where the rate suits LoRA, and might have the second on other questions.
#
# **And where it does not?** At 0.006 and rank 32 DoRA is 3.3 points ahead, a gain like those of the
# paper. It rests on three pairs, +1.4, -1.3 and +9.7, with an interval from -11.1 to +17.6: not decided. In
# the third pair LoRA fell to 39%; its other eight runs lie where DoRA's three do, and both methods have lost
# four points or more. A table with one run for each setting might have had +9.7 as its result.
#
# **Is it so with other seeds?** Four seeds that had no part in the above were trained later, both methods
# at each rate from 0.0002 on:

# %% jupyter={"source_hidden": true} tags=["nbval-check-output", "remove-input"]
# The seeds that had no part: DoRA minus LoRA.
again = comparison.read_results(comparison.RESULTS / "commonsense-again.jsonl", measurement.Run)
for rank, by_rate in measurement.at_each_rate(again).items():
    for rate, gap in by_rate.items():
        print(
            f"rank {rank:2}, rate {plots.rate_text(rate):6}  {100 * gap.mean:+.2f} points "
            f"({100 * gap.low:+.2f} to {100 * gap.high:+.2f}, {gap.seeds} seeds)"
        )

# %% [markdown]
# They tie again, at 0.006 as well: at rank 32 the four new pairs lie between -0.3 and +0.5 points, and none of
# LoRA's four runs fell, so one of its 13 runs at that rate did. The artefact returns, too: with 0.0006
# for LoRA and 0.002 for DoRA at rank 8, the same four seeds put DoRA 0.9 points ahead, with an interval
# from 0.5 to 1.2.
#
# **Fourteen questions at once.** A table with seven tasks and two ranks invites you to pick the best of
# them. Which tasks exclude zero one by one, and which with intervals that hold together (Bonferroni, as
# in lesson 05)?

# %% jupyter={"source_hidden": true} tags=["nbval-check-output", "remove-input"]
# The table: task by task, each interval by itself and all of them together.
names = dict(zip(commonsense.TASKS, published.TASKS, strict=True))
questions = len(summary["tasks"]) * len(accuracies)


def decided(rank, rate, confidence):
    """The tasks whose interval excludes zero, at the chosen rates or with one rate for both."""
    gaps = measurement.summarise(records, confidence=confidence)["differences"][rank]
    if rate:
        gaps = {
            task: measurement.at_each_rate(records, task, confidence)[rank][rate]
            for task in summary["tasks"]
        }
    found = [names[task] for task in summary["tasks"] if gaps[task].low * gaps[task].high > 0]
    return ", ".join(found) or "none"


for rank in accuracies:
    for title, rate in (("chosen rates", None), ("both at 0.002", 2e-3)):
        print(f"rank {rank:2}, {title:13}  95% each:     {decided(rank, rate, 0.95)}")
        print(f"{'':22}  95% together: {decided(rank, rate, 1 - 0.05 / questions)}")

# %% [markdown]
# Four tasks at rank 8 become two with the correction, and none with one rate for both: what remained was
# the learning rate again.
#
# None of this says that the paper's gain does not exist: LLaMA-7B has fifty times the weights, answers by
# generating text, and was trained on 170,000 rows. What these runs say is that adapting at all matters far
# more than which of the two methods does it, that the learning rate matters more too, and how to read a
# gain in a table whose search and spread you do not know.
#
# The cost of a step was measured separately, one run at a time on the same GPU, 60 steps of 64 rows at
# rank 32:

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The table: what a step costs.
times = comparison.read_results(comparison.RESULTS / "commonsense-times.jsonl", measurement.Run)
ways = {
    (False, False): "launched one by one, as by default",
    (False, True): "recorded as a CUDA graph",
    (True, True): "compiled and recorded",
}
for (compiled, recorded), way in ways.items():
    seconds = {}
    for method in ("lora", "dora"):
        found = [
            run
            for run in times
            if run["adapter_type"] == method
            and (run["made_with"]["compiled"], run["made_with"]["cuda_graphs"])
            == (compiled, recorded)
        ]
        seconds[method] = sum(run["seconds"] for run in found) / len(found)
        memory = sum(run["peak_memory"] for run in found) / len(found) / 2**30
        print(
            f"{plots.NAMES[method]}, {way}: {seconds[method]:.1f} s, peak {memory:.1f} GiB "
            f"(runs: {len(found)})"
        )
    print(f"    DoRA takes {seconds['dora'] / seconds['lora']:.2f} times as long as LoRA")

# %% [markdown]
# In PEFT's usual form DoRA takes about half as long again as LoRA. Is it because it launches more
# operations? Recording a step removes the launches, and with them five sixths of the time of both
# methods: the ratio stays, and even grows a little. So DoRA has more work to do on the GPU itself. At
# every step and in every layer, PEFT's form builds $W_0 + s\,BA$ to take its norm, and passes over the
# outputs again to scale them. `torch.compile` fuses passes over memory, which helps both methods and DoRA
# more: it then takes about a third longer than LoRA. Lesson 02, section 9, takes one layer apart in the same
# way.

# %% [markdown]
# ## 7. When to use which
#
# Here are eight pieces of advice from tutorials and talks, compared with the evidence. Two measurements
# are our own: the one on commonsense in section 6, and the runs of lessons 04
# and 05 on Python code:

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The table: our runs on Python code.
runs = comparison.read_results(comparison.RESULTS / "head-to-head.jsonl")
for rank in (4, 8, 16, 32, 64):
    best = {
        method: comparison.reported(
            comparison.select(runs, adapter_type=method, rank=rank, targets=None)
        )
        for method in ("lora", "dora")
    }
    gap = comparison.paired_difference(best["lora"], best["dora"])
    print(
        f"rank {rank:2}: test loss of DoRA against LoRA {100 * gap.relative:+.1f}% "
        f"({gap.low:+.4f} to {gap.high:+.4f} nats per byte, {gap.seeds} paired seeds)"
    )
seconds, memory = (
    {
        method: statistics.median(
            run[key]
            for run in runs
            if run["adapter_type"] == method
            and run["learning_rate"] in (3e-4, 8e-4, 2e-3)  # at which both ran at ranks 4 to 32
        )
        for method in ("lora", "dora")
    }
    for key in ("seconds", "peak_memory")
)
print(
    f"DoRA takes {seconds['dora'] / seconds['lora'] - 1:.0%} more time and, beyond the model, "
    f"{memory['dora'] / memory['lora'] - 1:.0%} more memory"
)

# %% [markdown]
# | advice | what the evidence says |
# | --- | --- |
# | “For quick experiments: LoRA, simpler and faster” | **Holds.** DoRA needs the norm of each weight at every step: more time in both of our measurements, and +26% time and +10% memory in [PEFT's benchmark](https://github.com/huggingface/peft/tree/main/method_comparison) (Llama-3.2-3B, one run of each, as of PEFT 0.19) |
# | “In production: DoRA, better quality, minimal overhead” | **Not supported.** Merged, both cost the same, so what counts is quality and the cost of training; [when each has its own learning rate](https://arxiv.org/abs/2602.04998), LoRA and its variants end within one or two per cent of each other |
# | “For commonsense reasoning: DoRA, +3.7 points” | **Not so simple.** The gains in the paper's table 1 are +0.3 to +4.4, re-runs spread by more than that (section 1), and our runs show none where the rate suits LoRA (section 6) |
# | “For code generation: DoRA, by directional adaptation” | **A hint, for another reason.** On our tiny model and Python code DoRA's loss ends half a per cent lower over five ranks (above). But at rank 8 `m` alone does that, without the norm (lesson 05), and we know of no source for the reason given |
# | “Where memory is short: LoRA, slightly fewer parameters” | **Holds, for another reason.** The magnitude is a few per cent of the adapter; what DoRA keeps for the backward pass is more (above, and lesson 02). Detaching the norm took the paper's own training from 37.3 to 28.2 GB (its table 7) |
# | “From 70B on: DoRA” | **Not tested.** The largest model in the paper has 13B, and its gains are the smallest of table 1, +1.0 and +0.3 |
# | “At a low rank: DoRA” | **Open.** The paper's largest gains are at ranks 4 and 8 (its table 15: 39.5 to 61.9 and 40.7 to 77.9), but LoRA had one learning rate for all ranks, and on some tasks it scored below guessing there: either the training failed, or the form of the answers. On our tiny model the gap is largest at rank 4, 0.8% of the loss (0.7% with other seeds, lesson 05) |
# | “Where the learning rate is hard to search: DoRA” | **A hint.** DoRA tolerated higher rates than LoRA on our tiny model at ranks 8 and 64 (lessons 04 and 07), and so did `m` alone |
#
# In short: start with LoRA and a search over learning rates. If the last bit of quality matters and
# training time is cheap, try DoRA with its own search and several seeds, and keep what wins on your
# data.

# %% [markdown]
# ## 8. Which mistake is this?
#
# Each line describes another version of an exercise. **Predict** what its check finds, then choose, and
# the actual finding appears. A version may be right, or wrong in a way that *this* check cannot see.
# There are no points here. Once your own answers have passed, each finding comes with the code.

# %% tags=["nbval-check-output", "remove-input"]
quiz.which_mistake("peft_and_commonsense")

# %% [markdown]
# ## Checkpoint
#
# 1. "+3.7 points": against which LoRA, and how much is left against the authors' own run of it?
# 2. Which two things do you need, besides an adapter's folder, to use the adapter? What does merging
#    change?
# 3. Why is `lora_B` written without the scaling?
# 4. Two methods differ by 0.3 points, and the standard error of each accuracy is 1 point. Can the
#    difference be real?
#
# <details><summary>Answers</summary>
#
# 1. A row quoted from another paper; 2.15 points are left (+2.1 between the averages as printed).
# 2. The same base model, and PEFT or a reader of its format. Merging puts the update into the
#    weight: no adapter, no extra time, and no way back without the original weight.
# 3. PEFT multiplies by `lora_alpha / r` (or by `lora_alpha / sqrt(r)`) when it runs; a scaling in
#    the tensor would count twice.
# 4. Yes: the standard errors say how an accuracy would vary with other test questions, and both methods
#    answered the same ones. Only the paired difference and its interval can tell.
# </details>

# %% [markdown]
# ## Further reading
#
# - Liu et al., [DoRA](https://arxiv.org/abs/2402.09353), 2024: table 1, and tables 8 and 15 in its
#   appendix
# - Hu et al., [LLM-Adapters](https://arxiv.org/abs/2304.01933), 2023: where the tasks and the
#   quoted LoRA row come from
# - PEFT's pages on [LoRA](https://huggingface.co/docs/peft/package_reference/lora) and
#   [DoRA](https://huggingface.co/docs/peft/package_reference/lora_variant_dora)
# - Lee et al., [Learning Rate Matters: Vanilla LoRA May Suffice](https://arxiv.org/abs/2602.04998),
#   2026
# - Allal et al., [SmolLM2](https://arxiv.org/abs/2502.02737), 2025
#
# **Next:** [lesson 07](07-rslora-challenge.ipynb) asks what a high rank does to the scaling.

# %% [markdown] tags=["remove-cell"]
# ## How far you are
#
# Save the notebook (Ctrl+S), then run this cell: it reads what the checks said in each lesson, and
# leads to each exercise.

# %% tags=["remove-cell"]
progress.overview()
