"""Checks of lesson 05: right answers pass however they are written, wrong ones are named."""

import pytest
import torch
from answers import assert_passes

from lab_utils import checks
from lab_utils.training import train_and_evaluate

pytestmark = pytest.mark.usefixtures("runs_are_made_once")


def trained(method, rank, **settings):
    """The record of a run; many of the answers below train the same one."""
    return train_and_evaluate(method, rank=rank, task="regression", verbose=False, **settings)


def run(method, rank, key="test_loss", n_epochs=1, seed=0):
    return trained(method, rank, n_epochs=n_epochs, seed=seed)[key]


def table(ranks, loss):
    return {m: {rank: loss(m, rank) for rank in ranks} for m in ("lora", "dora")}


class RightRanks:
    def nested(ranks=(4, 8, 16, 32)):
        return {m: {rank: run(m, rank) for rank in ranks} for m in ("lora", "dora")}

    def loops(ranks=(4, 8, 16, 32)):
        results = {"dora": {}, "lora": {}}
        for rank in ranks:
            for method, losses in results.items():
                losses[rank] = run(method, rank)
        return results

    def zipped(ranks=(4, 8, 16, 32)):
        rows = {m: [run(m, rank) for rank in ranks] for m in ("lora", "dora")}
        return {m: dict(zip(ranks, losses, strict=True)) for m, losses in rows.items()}


class WrongRanks:
    def rank_lost(ranks=(4, 8, 16, 32)):
        """rank not passed on"""
        return table(ranks, lambda m, rank: run(m, 8))

    def swapped(ranks=(4, 8, 16, 32)):
        """methods swapped"""
        return table(ranks, lambda m, rank: run("lora" if m == "dora" else "dora", rank))

    def one_method(ranks=(4, 8, 16, 32)):
        """one method twice"""
        return table(ranks, lambda m, rank: run("dora", rank))

    def training_loss(ranks=(4, 8, 16, 32)):
        """training loss"""
        return table(ranks, lambda m, rank: run(m, rank, "final_train_loss"))

    def validation_loss(ranks=(4, 8, 16, 32)):
        """validation loss"""
        return table(ranks, lambda m, rank: run(m, rank, "validation_loss"))

    def other_seed(ranks=(4, 8, 16, 32)):
        """another seed"""
        return table(ranks, lambda m, rank: run(m, rank, seed=rank))

    def longer(ranks=(4, 8, 16, 32)):
        """another number of epochs"""
        return table(ranks, lambda m, rank: run(m, rank, n_epochs=3))

    def default_ranks(ranks=(4, 8, 16, 32)):
        """other ranks than those given"""
        return table((4, 8), run)

    def names_of_ranks(ranks=(4, 8, 16, 32)):
        """ranks as text"""
        return {m: {str(k): v for k, v in row.items()} for m, row in table(ranks, run).items()}

    def lists(ranks=(4, 8, 16, 32)):
        """lists in place of dicts"""
        return {m: list(row.values()) for m, row in table(ranks, run).items()}

    def rank_first(ranks=(4, 8, 16, 32)):
        """ranks outside, methods inside"""
        return {rank: {m: run(m, rank) for m in ("lora", "dora")} for rank in ranks}

    def nothing(ranks=(4, 8, 16, 32)):
        """must return a dict; found None (is there a return?)"""

    def blank(ranks=(4, 8, 16, 32)):
        """is not written yet"""
        raise NotImplementedError()


def recorded(n_epochs, row=lambda model: model.q_proj.magnitude.detach().flatten().clone()):
    rows = []
    train_and_evaluate(
        "dora",
        n_epochs=n_epochs,
        verbose=False,
        task="regression",
        on_step=lambda step, model, loss: rows.append(row(model)),
    )
    return torch.stack(rows)


def statistics_of(history):
    change = (history - history[0]).abs()
    return {
        "history": history,
        "mean_change": change.mean(dim=1),
        "relative_change": ((history[-1] - history[0]).norm() / history[0].norm()).item(),
    }


