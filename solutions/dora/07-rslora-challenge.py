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
# # 3.1.2 DoRA · Lesson 07: the rsLoRA challenge
#
# [Start](../00-start.ipynb) | [← 06 · PEFT and commonsense](06-peft-and-commonsense.ipynb)
#
# **About 35 minutes.** You need lessons 01 and 02 or their ideas; lesson 04 helps.
#
# After this lesson you can
# - say what the rank does to the scaling and to the first gradient, and what rsLoRA changes;
# - measure a gradient norm, and tell it from what a step of AdamW does to the weight and the loss;
# - tell an effect of the scaling from one of the learning rate, for LoRA and for DoRA at rank 64;
# - plan a comparison of your own. That last part is open, and a person marks it.

# %% jupyter={"source_hidden": true} tags=["remove-cell"]
# Set-up: run this cell first. Its code is folded; a click on the dots shows it.
from importlib.util import find_spec

if find_spec("lab_utils") is None:
    raise ModuleNotFoundError(
        "This kernel has no lab_utils. Choose the kernel “DoRA Lab (Python 3)” at the top right; if "
        "it is not listed, run `make lab` in the folder of the lab."
    )

import gc
import itertools
import math
import statistics

import torch

from lab_utils import adapters, checks, comparison, data, plots, progress, quiz, training, widgets

# %% [markdown]
# ## 1. What the rank does to the scaling
#
# Think of a choir that sings too loudly, so the conductor asks each singer to divide their volume by the
# number of singers. A single singer sings at full volume; in a choir of sixty-four each whispers at a
# sixty-fourth. But voices do not add up like that: they are not in step, and sixty-four of them are only
# about eight times as loud as one. Divided by 64, the choir of 64 is eight times too quiet. Divided by
# $\sqrt{64} = 8$ it is as loud as a single voice.
#
# LoRA multiplies $BA$ by $s = \alpha / r$. $BA$ is a sum of $r$ products, one for each row $a_j$ of
# `lora_A`: the singers. At the start `lora_B` is zero, so `lora_A` gets no gradient, and `lora_B`
# gets
#
# $$\nabla_B L = s \, (\nabla_{W'} L) \, A^\top$$
#
# (shapes: `(out, r)` from `(out, in)` times `(in, r)`). $A^\top$ has $r$ columns of about the same
# size, so the norm of this gradient grows with $\sqrt{r}$, and with $s$:
#
# | rule | scaling $s$ | norm of the first gradient |
# | --- | --- | --- |
# | usual | $\alpha / r$ | about $\alpha \cdot g / \sqrt{r}$: it falls as the rank rises |
# | rank-stabilised ([rsLoRA](https://arxiv.org/abs/2312.03732)) | $\alpha / \sqrt{r}$ | about $\alpha \cdot g$ at every rank |
#
# where $g$ depends on the model and the data. The rsLoRA paper proves more: when the rank grows, only
# a scaling like $1 / \sqrt{r}$ keeps both the output of the adapter and the gradient that it passes back
# from vanishing or exploding, throughout training by gradient descent. It costs nothing: only a number changes. In PEFT
# it is `use_rslora=True`, in this lab `rank_stabilized=True`, for LoRA and DoRA alike.
#
# Drag, and predict first: at rank 64, by how much do the two rules differ? What does the checkbox change?

# %%
widgets.scaling_explorer()

# %% [markdown]
# ### Exercise 1: `lora_scaling` (2 points)
#
# Return the exact scaling, for any alpha and any rank, as a float that is not rounded.
#
# <details><summary>Hint</summary>
#
# `math.sqrt(rank)` or `rank**0.5`. Only the rank is under the root.
# </details>


# %% nbgrader={"grade": false, "grade_id": "lora-scaling", "locked": false, "schema_version": 3, "solution": true, "task": false}
def lora_scaling(alpha, rank, rank_stabilized):
    """Return the number that B A is multiplied by, as a float.

    alpha: strength of the update, a number above 0
    rank: a whole number above 0
    rank_stabilized: False for alpha / rank, True for alpha / sqrt(rank)
    """
    ### BEGIN SOLUTION
    return alpha / math.sqrt(rank) if rank_stabilized else alpha / rank
    ### END SOLUTION


# %% [markdown]
# The usual rule (1 point), and the rank-stabilised one (1 point):

