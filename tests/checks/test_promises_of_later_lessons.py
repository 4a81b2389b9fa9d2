"""What the exercises of lessons 04 to 07 say is asked: each sentence has answers that break it."""

import importlib
from pathlib import Path

import pytest

from lab_utils import checks

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions" / "dora"
LESSONS = {
    "head_to_head": "04-head-to-head",
    "rank_and_magnitude": "05-rank-and-magnitude",
    "peft_and_commonsense": "06-peft-and-commonsense",
    "rslora": "07-rslora-challenge",
}

# By lesson, exercise and words of its text: the aspect of the check that asks for it, and answers
# that break it and fail there.
BROKEN_BY = {
    ("head_to_head", "add"): {
        "`q_proj`, `k_proj`, `v_proj` and `o_proj` of every block": (
            "layers",
            "no_o last_block unadapted only_qkv_mlp",
        ),
        '`layers.LoRALayer` (`"lora"`) or `layers.DoRALayer` (`"dora"`)': ("layers", "swapped"),
        "each a new one": ("layers", "shared_blocks shared_A one_layer_in_block"),
        "with this rank and alpha": ("layers", "alpha_2r scal swapped_args"),
        "all else by default": ("layers", "norm0 drop rsl full_grad"),
        "nothing but the adapters is trainable": ("frozen", "freezes_only_blocks mag_frozen"),
        "stays as it is, trainable too": ("frozen", "wraps_original shallow"),
        "shares no tensor with the copy": ("frozen", "unfreezes_base_after"),
        'be it `"LoRA"`, `"dora-input"`, `""`, `None` or a number': (
            "types",
            "substring lower lower_plain startswith dora_input_ok typeerror",
        ),
        "raise `ValueError`": ("types", "ret_err ret_none ret_model asserts"),
    },
    ("head_to_head", "step"): {
        "`data.next_byte_loss(model(inputs), targets)`": (
            "numbers",
            "summed selfpredict last_token",
        ),
        "a norm of at most `max_norm`": ("weights", "fixed1 clip_before_backward value"),
        "shorter ones stay as they are": ("weights", "always"),
        "all trained parameters together": ("weights", "group0 groups l1 inf"),
        "the optimiser takes its step": ("weights", "sgd two step_first zero_between_clip_step"),
        "the loss (before the step)": ("numbers", "loss_after_all"),
        "the norm (before clipping)": ("numbers", "minn maxnorm_ret"),
        "as floats": ("numbers", "text loss_tensor"),
        "not rounded": ("numbers", "rounded rounded4"),
        "one or several parameter groups": ("weights", "group0 groups"),
        "all parameters that are not frozen": ("numbers", "unfreeze"),
        "The model comes in training mode; leave it there": ("weights", "evalm"),
    },
    ("head_to_head", "pairs"): {
        "DoRA minus LoRA": ("mean", "absdiff rel normal_mean_rev"),
        "mean, low and high": ("interval", "order lowhighmean swapped halves"),
        "as floats": ("mean", "tens strs"),
        "not rounded": ("mean", "rounded"),
        "two seeds or more": ("interval", "df_fixed t278"),
        "any confidence between 0 and 1": ("interval", "t2776 t278"),
    },
    ("rank_and_magnitude", "ranks"): {
        "with these keys and no others": ("keys", "extra with_full one_method upper flat"),
        "the ranks in the order given": ("keys", "sorted_"),
        "the **test** loss": ("losses", "train_last val0 steplast"),
        "as a float": ("keys", "tens strs"),
        "not rounded": ("losses", "rounded"),
        "n_epochs=1": ("losses", "epochs3"),
        "seed=0": ("losses", "seed1"),
    },
    ("rank_and_magnitude", "track"): {
        "rank 8": ("history", "rank4"),
        "seed 0": ("history", "seed1"),
        "`n_epochs` as given": ("history", "ne e5"),
        "all else by default": ("history", "lr"),
        "`model.q_proj`": ("history", "kproj"),
        "with these keys": ("history", "nohist tuple_"),
        "numbers that are not rounded": ("statistics", "rounded"),
        "`(32 * n_epochs + 1, 32)`, without gradient": ("history", "not_flat listhist nparr"),
        "the mean over magnitudes": ("statistics", "rms nrm dim0 alln flt"),
    },
    ("peft_and_commonsense", "config"): {
        "rank as given": ("scaling", "r8 r_left rankstr default32"),
        "`lora_alpha` twice the rank": ("scaling", "alpha_half alpha4 asq"),
        "dropout 0.05": ("layers", "drop5 drop1 dropstr"),
        "`v_proj`, `up_proj` and `down_proj`": ("layers", "withgate witho nodown mlponly qv typo"),
        '`task_type="CAUSAL_LM"`': ("layers", "task"),
        "everything else as PEFT has it by default": ("layers", "init fan msave ltt excl rp"),
        "a pattern that fits the same layers": ("layers", "partregex badregex comma"),
    },
    ("peft_and_commonsense", "state"): {
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
    ("peft_and_commonsense", "acc"): {
        "different numbers of choices": ("ragged", "pad0 pad1 fixed4 nparr"),
        "Scores are below 0": ("equal", "best0 bestnone absmax"),
        "a plain float": ("equal", "tens boolist strp tup"),
        "not rounded": ("equal", "rnd"),
    },
    ("rslora", "scaling"): {
        "exact scaling": ("stabilized", "isq intsq cbrt"),
        "for any alpha and any rank": ("stabilized", "hardsquares fixed16 inta"),
        "a float": ("usual", "str_ tup"),
        "not rounded": ("usual", "rnd"),
    },
    ("rslora", "norms"): {
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


@pytest.mark.parametrize(("lesson", "exercise"), BROKEN_BY)
def test_each_sentence_stands_in_the_lesson(lesson, exercise):
    text = (SOLUTIONS / f"{LESSONS[lesson]}.py").read_text()
    text = " ".join(text.replace("\n# ", " ").split())
    for words in BROKEN_BY[lesson, exercise]:
        assert words in text, words


@pytest.mark.parametrize(("lesson", "exercise"), BROKEN_BY)
def test_what_breaks_a_sentence_fails_where_it_is_asked(lesson, exercise):
    check, _, wrong = importlib.import_module(f"answers_to_{lesson}").EXERCISES[exercise]
    for words, (aspect, names) in BROKEN_BY[lesson, exercise].items():
        for name in names.split():
            try:
                check(getattr(wrong, name), aspect)
            except checks.CheckFailed:
                continue
            pytest.fail(f"{name} passes {aspect}, and breaks “{words}”")
