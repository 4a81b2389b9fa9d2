"""Answers as students write them, lesson 07; the docstring of a wrong one says what it gets."""

import math

import numpy as np
import torch

from lab_utils import adapters, checks, data

task = data.language_task()
inputs, targets = (task.train.inputs[:8], task.train.targets[:8])


class RightScaling:
    def pw(alpha, rank, rank_stabilized):
        return alpha / rank ** (0.5 if rank_stabilized else 1)

    def npf(alpha, rank, rank_stabilized):
        return float(alpha / np.sqrt(rank)) if rank_stabilized else alpha / float(rank)

    def tor(alpha, rank, rank_stabilized):
        return (
            (alpha / torch.tensor(float(rank), dtype=torch.float64).sqrt()).item()
            if rank_stabilized
            else alpha / rank
        )

    def tor32(alpha, rank, rank_stabilized):
        return (
            (alpha / torch.tensor(float(rank)).sqrt()).item() if rank_stabilized else alpha / rank
        )

    def rs(alpha, rank, rank_stabilized):
        return math.sqrt(rank) * alpha / rank if rank_stabilized else alpha / rank


class WrongScaling:
    def kept_by_rule(alpha, rank, rank_stabilized, *, kept={}):
        """the result of an earlier call"""
        if (alpha, rank) == (12.0, 9):  # the first that is asked for
            kept.clear()
        return kept.setdefault(rank_stabilized, alpha / (rank**0.5 if rank_stabilized else rank))

    def isq(alpha, rank, rank_stabilized):
        """whole-number root"""
        return alpha / math.isqrt(rank) if rank_stabilized else alpha / rank

    def intsq(alpha, rank, rank_stabilized):
        """whole-number root"""
        return alpha / int(math.sqrt(rank)) if rank_stabilized else alpha / rank

    def rnd(alpha, rank, rank_stabilized):
        """rounded"""
        return round(alpha / math.sqrt(rank), 2) if rank_stabilized else round(alpha / rank, 2)

    def floor(alpha, rank, rank_stabilized):
        """whole-number division"""
        return alpha // math.sqrt(rank) if rank_stabilized else alpha // rank

    def inta(alpha, rank, rank_stabilized):
        """whole-number division"""
        return int(alpha) / math.sqrt(rank) if rank_stabilized else int(alpha) / rank

    def always(alpha, rank, rank_stabilized):
        """rank_stabilized always on"""
        return alpha / math.sqrt(rank)

    def swapped(alpha, rank, rank_stabilized):
        """the two rules are swapped"""
        return alpha / rank if rank_stabilized else alpha / math.sqrt(rank)

    def str_(alpha, rank, rank_stabilized):
        """a text, not a number"""
        return f"{(alpha / math.sqrt(rank) if rank_stabilized else alpha / rank):.3f}"

    def strcmp(alpha, rank, rank_stabilized):
        """rank_stabilized ignored"""
        return alpha / math.sqrt(rank) if rank_stabilized == "True" else alpha / rank

    def isnone(alpha, rank, rank_stabilized):
        """rank_stabilized always on"""
        return alpha / math.sqrt(rank) if rank_stabilized is not None else alpha / rank

    def mult(alpha, rank, rank_stabilized):
        """multiplied"""
        return alpha * math.sqrt(rank) if rank_stabilized else alpha * rank

    def sq(alpha, rank, rank_stabilized):
        """rank squared"""
        return alpha / rank**2 if rank_stabilized else alpha / rank

    def cbrt(alpha, rank, rank_stabilized):
        """another power of the rank"""
        return alpha / rank ** (1 / 3) if rank_stabilized else alpha / rank

    def xor(alpha, rank, rank_stabilized):
        """half in place of root"""
        return alpha / rank**1 / 2 if rank_stabilized else alpha / rank

    def log(alpha, rank, rank_stabilized):
        """logarithm"""
        return alpha / math.log(rank) if rank_stabilized else alpha / rank

    def only_stab(alpha, rank, rank_stabilized):
        """nothing returned"""
        if rank_stabilized:
            return alpha / math.sqrt(rank)

    def printed(alpha, rank, rank_stabilized):
        """nothing returned"""
        print(alpha / rank)

    def fixed16(alpha, rank, rank_stabilized):
        """alpha left out"""
        return 16 / math.sqrt(rank) if rank_stabilized else 16 / rank

    def tup(alpha, rank, rank_stabilized):
        """a tuple, not a number"""
        return (alpha / rank, alpha / math.sqrt(rank))

    def sqrt_alpha_rank(alpha, rank, rank_stabilized):
        """square root over alpha"""
        return math.sqrt(alpha) / math.sqrt(rank) if rank_stabilized else alpha / rank

    def plus1(alpha, rank, rank_stabilized):
        """rank plus or minus one"""
        return alpha / math.sqrt(rank + 1) if rank_stabilized else alpha / (rank + 1)

    def hardsquares(alpha, rank, rank_stabilized):
        """unnamed: alpha 13, rank 8, rank_stabilized=True: alpha / sqrt(rank) i"""
        return (
            {4: alpha / 2, 9: alpha / 3, 16: alpha / 4, 64: alpha / 8}.get(rank, alpha / rank)
            if rank_stabilized
            else alpha / rank
        )


