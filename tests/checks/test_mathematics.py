"""Checks of lesson 01: right answers pass however they are written, wrong ones are named."""

import math
from inspect import signature

import pytest
import torch
import torch.nn.functional as F
from answers import answers, cases

from lab_utils import checks, decomposition


class RightDecompose:
    def norm(weight, norm_dim=1, eps=1e-8):
        magnitude = weight.norm(dim=norm_dim, keepdim=True)
        return magnitude, weight / magnitude.clamp_min(eps)

    def normalize(weight, norm_dim=1, eps=1e-8):
        direction = F.normalize(weight, dim=norm_dim, eps=eps)
        return torch.linalg.vector_norm(weight, dim=norm_dim, keepdim=True), direction

    def einsum(weight, norm_dim=1, eps=1e-8):
        squares = torch.einsum("ij,ij->i" if norm_dim == 1 else "ij,ij->j", weight, weight)
        magnitude = squares.sqrt().unsqueeze(norm_dim)
        return magnitude, weight / (magnitude + eps)

    def loops(weight, norm_dim=1, eps=1e-8):
        vectors = weight if norm_dim == 1 else weight.T
        lengths = [math.sqrt(sum(value.item() ** 2 for value in vector)) for vector in vectors]
        magnitude = torch.tensor(lengths, dtype=weight.dtype).unsqueeze(1)
        direction = torch.stack([v / max(n, eps) for v, n in zip(vectors, lengths, strict=True)])
        return (magnitude, direction) if norm_dim == 1 else (magnitude.T, direction.T)


def split(magnitude, weight, eps=1e-8):
    return magnitude, weight / magnitude.clamp_min(eps)


