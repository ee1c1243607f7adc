"""Matterport's displays of images, detections and weights, with matplotlib."""

import colorsys
import random
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mrcnn.data.masks import unmold_mask
from mrcnn.matterport.plots import display_table, display_weight_stats, plot_overlaps, plot_precision_recall
from mrcnn.utils import compute_matches

__all__ = ["apply_mask", "display_differences", "display_images", "display_instances", "display_table"]
__all__ += ["display_top_masks", "display_weight_stats", "draw_box", "draw_boxes", "draw_rois"]
__all__ += ["plot_overlaps", "plot_precision_recall", "random_colors"]

Color = tuple[float, ...]
GROUND_TRUTH_COLOR: Color = (0.0, 1.0, 0.0, 0.8)
PREDICTION_COLOR: Color = (1.0, 0.0, 0.0, 1.0)


def random_colors(N: int, bright: bool = True) -> list[Color]:  # noqa: N803 (Matterport's argument name)
    """Return `N` RGB colours in [0, 1], spread over the hues, in a shuffled order that depends on N alone."""
    colors = [colorsys.hsv_to_rgb(i / max(1, N), 1.0, 1.0 if bright else 0.7) for i in range(N)]
    random.Random(N).shuffle(colors)
    return colors


def apply_mask(image: np.ndarray, mask: np.ndarray, color: Color, alpha: float = 0.5) -> np.ndarray:
    """Blend a colour, RGB in [0, 1], into the masked part of an image, in place, and return the image.

    The image is of shape (height, width, 3 or 4), 0 to 255; a fourth channel stays as it is. So does an alpha of the
    colour: `alpha` is its weight.
    """
    inside, colors = mask.astype(bool), image[..., :3]
    blended = colors[inside] * (1 - alpha) + alpha * 255 * np.asarray(color[:3])
    colors[inside] = blended.astype(image.dtype)
    return image


def draw_box(image: np.ndarray, box: np.ndarray, color: Sequence[int]) -> np.ndarray:
    """Draw the frame of a box, 2 px wide, on an image, in place, and return the image."""
    y1, x1, y2, x2 = (int(v) for v in box)
    image[y1 : y1 + 2, x1:x2] = image[y2 : y2 + 2, x1:x2] = color
    image[y1:y2, x1 : x1 + 2] = image[y1:y2, x2 : x2 + 2] = color
    return image


def _framed_axes(
    ax: Axes | None, image: np.ndarray, title: str, margin: int, size: tuple[float, float] = (12, 12)
) -> Axes:
    """Axes, new ones if there are none, with a margin around the image, rows growing downwards, and the title."""
    ax = plt.subplots(1, figsize=size)[1] if ax is None else ax
    ax.set(xlim=(-margin, image.shape[1] + margin), ylim=(image.shape[0] + margin, -margin), title=title)
    ax.axis("off")
    return ax


def _add_rectangle(ax: Axes, box: np.ndarray, **style: object) -> None:
    y1, x1, y2, x2 = box[:4]
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, linewidth=2, **style))


def _add_refined(ax: Axes, box: np.ndarray | None, refined_box: np.ndarray, color: Color | str) -> None:
    """Draw what a box was refined to, and join their first corners."""
    _add_rectangle(ax, refined_box, edgecolor=color)
    if box is not None:
        ax.plot([box[1], refined_box[1]], [box[0], refined_box[0]], color=color, scalex=False, scaley=False)


def _add_caption(ax: Axes, box: np.ndarray, text: str, fill: Color | str, alpha: float, **style: str) -> None:
    patch = {"facecolor": fill, "alpha": alpha, "pad": 2, "edgecolor": "none"}
    ax.text(box[1], box[0], text, size=11, bbox=patch, **style)


def _add_outline(ax: Axes, mask: np.ndarray, color: Color) -> None:
    if np.any(mask):  # matplotlib warns of contours that do not exist
        # A frame of zeros closes the outlines of masks that touch the border.
        rows, columns = (np.arange(-1, side + 1) for side in mask.shape)
        ax.contour(columns, rows, np.pad(mask.astype(float), 1), levels=[0.5], colors=[color])