def adapted(rank, rs, alpha=16.0, gen=0, kind="lora", **k):
    return adapters.add_adapters_to_model(
        task.base,
        kind,
        rank,
        alpha=alpha,
        rank_stabilized=rs,
        generator=None
        if gen is None
        else torch.Generator().manual_seed(gen)
        if isinstance(gen, int)
        else gen,
        **k,
    )


def gradients(m, x=None, y=None, f=1.0):
    (f * task.loss(m(inputs if x is None else x), targets if y is None else y)).backward()
    return [p.grad for p in adapters.trainable_parameters(m).values()]


def length(g):
    return torch.nn.utils.get_total_norm(g).item()


class RightNorms:
    def plain(ranks, rank_stabilized):
        return {r: length(gradients(adapted(r, rank_stabilized))) for r in ranks}

    def autograd(ranks, rank_stabilized):
        d = {}
        for r in ranks:
            m = adapted(r, rank_stabilized)
            ps = list(adapters.trainable_parameters(m).values())
            g = torch.autograd.grad(task.loss(m(inputs), targets), ps)
            d[r] = math.sqrt(sum((x**2).sum().item() for x in g))
        return d

    def train_mode(ranks, rank_stabilized):
        return {r: length(gradients(adapted(r, rank_stabilized).train())) for r in ranks}

    def npfl(ranks, rank_stabilized):
        return {
            r: np.sqrt(sum(np.sum(g.numpy() ** 2) for g in gradients(adapted(r, rank_stabilized))))
            for r in ranks
        }

    def fl32(ranks, rank_stabilized):
        return {int(r): np.float32(length(gradients(adapted(r, rank_stabilized)))) for r in ranks}