class WrongDecompose:
    def other_axis(weight, norm_dim=1, eps=1e-8):
        """norm over the wrong axis"""
        return split(weight.norm(dim=1 - norm_dim, keepdim=True), weight)

    def always_columns(weight, norm_dim=1, eps=1e-8):
        """norm over the wrong axis"""
        return split(weight.norm(dim=0, keepdim=True), weight)

    def always_rows(weight, norm_dim=1, eps=1e-8):
        """norm over the wrong axis"""
        return split(weight.norm(dim=1, keepdim=True), weight)

    def no_keepdim(weight, norm_dim=1, eps=1e-8):
        """summed dimension dropped"""
        direction = weight / weight.norm(dim=norm_dim, keepdim=True).clamp_min(eps)
        return weight.norm(dim=norm_dim), direction

    def squared(weight, norm_dim=1, eps=1e-8):
        """not the Euclidean length"""
        return split(weight.square().sum(norm_dim, keepdim=True), weight)

    def sum_of_sizes(weight, norm_dim=1, eps=1e-8):
        """not the Euclidean length"""
        return split(weight.abs().sum(norm_dim, keepdim=True), weight)

    def whole(weight, norm_dim=1, eps=1e-8):
        """one norm for the whole matrix"""
        return split(weight.norm(), weight)

    def not_divided(weight, norm_dim=1, eps=1e-8):
        """no normalisation"""
        return weight.norm(dim=norm_dim, keepdim=True), weight

    def swapped(weight, norm_dim=1, eps=1e-8):
        """the two results are swapped"""
        return split(weight.norm(dim=norm_dim, keepdim=True), weight)[::-1]

    def in_place(weight, norm_dim=1, eps=1e-8):
        """in-place change of the argument"""
        magnitude = weight.norm(dim=norm_dim, keepdim=True)
        weight /= magnitude.clamp_min(eps)
        return magnitude, weight

    def dim_as_p(weight, norm_dim=1, eps=1e-8):
        """norm_dim taken as p"""
        return split(weight.norm(norm_dim), weight)

    def dim_as_p_kept(weight, norm_dim=1, eps=1e-8):
        """norm_dim taken as p"""
        return split(weight.norm(norm_dim, keepdim=True), weight)

    def repeated(weight, norm_dim=1, eps=1e-8):
        """one magnitude per entry"""
        return split(weight.norm(dim=norm_dim, keepdim=True).expand_as(weight), weight)

    def largest(weight, norm_dim=1, eps=1e-8):
        """not the Euclidean length"""
        return split(weight.abs().amax(norm_dim, keepdim=True), weight)

    def spread(weight, norm_dim=1, eps=1e-8):
        """not the Euclidean length"""
        return split(weight.std(dim=norm_dim, keepdim=True), weight)

    def mean_size(weight, norm_dim=1, eps=1e-8):
        """not the Euclidean length"""
        return split(weight.abs().mean(norm_dim, keepdim=True), weight)

    def magnitude_clamped_high(weight, norm_dim=1, eps=1e-8):
        """eps in the magnitude"""
        return split(weight.norm(dim=norm_dim, keepdim=True).clamp_min(1e-3), weight)

    def root_mean_square(weight, norm_dim=1, eps=1e-8):
        """not the Euclidean length"""
        return split(weight.square().mean(norm_dim, keepdim=True).sqrt(), weight)

    def multiplied(weight, norm_dim=1, eps=1e-8):
        """multiplied by the norm"""
        magnitude = weight.norm(dim=norm_dim, keepdim=True)
        return magnitude, weight * magnitude

    def direction_over_the_other_axis(weight, norm_dim=1, eps=1e-8):
        """norm over the wrong axis"""
        across = weight.norm(dim=1 - norm_dim, keepdim=True)
        return weight.norm(dim=norm_dim, keepdim=True), weight / across

    def axis_by_size(weight, norm_dim=1, eps=1e-8):
        """magnitude: expected"""
        dim = 0 if weight.shape[0] == weight.shape[1] else norm_dim
        return split(weight.norm(dim=dim, keepdim=True), weight)

    def eps_under_the_root(weight, norm_dim=1, eps=1e-8):
        """eps under the root"""
        return split((weight.square().sum(norm_dim, keepdim=True) + eps).sqrt(), weight)

    def magnitude_clamped(weight, norm_dim=1, eps=1e-8):
        """eps in the magnitude"""
        return split(weight.norm(dim=norm_dim, keepdim=True).clamp_min(eps), weight)

    def eps_added_to_magnitude(weight, norm_dim=1, eps=1e-8):
        """eps in the magnitude"""
        return split(weight.norm(dim=norm_dim, keepdim=True) + eps, weight)

    def clamped_at_a_hundredth(weight, norm_dim=1, eps=1e-8):
        """another eps"""
        return split(weight.norm(dim=norm_dim, keepdim=True), weight, 0.01)

    def eps_ignored(weight, norm_dim=1, eps=1e-8):
        """eps ignored"""
        return split(weight.norm(dim=norm_dim, keepdim=True), weight)

    def zero_rows_only(weight, norm_dim=1, eps=1e-8):
        """division by a zero norm"""
        magnitude = weight.norm(dim=norm_dim, keepdim=True)
        return magnitude, weight / (magnitude.clamp_min(eps) if norm_dim == 1 else magnitude)

    def ones_for_zero(weight, norm_dim=1, eps=1e-8):
        """magnitude: expected 0 at index (1, 0), found 1"""
        magnitude = weight.norm(dim=norm_dim, keepdim=True)
        return split(torch.where(magnitude == 0, 1.0, magnitude), weight)

    def nothing(weight, norm_dim=1, eps=1e-8):
        """found None (is there a return?)"""

    def three(weight, norm_dim=1, eps=1e-8):
        """found a tuple of 3 (Tensor)"""
        return weight, weight, weight

    def half_none(weight, norm_dim=1, eps=1e-8):
        """expected direction as a tensor of real numbers, found None"""
        return weight.norm(dim=norm_dim, keepdim=True), None

    def sparse(weight, norm_dim=1, eps=1e-8):
        """expected magnitude as a tensor of real numbers, found"""
        magnitude = weight.norm(dim=norm_dim, keepdim=True)
        return magnitude.to_sparse(), weight / magnitude

    def one_result(weight, norm_dim=1, eps=1e-8):
        """to return the pair (magnitude, direction), found a tensor of shape (3, 1)"""
        return weight.norm(dim=norm_dim, keepdim=True)

    def no_torch(weight, norm_dim=1, eps=1e-8):
        """expected magnitude as a tensor of real numbers, found a NumPy array"""
        return weight.numpy(), weight

    def crash(weight, norm_dim=1, eps=1e-8):
        """raised RuntimeError: The size of tensor a (5) must match"""
        return weight.norm(dim=norm_dim), weight / weight.norm(dim=1)

    def blank(weight, norm_dim=1, eps=1e-8):
        """is not written yet"""
        raise NotImplementedError()

    def reference(weight, norm_dim=1, eps=1e-8):
        """calls lab_utils.decomposition.decompose, which is the reference"""
        return decomposition.decompose(weight, norm_dim)


class RightRecompose:
    def times(magnitude, direction):
        return magnitude * direction

    def mul(magnitude, direction):
        return torch.mul(direction, magnitude.expand_as(direction))

    def einsum(magnitude, direction):
        if magnitude.shape[1] == 1:
            return torch.einsum("i,ij->ij", magnitude.flatten(), direction)
        return torch.einsum("j,ij->ij", magnitude.flatten(), direction)

    def diagonal(magnitude, direction):
        diagonal = magnitude.flatten().diag()
        return diagonal @ direction if magnitude.shape[1] == 1 else direction @ diagonal


