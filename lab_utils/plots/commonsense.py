"""Figures of lesson 06: accuracies on commonsense tasks."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from lab_utils.plots.style import COLOURS, NAMES, STYLE


def commonsense(summary: dict, rank: int) -> Figure:
    """Draw the accuracy of each commonsense task, and below it DoRA minus LoRA.

    Args:
        summary: from `lab_utils.commonsense.measurement.summarise`.
        rank: which of its ranks. Bars are standard errors over test rows above, and confidence
            intervals over paired seeds below.
    """
    columns = [*summary["tasks"], "average"]
    base = {"adapter_type": "frozen", **summary["zero_shot"]}
    rows = [base, *(row for row in summary["methods"] if row["rank"] == rank)]
    differences = [summary["differences"][rank][name] for name in columns]
    with plt.rc_context(STYLE):
        figure, (top, bottom) = plt.subplots(
            2, 1, figsize=(9, 5.4), sharex=True, height_ratios=[2, 1]
        )
        for i, row in enumerate(rows):
            accuracy = row["accuracy"] | {"average": row["average"]}
            error = row["standard_error"] | {"average": row["average_standard_error"]}
            top.bar(
                [x + 0.27 * (i - 1) for x in range(len(columns))],
                [100 * accuracy[name] for name in columns],
                0.25,
                yerr=[100 * error[name] for name in columns],
                color=COLOURS[row["adapter_type"]],
                label=NAMES.get(row["adapter_type"], "before training"),
            )
        means = [100 * d.mean for d in differences]
        ends = [100 * (d.high - d.mean) for d in differences]
        bottom.axhline(0, color="0.6", linewidth=1)
        bottom.errorbar(columns, means, ends, fmt="o", color=COLOURS["dora"], capsize=4)
        top.set(ylabel="accuracy (%)", ylim=(0, 100), title=f"rank {rank}")
        top.legend(loc="upper left", ncols=3, fontsize=9)
        bottom.set_ylabel("DoRA − LoRA\n(points)")
        bottom.set_xticks(range(len(columns)), [name.replace("_", "\n") for name in columns])
    return figure