# %% nbgrader={"grade": true, "grade_id": "scaling-usual", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_lora_scaling(lora_scaling, "usual")
### BEGIN HIDDEN TESTS
checks.check_lora_scaling(lora_scaling, "usual", alpha=5.0, rank=64)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "scaling-stabilized", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_lora_scaling(lora_scaling, "stabilized")
### BEGIN HIDDEN TESTS
checks.check_lora_scaling(lora_scaling, "stabilized", alpha=5.0, rank=64)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. A fixed alpha, or nothing to see
#
# Many recipes, the DoRA paper's among them, set $\alpha = 2r$. Then $\alpha / r$ is 2 at every
# rank, and the effect of the rank on the scaling cancels: a sweep over ranks under this rule says
# nothing about $1/r$. (With $\alpha = 2r$ the first gradient even *grows* with the rank, like
# $\sqrt{r}$.) To compare the two rules, hold $\alpha$ fixed. Here are the scalings that this lesson
# works with:

# %% jupyter={"source_hidden": true} tags=["nbval-check-output", "remove-input"]
# The table: both scalings over the rank.
print("          alpha = 16                       alpha = 2 * rank")
print("rank   / rank    / sqrt(rank)   ratio   / rank   / sqrt(rank)")
for rank in (4, 8, 16, 32, 64):
    usual, stabilized = 16 / rank, 16 / math.sqrt(rank)
    growing = 2 * rank / rank, 2 * rank / math.sqrt(rank)
    print(
        f"{rank:4}   {usual:6.2f}   {stabilized:10.2f}   {stabilized / usual:5.1f}"
        f"   {growing[0]:6.2f}   {growing[1]:10.2f}"
    )

# %% [markdown]
# ## 3. The gradient before the first step
#
# The model is the lab's tiny language model, which was pretrained on Python's language reference and
# now has to predict Python code, byte by byte (lesson 04). This is its task, and the batch to measure
# on: the first eight windows of the training part.

# %%
task = data.language_task()
inputs, targets = task.train.inputs[:8], task.train.targets[:8]

# %% [markdown]
# ### Exercise 2: `gradient_norms_by_rank` (4 points)
#
# Is the table of section 1 right? Measure it. For each rank,
#
# 1. make a newly adapted model:
#    ```python
#    adapters.add_adapters_to_model(task.base, "lora", rank, alpha=16.0,
#        rank_stabilized=rank_stabilized, generator=torch.Generator().manual_seed(0))
#    ```
# 2. take the gradient of the loss `task.loss(model(inputs), targets)`, which is a mean over the
#    batch;
# 3. take the norm of the gradient of all trained parameters together, as if they were one long
#    vector: the root of the sum of all squares. Do not clip.
#
# Return a dict: its keys are the ranks, its values the norms, as plain floats, not rounded. Make a
# new generator for each rank, and take `inputs` and `targets` as they are: then `lora_A` and the
# batch are the same for everybody, and so is the norm.
#
# <details><summary>Hint: which parameters?</summary>
#
# `adapters.trainable_parameters(model)` is a dict from the name of each trained parameter to the
# parameter, whose `.grad` is there after `.backward()`.
# </details>
#
# <details><summary>Hint: the norm</summary>
#
# `torch.nn.utils.get_total_norm(list_of_gradients)` is a tensor; `.item()` makes a float of it. Or
# add up `gradient.square().sum()` and take the root at the end.
# </details>


# %% nbgrader={"grade": false, "grade_id": "gradient-norms", "locked": false, "schema_version": 3, "solution": true, "task": false}
def gradient_norms_by_rank(ranks, rank_stabilized):
    """Measure the norm of LoRA's first gradient at a fixed alpha of 16.

    ranks: whole numbers, such as (4, 16, 64)
    rank_stabilized: as in lora_scaling
    returns {rank: norm}, from each rank, an int, to a float
    """
    ### BEGIN SOLUTION
    norms = {}
    for rank in ranks:
        model = adapters.add_adapters_to_model(
            task.base,
            "lora",
            rank,
            alpha=16.0,
            rank_stabilized=rank_stabilized,
            generator=torch.Generator().manual_seed(0),
        )
        task.loss(model(inputs), targets).backward()
        gradients = [p.grad for p in adapters.trainable_parameters(model).values()]
        norms[rank] = torch.nn.utils.get_total_norm(gradients).item()
    return norms
    ### END SOLUTION


# %% [markdown]
# The usual rule (2 points), and the rank-stabilised one (2 points). The check compares five digits:

