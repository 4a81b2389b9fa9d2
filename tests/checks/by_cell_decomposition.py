"""Answers to lesson 03 as students write them, and what each cell says of a wrong one."""

import math
import statistics

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats

from lab_utils import checks


class RightMagnitude:
    def plain(before, after, norm_dim=1):
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().mean().item()

    def l1(before, after, norm_dim=1):
        return F.l1_loss(after.norm(dim=norm_dim), before.norm(dim=norm_dim)).item()

    def floats(before, after, norm_dim=1) -> float:
        with torch.no_grad():
            a, b = [torch.linalg.norm(w, dim=norm_dim, keepdim=True) for w in (before, after)]
        return float(torch.mean(torch.abs(a - b)))

    def numpy_(before, after, norm_dim=1):
        def lengths(weight):
            return np.linalg.norm(weight.detach().numpy(), axis=norm_dim)

        return float(np.abs(lengths(after) - lengths(before)).mean())

    def loops(before, after, norm_dim=1):
        if norm_dim == 0:
            before, after = before.T, after.T
        return sum(
            abs(a.norm().item() - b.norm().item()) for a, b in zip(after, before, strict=False)
        ) / len(before)

    def fmean(before, after, norm_dim=1):
        return statistics.fmean(
            (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().tolist()
        )

    def sum_count(before, after, norm_dim=1):
        k = before.shape[1 - norm_dim]
        return (
            (after.pow(2).sum(norm_dim).sqrt() - before.pow(2).sum(norm_dim).sqrt()).abs().sum() / k
        ).item()


class WrongMagnitude:
    def signed(before, after, norm_dim=1):
        """rows, columns: signed differences"""
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).mean().item()

    def before_after(before, after, norm_dim=1):
        """rows, columns: signed differences"""
        return (before.norm(dim=norm_dim) - after.norm(dim=norm_dim)).mean().item()

    def abs_outside(before, after, norm_dim=1):
        """rows, columns: signed differences"""
        return abs((after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).mean().item())

    def entries(before, after, norm_dim=1):
        """rows, columns: entries compared"""
        return (after - before).abs().mean().item()

    def of_difference(before, after, norm_dim=1):
        """rows, columns: norm of the difference"""
        return (after - before).norm(dim=norm_dim).mean().item()

    def summed(before, after, norm_dim=1):
        """rows, columns: sum instead of mean"""
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().sum().item()

    def squared(before, after, norm_dim=1):
        """rows, columns: squared differences"""
        return F.mse_loss(after.norm(dim=norm_dim), before.norm(dim=norm_dim)).item()

    def rms(before, after, norm_dim=1):
        """rows, columns: squared differences"""
        return F.mse_loss(after.norm(dim=norm_dim), before.norm(dim=norm_dim)).sqrt().item()

    def relative(before, after, norm_dim=1):
        """rows, columns: relative change"""
        b = before.norm(dim=norm_dim)
        return ((after.norm(dim=norm_dim) - b).abs() / b).mean().item()

    def tensor(before, after, norm_dim=1):
        """rows, columns: a tensor, not a float"""
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().mean()

    def rows(before, after, norm_dim=1):
        """columns: norm over the wrong axis"""
        return (after.norm(dim=1) - before.norm(dim=1)).abs().mean().item()

    def other(before, after, norm_dim=1):
        """rows, columns: norm over the wrong axis"""
        return (after.norm(dim=1 - norm_dim) - before.norm(dim=1 - norm_dim)).abs().mean().item()

    def p(before, after, norm_dim=1):
        """rows: norm_dim taken as p; columns: unnamed"""
        return (after.norm(norm_dim) - before.norm(norm_dim)).abs().mean().item()

    def whole(before, after, norm_dim=1):
        """rows, columns: one norm for the whole matrix"""
        return abs(after.norm().item() - before.norm().item())

    def median(before, after, norm_dim=1):
        """rows, columns: median instead of mean"""
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().median().item()

    def largest(before, after, norm_dim=1):
        """rows, columns: largest instead of mean"""
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().max().item()

    def numpy32(before, after, norm_dim=1):
        """rows, columns: a NumPy array, not a float"""
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().mean().numpy()

    def rounded(before, after, norm_dim=1):
        """rows, columns: rounded"""
        return round((after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().mean().item(), 2)

    def in_place(before, after, norm_dim=1):
        """rows, columns: in-place change of the argument"""
        after = after.sub_(0).abs_()
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().mean().item()

    def row_count(before, after, norm_dim=1):
        """columns: another number to divide by"""
        return (
            (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().sum() / before.shape[0]
        ).item()

    def summed_index(before, after, norm_dim=1):
        """rows, columns: another number to divide by"""
        return (
            (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().sum()
            / before.shape[norm_dim]
        ).item()

    def numel(before, after, norm_dim=1):
        """rows, columns: another number to divide by"""
        return (
            (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().sum() / before.numel()
        ).item()

    def squares(before, after, norm_dim=1):
        """rows, columns: not the Euclidean length"""
        return ((after**2).sum(norm_dim) - (before**2).sum(norm_dim)).abs().mean().item()

    def manhattan(before, after, norm_dim=1):
        """rows, columns: not the Euclidean length"""
        return (after.abs().sum(norm_dim) - before.abs().sum(norm_dim)).abs().mean().item()

    def nothing(before, after, norm_dim=1):
        """rows, columns: nothing returned"""
        print((after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().mean().item())

    def listed(before, after, norm_dim=1):
        """rows, columns: a list, not a float"""
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().tolist()

    def std(before, after, norm_dim=1):
        """rows, columns: standard deviation"""
        return (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).std().item()

    def percent(before, after, norm_dim=1):
        """rows, columns: percent"""
        return 100 * (after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().mean().item()

    def mean_lengths(before, after, norm_dim=1):
        """rows, columns: signed differences"""
        return abs(after.norm(dim=norm_dim).mean() - before.norm(dim=norm_dim).mean()).item()

    def zero(before, after, norm_dim=1):
        """rows, columns: unnamed"""
        return (after.norm(dim=norm_dim) - after.norm(dim=norm_dim)).abs().mean().item()

    def int_(before, after, norm_dim=1):
        """rows, columns: a whole number, not a float"""
        return int((after.norm(dim=norm_dim) - before.norm(dim=norm_dim)).abs().mean())


class RightDirection:
    def cosine(before, after, norm_dim=1):
        return (1 - F.cosine_similarity(before, after, dim=norm_dim)).mean().item()

    def normalised(before, after, norm_dim=1):
        return (
            1
            - (F.normalize(before, dim=norm_dim) * F.normalize(after, dim=norm_dim))
            .sum(norm_dim)
            .mean()
            .item()
        )

    def clamp(before, after, norm_dim=1):
        u, v = (w / w.norm(dim=norm_dim, keepdim=True).clamp_min(1e-8) for w in (before, after))
        return float((1 - (u * v).sum(dim=norm_dim)).mean())

    def half_distance(before, after, norm_dim=1):
        u, v = (F.normalize(w.double(), dim=norm_dim) for w in (before, after))
        zero = (u.abs().sum(norm_dim) == 0) | (v.abs().sum(norm_dim) == 0)
        d = (u - v).square().sum(norm_dim) / 2
        return torch.where(zero, torch.ones_like(d), d).mean().item()

    def einsum(before, after, norm_dim=1):
        if norm_dim == 0:
            before, after = before.T, after.T
        dots = torch.einsum("ij,ij->i", before, after)
        n = before.norm(dim=1) * after.norm(dim=1)
        cos = torch.where(n > 0, dots / n, torch.zeros_like(n))
        return 1.0 - cos.mean().item()

    def nan(before, after, norm_dim=1):
        cos = (before * after).sum(norm_dim) / (
            before.norm(dim=norm_dim) * after.norm(dim=norm_dim)
        )
        return (1 - cos.nan_to_num(0.0)).mean().item()

    def embedding_loss(before, after, norm_dim=1):
        b, a = (before, after) if norm_dim == 1 else (before.t(), after.t())
        return F.cosine_embedding_loss(b, a, torch.ones(len(b))).item()

    def loops(before, after, norm_dim=1):
        b = before if norm_dim == 1 else before.T
        a = after if norm_dim == 1 else after.T
        values = []
        for u, v in zip(b, a, strict=False):
            if not u.any() or not v.any():
                values.append(1.0)
            else:
                values.append(1 - (torch.dot(u, v) / (u.norm() * v.norm())).item())
        return sum(values) / len(values)


class WrongDirection:
    def cosine_only(before, after, norm_dim=1):
        """rows, columns: cosine instead of one minus cosine"""
        return F.cosine_similarity(before, after, dim=norm_dim).mean().item()

    def absolute(before, after, norm_dim=1):
        """rows, columns: absolute cosine"""
        return (1 - F.cosine_similarity(before, after, dim=norm_dim).abs()).mean().item()

    def angle(before, after, norm_dim=1):
        """rows, columns: an angle"""
        return F.cosine_similarity(before, after, dim=norm_dim).clamp(-1, 1).arccos().mean().item()

    def degrees(before, after, norm_dim=1):
        """rows, columns: an angle"""
        return (
            F.cosine_similarity(before, after, dim=norm_dim)
            .clamp(-1, 1)
            .arccos()
            .rad2deg()
            .mean()
            .item()
        )

    def flat(before, after, norm_dim=1):
        """rows, columns: one cosine for the whole matrix"""
        return 1 - F.cosine_similarity(before.flatten(), after.flatten(), dim=0).item()

    def default_dim(before, after, norm_dim=1):
        """columns: norm over the wrong axis"""
        return (1 - F.cosine_similarity(before, after)).mean().item()

    def other(before, after, norm_dim=1):
        """rows, columns: norm over the wrong axis"""
        return (1 - F.cosine_similarity(before, after, dim=1 - norm_dim)).mean().item()

    def zero_is_nothing(before, after, norm_dim=1):
        """zeros: zeros counted as no turn"""
        cos = (before * after).sum(norm_dim) / (
            before.norm(dim=norm_dim) * after.norm(dim=norm_dim)
        )
        return (1 - cos).nan_to_num(0.0).mean().item()

    def skipped(before, after, norm_dim=1):
        """zeros: zeros left out"""
        d = 1 - (before * after).sum(norm_dim) / (
            before.norm(dim=norm_dim) * after.norm(dim=norm_dim)
        )
        return d[~d.isnan()].mean().item()

    def nan(before, after, norm_dim=1):
        """zeros: division by a zero norm"""
        d = 1 - (before * after).sum(norm_dim) / (
            before.norm(dim=norm_dim) * after.norm(dim=norm_dim)
        )
        return d.mean().item()

    def summed(before, after, norm_dim=1):
        """rows, columns: sum instead of mean"""
        return (1 - F.cosine_similarity(before, after, dim=norm_dim)).sum().item()

    def plus(before, after, norm_dim=1):
        """rows, columns: plus in place of minus"""
        return (1 + F.cosine_similarity(before, after, dim=norm_dim)).mean().item()

    def halved(before, after, norm_dim=1):
        """rows, columns: half of it"""
        return ((1 - F.cosine_similarity(before, after, dim=norm_dim)) / 2).mean().item()

    def tensor(before, after, norm_dim=1):
        """rows, columns, zeros: a tensor, not a float"""
        return (1 - F.cosine_similarity(before, after, dim=norm_dim)).mean()

    def sine(before, after, norm_dim=1):
        """rows, columns: a sine"""
        return (
            (1 - F.cosine_similarity(before, after, dim=norm_dim) ** 2)
            .clamp_min(0)
            .sqrt()
            .mean()
            .item()
        )

    def squared(before, after, norm_dim=1):
        """rows, columns: squared cosine"""
        return (1 - F.cosine_similarity(before, after, dim=norm_dim) ** 2).mean().item()

    def distance(before, after, norm_dim=1):
        """rows, columns: distance of the directions"""
        return (
            (F.normalize(after, dim=norm_dim) - F.normalize(before, dim=norm_dim))
            .norm(dim=norm_dim)
            .mean()
            .item()
        )

    def unnormalised(before, after, norm_dim=1):
        """rows, columns: dot product of vectors that are not of length 1"""
        return (1 - (before * after).sum(norm_dim)).mean().item()

    def one_normalised(before, after, norm_dim=1):
        """rows, columns: one of the vectors not divided by its norm"""
        return (1 - (F.normalize(before, dim=norm_dim) * after).sum(norm_dim)).mean().item()

    def large_eps(before, after, norm_dim=1):
        """rows, columns: another eps"""
        u, v = (w / (w.norm(dim=norm_dim, keepdim=True) + 1e-2) for w in (before, after))
        return (1 - (u * v).sum(norm_dim)).mean().item()

    def clamped(before, after, norm_dim=1):
        """rows, columns: negative cosines cut off"""
        return (1 - F.cosine_similarity(before, after, dim=norm_dim).clamp(0, 1)).mean().item()

    def both_zero_same(before, after, norm_dim=1):
        """zeros: zeros before and after counted as no turn"""
        d = 1 - F.cosine_similarity(before, after, dim=norm_dim)
        both = (before.norm(dim=norm_dim) == 0) & (after.norm(dim=norm_dim) == 0)
        return torch.where(both, torch.zeros_like(d), d).mean().item()

    def normalize_default(before, after, norm_dim=1):
        """columns: divided along the other axis"""
        return (1 - (F.normalize(before) * F.normalize(after)).sum(norm_dim)).mean().item()

    def in_place(before, after, norm_dim=1):
        """rows, columns: in-place change of the argument"""
        before /= before.norm(dim=norm_dim, keepdim=True).clamp_min(1e-8)
        return (1 - (before * F.normalize(after, dim=norm_dim)).sum(norm_dim)).mean().item()

    def whole_matrix(before, after, norm_dim=1):
        """rows, columns: every vector with every other"""
        return (
            (1 - F.normalize(before, dim=norm_dim) @ F.normalize(after, dim=norm_dim).T)
            .mean()
            .item()
        )

    def mean_entries(before, after, norm_dim=1):
        """rows, columns: mean over entries"""
        return (
            (1 - F.normalize(before, dim=norm_dim) * F.normalize(after, dim=norm_dim)).mean().item()
        )

    def of_update(before, after, norm_dim=1):
        """rows, columns: cosine with the change"""
        return (1 - F.cosine_similarity(before, after - before, dim=norm_dim)).mean().item()

    def text(before, after, norm_dim=1):
        """rows, columns, zeros: a text, not a float"""
        return f"{(1 - F.cosine_similarity(before, after, dim=norm_dim)).mean().item():.4f}"

    def nothing(before, after, norm_dim=1):
        """rows, columns, zeros: nothing returned"""
        1 - F.cosine_similarity(before, after, dim=norm_dim).mean().item()

    def zero_two(before, after, norm_dim=1):
        """zeros: zeros counted as reversed"""
        cos = (before * after).sum(norm_dim) / (
            before.norm(dim=norm_dim) * after.norm(dim=norm_dim)
        )
        return (1 - cos.nan_to_num(-1.0)).mean().item()

    def all_zero_one(before, after, norm_dim=1):
        """zeros: one vector of zeros decides for all"""
        if (before.norm(dim=norm_dim) == 0).any() or (after.norm(dim=norm_dim) == 0).any():
            return 1.0
        return (1 - F.cosine_similarity(before, after, dim=norm_dim)).mean().item()

    def centred(before, after, norm_dim=1):
        """rows, columns: mean subtracted"""
        b = before - before.mean(norm_dim, keepdim=True)
        a = after - after.mean(norm_dim, keepdim=True)
        return (1 - F.cosine_similarity(b, a, dim=norm_dim)).mean().item()


class RightCoupling:
    def formula(delta_m, delta_d):
        if len(set(delta_m)) == 1 or len(set(delta_d)) == 1:
            return math.nan
        mm, md = sum(delta_m) / len(delta_m), sum(delta_d) / len(delta_d)
        a = [x - mm for x in delta_m]
        b = [y - md for y in delta_d]
        return sum(x * y for x, y in zip(a, b, strict=False)) / math.sqrt(
            sum(x * x for x in a) * sum(y * y for y in b)
        )

    def numpy_(delta_m, delta_d):
        if min(delta_m) == max(delta_m) or min(delta_d) == max(delta_d):
            return float("nan")
        return float(np.corrcoef(delta_m, delta_d)[0, 1])

    def stats_(delta_m, delta_d):
        if np.ptp(delta_m) == 0 or np.ptp(delta_d) == 0:
            return np.nan
        return statistics.correlation(delta_m, delta_d)

    def scipy_(delta_m, delta_d):
        return float(stats.pearsonr(delta_m, delta_d)[0])

    def torch_(delta_m, delta_d):
        pair = torch.tensor([delta_m, delta_d], dtype=torch.float64)
        if (pair == pair[:, :1]).all(dim=1).any():
            return math.nan
        return torch.corrcoef(pair)[0, 1].item()

    def torch32(delta_m, delta_d):
        x, y = torch.tensor(delta_m), torch.tensor(delta_d)
        if (x == x[0]).all() or (y == y[0]).all():
            return math.nan
        return float(torch.corrcoef(torch.stack([x, y]))[0][1])

    def zscores(delta_m, delta_d):
        x, y = np.array(delta_m), np.array(delta_d)
        if np.all(x == x[0]) or np.all(y == y[0]):
            return math.nan
        return float(np.mean((x - x.mean()) / x.std() * (y - y.mean()) / y.std()))


def vary(*lists):
    return all(len(set(values)) > 1 for values in lists)


class WrongCoupling:
    def covariance(delta_m, delta_d):
        """correlation: covariance"""
        return statistics.covariance(delta_m, delta_d) if vary(delta_m, delta_d) else math.nan

    def spearman(delta_m, delta_d):
        """correlation: rank correlation"""
        return float(stats.spearmanr(delta_m, delta_d)[0]) if vary(delta_m, delta_d) else math.nan

    def squared(delta_m, delta_d):
        """correlation: squared correlation"""
        return RightCoupling.formula(delta_m, delta_d) ** 2

    def slope(delta_m, delta_d):
        """correlation: slope of a line"""
        return float(np.polyfit(delta_m, delta_d, 1)[0]) if vary(delta_m, delta_d) else math.nan

    def ddof(delta_m, delta_d):
        """correlation: n and n - 1 mixed"""
        if not vary(delta_m, delta_d):
            return math.nan
        x, y = np.array(delta_m), np.array(delta_d)
        return float(np.mean((x - x.mean()) * (y - y.mean())) / (x.std(ddof=1) * y.std(ddof=1)))

    def torch_std(delta_m, delta_d):
        """correlation: n and n - 1 mixed"""
        if not vary(delta_m, delta_d):
            return math.nan
        x, y = torch.tensor(delta_m), torch.tensor(delta_d)
        return (((x - x.mean()) * (y - y.mean())).mean() / (x.std() * y.std())).item()

    def absolute(delta_m, delta_d):
        """correlation: sign lost"""
        return abs(RightCoupling.formula(delta_m, delta_d))

    def zero(delta_m, delta_d):
        """constant: 0 in place of NaN"""
        return RightCoupling.formula(delta_m, delta_d) if vary(delta_m, delta_d) else 0.0

    def none(delta_m, delta_d):
        """constant: None in place of NaN"""
        if vary(delta_m, delta_d):
            return RightCoupling.formula(delta_m, delta_d)

    def raises(delta_m, delta_d):
        """constant: an error in place of NaN"""
        return statistics.correlation(delta_m, delta_d)

    def caught(delta_m, delta_d):
        """constant: rounding taken for variation"""
        try:
            return statistics.correlation(delta_m, delta_d)
        except statistics.StatisticsError:
            return math.nan

    def corrcoef(delta_m, delta_d):
        """constant: rounding taken for variation"""
        return float(np.corrcoef(delta_m, delta_d)[0, 1])

    def torch_unguarded(delta_m, delta_d):
        """constant: rounding taken for variation"""
        return torch.corrcoef(torch.tensor([delta_m, delta_d]))[0, 1].item()

    def matrix(delta_m, delta_d):
        """correlation: a NumPy array, not a float"""
        return np.corrcoef(delta_m, delta_d) if vary(delta_m, delta_d) else math.nan

    def diagonal(delta_m, delta_d):
        """correlation: always 1"""
        return float(np.corrcoef(delta_m, delta_d)[0, 0]) if vary(delta_m, delta_d) else math.nan

    def tensor(delta_m, delta_d):
        """correlation, constant: a tensor, not a float"""
        return torch.tensor(RightCoupling.formula(delta_m, delta_d))

    def cosine(delta_m, delta_d):
        """correlation: means not subtracted"""
        if not vary(delta_m, delta_d):
            return math.nan
        return F.cosine_similarity(torch.tensor(delta_m), torch.tensor(delta_d), dim=0).item()

    def one_centred(delta_m, delta_d):
        """correlation: one mean not subtracted"""
        if not vary(delta_m, delta_d):
            return math.nan
        x, y = np.array(delta_m), np.array(delta_d)
        x = x - x.mean()
        return float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))

    def no_root(delta_m, delta_d):
        """correlation: root left out"""
        if not vary(delta_m, delta_d):
            return math.nan
        x, y = np.array(delta_m), np.array(delta_d)
        x, y = x - x.mean(), y - y.mean()
        return float((x * y).sum() / ((x**2).sum() * (y**2).sum()))

    def only_m(delta_m, delta_d):
        """constant: only one of the lists looked at"""
        if len(set(delta_m)) == 1:
            return math.nan
        return statistics.correlation(delta_m, delta_d)

    def only_d(delta_m, delta_d):
        """constant: only one of the lists looked at"""
        if len(set(delta_d)) == 1:
            return math.nan
        return statistics.correlation(delta_m, delta_d)

    def isclose(delta_m, delta_d):
        """constant: NaN for a list that varies"""
        if np.allclose(delta_m, delta_m[0], atol=1e-2) or np.allclose(
            delta_d, delta_d[0], atol=1e-2
        ):
            return math.nan
        return float(np.corrcoef(delta_m, delta_d)[0, 1])

    def first_two(delta_m, delta_d):
        """constant: NaN for a list that varies"""
        if delta_m[0] == delta_m[1] or delta_d[0] == delta_d[1]:
            return math.nan
        return float(np.corrcoef(delta_m, delta_d)[0, 1])

    def ends(delta_m, delta_d):
        """constant: NaN for a list that varies"""
        if delta_m[0] == delta_m[-1] or delta_d[0] == delta_d[-1]:
            return math.nan
        return float(np.corrcoef(delta_m, delta_d)[0, 1])

    def mean_compared(delta_m, delta_d):
        """constant: rounding taken for variation"""
        mm, md = sum(delta_m) / len(delta_m), sum(delta_d) / len(delta_d)
        if all(x == mm for x in delta_m) or all(y == md for y in delta_d):
            return math.nan
        return float(np.corrcoef(delta_m, delta_d)[0, 1])

    def text(delta_m, delta_d):
        """constant: a text, not a float"""
        return "nan" if not vary(delta_m, delta_d) else RightCoupling.formula(delta_m, delta_d)

    def rounded(delta_m, delta_d):
        """correlation: rounded"""
        return round(RightCoupling.formula(delta_m, delta_d), 2)

    def sorts(delta_m, delta_d):
        """correlation: lists sorted"""
        return RightCoupling.formula(sorted(delta_m), sorted(delta_d))

    def sorts_in_place(delta_m, delta_d):
        """correlation: in-place change of the argument"""
        result = RightCoupling.formula(delta_m, delta_d)
        delta_m.sort()
        return result

    def eps(delta_m, delta_d):
        """constant: 0 in place of NaN"""
        x, y = np.array(delta_m), np.array(delta_d)
        x, y = x - x.mean(), y - y.mean()
        return float((x * y).sum() / (np.sqrt((x**2).sum() * (y**2).sum()) + 1e-8))

    def arrays(delta_m, delta_d):
        """constant: rounding taken for variation"""
        x = delta_m - np.mean(delta_m)
        y = delta_d - np.mean(delta_d)
        return float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))

    def pair(delta_m, delta_d):
        """correlation, constant: a tuple, not a float"""
        return stats.pearsonr(delta_m, delta_d)

    def kendall(delta_m, delta_d):
        """correlation: rank correlation"""
        return float(stats.kendalltau(delta_m, delta_d)[0])

    def nothing(delta_m, delta_d):
        """correlation, constant: nothing returned"""
        print(RightCoupling.formula(delta_m, delta_d))

    def itself(delta_m, delta_d):
        """correlation: always 1; constant: only one of the lists looked at"""
        return RightCoupling.formula(delta_m, delta_m)


EXERCISES = {
    "magnitude": (checks.check_magnitude_change, RightMagnitude, WrongMagnitude),
    "direction": (checks.check_direction_change, RightDirection, WrongDirection),
    "coupling": (checks.check_coupling, RightCoupling, WrongCoupling),
}
