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
# # 3.1.2 DoRA · Lesson 02: from scratch
#
# [Start](../00-start.ipynb) | [← 01 · the mathematics](01-mathematics.ipynb) | [03 · what training does to a weight →](03-decomposition.ipynb)
#
# **About 40 minutes.** You need `nn.Module`, and lesson 01 or its ideas.
#
# After this lesson you have
# - written a LoRA layer and a DoRA layer, and merged both into a plain `nn.Linear`;
# - seen the axis trap, which a square layer hides;
# - seen why the norm is a constant in the backward pass, and measured what DoRA keeps in memory.
#
# **The idea.** A pretrained layer multiplies its input by a weight $W_0$, which stays frozen.
# **LoRA** trains a small update beside it, of low rank: $W_0 + s\,BA$. One update then decides both
# how long each row of the weight is and where it points. **DoRA** lets the update decide where a row
# points and nothing else: it divides each row of $W_0 + s\,BA$ by its length, and multiplies it by
# one number that is trained for this, the row's *magnitude* $m$.
#
# As in every lesson, text and demonstrations use the lab's own `lab_utils.layers`; only your
# exercises and the cells that check them depend on what you write.

# %% jupyter={"source_hidden": true} tags=["remove-cell"]
# Set-up: run this cell first. Its code is folded; a click on the dots shows it.
from importlib.util import find_spec

if find_spec("lab_utils") is None:
    raise ModuleNotFoundError(
        "This kernel has no lab_utils. Choose the kernel “DoRA Lab (Python 3)” at the top right; if "
        "it is not listed, run `make lab` in the folder of the lab."
    )

import copy
import json

import torch
import torch.nn.functional as F
from torch import nn

from lab_utils import checks, decomposition, layers, plots, progress, quiz, widgets
from lab_utils.comparison import RESULTS
from lab_utils.examples import moved, random_linear, seeded
from lab_utils.memory import kept_for_backward

# %% [markdown]
# ## 1. A LoRA layer
#
# Its output is that of the frozen layer, plus that of the update:
#
# $$y = W_0 x + b + s\,B\,(A\,x), \qquad s = \frac{\alpha}{r}$$
#
# What the layer holds:
# - `original_layer`, under this name and frozen: `requires_grad_(False)` on all of it, bias
#   included. It is not copied and never changed;
# - `lora_A`, an `nn.Parameter` of shape `(rank, in_features)`, random (`nn.init.kaiming_uniform_`
#   with `a=math.sqrt(5)` is the usual choice);
# - `lora_B`, an `nn.Parameter` of shape `(out_features, rank)`, zeros. One of the two must be zero
#   so that training starts from $W_0$. If both were, both gradients would stay zero, since
#   $\partial L / \partial B$ contains $A x$, and $\partial L / \partial A$ contains $B$.
#
# `forward` goes from right to left: $A x$ has only `rank` numbers, so `B @ A`, which is as large as
# $W_0$, is never built. `dropout` acts on the input of the low-rank path only. `merge()` returns a
# new `nn.Linear` with $W_0 + s\,BA$ and the same bias: what you deploy has no adapter and no
# extra cost.

# %% [markdown]
# ### Exercise 1: `LoRALayer` (5 points)
#
# What must hold, with or without a bias, for any rank, alpha and sizes:
# - `self.original_layer` is the layer that was passed in: frozen, not copied, never changed;
# - `lora_A` and `lora_B` are parameters of the layer itself, with the shapes above, and nothing
#   else is trainable. `lora_A` is random, `lora_B` is zero;
# - before training the output is that of the frozen layer;
# - `forward` takes an `x` with any leading dimensions: one vector, a batch, an empty one, four
#   dimensions. It leaves `x` as it is;
# - gradients reach `lora_A`, `lora_B` and `x`, in training and in evaluation mode;
# - in training mode each input of `lora_A` is dropped with probability `dropout`, and otherwise divided
#   by `1 - dropout`. Nothing else is dropped, and in evaluation mode nothing at all;
# - `merge()` returns a new `nn.Linear` at every call, the same in either mode, with the base's bias if it
#   has one. It changes neither parameters nor mode, and what is frozen stays frozen.
#
# <details><summary>Hint: forward</summary>
#
# `F.linear(x, self.lora_A)` is $A x$ for `x` of any leading shape, like `x @ self.lora_A.T`.
# </details>
#
# <details><summary>Hint: merge</summary>
#
# Make an `nn.Linear(in_features, out_features, bias=...)` and fill it under `torch.no_grad()` with
# `merged.weight.copy_(...)`. A method `update()` that returns $s\,BA$ helps here and in DoRA.
# </details>