class WrongNorms:
    def other_batch(ranks, rank_stabilized):
        """another batch"""
        return {
            r: length(
                gradients(
                    adapted(r, rank_stabilized), task.train.inputs[8:16], task.train.targets[8:16]
                )
            )
            for r in ranks
        }

    def batch4(ranks, rank_stabilized):
        """another batch"""
        return {
            r: length(gradients(adapted(r, rank_stabilized), inputs[:4], targets[:4]))
            for r in ranks
        }

    def test_batch(ranks, rank_stabilized):
        """another batch"""
        return {
            r: length(
                gradients(adapted(r, rank_stabilized), task.test.inputs[:8], task.test.targets[:8])
            )
            for r in ranks
        }

    def no_gen(ranks, rank_stabilized):
        """no generator"""
        return {r: length(gradients(adapted(r, rank_stabilized, gen=None))) for r in ranks}

    def seed42(ranks, rank_stabilized):
        """another seed"""
        return {r: length(gradients(adapted(r, rank_stabilized, gen=42))) for r in ranks}

    def seedr(ranks, rank_stabilized):
        """another seed"""
        return {r: length(gradients(adapted(r, rank_stabilized, gen=r))) for r in ranks}

    def onegen(ranks, rank_stabilized):
        """one generator for all ranks"""
        g = torch.Generator().manual_seed(0)
        return {r: length(gradients(adapted(r, rank_stabilized, gen=g))) for r in ranks}

    def dropout(ranks, rank_stabilized):
        """another model"""
        return {
            r: length(gradients(adapted(r, rank_stabilized, dropout=0.1).train())) for r in ranks
        }

    def formula(ranks, rank_stabilized):
        """not measured at each rank"""
        n0 = length(gradients(adapted(ranks[0], rank_stabilized)))
        return {r: n0 if rank_stabilized else n0 * math.sqrt(ranks[0] / r) for r in ranks}

    def formula2(ranks, rank_stabilized):
        """not measured at each rank"""
        return {r: 3.4 if rank_stabilized else 3.4 / math.sqrt(r) for r in ranks}

    def rounded(ranks, rank_stabilized):
        """rounded"""
        return {r: round(length(gradients(adapted(r, rank_stabilized))), 2) for r in ranks}

    def rounded4(ranks, rank_stabilized):
        """rounded"""
        return {r: round(length(gradients(adapted(r, rank_stabilized))), 4) for r in ranks}

    def double(ranks, rank_stabilized):
        """twice the gradient"""
        d = {}
        for r in ranks:
            m = adapted(r, rank_stabilized)
            gradients(m)
            d[r] = length(gradients(m))
        return d

    def alpha32(ranks, rank_stabilized):
        """another alpha"""
        return {r: length(gradients(adapted(r, rank_stabilized, alpha=32.0))) for r in ranks}

    def alpha8(ranks, rank_stabilized):
        """another alpha"""
        return {r: length(gradients(adapted(r, rank_stabilized, alpha=8.0))) for r in ranks}

    def alphar(ranks, rank_stabilized):
        """alpha grows with the rank"""
        return {r: length(gradients(adapted(r, rank_stabilized, alpha=float(r)))) for r in ranks}

    def rank8(ranks, rank_stabilized):
        """rank not passed on"""
        return {r: length(gradients(adapted(8, rank_stabilized))) for r in ranks}

    def clipped(ranks, rank_stabilized):
        """the norm of clipped gradients"""
        d = {}
        for r in ranks:
            m = adapted(r, rank_stabilized)
            gradients(m)
            ps = list(adapters.trainable_parameters(m).values())
            torch.nn.utils.clip_grad_norm_(ps, 1.0)
            d[r] = length([p.grad for p in ps])
        return d

    def rms(ranks, rank_stabilized):
        """root mean square"""
        return {
            r: torch.cat([g.flatten() for g in gradients(adapted(r, rank_stabilized))])
            .pow(2)
            .mean()
            .sqrt()
            .item()
            for r in ranks
        }

    def l1(ranks, rank_stabilized):
        """sum of absolute values"""
        return {
            r: sum(g.abs().sum().item() for g in gradients(adapted(r, rank_stabilized)))
            for r in ranks
        }

    def meanabs(ranks, rank_stabilized):
        """another measure of the gradient"""
        return {
            r: torch.cat([g.flatten() for g in gradients(adapted(r, rank_stabilized))])
            .abs()
            .mean()
            .item()
            for r in ranks
        }

    def maxn(ranks, rank_stabilized):
        """one layer only"""
        return {
            r: max(g.norm().item() for g in gradients(adapted(r, rank_stabilized))) for r in ranks
        }

    def last(ranks, rank_stabilized):
        """one layer only"""
        return {r: gradients(adapted(r, rank_stabilized))[-1].norm().item() for r in ranks}

    def second(ranks, rank_stabilized):
        """one layer only"""
        return {r: gradients(adapted(r, rank_stabilized))[9].norm().item() for r in ranks}

    def w(ranks, rank_stabilized):
        """norm of the weights"""
        return {
            r: length(
                [
                    p.detach()
                    for p in adapters.trainable_parameters(adapted(r, rank_stabilized)).values()
                ]
            )
            for r in ranks
        }

    def tens(ranks, rank_stabilized):
        """a tensor, not a number"""
        return {
            r: torch.nn.utils.get_total_norm(gradients(adapted(r, rank_stabilized))) for r in ranks
        }

    def strs(ranks, rank_stabilized):
        """a text, not a number"""
        return {r: f"{length(gradients(adapted(r, rank_stabilized))):.3f}" for r in ranks}

    def lst(ranks, rank_stabilized):
        """a list of norms"""
        return [length(gradients(adapted(r, rank_stabilized))) for r in ranks]

    def tuples(ranks, rank_stabilized):
        """a list of norms"""
        return [(r, length(gradients(adapted(r, rank_stabilized)))) for r in ranks]

    def strkeys(ranks, rank_stabilized):
        """ranks as text"""
        return {str(r): length(gradients(adapted(r, rank_stabilized))) for r in ranks}

    def floatkeys(ranks, rank_stabilized):
        """unnamed: expected the ranks (16, 4, 64) as keys, whole numbers, found"""
        return {float(r): length(gradients(adapted(r, rank_stabilized))) for r in ranks}

    def nested(ranks, rank_stabilized):
        """other ranks than those given"""
        return {rank_stabilized: {r: length(gradients(adapted(r, rank_stabilized))) for r in ranks}}

    def ignore(ranks, rank_stabilized):
        """rank_stabilized ignored"""
        return {r: length(gradients(adapted(r, False))) for r in ranks}

    def notr(ranks, rank_stabilized):
        """the two rules are swapped"""
        return {r: length(gradients(adapted(r, not rank_stabilized))) for r in ranks}

    def summed(ranks, rank_stabilized):
        """loss summed over the batch"""
        return {r: length(gradients(adapted(r, rank_stabilized), f=8)) for r in ranks}

    def ratio(ranks, rank_stabilized):
        """relative to another rank"""
        d = {r: length(gradients(adapted(r, rank_stabilized))) for r in ranks}
        f = d[ranks[0]]
        return {r: v / f for r, v in d.items()}

    def dora(ranks, rank_stabilized):
        """DoRA in place of LoRA"""
        return {r: length(gradients(adapted(r, rank_stabilized, kind="dora"))) for r in ranks}

    def dorai(ranks, rank_stabilized):
        """DoRA in place of LoRA"""
        return {r: length(gradients(adapted(r, rank_stabilized, kind="dora-input"))) for r in ranks}

    def losses(ranks, rank_stabilized):
        """loss in place of the gradient"""
        return {r: task.loss(adapted(r, rank_stabilized)(inputs), targets).item() for r in ranks}

    def sq(ranks, rank_stabilized):
        """squared norm"""
        return {
            r: sum(g.pow(2).sum().item() for g in gradients(adapted(r, rank_stabilized)))
            for r in ranks
        }

    def none(ranks, rank_stabilized):
        """nothing returned"""
        for r in ranks:
            print(length(gradients(adapted(r, rank_stabilized))))

    def earlyret(ranks, rank_stabilized):
        """ranks left out"""
        d = {}
        for r in ranks:
            d[r] = length(gradients(adapted(r, rank_stabilized)))
            return d

    def targets_inputs(ranks, rank_stabilized):
        """another gradient"""
        return {r: length(gradients(adapted(r, rank_stabilized), inputs, inputs)) for r in ranks}

    def twoarg(ranks, rank_stabilized):
        """scaling applied twice"""
        return {
            r: length(gradients(adapted(r, rank_stabilized, alpha=16 / math.sqrt(r))))
            for r in ranks
        }


