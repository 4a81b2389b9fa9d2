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
# # 3.1.2 DoRA · Lesson 03: what training does to a weight
#
# [Start](../00-start.ipynb) | [← 02 · from scratch](02-from-scratch.ipynb) | [04 · head to head →](04-head-to-head.ipynb)
#
# **About 30 minutes**, less than one of them computing. You need the ideas of lesson 01: a weight's
# rows, their magnitudes and their directions.
#
# After this lesson you can
# - measure how far training moved the lengths and the directions of a weight;
# - compare what you found with a null model: what a random update of that size would do;
# - read figure 2 of the DoRA paper, and say what its correlations are made of;
# - say what we found when we repeated it on our own small model.

# %% jupyter={"source_hidden": true} tags=["remove-cell"]
# Set-up: run this cell first. Its code is folded; a click on the dots shows it.
from importlib.util import find_spec

if find_spec("lab_utils") is None:
    raise ModuleNotFoundError(
        "This kernel has no lab_utils. Choose the kernel “DoRA Lab (Python 3)” at the top right; if "
        "it is not listed, run `make lab` in the folder of the lab."
    )

from statistics import fmean

import torch

from lab_utils import checks, comparison, decomposition, plots, progress, quiz, training, widgets

# %% [markdown]
# ## 1. A real weight, trained three ways
#
# The lab has its own small language model: four transformer blocks, 840,448 parameters, pretrained on
# Python's language reference. It predicts text byte by byte. Now it has to predict Python
# *code*, of which it has seen little: a real base, and a task that differs from what it knows. The loss is
# the mean of $-\ln p$ over the bytes to predict, in *nats* per byte. Guessing among 256 bytes would give
# $\ln 256 = 5.5$.
#
# The cell below adapts it three ways: by LoRA, by DoRA (both of rank 8, on the four attention
# projections of every block), and by full fine-tuning, which trains everything. Each uses the
# learning rate that was best for it on validation data after three passes over the text; lesson 04
# shows how that was found. They see the same batches in the same order, here for one pass.

# %%
LAYER = "blocks.1.q_proj"
found = comparison.read_results(comparison.RESULTS / "head-to-head.jsonl")
before, after = None, {}
for method, rank in (("full", None), ("lora", 8), ("dora", 8)):
    tried = comparison.select(found, adapter_type=method, rank=rank, targets=None)
    rate = comparison.choose_learning_rate(comparison.of_the_search(tried))
    weights = training.WeightRecorder([LAYER], steps=range(1000))
    result = training.train_and_evaluate(
        method, n_epochs=1, rank=8, learning_rate=rate, on_step=weights
    )
    before = weights.weights[0][LAYER]
    after[method] = weights.weights[max(weights.weights)][LAYER]
    print(
        f"{plots.NAMES[method]}: learning rate {rate:g}, loss on unseen code "
        f"{result['validation_losses'][0]:.3f} → {result['validation_loss']:.3f} nats per byte"
    )

# %% [markdown]
# The figure shows one layer, the query projection of the second block: above, its weight in the base, with
# magnitudes and directions; below, for each method, what training added, how the length of each row
# changed, and how far each row turned.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: the weight, and what each training changed.
plots.show(
    plots.weight_changes(before, after),
    "Heat maps and bars for one layer. Full fine-tuning changes each row a little, LoRA and DoRA "
    "much more. LoRA's bars of length point up, those of the other two mostly down.",
)
for method, weight in after.items():
    grown = (weight.norm(dim=1) > before.norm(dim=1)).float().mean()
    moved = (weight - before).abs().max()
    print(
        f"{plots.NAMES[method]}: {grown:.0%} of the rows became longer; "
        f"no entry moved by more than {moved:.3f}"
    )

# %% [markdown]
# Each picture has its own scale, so read the numbers first. The largest changes that LoRA and DoRA made
# are about five times as large as anything in the update of full fine-tuning. At least three things may
# contribute: an update of low rank has few directions to work with; LoRA and DoRA have a higher learning
# rate; and full fine-tuning can change the model's other layers instead.
#
# Now the middle column. **LoRA made nearly every row longer.** In full fine-tuning most rows of this layer
# became *shorter*, and so did most in DoRA, which trains lengths separately. Is this the coupling that the
# paper describes? First we need two measures, and then what chance would have done.

