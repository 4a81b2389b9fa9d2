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
# # 3.1.2 DoRA · Lesson 01: the mathematics
#
# [Start](../00-start.ipynb) | [02 · from scratch →](02-from-scratch.ipynb)
#
# **About 25 minutes.** You need PyTorch tensors, and the idea of LoRA.
#
# After this lesson you can
# - split a weight into magnitude and direction, and put it back together;
# - say what a LoRA update does to both, and what DoRA keeps separate;
# - count what LoRA and DoRA train, on a square and on a non-square layer.

# %% [markdown] tags=["remove-cell"]
# **How a lesson works.** Cells with `# YOUR CODE HERE` are exercises. The cell below an exercise
# checks it: it prints a line for each property and, if one fails, a sentence that says what was
# expected, what was found and, where it can tell, which mistake it is. The *Validate* button runs
# all of them. Every other cell works whether or not an exercise is solved; but *Run All* stops at
# the first check that fails, so run cell by cell with Shift+Enter.

# %% jupyter={"source_hidden": true} tags=["remove-cell"]
# Set-up: run this cell first. Its code is folded; a click on the dots shows it.
from importlib.util import find_spec

if find_spec("lab_utils") is None:
    raise ModuleNotFoundError(
        "This kernel has no lab_utils. Choose the kernel “DoRA Lab (Python 3)” at the top right; if "
        "it is not listed, run `make lab` in the folder of the lab."
    )

import torch

from lab_utils import checks, decomposition, layers, plots, progress, quiz, widgets

# %% [markdown]
# ## 1. LoRA in one minute
#
# A pretrained linear layer holds a weight $W_0$ of shape `(out_features, in_features)`.
# [LoRA](https://arxiv.org/abs/2106.09685) freezes it and trains a low-rank update beside it, an *adapter*:
#
# $$W' = W_0 + s\,BA, \qquad s = \frac{\alpha}{r}$$
#
# `lora_A` is $(r, \text{in})$ and starts with random values, `lora_B` is $(\text{out}, r)$ and starts at
# zero, so $W' = W_0$ before training. The rank $r$ says how many directions the update can use,
# and $\alpha$ how strongly it counts.

# %% tags=["nbval-check-output"]
weight = torch.tensor([[3.0, 0.0, 4.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.5, -0.5, 0.5, -0.5]])
lora_A = torch.tensor([[1.0, 2.0, 0.0, -1.0]])  # (rank, in_features) = (1, 4)
lora_B = torch.tensor([[0.4], [0.2], [0.6]])  # (out_features, rank) = (3, 1)
scaling = 1.0
updated = weight + scaling * lora_B @ lora_A
print("update, of rank", torch.linalg.matrix_rank(lora_B @ lora_A).item())
print(lora_B @ lora_A)
print("updated weight")
print(updated)

# %% [markdown]
# ## 2. Why magnitude and direction?
#
# Think of darts. A throw has a **strength** and an **aim**. Now suppose that your coach can give
# you only one kind of advice: to push your hand so many centimetres in some direction. A push that
# corrects your aim also changes how hard you throw, and vice versa; to correct one and keep the other
# you need a push of exactly the right length and angle. A better coach has two instruments: a dial for
# the strength, and pushes that affect only the aim.
#
# Each row of a weight is such a throw. It is the vector by which one output neuron multiplies its
# inputs: its **direction** says what the neuron responds to, its **magnitude** (length) how
# strongly. A LoRA update is the push. [DoRA](https://arxiv.org/abs/2402.09353) gives every row a
# dial:
#
# $$W' = m \odot \frac{W_0 + s\,BA}{\lVert W_0 + s\,BA \rVert}$$
#
# Each row is divided by its own norm. $m$ holds one trained number per row, which multiplies that row
# ($\odot$). It starts as $\lVert W_0 \rVert$, so again $W' = W_0$ before training.
#
# *Why would that help?* The paper (sections 3.2 and 4.1, figure 2) compared how far training moved
# magnitudes and directions in VL-BART, a model of images and text. In LoRA the two moved together
# (correlation +0.83). In full fine-tuning, which trains every weight itself, they moved against each
# other (-0.62), and they did so in DoRA, too (-0.31). That is an observation on one model, and it does not say which
# method ends with the lower loss. Lesson 03 repeats the measurement, and lesson 04 makes the comparison.

