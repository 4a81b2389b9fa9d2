"""Answers as students write them, lesson 06; the docstring of a wrong one says what it gets."""

import math

import numpy as np
import peft
import torch
from peft import LoraConfig, TaskType

from lab_utils import checks

TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]


def config(use_dora, rank=16, **k):
    return LoraConfig(
        **{
            "r": rank,
            "lora_alpha": 2 * rank,
            "lora_dropout": 0.05,
            "target_modules": TARGETS,
            "task_type": "CAUSAL_LM",
            "use_dora": use_dora,
        }
        | k
    )


class RightConfig:
    def regex(use_dora, rank=16):
        return config(use_dora, rank, target_modules=".*\\.(q|k|v|up|down)_proj")

    def regex2(use_dora, rank=16):
        return config(
            use_dora, rank, target_modules=".*(self_attn\\.(q|k|v)_proj|mlp\\.(up|down)_proj)$"
        )

    def tup(use_dora, rank=16):
        return config(use_dora, rank, target_modules=tuple(TARGETS))

    def full(use_dora, rank=16):
        return config(
            use_dora,
            rank,
            target_modules=[
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "mlp.up_proj",
                "mlp.down_proj",
            ],
        )

    def dup(use_dora, rank=16):
        return config(use_dora, rank, target_modules=TARGETS + ["q_proj"])

    def enum(use_dora, rank=16):
        return config(
            use_dora,
            rank,
            task_type=TaskType.CAUSAL_LM,
            bias="none",
            inference_mode=False,
            use_rslora=False,
            init_lora_weights=True,
        )

    def floatalpha(use_dora, rank=16):
        return config(use_dora, rank, lora_alpha=rank * 2.0)

    def boold(use_dora, rank=16):
        return config(bool(use_dora), rank)

    def posit(use_dora, rank=16):
        return peft.LoraConfig(
            "CAUSAL_LM",
            r=rank,
            lora_alpha=rank << 1,
            lora_dropout=0.05,
            target_modules={*TARGETS},
            use_dora=use_dora,
        )

    def sub(use_dora, rank=16):
        c = config(False, rank)
        c.use_dora = use_dora
        return c


