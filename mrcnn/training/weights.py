"""Weights by layer name: Matterport's and COCO's .h5 files, and ImageNet's, into our layers and back.

A load says what matched, what is missing and what has another shape, and changes nothing unless it is accepted as
a whole: a network that was silently left at its random start looks like one that learns badly.
"""

import logging
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from mrcnn.config import Config
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import atomic_hdf5
from mrcnn.network.assembly import DetectorParts
from mrcnn.training import imagenet
from mrcnn.training.keras_h5 import StoredWeights, has_keras2_layout

logger = logging.getLogger(__name__)

MIN_MATCHED_SHARE = 0.9

# The proposal head is a model inside Matterport's model; its weights lie in this order.
RPN_MODEL = "rpn_model"
RPN_LAYERS = ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")

_BACKBONE_LAYER = re.compile(r"conv1|bn_conv1|(res|bn)[2-5][a-z]_branch(1|2[abc])")
_DETECTOR_LAYER = re.compile(r"(fpn|rpn|mrcnn)_.+")
# Names of Matterport's that may be excluded although no weights go by them.
_NO_WEIGHTS = {RPN_MODEL, "mrcnn_bbox", "mrcnn_class", "rpn_class_logits", "rpn_class", "rpn_bbox", "ROI"}
_NUM_SHOWN = 6
_MAX_SUGGESTED = 12


@dataclass(frozen=True)
class LoadReport:
    """What a file gave to our layers; names are in the order of the layers.

    Attributes:
        path: the file.
        matched: our layers that take their weights from it.
        missing: our layers that it lacks, or holds as another kind of layer (then `notes` says so).
        other_shape: ("layer/weight", our shape, the file's).
        excluded: our layers that were not to be loaded.
        unused: layers with weights in the file that we have not, under the file's names.
        notes: what a reader should know beyond the names.
    """

    path: Path
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    other_shape: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    excluded: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def num_wanted(self) -> int:
        """How many layers were to be loaded."""
        return len(self.matched) + len(self.missing) + len(self.misshapen)

    @property
    def misshapen(self) -> tuple[str, ...]:
        """The layers of `other_shape`, each once."""
        return tuple(dict.fromkeys(weight.rpartition("/")[0] for weight, _, _ in self.other_shape))

    @property
    def share(self) -> float:
        """Share of the wanted layers that matched, 0 to 1; 0 if none was wanted."""
        return len(self.matched) / self.num_wanted if self.num_wanted else 0.0

    def __str__(self) -> str:
        lines = [f"{self.path}: {len(self.matched)} of {self.num_wanted} layers matched ({100 * self.share:.0f} %)"]
        shapes = [f"{weight} ours {ours}, file {theirs}" for weight, ours, theirs in self.other_shape]
        parts = {
            "missing in the file": self.missing,
            "of another shape": shapes,
            "excluded": self.excluded,
            "unused, only in the file": self.unused,
        }
        lines += [f"  {title} ({len(names)}): {_some(names)}" for title, names in parts.items() if names]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def load_by_name(
    layers: Sequence[keras.layers.Layer],
    path: str | os.PathLike,
    exclude: Iterable[str] | None = (),
    min_share: float = MIN_MATCHED_SHARE,
) -> LoadReport:
    """Load an .h5 file of Keras 2's layout into the layers of the same names.

    The file is a Matterport one (COCO's, or one trained with it), or a `keras.applications` ResNet, recognised by
    its layer names. Only the latter has its colours turned from (B, G, R) to ours and its epsilon folded in, see
    `mrcnn.training.imagenet`: under Matterport's names there is no telling what the colours were, and a detector's are
    (R, G, B). A file without any layer of the pyramid or the heads counts as a backbone, and only our backbone's
    layers are expected in it.

    Args:
        layers: those with weights, under Matterport's names.
        path: the file.
        exclude: names of layers to leave as they are; "rpn_model" stands for the layers of the proposal head. When
            the classes differ: ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"].
        min_share: fail if less than this share of the layers that are not excluded matches, 0 to 1.

    Returns:
        The report, which is also logged.

    Raises:
        InputError: if the file is missing, damaged, of another layout or unsafe; a weight has another shape; or
            too few layers match. No layer was changed then.
        ValueError: if two of the layers share a name.
    """
    path = Path(path)
    ours = _layers_by_name(layers)
    excluded = _excluded_names(exclude)
    with StoredWeights(path, lambda name: name in ours or imagenet.matterport_name(name) is not None) as stored:
        for name in sorted(excluded - set(ours) - set(stored.layer_names) - set(stored.shapes) - _NO_WEIGHTS):
            logger.warning("exclude names %r, a layer that neither the network nor %s has", name, path)
        is_keras = any(imagenet.matterport_name(name) for name in stored.shapes)
        if is_keras and any("_preact_" in name for name in stored.shapes):
            raise InputError(f"{path}: a ResNet V2, whose blocks differ from ours; take the weights of ResNet V1")
        sources = {(imagenet.matterport_name(name) if is_keras else None) or name: name for name in stored.shapes}
        report = _compare(ours, stored, sources, excluded, is_keras)
        logger.info("%s", report)
        _check(report, min_share)
        foreign = _foreign_blocks(report.unused)
        if foreign:
            logger.warning("%s: its backbone has blocks that ours lacks (%s): check BACKBONE", path, _some(foreign))
        values = {}
        for name in report.matched:
            source = sources[name]
            values[name] = {kind: stored.read(source, kind) for kind in stored.shapes[source]}
            if is_keras:
                values[name] = imagenet.convert(name, values[name], ours[name])
    for name, weights in values.items():
        for variable in ours[name].weights:
            variable.assign(weights[variable.name])
    return report