# %% nbgrader={"grade": true, "grade_id": "norms-usual", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_gradient_norms_by_rank(gradient_norms_by_rank, "usual")
### BEGIN HIDDEN TESTS
checks.check_gradient_norms_by_rank(gradient_norms_by_rank, "usual", ranks=(6, 32, 128))
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "norms-stabilized", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_gradient_norms_by_rank(gradient_norms_by_rank, "stabilized")
### BEGIN HIDDEN TESTS
checks.check_gradient_norms_by_rank(gradient_norms_by_rank, "stabilized", ranks=(6, 32, 128))
### END HIDDEN TESTS

# %% [markdown]
# ### What a step makes of it
#
# Does a small gradient make training slow? With plain gradient descent it would. But these runs use
# AdamW, which divides each gradient by its own recent size: **its steps do not depend on the norm of
# the gradient**. So look at what a step *does*. Predict: after one step at a learning rate of 0.005, how
# far has an entry of `lora_B` moved at rank 4, and how far at rank 64? How far has $W'$ moved? And by
# how much has the loss of the batch fallen?


# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The table: what one step does under each rule.
default_rate = training.Settings(adapter_type="lora").learning_rate


def first_step(method, rank, stabilized, alpha=16.0, plain=False):
    """Gradient norm, largest step of an entry of lora_B, change of all W' as a share, and of the loss.

    plain: take a step of plain gradient descent instead of one of AdamW
    """
    model = adapters.add_adapters_to_model(
        task.base,
        method,
        rank,
        alpha,
        rank_stabilized=stabilized,
        generator=torch.Generator().manual_seed(0),
    )
    adapted = list(adapters.adapter_layers(model).values())
    before = [layer.merged_weight().detach().clone() for layer in adapted]
    optimizer = training.make_optimizer(model, default_rate, weight_decay=0.01)
    if plain:
        optimizer = torch.optim.SGD(adapters.trainable_parameters(model).values(), lr=0.01)
    batch = inputs, targets
    loss, norm = training.train_step(model, batch, task.loss, optimizer, max_norm=math.inf)
    with torch.no_grad():
        fallen = task.loss(model(inputs), targets).item() - loss
    largest = max(layer.lora_B.abs().max().item() for layer in adapted)  # it started at zero
    moved = [layer.merged_weight() - w for layer, w in zip(adapted, before, strict=True)]
    size, distance = (torch.nn.utils.get_total_norm(found).item() for found in (before, moved))
    return norm, largest, distance / size, fallen


ways = {
    "alpha = 16, alpha / rank": (False, lambda rank: 16.0),
    "alpha = 16, alpha / sqrt(rank)": (True, lambda rank: 16.0),
    "alpha = 2 * rank, alpha / rank": (False, lambda rank: 2.0 * rank),
}
first = {
    (method, name, rank): first_step(method, rank, stabilized, alpha_of(rank))
    for method in ("lora", "dora")
    for name, (stabilized, alpha_of) in ways.items()
    for rank in (4, 16, 64)
}
print(f"{'':36}{'gradient norm':>21}  {'change of W':>17}'  {'change of loss':>18}")
print(f"{'rank':36}" + "  ".join(f"{4:{w}}{16:{w}}{64:{w}}" for w in (7, 6, 6)))
for method in ("lora", "dora"):
    for name in ways:
        norm, _, change, fallen = zip(
            *(first[method, name, rank] for rank in (4, 16, 64)), strict=True
        )
        print(
            f"{plots.NAMES[method]}, {name:30}"
            + "".join(f"{value:7.2f}" for value in norm)
            + "  "
            + "".join(f"{value:6.1%}" for value in change)
            + "  "
            + "".join(f"{value:6.2f}" for value in fallen)
        )
largest = [step for _, step, _, _ in first.values()]
print(f"largest step of an entry of lora_B: {min(largest):.4f} to {max(largest):.4f}\n")
print("change of loss by a step of plain gradient descent at a rate of 0.01, at the same ranks")
for name, (stabilized, alpha_of) in ways.items():
    fallen = [first_step("lora", r, stabilized, alpha_of(r), plain=True)[-1] for r in (4, 16, 64)]
    print(f"LoRA, {name:30}" + "".join(f"{value:8.3f}" for value in fallen))