class WrongConfig:
    def toggles(use_dora, rank=16, *, calls=[]):
        """unnamed: expected use_dora=False in make_config(False, rank=23), found True."""
        calls.append(rank)
        return config(len(calls) % 2 == 1, rank)

    def init(use_dora, rank=16):
        """a field that was not asked for"""
        return config(use_dora, rank, init_lora_weights="gaussian")

    def fan(use_dora, rank=16):
        """a field that was not asked for"""
        return config(use_dora, rank, fan_in_fan_out=True)

    def msave(use_dora, rank=16):
        """a field that was not asked for"""
        return config(use_dora, rank, modules_to_save=["lm_head"])

    def ltt(use_dora, rank=16):
        """a field that was not asked for"""
        return config(use_dora, rank, layers_to_transform=[0, 1])

    def lb(use_dora, rank=16):
        """unnamed: make_config(True, rank=6) raised ValueError: The argument lo"""
        return config(use_dora, rank, lora_bias=True)

    def excl(use_dora, rank=16):
        """every linear layer"""
        return config(
            use_dora, rank, target_modules="all-linear", exclude_modules=["o_proj", "gate_proj"]
        )

    def rp(use_dora, rank=16):
        """a field that was not asked for"""
        return config(use_dora, rank, rank_pattern={"q_proj": 8})

    def partregex(use_dora, rank=16):
        """a pattern that fits no whole name"""
        return config(use_dora, rank, target_modules="(q|k|v|up|down)_proj")

    def badregex(use_dora, rank=16):
        """a pattern that fits no whole name"""
        return config(use_dora, rank, target_modules="*_proj")

    def comma(use_dora, rank=16):
        """a pattern that fits no whole name"""
        return config(use_dora, rank, target_modules="q_proj,k_proj,v_proj,up_proj,down_proj")

    def withgate(use_dora, rank=16):
        """more layers than asked for"""
        return config(use_dora, rank, target_modules=TARGETS + ["gate_proj"])

    def witho(use_dora, rank=16):
        """more layers than asked for"""
        return config(use_dora, rank, target_modules=TARGETS + ["o_proj"])

    def nodown(use_dora, rank=16):
        """layers left out"""
        return config(use_dora, rank, target_modules=TARGETS[:-1])

    def mlponly(use_dora, rank=16):
        """layers left out"""
        return config(use_dora, rank, target_modules=TARGETS[3:])

    def qv(use_dora, rank=16):
        """attention only"""
        return config(use_dora, rank, target_modules=["q_proj", "v_proj"])

    def typo(use_dora, rank=16):
        """a name that no layer has"""
        return config(
            use_dora, rank, target_modules=["q_proj", "k_proj", "v_proj", "mlp_up", "mlp_down"]
        )

    def drop5(use_dora, rank=16):
        """another dropout"""
        return config(use_dora, rank, lora_dropout=0.5)

    def drop1(use_dora, rank=16):
        """another dropout"""
        return config(use_dora, rank, lora_dropout=0.1)

    def dropstr(use_dora, rank=16):
        """a text, not a number"""
        return config(use_dora, rank, lora_dropout="0.05")

    def task(use_dora, rank=16):
        """another task_type"""
        return config(use_dora, rank, task_type="SEQ_CLS")

    def rankstr(use_dora, rank=16):
        """rank as a float"""
        return (
            config(use_dora, rank, r=str(rank))
            if False
            else LoraConfig(
                r=float(rank),
                lora_alpha=2 * rank,
                lora_dropout=0.05,
                target_modules=TARGETS,
                task_type="CAUSAL_LM",
                use_dora=use_dora,
            )
        )

    def alpha_half(use_dora, rank=16):
        """another alpha"""
        return config(use_dora, rank, lora_alpha=rank // 2)

    def alpha4(use_dora, rank=16):
        """another alpha"""
        return config(use_dora, rank, lora_alpha=4 * rank)

    def asq(use_dora, rank=16):
        """another alpha"""
        return config(use_dora, rank, lora_alpha=rank**2)

    def r8(use_dora, rank=16):
        """rank ignored"""
        return config(use_dora, 8)

    def r_left(use_dora, rank=16):
        """rank ignored"""
        return LoraConfig(
            lora_alpha=2 * rank,
            lora_dropout=0.05,
            target_modules=TARGETS,
            task_type="CAUSAL_LM",
            use_dora=use_dora,
        )

    def default32(use_dora, rank=32):
        """another default rank"""
        return config(use_dora, rank)

    def no_default(use_dora, rank):
        """unnamed: make_config(True) raised TypeError: WrongConfig.no_default()"""
        return config(use_dora, rank)

    def cls(use_dora, rank=16):
        """not a LoraConfig"""
        return LoraConfig

    def model(use_dora, rank=16):
        """nothing returned"""
        print(config(use_dora, rank))

    def rsl_dora(use_dora, rank=16):
        """use_rslora"""
        return config(use_dora, rank, use_rslora=use_dora)

    def strd(use_dora, rank=16):
        """a text, not a truth value"""
        return config(str(use_dora), rank)

    def tuplec(use_dora, rank=16):
        """not a LoraConfig"""
        return (config(use_dora, rank),)

    def other_cls(use_dora, rank=16):
        """not a LoraConfig"""
        return peft.LoHaConfig(r=rank, alpha=2 * rank, target_modules=TARGETS)


def state(layer, prefix):
    d = {
        f"{prefix}.lora_A.weight": layer.lora_A.detach(),
        f"{prefix}.lora_B.weight": layer.lora_B.detach(),
    }
    if hasattr(layer, "magnitude"):
        d[f"{prefix}.lora_magnitude_vector"] = layer.magnitude.detach().flatten()
    return d


class RightState:
    def clone(layer, prefix):
        return {k: v.clone().contiguous().cpu() for k, v in state(layer, prefix).items()}

    def data(layer, prefix):
        d = {
            prefix + ".lora_A.weight": layer.lora_A.data,
            prefix + ".lora_B.weight": layer.lora_B.data,
        }
        try:
            d[prefix + ".lora_magnitude_vector"] = layer.magnitude.data.squeeze(1)
        except AttributeError:
            pass
        return d

    def ordered(layer, prefix):
        from collections import OrderedDict

        return OrderedDict(sorted(state(layer, prefix).items()))

    def isinst(layer, prefix):
        from lab_utils.layers import DoRALayer

        d = {k: v for k, v in state(layer, prefix).items() if "magnitude" not in k}
        if isinstance(layer, DoRALayer):
            d[".".join([prefix, "lora_magnitude_vector"])] = layer.magnitude.detach().reshape(-1)
        return d

    def nogradctx(layer, prefix):
        with torch.no_grad():
            d = {
                f"{prefix}.lora_A.weight": layer.lora_A.clone(),
                f"{prefix}.lora_B.weight": layer.lora_B.clone(),
            }
            if getattr(layer, "magnitude", None) is not None:
                d[f"{prefix}.lora_magnitude_vector"] = layer.magnitude.view(-1).clone()
        return d

    def param(layer, prefix):
        return {
            k: torch.nn.Parameter(v.clone(), requires_grad=False)
            for k, v in state(layer, prefix).items()
        }


KEPT = {}


class WrongState:
    def one_dict(layer, prefix):
        """names of an earlier call"""
        if not prefix.endswith(".inner"):
            KEPT.clear()
        KEPT.update(state(layer, prefix))
        return dict(KEPT)

    def freeze(layer, prefix):
        """layer frozen"""
        d = {}
        for n, m in (
            ("lora_A", "lora_A.weight"),
            ("lora_B", "lora_B.weight"),
            ("magnitude", "lora_magnitude_vector"),
        ):
            if hasattr(layer, n):
                p = getattr(layer, n).requires_grad_(False)
                d[f"{prefix}.{m}"] = p.flatten() if n == "magnitude" else p
        return d

    def detach_(layer, prefix):
        """layer frozen"""
        d = {
            f"{prefix}.lora_A.weight": layer.lora_A.detach_(),
            f"{prefix}.lora_B.weight": layer.lora_B.detach_(),
        }
        if hasattr(layer, "magnitude"):
            d[f"{prefix}.lora_magnitude_vector"] = layer.magnitude.detach_().flatten()
        return d

    def half_layer(layer, prefix):
        """precision lost"""
        return state(layer.half(), prefix)

    def dbl_layer(layer, prefix):
        """in-place change of the layer"""
        return state(layer.double(), prefix)

    def halfs(layer, prefix):
        """precision lost"""
        return {k: v.half() for k, v in state(layer, prefix).items()}

    def bf(layer, prefix):
        """precision lost"""
        return {k: v.bfloat16() for k, v in state(layer, prefix).items()}

    def flat_inplace(layer, prefix):
        """in-place change of the layer"""
        if hasattr(layer, "magnitude"):
            layer.magnitude.data = layer.magnitude.data.flatten()
        return state(layer, prefix)

    def replaced(layer, prefix):
        """in-place change of the layer"""
        layer.lora_A = torch.nn.Parameter(layer.lora_A.detach().clone())
        return state(layer, prefix)

    def evalm(layer, prefix):
        """in-place change of the layer"""
        layer.eval()
        return state(layer, prefix)

    def delmag(layer, prefix):
        """in-place change of the layer"""
        d = state(layer, prefix)
        del layer.lora_A
        return d

    def zeros(layer, prefix):
        """in-place change of the layer"""
        d = {k: v.clone() for k, v in state(layer, prefix).items()}
        layer.lora_B.data.zero_()
        return d

    def squeeze(layer, prefix):
        """factors squeezed"""
        return {k: v.squeeze() for k, v in state(layer, prefix).items()}

    def flat_all(layer, prefix):
        """factors flattened"""
        return {k: v.flatten() for k, v in state(layer, prefix).items()}

    def merged(layer, prefix):
        """product of the factors"""
        d = state(layer, prefix)
        d[f"{prefix}.lora_B.weight"] = (layer.lora_B @ layer.lora_A).detach()
        return d

    def scaledA(layer, prefix):
        """scaling folded in"""
        d = state(layer, prefix)
        d[f"{prefix}.lora_A.weight"] = (layer.lora_A * layer.scaling).detach()
        return d

    def basenorm(layer, prefix):
        """the magnitude before training"""
        d = state(layer, prefix)
        if hasattr(layer, "magnitude"):
            d[f"{prefix}.lora_magnitude_vector"] = layer.original_layer.weight.detach().norm(dim=1)
        return d

    def ones(layer, prefix):
        """a magnitude for LoRA"""
        d = state(layer, prefix)
        d.setdefault(f"{prefix}.lora_magnitude_vector", torch.ones(layer.out_features))
        return d

    def underscore(layer, prefix):
        """no dot after the prefix"""
        return {k.replace(".lora_", "_lora_"): v for k, v in state(layer, prefix).items()}

    def base_twice(layer, prefix):
        """another prefix"""
        return {"base_model.model." + k: v for k, v in state(layer, prefix).items()}

    def default(layer, prefix):
        """adapter name in the file"""
        return {k.replace(".weight", ".default.weight"): v for k, v in state(layer, prefix).items()}

    def magdefault(layer, prefix):
        """adapter name in the file"""
        return {
            k.replace("magnitude_vector", "magnitude_vector.default.weight"): v
            for k, v in state(layer, prefix).items()
        }

    def magname(layer, prefix):
        """this lab's name"""
        return {
            k.replace("lora_magnitude_vector", "lora_magnitude"): v
            for k, v in state(layer, prefix).items()
        }

    def upper(layer, prefix):
        """capital letters"""
        return {
            k.replace("lora_A", "lora_a").replace("lora_B", "lora_b"): v
            for k, v in state(layer, prefix).items()
        }

    def wb(layer, prefix):
        """more than the trained tensors"""
        return state(layer, prefix) | {f"{prefix}.scaling": torch.tensor(layer.scaling)}

    def sd(layer, prefix):
        """frozen tensors written"""
        return {f"{prefix}.{k}": v for k, v in layer.state_dict().items()}

    def lists(layer, prefix):
        """no tensors"""
        return {k: v.tolist() for k, v in state(layer, prefix).items()}

    def attached(layer, prefix):
        """parameters, not tensors"""
        d = {f"{prefix}.lora_A.weight": layer.lora_A, f"{prefix}.lora_B.weight": layer.lora_B}
        if hasattr(layer, "magnitude"):
            d[f"{prefix}.lora_magnitude_vector"] = layer.magnitude.flatten()
        return d

    def none(layer, prefix):
        """nothing returned"""
        print(state(layer, prefix))

    def pairs(layer, prefix):
        """no dict"""
        return list(state(layer, prefix).items())

    def hardprefix(layer, prefix):
        """another prefix"""
        return state(layer, "base_model.model.blocks.0.q_proj")

    def onlyB(layer, prefix):
        """a factor missing"""
        d = state(layer, prefix)
        d.pop(f"{prefix}.lora_B.weight")
        return d

    def abs_(layer, prefix):
        """sign changed"""
        return {k: v.abs() for k, v in state(layer, prefix).items()}

    def rounded(layer, prefix):
        """rounded"""
        return {k: (v * 100).round() / 100 for k, v in state(layer, prefix).items()}

    def normrow(layer, prefix):
        """magnitude not flat"""
        d = state(layer, prefix)
        if hasattr(layer, "magnitude"):
            d[f"{prefix}.lora_magnitude_vector"] = layer.magnitude.detach().T
        return d


def accuracy(s, a):
    return sum((r.index(max(r)) == x for r, x in zip(s, a))) / len(a)


class RightAcc:
    def npargmax(scores, answers):
        return float(np.mean([np.argmax(r) == x for r, x in zip(scores, answers)]))

    def npmean(scores, answers):
        return np.mean([int(np.argmax(r)) == x for r, x in zip(scores, answers)])

    def srt(scores, answers):
        return sum(
            (sorted(range(len(r)), key=lambda i: -r[i])[0] == x for r, x in zip(scores, answers))
        ) / len(scores)

    def padded(scores, answers):
        w = max(map(len, scores))
        t = torch.full((len(scores), w), -1000000000.0)
        for i, r in enumerate(scores):
            t[i, : len(r)] = torch.tensor(r)
        return (t.argmax(1) == torch.tensor(answers)).float().mean().item()

    def allge(scores, answers):
        return sum((1 for r, x in zip(scores, answers) if r[x] == max(r))) / len(scores)

    def frac(scores, answers):
        import statistics

        return statistics.fmean(
            (max(range(len(r)), key=r.__getitem__) == x for r, x in zip(scores, answers))
        )


class WrongAcc:
    def sorts(scores, answers):
        """in-place change of the argument"""
        share = accuracy(scores, answers)
        for row in scores:
            row.sort()
        return share

    def pops(scores, answers):
        """in-place change of the argument"""
        n = len(answers)
        return sum((row := scores.pop()).index(max(row)) == answers.pop() for _ in range(n)) / n

    def all_count(scores, answers):
        """every question counted"""
        return sum(row.index(max(row)) in range(len(row)) for row in scores) / len(answers)

    def pad0(scores, answers):
        """padding that wins"""
        w = max(map(len, scores))
        return accuracy([r + [0.0] * (w - len(r)) for r in scores], answers)

    def pad1(scores, answers):
        """padding that wins"""
        w = max(map(len, scores))
        return accuracy([r + [-1.0] * (w - len(r)) for r in scores], answers)

    def best0(scores, answers):
        """first choice taken"""
        n = 0
        for r, x in zip(scores, answers):
            b, bi = (0, 0)
            for i, v in enumerate(r):
                if v > b:
                    b, bi = (v, i)
            n += bi == x
        return n / len(answers)

    def bestnone(scores, answers):
        """nothing counted"""
        n = 0
        for r, x in zip(scores, answers):
            b, bi = (0, -1)
            for i, v in enumerate(r):
                if v > b:
                    b, bi = (v, i)
            n += bi == x
        return n / len(answers)

    def absmax(scores, answers):
        """lowest score taken"""
        return accuracy([[abs(v) for v in r] for r in scores], answers)

    def pct(scores, answers):
        """in per cent"""
        return round(100 * accuracy(scores, answers), 1)

    def strp(scores, answers):
        """a text, not a number"""
        return f"{accuracy(scores, answers):.2%}"

    def rnd(scores, answers):
        """rounded"""
        return round(accuracy(scores, answers), 2)

    def cnt(scores, answers):
        """counted"""
        return sum((r.index(max(r)) == x for r, x in zip(scores, answers)))

    def floor(scores, answers):
        """nothing counted"""
        return sum((r.index(max(r)) == x for r, x in zip(scores, answers))) // len(scores)

    def perc4(scores, answers):
        """divided by the choices"""
        return sum((r.index(max(r)) == x for r, x in zip(scores, answers))) / len(scores[0])

    def choices(scores, answers):
        """divided by the choices"""
        return sum((r.index(max(r)) == x for r, x in zip(scores, answers))) / sum(
            len(r) for r in scores
        )

    def one(scores, answers):
        """choices counted from one"""
        return sum((r.index(max(r)) + 1 == x for r, x in zip(scores, answers))) / len(scores)

    def value(scores, answers):
        """nothing counted"""
        return sum((max(r) == x for r, x in zip(scores, answers))) / len(scores)

    def earlyret(scores, answers):
        """one question only"""
        for r, x in zip(scores, answers):
            return float(r.index(max(r)) == x)

    def lastonly(scores, answers):
        """one question only"""
        n = 0
        for r, x in zip(scores, answers):
            n = int(r.index(max(r)) == x)
        return n / len(scores)

    def fixed4(scores, answers):
        """an index out of range"""
        return sum((max(range(4), key=lambda i: r[i]) == x for r, x in zip(scores, answers))) / len(
            scores
        )

    def fixed2(scores, answers):
        """choices left out"""
        return sum((max(range(2), key=lambda i: r[i]) == x for r, x in zip(scores, answers))) / len(
            scores
        )

    def tens(scores, answers):
        """a tensor, not a number"""
        return torch.tensor(accuracy(scores, answers))

    def boolist(scores, answers):
        """no mean"""
        return [r.index(max(r)) == x for r, x in zip(scores, answers)]

    def arr(scores, answers):
        """no mean"""
        return np.array([r.index(max(r)) == x for r, x in zip(scores, answers)])

    def err(scores, answers):
        """error rate"""
        return 1 - accuracy(scores, answers)

    def low(scores, answers):
        """lowest score taken"""
        return sum((r.index(min(r)) == x for r, x in zip(scores, answers))) / len(scores)

    def nparr(scores, answers):
        """one tensor of rows that differ in length"""
        return float((np.array(scores).argmax(1) == np.array(answers)).mean())

    def prob(scores, answers):
        """mean score of the right choice"""
        return float(
            np.mean([math.exp(r[x]) / sum(map(math.exp, r)) for r, x in zip(scores, answers)])
        )

    def top2(scores, answers):
        """not compared with the highest"""
        return sum(
            (x in sorted(range(len(r)), key=lambda i: -r[i])[:2] for r, x in zip(scores, answers))
        ) / len(scores)

    def lennorm(scores, answers):
        """unnamed: accuracy of"""
        return accuracy([[v / (i + 1) for i, v in enumerate(r)] for r in scores], answers)

    def trunc(scores, answers):
        """a question left out"""
        return accuracy(scores[:-1], answers[:-1])

    def const(scores, answers):
        """the same for all scores"""
        return 2 / 3

    def tup(scores, answers):
        """a tuple, not a number"""
        return (accuracy(scores, answers), len(scores))

    def destroys(scores, answers):
        """counted"""
        n = 0
        while scores:
            r = scores.pop()
            n += r.index(max(r)) == answers.pop()
        return n / max(1, len(scores))


EXERCISES = {
    "make_config": (checks.check_make_config, RightConfig, WrongConfig),
    "to_peft_state": (checks.check_to_peft_state, RightState, WrongState),
    "choice_accuracy": (checks.check_choice_accuracy, RightAcc, WrongAcc),
}

# By words of the exercise's text: the aspect that asks for it, and the answers that break it.
BROKEN_BY = {
    "make_config": {
        "rank as given": ("scaling", "r8 r_left rankstr default32"),
        "`lora_alpha` twice the rank": ("scaling", "alpha_half alpha4 asq"),
        "dropout 0.05": ("layers", "drop5 drop1 dropstr"),
        "`v_proj`, `up_proj` and `down_proj`": ("layers", "withgate witho nodown mlponly qv typo"),
        '`task_type="CAUSAL_LM"`': ("layers", "task"),
        "everything else as PEFT has it by default": ("layers", "init fan msave ltt excl rp"),
        "a pattern that matches the same layers": ("layers", "partregex badregex comma"),
    },
    "to_peft_state": {
        "PEFT's names": ("dora", "underscore base_twice default magname upper hardprefix"),
        "detached": ("lora", "attached"),
        "in PEFT's shapes (with rank 1, too)": ("lora", "squeeze flat_all merged"),
        "layer's numbers in its own dtype or a wider one": (
            "lora",
            "halfs bf scaledA abs_ rounded",
        ),
        "same parameters": ("lora", "replaced delmag"),
        "same numbers": ("lora", "zeros half_layer dbl_layer"),
        "still trainable": ("lora", "freeze detach_"),
    },
    "choice_accuracy": {
        "different numbers of choices": ("ragged", "pad0 pad1 fixed4 nparr"),
        "Scores are below 0": ("equal", "best0 bestnone absmax"),
        "a plain float": ("equal", "tens boolist strp tup"),
        "not rounded": ("equal", "rnd"),
        "Both lists stay as they are": ("ragged", "sorts pops"),
    },
}

# Small changes of the solution that are as right, see test_mutants: what they write for what.
AS_RIGHT = {
    "to_peft_state": {".clone() left out"},
    "choice_accuracy": {"strict= left out", "True -> False"},
}