def save_matterport(layers: Sequence[keras.layers.Layer], path: str | os.PathLike) -> None:
    """Write weights as Matterport's `save_weights` does, for it or anything else to load by name.

    Args:
        layers: those with weights; the three of the proposal head go into one inner model, "rpn_model".
        path: an .h5 file, replaced when the new one is complete. Values are float32.

    Raises:
        ValueError: if two of the layers share a name.
    """
    groups: dict[str, list[keras.layers.Layer]] = {}
    for name, layer in _layers_by_name(layers).items():
        groups.setdefault(RPN_MODEL if name in RPN_LAYERS else name, []).append(layer)
    if RPN_MODEL in groups:
        groups[RPN_MODEL].sort(key=lambda layer: RPN_LAYERS.index(layer.name))
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


def is_matterport_file(path: str | os.PathLike) -> bool:
    """Tell whether `load_by_name` knows the layout of `path`: Matterport's, or `keras.applications`' .h5.

    Keras 3's own .weights.h5, and a file that is missing or cannot be read, give False.
    """
    return has_keras2_layout(path)


def _layers_by_name(layers: Sequence[keras.layers.Layer]) -> dict[str, keras.layers.Layer]:
    by_name = {layer.name: layer for layer in layers if layer.weights}
    if len(by_name) != sum(1 for layer in layers if layer.weights):
        raise ValueError("two layers share a name, so weights cannot be told apart by it")
    return by_name


def _excluded_names(exclude: Iterable[str] | None) -> set[str]:
    """The names as given, with what they stand for."""
    names = {exclude} if isinstance(exclude, str) else set(exclude or ())
    if RPN_MODEL in names:
        names.update(RPN_LAYERS)
    return names | {imagenet.matterport_name(name) or name for name in names}


def _compare(
    ours: dict[str, keras.layers.Layer],
    stored: StoredWeights,
    sources: dict[str, str],
    excluded: set[str],
    is_keras: bool,
) -> LoadReport:
    """Hold our layers against the file's; `sources` leads from our names to the file's."""
    backbone_only = any(_BACKBONE_LAYER.fullmatch(name) for name in sources) and not any(
        _DETECTOR_LAYER.fullmatch(name) for name in sources
    )
    matched, missing, other_shape, other_kind = [], [], [], {}
    for name, layer in ours.items():
        if name in excluded or (backbone_only and not _BACKBONE_LAYER.fullmatch(name)):
            continue
        shapes = {variable.name: tuple(variable.shape) for variable in layer.weights}
        theirs = stored.shapes.get(sources.get(name, ""))
        if theirs is None:
            missing.append(name)
        elif set(theirs) != set(shapes):
            missing.append(name)
            other_kind[name] = (set(shapes), set(theirs))
        else:
            if is_keras:
                theirs = {k: imagenet.converted_shape(name, k, shape, shapes[k]) for k, shape in theirs.items()}
            differing = [(f"{name}/{k}", shapes[k], theirs[k]) for k in shapes if shapes[k] != theirs[k]]
            other_shape += differing
            if not differing:
                matched.append(name)
    notes = _notes(other_kind)
    if backbone_only:
        notes.append("the file holds a backbone alone; the layers of pyramid and heads stay as they are")
    return LoadReport(
        path=stored.path,
        matched=tuple(matched),
        missing=tuple(missing),
        other_shape=tuple(other_shape),
        excluded=tuple(name for name in ours if name in excluded),
        unused=tuple(source for name, source in sources.items() if name not in ours),
        notes=tuple(notes),
    )


