"""Checks of lesson 03: right answers pass however they are written, wrong ones are named."""

import math
import statistics

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers import answers, assert_named, assert_passes, cases

from lab_utils import checks, decomposition


class RightMagnitude:
    def norm(before, after, norm_dim=1):
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().mean().item()

    def keepdim(before, after, norm_dim=1):
        a, b = (torch.linalg.vector_norm(w, dim=norm_dim, keepdim=True) for w in (before, after))
        return float(torch.mean(torch.abs(a - b)))

    def loops(before, after, norm_dim=1):
        pairs = zip(before, after, strict=True)
        if norm_dim == 0:
            pairs = zip(before.T, after.T, strict=True)
        return statistics.fmean(
            abs(math.dist(a.tolist(), [0] * len(a)) - math.dist(b.tolist(), [0] * len(b)))
            for a, b in pairs
        )

    def numpy(before, after, norm_dim=1):
        a, b = (np.linalg.norm(w.double().numpy(), axis=norm_dim) for w in (before, after))
        return np.mean(np.abs(b - a))


class WrongMagnitude:
    def signed(before, after, norm_dim=1):
        """signed differences"""
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).mean().item()

    def abs_after_mean(before, after, norm_dim=1):
        """signed differences"""
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).mean().abs().item()

    def of_the_difference(before, after, norm_dim=1):
        """norm of the difference"""
        return (after - before).norm(dim=norm_dim).mean().item()

    def summed(before, after, norm_dim=1):
        """sum instead of mean"""
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().sum().item()

    def squared(before, after, norm_dim=1):
        """squared differences"""
        return F.mse_loss(after.norm(dim=norm_dim), before.norm(dim=norm_dim)).item()

    def relative(before, after, norm_dim=1):
        """relative change"""
        a, b = before.norm(dim=norm_dim), after.norm(dim=norm_dim)
        return ((b - a).abs() / a).mean().item()

    def whole(before, after, norm_dim=1):
        """one norm for the whole matrix"""
        return abs(after.norm() - before.norm()).item()

    def other_axis(before, after, norm_dim=1):
        """norm over the wrong axis"""
        return RightMagnitude.norm(before, after, 1 - norm_dim)

    def median(before, after, norm_dim=1):
        """median instead of mean"""
        moved = after.norm(dim=norm_dim) - before.norm(dim=norm_dim)
        return moved.abs().median().item()

    def entries(before, after, norm_dim=1):
        """entries compared"""
        return (after - before).abs().mean().item()

    def ratio(before, after, norm_dim=1):
        """relative change"""
        return (after.norm(dim=norm_dim) / before.norm(dim=norm_dim)).mean().item()

    def no_abs(before, after, norm_dim=1):
        """signed differences"""
        return (before.norm(dim=norm_dim) - after.norm(dim=norm_dim)).mean().item()

    def largest(before, after, norm_dim=1):
        """largest instead of mean"""
        return (before.norm(dim=norm_dim) - after.norm(dim=norm_dim)).abs().max().item()

    def root_mean_square(before, after, norm_dim=1):
        """squared differences"""
        return (before.norm(dim=norm_dim) - after.norm(dim=norm_dim)).square().mean().sqrt().item()

    def squared_lengths(before, after, norm_dim=1):
        """not the Euclidean length"""
        a, b = (w.square().sum(norm_dim) for w in (before, after))
        return (a - b).abs().mean().item()

    def dim_as_p(before, after, norm_dim=1):
        """norm_dim taken as p"""
        return (before.norm(norm_dim) - after.norm(norm_dim)).abs().item()

    def always_rows(before, after, norm_dim=1):
        """norm over the wrong axis"""
        return RightMagnitude.norm(before, after)

    def in_place(before, after, norm_dim=1):
        """in-place change of the argument"""
        found = RightMagnitude.norm(before, after, norm_dim)
        after -= before
        return found

    def an_integer(before, after, norm_dim=1):
        """expected a float, found 0 of type int"""
        return 0

    def a_tensor(before, after, norm_dim=1):
        """a tensor, not a float"""
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().mean()

    def blank(before, after, norm_dim=1):
        """is not written yet"""
        raise NotImplementedError()

    def reference(before, after, norm_dim=1):
        """calls lab_utils.decomposition.magnitude_change, which is the reference"""
        return decomposition.magnitude_change(before, after, norm_dim)