class WrongRecompose:
    def added(magnitude, direction):
        """added"""
        return magnitude + direction

    def divided(magnitude, direction):
        """divided"""
        return direction / magnitude

    def direction_only(magnitude, direction):
        """magnitude left out"""
        return direction

    def again(magnitude, direction):
        """normalised again"""
        dim = magnitude.shape.index(1)
        return magnitude * direction / direction.norm(dim=dim, keepdim=True)

    def transposed(magnitude, direction):
        """transposed"""
        return (magnitude * direction).T

    def in_place(magnitude, direction):
        """in-place change of the argument"""
        return direction.mul_(magnitude)

    def by_size(magnitude, direction):
        """axis guessed by size"""
        if magnitude.numel() == direction.shape[0] == direction.shape[1]:
            return (
                magnitude.view(1, -1) * direction
                if magnitude.shape[1] == 1
                else (magnitude.view(-1, 1) * direction)
            )
        return magnitude * direction

    def by_length(magnitude, direction):
        """recompose((1, 5), (5, 5))"""
        rows = magnitude.numel() == direction.shape[0]
        return magnitude.view(-1, 1) * direction if rows else magnitude.view(1, -1) * direction

    def positive(magnitude, direction):
        """recompose((3, 1), (3, 5)): expected"""
        return magnitude.abs() * direction

    def nothing(magnitude, direction):
        """nothing returned"""

    def changes_magnitude(magnitude, direction):
        """in-place change of the argument"""
        found = magnitude * direction
        magnitude.abs_()
        return found

    def matmul(magnitude, direction):
        """raised RuntimeError"""
        return magnitude @ direction if magnitude.shape[1] == 1 else direction @ magnitude

    def a_list(magnitude, direction):
        """found a list of 3 (list)"""
        return (magnitude * direction).tolist()

    def blank(magnitude, direction):
        """is not written yet"""
        raise NotImplementedError()

    def reference(magnitude, direction):
        """calls lab_utils.decomposition.recompose, which is the reference"""
        return decomposition.recompose(magnitude, direction)


class RightCount:
    def formula(in_features, out_features, rank, method, norm_dim=1):
        count = rank * (in_features + out_features)
        if method == "dora":
            count += out_features if norm_dim == 1 else in_features
        return count

    def tensors(in_features, out_features, rank, method, norm_dim=1):
        parts = [torch.empty(rank, in_features), torch.empty(out_features, rank)]
        if method == "dora":
            parts.append(torch.empty(out_features, in_features).norm(dim=norm_dim))
        return sum(part.numel() for part in parts)

    def table(in_features, out_features, rank, method, norm_dim=1):
        extra = {"lora": 0, "dora": (in_features, out_features)[norm_dim]}
        return in_features * rank + rank * out_features + extra[method]


class WrongCount:
    def no_magnitude(i, o, rank, method, norm_dim=1):
        """magnitude left out"""
        return rank * (i + o)

    def always_inputs(i, o, rank, method, norm_dim=1):
        """magnitude on the wrong axis"""
        return rank * (i + o) + (i if method == "dora" else 0)

    def always_outputs(i, o, rank, method, norm_dim=1):
        """magnitude on the wrong axis"""
        return rank * (i + o) + (o if method == "dora" else 0)

    def both_magnitudes(i, o, rank, method, norm_dim=1):
        """inputs and outputs counted"""
        return rank * (i + o) + (i + o if method == "dora" else 0)

    def magnitude_in_lora(i, o, rank, method, norm_dim=1):
        """magnitude counted for LoRA"""
        return rank * (i + o) + (o if norm_dim == 1 else i)

    def a_single_magnitude(i, o, rank, method, norm_dim=1):
        """a single magnitude"""
        return rank * (i + o) + (method == "dora")

    def with_the_frozen(i, o, rank, method, norm_dim=1):
        """the frozen weight counted"""
        return RightCount.formula(i, o, rank, method, norm_dim) + i * o

    def a_only(i, o, rank, method, norm_dim=1):
        """lora_B left out"""
        return RightCount.formula(i, o, rank, method, norm_dim) - rank * o

    def b_only(i, o, rank, method, norm_dim=1):
        """lora_A left out"""
        return RightCount.formula(i, o, rank, method, norm_dim) - rank * i

    def product(i, o, rank, method, norm_dim=1):
        """multiplied"""
        return rank * i * o

    def a_twice(i, o, rank, method, norm_dim=1):
        """lora_A counted twice"""
        return RightCount.formula(i, o, rank, method, norm_dim) + rank * (i - o)

    def b_twice(i, o, rank, method, norm_dim=1):
        """lora_B counted twice"""
        return RightCount.formula(i, o, rank, method, norm_dim) + rank * (o - i)

    def the_frozen_alone(i, o, rank, method, norm_dim=1):
        """a full matrix counted"""
        return i * o

    def magnitude_of_the_rank(i, o, rank, method, norm_dim=1):
        """one magnitude for each rank"""
        return rank * (i + o) + (rank if method == "dora" else 0)

    def one_off(i, o, rank, method, norm_dim=1):
        """12 → 5, rank 2: expected 34, found 35"""
        return RightCount.formula(i, o, rank, method, norm_dim) + 1

    def only_the_first_sizes(i, o, rank, method, norm_dim=1):
        """expected"""
        return RightCount.formula(i, o, rank, method, norm_dim) if rank == 2 else 0

    def nothing(i, o, rank, method, norm_dim=1):
        """expected an int, found None of type NoneType"""

    def a_tensor(i, o, rank, method, norm_dim=1):
        """of type Tensor"""
        return torch.tensor(rank * (i + o))

    def a_float(i, o, rank, method, norm_dim=1):
        """expected an int, found 34.0 of type float"""
        return float(RightCount.formula(i, o, rank, method, norm_dim))

    def blank(i, o, rank, method, norm_dim=1):
        """is not written yet"""
        raise NotImplementedError()


