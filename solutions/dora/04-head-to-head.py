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
# # 3.1.2 DoRA · Lesson 04: head to head
#
# [Start](../00-start.ipynb) | [← 03 · what training does to a weight](03-decomposition.ipynb) | [05 · rank and magnitude →](05-rank-and-magnitude.ipynb)
#
# **About 35 minutes**, less than one of them computing. You need PyTorch's training loop, and the ideas of
# lessons 01 and 02; your own layers are not needed.
#
# After this lesson you can
# - set up a comparison in which two runs differ in the method and in nothing else;
# - choose a learning rate for each method without looking at the test data;
# - give a difference with its interval, and say what it shows and what it does not.

# %% jupyter={"source_hidden": true} tags=["remove-cell"]
# Set-up: run this cell first. Its code is folded; a click on the dots shows it.
from importlib.util import find_spec

if find_spec("lab_utils") is None:
    raise ModuleNotFoundError(
        "This kernel has no lab_utils. Choose the kernel “DoRA Lab (Python 3)” at the top right; if "
        "it is not listed, run `make lab` in the folder of the lab."
    )

import copy
import tempfile
from pathlib import Path
from statistics import fmean
from textwrap import fill

import numpy as np
import torch
from scipy import stats

from lab_utils import checks, comparison, data, layers, plots, progress, quiz, training, widgets
from lab_utils.training import Settings

# %% [markdown]
# ## 1. What a fair comparison needs
#
# The question: adapt the same small language model to the same text, once by LoRA and once by
# DoRA. Which ends with the lower loss on code that neither has seen? (The loss is the mean of $-\ln p$
# over the bytes to predict, in *nats* per byte.)
#
# It is easy to measure something else by accident:
#
# | what differs | what you then measure |
# | --- | --- |
# | the base (a seed that is set *after* the model is built) | luck of the base |
# | `lora_A`, or the order of the batches | luck of the seed |
# | one learning rate for both methods | which method that rate happens to suit |
# | the rate chosen by the test loss | how well you searched |
# | one seed | nothing that you could tell from noise |
#
# So: for each seed the same base, `lora_A` and batches for both methods; for each method its own
# learning rate, from one grid, chosen on validation data; several seeds; the difference taken seed
# by seed, with an interval; and test data that are used once, at the end.

# %% tags=["nbval-check-output"]
task = data.language_task()
print(
    "base:",
    sum(p.numel() for p in task.base.parameters()),
    "parameters, pretrained on Python's language reference",
)
print("task: predict the next byte of Python source code, in windows of", task.base.context)
print("an example:", repr(bytes(task.train.inputs[3].tolist()).decode()[:60]))

# %% [markdown]
# ## 2. The same model twice
#
# ### Exercise 1: `add_adapters_to_model` (5 points)
#
# Return a **copy** of a language model with adapters. What must hold:
# - `q_proj`, `k_proj`, `v_proj` and `o_proj` of every block are replaced by `layers.LoRALayer`
#   (`"lora"`) or `layers.DoRALayer` (`"dora"`), each a new one with this rank and alpha, and with its
#   other arguments left at their defaults;
# - nothing but the adapters is trainable;
# - the model that you are given stays as it is (what is trainable stays trainable, and its mode is kept),
#   and shares no tensor with the copy: the other method has to start from it;
# - any other `adapter_type`, such as `"LoRA"`, `"dora-input"`, `""`, `None` or a number, is an error:
#   raise `ValueError`;
# - the copy may be in training or in evaluation mode.
#
# <details><summary>Hint 1: the order</summary>
#
# Copy (`copy.deepcopy`), freeze the whole copy (`requires_grad_(False)`), then put the adapters in:
# their new parameters are trainable.
# </details>
#
# <details><summary>Hint 2: replacing a layer</summary>
#
# `model.blocks` holds the blocks; `getattr(block, "q_proj")` and `setattr(block, "q_proj", layer)`
# read and replace. Or go through `list(model.named_modules())` and use `model.set_submodule`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "add-adapters", "locked": false, "schema_version": 3, "solution": true, "task": false}
def add_adapters_to_model(model, adapter_type, rank=8, alpha=16.0):
    """Return a copy of a TinyLanguageModel with trainable adapters in its attention.

    adapter_type: "lora" or "dora"; ValueError for anything else
    rank, alpha: of every adapter
    """
    ### BEGIN SOLUTION
    types = {"lora": layers.LoRALayer, "dora": layers.DoRALayer}
    if adapter_type not in types:
        raise ValueError(f"adapter_type is {adapter_type!r}; it must be 'lora' or 'dora'")
    model = copy.deepcopy(model).requires_grad_(False)
    for block in model.blocks:
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            layer = types[adapter_type](getattr(block, name), rank=rank, alpha=alpha)
            setattr(block, name, layer)
    return model
    ### END SOLUTION