# %% [markdown]
# ## 2. How far did the lengths move?
#
# The paper condenses a picture like this into two numbers. For a weight with $k$ vectors (its rows),
# before ($w_i$) and after ($w_i'$) training, the first is the mean absolute change of length
# (eq. 3):
#
# $$\Delta M = \frac{1}{k} \sum_{i=1}^{k} \bigl|\, \lVert w_i' \rVert - \lVert w_i \rVert \,\bigr|$$
#
# For LoRA and DoRA, "after" is the *merged* weight: what the layer actually multiplies by.

# %% [markdown]
# ### Exercise 1: `magnitude_change` (3 points)
#
# Compute $\Delta M$ with PyTorch's own functions (`lab_utils.decomposition` is the reference, and calling
# it earns no points). What must hold, for any two weights of one shape, square or not:
# - the result is a plain `float`, not a tensor;
# - `norm_dim=1`, the default, compares rows, and `norm_dim=0` columns;
# - both weights stay as they are.
#
# <details><summary>Hint</summary>
#
# `weight.norm(dim=1)` has one length for each row. Where does the absolute value go: before or
# after the mean?
# </details>


# %% nbgrader={"grade": false, "grade_id": "magnitude-change", "locked": false, "schema_version": 3, "solution": true, "task": false}
def magnitude_change(before, after, norm_dim=1):
    """Return the mean change of length over the vectors of a weight, as a float.

    before, after: the weight at two times, (out_features, in_features)
    norm_dim: the dimension that a norm sums over: 1 for rows, 0 for columns
    """
    ### BEGIN SOLUTION
    lengths = [weight.norm(dim=norm_dim) for weight in (before, after)]
    return (lengths[1] - lengths[0]).abs().mean().item()
    ### END SOLUTION


# %% [markdown]
# Over rows (2 points) and over columns (1 point):

# %% nbgrader={"grade": true, "grade_id": "magnitude-change-rows", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_magnitude_change(magnitude_change, "rows")
### BEGIN HIDDEN TESTS
checks.check_magnitude_change(magnitude_change, "rows", out_features=11, in_features=3, seed=51)
checks.check_magnitude_change(magnitude_change, "rows", seed=52, dtype=torch.float64)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "magnitude-change-columns", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_magnitude_change(magnitude_change, "columns")
### BEGIN HIDDEN TESTS
checks.check_magnitude_change(magnitude_change, "columns", out_features=11, in_features=3, seed=53)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. How far did the vectors turn?
#
# The second number is the mean of one minus the cosine between each row and itself before training
# (eq. 4): 0 for a row that kept its direction, 1 for a right angle, 2 for a row that was reversed.
#
# $$\Delta D = \frac{1}{k} \sum_{i=1}^{k} \bigl(1 - \cos(w_i', w_i)\bigr)$$

# %% [markdown]
# ### Exercise 2: `direction_change` (4 points)
#
# Compute $\Delta D$. What must hold, besides all that must hold for `magnitude_change`:
# - a vector of zeros, before, after or both, has no direction and no angle to anything: count it as
#   a right angle, so 1.
#
# <details><summary>Hint</summary>
#
# Divide both weights by their norms (`clamp_min(1e-8)` keeps zeros from becoming NaN); the cosine
# of two rows of length 1 is the sum of their products. `F.normalize` and `F.cosine_similarity` do
# such steps for you; look up what they do with zeros.
# </details>


# %% nbgrader={"grade": false, "grade_id": "direction-change", "locked": false, "schema_version": 3, "solution": true, "task": false}
def direction_change(before, after, norm_dim=1):
    """Return the mean of 1 - cosine over the vectors of a weight, as a float.

    before, after: the weight at two times, (out_features, in_features)
    norm_dim: the dimension that a norm sums over: 1 for rows, 0 for columns
    """
    ### BEGIN SOLUTION
    directions = [
        weight / weight.norm(dim=norm_dim, keepdim=True).clamp_min(1e-8)
        for weight in (before, after)
    ]
    return (1 - (directions[0] * directions[1]).sum(dim=norm_dim)).mean().item()
    ### END SOLUTION


# %% [markdown]
# Over rows (2 points), over columns (1 point), and with vectors of zeros (1 point):