# %% [markdown]
# At the first step every entry of `lora_B` moves by the learning rate $\eta$, at every rank and by every
# rule. What that does to $W'$ differs: the step is multiplied by `lora_A` and by $s$, so $W'$ moves by
# about $s\sqrt{r}$, the factor of section 1's table. Under $\alpha / r$ a step moves it 3.5 times less at
# rank 64 than at rank 4.
#
# Does a high rank therefore learn more slowly? **No: the loss falls by 0.36 at each of the three ranks.**
# (On four other batches, with other seeds, the ranks agree to within seven per cent.) The step is shorter
# but better aimed. Let $g$ be the gradient of one row of $W'$. AdamW moves each entry of `lora_B` against
# the sign of its gradient, which is $s\,g \cdot a_j$, so the row moves by
#
# $$-\eta\, s \sum_{j=1}^{r} \operatorname{sign}(g \cdot a_j)\, a_j$$
#
# Along $g$ all $r$ terms point downhill, and their sum grows with $s\,r$. Across $g$ they are not in step,
# like the voices of the choir, and their sum grows with $s\sqrt{r}$. Only the part along $g$ lowers the
# loss. It is the same at every rank under $\alpha / r$; under $\alpha / \sqrt{r}$ and with $\alpha = 2r$ it
# *grows* with the rank, and so does the fall of the loss. So under these two rules, ranks that are compared
# at one learning rate are compared at different speeds.
#
# **It depends on the optimiser.** In plain gradient descent the step of `lora_B` is proportional to its
# gradient, and so to $s$ once more: the part along $g$ grows with $s^2 r$. That is the same at every rank
# under $\alpha / \sqrt{r}$, as in rsLoRA's argument, and 16 times smaller at rank 64 than at rank 4 under
# $\alpha / r$: see the last lines of the table. So the gradient norm measures the speed of gradient descent.
# For AdamW it is only a sign of the scaling. (All of this is the first step, from a `lora_B` of zeros.
# Section 4 looks at whole trainings.)
#
# DoRA's steps are much the same. Only its gradient norm falls less under $\alpha / r$, because the gradient
# of its magnitude does not shrink with the scaling.

# %% [markdown]
# ## 4. Over a whole training
#
# One run takes half a minute, and an answer needs many, so they were made beforehand:
# `benchmarks/rslora.py` trained each setting with nine seeds for three epochs, and its results come
# with the lab. The runs that are compared differ only in the scaling: same base, same `lora_A`, same
# batches, and one learning rate.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: test loss over the rank under each rule.
records = comparison.read_results(comparison.RESULTS / "rslora.jsonl")
ranks = (4, 8, 16, 32, 64)


def runs(method, rank, stabilized, rate=default_rate, alpha=16.0):
    """The committed runs of one setting, one for each of the first nine seeds that it has."""
    found = comparison.select(
        records,
        adapter_type=method,
        rank=rank,
        rank_stabilized=stabilized,
        learning_rate=rate,
        alpha=alpha,
    )
    return [run for run in found if run["seed"] < 9]


def mean(found, key="test_loss"):
    return statistics.fmean(record[key] for record in found)


by_rule = {
    "alpha = 16, alpha / rank": {r: runs("lora", r, False) for r in ranks},
    "alpha = 16, alpha / sqrt(rank)": {r: runs("lora", r, True) for r in ranks},
    "alpha = 2 * rank, alpha / rank": {r: runs("lora", r, False, alpha=2.0 * r) for r in ranks},
}
losses = {
    name: {rank: [run["test_loss"] for run in found] for rank, found in by_rank.items()}
    for name, by_rank in by_rule.items()
}
print(f"test loss in nats per byte, mean of {len(runs('lora', 4, False))} seeds")
print(f"{'rank':32}" + "".join(f"{rank:8}" for rank in ranks))
for name, by_rank in losses.items():
    print(f"{name:32}" + "".join(f"{statistics.fmean(by_rank[rank]):8.3f}" for rank in ranks))
fixed = list(losses.values())[:2]
lead = {rank: statistics.fmean(fixed[0][rank]) - statistics.fmean(fixed[1][rank]) for rank in ranks}
print(f"{'the second is ahead of the first':32}" + "".join(f"{lead[rank]:8.3f}" for rank in ranks))
plots.show(
    plots.loss_by_rule(losses),
    "Test loss over the rank for LoRA. "
    + ". ".join(
        f"With {name}: from {statistics.fmean(by_rank[4]):.2f} at rank 4 to "
        f"{statistics.fmean(by_rank[64]):.2f} at rank 64"
        for name, by_rank in losses.items()
    ),
)