# %% [markdown]
# ## 3. Decompose a matrix that you can see
#
# Any weight is a magnitude times a direction (the paper's eq. 2):
#
# $$W = m \odot V, \qquad m = \lVert W \rVert, \quad V = W / \lVert W \rVert$$
#
# so every vector of $V$ has length 1.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: the weight, its magnitude and its direction.
plots.show(
    plots.decomposition(weight),
    "A 3 by 4 weight equals a column of three magnitudes, 5, 2 and 1, times a 3 by 4 direction "
    "whose rows have length 1.",
)

# %% [markdown]
# **Which vectors?** `norm_dim` is the dimension that the norm *sums over*, as in
# `weight.norm(dim=norm_dim, keepdim=True)`.
#
# | argument | a vector is | one magnitude per | shape of `magnitude` |
# | --- | --- | --- | --- |
# | `norm_dim=1` (default) | a row | output neuron | `(out_features, 1)` |
# | `norm_dim=0` | a column | input feature | `(1, in_features)` |
#
# The paper takes the norm "across each column". It draws $W$ as (in, out), [its first author
# explains](https://github.com/nbasyl/DoRA/issues/1), so its columns are PyTorch's **rows**. The
# authors' code and [PEFT](https://huggingface.co/docs/peft), the library in which most people meet LoRA,
# keep one magnitude per output neuron, and so does this lab. Some tutorials use the other axis; lesson 02
# shows how to notice.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: the same, with columns of length 1.
plots.show(
    plots.decomposition(weight, norm_dim=0),
    "The same weight equals a row of four magnitudes times a direction with columns of length 1.",
)

# %% [markdown]
# ### Exercise 1: `decompose` (5 points)
#
# Split a weight into magnitude and direction. A row of zeros has length 0 and no direction. Some
# published models have such rows ([PEFT's issue 2049](https://github.com/huggingface/peft/issues/2049) counts
# 434 in one, and DoRA gave NaN), so never divide by zero.
#
# What must hold, for any weight, square or not:
# - `magnitude` has the Euclidean length of each vector, in the shape of the table above;
# - `direction` has the shape of the weight: each vector divided by its length;
# - a vector of zeros, row or column, has magnitude 0 and direction 0;
# - a vector shorter than `eps` is divided by `eps` instead, and a longer one, however short, has a
#   direction of length 1. (Dividing by the length plus `eps` is accepted, too.) `magnitude` does not
#   depend on `eps`;
# - the tensor that is passed in stays as it is.
#
# <details><summary>Hint 1: shapes</summary>
#
# `weight.norm(dim=1)` of a `(3, 4)` weight has shape `(3,)`. Dividing `(3, 4)` by `(3,)` fails, or
# on a square matrix divides the columns. `keepdim=True` gives `(3, 1)`, which divides the rows.
# </details>
#
# <details><summary>Hint 2: zeros</summary>
#
# `magnitude.clamp_min(eps)` is `magnitude`, but never below `eps`.
# </details>


# %% nbgrader={"grade": false, "grade_id": "decompose", "locked": false, "schema_version": 3, "solution": true, "task": false}
def decompose(weight, norm_dim=1, eps=1e-8):
    """Split a weight into lengths and unit vectors.

    weight: (out_features, in_features)
    norm_dim: the dimension that the norm sums over
    eps: the smallest length to divide by
    returns (magnitude, direction), as a tuple or a list
    """
    ### BEGIN SOLUTION
    magnitude = weight.norm(dim=norm_dim, keepdim=True)
    return magnitude, weight / magnitude.clamp_min(eps)
    ### END SOLUTION


# %% [markdown]
# One magnitude per output neuron (2 points):

# %% nbgrader={"grade": true, "grade_id": "decompose-rows", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_decompose(decompose, "rows")
### BEGIN HIDDEN TESTS
checks.check_decompose(decompose, "rows", out_features=9, in_features=4, seed=11)
checks.check_decompose(decompose, "rows", seed=12, dtype=torch.float64)
### END HIDDEN TESTS

# %% [markdown]
# One magnitude per input feature (2 points):

# %% nbgrader={"grade": true, "grade_id": "decompose-columns", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_decompose(decompose, "columns")
### BEGIN HIDDEN TESTS
checks.check_decompose(decompose, "columns", out_features=9, in_features=4, seed=13)
checks.check_decompose(decompose, "columns", seed=14, dtype=torch.float64)
### END HIDDEN TESTS

# %% [markdown]
# Zeros, short vectors and `eps` (1 point):

