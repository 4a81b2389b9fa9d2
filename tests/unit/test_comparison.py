"""Comparison: fair pairs only, the right interval, and sweeps that lose no finished run."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from unittest import mock

import numpy as np
import pytest
from joblib import parallel_config
from scipy import stats

from lab_utils import comparison
from lab_utils.comparison import PairingError, paired_difference, sweep
from lab_utils.training import Settings


def record(method="lora", seed=0, loss=1.0, rate=1e-2, rank=8, **other):
    pairing = {"base": "b", "batches": f"batches {seed}", "lora_A": f"A {seed} {rank}"}
    settings = Settings(adapter_type=method, seed=seed, learning_rate=rate, rank=rank)
    losses = {"test_loss": loss, "validation_loss": loss}
    return vars(settings) | losses | {"pairing": pairing} | other


def runs(count=4, epochs=1):
    return [
        Settings(adapter_type=method, n_epochs=epochs, task="regression", seed=seed)
        for seed in range(count // 2)
        for method in ("lora", "dora")
    ]


def test_the_interval_is_students_t_of_the_differences():
    baseline = [record("lora", seed, loss) for seed, loss in enumerate((1.0, 2.0, 3.0, 4.5))]
    other = [record("dora", seed, loss) for seed, loss in enumerate((0.9, 1.7, 3.1, 4.0))]
    found = paired_difference(baseline, other)
    differences = np.array([-0.1, -0.3, 0.1, -0.5])
    expected = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(differences.mean())
    assert found.relative == pytest.approx(differences.mean() / 2.625)
    assert "The interval contains zero" in str(found)
    assert "do not show which" in str(found)


def test_the_interval_holds_the_true_difference_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits, repeats = 0, 400
    for _ in range(repeats):
        luck = rng.normal(size=5)  # of a seed, the same for both methods
        baseline = [record("lora", i, luck[i]) for i in range(5)]
        other = [record("dora", i, luck[i] + 0.3 + rng.normal() / 10) for i in range(5)]
        found = paired_difference(baseline, other)
        hits += found.low <= 0.3 <= found.high
    low, high = stats.binom.interval(0.999, repeats, 0.95)
    assert low <= hits <= high


@pytest.mark.parametrize(("sign", "lower"), [(-1, "DoRA"), (1, "LoRA")])
def test_the_sentence_names_the_method_that_ends_lower(sign, lower):
    baseline = [record("lora", seed, 2.0 + seed) for seed in range(3)]
    other = [record("dora", seed, 2.0 + seed + sign * (0.5 + seed / 100)) for seed in range(3)]
    assert f"{lower} ends lower than" in str(paired_difference(baseline, other))


@pytest.mark.parametrize("what", ["base", "batches", "lora_A"])
def test_a_wrong_pairing_is_refused(what):
    baseline = [record("lora", seed) for seed in range(3)]
    other = [record("dora", seed) for seed in range(3)]
    other[1]["pairing"][what] = "another"
    with pytest.raises(PairingError, match=f"seed 1 .* do not have the same {what}"):
        paired_difference(baseline, other)


def test_runs_of_two_devices_are_no_pairs():
    baseline = [record("lora", seed) for seed in range(3)]
    other = [record("dora", seed, device="cuda") for seed in range(3)]
    with pytest.raises(PairingError, match="do not have the same device"):
        paired_difference(baseline, other)
    for one in baseline:
        del one["device"]  # as records were before there was a choice
    paired_difference(baseline, [record("dora", seed) for seed in range(3)])


def test_other_seeds_are_refused():
    with pytest.raises(PairingError, match=r"the seeds are \[0, 1\] and \[0, 2\]"):
        paired_difference([record(seed=0), record(seed=1)], [record(seed=0), record(seed=2)])


def test_full_fine_tuning_has_no_lora_a_and_pairs_all_the_same():
    baseline = [record("lora", seed, seed) for seed in range(3)]
    other = [record("full", seed, seed - 1.0) for seed in range(3)]
    assert paired_difference(baseline, other).mean == -1.0


def test_one_pair_and_a_diverged_run_give_no_interval():
    with pytest.raises(ValueError, match="there are 1 pairs"):
        paired_difference([record()], [record("dora")])
    with pytest.raises(ValueError, match="a run diverged"):
        paired_difference(
            [record(seed=s) for s in (0, 1)], [record("dora", s, math.nan) for s in (0, 1)]
        )


def test_the_learning_rate_is_chosen_by_validation_and_never_by_test():
    records = [
        record(rate=rate, seed=seed, validation_loss=validation, test_loss=test)
        for rate, validation, test in ((1e-3, 2.0, 1.0), (1e-2, 1.0, 2.0), (1e-1, math.nan, 0.0))
        for seed in range(2)
    ]
    assert comparison.choose_learning_rate(records) == 1e-2
    with pytest.raises(ValueError, match="they must be the same for each"):
        comparison.choose_learning_rate(records[:-1])
    with pytest.raises(ValueError, match="every learning rate diverged"):
        comparison.choose_learning_rate(records[-2:])


def test_a_sweep_keeps_each_run_and_does_not_train_it_twice(tmp_path):
    path = tmp_path / "results.jsonl"
    first = sweep(runs(), path, n_jobs=2)
    assert [(r["adapter_type"], r["seed"]) for r in first] == [
        ("lora", 0),
        ("dora", 0),
        ("lora", 1),
        ("dora", 1),
    ]
    before = path.read_bytes()
    assert sweep(runs(), path, n_jobs=2) == first
    assert path.read_bytes() == before
    paired_difference(first[::2], first[1::2])


def test_an_interrupted_line_is_trained_again_and_the_others_are_not(tmp_path):
    path = tmp_path / "results.jsonl"
    first = sweep(runs(), path, n_jobs=1)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:100])
    again = sweep(runs(), path, n_jobs=1)
    assert path.read_bytes().splitlines(keepends=True)[:3] == lines[:3]
    assert [r["test_loss"] for r in again] == [r["test_loss"] for r in first]


def test_a_line_that_is_no_record_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match=r"results.jsonl, line 1 is not the record of a run"):
        sweep(runs(), path)


@dataclass(frozen=True, kw_only=True)
class MoreSettings(Settings):
    """Settings as a later version may have them."""

    label_smoothing: float = 0.0
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    hidden: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.hidden is None and self.rank:
            object.__setattr__(self, "hidden", 4 * self.rank)


def test_records_older_than_a_setting_have_its_default_and_are_not_trained_again(tmp_path):
    path = tmp_path / "results.jsonl"
    lines = [json.dumps(record("lora", seed, rank=4)) + "\n" for seed in range(2)]
    path.write_text("".join(lines))

    def new(seed, **settings):
        shared = {"adapter_type": "lora", "learning_rate": 1e-2, "rank": 4}
        return MoreSettings(seed=seed, **shared, **settings)

    def measure(run):
        assert run.label_smoothing == 0.5 or run.target_modules == ("k_proj",)
        return json.loads(json.dumps(asdict(run) | {"test_loss": 7.0}))

    wanted = [new(0), new(1), new(0, label_smoothing=0.5), new(0, target_modules=("k_proj",))]
    found = sweep(wanted, path, n_jobs=1, measure=measure)
    assert [r["test_loss"] for r in found] == [1.0, 1.0, 7.0, 7.0]
    assert found[0]["hidden"] == 16
    assert path.read_text().startswith("".join(lines)), "what was recorded is not rewritten"
    again = sweep(wanted, path, n_jobs=1, measure=lambda run: pytest.fail("trained again"))
    assert [r["test_loss"] for r in again] == [1.0, 1.0, 7.0, 7.0]


def test_every_committed_result_can_be_read_with_one_more_setting():
    names = ("head-to-head.jsonl", "weight-changes.jsonl", "rslora.jsonl")
    for name in names:
        path = comparison.RESULTS / name
        records = comparison.read_results(path, MoreSettings)
        assert len(records) == len(path.read_text("utf-8").splitlines())
        assert {r["label_smoothing"] for r in records} == {0.0}


@pytest.mark.parametrize("line", ['{"seed": 1}', "[1, 2]", "7", "null", '"lora"', "{", ""])
def test_whatever_is_no_record_is_named(line, tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(record()) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=r"results.jsonl, line 2 is not the record of a run"):
        comparison.read_results(path)


def test_a_method_without_a_drawn_lora_a_pairs_with_every_other():
    baseline = [record("lora", seed, seed) for seed in range(3)]
    other = [record("dora", seed, seed - 1.0) for seed in range(3)]
    for one in other:
        one["pairing"]["lora_A"] = None
    assert paired_difference(baseline, other).mean == -1.0


def test_a_run_that_fails_costs_no_other(tmp_path):
    path = tmp_path / "results.jsonl"
    wrong = Settings(adapter_type="lora", task="regression", n_epochs=1, rank=999)
    with pytest.raises(RuntimeError, match=r"1 of 3 runs failed; .*rank=999.*it must be from 1"):
        sweep([wrong, *runs(2)], path, n_jobs=1)
    assert len(comparison.read_results(path)) == 2


@pytest.mark.slow
def test_kill_and_call_again(tmp_path):
    """A sweep that is killed keeps what it finished, and the next call trains only the rest."""
    path = tmp_path / "results.jsonl"
    program = (
        "from lab_utils.comparison import sweep\n"
        "from lab_utils.training import Settings\n"
        "runs = [Settings(adapter_type='lora', task='regression', n_epochs=20, seed=seed)"
        " for seed in range(40)]\n"
        f"sweep(runs, {str(path)!r}, n_jobs=1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = path.read_bytes()
    finished = kept[: kept.rfind(b"\n") + 1]
    count = finished.count(b"\n")
    assert 2 <= count < 40
    wanted = [
        Settings(adapter_type="lora", task="regression", n_epochs=20, seed=seed)
        for seed in range(count + 1)
    ]
    assert len(sweep(wanted, path, n_jobs=1)) == count + 1
    assert path.read_bytes().startswith(finished)
    assert path.read_bytes().count(b"\n") == count + 1


@pytest.mark.slow
def test_the_same_sweep_on_a_dask_cluster(tmp_path):
    """A real scheduler and two worker processes give the numbers that this process gives."""
    from distributed import Client, LocalCluster

    here = sweep(runs(), tmp_path / "here.jsonl", n_jobs=1)
    with (
        mock.patch.dict(os.environ),  # which Dask changes for its workers, and leaves changed
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
        parallel_config(backend="dask"),
    ):
        there = sweep(runs(), tmp_path / "there.jsonl")
        assert len(client.scheduler_info()["workers"]) == 2
    for one, other in zip(here, there, strict=True):
        assert one["pairing"] == other["pairing"]
        assert one["test_loss"] == pytest.approx(other["test_loss"], rel=1e-5)


def test_records_are_json_and_say_what_made_them(tmp_path):
    path = tmp_path / "results.jsonl"
    sweep(runs(2, epochs=2), path, n_jobs=1)
    for line in path.read_text().splitlines():
        found = json.loads(line)
        assert found["made_with"].keys() == {"command", "python", "torch", "threads"}
        assert "magnitude_history" not in found
        assert len(found["gradient_norms"]) == 24


PROGRAM = """
from joblib import Parallel, delayed
from lab_utils.comparison import made_with

