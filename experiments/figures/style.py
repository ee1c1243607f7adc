"""Figures of a run: training curves, the cross-centre dots, maps of embeddings; and the look that all share.

Figures are made without pyplot, so that no global state of matplotlib changes and no display is needed.
"""

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.typing import ColorType

# Okabe and Ito 2008, "Color universal design": told apart by people with any kind of colour vision.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a800")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
GREY = "#9aa3ac"
INK = "#1b1f24"
MAX_VECTOR_POINTS = 5000  # of a map; a PDF of more is slow to open
MIN_MARKER_SIZE = 4.0  # square points; below it shapes are not told apart, and only make some groups paler
_ROUNDS = 24  # in which the groups of a map are laid over one another
PIXELS_PER_INCH = 200  # figures are laid out at 100 px for an inch of the page, so this is twice the page's size

Rows = Sequence[Mapping[str, str]]
# By title of the panel: the group of each point, and the groups in the order of the legend.
Groups = Mapping[str, tuple[Sequence[str], Sequence[str]]]


def to_png(figure: Figure) -> bytes:
    """Render a figure; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PIXELS_PER_INCH, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def draw_loss_curves(
    logs: Mapping[str, Rows], panels: Mapping[str, Sequence[str]], *, step_column: str = "step", log_scale: bool = False
) -> Figure:
    """Draw training curves, one panel for each group of columns.

    Args:
        logs: rows of each `log.csv` as from `csv.DictReader`, by the name that the legend gives it.
        panels: columns to draw, by the title of their panel. A "val_" column is drawn dashed.
        step_column: holds the x axis.
        log_scale: logarithmic y axis; values of 0 or below are left out.
    """
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    for axes, (title, columns) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        style_axes(axes)
        curves = [(log, rows, column) for log, rows in logs.items() for column in columns]
        for index, (log_name, rows, column) in enumerate(curves):
            for name, dashes in ((column, "-"), (f"val_{column}", "--")):
                steps, values = _series(rows, step_column, name, positive=log_scale)
                if len(steps):
                    named = [log_name] if len(logs) > 1 else []
                    named += [_nice(name)] if len(columns) > 1 or dashes == "--" else []
                    look = {"color": PALETTE[index % len(PALETTE)], "marker": "o" if len(steps) < 12 else None}
                    axes.plot(steps, values, dashes, ms=3.5, lw=1.6, label=", ".join(named) or _nice(name), **look)
        axes.set_title(title, fontsize=11, loc="left", color=INK)
        axes.set_xlabel(step_column)
        if not axes.lines:
            axes.text(0.5, 0.5, "no values", ha="center", va="center", transform=axes.transAxes, color=GREY)
            continue
        if log_scale:
            _log_axis(axes)
        else:
            axes.set_ylim(bottom=0)
        if len(axes.lines) > 1 and len(logs) == 1:
            # Room above the curves, which begin high at the left and lie low at the right.
            axes.set_ylim(top=axes.get_ylim()[1] * 1.25)
            axes.legend(fontsize=7, frameon=False, loc="upper right", ncols=1 + (len(axes.lines) > 4))
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    if len(logs) > 1 and lines:  # one legend for all panels: their lines are the same runs
        figure.legend(lines.values(), lines, loc="outside upper left", ncols=4, fontsize=9, frameon=False)
    return figure


def draw_score_dots(
    names: Sequence[str],
    scores: Mapping[str, Sequence[tuple[float, float] | None]],
    baseline: Sequence[float],
    *,
    xlabel: str,
) -> Figure:
    """Draw a score of several methods for each row of a table as dots with error bars.

    Args:
        names: of the rows.
        scores: by method, (mean, standard deviation) for each row, or None where the method has no value.
        baseline: for each row the score of the majority-class baseline, drawn as a tick.
        xlabel: what the score is.
    """
    figure = Figure(figsize=(8.6, 1.3 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots()
    style_axes(axes, "both")
    y = np.arange(len(names))
    axes.plot(baseline, y, "|", ms=16, mew=2, color=GREY, label="majority class")
    spread = np.linspace(-0.2, 0.2, len(scores)) if len(scores) > 1 else [0.0]
    for i, (method, values) in enumerate(scores.items()):
        rows = [k for k, value in enumerate(values) if value is not None]
        if rows:
            means, stds = np.array([values[k] for k in rows], float).T
            color, marker = group_style(i)
            axes.errorbar(means, y[rows] + spread[i], xerr=stds, fmt=marker, ms=6.5, lw=1.4, color=color, label=method)
    name_rows(axes, names)
    axes.set_xlim(0, 1)
    axes.set_xlabel(xlabel)
    figure.legend(loc="outside upper left", ncols=len(scores) + 1, fontsize=9, frameon=False)
    return figure


def draw_maps(points: np.ndarray, groups: Groups) -> Figure:
    """Draw a two-dimensional map, an array of shape (n, 2), coloured by one grouping after the other."""
    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    size = float(np.clip(9000 / max(len(points), 1), 7, 36))
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, (title, (names, order)) in zip(panels, groups.items(), strict=True):
        looks = draw_map(axes, points, names, order, size)
        axes.set_title(title, fontsize=11, loc="left", color=INK)
        map_legend(axes, looks, 8)
    return figure


def draw_map(
    axes: Axes, points: np.ndarray, names: Sequence[str], order: Sequence[str], size: float
) -> dict[str, tuple[str, str]]:
    """Draw points, an array of shape (n, 2), of `size` square points each, in the colours and markers of their groups.

    The groups are laid over one another in rounds, so that none hides the others by being drawn last; what has no name
    lies below them, grey. Small points are all round, and more than 5,000 are an image in a PDF. `order` is that in
    which groups take colours.

    Returns:
        Colour and marker of each group, for `map_legend`.
    """
    names = np.asarray(names, str)
    looks = {name: group_style(i) for i, name in enumerate(name for name in order if name)}
    if size < MIN_MARKER_SIZE:
        looks = {name: (color, "o") for name, (color, _) in looks.items()}
    common = {"s": size, "linewidths": 0, "rasterized": len(points) > MAX_VECTOR_POINTS}
    without = points[names == ""]
    axes.scatter(without[:, 0], without[:, 1], c=GREY, marker=".", alpha=0.5, **common)
    # Collections have one marker each, so that groups can only be mixed in rounds.
    rounds = np.random.default_rng(0).permutation(len(points)) % _ROUNDS
    for k, (name, (color, marker)) in itertools.product(range(_ROUNDS), looks.items()):
        chosen = points[(rounds == k) & (names == name)]
        if len(chosen):
            axes.scatter(chosen[:, 0], chosen[:, 1], c=color, marker=marker, alpha=0.8, **common)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#c3cad1")
    return looks | ({"": (GREY, ".")} if len(without) else {})


def map_legend(axes: Axes, looks: Mapping[str, tuple[str, str]], size: float) -> None:
    """Write the groups of a map at its right, in letters of `size` points."""
    handles = [
        Line2D([], [], lw=0, color=color, marker=marker, ms=4.5, mew=0, label=name.replace("_", " ") or "no type")
        for name, (color, marker) in looks.items()
    ]
    place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "handletextpad": 0.2}
    axes.legend(handles=handles, fontsize=size, frameon=False, **place)


def style_axes(axes: Axes, grid: Literal["x", "y", "both"] = "y", size: float = 9) -> None:
    """Give axes the look of all figures: two spines, pale lines behind the data, numbers of `size` points."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=size, colors=INK)
    axes.grid(axis=grid, color="#e3e7eb", lw=0.8)
    axes.set_axisbelow(True)


