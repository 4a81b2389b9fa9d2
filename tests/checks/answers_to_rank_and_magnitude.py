"""Answers as students write them, lesson 05; the docstring of a wrong one says what it gets."""

import math

import numpy as np
import torch

from lab_utils import checks, training


def trained(m, r, **k):
    return training.train_and_evaluate(
        m, **{"n_epochs": 1} | k, rank=r, task="regression", verbose=False
    )


def run(m, r, key="test_loss", **k):
    return trained(m, r, **{"seed": 0} | k)[key]


METHODS = ("lora", "dora")


class RightRanks:
    def defaultdict(ranks=(4, 8, 16, 32)):
        from collections import defaultdict

        d = defaultdict(dict)
        for m in METHODS:
            for r in ranks:
                d[m][r] = run(m, r)
        return d

    def np_float(ranks=(4, 8, 16, 32)):
        return {m: {r: np.float64(run(m, r)) for r in ranks} for m in METHODS}

    def floated(ranks=(4, 8, 16, 32)):
        return dict(
            dora={int(r): float(run("dora", r)) for r in ranks},
            lora={r: run("lora", r) for r in ranks},
        )

    def npkeys(ranks=(4, 8, 16, 32)):
        return {m: {np.int64(r): run(m, r) for r in ranks} for m in METHODS}

    def float_keys(ranks=(4, 8, 16, 32)):
        return {m: {float(r): run(m, r) for r in ranks} for m in METHODS}