if __name__ == "__main__":
    records = [made_with(), *Parallel(n_jobs=2)(delayed(made_with)() for _ in range(2))]
    print(*{record["command"] for record in records})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("started", "command"),
    [
        (["-m", "measures.one"], "python -m measures.one --jobs 2"),
        pytest.param(["-m", "measures"], "python -m measures --jobs 2", marks=pytest.mark.slow),
        pytest.param(["measures/one.py"], "one.py --jobs 2", marks=pytest.mark.slow),
    ],
)
def test_a_worker_process_knows_how_the_program_was_started(started, command, tmp_path):
    (tmp_path / "measures").mkdir()
    for name in ("one", "__main__"):
        (tmp_path / "measures" / f"{name}.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, *started, "--jobs", "2"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=100,
    )
    assert done.stdout == f"{command}\n"


def test_an_interval_over_text_adds_the_spread_of_the_windows():
    windows = {"lora": [1.0, 2.0, 3.0, 4.0], "dora": [0.9, 1.8, 2.9, 3.6]}  # -0.1 -0.2 -0.1 -0.4
    lora, dora = (
        [record(method, seed) | {"window_losses": losses} for seed in range(3)]
        for method, losses in windows.items()
    )
    found = paired_difference(lora, dora, over_text=True)
    assert found.mean == pytest.approx(-0.2) and found.windows == 4
    assert "3 paired seeds, 4 windows" in str(found)
    # every seed has the same difference, so the spread is that of the windows: 0.1414 / sqrt(4)
    assert found.high - found.mean == pytest.approx(4.3027 * 0.1414 / 2, rel=1e-3)
    for run, shift in zip(dora, (-0.1, 0.0, 0.1), strict=True):
        run["window_losses"] = [loss + shift for loss in run["window_losses"]]
    wider = paired_difference(lora, dora, over_text=True)
    assert wider.mean == pytest.approx(-0.2)
    spread = math.hypot(0.1414 / 2, 0.1 / 3**0.5)
    assert wider.high - wider.mean == pytest.approx(4.3027 * spread, rel=1e-3)