# %% [markdown]
# The adapters (2 points), what is frozen and what stays (2 points), other types (1 point):

# %% nbgrader={"grade": true, "grade_id": "add-adapters-layers", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_add_adapters(add_adapters_to_model, "layers")
### BEGIN HIDDEN TESTS
checks.check_add_adapters(add_adapters_to_model, "layers", n_blocks=5, rank=5, alpha=4.0, seed=61)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "add-adapters-frozen", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_add_adapters(add_adapters_to_model, "frozen")
### BEGIN HIDDEN TESTS
checks.check_add_adapters(add_adapters_to_model, "frozen", n_blocks=5, rank=1, seed=62)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "add-adapters-types", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_add_adapters(add_adapters_to_model, "types")
### BEGIN HIDDEN TESTS
checks.check_add_adapters(add_adapters_to_model, "types", n_blocks=1, seed=60)
### END HIDDEN TESTS

# %% [markdown]
# `lab_utils.adapters` does the same, with one thing more: it draws every `lora_A` from a generator
# that you pass in. Equal seeds then give LoRA and DoRA the same `lora_A`, and every run of the lab
# keeps a fingerprint of its base, its batches and its `lora_A`. Runs that differ in any of these cannot
# be paired:

# %% tags=["nbval-check-output"]
short = {"n_epochs": 1, "task": "regression", "verbose": False}
lora = [training.train_and_evaluate("lora", **short, seed=seed) for seed in (0, 1)]
dora = [training.train_and_evaluate("dora", **short, seed=seed) for seed in (0, 1)]
print("same base, batches and lora_A:", lora[0]["pairing"] == dora[0]["pairing"])
dora[1]["pairing"] = dora[1]["pairing"] | {"base": "another one"}
try:
    comparison.paired_difference(lora, dora)
except comparison.PairingError as error:
    print(fill(f"PairingError: {error}", 88))

# %% [markdown]
# ## 3. One step of training
#
# ### Exercise 2: `train_step` (4 points)
#
# One step on one batch. What must hold:
# - the loss is `data.next_byte_loss(model(inputs), targets)`, of a batch of any size;
# - its gradients are clipped so that those of all trained parameters together have a norm of at most
#   `max_norm` (a smaller norm stays as it is), and then the optimiser takes its step;
# - what is returned are the loss (before the step) and the norm (before clipping), both as floats,
#   not rounded;
# - the optimiser may be any of PyTorch's, with one or several parameter groups, and it holds all
#   parameters that are not frozen;
# - there are no gradients before the first step, so `zero_grad` may come before `backward` or after
#   `step`;
# - the batch stays as it is.
#
# The model comes in training mode; leave it there.
#
# <details><summary>Hint</summary>
#
# `zero_grad`, loss, `backward`, `torch.nn.utils.clip_grad_norm_` (which returns the norm that it
# found), `step`. `.item()` makes a float of a tensor, so that the graph of the step is freed.
# </details>
#
# <details><summary>PyTorch functions that the lab uses</summary>
#
# | function | what it does |
# | --- | --- |
# | `torch.nn.utils.clip_grad_norm_(parameters, max_norm)` | scales all gradients together so that their norm is at most `max_norm`; returns the norm before |
# | `F.cosine_similarity(a, b, dim)` | the cosine between vectors, from -1 to 1 |
# | `F.scaled_dot_product_attention(q, k, v, is_causal=True)` | attention, by the fastest kernel that fits |
# | `module.register_buffer(name, tensor)` | keeps a tensor with the module (in `state_dict`, moved by `.to`) that is not trained |
# | `module.requires_grad_(False)` | freezes every parameter of a module |
# | `tensor.detach()` | the same numbers, as a constant in the backward pass |
# </details>