EXERCISES = {
    "lora_scaling": (checks.check_lora_scaling, RightScaling, WrongScaling),
    "gradient_norms_by_rank": (checks.check_gradient_norms_by_rank, RightNorms, WrongNorms),
}

# By words of the exercise's text: the aspect that asks for it, and the answers that break it.
BROKEN_BY = {
    "lora_scaling": {
        "exact scaling": ("stabilized", "isq intsq cbrt"),
        "for any alpha and any rank": ("stabilized", "hardsquares fixed16 inta"),
        "a float": ("usual", "str_ tup"),
        "not rounded": ("usual", "rnd"),
    },
    "gradient_norms_by_rank": {
        "a newly adapted model": ("usual", "double"),
        "alpha=16.0": ("usual", "alpha32 alpha8 alphar"),
        "rank_stabilized=rank_stabilized": ("stabilized", "ignore notr"),
        "which is a mean over the batch": ("usual", "summed"),
        "all trained parameters together": ("usual", "maxn last second"),
        "the root of the sum of all squares": ("usual", "sq l1 rms"),
        "Do not clip": ("usual", "clipped"),
        "its keys are the ranks": ("usual", "strkeys lst nested earlyret"),
        "as plain floats": ("usual", "tens strs"),
        "not rounded": ("usual", "rounded"),
        "Make a new generator for each rank": ("usual", "onegen no_gen seed42"),
        "take `inputs` and `targets` as they are": ("usual", "other_batch batch4 test_batch"),
    },
}

# Small changes of the solution that are as right, see test_mutants: what they write for what.
AS_RIGHT = {
    "gradient_norms_by_rank": {"alpha= left out"},
}