# %% nbgrader={"grade": true, "grade_id": "direction-change-rows", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_direction_change(direction_change, "rows")
### BEGIN HIDDEN TESTS
checks.check_direction_change(direction_change, "rows", out_features=11, in_features=3, seed=54)
checks.check_direction_change(direction_change, "rows", seed=55, dtype=torch.float64)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "direction-change-columns", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_direction_change(direction_change, "columns")
### BEGIN HIDDEN TESTS
checks.check_direction_change(direction_change, "columns", out_features=11, in_features=3, seed=56)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "direction-change-zeros", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_direction_change(direction_change, "zeros")
### BEGIN HIDDEN TESTS
checks.check_direction_change(direction_change, "zeros", out_features=6, in_features=9, seed=57)
### END HIDDEN TESTS

# %% [markdown]
# ### What would chance do?
#
# Take the update of each row, keep its size, and point it in a *random* direction. This is a **null
# model**: whatever it shows as well needs no explanation by the method. In a space of 128 dimensions a random
# direction is nearly perpendicular to any row $w$, and an update $u$ perpendicular to $w$ makes it
# $\sqrt{\lVert w \rVert^2 + \lVert u \rVert^2}$ long (Pythagoras). Predict for each method, with the
# picture of section 1 in mind: how many of the rows become longer by chance?


# %%
def measures(changed):
    """The share of rows that became longer, delta M and delta D."""
    longer = (changed.norm(dim=1) > before.norm(dim=1)).float().mean().item()
    delta_m = decomposition.magnitude_change(before, changed)
    return longer, delta_m, decomposition.direction_change(before, changed)


generator = torch.Generator().manual_seed(0)
print("                          rows longer   delta M   delta D")
for method, weight in after.items():
    random = decomposition.random_update(before, weight, generator)
    for name, changed in ((plots.NAMES[method], weight), ("  random", random)):
        longer, delta_m, delta_d = measures(changed)
        print(f"{name:25} {longer:11.0%}   {delta_m:.4f}    {delta_d:.4f}")

# %% [markdown]
# A random update of LoRA's size lengthens nearly every row as well, and by about as much. So "LoRA
# made every row longer" is geometry: it says how large the update is, and nothing about what LoRA
# learned. What departs from chance is **DoRA**: an update of that size would have lengthened nearly
# all of its rows, but fewer than half became longer, because `m` sets their lengths. (Full fine-tuning
# departs as well: most rows became shorter, where chance shortens about a quarter to a third.)

# %% [markdown]
# ## 4. A recorded training under sliders
#
# Three passes over the data were recorded for this layer, at four ranks. Each point is one row of
# the weight: how far it turned, and how its length changed. *strength* multiplies the trained
# update $s\,BA$, as if $\alpha$ had been changed after the training. The dashed line is the null model:
# an update perpendicular to its row.
#
# Predict before you drag:
# 1. LoRA, strength from 1 to 2: what happens to the turns, and to the lengths?
# 2. DoRA, the same: what happens to the lengths?
# 3. At the last step, how many rows became longer with LoRA, and how many with DoRA? Which of the two
#    follows the dashed line?

# %%
widgets.training_explorer()

# %% [markdown]
# <details><summary>Answers</summary>
#
# 1. Both grow together: a row that is pushed further to the side also becomes longer.
# 2. Nothing: the length of each row is `m`, regardless of the update.
# 3. With LoRA nearly all, 95% or more at every rank, close to the line; with DoRA fewer than half, 33 to
#    44%, and the further a row turned, the further it is from the line.
# </details>

# %% [markdown]
# ## 5. Do the two move together?
#
# Figure 2 of the paper takes the query weight of every layer at several checkpoints, one point
# each, and asks whether $\Delta M$ and $\Delta D$ go together. Its answer, for VL-BART on
# image-text tasks: in full fine-tuning they go *against* each other (correlation -0.62), in LoRA
# *together* (+0.83), in DoRA against each other again (-0.31; section 4.1). From this the paper concludes
# that LoRA lacks the freedom to change one without the other.