def group_style(index: int) -> tuple[str, str]:
    """The colour and the marker of the group that stands at `index` in a legend."""
    color = PALETTE[index % len(PALETTE)]
    if index < len(PALETTE):
        return color, MARKERS[index % len(MARKERS)]
    # Darker, and paired with other markers.
    return to_hex([0.62 * value for value in to_rgb(color)]), MARKERS[(index + 3) % len(MARKERS)]


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of axes whose y is 0 for the first, at the top."""
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params("y", length=0)


def tint(color: ColorType, share: float) -> tuple[float, float, float]:
    """Mix a colour with white, of which it then holds `share`, 0 to 1: (red, green, blue)."""
    red, green, blue = (share + (1 - share) * value for value in to_rgb(color))
    return red, green, blue


def choose_rows(num_rows: int, limit: int, seed: int) -> np.ndarray:
    """Choose at most `limit` rows at random: int64 array, increasing; the same for the same arguments."""
    if num_rows <= limit:
        return np.arange(num_rows)
    return np.sort(np.random.default_rng(seed).choice(num_rows, limit, replace=False))


def project(vectors: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """Lay vectors out in the plane by UMAP (McInnes et al. 2018), or by PCA where there are too few for it.

    Args:
        vectors: float array of shape (n, d).
        seed: UMAP's random state, which also keeps it on one thread, so that the map is the same every time.

    Returns:
        Float array of shape (n, 2), and the name of the method.
    """
    vectors = np.asarray(vectors, np.float32)
    if len(vectors) < 12:
        centred = vectors - vectors.mean(axis=0, keepdims=True) if len(vectors) else vectors
        left, singular, _ = np.linalg.svd(centred, full_matrices=False)
        return np.pad((left * singular)[:, :2], ((0, 0), (0, max(0, 2 - len(singular))))), "PCA"
    import umap  # here, since its compiler takes seconds to load

    layout = umap.UMAP(n_neighbors=min(15, len(vectors) - 1), random_state=seed, n_jobs=1, init="pca")
    return layout.fit_transform(vectors), "UMAP"


def _log_axis(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers, also where the values span less than a decade."""
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    axes.set_yscale("log")
    narrow = values.max() < 4 * values.min()
    axes.yaxis.set_major_locator(MaxNLocator(5) if narrow else LogLocator(subs=(1, 2, 5), numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _series(rows: Rows, step_column: str, column: str, *, positive: bool) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a column, without rows that lack it."""
    pairs = [(row[step_column], row[column]) for row in rows if row.get(column) and row.get(step_column)]
    values = np.array(pairs, np.float64).reshape(-1, 2)
    values = values[np.isfinite(values).all(axis=1) & (values[:, 1] > (0 if positive else -np.inf))]
    return values[:, 0], values[:, 1]


def _nice(column: str) -> str:
    """A loss column's name as people read it: val_mrcnn_bbox_loss -> held out: mrcnn bbox."""
    name = column.removeprefix("val_")
    shown = name if name == "loss" else name.removesuffix("_loss").replace("_", " ")
    return f"held out: {shown}" if name != column else shown