EXERCISES = {
    "decompose": (checks.check_decompose, RightDecompose, WrongDecompose),
    "recompose": (checks.check_recompose, RightRecompose, WrongRecompose),
    "count_trainable": (checks.check_count_trainable, RightCount, WrongCount),
}

# By the beginning of each sentence under “What must hold”: the answers that break it.
BROKEN_BY = {
    "decompose": {
        "`magnitude` has the Euclidean length": "squared no_keepdim repeated axis_by_size",
        "`direction` has the shape of the weight": "not_divided direction_over_the_other_axis",
        "a vector of zeros": "zero_rows_only ones_for_zero eps_under_the_root",
        "a vector shorter than `eps`": "eps_ignored clamped_at_a_hundredth magnitude_clamped",
        "the tensor that is passed in": "in_place",
    },
    "recompose": {
        "a magnitude of shape `(out_features, 1)`": "by_size by_length",
        "a direction need not": "again positive",
        "both tensors": "in_place changes_magnitude",
    },
    "count_trainable": {
        "the count is an `int`": "a_float a_tensor",
        "it counts what is trained": "with_the_frozen the_frozen_alone a_only b_only",
        "only DoRA has magnitudes": "magnitude_in_lora always_inputs always_outputs no_magnitude",
    },
}

# Small changes of the solution that are as right, see test_mutants: what they write for what.
AS_RIGHT = {
    "decompose": {"1e-08 -> 2e-08"},
    "count_trainable": {"'dora' -> ''"},
}


def test_there_are_three_right_and_eight_wrong_answers_for_each_exercise():
    for _, right, wrong in EXERCISES.values():
        assert len(answers(right)) >= 3
        assert len(answers(wrong)) >= 8


@pytest.mark.parametrize(("check", "answer"), cases(EXERCISES, 1))
def test_right_answers_pass(check, answer, capsys):
    check(answer)
    others = {"in_features": 4, "out_features": 9, "seed": 3, "dtype": torch.float64}
    check(answer, **{key: others[key] for key in others if key in signature(check).parameters})
    captured = capsys.readouterr()
    assert "FAIL" not in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(("check", "answer"), cases(EXERCISES, 2))
def test_wrong_answers_are_named(check, answer, capsys):
    with pytest.raises(checks.CheckFailed) as raised:
        check(answer)
    assert answer.__doc__ in str(raised.value)
    captured = capsys.readouterr()
    assert "FAIL" in captured.out
    assert captured.err == ""


def test_zero_division_is_named():
    def divides(weight, norm_dim=1, eps=1e-8):
        magnitude = weight.norm(dim=norm_dim, keepdim=True)
        return magnitude, weight / magnitude

    checks.check_decompose(divides, "rows")
    checks.check_decompose(divides, "columns")
    with pytest.raises(checks.CheckFailed, match="division by a zero norm"):
        checks.check_decompose(divides, "zeros")


def test_a_half_right_answer_keeps_its_half():
    checks.check_decompose(WrongDecompose.always_rows, "rows")
    with pytest.raises(checks.CheckFailed):
        checks.check_decompose(WrongDecompose.always_rows, "columns")
    checks.check_count_trainable(WrongCount.no_magnitude, "lora")
    checks.check_count_trainable(WrongCount.always_outputs, "dora")
    with pytest.raises(checks.CheckFailed):
        checks.check_count_trainable(WrongCount.always_outputs, "dora-input")


def test_an_unknown_aspect_is_an_error_and_not_a_pass():
    with pytest.raises(ValueError, match="aspect is 'row'; it must be one of rows, columns"):
        checks.check_decompose(RightDecompose.norm, "row")