# %% [markdown]
# ### Exercise 3: `coupling` (3 points)
#
# Return Pearson's correlation of two lists of the same length. What must hold:
# - the result is a plain `float`;
# - where either list does not vary, the correlation is undefined: return NaN (`math.nan`), and raise no error.
#   `[0.1] * 3` does not vary, although its mean is rounded to another number;
# - both lists stay as they are.
#
# <details><summary>Hint</summary>
#
# Subtract the mean from each. Then divide the sum of the products by the root of the product of
# both sums of squares. `torch.corrcoef`, `numpy.corrcoef` and `statistics.correlation` do this too;
# try each of them on `[0.5] * 3` and on `[0.1] * 3`. To see whether a list varies, compare its
# values with each other, not with their mean.
# </details>


# %% nbgrader={"grade": false, "grade_id": "coupling", "locked": false, "schema_version": 3, "solution": true, "task": false}
def coupling(delta_m, delta_d):
    """Return the correlation of two lists of floats, as a float; NaN if it is undefined."""
    ### BEGIN SOLUTION
    if min(delta_m) == max(delta_m) or min(delta_d) == max(delta_d):
        return float("nan")
    m, d = (torch.tensor(values, dtype=torch.float64) for values in (delta_m, delta_d))
    m, d = m - m.mean(), d - d.mean()
    return ((m * d).sum() / (m.square().sum() * d.square().sum()).sqrt()).item()
    ### END SOLUTION


# %% [markdown]
# Points that vary (2 points), and a list that does not (1 point):

# %% nbgrader={"grade": true, "grade_id": "coupling-correlation", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_coupling(coupling, "correlation")
### BEGIN HIDDEN TESTS
checks.check_coupling(coupling, "correlation", points=31, seed=58)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "coupling-constant", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_coupling(coupling, "constant")
### BEGIN HIDDEN TESTS
checks.check_coupling(coupling, "constant", points=5, seed=59)
### END HIDDEN TESTS

# %% [markdown]
# ### Figure 2, repeated
#
# For our model `benchmarks/weight_changes.py` trained each method with five seeds, for three passes
# over the data, and measured every attention layer at four checkpoints. The figure shows the query
# weights of one seed. A larger point is a later checkpoint; grey lines join the checkpoints of one
# layer. Rings are random updates of the same size.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: figure 2 of the paper, for our runs.
runs = comparison.read_results(comparison.RESULTS / "weight-changes.jsonl")
PAPER = {"full": -0.62, "lora": +0.83, "dora": -0.31}


def points_of(method, seed, kind="q_proj"):
    run = comparison.select(runs, adapter_type=method, seed=seed)[0]
    return [point for point in run["changes"] if point["layer"].endswith(kind)]


plots.show(
    plots.couplings({method: points_of(method, seed=0) for method in PAPER}, PAPER),
    "Delta M against delta D for the query weights of four blocks at four checkpoints. In all "
    "three panels points rise from left to right. In LoRA they lie on the rings of random updates; "
    "in DoRA, as training goes on, far below them: magnitudes stay in a narrow band.",
)


# %% [markdown]
# Now all five seeds, and below them three others. *Pooled* is the paper's way: one correlation over all
# layers and checkpoints. It mixes two questions, so they are also asked separately: **within a layer**, do
# length and direction change together as training goes on? **Across layers**, at one checkpoint, do
# layers that turn further change their lengths more? (Random updates are shown for the pooled way.)


# %% jupyter={"source_hidden": true} tags=["nbval-check-output", "remove-input"]
# The table: pooled correlations, and those of three other seeds.
def correlation(points):
    return decomposition.coupling(*([p[key] for p in points] for key in ("delta_m", "delta_d")))


def correlations(records, method, kind):
    """Means over seeds: pooled, of random updates, within a layer, across layers."""
    of_seeds = [
        [point for point in run["changes"] if point["layer"].endswith(kind)]
        for run in comparison.select(records, adapter_type=method)
    ]
    groups = {
        key: [
            [point for point in points if point[key] == group]
            for points in of_seeds
            for group in sorted({point[key] for point in points})
        ]
        for key in ("layer", "step")
    }
    random = [[point["random"] for point in points] for points in of_seeds]
    return [fmean(map(correlation, g)) for g in (of_seeds, random, groups["layer"], groups["step"])]