# %% [markdown]
# A higher rank ends lower under every rule on this task. But with a fixed alpha the two rules drift
# apart: the rank-stabilised one is ahead by about 0.01 at rank 4 and by about 0.035 at rank 64 (at each
# of the five ranks the interval excludes zero, corrected for five). So at this learning rate
# $\alpha / r$ loses a part of what a higher rank could give. And the dotted line, the usual recipe: at
# rank 8 it *is* the dashed one ($\alpha = 16$ there), and at rank 64 it is the solid one, run for run,
# since $2 \cdot 64 / 64 = 16 / \sqrt{64} = 2$. With $\alpha = 2r$ the scaling no longer shrinks, and
# so a good part of the reason for rsLoRA is gone.
#
# **Would other seeds say the same?** Three that had no part in any of this, for LoRA at the lowest and the
# highest rank, and for DoRA at the highest:

# %% jupyter={"source_hidden": true} tags=["nbval-check-output", "remove-input"]
# The table: the rank-stabilised rule against the usual one, found again.
again = comparison.read_results(comparison.RESULTS / "rslora-again.jsonl")
for method, rank in (("lora", 4), ("lora", 64), ("dora", 64)):
    usual, stabilized = (
        comparison.select(again, adapter_type=method, rank=rank, rank_stabilized=rule, alpha=16.0)
        for rule in (False, True)
    )
    gap = comparison.paired_difference(usual, stabilized)
    print(
        f"{plots.NAMES[method]}, rank {rank:2}: "
        f"{mean(runs(method, rank, True)) - mean(runs(method, rank, False)):+.4f}   "
        f"again {gap.mean:+.4f} (95% interval {gap.low:+.4f} to {gap.high:+.4f})"
    )

# %% [markdown]
# The rank-stabilised rule is ahead again in all three, with intervals that exclude zero. At rank 64 the lead
# is nearly as large as before. At rank 4 it is half as large: that it is there was found again, not its
# size.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: losses and gradient norms over the training.
compared = {
    rank: {
        (method, stabilized): runs(method, rank, stabilized)
        for method in methods
        for stabilized in (False, True)
    }
    for rank, methods in ((4, ("lora",)), (64, ("lora", "dora")))
}
steps = training.batch_order(len(task.train), 8, 3, seed=0)[..., 0].numel()
for rank, by_setting in compared.items():
    for (method, stabilized), found in by_setting.items():
        first, last = (
            statistics.fmean(run["gradient_norms"][part] for run in found) for part in (0, -1)
        )
        print(
            f"rank {rank:2}, {plots.NAMES[method]}, {plots.RULES[stabilized]:18}"
            f" gradient norm {first:.2f} in the first steps, {last:.2f} in the last"
        )
plots.show(
    plots.training_by_rule(compared, steps),
    "Training loss and gradient norm over the steps, at rank 4 and at rank 64, under both rules. "
    "At rank 64 the gradient norm under alpha / rank is several times below that under "
    "alpha / sqrt(rank), and the loss falls later; LoRA and DoRA lie close together.",
)

# %% [markdown]
# *Gradient norms.* Before the first step the rules differ by $\sqrt{r}$: 2 at rank 4 and 8 at rank
# 64. Over the first steps the factor is about 1.5 and 5, and in the last ones still about 1.5 and 4.
# Under $\alpha / \sqrt{r}$ the norm at rank 64 is about four fifths of that at rank 4; under $\alpha / r$ it
# is a quarter of it at first, and a third in the end. DoRA's norm under $\alpha / r$ is above LoRA's, as at the first step.
#
# *Losses.* At rank 64 $\alpha / r$ is behind $\alpha / \sqrt{r}$ in every stretch of the training, and
# furthest towards its end. But it is never behind rank 4 under the same rule. So $\alpha / r$ does not make
# rank 64 slower than a low rank: it makes it slower than rank 64 with eight times the scaling.
#
# *Stability.* At this learning rate training is stable: no run's norm, averaged over a stretch, exceeds 1.2,
# and gradients are clipped at 1.