# %% nbgrader={"grade": true, "grade_id": "decompose-zeros", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_decompose(decompose, "zeros")
### BEGIN HIDDEN TESTS
checks.check_decompose(decompose, "zeros", out_features=6, in_features=3, seed=15)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise 2: `recompose` (2 points)
#
# Put the weight back together. What must hold:
# - a magnitude of shape `(out_features, 1)` multiplies rows and one of shape `(1, in_features)`
#   columns, on a square weight too;
# - a direction need not have length 1, and a magnitude may be negative: multiply whatever you get;
# - both tensors that are passed in stay as they are.


# %% nbgrader={"grade": false, "grade_id": "recompose", "locked": false, "schema_version": 3, "solution": true, "task": false}
def recompose(magnitude, direction):
    """Return the weight, (out_features, in_features), from what decompose returns."""
    ### BEGIN SOLUTION
    return magnitude * direction
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "recompose-test", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_recompose(recompose)
### BEGIN HIDDEN TESTS
checks.check_recompose(recompose, out_features=9, in_features=4, seed=21)
checks.check_recompose(recompose, seed=22, dtype=torch.float64)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. One vector under a slider
#
# One row `w0` of length 2 gets an update `u`, its row of $s\,BA$. **LoRA** adds it: the result has
# another length *and* another angle. **DoRA** adds it too, but divides the sum by its length and
# multiplies by `m`: the update decides only the angle, and `m` only the length.
#
# Try this, and predict before you drag:
# 1. Set the angle of `u` to 0°, along `w0`. What does LoRA change? What does DoRA?
# 2. Find a `u` with which LoRA turns `w0` by about 30° and leaves its length at 2.
# 3. Do the same with DoRA. Which sliders did you need?

# %%
widgets.vector_explorer()

# %% [markdown]
# <details><summary>Answers</summary>
#
# 1. LoRA changes only the length. DoRA changes nothing: dividing by the norm removes the part along `w0`.
# 2. The tip of `w0` must end on the same circle, so the update is a chord of it: its length and its
#    angle depend on each other (about 1.05 at 105°).
# 3. Any `u` that turns `w0` by 30° will do, since `m` is already 2.
# </details>
#
# The same for the three rows of our matrix, in numbers:

# %% tags=["nbval-check-output"]
magnitude, direction = decomposition.decompose(weight)
lora_length, new_direction = decomposition.decompose(updated)
dora = decomposition.recompose(magnitude, new_direction)  # m stays where it started
dora_length, _ = decomposition.decompose(dora)
turn = (direction * new_direction).sum(dim=1).arccos().rad2deg()
print("row   before   LoRA   DoRA   turned by (both)")
for row in range(3):
    lengths = [length[row].item() for length in (magnitude, lora_length, dora_length)]
    print(f"{row}     {lengths[0]:.2f}     {lengths[1]:.2f}   {lengths[2]:.2f}   {turn[row]:.0f}°")

# %% [markdown]
# The paper measures a change by two averages over the rows (eq. 3 and 4): $\Delta M$ is the mean absolute
# change of length, and $\Delta D$ the mean of one minus the cosine of the turn.

# %% tags=["nbval-check-output"]
for name, after in (("LoRA", updated), ("DoRA", dora)):
    delta_m = decomposition.magnitude_change(weight, after)
    delta_d = decomposition.direction_change(weight, after)
    print(f"{name}: delta M = {delta_m:.3f}, delta D = {delta_d:.3f}")

# %% [markdown]
# With its dial untouched, DoRA moved only directions. In training the dial moves too; lesson 05 tracks
# how far.

# %% [markdown]
# ## 5. What it costs: count the parameters
#
# LoRA trains `lora_A` and `lora_B`. DoRA also trains the magnitude: one number per row
# (`norm_dim=1`) or per column (`norm_dim=0`).

# %% [markdown]
# ### Exercise 3: `count_trainable` (3 points)
#
# Count the numbers that an adapter on one linear layer trains. What must hold, for layers of any size:
# - the count is an `int` (NumPy's integers count as one);
# - it counts what is trained: the frozen layer's weight and bias are not;
# - only DoRA has magnitudes, on the axis that `norm_dim` says.