again = comparison.read_results(comparison.RESULTS / "weight-changes-again.jsonl")
for title, records in (("five seeds", runs), ("three others", again)):
    print(f"{title:27}pooled   random   within a layer   across layers   the paper")
    for kind in ("q_proj", "v_proj"):
        for method, published in PAPER.items():
            pooled, random, within, across = correlations(records, method, kind)
            paper = f"           {published:+.2f}" if kind == "q_proj" else ""  # its figure 2
            print(
                f"{kind}  {plots.NAMES[method]:17} {pooled:+.2f}    {random:+.2f}    "
                f"{within:+.2f}            {across:+.2f}{paper}"
            )

# %% [markdown]
# **Our model does not show the paper's pattern**, and the column *random* says how little a
# correlation like this can show. In the query weights all three are positive: +0.98 for full
# fine-tuning, +0.99 for LoRA, +0.87 for DoRA. Random updates get +0.87 to +0.99, since both numbers
# start at 0 and grow with the size of the update, whatever made it. LoRA's +0.99 is what chance gives,
# so nothing about LoRA follows from it. DoRA's is below chance in every seed: its lengths have a
# parameter each and need not follow the turns.
#
# **What other seeds find again.** Three seeds that had no part in the first table give the same pooled
# correlations of the query weights to 0.01, and DoRA is below chance again. What rests on few points they
# do not find again. Within a layer DoRA's correlation is +0.46 with the first five seeds and +0.73 with the
# others (chance: +0.98 and +0.99); in the value weights its pooled one falls from +0.61 to +0.25. A
# correlation over four checkpoints is a noisy number: do not build on one.
#
# Pooling adds another trap. In the value weights of full fine-tuning the correlation within a
# layer is +0.99 and that across layers +0.36, and pooling makes +0.73 of the two. So its size can
# come from how far training went, from how layers differ, or from a mixture of both. The paper's 24
# points and ours are few, and they are not independent.
#
# **What this lesson supports:** in our runs, with all eight seeds, LoRA changes lengths nearly as much as a
# random update of that size does (4 to 11% less, depending on the kind of projection), and DoRA does not: at the end
# about half of its rows, over all layers, became shorter, where chance shortens 2%. Full fine-tuning
# lies between: 31% became shorter, where chance shortens 16%. **What it does not support:** that LoRA
# lacks a freedom that it needs, that full fine-tuning in general has a negative correlation, or that
# resembling it is what makes a method good. Whether DoRA *trains* better is a question about losses:
# lesson 04.

# %% [markdown]
# ## 6. Which mistake is this?
#
# Each line describes another version of an exercise. **Predict** what its check finds, then choose, and
# the actual finding appears. A version may be right, or wrong in a way that *this* check cannot see.
# There are no points here. Once your own answers have passed, each finding comes with the code.

# %% tags=["nbval-check-output", "remove-input"]
quiz.which_mistake("decomposition")

# %% [markdown]
# ## Checkpoint
#
# 1. A LoRA layer was merged. Which weight do you compare with $W_0$ to get $\Delta M$?
# 2. DoRA's update becomes twice as strong and `m` stays. What happens to $\Delta M$?
# 3. A colleague shows a correlation of +0.9 over 12 layers and 10 checkpoints. What do you ask?
# 4. "LoRA lengthens every row, so it cannot turn a row and keep its length." What is missing?
#
# <details><summary>Answers</summary>
#
# 1. The merged one, $W_0 + s\,BA$: not $BA$ alone.
# 2. Nothing: row lengths are `m`. $\Delta D$ grows.
# 3. What does a random update of the same size give? Both numbers start at 0 and grow, which alone gives
#    a high correlation. And how much of it is within one layer, and how much across layers?
# 4. The null model. A random update of that size lengthens every row too, so the observation cannot
#    tell what LoRA could have done if that had lowered the loss.
# </details>

# %% [markdown]
# ## Further reading
#
# - Liu et al., [DoRA](https://arxiv.org/abs/2402.09353), 2024: sections 3.2 and 4.1, eq. 3 and 4, figure 2
# - `lab_utils/decomposition.py`, and `benchmarks/weight_changes.py`, which made the runs
#
# **Next:** [lesson 04](04-head-to-head.ipynb) trains the methods head to head, and asks which one ends
# with the lower loss.

# %% [markdown] tags=["remove-cell"]
# ## How far you are
#
# Save the notebook (Ctrl+S), then run this cell: it reads what the checks said in each lesson, and
# leads to each exercise.

# %% tags=["remove-cell"]
progress.overview()
