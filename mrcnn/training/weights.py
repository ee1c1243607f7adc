"""Weights by layer name: Matterport's and COCO's .h5 files, and ImageNet's, into our layers and back.

A load reports what matched, what is missing and what has another shape, and changes nothing unless it is accepted as
a whole: a network that was silently left at its random start looks like one that learns badly.
"""

import logging
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from mrcnn.config import Config
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import atomic_hdf5
from mrcnn.network.assembly import DetectorParts
from mrcnn.training import imagenet
from mrcnn.training.keras_h5 import StoredWeights, open_weights

logger = logging.getLogger(__name__)

MIN_MATCHED_SHARE = 0.9

# The proposal head is a model inside Matterport's model; its weights lie in this order.
RPN_MODEL = "rpn_model"
RPN_LAYERS = ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")

_BACKBONE_LAYER = re.compile(r"conv1|bn_conv1|(res|bn)[2-5][a-z]_branch(1|2[abc])")
_DETECTOR_LAYER = re.compile(r"(fpn|rpn|mrcnn)_.+")
# Names of Matterport's that may be excluded although no weights go by them.
_NO_WEIGHTS = {RPN_MODEL, "mrcnn_bbox", "mrcnn_class", "rpn_class_logits", "rpn_class", "rpn_bbox", "ROI"}


@dataclass
class LoadReport:
    """What a file gave to our layers, by their names."""

    path: Path
    matched: list[str] = field(default_factory=list)  # take their weights from it
    missing: list[str] = field(default_factory=list)  # it lacks them, or holds another kind of layer
    other_shape: list[str] = field(default_factory=list)  # it holds a weight of another shape
    excluded: list[str] = field(default_factory=list)  # were not to be loaded
    unused: list[str] = field(default_factory=list)  # only the file has them, under its names
    notes: list[str] = field(default_factory=list)  # what a reader should know beyond the names

    @property
    def share(self) -> float:
        """Share of the wanted layers that matched, 0 to 1; 0 if none was wanted."""
        return len(self.matched) / max(len(self.matched + self.missing + self.other_shape), 1)

    def _lines(self) -> list[str]:
        num_wanted = len(self.matched + self.missing + self.other_shape)
        parts = {
            "missing in the file": self.missing,
            "of another shape": self.other_shape,
            "excluded": self.excluded,
            "unused, only in the file": self.unused,
        }
        counts = f"{len(self.matched)} of {num_wanted} layers matched ({100 * self.share:.0f} %)"
        named = [f"{title} ({len(names)}): {_some(names)}" for title, names in parts.items() if names]
        return [f"{self.path}: {counts}", *named, *(f"note: {note}" for note in self.notes)]

    def __str__(self) -> str:
        return "\n  ".join(self._lines())

    def check(self) -> None:
        """Raise an InputError if a weight has another shape, or too few of the wanted layers match."""
        if self.other_shape:
            names = ", ".join(f'"{name}"' for name in self.other_shape)
            advice = f"leave those out with exclude=[{names}], or use the config that the file was made with"
        elif self.share < MIN_MATCHED_SHARE:
            advice = (
                f"at least {MIN_MATCHED_SHARE:.0%} must match: check BACKBONE and NORMALIZATION, or exclude the others"
            )
        else:
            return
        raise InputError("; ".join([*self._lines(), advice]))


def load_by_name(
    layers: Sequence[keras.layers.Layer], path: str | os.PathLike, exclude: Iterable[str] | None = ()
) -> LoadReport:
    """Load an .h5 file of Keras 2's layout into the layers of the same names.

    The file is a Matterport one (COCO's, or one trained with it), or a `keras.applications` ResNet, recognised by
    its layer names. Only the latter is converted, see `mrcnn.training.imagenet`: under Matterport's names there is no
    telling what the colours were, and a detector's are (R, G, B). A file without any layer of the pyramid or the heads
    counts as a backbone, and only our backbone's layers are expected in it.

    Args:
        layers: those with weights, under Matterport's names.
        path: the file.
        exclude: names of layers to leave as they are; "rpn_model" stands for the layers of the proposal head. When
            the classes differ: ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"].

    Returns:
        The report, which is also logged.

    Raises:
        InputError: if the file cannot be read, a weight has another shape, or less than nine tenths of the layers that
            are not excluded match. Nothing is changed.
    """
    path = Path(path)
    ours = {layer.name: layer for layer in layers if layer.weights}
    excluded = {exclude} if isinstance(exclude, str) else set(exclude or ())
    excluded |= set(RPN_LAYERS) if RPN_MODEL in excluded else set()
    excluded |= {imagenet.matterport_name(name) or name for name in excluded}
    with open_weights(path, lambda name: name in ours or imagenet.matterport_name(name) is not None) as stored:
        for name in sorted(excluded - set(ours) - set(stored.layer_names) - set(stored.shapes) - _NO_WEIGHTS):
            logger.warning("exclude names %r, a layer that neither the network nor %s has", name, path)
        if any("_preact_" in name for name in stored.shapes):
            raise InputError(f"{path}: a ResNet V2, whose blocks differ from ours; take the weights of ResNet V1")
        values, report = _read_matching(ours, stored, excluded)
    logger.info("%s", report)
    report.check()
    deeper = [name for name in report.unused if _BACKBONE_LAYER.fullmatch(imagenet.matterport_name(name) or name)]
    if deeper:
        logger.warning("%s: its backbone has blocks that ours lacks (%s): check BACKBONE", path, _some(deeper))
    for name, weights in values.items():
        for variable in ours[name].weights:
            variable.assign(weights[variable.name])
    return report