# %% nbgrader={"grade": false, "grade_id": "train-step", "locked": false, "schema_version": 3, "solution": true, "task": false}
def train_step(model, batch, optimizer, max_norm=1.0):
    """Take one step on a batch (inputs, targets); return (loss, gradient_norm)."""
    ### BEGIN SOLUTION
    inputs, targets = batch
    optimizer.zero_grad()
    loss = data.next_byte_loss(model(inputs), targets)
    loss.backward()
    gradient_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return loss.item(), gradient_norm.item()
    ### END SOLUTION


# %% [markdown]
# What is returned (2 points), and what the steps do to the weights (2 points):

# %% nbgrader={"grade": true, "grade_id": "train-step-numbers", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_train_step(train_step, "numbers")
### BEGIN HIDDEN TESTS
checks.check_train_step(train_step, "numbers", max_norm=0.1, steps=5, seed=63)
checks.check_train_step(train_step, "numbers", max_norm=100.0, seed=64)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "train-step-weights", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_train_step(train_step, "weights")
### BEGIN HIDDEN TESTS
checks.check_train_step(train_step, "weights", max_norm=0.1, steps=5, seed=65)
checks.check_train_step(train_step, "weights", max_norm=100.0, seed=66)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Watch it train
#
# One pass over the data for each method, rank 8, one seed, AdamW, the learning rate falling to
# zero along a cosine. The next section says where these rates come from.

# %%
RATES = {"lora": 0.012, "dora": 0.012}
chart, live = widgets.LiveLosses(), {}
for method, rate in RATES.items():
    live[method] = training.train_and_evaluate(
        method, n_epochs=1, rank=8, learning_rate=rate, on_step=chart.follow(method)
    )
chart.draw()