class WrongRanks:
    def all_lists(ranks=(4, 8, 16, 32)):
        """lists in place of dicts"""
        return {m: [run(m, r) for r in ranks] for m in METHODS}

    def short_lists(ranks=(4, 8, 16, 32)):
        """lists in place of dicts"""
        return {m: [0.1] for m in METHODS}

    def tuples(ranks=(4, 8, 16, 32)):
        """lists in place of dicts"""
        return {m: [(r, run(m, r)) for r in ranks] for m in METHODS}

    def nparr(ranks=(4, 8, 16, 32)):
        """lists in place of dicts"""
        return {m: np.array([run(m, r) for r in ranks]) for m in METHODS}

    def tens(ranks=(4, 8, 16, 32)):
        """losses that are not floats"""
        return {m: {r: torch.tensor(run(m, r)) for r in ranks} for m in METHODS}

    def tensor_all(ranks=(4, 8, 16, 32)):
        """lists in place of dicts"""
        return {m: torch.tensor([run(m, r) for r in ranks]) for m in METHODS}

    def strs(ranks=(4, 8, 16, 32)):
        """losses that are not floats"""
        return {m: {r: f"{run(m, r):.4f}" for r in ranks} for m in METHODS}

    def upper(ranks=(4, 8, 16, 32)):
        """other names of the methods"""
        return {n: {r: run(m, r) for r in ranks} for n, m in (("LoRA", "lora"), ("DoRA", "dora"))}

    def extra(ranks=(4, 8, 16, 32)):
        """more keys than asked for"""
        return {m: {r: run(m, r) for r in ranks} for m in METHODS} | {"ranks": list(ranks)}

    def with_full(ranks=(4, 8, 16, 32)):
        """more keys than asked for"""
        return {m: {r: run(m, r) for r in ranks} for m in METHODS + ("dora-input",)}

    def record(ranks=(4, 8, 16, 32)):
        """the whole result kept"""
        return {m: {r: trained(m, r, seed=0) for r in ranks} for m in METHODS}

    def flat(ranks=(4, 8, 16, 32)):
        """one key for method and rank"""
        return {(m, r): run(m, r) for r in ranks for m in METHODS}

    def flat2(ranks=(4, 8, 16, 32)):
        """one key for method and rank"""
        return {f"{m}_{r}": run(m, r) for r in ranks for m in METHODS}

    def sorted_(ranks=(4, 8, 16, 32)):
        """another order"""
        return {m: {r: run(m, r) for r in sorted(ranks)} for m in METHODS}

    def one_method(ranks=(4, 8, 16, 32)):
        """a method missing"""
        return {"lora": {r: run("lora", r) for r in ranks}}

    def rounded(ranks=(4, 8, 16, 32)):
        """rounded"""
        return {m: {r: round(run(m, r), 3) for r in ranks} for m in METHODS}

    def epochs3(ranks=(4, 8, 16, 32)):
        """another number of epochs"""
        return {m: {r: run(m, r, n_epochs=3) for r in ranks} for m in METHODS}

    def seed1(ranks=(4, 8, 16, 32)):
        """another seed"""
        return {m: {r: run(m, r, seed=1) for r in ranks} for m in METHODS}

    def alpha16(ranks=(4, 8, 16, 32)):
        """another alpha"""
        return {m: {r: run(m, r, alpha=16.0) for r in ranks} for m in METHODS}

    def lr(ranks=(4, 8, 16, 32)):
        """a setting that was not asked for"""
        return {m: {r: run(m, r, learning_rate=0.01) for r in ranks} for m in METHODS}

    def train_last(ranks=(4, 8, 16, 32)):
        """training loss"""
        return {m: {r: run(m, r, "train_losses")[-1] for r in ranks} for m in METHODS}

    def val0(ranks=(4, 8, 16, 32)):
        """loss before training"""
        return {m: {r: run(m, r, "validation_losses")[0] for r in ranks} for m in METHODS}

    def steplast(ranks=(4, 8, 16, 32)):
        """training loss"""
        return {m: {r: run(m, r, "step_losses")[-1] for r in ranks} for m in METHODS}

    def losslist(ranks=(4, 8, 16, 32)):
        """a list, not a number"""
        return {m: {r: run(m, r, "train_losses") for r in ranks} for m in METHODS}

    def same_dict(ranks=(4, 8, 16, 32)):
        """one method twice"""
        d = {}
        out = {}
        for m in METHODS:
            out[m] = d
            for r in ranks:
                d[r] = run(m, r)
        return out

    def last_rank(ranks=(4, 8, 16, 32)):
        """one run for all ranks"""
        x = {m: run(m, ranks[-1]) for m in METHODS}
        return {m: {r: x[m] for r in ranks} for m in METHODS}

    def diff(ranks=(4, 8, 16, 32)):
        """methods left out"""
        return {r: run("dora", r) - run("lora", r) for r in ranks}

    def dora_input(ranks=(4, 8, 16, 32)):
        """norm_dim=0"""
        return {
            "lora": {r: run("lora", r) for r in ranks},
            "dora": {r: run("dora-input", r) for r in ranks},
        }

    def fake(ranks=(4, 8, 16, 32)):
        """unnamed: lora: test loss of a run with n_epochs=1, task='regression',"""
        return {m: {r: 1.0 / r for r in ranks} for m in METHODS}

    def nan(ranks=(4, 8, 16, 32)):
        """unnamed: lora: expected finite floats, found nan."""
        return {m: {r: math.nan for r in ranks} for m in METHODS}

    def none(ranks=(4, 8, 16, 32)):
        """nothing returned"""
        for r in ranks:
            print(run("lora", r))

    def nonevals(ranks=(4, 8, 16, 32)):
        """None, not a number"""
        return {m: {r: None for r in ranks} for m in METHODS}

    def weird(ranks=(4, 8, 16, 32)):
        """unnamed: lora: expected finite floats, found a W."""

        class W:
            def __eq__(s, o):
                raise RuntimeError("no")

            def __repr__(s):
                raise RuntimeError("no")

            __hash__ = object.__hash__

        return {m: {r: W() for r in ranks} for m in METHODS}

    def weird2(ranks=(4, 8, 16, 32)):
        """unnamed: compare_across_ranks must return a dict; found a W."""

        class W:
            def __repr__(s):
                raise RuntimeError("no")

        return W()

    def missing_rank(ranks=(4, 8, 16, 32)):
        """ranks left out"""
        return {m: {r: run(m, r) for r in ranks[:-1]} for m in METHODS}

    def list_tuple(ranks=(4, 8, 16, 32)):
        """lists in place of dicts"""
        return [[run(m, r) for r in ranks] for m in METHODS]

    def pandas(ranks=(4, 8, 16, 32)):
        """unnamed: compare_across_ranks must return a dict; found a DataFrame"""
        import pandas as pd

        return pd.DataFrame({m: {r: run(m, r) for r in ranks} for m in METHODS})

    def bools(ranks=(4, 8, 16, 32)):
        """a truth value, not a number"""
        return {m: {r: True for r in ranks} for m in METHODS}


