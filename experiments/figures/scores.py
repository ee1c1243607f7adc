"""Figures of predictions, for a printed page: confusions, recalls, maps, bottleneck sizes.

Text has 6 to 8 points at the size of the figure, except the numbers in crowded confusion matrices.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from experiments.figures.sheets import PAGE_HEIGHT, PAGE_WIDTH, text_width, wrap_text
from experiments.figures.style import GREY, INK, draw_map, group_style, map_legend, name_rows, style_axes, tint

TEXT_SIZE = 7.5  # points
SMALL_SIZE = 6.5
MAX_PANELS = 16

Interval = tuple[float, float, float]
# Cividis backwards with a paler light end: most cells are near 0, and a page of full colour hides the others.
_SHADES = np.linspace(0, 1, 256)
_CONFUSION_COLORS = ListedColormap([tint(colormaps["cividis"](1 - x), 0.9 * (1 - x) ** 2) for x in _SHADES])


def draw_confusions(confusions: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Draw confusion matrices as small panels; each cell is the percentage of its row, the true class.

    Percentages that round to 0 are not written. A class without a cell has a hatched row.

    Args:
        confusions: up to `MAX_PANELS`, by title, int array of shape (c, c), rows true, columns predicted.
        classes: the c names.
    """
    columns = min({4: 2, 5: 3, 6: 3, 9: 3}.get(len(confusions), 4), len(confusions))
    num_rows = -(-len(confusions) // columns)
    names = [name.replace("_", " ") for name in classes]
    # All in inches: of the names, of the bar with the label above it, between panels, and of a title.
    margin, bar, gap, head = 0.25 + max(text_width(name, SMALL_SIZE) for name in names), 0.55, 0.1, 0.3
    room = (PAGE_WIDTH - margin) / columns - gap, (PAGE_HEIGHT - margin - bar) / num_rows - head
    side = min(*room, max(1.2, 0.42 * len(names)), 3.2)
    size = max(2.2, margin + columns * (side + gap)), margin + bar + num_rows * (side + head)
    figure = Figure(figsize=size, layout="compressed")
    panels = figure.subplots(num_rows, columns, sharex=True, sharey=True, squeeze=False)
    for i, (axes, title) in enumerate(zip_longest(panels.flat, confusions)):
        if title is None:
            axes.remove()
            continue
        mesh = _draw_confusion(axes, confusions[title], 72 * side / len(classes))
        axes.set_title(wrap_text(title, side, TEXT_SIZE), fontsize=TEXT_SIZE, color=INK, pad=3)
        axes.tick_params(labelsize=SMALL_SIZE, length=0, pad=2, colors=INK, labelbottom=i + columns >= len(confusions))
        axes.tick_params("x", rotation=90)
    ticks = np.arange(len(names)) + 0.5
    panels[0, 0].set_xticks(ticks, names)
    panels[0, 0].set_yticks(ticks, names)
    panels[0, 0].invert_yaxis()
    figure.supxlabel("predicted class", fontsize=TEXT_SIZE, color=INK)
    figure.supylabel("true class", fontsize=TEXT_SIZE, color=INK)
    bar = figure.colorbar(mesh, ax=figure.axes, location="top", ticks=[0, 50, 100], shrink=0.4, aspect=30, pad=0.02)
    bar.set_label("% of true class", fontsize=SMALL_SIZE, color=INK)
    bar.ax.tick_params(labelsize=SMALL_SIZE, length=2, pad=1, colors=INK)
    bar.outline.set_visible(False)
    return figure


def draw_recall_intervals(recalls: Mapping[str, Mapping[str, Interval | None]], classes: Sequence[str]) -> Figure:
    """Draw the recall of each class and its interval, one marker for each method.

    Args:
        recalls: by method and class, (value, low, high), 0 to 1; a class without a value is left out or None.
        classes: in their order from above.
    """
    # Inches of a mark, and of a class.
    pitch = min(0.105, ((PAGE_HEIGHT - 0.85) / len(classes) - 0.13) / len(recalls))
    step = 0.13 + pitch * len(recalls)
    figure = Figure(figsize=(PAGE_WIDTH, 0.85 + len(classes) * step), layout="constrained")
    axes = figure.subplots()
    style_axes(axes, "x", TEXT_SIZE)
    for y in range(0, len(classes), 2):  # bands lead the eye from the name to the marks
        axes.axhspan(y - 0.5, y + 0.5, color="#f3f5f7", lw=0, zorder=0)
    for i, (method, of_class) in enumerate(recalls.items()):
        color, marker = group_style(i)
        found = [of_class.get(name) or (np.nan,) * 3 for name in classes]
        values, low, high = np.array(found, float).T
        y = np.arange(len(classes)) + (i - (len(recalls) - 1) / 2) * pitch / step
        reach = np.clip([values - low, high - values], 0, None)
        look = {"fmt": marker, "ms": 4.2, "lw": 1.0, "mew": 0.6, "color": color, "clip_on": False, "zorder": 3}
        axes.errorbar(values, y, xerr=reach, label=method, **look)
    axes.set_xlim(0, 1)
    name_rows(axes, classes)
    axes.set_xlabel("recall", fontsize=TEXT_SIZE)
    figure.legend(loc="outside upper left", ncols=min(len(recalls), 6), fontsize=TEXT_SIZE, frameon=False)
    return figure


def draw_before_after(
    before: np.ndarray,
    after: np.ndarray,
    centres: Sequence[str],
    types: Sequence[str],
    centre_order: Sequence[str],
    type_order: Sequence[str],
) -> Figure:
    """Draw the maps of the same cells before and after adaptation, by centre and by type (thesis Figure 3.14).

    Args:
        before, after: arrays of shape (n, 2).
        centres, types: of each cell, of shape (n,); no type, "", is drawn grey.
        centre_order, type_order: as the legend lists them.
    """
    figure = Figure(figsize=(PAGE_WIDTH, 5.5), layout="constrained")
    panels = figure.subplots(2, 2)
    size = float(np.clip(9000 / max(len(centres), 1), 0.6, 14))
    label = {"fontsize": TEXT_SIZE + 0.5, "color": INK}
    groupings = {"by centre": (centres, centre_order), "by type": (types, type_order)}
    for row, (grouping, (names, order)) in zip(panels, groupings.items(), strict=True):
        for axes, points in zip(row, (before, after), strict=True):
            looks = draw_map(axes, np.asarray(points), names, order, size)
        row[0].set_ylabel(grouping, **label)
        map_legend(row[1], looks, SMALL_SIZE + 0.5)
    panels[0, 0].set_title("Before adaptation", **label)
    panels[0, 1].set_title("After adaptation", **label)
    return figure


def draw_bottleneck_curves(accuracy: Mapping[str, Mapping[int, tuple[float, float]]]) -> Figure:
    """Draw accuracy over the size of the bottleneck, a curve for each variant (thesis Table 3.1).

    Args:
        accuracy: by variant, as "ResNet101-BB-SSIM", and size, which rises, (mean, standard deviation). The loss gives
            the hue, the crop ("BB") a strong colour and filled markers, the backbone dashes, backbone and loss the
            marker.
    """
    sizes = sorted({size for curve in accuracy.values() for size in curve})
    figure = Figure(figsize=(PAGE_WIDTH, 3.5), layout="constrained")
    axes = figure.subplots()
    style_axes(axes, "both", TEXT_SIZE)
    backbones = sorted({name.split("-")[0] for name in accuracy})  # ResNet101, which is solid, before ResNet50
    for name, curve in accuracy.items():
        means, deviations = np.array(list(curve.values()), float).T
        common = {"lw": 1.3, "ms": 4.5, "mew": 1.0, "elinewidth": 0.7, "label": name}
        axes.errorbar(curve.keys(), means, yerr=np.nan_to_num(deviations), **common, **_variant_look(name, backbones))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("bottleneck size (logarithmic)", fontsize=TEXT_SIZE)
    axes.set_ylabel("accuracy", fontsize=TEXT_SIZE)
    figure.legend(loc="outside right upper", fontsize=TEXT_SIZE, frameon=False, handlelength=3.2)
    return figure


def _draw_confusion(axes: Axes, confusion: np.ndarray, cell: float) -> QuadMesh:
    """Draw one matrix whose cells have sides of `cell` points; return what a colour bar needs."""
    count = len(confusion)
    totals = confusion.sum(axis=1, keepdims=True)
    percent = np.divide(100.0 * confusion, totals, where=totals > 0, out=np.full((count, count), np.nan))
    axes.patch.set(facecolor="#eef0f2", edgecolor="#c3cad1", hatch="//////")  # shows where a row is empty
    grid = {"edgecolors": "#e3e7eb", "linewidth": 0.25}
    mesh = axes.pcolormesh(np.ma.masked_invalid(percent), cmap=_CONFUSION_COLORS, vmin=0, vmax=100, **grid)
    axes.set_aspect("equal")
    axes.spines[:].set_color(GREY)
    axes.spines[:].set_linewidth(0.5)
    for row, column in np.argwhere(np.round(np.nan_to_num(percent)) > 0):
        text, ink = f"{percent[row, column]:.0f}", "white" if percent[row, column] > 62 else "black"
        # A digit is 0.64 of the size wide; two digits are the rule, so that "100" alone is smaller.
        size = min(TEXT_SIZE, 0.85 * cell / (0.64 * max(len(text), 2)))
        axes.text(column + 0.5, row + 0.53, text, ha="center", va="center", size=size, color=ink)
    return mesh


def _variant_look(name: str, backbones: Sequence[str]) -> dict[str, Any]:
    """How the curve of a variant looks, as keyword arguments of a line."""
    backbone, *_, loss = name.split("-")
    depth, perceptual, boxed = backbones.index(backbone), loss == "SSIM", "-BB-" in name
    strong, _ = group_style(0 if perceptual else 1)
    _, marker = group_style(2 * perceptual + depth)
    color = strong if boxed else tint(strong, 0.45)
    look = {"color": color, "linestyle": ("-", "--")[depth], "marker": marker}
    return look | {"markerfacecolor": color if boxed else "white"}
