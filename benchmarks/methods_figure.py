"""The figure of the adaptation methods side by side: their loss curves, and maps of their latents."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.figures.style import GREY, INK, MARKERS, PALETTE

LOSSES = ("feature_loss", "image_loss", "adaptation_loss")


def draw_methods(
    rows: Sequence[Mapping[str, Any]],
    logs: Mapping[str, Sequence[Mapping[str, str]]],
    maps: Mapping[str, np.ndarray],
    centres: np.ndarray,
) -> Figure:
    """Draw the loss curves of all methods above a map of each one's latents.

    Args:
        rows: of the table.
        logs: rows of `log.csv` by method.
        maps: float array of shape (n, 2) by method.
        centres: str array of shape (n,), the centre of each point.
    """
    lines = -(-len(maps) // 3)
    figure = Figure(figsize=(11, 3.1 + 3.2 * min(lines, 2)), layout="constrained")
    curves, panels = figure.subfigures(2, 1, height_ratios=(3.1, 3.2 * lines))
    for axes, loss in zip(curves.subplots(1, len(LOSSES)), LOSSES, strict=True):
        for (method, log), color in zip(logs.items(), PALETTE, strict=False):
            values = np.array([(row["step"], row[loss]) for row in log], np.float64)
            values = values[values[:, 1] > 0]
            if len(values):
                axes.plot(*values.T, color=color, lw=1.6, label=method, marker="o" if len(values) < 3 else None)
        axes.set_yscale("log")
        if axes.lines:
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if loss != "adaptation_loss" else (1,), numticks=8))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        suffix = ", where above 0" if loss == "adaptation_loss" else ""
        axes.set_title(loss.replace("_", " ") + suffix, fontsize=11, loc="left", color=INK)
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e3e7eb", lw=0.8)
        axes.tick_params(labelsize=8, colors=INK)
    handles = {line.get_label(): line for axes in curves.axes for line in axes.lines}
    curves.legend(handles.values(), handles, loc="outside right upper", fontsize=9, frameon=False)
    told = {row["method"]: row["centre_accuracy"] for row in rows}
    names, numbers = np.unique(centres, return_counts=True)
    names = names[np.argsort(-numbers)].tolist()  # small centres on top of large ones
    grid = panels.subplots(lines, 3, squeeze=False).reshape(-1)
    for axes, (method, points) in zip(grid, maps.items(), strict=False):
        for at, name in enumerate(names):
            own = points[centres == name]
            color, marker = PALETTE[at % len(PALETTE)], MARKERS[at % len(MARKERS)]
            axes.scatter(*own.T, s=9, c=color, marker=marker, alpha=0.7, linewidths=0, label=name)
        axes.set_title(f"{method}: domain accuracy {told[method]:.2f}", fontsize=11, loc="left", color=INK)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(GREY)
    for axes in grid[len(maps) :]:
        axes.set_visible(False)
    handles, labels = grid[0].get_legend_handles_labels()
    title = f"chance {1 / len(names):.2f}"
    panels.legend(handles, labels, loc="outside right upper", fontsize=9, frameon=False, markerscale=2, title=title)
    return figure