class RightTrack:
    def closure(n_epochs=50):
        return statistics_of(recorded(n_epochs))

    def preallocated(n_epochs=50):
        history = torch.empty(32 * n_epochs + 1, 32)

        def keep(step, model, loss):
            history[step] = model.q_proj.magnitude[:, 0].data

        train_and_evaluate(
            "dora", n_epochs=n_epochs, verbose=False, task="regression", on_step=keep
        )
        return statistics_of(history)

    def numpy(n_epochs=50):
        rows = recorded(n_epochs, lambda model: torch.tensor(model.q_proj.magnitude.tolist()))
        return statistics_of(rows.squeeze(-1))


class WrongTrack:
    def no_copy(n_epochs=50):
        """no copy"""
        return statistics_of(recorded(n_epochs, lambda m: m.q_proj.magnitude.detach().flatten()))

    def no_start(n_epochs=50):
        """start left out"""
        return statistics_of(recorded(n_epochs)[1:])

    def each_epoch(n_epochs=50):
        """one row an epoch"""
        return statistics_of(recorded(n_epochs)[::32])

    def other_layer(n_epochs=50):
        """another layer"""
        return statistics_of(recorded(n_epochs, lambda m: m.v_proj.magnitude.data.flatten() + 0))

    def signed(n_epochs=50):
        """signed changes"""
        history = recorded(n_epochs)
        return statistics_of(history) | {"mean_change": (history - history[0]).mean(dim=1)}

    def since_the_last_step(n_epochs=50):
        """change since the last step"""
        history = recorded(n_epochs)
        return statistics_of(history) | {"mean_change": history.diff(dim=0).abs().mean(dim=1)}

    def summed(n_epochs=50):
        """sum instead of mean"""
        history = recorded(n_epochs)
        return statistics_of(history) | {"mean_change": (history - history[0]).abs().sum(dim=1)}

    def not_relative(n_epochs=50):
        """not divided"""
        history = recorded(n_epochs)
        moved = (history[-1] - history[0]).norm().item()
        return statistics_of(history) | {"relative_change": moved}

    def relative_to_the_end(n_epochs=50):
        """divided by the end"""
        history = recorded(n_epochs)
        moved = (history[-1] - history[0]).norm() / history[-1].norm()
        return statistics_of(history) | {"relative_change": moved.item()}

    def norms_compared(n_epochs=50):
        """difference of the norms"""
        history = recorded(n_epochs)
        norm = history.norm(dim=1)
        return statistics_of(history) | {"relative_change": (norm[-1] / norm[0] - 1).item()}

    def with_gradient(n_epochs=50):
        """found a tensor of shape (65, 32) and torch.float32 with gradient"""
        return statistics_of(recorded(n_epochs, lambda m: m.q_proj.magnitude.flatten().clone()))

    def a_list(n_epochs=50):
        """expected history as a tensor without gradient, found a list of 65"""
        history = recorded(n_epochs)
        return statistics_of(history) | {"history": history.tolist()}

    def blank(n_epochs=50):
        """is not written yet"""
        raise NotImplementedError()


EXERCISES = {
    "compare_across_ranks": (checks.check_compare_across_ranks, RightRanks, WrongRanks),
    "track_magnitude_changes": (checks.check_track_magnitude_changes, RightTrack, WrongTrack),
}
HIDDEN = {
    checks.check_compare_across_ranks: [{"ranks": (32, 1, 4)}],
    checks.check_track_magnitude_changes: [{"n_epochs": 1}],
}


@pytest.mark.parametrize("seed", range(3))
def test_marks_do_not_depend_on_luck(seed, capsys, monkeypatch):
    """Whatever the global random state is, the same answer gets the same marks."""
    torch.manual_seed(seed)
    monkeypatch.undo()  # every run is made anew
    assert_passes(capsys, checks.check_compare_across_ranks, RightRanks.nested, ranks=(4,))
    assert_passes(capsys, checks.check_track_magnitude_changes, RightTrack.closure, n_epochs=1)


def test_a_half_right_answer_keeps_its_half():
    checks.check_compare_across_ranks(WrongRanks.training_loss, "keys")
    checks.check_track_magnitude_changes(WrongTrack.signed, "history")
    checks.check_track_magnitude_changes(WrongTrack.a_list, "statistics")