class RightDirection:
    def normalize(before, after, norm_dim=1):
        a, b = F.normalize(before, dim=norm_dim), F.normalize(after, dim=norm_dim)
        return (1 - (a * b).sum(dim=norm_dim)).mean().item()

    def cosine_similarity(before, after, norm_dim=1):
        return (1 - F.cosine_similarity(before, after, dim=norm_dim)).mean().item()

    def einsum(before, after, norm_dim=1):
        pattern = "ij,ij->i" if norm_dim == 1 else "ij,ij->j"
        dot, aa, bb = (
            torch.einsum(pattern, *pair)
            for pair in ((before, after), (before, before), (after, after))
        )
        return 1 - float((dot / (aa * bb).sqrt().clamp_min(1e-8)).mean())

    def half_distance(before, after, norm_dim=1):
        """|a - b|^2 / 2 = 1 - cos for vectors of length 1; zeros are set apart."""
        a, b = F.normalize(before, dim=norm_dim), F.normalize(after, dim=norm_dim)
        turned = (a - b).square().sum(dim=norm_dim) / 2
        zero = (a == 0).all(dim=norm_dim) | (b == 0).all(dim=norm_dim)
        return torch.where(zero, 1.0, turned).mean().item()


class WrongDirection:
    def cosine(before, after, norm_dim=1):
        """cosine instead of one minus cosine"""
        return F.cosine_similarity(before, after, dim=norm_dim).mean().item()

    def dot(before, after, norm_dim=1):
        """dot product of vectors that are not of length 1"""
        return (1 - (before * after).sum(dim=norm_dim)).mean().item()

    def angle(before, after, norm_dim=1):
        """an angle"""
        return F.cosine_similarity(before, after, dim=norm_dim).arccos().mean().item()

    def degrees(before, after, norm_dim=1):
        """an angle"""
        return F.cosine_similarity(before, after, dim=norm_dim).arccos().rad2deg().mean().item()

    def summed(before, after, norm_dim=1):
        """sum instead of mean"""
        return (1 - F.cosine_similarity(before, after, dim=norm_dim)).sum().item()

    def whole(before, after, norm_dim=1):
        """one cosine for the whole matrix"""
        return 1 - F.cosine_similarity(before.flatten(), after.flatten(), dim=0).item()

    def other_axis(before, after, norm_dim=1):
        """norm over the wrong axis"""
        return RightDirection.normalize(before, after, 1 - norm_dim)

    def absolute(before, after, norm_dim=1):
        """absolute cosine"""
        return (1 - F.cosine_similarity(before, after, dim=norm_dim).abs()).mean().item()

    def zeros_left_out(before, after, norm_dim=1):
        """zeros left out"""
        kept = (before.norm(dim=norm_dim) > 0) & (after.norm(dim=norm_dim) > 0)
        return (1 - F.cosine_similarity(before, after, dim=norm_dim))[kept].mean().item()

    def zeros_as_none(before, after, norm_dim=1):
        """zeros counted as no turn"""
        zero = (before.norm(dim=norm_dim) == 0) | (after.norm(dim=norm_dim) == 0)
        turned = 1 - F.cosine_similarity(before, after, dim=norm_dim)
        return turned.masked_fill(zero, 0.0).mean().item()

    def zero_in_both_only(before, after, norm_dim=1):
        """direction_change(weights of (4, 7), norm_dim=0)"""
        zero = (before.norm(dim=norm_dim) == 0) & (after.norm(dim=norm_dim) == 0)
        cosine = (before * after).sum(norm_dim) / before.norm(dim=norm_dim)
        return torch.where(zero, 1.0, 1 - cosine / after.norm(dim=norm_dim)).mean().item()

    def negative(before, after, norm_dim=1):
        """sign swapped"""
        return -RightDirection.normalize(before, after, norm_dim)

    def distance(before, after, norm_dim=1):
        """distance of the directions"""
        a, b = F.normalize(before, dim=norm_dim), F.normalize(after, dim=norm_dim)
        return (a - b).norm(dim=norm_dim).mean().item()

    def with_the_change(before, after, norm_dim=1):
        """cosine with the change"""
        return F.cosine_similarity(before, after - before, dim=norm_dim).mean().item()

    def abs_of_the_mean(before, after, norm_dim=1):
        """absolute cosine"""
        return 1 - F.cosine_similarity(before, after, dim=norm_dim).mean().abs().item()

    def largest(before, after, norm_dim=1):
        """largest instead of mean"""
        return (1 - F.cosine_similarity(before, after, dim=norm_dim)).max().item()

    def half(before, after, norm_dim=1):
        """half of it"""
        return RightDirection.normalize(before, after, norm_dim) / 2

    def sine(before, after, norm_dim=1):
        """a sine"""
        cosine = F.cosine_similarity(before, after, dim=norm_dim)
        return (1 - cosine**2).clamp_min(0).sqrt().mean().item()

    def in_place(before, after, norm_dim=1):
        """in-place change of the argument"""
        before /= before.norm(dim=norm_dim, keepdim=True).clamp_min(1e-8)
        return RightDirection.normalize(before, after, norm_dim)

    def zero_division(before, after, norm_dim=1):
        """division by a zero norm"""
        a = before / before.norm(dim=norm_dim, keepdim=True)
        b = after / after.norm(dim=norm_dim, keepdim=True)
        return (1 - (a * b).sum(dim=norm_dim)).mean().item()

    def blank(before, after, norm_dim=1):
        """is not written yet"""
        raise NotImplementedError()

    def reference(before, after, norm_dim=1):
        """calls lab_utils.decomposition.decompose, which is the reference"""
        a, b = (decomposition.decompose(w, norm_dim)[1] for w in (before, after))
        return (1 - (a * b).sum(dim=norm_dim)).mean().item()