def _notes(other_kind: dict[str, tuple[set[str], set[str]]]) -> list[str]:
    """Say why layers that exist on both sides are not of the same kind; their weights' kinds, ours and the file's."""
    notes = []
    statistics = {"moving_mean", "moving_variance"}
    grouped = [name for name, (ours, theirs) in other_kind.items() if theirs - ours == statistics]
    batched = [name for name, (ours, theirs) in other_kind.items() if ours - theirs == statistics]
    others = [name for name in other_kind if name not in (*grouped, *batched)]
    if grouped:
        notes.append(
            f"{len(grouped)} GroupNorm layers cannot take the file's batch normalisation ({_some(grouped)}): "
            'set NORMALIZATION to "frozen_batch"'
        )
    if batched:
        notes.append(
            f"the file has no batch statistics for {len(batched)} layers ({_some(batched)}): if it was made with "
            'GroupNorm, set NORMALIZATION to "group"'
        )
    if others:
        ours, theirs = other_kind[others[0]]
        notes.append(
            f"{len(others)} layers have other weights ({_some(others)}): {others[0]} ours {', '.join(sorted(ours))}; "
            f"file {', '.join(sorted(theirs))}"
        )
    return notes


def _foreign_blocks(unused: Sequence[str]) -> list[str]:
    """Backbone layers among those that only the file has: it belongs to a deeper backbone."""
    return [name for name in unused if _BACKBONE_LAYER.fullmatch(imagenet.matterport_name(name) or name)]


def _check(report: LoadReport, min_share: float) -> None:
    """Raise what keeps a load from being accepted."""
    if report.other_shape:
        shapes = [f"{weight} ours {ours}, file {theirs}" for weight, ours, theirs in report.other_shape]
        layers = report.misshapen
        advice = "use the config that the file was made with"
        if len(layers) <= _MAX_SUGGESTED:
            names = ", ".join(f'"{name}"' for name in layers)
            advice = f"leave them out with exclude=[{names}] or {advice}"
        raise InputError(f"{report.path}: {len(layers)} layers have another shape ({_some(shapes, 3)}); {advice}")
    if not report.num_wanted and min_share > 0:
        raise InputError(f"{report.path}: nothing to load, since exclude leaves no layer that it could hold")
    if report.share < min_share:
        raise InputError(
            f"{report.path}: only {len(report.matched)} of {report.num_wanted} layers matched "
            f"({100 * report.share:.1f} %, at least {100 * min_share:.0f} % needed); missing: {_some(report.missing)}; "
            + "".join(f"{note}; " for note in report.notes)
            + "check BACKBONE and NORMALIZATION, or name what is not to be loaded in exclude"
        )


def _some(names: Sequence[str], num_shown: int = _NUM_SHOWN) -> str:
    more = len(names) - num_shown
    return ", ".join(names[:num_shown]) + (f" and {more} more" if more > 0 else "")


# Matterport's short names for "which layers learn".
LAYER_PATTERNS = {
    "heads": r"(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "3+": r"(res3.*)|(bn3.*)|(res4.*)|(bn4.*)|(res5.*)|(bn5.*)|(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "4+": r"(res4.*)|(bn4.*)|(res5.*)|(bn5.*)|(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "5+": r"(res5.*)|(bn5.*)|(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "all": ".*",
}


def choose_layers(layers: Sequence[keras.layers.Layer], layer_regex: str) -> Iterator[keras.layers.Layer]:
    """Let the layers learn whose whole name matches and freeze the others, those of nested models too.

    Args:
        layers: to choose among.
        layer_regex: a regular expression over names, or one of `LAYER_PATTERNS`.

    Returns:
        The layers with weights that learn; all are set before the first is given.

    Raises:
        InputError: if it is no regular expression.
    """
    try:
        pattern = re.compile(LAYER_PATTERNS.get(layer_regex, layer_regex))
    except re.error as error:
        raise InputError(f"layers {layer_regex!r}: not a regular expression ({error})") from None
    single = list(_without_models(layers))
    for layer in single:
        layer.trainable = pattern.fullmatch(layer.name) is not None
    return (layer for layer in single if layer.trainable and layer.weights)


def check_some_learn(layers: Sequence[keras.layers.Layer], layer_regex: str) -> None:
    """Refuse a choice under which nothing learns.

    Raises:
        InputError: if none of the layers has weights that learn.
    """
    if not any(layer.trainable and layer.weights for layer in layers):
        raise InputError(
            f"layers {layer_regex!r}: no layer with weights has such a name; give heads, 3+, 4+, 5+, all or a regular "
            "expression over whole names"
        )


def _without_models(layers: Sequence[keras.layers.Layer]) -> Iterator[keras.layers.Layer]:
    for layer in layers:
        if isinstance(layer, keras.Model):
            yield from _without_models(layer.layers)
        else:
            yield layer


def seeded_parts(config: Config) -> DetectorParts:
    """Build the parts with initial kernels that SEED and each layer's name fix, whatever the global random state."""
    parts = DetectorParts(config)
    for layer in parts.named_layers():
        if hasattr(layer, "kernel"):
            settings = layer.kernel_initializer.get_config()
            settings["seed"] = zlib.crc32(f"{config.SEED}/{layer.name}".encode())
            layer.kernel.assign(type(layer.kernel_initializer).from_config(settings)(layer.kernel.shape))
    return parts