def display_images(
    images: Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    cols: int = 4,
    cmap: str | None = None,
    norm: object = None,
    interpolation: str | None = None,
) -> None:
    """Show images side by side with matplotlib, `cols` in a row; the last three go to `imshow`."""
    rows = -(-len(images) // cols)
    plt.figure(figsize=(14, 14 * rows / cols))
    for i, image in enumerate(images):
        plt.subplot(rows, cols, i + 1)
        plt.title(titles[i] if titles and i < len(titles) else "", fontsize=9)
        plt.axis("off")
        image = np.asarray(image)
        if image.ndim == 3 and image.dtype.kind == "f" and image.max(initial=0.0) > 1.0:
            image = image.astype(np.uint8)  # matplotlib takes such colours for 0 to 1
        plt.imshow(image, cmap=cmap, norm=norm, interpolation=interpolation)
    plt.show()


def display_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    masks: np.ndarray,
    class_ids: np.ndarray,
    class_names: Sequence[str],
    scores: np.ndarray | None = None,
    title: str = "",
    figsize: tuple[float, float] = (16, 16),
    ax: Axes | None = None,
    show_mask: bool = True,
    show_bbox: bool = True,
    colors: Sequence[Color] | None = None,
    captions: Sequence[str] | None = None,
) -> None:
    """Draw instances as `detect` gives them; boxes of zeros are padding. A note is printed if there are none.

    Masks are outlined always, filled with `show_mask`. Without `ax` a figure is made and shown. `colors` are RGB in
    [0, 1] per instance; `captions` stand instead of class name and score. It is a ValueError if boxes, masks and
    class_ids differ in number.
    """
    num_instances = len(boxes)
    if num_instances == 0:
        print("\n*** No instances to display *** \n")
    elif not num_instances == masks.shape[-1] == len(class_ids):
        raise ValueError(f"got {num_instances} boxes, {masks.shape[-1]} masks and {len(class_ids)} class ids")
    auto_show = ax is None
    ax = _framed_axes(ax, image, title, 10, figsize)
    colors = random_colors(num_instances) if colors is None else colors
    picture = np.array(image, np.uint8)
    for i in range(num_instances):
        if not np.any(boxes[i]):
            continue  # padding
        if show_bbox:
            _add_rectangle(ax, boxes[i], edgecolor=colors[i], alpha=0.7, linestyle="dashed")
        caption = class_names[class_ids[i]] + (f" {scores[i]:.3f}" if scores is not None else "")
        caption = captions[i] if captions is not None and len(captions) else caption
        _add_caption(ax, boxes[i], caption, colors[i], 0.7, color="black", verticalalignment="bottom")
        if show_mask:
            picture = apply_mask(picture, masks[..., i], colors[i])
        _add_outline(ax, masks[..., i], colors[i])
    ax.imshow(picture)
    if auto_show:
        plt.show()


def display_differences(
    image: np.ndarray,
    gt_box: np.ndarray,
    gt_class_id: np.ndarray,
    gt_mask: np.ndarray,
    pred_box: np.ndarray,
    pred_class_id: np.ndarray,
    pred_score: np.ndarray,
    pred_mask: np.ndarray,
    class_names: Sequence[str],
    title: str = "",
    ax: Axes | None = None,
    show_mask: bool = True,
    show_box: bool = True,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.5,
) -> None:
    """Draw the ground truth in green and the detections in red; arguments as of `compute_matches`.

    The caption of a detection is its score and its overlap with the instance that it matches, or its largest with any.
    """
    truth, predicted = (gt_box, gt_class_id, gt_mask), (pred_box, pred_class_id, pred_score, pred_mask)
    gt_match, pred_match, overlaps = compute_matches(*truth, *predicted, iou_threshold, score_threshold)
    num_gt, num_pred = len(gt_match), len(pred_match)
    # compute_matches answers by falling score, and without padding.
    order = np.argsort(-np.asarray(pred_score)[:num_pred], kind="stable")
    captions = [""] * num_gt
    for matched, row, score in zip(pred_match, overlaps, np.asarray(pred_score)[order], strict=True):
        overlap = row[int(matched)] if matched > -1 else row.max(initial=0.0)
        captions.append(f"{score:.2f} / {overlap:.2f}")
    display_instances(
        image,
        np.concatenate([np.reshape(gt_box, (-1, 4))[:num_gt], np.reshape(pred_box, (-1, 4))[order]]),
        np.concatenate([gt_mask[..., :num_gt], pred_mask[..., order]], axis=-1),
        np.concatenate([np.asarray(gt_class_id)[:num_gt], np.asarray(pred_class_id)[order]]),
        class_names,
        np.concatenate([np.zeros(num_gt), np.asarray(pred_score)[order]]),
        title=title or "Ground truth (green) and detections (red)\ncaptions: score / IoU",
        ax=ax,
        show_mask=show_mask,
        show_bbox=show_box,
        colors=[GROUND_TRUTH_COLOR] * num_gt + [PREDICTION_COLOR] * num_pred,
        captions=captions,
    )