def constant(values):
    return max(values) == min(values)


class RightCoupling:
    def numpy(delta_m, delta_d):
        if constant(delta_m) or constant(delta_d):
            return float("nan")
        return np.corrcoef(delta_m, delta_d)[0, 1]

    def torch_corrcoef(delta_m, delta_d):
        both = torch.tensor([delta_m, delta_d], dtype=torch.float64)
        if (both == both[:, :1]).all(dim=1).any():
            return math.nan
        return torch.corrcoef(both)[0, 1].item()

    def standard_library(delta_m, delta_d):
        varies = len(set(delta_m)) > 1 and len(set(delta_d)) > 1
        return statistics.correlation(delta_m, delta_d) if varies else math.nan

    def small_spread(delta_m, delta_d):
        m, d = (np.array(x) - np.mean(x) for x in (delta_m, delta_d))
        below = math.sqrt(m @ m) * math.sqrt(d @ d)
        return float(m @ d / below) if min(abs(m).max(), abs(d).max()) > 1e-12 else math.nan


def plain_correlation(delta_m, delta_d):
    m, d = (np.array(x) - np.mean(x) for x in (delta_m, delta_d))
    below = math.sqrt(m @ m) * math.sqrt(d @ d)
    return float(m @ d / below) if below else math.nan


class WrongCoupling:
    def covariance(delta_m, delta_d):
        """covariance"""
        return float(np.cov(delta_m, delta_d)[0, 1])

    def not_centred(delta_m, delta_d):
        """means not subtracted"""
        return float(np.dot(delta_m, delta_d) / np.linalg.norm(delta_m) / np.linalg.norm(delta_d))

    def squared(delta_m, delta_d):
        """squared correlation"""
        return float(np.corrcoef(delta_m, delta_d)[0, 1] ** 2)

    def slope(delta_m, delta_d):
        """slope of a line"""
        return float(np.polyfit(delta_d, delta_m, 1)[0])

    def ranks(delta_m, delta_d):
        """rank correlation"""
        m, d = (np.argsort(np.argsort(x)) for x in (delta_m, delta_d))
        return float(np.corrcoef(m, d)[0, 1])

    def mixed(delta_m, delta_d):
        """n and n - 1 mixed"""
        covariance = np.mean((delta_m - np.mean(delta_m)) * (delta_d - np.mean(delta_d)))
        return float(covariance / np.std(delta_m, ddof=1) / np.std(delta_d, ddof=1))

    def matrix(delta_m, delta_d):
        """expected a float, found array"""
        return np.corrcoef(delta_m, delta_d)

    def mean_product(delta_m, delta_d):
        """means not subtracted"""
        return statistics.fmean(m * d for m, d in zip(delta_m, delta_d, strict=True))

    def kendall(delta_m, delta_d):
        """rank correlation"""
        signs = [np.sign(np.subtract.outer(v, v)) for v in (delta_m, delta_d)]
        n = len(delta_m)
        return float((signs[0] * signs[1]).sum() / (n * (n - 1)))

    def with_itself(delta_m, delta_d):
        """points that rise together: expected"""
        return float(np.corrcoef(delta_m, delta_d)[0, 0])

    def sign_lost(delta_m, delta_d):
        """sign lost"""
        return abs(RightCoupling.numpy(delta_m, delta_d))

    def sign_swapped(delta_m, delta_d):
        """sign swapped"""
        return -RightCoupling.numpy(delta_m, delta_d)

    def a_tensor(delta_m, delta_d):
        """of type Tensor"""
        return torch.corrcoef(torch.tensor([delta_m, delta_d]))[0, 1]

    def none(delta_m, delta_d):
        """expected a float, found None of type NoneType"""
        RightCoupling.numpy(delta_m, delta_d)

    def zero_if_constant(delta_m, delta_d):
        """0 in place of NaN"""
        found = RightCoupling.numpy(delta_m, delta_d)
        return 0.0 if math.isnan(found) else found

    def first_only(delta_m, delta_d):
        """only one of the lists looked at"""
        if constant(delta_m):
            return math.nan
        return 0.0 if constant(delta_d) else RightCoupling.numpy(delta_m, delta_d)

    def second_only(delta_m, delta_d):
        """rounding taken for variation"""
        return math.nan if constant(delta_d) else plain_correlation(delta_m, delta_d)

    def no_spread(delta_m, delta_d):
        """rounding taken for variation"""
        return plain_correlation(delta_m, delta_d)

    def numpy_alone(delta_m, delta_d):
        """rounding taken for variation"""
        with np.errstate(invalid="ignore"):
            return np.corrcoef(delta_m, delta_d)[0, 1]

    def only_a_half(delta_m, delta_d):
        """rounding taken for variation"""
        halves = set(delta_m) == {0.5} or set(delta_d) == {0.5}
        return math.nan if halves else plain_correlation(delta_m, delta_d)

    def sorts(delta_m, delta_d):
        """in-place change of the argument"""
        found = RightCoupling.numpy(delta_m, delta_d)
        delta_m.sort()
        return found

    def crash_if_constant(delta_m, delta_d):
        """raised ZeroDivisionError"""
        m, d = ([v - statistics.fmean(x) for v in x] for x in (delta_m, delta_d))
        below = math.sqrt(sum(v * v for v in m) * sum(v * v for v in d))
        return sum(a * b for a, b in zip(m, d, strict=True)) / below

    def blank(delta_m, delta_d):
        """is not written yet"""
        raise NotImplementedError()

    def reference(delta_m, delta_d):
        """calls lab_utils.decomposition.coupling, which is the reference"""
        return decomposition.coupling(delta_m, delta_d)