def recorded(n, what="q_proj", seed=0, rank=8, **k):
    rows = []
    training.train_and_evaluate(
        "dora",
        n,
        rank,
        verbose=False,
        task="regression",
        seed=seed,
        on_step=lambda s, m, loss: rows.append(
            m.get_submodule(what).magnitude.detach().clone().flatten()
        ),
        **k,
    )
    return torch.stack(rows)


def statistics_of(h):
    c = (h - h[0]).abs()
    return {
        "history": h,
        "mean_change": c.mean(1),
        "relative_change": ((h[-1] - h[0]).norm() / h[0].norm()).item(),
    }


class RightTrack:
    def extra(n_epochs=50):
        return statistics_of(recorded(n_epochs)) | {"steps": list(range(5))}

    def npf(n_epochs=50):
        d = statistics_of(recorded(n_epochs))
        d["relative_change"] = np.float32(d["relative_change"])
        return d

    def dbl(n_epochs=50):
        return statistics_of(recorded(n_epochs).double())

    def layer_hist(n_epochs=50):
        h = recorded(n_epochs)
        return {
            "relative_change": float(torch.dist(h[-1], h[0]) / torch.linalg.norm(h[0])),
            "history": h,
            "mean_change": torch.stack([(r - h[0]).abs().mean() for r in h]),
        }

    def get_mc(n_epochs=50):
        rows = []

        def f(step, model, loss):
            rows.append(torch.from_numpy(model.q_proj.magnitude.detach().numpy().copy()).squeeze())

        training.train_and_evaluate(
            "dora", n_epochs=n_epochs, rank=8, task="regression", seed=0, verbose=False, on_step=f
        )
        return statistics_of(torch.stack(rows))


ROWS = []


def related(h, size):
    """The statistics with another size of the change."""
    return statistics_of(h) | {"relative_change": (size / h[0].norm()).item()}