# %% [markdown]
# ## 5. Is it only a learning rate?
#
# A larger scaling makes the same step of `lora_B` move $W'$ further, as a larger learning rate
# would. So a comparison at one learning rate may only compare learning rates (lesson 04). At rank 64
# both rules were therefore tried at four rates and at the neighbours of the best; three seeds chose,
# and ten others report. As in lesson 04 an outline marks the rate that is chosen, and a triangle means
# "above the picture", hollow for a dashed line:

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: validation loss over the learning rate.
settings = list(itertools.product(("lora", "dora"), (False, True)))
searched = {
    (method, stabilized): comparison.select(
        records, adapter_type=method, rank=64, rank_stabilized=stabilized, alpha=16.0
    )
    for method, stabilized in settings
}
curves = {
    setting: comparison.learning_rate_curve(comparison.of_the_search(found), "validation_loss")
    for setting, found in searched.items()
}
chosen = {
    setting: [run for run in comparison.reported(found) if run["seed"] >= 10]
    for setting, found in searched.items()
}
for (method, stabilized), found in chosen.items():
    print(
        f"{plots.NAMES[method]}, {plots.RULES[stabilized]:18} best rate "
        f"{found[0]['learning_rate']:g}, test loss there {mean(found):.3f}, "
        f"at {default_rate:g} {mean(runs(method, 64, stabilized)):.3f}"
    )
highest = 2.2
described = []
for (method, stabilized), by_rate in curves.items():
    at = {rate: statistics.fmean(losses) for rate, losses in by_rate.items()}
    above = [plots.rate_text(rate) for rate in at if not at[rate] <= highest]
    described.append(
        f"{plots.NAMES[method]}, {plots.RULES[stabilized]}: lowest at "
        f"{plots.rate_text(min(at, key=at.get))}, above {highest} at {', '.join(above) or 'none'}"
    )
plots.show(
    plots.loss_by_rate_and_rule(curves, highest),
    "Validation loss at rank 64 over the learning rate. " + ". ".join(described) + ".",
)

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The table: both rules at one rate, and each at its own.
for method in ("lora", "dora"):
    for title, usual, stabilized in (
        (f"at the same rate, {default_rate:g}", runs(method, 64, False), runs(method, 64, True)),
        ("each at its best rate", chosen[method, False], chosen[method, True]),
    ):
        gap = comparison.paired_difference(usual, stabilized)
        print(
            f"{plots.NAMES[method]}, {title}: alpha / sqrt(rank) minus alpha / rank\n"
            f"    {gap.mean:+.4f} (95% interval {gap.low:+.4f} to {gap.high:+.4f})"
        )

# %% [markdown]
# *The two rules.* At the same rate the rank-stabilised rule is clearly ahead, by 0.035 for LoRA and 0.038
# for DoRA (nine seeds). When each rule has its own rate, the usual one takes a higher rate and nearly
# catches up: 0.007 and 0.009 are left (ten other seeds; the rates lie a factor of about 1.6 apart, so a
# finer grid might change what is left). So at rank 64, on this task, the learning rate gives about four
# fifths of what rsLoRA gives; with the ends of both intervals it is 65 to 94% for LoRA
# and 66 to 85% for DoRA. (The three seeds that chose the rates have an interval for LoRA that contains
# zero, and it would have been easy to read "no difference" into it.)
#
# *DoRA.* Look at the right-hand side of the figure. Where a rate is too high for LoRA, DoRA still
# trains: at 0.03 under $\alpha / r$, and less well at 0.012 under $\alpha / \sqrt{r}$ (three seeds
# each, all alike). The gradient norms there:

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The table: gradient norms where the rate is too high.
for rate, stabilized in ((3e-2, False), (1.2e-2, True)):
    for method in ("lora", "dora"):
        found = runs(method, 64, stabilized, rate)
        peak = statistics.fmean(max(run["gradient_norms"]) for run in found)
        print(
            f"rate {rate:g}, {plots.RULES[stabilized]:18} {plots.NAMES[method]}: "
            f"highest gradient norm {peak:6.1f}, validation loss {mean(found, 'validation_loss'):.2f}"
        )
for stabilized in (False, True):
    gap = comparison.paired_difference(chosen["lora", stabilized], chosen["dora", stabilized])
    print(f"\neach at its best rate, {plots.RULES[stabilized]}:\n{gap}")