def display_top_masks(
    image: np.ndarray, mask: np.ndarray, class_ids: np.ndarray, class_names: Sequence[str], limit: int = 4
) -> None:
    """Show an image and, beside it, the masks `(height, width, num_instances)` of the `limit` largest classes."""
    class_ids = np.asarray(class_ids)
    areas = {int(c): int((mask[..., class_ids == c] != 0).sum()) for c in np.unique(class_ids)}
    top = sorted((c for c in areas if areas[c] > 0), key=lambda c: -areas[c])[:limit]
    images, titles = [image], [f"H x W={image.shape[0]}x{image.shape[1]}"]
    for class_id in top:
        members = mask[..., class_ids == class_id] != 0
        # Instances of a class differ in value, so that neighbours can be told apart.
        images.append((members * np.arange(1, members.shape[-1] + 1)).sum(axis=-1))
        titles.append(class_names[class_id])
    missing = limit - len(top)
    images += [np.zeros(image.shape[:2], int)] * missing
    display_images(images, titles + ["-"] * missing, cols=limit + 1, cmap="Blues_r")


def draw_rois(
    image: np.ndarray,
    rois: np.ndarray,
    refined_rois: np.ndarray,
    mask: np.ndarray,
    class_ids: np.ndarray,
    class_names: Sequence[str],
    limit: int = 10,
) -> None:
    """Draw RoIs (dashed, grey on background) and what they were refined to, and print how many are positive.

    RoIs are (num_rois, 4) in pixels, masks (num_rois, mask_height, mask_width) in the frame of the RoIs, class ids 0
    for background. Of more than `limit` a fixed random choice is drawn.
    """
    class_ids, count = np.asarray(class_ids), len(rois)
    chosen = np.random.default_rng(count).permutation(count)[:limit] if count > limit else np.arange(count)
    title = f"{count} ROIs" if count <= limit else f"Showing {limit} random ROIs out of {count}"
    ax = _framed_axes(None, image, title, 20)
    picture = np.array(image, np.uint8)
    for color, i in zip(random_colors(len(chosen)), chosen, strict=True):
        positive = class_ids[i] > 0
        _add_rectangle(ax, rois[i], edgecolor=color if positive else "gray", alpha=0.7, linestyle="dashed")
        if not positive:
            continue
        _add_refined(ax, rois[i], refined_rois[i], color)
        y1, x1 = refined_rois[i][:2]
        ax.text(x1, y1 + 8, class_names[class_ids[i]], color="w", size=11, backgroundcolor="none")
        picture = apply_mask(picture, unmold_mask(mask[i], np.asarray(rois[i])[:4].astype(int), image.shape), color)
    ax.imshow(picture)
    num_positive = int((class_ids > 0).sum())
    print("Positive ROIs: ", num_positive)
    print("Negative ROIs: ", count - num_positive)
    print(f"Positive Ratio: {num_positive / max(1, count):.2f}")


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray | None = None,
    refined_boxes: np.ndarray | None = None,
    masks: np.ndarray | None = None,
    captions: Sequence[str] | None = None,
    visibilities: Sequence[int] | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> None:
    """Draw boxes (num_boxes, 4) in pixels, what they were refined to, captions and masks; at least either boxes.

    `visibilities` are per box 0 (grey, dotted), 1 (coloured, dotted; where None) or 2 (coloured, solid).
    """
    count = len(refined_boxes if boxes is None else boxes)
    ax = _framed_axes(ax, image, title, image.shape[0] // 10)
    picture = np.array(image, np.uint8)
    for i, color in enumerate(random_colors(count)):
        visibility = 1 if visibilities is None else visibilities[i]
        edge, alpha = ("gray", 0.5) if visibility == 0 else (color, 1.0)
        anchor = None
        if boxes is not None:
            if not np.any(boxes[i]):
                continue  # padding
            anchor = boxes[i]
            style = "solid" if visibility == 2 else "dotted"
            _add_rectangle(ax, boxes[i], edgecolor=edge, alpha=alpha, linestyle=style)
        if refined_boxes is not None and visibility > 0:
            anchor = np.asarray(refined_boxes[i]).astype(int)
            _add_refined(ax, None if boxes is None else boxes[i], anchor, edge)
        if captions is not None and anchor is not None:
            _add_caption(ax, anchor, captions[i], edge, 0.5, color="w", verticalalignment="top")
        if masks is not None:
            picture = apply_mask(picture, masks[..., i], color)
            _add_outline(ax, masks[..., i], color)
    ax.imshow(picture)