# %% nbgrader={"grade": false, "grade_id": "lora-layer", "locked": false, "schema_version": 3, "solution": true, "task": false}
class LoRALayer(nn.Module):
    """A frozen nn.Linear plus a trained low-rank update.

    original_layer: nn.Linear, kept and frozen
    rank: rows of lora_A and columns of lora_B
    alpha: the update is scaled by alpha / rank
    dropout: probability of dropping an input of the low-rank path in training
    """

    def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0):
        super().__init__()
        ### BEGIN SOLUTION
        self.original_layer = original_layer.requires_grad_(False)
        self.scaling = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.lora_A = nn.Parameter(torch.empty(rank, original_layer.in_features))
        self.lora_B = nn.Parameter(torch.zeros(original_layer.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)
        ### END SOLUTION

    def forward(self, x):
        """Map x, (..., in_features), to (..., out_features)."""
        ### BEGIN SOLUTION
        low_rank = F.linear(F.linear(self.dropout(x), self.lora_A), self.lora_B)
        return self.original_layer(x) + self.scaling * low_rank
        ### END SOLUTION

    def merge(self):
        """Return a new nn.Linear that computes the same in evaluation mode."""
        ### BEGIN SOLUTION
        return self.with_weight(self.original_layer.weight + self.update())

    def update(self):
        return self.scaling * self.lora_B @ self.lora_A

    def with_weight(self, weight):
        merged = copy.deepcopy(self.original_layer)
        with torch.no_grad():
            merged.weight.copy_(weight)
        return merged
        ### END SOLUTION


# %% [markdown]
# What it holds, and its output before training (1 point):

# %% nbgrader={"grade": true, "grade_id": "lora-start", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_lora_layer(LoRALayer, "start")
### BEGIN HIDDEN TESTS
checks.check_lora_layer(LoRALayer, "start", in_features=5, out_features=9, bias=False, seed=31)
### END HIDDEN TESTS

# %% [markdown]
# The output and the gradients of a trained layer (2 points):

# %% nbgrader={"grade": true, "grade_id": "lora-forward", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_lora_layer(LoRALayer, "forward")
### BEGIN HIDDEN TESTS
checks.check_lora_layer(
    LoRALayer, "forward", in_features=5, out_features=9, rank=3, alpha=12.0, bias=False, seed=32
)
checks.check_lora_layer(LoRALayer, "forward", seed=33, dtype=torch.float64)
### END HIDDEN TESTS

# %% [markdown]
# Dropout (1 point) and merging (1 point):

# %% nbgrader={"grade": true, "grade_id": "lora-dropout", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_lora_layer(LoRALayer, "dropout")
### BEGIN HIDDEN TESTS
checks.check_lora_layer(LoRALayer, "dropout", in_features=9, out_features=5, bias=False, seed=34)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "lora-merge", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_lora_layer(LoRALayer, "merge")
### BEGIN HIDDEN TESTS
checks.check_lora_layer(LoRALayer, "merge", in_features=5, out_features=9, bias=False, seed=35)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. What a DoRA layer holds
#
# Its weight has the rows of the updated weight $V$, each brought to the length $m$:
#
# $$W' = m \odot \frac{V}{\lVert V \rVert}, \qquad V = W_0 + s\,BA$$
#
# It holds everything that a LoRA layer holds, and `magnitude`, an `nn.Parameter` that starts as
# $\lVert W_0 \rVert$. With $B = 0$ the norm is $\lVert W_0 \rVert$ too, the two cancel, and the layer
# starts as the frozen one. A random magnitude, or one of ones, would destroy the pretrained
# layer before the first step.

# %% tags=["nbval-check-output"]
base = random_linear(in_features=6, out_features=4)
x = torch.randn(5, 6, generator=seeded(1))
start = layers.DoRALayer(base, rank=2, generator=seeded())
print("magnitude, shape", tuple(start.magnitude.shape))
norms, _ = decomposition.decompose(base.weight)
print("the frozen layer's norms:", torch.equal(start.magnitude, norms))
# the sum is rounded in another order than nn.Linear's, so not always equal to the bit
print("the frozen layer's output, to 1e-6:", torch.allclose(start(x), base(x), rtol=0, atol=1e-6))

random_start = copy.deepcopy(start)
with torch.no_grad():
    random_start.magnitude.copy_(torch.randn(4, 1, generator=seeded(2)))
difference = (random_start(x) - base(x)).abs().max()
print(f"largest difference with a random magnitude: {difference:.2f}")

# %% [markdown]
# ## 3. Divide by the norm
#
# The norm is that of $V$, the *updated* weight, and it is computed again at every step, since $V$
# moves. Without the division the rows of $m \odot V$ would have length $m \lVert V \rVert$, which at
# the start is already $\lVert W_0 \rVert^2$. With the norm of $W_0$ instead of that of $V$ the layer
# starts correctly, but the update changes lengths again, as in LoRA.
#
# Below are the rows of a weight, with a random update of rank 2 that grows as you drag. Predict:
# which slider moves the lengths of LoRA's rows, which those of DoRA's, and which the turns?

# %%
explored = random_linear(in_features=8, out_features=6, bias=False).weight.detach()
update = torch.randn(6, 2, generator=seeded(3)) @ torch.randn(2, 8, generator=seeded(4)) / 2
widgets.matrix_explorer(explored, update)

# %% [markdown]
# ## 4. Which axis?
#
# `weight` is `(out_features, in_features)`. DoRA's default, in the authors' code, in PEFT (the
# library of lesson 06) and here, is one magnitude per **output** neuron: the norm of each row,
# `dim=1`. The other reading, one per **input** feature, is `dim=0`. On a square layer the two have the
# same number of magnitudes, both broadcast without an error, and both start as the frozen layer. Nothing fails, and
# you train something other than you think. Only a non-square layer, or a trained one, shows it:

# %% tags=["nbval-check-output"]
for in_features, out_features in ((6, 6), (6, 4)):
    frozen = random_linear(in_features, out_features)
    per_output, per_input = (
        layers.DoRALayer(frozen, rank=2, norm_dim=norm_dim, generator=seeded())
        for norm_dim in (1, 0)
    )
    print(f"{in_features} → {out_features}")
    print("  magnitudes:", per_output.magnitude.numel(), "and", per_input.magnitude.numel())
    print("  same output before training:", torch.allclose(per_output(x), per_input(x), atol=1e-5))
    with torch.no_grad():
        for layer in (per_output, per_input):
            layer.lora_B.copy_(torch.randn(out_features, 2, generator=seeded(5)))
    print(
        "  same output once lora_B moved:", torch.allclose(per_output(x), per_input(x), atol=1e-5)
    )

# %% [markdown]
# Your layer takes the choice as `norm_dim`. Lesson 04 measures whether it matters.

# %% [markdown]
# ## 5. The norm is a constant in the backward pass
#
# The norm depends on `lora_A` and `lora_B`, which are trained. So the full gradient of $V$ (the paper's
# eq. 6), for one row $v$ with its magnitude $m$,
#
# $$\nabla_v L = \frac{m}{\lVert v \rVert} \Bigl(I - \frac{v v^\top}{\lVert v \rVert^2}\Bigr) \nabla_{w'} L$$
#
# is the gradient of the merged row, scaled, and without its part along $v$. This is *weight
# normalisation* ([Salimans and Kingma, 2016](https://arxiv.org/abs/1602.07868)) on a row that
# starts at $w_0$, and the source of the claim of **better gradient flow**: a gradient step of $v$ is
# perpendicular to $v$, so it turns $v$ and can only lengthen it; noisy gradients lengthen it more, and
# the factor $m / \lVert v \rVert$ then makes later steps smaller automatically. (That is strictly so where
# $v$ itself is trained. DoRA's optimiser moves `lora_A` and `lora_B`, and $v$ follows.) The paper's
# section 4.2 takes this as its first argument. But autograd must then keep what it needs to differentiate
# the norm, so section 4.3 treats the norm as a constant $C$ in the backward pass (eq. 11), and so do all
# its later runs:
#
# $$\nabla_v L = \frac{m}{C} \nabla_{w'} L$$
#
# The output and the gradient of $m$ stay the same, but the gradient of $v$ keeps its part along $v$: of
# "better gradient flow" only the factor is left. (The second argument of section 4.2 is about the
# gradient of $m$, which does not change.) On LLaMA-7B the paper reports 24.4% less memory, and an
# accuracy of 78.1 in place of 78.3 (table 7); lesson 05 measures what it does to our loss. In code it is
# one call: `norm.detach()`. Detach only the norm: if you detach $V$, `lora_A` and `lora_B` learn nothing.
#
# With `lora_A` the identity, the gradient of `lora_B` is that of $V$, and the difference shows:

# %% tags=["nbval-check-output"]
tall = random_linear(in_features=4, out_features=6)
for detach_norm in (False, True):
    dora = moved(layers.DoRALayer(tall, rank=4, alpha=4.0, detach_norm=detach_norm))
    with torch.no_grad():
        dora.lora_A.copy_(torch.eye(4))
    dora(x[:, :4]).square().sum().backward()
    along_v = (dora.lora_B.grad * dora.updated_weight().detach()).sum(dim=1)
    print("norm detached" if detach_norm else "full gradient")
    print(f"  largest part of a row's gradient along v: {along_v.abs().max():.3f}")
    print(f"  gradient of the first magnitude: {dora.magnitude.grad[0, 0]:.3f}")

# %% [markdown]
# ## 6. Dropout on the low-rank path only
#
# Dropout is there to keep the *update* from relying on single inputs. On the frozen path it would
# add noise to the pretrained layer, from the first step on. This happens when a layer drops inputs of
# the whole of $W'$:

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# Dropout on the low-rank path, and on everything.
base_wide = random_linear(256, 128)
inputs = torch.randn(64, 256, generator=seeded(6))
torch.manual_seed(0)  # for the masks
low_rank_only = layers.DoRALayer(base_wide, rank=4, dropout=0.1).train()
on_everything = F.linear(F.dropout(inputs, 0.1), base_wide.weight, base_wide.bias)
right = base_wide(inputs)
for name, output in (
    ("on the low-rank path", low_rank_only(inputs)),
    ("on everything", on_everything),
):
    print(f"dropout {name}: error before training {(output - right).norm() / right.norm():.1%}")

# %% [markdown]
# The lab applies $W'$ as
#
# $$\frac{m}{\lVert V \rVert} \odot \bigl(W_0 x + s\,B A\,\mathrm{drop}(x)\bigr)$$
#
# The authors' code and PEFT write
#
# $$W_0 x + \Bigl(\frac{m}{\lVert V \rVert} - 1\Bigr) \odot W_0\,\mathrm{drop}(x) + \frac{m}{\lVert V \rVert} \odot s\,BA\,\mathrm{drop}(x)$$
#
# There the part that the magnitude adds to $W_0 x$ is dropped too. Both start as the frozen layer,
# without dropout they are equal, and the check accepts both.

# %% [markdown]
# ## 7. Merge
#
# Merging computes $W'$ once, including norm and magnitude, and puts it into a new `nn.Linear` with
# the same bias. A merged layer is a plain one: no adapter, no norm, no extra time. The adapted
# layer and the pretrained weight do not change.

# %% tags=["nbval-check-output"]
dora = moved(layers.DoRALayer(base, rank=2, generator=seeded()))
merged = dora.merge()
print(type(merged).__name__, "in place of", type(dora).__name__)
print("same output, to 1e-5:", torch.allclose(merged(x), dora(x), rtol=0, atol=1e-5))

# %% [markdown]
# ### Exercise 2: `DoRALayer` (12 points)
#
# It may reuse your `LoRALayer`. What must hold, with `norm_dim=1` and with `norm_dim=0`:
# - all that must hold for `LoRALayer`, with $W'$ in place of $W_0 + s\,BA$;
# - `magnitude` is an `nn.Parameter` of shape `(out_features, 1)`, or `(1, in_features)` with
#   `norm_dim=0`. It starts as $\lVert W_0 \rVert$ and multiplies as it is, with its sign: training may
#   take it to zero or below;
# - a vector of zeros in $W_0$ stays zero before training: never divide by zero;
# - in training mode the norm is a constant in the backward pass. In evaluation mode, where nobody
#   trains, it may be one or not;
# - dropout takes the lab's form or PEFT's.
#
# <details><summary>Hint: a plan</summary>
#
# 1. `__init__`: what `LoRALayer` holds, `norm_dim`, and `magnitude` from
#    `original_layer.weight.detach()`.
# 2. A method for the factor $m / \lVert V \rVert$, with the norm detached. It has the shape of
#    `magnitude`.
# 3. `forward`: the frozen weight and the update, each times the factor, are two `F.linear`: one
#    for `x`, with the bias, and one for `dropout(x)`.
# 4. `merge`: the factor times $V$.
# </details>
#
# <details><summary>Hint: why not scale the output?</summary>
#
# With `norm_dim=1` the factor is one number per output, so you may scale the output instead of the
# weight, before the bias is added. With `norm_dim=0` it is one per input. Scaling the weight
# works for both.
# </details>


# %% nbgrader={"grade": false, "grade_id": "dora-layer", "locked": false, "schema_version": 3, "solution": true, "task": false}
class DoRALayer(nn.Module):
    """LoRA on the direction of a frozen nn.Linear, and a magnitude trained apart from it.

    original_layer: nn.Linear, kept and frozen
    rank, alpha, dropout: as in LoRALayer
    norm_dim: 1 for one magnitude per output neuron, shape (out_features, 1);
        0 for one per input feature, shape (1, in_features)
    """

    def __init__(self, original_layer, rank=8, alpha=16.0, dropout=0.0, norm_dim=1):
        super().__init__()
        ### BEGIN SOLUTION
        self.original_layer = original_layer.requires_grad_(False)
        self.scaling = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.norm_dim = norm_dim
        self.lora_A = nn.Parameter(torch.empty(rank, original_layer.in_features))
        self.lora_B = nn.Parameter(torch.zeros(original_layer.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)
        self.magnitude = nn.Parameter(original_layer.weight.norm(dim=norm_dim, keepdim=True))
        ### END SOLUTION

    def forward(self, x):
        """Map x, (..., in_features), to (..., out_features)."""
        ### BEGIN SOLUTION
        factor = self.factor()
        frozen = F.linear(x, factor * self.original_layer.weight, self.original_layer.bias)
        return frozen + F.linear(self.dropout(x), factor * self.update())
        ### END SOLUTION

    def merge(self):
        """Return a new nn.Linear that computes the same in evaluation mode."""
        ### BEGIN SOLUTION
        merged = copy.deepcopy(self.original_layer)
        with torch.no_grad():
            merged.weight.copy_(self.factor() * (self.original_layer.weight + self.update()))
        return merged

    def update(self):
        return self.scaling * self.lora_B @ self.lora_A

    def factor(self):
        updated = self.original_layer.weight + self.update()
        norm = updated.detach().norm(dim=self.norm_dim, keepdim=True).clamp_min(1e-8)
        return self.magnitude / norm
        ### END SOLUTION


# %% [markdown]
# What it holds, and its output before training (2 points):

# %% nbgrader={"grade": true, "grade_id": "dora-start", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_dora_layer(DoRALayer, "start")
### BEGIN HIDDEN TESTS
checks.check_dora_layer(DoRALayer, "start", in_features=5, out_features=9, bias=False, seed=41)
### END HIDDEN TESTS

# %% [markdown]
# The output of a trained layer, one magnitude per output neuron (3 points):

# %% nbgrader={"grade": true, "grade_id": "dora-forward", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
checks.check_dora_layer(DoRALayer, "forward")
### BEGIN HIDDEN TESTS
checks.check_dora_layer(
    DoRALayer, "forward", in_features=5, out_features=9, rank=3, alpha=12.0, bias=False, seed=42
)
checks.check_dora_layer(DoRALayer, "forward", seed=43, dtype=torch.float64)
### END HIDDEN TESTS

# %% [markdown]
# The other axis, `norm_dim=0`, from the start to merging (2 points):

# %% nbgrader={"grade": true, "grade_id": "dora-axis", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_dora_layer(DoRALayer, "axis")
### BEGIN HIDDEN TESTS
checks.check_dora_layer(DoRALayer, "axis", in_features=5, out_features=9, rank=3, seed=44)
### END HIDDEN TESTS

# %% [markdown]
# The gradients, with the norm a constant (2 points):

# %% nbgrader={"grade": true, "grade_id": "dora-gradients", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_dora_layer(DoRALayer, "gradients")
### BEGIN HIDDEN TESTS
checks.check_dora_layer(DoRALayer, "gradients", in_features=5, out_features=9, rank=3, seed=45)
### END HIDDEN TESTS

# %% [markdown]
# Dropout (1 point) and merging (2 points):

# %% nbgrader={"grade": true, "grade_id": "dora-dropout", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
checks.check_dora_layer(DoRALayer, "dropout")
### BEGIN HIDDEN TESTS
checks.check_dora_layer(DoRALayer, "dropout", in_features=9, out_features=5, bias=False, seed=46)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "dora-merge", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
checks.check_dora_layer(DoRALayer, "merge")
### BEGIN HIDDEN TESTS
checks.check_dora_layer(DoRALayer, "merge", in_features=5, out_features=9, bias=False, seed=47)
### END HIDDEN TESTS

# %% [markdown]
# ## 8. Which mistake is this?
#
# Each line describes another version of `DoRALayer`. **Predict** what its check finds, then choose, and
# the actual finding appears. A version may be right, or wrong in a way that *this* check cannot see.
# There are no points here. Once your own answers have passed, each finding comes with the code.

# %% tags=["nbval-check-output", "remove-input"]
quiz.which_mistake("from_scratch")

# %% [markdown]
# ## 9. What the norm costs
#
# Once your own layer has passed, this cell shows the textbook form from the lab's own layer:

# %%
quiz.Code(
    layers.DoRALayer.reference_forward,
    "DoRALayer",
    ["start", "forward", "axis", "gradients", "dropout", "merge"],
)

# %% [markdown]
# The textbook form builds `B @ A` and weights as large as $W_0$, at every step, for every layer.
# `DoRALayer.forward` needs none of them:
#
# - the factor $m / \lVert V \rVert$ is one number per output, so it can scale outputs instead of a
#   weight: $W' x = (m / \lVert V \rVert)\,(W_0 x + s\,B(Ax))$;
# - the norms are measured on one block of rows of $W_0 + s\,BA$ at a time, and the block is then
#   discarded. On a GPU one kernel does this without writing the block to memory.
#
# Same output, same gradients:

# %% tags=["nbval-check-output"]
big = moved(layers.DoRALayer(random_linear(1024, 1024), rank=8, generator=seeded()))
tokens = torch.randn(64, 1024, generator=seeded(7))
weights = torch.randn(64, 1024, generator=seeded(8))
results = {}
for name, forward in (("in blocks", big.forward), ("textbook", big.reference_forward)):
    big.zero_grad()
    output = forward(tokens)
    (output * weights).sum().backward()
    gradients = {n: p.grad for n, p in big.named_parameters() if p.requires_grad}
    results[name] = {"output": output.detach()} | gradients
for name, expected in results["textbook"].items():
    error = (results["in blocks"][name] - expected).norm() / expected.norm()
    print(f"{name}: same to 1e-5 of its size: {bool(error < 1e-5)}")

# %% [markdown]
# There is a shorter way, which needs no block at all. For one row,
#
# $$\lVert w_0 + s\,bA \rVert^2 = \lVert w_0 \rVert^2 + 2s \langle w_0 A^\top, b \rangle + s^2 \langle b\,(A A^\top), b \rangle$$
#
# The first term never changes, and the others need only matrices as thin as the rank
# ([Zelenin and Zhuravlyova, 2026](https://arxiv.org/abs/2603.22276) do this for large models). The
# identity is exact; float32 is not. Where an update undoes most of a row, large terms of opposite
# sign leave a small sum, which consists mostly of their rounding errors:

# %%
row = torch.randn(4096, generator=seeded(9))
for left in (1.0, 0.1, 0.01, 0.001):
    update = (left - 1) * row  # undoes all but a share `left` of the row
    squared = row @ row + 2 * (row @ update) + update @ update
    by_identity = squared.clamp_min(0).sqrt() / row.norm()
    measured = (row + update).norm() / row.norm()
    print(
        f"{left:5} of the row is left: the identity is off by {abs(by_identity / left - 1):7.4%}, "
        f"the measured norm by {abs(measured / left - 1):7.4%}"
    )

# %% [markdown]
# So the layer measures its norms. With `detach_norm=False` it takes their derivative from the
# identity, where this does no harm.
#
# What does each form keep for its backward pass? PyTorch passes every tensor that it keeps to a
# hook, so we can count them. $W_0$ and the parameters exist anyway and do not count.

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: what four forms of a layer keep for the backward pass.
lora = moved(layers.LoRALayer(big.original_layer, rank=8, generator=seeded()))
full_gradient = copy.deepcopy(big)
full_gradient.detach_norm = False
forms = {
    "LoRA": (lora, lora.forward),
    "DoRA textbook, full gradient": (full_gradient, full_gradient.reference_forward),
    "DoRA textbook, norm detached": (big, big.reference_forward),
    "DoRA, norm in blocks": (big, big.forward),
}
memory = {name: kept_for_backward(*form, tokens) / 1e6 for name, form in forms.items()}
assert memory["DoRA, norm in blocks"] < memory["DoRA textbook, norm detached"]
assert memory["DoRA textbook, norm detached"] < memory["DoRA textbook, full gradient"]
plots.show(
    plots.saved_memory(memory),
    "Bars of memory kept for the backward pass of one 1024 by 1024 layer: "
    + ", ".join(f"{name} {value:.1f} MB" for name, value in memory.items()),
)

# %% [markdown]
# These are tensors that wait for the backward pass, for one layer and 64 tokens; tensors that exist only
# within `forward` are not in the bars. The next figure shows time: `benchmarks/layers.py` ran training
# steps of one layer as in a large model, 4096 by 4096 in bfloat16 (16 bits a number) with 4096 tokens, on
# a GPU, in four ways: as it is, so that Python launches one operation after the other; recorded once as a
# CUDA graph and replayed, without Python; compiled by `torch.compile`, which fuses operations that pass
# over the same memory; and both. (PEFT's adapter is in bfloat16 here; by default PEFT keeps it in float32,
# which takes longer. This lab's is in float32.)

# %% jupyter={"source_hidden": true} tags=["remove-input"]
# The figure: what a step of one layer takes on a GPU.
lines = (RESULTS / "layers.jsonl").read_text("utf-8").splitlines()
everything = [json.loads(line) for line in lines]
measured = [r for r in everything if r["device"].startswith("NVIDIA") and r["out_features"] == 4096]
ways = {
    "plain": "as it is",
    "recorded": "recorded and replayed",
    "compiled": "compiled",
    "compiled and recorded": "compiled, recorded and replayed",
}
time = {(r["form"], r["way"]): r["milliseconds"] for r in measured}
ratio = {(r["form"], r["way"]): r["times_lora"] for r in measured}  # to LoRA in the same round
peak = {(r["form"], r["way"]): r["memory"] / 1e6 for r in measured}
shown = {
    "frozen": "frozen layer",
    "LoRA": "LoRA",
    "DoRA": "DoRA",
    "DoRA, PEFT, adapter in the base's dtype": "DoRA, PEFT's layer",
}
plots.show(
    plots.step_times(
        [
            record | {"form": shown[record["form"]]}
            for record in measured
            if record["form"] in shown
        ],
        ways,
    ),
    "Markers of the time of a training step of one layer on an H100. "
    + " ".join(
        f"{name}, {label}: {time[form, way]:.2f} ms."
        for form, name in shown.items()
        for way, label in ways.items()
    ),
)
for way, label in ways.items():
    print(
        f"{label + ':':32} DoRA takes {ratio['DoRA', way]:.2f} times as long as LoRA, "
        f"textbook {ratio['DoRA textbook', way]:.0f}"
    )
print(
    f"peak memory as it is: LoRA {peak['LoRA', 'plain']:.0f} MB, DoRA {peak['DoRA', 'plain']:.0f} MB, "
    f"textbook form {peak['DoRA textbook', 'plain']:.0f} MB"
)
times_lora = {
    (r["in_features"], r["form"]): r["times_lora"]
    for r in everything
    if r["dtype"] == "float32" and r["way"] == "plain"
}
for width in (128, 2048):
    print(
        f"on one thread of a CPU, {width} by {width} in float32, in times of LoRA: DoRA\n"
        f"    {times_lora[width, 'DoRA']:.2f}, PEFT's {times_lora[width, 'DoRA, PEFT']:.2f}, "
        f"the textbook form {times_lora[width, 'DoRA textbook']:.2f}"
    )

# %% [markdown]
# What to learn from it:
#
# - **A step consists of launches and of passes over memory as well as of arithmetic.** DoRA has more
#   operations than LoRA, most of which only pass over memory. Replaying them without Python saves DoRA
#   0.20 ms, and fusing what is replayed another 0.08 ms; then it takes 0.09 ms more than LoRA. Compiling
#   *alone* makes LoRA slower, and DoRA hardly faster: the GPU has less to do, as the replayed steps show,
#   but here it waits for Python, and a compiled function has Python of its own to run. So what is not
#   replayed depends on the processor beside the GPU.
# - **Above all, the blocks save memory.** The textbook form needs more than three times as much in each
#   way. (Its times are so long because it multiplies in float32, which a GPU does many times more slowly
#   than in bfloat16.)
# - The ratio of two times is valid only for one size, device and way of running. On one CPU thread, DoRA
#   takes half as long again as LoRA in a small layer, and less than a tenth longer in a large one.
#
# What a whole training takes, in seconds and in peak memory, is measured in lesson 04.

# %% [markdown]
# ## Checkpoint
#
# 1. Your DoRA layer starts as the frozen layer. Which of the mistakes above does that rule out?
# 2. Why does a square layer hide the axis trap, and how do you find it anyway?
# 3. What do you gain and what do you lose when the norm is detached?
# 4. Why does dropout not belong on the frozen path?
#
# <details><summary>Answers</summary>
#
# 1. A random magnitude, no normalisation, a lost bias, a `lora_B` that is not zero. Scaling, axis
#    (on a square layer, done alike at the start and in forward), detaching and freezing need a
#    trained layer, a gradient, or a look at `requires_grad`.
# 2. Both axes have the same number of magnitudes and the same first output. Move `lora_B` and compare
#    with the formula, or look at a non-square layer.
# 3. You save memory. You lose weight normalisation's property that the gradient of each row of $V$ is
#    perpendicular to that row.
# 4. It would be noise on what the pretrained layer knows, from the first step.
# </details>

# %% [markdown]
# ## Further reading
#
# - Liu et al., [DoRA](https://arxiv.org/abs/2402.09353), 2024: section 4.2 (gradients), 4.3 (memory)
# - Salimans and Kingma, [Weight Normalization](https://arxiv.org/abs/1602.07868), 2016
# - [PEFT's DoRA layer](https://github.com/huggingface/peft/blob/main/src/peft/tuners/lora/dora.py)
# - `lab_utils/layers.py`: the reference, with half precision, rows of zeros and rsLoRA
#
# **Next:** [lesson 03](03-decomposition.ipynb) looks at the magnitudes and directions of weights
# that were actually trained.

# %% [markdown] tags=["remove-cell"]
# ## How far you are
#
# Save the notebook (Ctrl+S), then run this cell: it reads what the checks said in each lesson, and
# leads to each exercise.

# %% tags=["remove-cell"]
progress.overview()
