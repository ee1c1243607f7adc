"""Matterport's plots and tables of how well a model does and what its weights look like."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from tabulate import tabulate


def plot_precision_recall(AP: float, precisions: np.ndarray, recalls: np.ndarray) -> None:  # noqa: N803
    """Draw a precision-recall curve on a new figure, from what `mrcnn.utils.compute_ap` gives."""
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(1)
    ax.set(title=f"Precision-Recall Curve. AP@50 = {AP:.3f}", xlabel="recall", ylabel="precision")
    ax.set(xlim=(0, 1.1), ylim=(0, 1.1))
    ax.plot(recalls, precisions)


def plot_overlaps(
    gt_class_ids: np.ndarray,
    pred_class_ids: np.ndarray,
    pred_scores: np.ndarray,
    overlaps: np.ndarray,
    class_names: Sequence[str],
    threshold: float = 0.5,
) -> None:
    """Draw the overlaps (num_detections, num_instances) of detections and ground truth as a grid on a new figure.

    Class ids of 0 are padding. From `threshold` on a cell says whether the classes agree.
    """
    import matplotlib.pyplot as plt

    gt_class_ids, pred_class_ids = (ids[ids != 0] for ids in map(np.asarray, (gt_class_ids, pred_class_ids)))
    _, ax = plt.subplots(figsize=(12, 10))
    if np.size(overlaps):  # matplotlib warns of images without pixels
        ax.imshow(overlaps, interpolation="nearest", cmap="Blues")
    rows = [f"{class_names[int(c)]} ({s:.2f})" for c, s in zip(pred_class_ids, pred_scores, strict=False)]
    ax.set_yticks(np.arange(len(rows)), rows)
    columns = [class_names[int(c)] for c in gt_class_ids]
    ax.set_xticks(np.arange(len(columns)), columns, rotation=90)
    darkest = np.max(overlaps, initial=0.0) / 2
    for i, j in np.ndindex(len(rows), len(columns)):
        overlap, note = overlaps[i, j], ""
        if overlap > threshold:
            note = "\nmatch" if gt_class_ids[j] == pred_class_ids[i] else "\nwrong"
        # White on dark cells; cells without any overlap step back.
        color = "white" if overlap > darkest else "black" if overlap > 0 else "grey"
        ax.text(j, i, f"{overlap:.3f}{note}", color=color, ha="center", va="center", fontsize=9)
    ax.set(xlabel="Ground Truth", ylabel="Predictions")
    ax.figure.tight_layout()


def display_table(table: Sequence[Sequence[Any]]) -> None:
    """Show rows of cells, the header included: as an HTML table in a notebook, else printed in columns."""
    ipython = sys.modules.get("IPython")  # which every notebook has imported
    if ipython is not None and ipython.get_ipython() is not None:
        from IPython.display import HTML, display

        display(HTML(tabulate(table, tablefmt="html", disable_numparse=True)))
    else:
        print(tabulate(table, tablefmt="plain", disable_numparse=True))


def display_weight_stats(model: Any) -> None:
    """Show minimum, maximum and standard deviation of each weight of a `mrcnn.model.MaskRCNN`.

    "*** dead?" marks a kernel whose values are all the same, "*** Overflow?" values beyond 1000.
    """
    table = [["WEIGHT NAME", "SHAPE", "MIN", "MAX", "STD"]]
    for layer in model.get_trainable_layers():
        for weight in layer.weights:
            values = np.asarray(weight)
            name = weight.name if "/" in weight.name else f"{layer.name}/{weight.name}"
            # Vectors are biases and scales, which start out alike.
            if values.ndim > 1 and values.size > 1 and values.min() == values.max():
                name += "*** dead?"
            if np.abs(values).max(initial=0.0) > 1000:  # a sign of training that runs away
                name += "*** Overflow?"
            spread = [f"{v:+10.4f}" for v in (values.min(), values.max(), values.std())] if values.size else [""] * 3
            table.append([name, str(values.shape), *spread])
    display_table(table)