EXERCISES = {
    "magnitude_change": (checks.check_magnitude_change, RightMagnitude, WrongMagnitude),
    "direction_change": (checks.check_direction_change, RightDirection, WrongDirection),
    "coupling": (checks.check_coupling, RightCoupling, WrongCoupling),
}

# By the beginning of each sentence under “What must hold”: the answers that break it.
BROKEN_BY = {
    "magnitude_change": {
        "the result is a plain `float`": "a_tensor an_integer",
        "`norm_dim=1`, the default": "other_axis always_rows dim_as_p whole",
        "both weights stay": "in_place",
    },
    "direction_change": {
        "a vector of zeros": "zero_division zeros_left_out zeros_as_none zero_in_both_only",
    },
    "coupling": {
        "the result is a plain `float`": "a_tensor matrix",
        "where either list does not vary": "numpy_alone first_only second_only zero_if_constant "
        "crash_if_constant only_a_half",
        "both lists stay": "sorts",
    },
}

# Small changes of the solution that are as right, see test_mutants: what they write for what.
AS_RIGHT = {
    "magnitude_change": {"lengths[1] - lengths[0] -> swapped"},
    "direction_change": {"1e-08 -> 2e-08"},
    "coupling": {"dtype= left out"},
}


def test_there_are_three_right_and_eight_wrong_answers_for_each_exercise():
    for _, right, wrong in EXERCISES.values():
        assert len(answers(right)) >= 3
        assert len(answers(wrong)) >= 8


@pytest.mark.parametrize(("check", "answer"), cases(EXERCISES, 1))
def test_right_answers_pass(check, answer, capsys):
    assert_passes(capsys, check, answer)
    if check is checks.check_coupling:
        assert_passes(capsys, check, answer, points=40, seed=5)
    else:
        assert_passes(capsys, check, answer, out_features=9, in_features=5, seed=3)
        assert_passes(capsys, check, answer, seed=4, dtype=torch.float64)


@pytest.mark.parametrize(("check", "answer"), cases(EXERCISES, 2))
def test_wrong_answers_are_named(check, answer, capsys):
    assert_named(check, answer, capsys)


def test_a_half_right_answer_keeps_its_half():
    def rows_only(before, after, norm_dim=1):
        return RightMagnitude.norm(before, after)

    checks.check_magnitude_change(rows_only, "rows")
    with pytest.raises(checks.CheckFailed, match="norm over the wrong axis"):
        checks.check_magnitude_change(rows_only, "columns")
    checks.check_direction_change(WrongDirection.zero_division, "rows")
    checks.check_coupling(WrongCoupling.zero_if_constant, "correlation")