# %% nbgrader={"grade": false, "grade_id": "count-trainable", "locked": false, "schema_version": 3, "solution": true, "task": false}
def count_trainable(in_features, out_features, rank, method, norm_dim=1):
    """Return how many numbers an adapter on one linear layer trains, as an int.

    method: "lora" or "dora"
    norm_dim: for DoRA, 1 (one magnitude per output neuron) or 0 (one per input feature)
    """
    ### BEGIN SOLUTION
    count = rank * in_features + out_features * rank
    if method == "dora":
        count += out_features if norm_dim == 1 else in_features
    return count
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "count-lora", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_count_trainable(count_trainable, "lora")
### BEGIN HIDDEN TESTS
checks.check_count_trainable(count_trainable, "lora", in_features=31, out_features=64, rank=5)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "count-dora", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_count_trainable(count_trainable, "dora")
checks.check_count_trainable(count_trainable, "dora-input")
### BEGIN HIDDEN TESTS
checks.check_count_trainable(count_trainable, "dora", in_features=31, out_features=64, rank=5)
checks.check_count_trainable(count_trainable, "dora-input", in_features=31, out_features=64, rank=5)
### END HIDDEN TESTS

# %% [markdown]
# The same count from the lab's own layers, on the attention projection of a 7B model (4096 × 4096) and
# on an MLP projection (4096 → 11008):

# %% tags=["nbval-check-output"]
for out_features in (4096, 11008):
    base = torch.nn.Linear(4096, out_features, bias=False)
    lora = layers.LoRALayer(base, rank=16).trainable_params
    dora = layers.DoRALayer(base, rank=16).trainable_params
    frozen = base.weight.numel()
    print(f"4096 → {out_features}: {frozen:,} frozen")
    print(f"  LoRA, rank 16: {lora:,} trained ({lora / frozen:.2%} of the layer)")
    print(f"  DoRA, rank 16: {dora:,} trained ({dora / lora - 1:+.1%} against LoRA)")

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: how many numbers each method trains.
makers = {"lora": layers.LoRALayer, "dora": layers.DoRALayer}
square = torch.nn.Linear(4096, 4096, bias=False)
counts = {
    rank: {method: make(square, rank=rank).trainable_params for method, make in makers.items()}
    for rank in (4, 8, 16, 32)
}
plots.show(
    plots.parameters(counts, "one layer, 4096 → 4096; above the bars what DoRA adds"),
    "Bars of trained numbers over the rank. DoRA adds the same 4,096 at every rank: "
    + ", ".join(f"{c['dora'] / c['lora'] - 1:.1%} at rank {r}" for r, c in counts.items()),
)

# %% [markdown]
# The same 4,096 at every rank: 12.5% of LoRA's count at rank 4 and 1.6% at rank 32. But the main cost
# of DoRA is not its parameters: it needs a norm of the whole weight at every step, and lesson 02
# measures what that takes.

# %% [markdown]
# ## 6. Which mistake is this?
#
# Each line describes another version of `decompose`. **Predict** what its check finds, then choose, and
# the actual finding appears. A version may be right, or wrong in a way that *this* check cannot see.
# There are no points here. Once your own answers have passed, each finding comes with the code.

# %% tags=["nbval-check-output", "remove-input"]
quiz.which_mistake("mathematics")

# %% [markdown]
# ## Checkpoint
#
# Can you answer these without scrolling up?
#
# 1. A LoRA update points along a row of $W_0$. What does it change? What would DoRA change?
# 2. A layer maps 4096 features to 11008. How many magnitudes does DoRA have?
# 3. Why does $W' = W_0$ hold before training, for both methods?
#
# <details><summary>Answers</summary>
#
# 1. LoRA: the length of that row. DoRA: nothing, because the direction stays, and the length comes only
#    from `m`.
# 2. 11008 with `norm_dim=1`, one per output neuron; 4096 with `norm_dim=0`.
# 3. `lora_B` is zero, so the update is zero; and DoRA's `m` starts as the norm that it divides by.
# </details>

# %% [markdown]
# ## Further reading
#
# - Liu et al., [DoRA: Weight-Decomposed Low-Rank Adaptation](https://arxiv.org/abs/2402.09353),
#   2024: section 3 (analysis), section 4 (method)
# - Hu et al., [LoRA: Low-Rank Adaptation of Large Language Models](https://arxiv.org/abs/2106.09685), 2021
# - [PEFT documentation](https://huggingface.co/docs/peft)
#
# **Next:** [lesson 02](02-from-scratch.ipynb), in which you write both layers yourself.

# %% [markdown] tags=["remove-cell"]
# ## How far you are
#
# Save the notebook (Ctrl+S), then run this cell: it reads what the checks said in each lesson, and
# leads to each exercise.

# %% tags=["remove-cell"]
progress.overview()