# %% [markdown]
# One explanation: a column of `lora_B` that grows too far makes LoRA's weight too large, while DoRA
# divides by the norm of $V$, so that its rows keep the length $m$. That fits, but it is not the whole
# story: in lesson 05's runs at rank 8 and 0.019, a rate slightly too high for LoRA (validation loss
# 1.666), `m` alone, without the norm, tolerates it as well as DoRA does (1.635 each; three seeds), and
# better than the norm alone (1.645).
#
# At their best rates DoRA ends a little lower under both rules, by 0.3 to 0.4%.

# %% [markdown]
# ## 6. Which mistake is this?
#
# Each line describes another version of an exercise. **Predict** what its check finds, then choose, and
# the actual finding appears. A version may be right, or wrong in a way that *this* check cannot see.
# There are no points here. Once your own answers have passed, each finding comes with the code.

# %% tags=["nbval-check-output", "remove-input"]
quiz.which_mistake("rslora")

# %% [markdown]
# ## 7. Your plan
#
# The last exercise is open, and a person marks it.

# %% [markdown] nbgrader={"grade": false, "grade_id": "plan-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Exercise 3: a colleague's question (4 points, marked by hand)
#
# A colleague fine-tunes a 7B model with LoRA. At rank 8 with $\alpha = 16$ the loss was good; at
# rank 64, with nothing else changed, it is worse. "More rank does not help on our data," they say,
# "so we should move to DoRA at rank 64 with `use_rslora=True`, which fixes both."
#
# In about ten sentences, in the cell below: What may have happened, and what should they have seen
# in the gradient norms if it did? Which runs would you make to find out whether it is the rank, the
# scaling, the learning rate or DoRA, and how do you make the comparison fair? What could you
# conclude from them, and what not? Numbers from this lesson, or from runs of your own, count as
# arguments.
#
# <!-- BEGIN MARK SCHEME -->
# **For the marker** (students do not see this). One point for each:
#
# 1. *What happened.* With alpha fixed, alpha / rank fell eightfold from rank 8 to 64; the expected
#    sign is a first gradient norm that fell by about sqrt(8) = 2.8. What this means depends on the
#    optimiser: gradient descent slows down, AdamW does not at the first step (section 3), so the
#    training loss has to be looked at. The scaling and its sign without that: half a point. "A higher
#    rank overfits" without a look at training loss or gradients: no point.
# 2. *Runs that separate the causes.* The scaling and the rank are varied one at a time (rank 64
#    with both rules, or with alpha = 128), LoRA and DoRA each with both rules. Changing two things
#    at once: no point.
# 3. *Fair.* A learning rate is searched for each setting and chosen on validation data; several
#    seeds, paired; the same data, steps and budget. Two of the three: half a point.
# 4. *Limits.* Says what a tie or an interval that contains zero means, that one model and one task do
#    not settle it, and that DoRA costs time and memory which must be weighed. At least two: the
#    full point.
# <!-- END MARK SCHEME -->

# %% [markdown] nbgrader={"grade": true, "grade_id": "plan", "locked": false, "points": 4, "schema_version": 3, "solution": true, "task": false}
# <!-- BEGIN SOLUTION -->
# *One good answer.* From rank 8 to 64 at a fixed alpha the scaling alpha / rank fell from 2 to
# 0.25. The first gradient should be about sqrt(8) = 2.8 times smaller. With gradient descent that
# means slow learning. AdamW's steps do not depend on the norm, and in section 3 its first step
# lowered the loss as much at rank 64 as at rank 4, so the norm alone proves nothing. The training
# loss says more: if it is higher at rank 64, the training fell behind, by the scaling or the rate; if
# it is lower, the model may overfit; and a single run of each may be luck. I would first log both for
# the two runs, which costs nothing. Then: LoRA at
# rank 8 and at rank 64, each with alpha / rank and alpha / sqrt(rank) and alpha fixed, so that rank
# and rule vary one at a time; then DoRA at rank 64 under both rules, because DoRA and the rule are
# two changes. Each setting gets its own search over learning rates, since a larger scaling acts
# like a larger learning rate, chosen on validation data. At the chosen rates I would train at least
# five seeds, the same for all settings, and compare seed by seed with an interval. If rank 64 under
# alpha / sqrt(rank), or at a larger rate, is no better than rank 8, then more rank does not help on
# these data; if it is better, the scaling or the rate was in the way. If the interval of DoRA minus LoRA contains
# zero, these runs do not decide between the two, and LoRA is cheaper in time and memory. All of this
# applies to this model, these data and this length of training.
# <!-- END SOLUTION -->