def _read_matching(
    ours: dict[str, keras.layers.Layer], stored: StoredWeights, excluded: set[str]
) -> tuple[dict[str, dict[str, np.ndarray]], LoadReport]:
    """Values for those of our layers, by name and kind, that the file holds as they are here, and the report."""
    is_keras = any(map(imagenet.matterport_name, stored.shapes))
    sources = {(imagenet.matterport_name(name) if is_keras else None) or name: name for name in stored.shapes}
    backbone_only = any(map(_BACKBONE_LAYER.fullmatch, sources)) and not any(map(_DETECTOR_LAYER.fullmatch, sources))
    report = LoadReport(stored.path, excluded=[name for name in ours if name in excluded])
    report.unused = [source for name, source in sources.items() if name not in ours]
    values, shapes = {}, []
    for name, layer in ours.items():
        if name in excluded or (backbone_only and not _BACKBONE_LAYER.fullmatch(name)):
            continue
        wanted = {variable.name: tuple(variable.shape) for variable in layer.weights}
        theirs = stored.shapes.get(sources.get(name, ""), {})
        if set(theirs) != set(wanted):
            report.missing.append(name)
            if theirs and not report.notes:
                report.notes.append(f"{name} has {', '.join(sorted(wanted))}, in the file {', '.join(sorted(theirs))}")
                if "moving_mean" in set(wanted) ^ set(theirs):
                    kind = "frozen_batch" if "moving_mean" in theirs else "group"
                    report.notes.append(f'set NORMALIZATION to "{kind}"')
            continue
        read = {kind: stored.read(sources[name], kind) for kind in theirs}
        read = imagenet.convert(name, read, layer) if is_keras else read
        differing = [f"{name}/{k} ours {wanted[k]}, file {read[k].shape}" for k in wanted if wanted[k] != read[k].shape]
        shapes += differing
        (report.other_shape if differing else report.matched).append(name)
        values[name] = read
    report.notes += [_some(shapes, 3)] * bool(shapes)
    if backbone_only:
        report.notes.append("the file holds a backbone alone; the layers of pyramid and heads stay as they are")
    return values, report


def save_matterport(layers: Sequence[keras.layers.Layer], path: str | os.PathLike) -> None:
    """Write weights as Matterport's `save_weights` does, for it or anything else to load by name.

    The three layers of the proposal head go into one inner model, "rpn_model". Values are float32.
    """
    by_name = {layer.name: layer for layer in layers if layer.weights}
    groups = {name: [layer] for name, layer in by_name.items() if name not in RPN_LAYERS}
    inner = [by_name[name] for name in RPN_LAYERS if name in by_name]
    groups |= {RPN_MODEL: inner} if inner else {}
    with atomic_hdf5(path) as file:
        # Fixed-length bytes as Keras 2 wrote them: it decodes what it reads, and variable-length text would be str.
        file.attrs["layer_names"] = np.array(list(groups), "S")
        file.attrs["backend"] = np.bytes_("tensorflow")
        file.attrs["keras_version"] = np.bytes_(keras.__version__)
        for group_name, members in groups.items():
            group = file.create_group(group_name)
            variables = {f"{layer.name}/{v.name}:0": v for layer in members for v in layer.weights}
            group.attrs["weight_names"] = np.array(list(variables), "S")
            for name, variable in variables.items():
                group.create_dataset(name, data=keras.ops.convert_to_numpy(variable).astype(np.float32)).flush()


def _some(names: Sequence[str], num_shown: int = 6) -> str:
    more = len(names) - num_shown
    return ", ".join(names[:num_shown]) + (f" and {more} more" if more > 0 else "")


# Matterport's short names for the layers that learn.
LAYER_PATTERNS = {
    "heads": r"(mrcnn|rpn|fpn)_.*",
    "3+": r"((res|bn)[345]|(mrcnn|rpn|fpn)_).*",
    "4+": r"((res|bn)[45]|(mrcnn|rpn|fpn)_).*",
    "5+": r"((res|bn)5|(mrcnn|rpn|fpn)_).*",
    "all": ".*",
}


def choose_layers(layers: Sequence[keras.layers.Layer], layer_regex: str) -> list[keras.layers.Layer]:
    """Let the layers learn whose whole name matches and freeze the others, those of nested models too.

    `layer_regex` is a regular expression, or one of `LAYER_PATTERNS`. Returns the layers with weights that learn.
    """
    try:
        pattern = re.compile(LAYER_PATTERNS.get(layer_regex, layer_regex))
    except re.error as error:
        raise InputError(f"layers {layer_regex!r}: not a regular expression ({error})") from None
    single = [leaf for layer in layers for leaf in _leaves(layer)]
    for layer in single:
        layer.trainable = pattern.fullmatch(layer.name) is not None
    return [layer for layer in single if layer.trainable and layer.weights]


def check_some_learn(layers: Sequence[keras.layers.Layer], layer_regex: str) -> None:
    """Refuse a choice under which nothing learns."""
    if not any(layer.trainable and layer.weights for layer in layers):
        raise InputError(
            f"layers {layer_regex!r}: no layer with weights has such a name; give heads, 3+, 4+, 5+, all or a regular "
            "expression over whole names"
        )


def _leaves(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    return [leaf for inner in layer.layers for leaf in _leaves(inner)] if isinstance(layer, keras.Model) else [layer]


def seeded_parts(config: Config) -> DetectorParts:
    """Build the parts with initial kernels that SEED and each layer's name fix, whatever the global random state."""
    parts = DetectorParts(config)
    for layer in parts.named_layers():
        if hasattr(layer, "kernel"):
            settings = layer.kernel_initializer.get_config()
            settings["seed"] = zlib.crc32(f"{config.SEED}/{layer.name}".encode())
            layer.kernel.assign(type(layer.kernel_initializer).from_config(settings)(layer.kernel.shape))
    return parts