class WrongTrack:
    def largest_step(n_epochs=50):
        """other steps than the end"""
        h = recorded(n_epochs)
        return related(h, (h - h[0]).norm(dim=1).max())

    def largest_epoch(n_epochs=50):
        """other steps than the end"""
        h = recorded(n_epochs)
        return related(h, (h[::32] - h[0]).norm(dim=1).max())

    def largest_of_each(n_epochs=50):
        """other steps than the end"""
        h = recorded(n_epochs)
        return related(h, (h - h[0]).abs().amax(0).norm())

    def mean_of_steps(n_epochs=50):
        """other steps than the end"""
        h = recorded(n_epochs)
        return related(h, (h - h[0]).norm(dim=1).mean())

    def median_of_steps(n_epochs=50):
        """other steps than the end"""
        h = recorded(n_epochs)
        return related(h, (h - h[0]).norm(dim=1).median())

    def spread_of_steps(n_epochs=50):
        """other steps than the end"""
        h = recorded(n_epochs)
        return related(h, (h.amax(0) - h.amin(0)).norm())

    def mean_of_last_epoch(n_epochs=50):
        """other steps than the end"""
        h = recorded(n_epochs)
        return related(h, (h[-32:].mean(0) - h[0]).norm())

    def running_largest(n_epochs=50):
        """made of all steps so far"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"mean_change": (h - h[0]).abs().mean(1).cummax(0).values}

    def rows_of_every_call(n_epochs=50):
        """rows of an earlier call"""
        ROWS.append(recorded(n_epochs))
        return statistics_of(torch.cat(ROWS[-2:] if n_epochs != 2 else ROWS[-1:]))

    def each_row_twice(n_epochs=50):
        """a row twice"""
        return statistics_of(recorded(n_epochs).repeat_interleave(2, 0))

    def mean_of_layers(n_epochs=50):
        """another layer"""
        names = ("q_proj", "k_proj", "v_proj", "o_proj")
        return statistics_of(torch.stack([recorded(n_epochs, name) for name in names]).mean(0))

    def rms(n_epochs=50):
        """root mean square"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"mean_change": (h - h[0]).pow(2).mean(1).sqrt()}

    def sq(n_epochs=50):
        """squared changes"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"mean_change": (h - h[0]).pow(2).mean(1)}

    def nrm(n_epochs=50):
        """norm instead of mean"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"mean_change": (h - h[0]).norm(dim=1)}

    def dim0(n_epochs=50):
        """mean over the steps"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"mean_change": (h - h[0]).abs().mean(0)}

    def alln(n_epochs=50):
        """mean over the steps"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"mean_change": (h - h[0]).abs().mean()}

    def lst(n_epochs=50):
        """no tensor"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"mean_change": (h - h[0]).abs().mean(1).tolist()}

    def flt(n_epochs=50):
        """no tensor"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"mean_change": (h - h[0]).abs().mean().item()}

    def nparr(n_epochs=50):
        """no tensor"""
        d = statistics_of(recorded(n_epochs))
        return {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in d.items()}

    def rel_t(n_epochs=50):
        """a tensor, not a number"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"relative_change": (h[-1] - h[0]).norm() / h[0].norm()}

    def rel_pct(n_epochs=50):
        """in per cent"""
        d = statistics_of(recorded(n_epochs))
        d["relative_change"] *= 100
        return d

    def rel_mean(n_epochs=50):
        """ratios of single magnitudes"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"relative_change": ((h[-1] - h[0]).abs() / h[0]).mean().item()}

    def rel_mm(n_epochs=50):
        """means in place of norms"""
        h = recorded(n_epochs)
        return statistics_of(h) | {
            "relative_change": ((h[-1] - h[0]).abs().mean() / h[0].mean()).item()
        }

    def rel_str(n_epochs=50):
        """a text, not a number"""
        d = statistics_of(recorded(n_epochs))
        d["relative_change"] = f"{d['relative_change']:.3f}"
        return d

    def rounded(n_epochs=50):
        """rounded"""
        d = statistics_of(recorded(n_epochs))
        d["relative_change"] = round(d["relative_change"], 3)
        return d

    def not_flat(n_epochs=50):
        """magnitude not flat"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"history": h.unsqueeze(-1)}

    def listhist(n_epochs=50):
        """no tensor"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"history": list(h)}

    def ne(n_epochs=50):
        """n_epochs not passed on"""
        return statistics_of(recorded(1))

    def e5(n_epochs=50):
        """n_epochs not passed on"""
        return statistics_of(recorded(5))

    def kproj(n_epochs=50):
        """another layer"""
        return statistics_of(recorded(n_epochs, "k_proj"))

    def seed1(n_epochs=50):
        """another seed"""
        return statistics_of(recorded(n_epochs, seed=1))

    def rank4(n_epochs=50):
        """another rank"""
        return statistics_of(recorded(n_epochs, rank=4))

    def lr(n_epochs=50):
        """a setting that was not asked for"""
        return statistics_of(recorded(n_epochs, learning_rate=0.01))

    def aliased(n_epochs=50):
        """no copy"""
        h = recorded(n_epochs)
        return statistics_of(h[-1:].expand_as(h))

    def change(n_epochs=50):
        """changes in place of magnitudes"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"history": h - h[0]}

    def nohist(n_epochs=50):
        """a key missing"""
        d = statistics_of(recorded(n_epochs))
        d["magnitudes"] = d.pop("history")
        return d

    def no_rel(n_epochs=50):
        """a key missing"""
        d = statistics_of(recorded(n_epochs))
        d.pop("relative_change")
        return d

    def tuple_(n_epochs=50):
        """no dict"""
        return tuple(statistics_of(recorded(n_epochs)).values())

    def skip_first(n_epochs=50):
        """start left out"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"mean_change": (h[1:] - h[0]).abs().mean(1)}

    def prev0(n_epochs=50):
        """change since the last step"""
        h = recorded(n_epochs)
        return statistics_of(h) | {
            "mean_change": torch.cat([torch.zeros(1), (h[1:] - h[:-1]).abs().mean(1)])
        }

    def wrongorder(n_epochs=50):
        """divided by the end"""
        h = recorded(n_epochs)
        return statistics_of(h) | {"relative_change": ((h[-1] - h[0]).norm() / h[-1].norm()).item()}

    def sumsq(n_epochs=50):
        """squared changes"""
        h = recorded(n_epochs)
        return statistics_of(h) | {
            "relative_change": ((h[-1] - h[0]).pow(2).sum() / h[0].pow(2).sum()).item()
        }

    def half(n_epochs=50):
        """precision lost"""
        d = statistics_of(recorded(n_epochs))
        d["history"] = d["history"].half()
        return d

    def ints(n_epochs=50):
        """unnamed: history: expected 0.7492 at index (64, 28), found 0 (it is torch.int32)."""
        d = statistics_of(recorded(n_epochs))
        d["history"] = d["history"].int()
        return d

    def sparse(n_epochs=50):
        """unnamed: history: expected a tensor of torch.float32, found a sparse tensor"""
        d = statistics_of(recorded(n_epochs))
        d["history"] = d["history"].to_sparse()
        return d

    def cplx(n_epochs=50):
        """unnamed: history: expected a tensor of torch.float32, found a complex tensor"""
        d = statistics_of(recorded(n_epochs))
        d["history"] = d["history"].to(torch.complex64)
        return d

    def empty(n_epochs=50):
        """unnamed: history: expected shape (65, 32), found (0,)."""
        return {"history": torch.empty(0), "mean_change": torch.empty(0), "relative_change": 0.0}

    def zero(n_epochs=50):
        """unnamed: history: expected 0.7492 at index (64, 28), found 0."""
        return {
            "history": torch.zeros(32 * n_epochs + 1, 32),
            "mean_change": torch.zeros(32 * n_epochs + 1),
            "relative_change": 0.0,
        }