# %% [markdown]
# ## Checkpoint: the whole lab
#
# One question for each lesson. Can you answer them without scrolling up?
#
# 1. A weight of shape (11008, 4096) is split with `norm_dim=1`. What are the shapes of both parts?
# 2. Your DoRA layer gives the right output before training. Name two mistakes that this does not
#    rule out.
# 3. What does a positive correlation of $\Delta M$ and $\Delta D$ say about LoRA, and what does it
#    not say?
# 4. Two methods are compared at one learning rate and one seed. Which two things are wrong with
#    that?
# 5. Why does the magnitude get no weight decay?
# 6. "DoRA is 3.7 points better than LoRA." What do you ask back?
# 7. Why must alpha be fixed when ranks are compared under both rules?
#
# <details><summary>Answers</summary>
#
# 1. Magnitude (11008, 1), direction (11008, 4096).
# 2. Any of: the norm of $W_0$ in the place of that of $V$; the wrong axis; scaling left out; norm not
#    detached; dropout on the frozen path; a frozen magnitude.
# 3. That its updates changed lengths and directions together, as random updates of that size do. It
#    does not say that the loss is higher.
# 4. The rate may suit one of them; and a difference of one seed may be the seed's luck.
# 5. Decay pulls towards zero, and a magnitude starts at the norm of $W_0$: it would shrink a
#    pretrained weight regardless of the data.
# 6. Against which LoRA, on which model and tasks, at which learning rates, over how many runs?
# 7. With $\alpha = 2r$ the usual scaling is 2 at every rank, so the effect of the rank on it
#    cancels.
# </details>

# %% [markdown]
# ## Further reading
#
# - Kalajdzievski, [A Rank Stabilization Scaling Factor for Fine-Tuning with
#   LoRA](https://arxiv.org/abs/2312.03732), 2023
# - Liu et al., [DoRA: Weight-Decomposed Low-Rank Adaptation](https://arxiv.org/abs/2402.09353),
#   2024
# - Hu et al., [LoRA: Low-Rank Adaptation of Large Language
#   Models](https://arxiv.org/abs/2106.09685), 2021
# - Lee et al., [Learning Rate Matters: Vanilla LoRA May Suffice](https://arxiv.org/abs/2602.04998),
#   2026: with each method's own learning rate the variants of LoRA end close together
# - Chen, Villar and Hayou, [Learning Rate Scaling across LoRA Ranks and Transfer to Full
#   Finetuning](https://arxiv.org/abs/2602.06204), 2026: for which scalings and initialisations the best
#   learning rate depends on the rank
# - Zelenin and Zhuravlyova, [Scaling DoRA](https://arxiv.org/abs/2603.22276), 2026: the norm from
#   thin matrices
# - PEFT's pages on [LoRA and rsLoRA](https://huggingface.co/docs/peft/package_reference/lora) and on
#   [DoRA](https://huggingface.co/docs/peft/package_reference/lora_variant_dora)

# %% [markdown]
# ## What comes next
#
# **NEFTune** adds random noise to the embeddings in training. On LLaMA-2-7B with Alpaca its win
# rate on AlpacaEval rose from 29.79% to 64.69%, by 34.9 percentage *points* ([Jain et al.,
# 2023](https://arxiv.org/abs/2310.05914)): that is more than a doubling, and not "35% better". On
# the tasks of the Open LLM Leaderboard their scores did not change. AlpacaEval asks a language
# model which answer it likes better; the leaderboard asks questions with known answers. After this
# lab you know which questions to put to such a table.

# %% [markdown] tags=["remove-cell"]
# ## Cleanup
#
# What this notebook holds in memory is freed when its kernel stops (*Kernel → Shut Down Kernel*). This
# cell frees what the lab has cached, if you want to continue here:

# %% jupyter={"source_hidden": true} tags=["remove-cell"]
# Free what the lab keeps in memory.
data.language_task.cache_clear()
gc.collect()
if torch.cuda.is_available():  # the lessons use the CPU; your own runs may not have
    torch.cuda.empty_cache()
print("done")

# %% [markdown] tags=["remove-cell"]
# ## Your summary
#
# Save the notebook (Ctrl+S), then run this cell: it reads what the checks said in each lesson. To
# keep the page, right-click it, choose *Create New View for Cell Output*, and print that view
# (Ctrl+P). `print(progress.summary())` gives it as plain text.

# %% tags=["remove-cell"]
progress.summary()