# %% [markdown]
# Can you tell from this picture which method is better? The points of one method scatter far more
# than the two lines differ. Both saw the same batches, so they scatter *together*: the difference
# at each step is much steadier than the losses. That is what pairing is about.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# How much the losses vary, and their difference.
gap = torch.tensor(live["dora"]["step_losses"]) - torch.tensor(live["lora"]["step_losses"])
last = gap[len(gap) // 2 :]
losses = torch.tensor(live["lora"]["step_losses"])[len(gap) // 2 :]
print(f"second half of the training: losses of LoRA vary by ±{losses.std():.3f},")
print(f"DoRA minus LoRA at the same step by ±{last.std():.3f}, around {last.mean():+.3f}")

# %% [markdown]
# What it costs, on this machine:

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The table: what a step costs.
for method, result in live.items():
    steps = len(result["step_losses"]) - 1  # the first step is not timed
    print(
        f"{plots.NAMES[method]}: {result['trainable_params']:,} trained, "
        f"{1000 * result['seconds'] / steps:.0f} ms a step, "
        f"{result['peak_memory'] / 1e6:.1f} MB held at most in a step"
    )

# %% [markdown]
# ## 5. A learning rate for each
#
# A rate is chosen by the loss on *validation* data, which no run is trained on, after three passes over the
# training data, with five seeds; ten others report. Six rates are tried for every method, then the neighbours
# of its best one, a factor of about 1.6 away, until the best has both. (In a coarser grid, with steps of
# 2.5, LoRA at rank 16 got 0.005 and DoRA 0.012, and more than half of the gap came from the grid.) These
# runs were made once (`benchmarks/head_to_head.py`); here is rank 8. An outline marks the rate that a
# method gets; a triangle means "above the picture".

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: validation loss over the learning rate.
found = comparison.read_results(comparison.RESULTS / "head-to-head.jsonl")
RANK_OF = {"lora": 8, "dora": 8, "dora-input": 8, "full": None}
tried = {
    method: comparison.select(found, adapter_type=method, rank=rank, targets=None)
    for method, rank in RANK_OF.items()
}
curves = {
    method: comparison.learning_rate_curve(comparison.of_the_search(runs), "validation_loss")
    for method, runs in tried.items()
}
plots.show(
    plots.loss_by_rate(curves, highest=2.2),
    "Validation loss over learning rates. Full fine-tuning is lowest at 0.0013 and diverges "
    "first. LoRA and both forms of DoRA are lowest at 0.012, close together; at 0.03 LoRA diverges "
    "and DoRA does not.",
)

# %% jupyter={"source_hidden": true} tags=["nbval-check-output", "remove-input"]
# The table: the chosen rates, and the difference at each.
chosen = {method: comparison.reported(runs) for method, runs in tried.items()}
for method, runs in chosen.items():
    print(f"{plots.NAMES[method]:17} learning rate {runs[0]['learning_rate']:g}")
print()
print("DoRA minus LoRA, validation loss, if both had one rate:")
for rate in sorted(curves["lora"].keys() & curves["dora"].keys()):
    difference = fmean(curves["dora"][rate]) - fmean(curves["lora"][rate])
    print(f"  {rate:g}: {difference:+.3f}")

# %% [markdown]
# The rate matters more than the method. DoRA's best and worst rates are a quarter of a nat apart, and
# LoRA's more than one; the two methods, each at its best, differ by less than a hundredth. A
# comparison at 0.03 would have shown an enormous "advantage of DoRA" (-1.2), which is LoRA diverging
# with all five seeds. That is a result too, but a different one: at rank 8 DoRA tolerates higher
# rates than LoRA. (At ranks 16 and 32 that rate leaves DoRA about where the base was, and LoRA
# above it.)
#
# [Lee et al. (2026)](https://arxiv.org/abs/2602.04998) searched rates for LoRA and its variants on
# large models: once tuned, all peaked within 1 to 2% of each other. Our two end half a per cent apart.

# %% [markdown]
# ## 6. Is it luck?
#
# Each seed gives a difference, DoRA minus LoRA. Their mean is our estimate; how far could it be
# off? With $d_i$ the differences, $\bar d$ their mean and $s$ their standard deviation (with $n - 1$
# in the denominator), the interval is
#
# $$\bar d \pm t_{n-1} \frac{s}{\sqrt n}$$
#
# where $t_{n-1}$ is the quantile of Student's t distribution that leaves $(1 - c)/2$ on each side,
# for a confidence of $c$. With five seeds and $c = 0.95$ it is 2.78, not 1.96, because $s$ itself is
# uncertain.

# %% [markdown]
# ### Exercise 3: `paired_difference` (4 points)
#
# Return mean, low and high of DoRA minus LoRA as floats, not rounded, for two seeds or more and any
# confidence between 0 and 1. Where all differences are equal, $s$ is zero and both ends are the
# mean; NaN, which SciPy's `t.interval` gives there, is accepted, too. Both lists stay as they are.
#
# <details><summary>Hint</summary>
#
# `scipy.stats.t.ppf((1 + confidence) / 2, n - 1)` is the quantile.
# </details>


# %% nbgrader={"grade": false, "grade_id": "paired-difference", "locked": false, "schema_version": 3, "solution": true, "task": false}
def paired_difference(lora_losses, dora_losses, confidence=0.95):
    """Return (mean, low, high) of DoRA minus LoRA, as floats.

    lora_losses, dora_losses: lists of floats, one for each seed, in the same order
    """
    ### BEGIN SOLUTION
    pairs = zip(lora_losses, dora_losses, strict=True)
    differences = np.array([dora - lora for lora, dora in pairs])
    mean, error = differences.mean(), stats.sem(differences)
    half = stats.t.ppf((1 + confidence) / 2, len(differences) - 1) * error
    return float(mean), float(mean - half), float(mean + half)
    ### END SOLUTION


# %% [markdown]
# The mean (1 point) and the interval (3 points):

# %% nbgrader={"grade": true, "grade_id": "paired-difference-mean", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_paired_difference(paired_difference, "mean")
### BEGIN HIDDEN TESTS
checks.check_paired_difference(paired_difference, "mean", seeds=8, seed=67)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "paired-difference-interval", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_paired_difference(paired_difference, "interval")
### BEGIN HIDDEN TESTS
checks.check_paired_difference(paired_difference, "interval", seeds=3, confidence=0.99, seed=68)
checks.check_paired_difference(paired_difference, "interval", seeds=12, confidence=0.5, seed=69)
### END HIDDEN TESTS

# %% [markdown]
# How many seeds does it take? Drag from 2 to 10, and compare the interval that uses the pairs with
# the one that treats the two lists as unrelated. Each dot is the difference of one seed.

# %%
test_losses = {method: [run["test_loss"] for run in runs] for method, runs in chosen.items()}
widgets.seeds_explorer(test_losses["lora"], test_losses["dora"])

# %% [markdown]
# Pairing gains little here: the interval is about a tenth narrower. After three passes the two runs of a
# seed share little of their luck, much less than two losses of the same step did in section 4. But
# pairing costs nothing.
#
# ### Your own three seeds
#
# One pass over the data instead of three. The pair that you watched was seed 0; here are two more,
# two runs at a time. Each result is saved as soon as its run ends: if you interrupt the cell and run
# it again, `comparison.sweep` continues where it stopped.

# %%
own_runs = [
    Settings(adapter_type=method, n_epochs=1, learning_rate=rate, seed=seed)
    for seed in (1, 2)
    for method, rate in RATES.items()
]
folder = Path(tempfile.gettempdir(), f"dora-lab-{len(task.train)}-windows")
own = [*live.values(), *comparison.sweep(own_runs, folder / "own-runs.jsonl", n_jobs=2)]
print(comparison.paired_difference(own[::2], own[1::2]))

# %% [markdown]
# ### The whole experiment
#
# Three passes, each method at its own rate, on test data, with ten new seeds: the five that chose the
# rate are not among them.

# %% tags=["nbval-check-output"]
differences = [
    comparison.paired_difference(chosen["lora"], chosen[method])
    for method in ("dora", "dora-input", "full")
]
print(*differences, sep="\n\n")

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: the loss of every seed, and the paired differences.
adapters = {method: test_losses[method] for method in ("lora", "dora", "dora-input")}
plots.show(
    plots.final_losses(adapters, differences[:2]),
    "Left, the test loss of ten seeds for LoRA, DoRA and DoRA with norm_dim=0. Right, the paired "
    "differences to LoRA: both intervals lie below zero, and they overlap.",
)

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: losses over the training.
plots.show(
    plots.loss_curves(chosen),
    "Training and validation loss over three epochs, means of ten seeds. The three "
    "adapters lie on each other; full fine-tuning is far below and begins to overfit.",
)

# %% [markdown]
# An interval covers only what varied when it was computed. Here that is the seed (`lora_A`, the order of
# batches), on one test text. Would another text say the same? The validation text is one (it chose the
# rate, but with other seeds). And the windows of the test text can be taken as a sample of all that could
# have been dealt into it: functions of the same five modules of Python's library. (Neighbouring windows are
# a little alike, which makes that last interval slightly too narrow.)

# %% jupyter={"source_hidden": true} tags=["nbval-check-output", "remove-input"]
# The table: the same difference on two texts, and over windows.
for other in ("dora", "dora-input"):
    pair = chosen["lora"], chosen[other]
    print(f"{plots.NAMES[other]} minus LoRA")
    for name, gap in (
        ("test text, over seeds", comparison.paired_difference(*pair)),
        ("validation text, over seeds", comparison.paired_difference(*pair, "validation_loss")),
        ("over seeds and test windows", comparison.paired_difference(*pair, over_text=True)),
    ):
        print(f"  {name:28} {gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})")
between = comparison.paired_difference(chosen["dora"], chosen["dora-input"])
print(
    f"norm_dim=0 minus norm_dim=1: {between.mean:+.4f} ({between.low:+.4f} to {between.high:+.4f})"
)

# %% [markdown]
# ### Learns less, forgets less?
#
# Full fine-tuning differs from the adapters in two things: it trains *all* layers, not only the attention's
# four matrices in each block, and its updates can have any rank. Two controls take these apart: full
# fine-tuning of the attention matrices alone, and adapters of rank 64. And what does a lower loss cost? A
# part of Python's language reference that was held out of the pretraining (the *manual* in the table), the
# base's own kind of text, shows what was **forgotten** ([Biderman et al.,
# 2024](https://arxiv.org/abs/2405.09673)).
# **Intruders** ([Shuttleworth et al., 2024](https://arxiv.org/abs/2410.21228)) are directions that the
# base did not have. A direction is a left singular vector: of the ten strongest of each of the 16
# attention matrices, we count those with a cosine below 0.6 to every direction of the base.

# %% jupyter={"source_hidden": true} tags=["nbval-check-output", "remove-input"]
# The table: what was learned and forgotten.
arms = {
    "LoRA, rank 8": ("lora", 8, None),
    "DoRA, rank 8": ("dora", 8, None),
    "LoRA, rank 64": ("lora", 64, None),
    "DoRA, rank 64": ("dora", 64, None),
    "full, attention only": ("full", None, "attention"),
    "full": ("full", None, None),
}
before = training.evaluate(task.base, data.reference_split(), task.loss)
print(f"loss on the manual before training: {before:.3f}; after it, means of ten seeds:\n")
print("                        rate   trained   code   manual   intruders of 160")
for name, (method, rank, targets) in arms.items():
    reported = comparison.reported(
        comparison.select(found, adapter_type=method, rank=rank, targets=targets)
    )
    code, manual, new = (
        fmean(run[key] for run in reported) for key in ("test_loss", "reference_loss", "intruders")
    )
    print(
        f"{name:21} {reported[0]['learning_rate']:6g} {reported[0]['trainable_params']:9,}"
        f"  {code:.3f}    {manual:.3f}   {new:.0f}"
    )

# %% [markdown]
# *The layers.* From LoRA's 1.778 to full fine-tuning's 1.626 is 0.15. Full fine-tuning of the
# attention alone covers 0.053 of that, a third, and LoRA at rank 64 covers 0.061. The other way round,
# LoRA of rank 8 in the MLPs as well (lesson 05) covers 0.116, three quarters. So most of the gap, 59 to 76%,
# comes from the layers that were left out, and the rest from the rank: how much depends on which of the two
# is changed first.
#
# *Forgetting.* "LoRA learns less and forgets less" holds here for rank 8 against full fine-tuning, but
# not as a law of low rank: full fine-tuning of the attention alone learned more *and* forgot less than
# the adapters of rank 8, and LoRA at rank 64 forgot about as much as full fine-tuning of everything.
# (Each of these rows has its own learning rate, so some of this may be the rate: forgetting was not
# measured at other rates.) DoRA forgets a little more than LoRA: by 0.012 on average over the five ranks
# of lesson 05 (0.008 to 0.016), from 0.004 at rank 64 to 0.021 at rank 8, and by 0.013 in the twenty
# other seeds there. From rank 8 on, both have the same rate, so there the rate is not the reason.
#
# *Intruders.* Most strong directions of these four adapters are intruders. But so are those of a null model: in
# the layer of lesson 03, LoRA and DoRA of ranks 4 to 32 made 4 to 10 of the ten, and random updates with
# the same singular values make as many, to within two. So in that layer the count says mostly how large a
# low-rank update is. It does not follow the forgetting: DoRA at rank 8 and LoRA at rank 64 have nearly the
# same count, and forget differently.

# %% [markdown]
# ## 7. What the numbers show, and what they do not
#
# **They show**, for this model and this task at rank 8:
# - DoRA ends 0.0089 nats per byte below LoRA, half a per cent (-0.0119 to -0.0059 over seeds); on other
#   code of the same five modules it may be half or one and a half times as much;
# - with one magnitude per *input* the difference to LoRA is about the same, -0.0078, and the two axes
#   differ by 0.004 at most (lesson 05 has twenty more seeds);
# - full fine-tuning ends 0.15 below LoRA, seventeen times the gain of DoRA, most of it by the choice of
#   layers;
# - DoRA still trains at a rate of 0.03, at which LoRA diverges.
#
# **They do not show**
# - that DoRA is better for large models, other tasks, other layers or other ranks. Lesson 05 looks
#   at ranks and layers, lesson 06 at a real language model;
# - that half a per cent is worth DoRA's extra time and memory (section 4 measured both);
# - why. More parameters, lengths that are trained separately, a better-behaved step size: each of these
#   would look the same here. Lesson 05 takes DoRA apart.

# %% [markdown]
# ## 8. A benchmark that hides everything
#
# A common toy comparison: inputs of Gaussian noise, targets $y = Tx$ with a random matrix $T$, and a
# base that is one *untrained* transformer block. It runs in seconds. What does it measure?

# %% tags=["nbval-check-output"]
toy = data.regression_task()
inputs, targets = toy.train.inputs.flatten(0, 1), toy.train.targets.flatten(0, 1)
fit = torch.linalg.lstsq(inputs, targets).solution
print(f"predict zero, always:  {toy.test.targets.square().mean():.2f}")
print(f"least squares:         {toy.loss(toy.test.inputs @ fit, toy.test.targets):.4f}")
for method in ("lora", "dora"):
    searched = [
        training.train_and_evaluate(
            method, n_epochs=5, task="regression", learning_rate=rate, verbose=False
        )
        for rate in (0.01, 0.02, 0.05, 0.1)
    ]
    best = min(searched, key=lambda run: run["validation_loss"])
    print(f"{plots.NAMES[method]}, its best rate:  {best['test_loss']:.1f}")

# %% [markdown]
# One line of algebra beats both by a factor of thousands, and DoRA does no better than always
# predicting zero. LoRA "wins" by a wide margin (one seed), the opposite of our language task.
# None of this says anything about fine-tuning: there is no pretrained knowledge to keep, and neither the
# block nor a low-rank update of it suits the task. Always ask what a trivial predictor would get.

# %% [markdown]
# ## 9. Which mistake is this?
#
# Each line describes another version of an exercise. **Predict** what its check finds, then choose, and
# the actual finding appears. A version may be right, or wrong in a way that *this* check cannot see.
# There are no points here. Once your own answers have passed, each finding comes with the code.

# %% tags=["nbval-check-output", "remove-input"]
quiz.which_mistake("head_to_head")

# %% [markdown]
# ## Checkpoint
#
# 1. Both methods get the learning rate 0.03, and DoRA ends far lower. What have you shown?
# 2. When is a paired interval much narrower than the unpaired one, and when is it not?
# 3. An interval over ten seeds is below zero. Name two things that it says nothing about.
# 4. Full fine-tuning ends 0.15 below LoRA. Is that the price of a low rank?
#
# <details><summary>Answers</summary>
#
# 1. That DoRA tolerates that rate and LoRA does not. LoRA at its own rate ends 0.009 above DoRA at its own.
# 2. What a seed does to both runs drops out of their difference: much if it moves both losses alike, as
#    a batch does to the losses of a step; nothing if the two losses are unrelated.
# 3. Other texts (unless the windows count as a sample, too), other models, tasks, ranks and layers; and
#    whether the rate of each method was searched as finely.
# 4. A quarter to two fifths of it: full fine-tuning of the same four matrices ends 0.053 below LoRA, and
#    LoRA of rank 64 ends 0.061 below. The rest is that everything else was trained, too.
# </details>

# %% [markdown]
# ## Further reading
#
# - Lee et al., [Learning Rate Matters: Vanilla LoRA May Suffice](https://arxiv.org/abs/2602.04998), 2026
# - Liu et al., [DoRA](https://arxiv.org/abs/2402.09353), 2024: table 1 and its settings, table 8
# - Biderman et al., [LoRA Learns Less and Forgets Less](https://arxiv.org/abs/2405.09673), 2024
# - `lab_utils/training.py` and `lab_utils/comparison.py`
#
# **Next:** [lesson 05](05-rank-and-magnitude.ipynb) varies the rank, and looks at what the
# magnitudes do.

# %% [markdown] tags=["remove-cell"]
# ## How far you are
#
# Save the notebook (Ctrl+S), then run this cell: it reads what the checks said in each lesson, and
# leads to each exercise.

# %% tags=["remove-cell"]
progress.overview()