EXERCISES = {
    "compare_across_ranks": (checks.check_compare_across_ranks, RightRanks, WrongRanks),
    "track_magnitude_changes": (checks.check_track_magnitude_changes, RightTrack, WrongTrack),
}

# By words of the exercise's text: the aspect that asks for it, and the answers that break it.
BROKEN_BY = {
    "compare_across_ranks": {
        "with these keys and no others": ("keys", "extra with_full one_method upper flat"),
        "the ranks in the order given": ("keys", "sorted_"),
        "the **test** loss": ("losses", "train_last val0 steplast"),
        "as a float": ("keys", "tens strs"),
        "not rounded": ("losses", "rounded"),
        "n_epochs=1": ("losses", "epochs3"),
        "seed=0": ("losses", "seed1"),
    },
    "track_magnitude_changes": {
        "rank 8": ("history", "rank4"),
        "seed 0": ("history", "seed1"),
        "`n_epochs` as given": ("history", "ne e5"),
        "all else by default": ("history", "lr"),
        "`model.q_proj`": ("history", "kproj"),
        "with these keys": ("history", "nohist tuple_"),
        "numbers that are not rounded": ("statistics", "rounded"),
        "`(32 * n_epochs + 1, 32)`, without gradient": ("history", "not_flat listhist nparr"),
        "the mean over magnitudes": ("statistics", "rms nrm dim0 alln flt"),
        "m_{\\text{end}} - m_0": ("statistics", "largest_step mean_of_steps spread_of_steps"),
    },
}

# A run of 50 epochs, or of all four ranks, is too long to ask for by leaving the argument out.
AS_BY_DEFAULT = {"seed= left out", "verbose= left out", "False -> True"}
# Small changes of the solution that are as right, see test_mutants: what they write for what.
AS_RIGHT = {
    "compare_across_ranks": AS_BY_DEFAULT | {f"{r} -> {r + 1}" for r in (4, 8, 16, 32)},
    "track_magnitude_changes": AS_BY_DEFAULT | {"50 -> 51"},
}
