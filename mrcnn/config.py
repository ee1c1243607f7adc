"""The detector's settings: subclass `Config` and override what differs.

The names and defaults up to `LOSS_WEIGHTS` are those of Matterport's Mask R-CNN, whose users know them. What follows
is this package's own; its defaults leave Matterport's behaviour as it was. Beside each name stands what it may be;
the largest values, far beyond what anybody trains, keep memory from filling.
"""

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, WrapValidator, create_model, model_validator
from typing_extensions import Self

from mrcnn.files.settings import Settings

RESIZE_MODES = ("square", "pad64", "crop", "none")
NORMALIZATIONS = ("frozen_batch", "batch", "group")
ROI_ALIGNS = ("matterport", "paper")
# Wu & He 2018 use 32 groups throughout.
NUM_GROUPS = 32
# A mask is so many times as fine as the RoI features that it is drawn from.
MASK_FACTORS = (2, 4)
_STRIDES = (4, 8, 16, 32, 64)
_LEVELS = ("P2", "P3", "P4", "P5", "P6")
_LOSSES = ("rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss")
_MAX_SIDE = 2**14  # pixels


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _ceiling(value: Any) -> Any:
    """Scripts divide for the number of steps."""
    return math.ceil(value) if isinstance(value, float) and math.isfinite(value) else value


def _flag(value: Any) -> Any:
    return bool(value) if type(value) is int and value in (0, 1) else value


def _as_given(value: Any, check: Any) -> Any:
    """A whole number stays one, so that the files of a detector, and its hash, stay as they were."""
    checked = check(value)
    return value if type(value) is int else checked


def _or_none(kind: Any) -> Any:
    """None stands for none, and so does False, which Matterport's code takes for it."""
    return Annotated[kind | None, BeforeValidator(lambda value: None if value is False else value)]


def _count(least: int, most: int, convert: Any = _whole) -> Any:
    return Annotated[int, BeforeValidator(convert), Field(ge=least, le=most)]


def _number(**bounds: float) -> Any:
    return Annotated[float, Field(**bounds), WrapValidator(_as_given)]


def _row(*kinds: Any, **bounds: int) -> Any:
    """A tuple of these types; files hold lists."""
    return Annotated[tuple[kinds], Field(strict=False, **bounds)]


_Share = _number(ge=0, le=1)
_Flag = Annotated[bool, BeforeValidator(_flag)]
_Pixels = _number(gt=0, le=_MAX_SIDE)
_Part = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
_Sides = _row(_count(1, _MAX_SIDE), _count(1, _MAX_SIDE))
_Channels = Annotated[_row(_number(), ...), BeforeValidator(lambda v: v if isinstance(v, list) else [v])]


class Config:
    """Base settings. Class attributes hold the values; an instance checks them and adds what follows.

    Instance attributes:
        BATCH_SIZE: images in a training step over all devices.
        IMAGE_SHAPE: array [height, width, channels] of the network's input.
        IMAGE_META_SIZE: length of Matterport's image meta vector.

    Raises:
        InputError: naming every attribute that cannot be.
    """

    # Name of the configuration; trained models carry it in their folder's name.
    NAME: Annotated[str, Field(pattern=r"^[^\n\r]*$")] | None = None

    # Devices, and images that each of them takes in a training step.
    GPU_COUNT: _count(1, 10_000) = 1
    IMAGES_PER_GPU: _count(1, 100_000) = 2

    # Training steps in an epoch, and validation steps after it (0: none).
    STEPS_PER_EPOCH: _count(1, 10**9, _ceiling) = 1000
    VALIDATION_STEPS: _count(0, 10**9, _ceiling) = 50

    # The backbone, and the strides of the pyramid on it.
    BACKBONE: Literal["resnet50", "resnet101", "small"] = "resnet101"
    BACKBONE_STRIDES: _row(int, ...) = _STRIDES
    # Width of the two hidden layers of the box head, and channels of each pyramid level.
    FPN_CLASSIF_FC_LAYERS_SIZE: _count(1, 2**15) = 1024
    TOP_DOWN_PYRAMID_SIZE: _count(1, 2**12) = 256

    # Classes, the background included.
    NUM_CLASSES: _count(1, 10_000) = 1

    # Side in pixels of the square anchor of each level, the finest first (levels after the last have no anchors); width
    # / height of each; 2 skips every second position.
    RPN_ANCHOR_SCALES: _row(_Pixels, ...) = (32, 64, 128, 256, 512)
    RPN_ANCHOR_RATIOS: _row(_Pixels, ..., min_length=1, max_length=64) = (0.5, 1, 2)
    RPN_ANCHOR_STRIDE: _count(1, 64) = 1
    # Overlap above which the weaker of two proposals goes.
    RPN_NMS_THRESHOLD: _Share = 0.7
    RPN_TRAIN_ANCHORS_PER_IMAGE: _count(1, 10**6) = 256
    # Anchors that enter the suppression, and proposals that leave it.
    PRE_NMS_LIMIT: _count(1, 10**6) = 6000
    POST_NMS_ROIS_TRAINING: _count(1, 10**5) = 2000
    POST_NMS_ROIS_INFERENCE: _count(1, 10**5) = 1000

    # Keep masks as small arrays over their box: saves memory with little loss.
    USE_MINI_MASK: _Flag = True
    MINI_MASK_SHAPE: _Sides = (56, 56)

    # "square": scale the shorter side up to MIN_DIM, never the longer beyond MAX_DIM, pad to MAX_DIM x MAX_DIM.
    # "pad64": scale the shorter side up to MIN_DIM (a multiple of 64, or 0), pad both to the next multiple of 64.
    # "crop": train on random crops of MIN_DIM x MIN_DIM of the scaled image; detection works as in "pad64".
    # "none": take images as they are; their sides must be multiples of 64.
    IMAGE_RESIZE_MODE: Literal[RESIZE_MODES] = "square"
    IMAGE_MIN_DIM: _or_none(_count(0, _MAX_SIDE)) = 800
    IMAGE_MAX_DIM: _or_none(_count(0, _MAX_SIDE)) = 1024
    # Least factor that images are enlarged by; 0 sets no least.
    IMAGE_MIN_SCALE: _or_none(_number(ge=0, le=1000)) = 0
    # 3 for RGB, 1 for greyscale; colour images turn grey and grey ones are repeated where they have the other number.
    # Another number is for images that have just so many.
    IMAGE_CHANNEL_COUNT: _count(1, 1024) = 3
    # Subtracted from the image, one value for each channel, RGB.
    MEAN_PIXEL: _Channels = (123.7, 116.8, 103.9)

    # RoIs that the heads see in each training image, and the largest share of positives among them.
    TRAIN_ROIS_PER_IMAGE: _count(1, 10**5) = 200
    ROI_POSITIVE_RATIO: _number(gt=0, le=1) = 0.33
    # Bins of RoIAlign for the box head and for the mask head; size of a mask.
    POOL_SIZE: _count(1, 56) = 7
    MASK_POOL_SIZE: _count(1, 112) = 14
    MASK_SHAPE: _Sides = (28, 28)
    # Ground-truth cells used in one image.
    MAX_GT_INSTANCES: _count(1, 10**5) = 100
    # Spread of the box deltas, which the networks learn in these units.
    RPN_BBOX_STD_DEV: _row(*[_Pixels] * 4) = (0.1, 0.1, 0.2, 0.2)
    BBOX_STD_DEV: _row(*[_Pixels] * 4) = (0.1, 0.1, 0.2, 0.2)

    # Final detections: how many, from which score on, and the overlap above which the weaker goes.
    DETECTION_MAX_INSTANCES: _count(1, 10**5) = 100
    DETECTION_MIN_CONFIDENCE: _Share = 0.7
    DETECTION_NMS_THRESHOLD: _Share = 0.3

    LEARNING_RATE: _number(ge=0, le=100) = 0.001
    LEARNING_MOMENTUM: _Share = 0.9
    WEIGHT_DECAY: _number(ge=0, le=100) = 0.0001
    # False freezes the BatchNorm statistics; True and None train them. NORMALIZATION below overrides it.
    TRAIN_BN: _Flag | None = False
    GRADIENT_CLIP_NORM: _or_none(_number(ge=0, le=10**12)) = 5.0
    # Take the heads' RoIs from the proposals; training refuses False (Matterport's random boxes).
    USE_RPN_ROIS: _Flag = True
    LOSS_WEIGHTS: dict[Literal[_LOSSES], _number(ge=0, le=10**12)] = dict.fromkeys(_LOSSES, 1.0)

    # --- What Matterport's has not; these defaults leave its behaviour as it was ---
    # Levels of the pyramid that anchors lie on. Each left out saves time, P2 most. An instance whose RPN_ANCHOR_SCALES
    # are fewer has the levels that they are for.
    RPN_LEVELS: _row(Literal[_LEVELS], ...) = _LEVELS
    # What the mask head draws of each instance: the whole, named first, and parts of it, for which a Dataset has
    # `load_parts`. A detection of which no nucleus is seen loses its score.
    MASK_PARTS: _row(_Part, ..., min_length=1, max_length=8) = ("cell",)
    # Channels of the mask head's 3x3 convolutions at the size of its input; None: four of TOP_DOWN_PYRAMID_SIZE.
    MASK_CONV_CHANNELS: _or_none(_row(_count(1, 2**12), ..., min_length=1, max_length=16)) = None
    # Channels of the proposal head, and those that the levels of the pyramid are merged in before a 1x1 convolution
    # brings each to TOP_DOWN_PYRAMID_SIZE (None: in that many, without it).
    RPN_CHANNELS: _count(1, 2**12) = 512
    PYRAMID_HIDDEN_SIZE: _or_none(_count(1, 2**12)) = None
    # "matterport": RoIAlign samples a grid whose outer points lie on the box, from the level nearest to the box's size.
    # "paper": it samples the centres of bins, from the level that the floor of eq. 1 of the FPN paper gives.
    # Weights want the one that they were trained with.
    ROI_ALIGN: Literal[ROI_ALIGNS] = "matterport"
    # How the first pooling pads: "same", as Matterport's, or "symmetric", as the ResNets of `keras.applications`.
    STEM_PADDING: Literal["same", "symmetric"] = "same"

    # --- Training from scratch ---
    # None follows TRAIN_BN.
    NORMALIZATION: Literal[NORMALIZATIONS] | None = None
    # "sgd" has LEARNING_MOMENTUM; GRADIENT_CLIP_NORM bounds the norm of all gradients together.
    OPTIMIZER: Literal["sgd", "adam"] = "sgd"
    # Steps over which the learning rate rises from 0.
    LEARNING_RATE_WARMUP_STEPS: _count(0, 10**12) = 0
    # After this share of the steps the learning rate is multiplied by the factor; 1.0 never does.
    LEARNING_RATE_DROP_AFTER: _Share = 1.0
    LEARNING_RATE_DROP_FACTOR: _number(ge=0, le=100) = 0.2
    # Add the ground-truth boxes to the proposals in training: heads see positives before the proposals are good.
    TRAIN_ON_GT_BOXES: _Flag = False
    # Learn from images without instances too, as background. False takes another image in their place.
    TRAIN_ON_EMPTY_IMAGES: _Flag = False
    # "thesis" are the five augmentations of 2.4.2, "strong" and "wide" classes of `mrcnn.data.augmentation`; share of
    # the samples that are augmented.
    AUGMENTATION: Literal["none", "thesis", "strong", "wide"] = "none"
    AUGMENTATION_SHARE: _Share = 0.5
    # Least and largest zoom of "strong": cells of other centres may be smaller or larger in the image.
    AUGMENTATION_ZOOM: _row(_Pixels, _Pixels) = (0.35, 1.1)
    # Least ratio of an image's sides after "strong" has cut half of the samples, in mode "square": a detector that
    # never saw the black padding of images that are not square finds cells along it. 1 cuts nothing.
    AUGMENTATION_LEAST_RATIO: _number(ge=0.1, le=1) = 0.6
    # Share of the training samples that are four images laid together, in mode "square".
    AUGMENTATION_MOSAIC_SHARE: _Share = 0.0
    # Fixes initial weights, order of images, augmentation and sampling.
    SEED: _count(0, 2**32 - 1) = 0

    def __init__(self) -> None:
        _Checked.from_dict({name: _plain(getattr(self, name)) for name in _Checked.model_fields})
        self.BATCH_SIZE = self.IMAGES_PER_GPU * self.GPU_COUNT
        side = self.IMAGE_MIN_DIM if self.IMAGE_RESIZE_MODE == "crop" else self.IMAGE_MAX_DIM
        self.IMAGE_SHAPE = np.array([side or 0, side or 0, self.IMAGE_CHANNEL_COUNT])
        self.RPN_LEVELS = tuple(self.RPN_LEVELS)[: len(self.RPN_ANCHOR_SCALES)]
        self.IMAGE_META_SIZE = 1 + 3 + 3 + 4 + 1 + self.NUM_CLASSES
        # Arrays, as scripts compute with them.
        for name in ("MEAN_PIXEL", "RPN_BBOX_STD_DEV", "BBOX_STD_DEV"):
            setattr(self, name, np.array(getattr(self, name), np.float64).reshape(-1))

    @property
    def normalization(self) -> str:
        """The normalisation in force: NORMALIZATION, or what TRAIN_BN says."""
        return self.NORMALIZATION or ("batch" if self.TRAIN_BN is None or self.TRAIN_BN else "frozen_batch")

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, in the order of the class, as JSON can hold it; a subclass' paths and such as text."""
        return {name: _plain(getattr(self, name)) for name in _setting_names(type(self))}

    def display(self) -> None:
        """Print every value."""
        print("\nConfigurations:")
        computed = {name: _plain(value) for name, value in vars(self).items()}
        for name, value in sorted({**self.to_dict(), **computed}.items()):
            print(f"{name:30} {value}")
        print()


class SmearConfig(Config):
    """White blood cells in smears, trained from scratch as in the thesis (3.2).

    GroupNorm stands for the pretrained weights that cells seldom have (He et al. 2018). What cells do not need is left
    out, as measured in `docs/speed.md`: larger images, the finest and coarsest anchors, more than fifty proposals. The
    thesis' own ResNet-101 at 1024 px is in `experiments/configs/thesis.yaml`.
    """

    NAME = "smear"
    NUM_CLASSES = 1 + 1
    BACKBONE = "resnet50"
    NORMALIZATION = "group"
    OPTIMIZER = "adam"
    AUGMENTATION = "thesis"
    IMAGE_MIN_DIM = 256
    IMAGE_MAX_DIM = 256
    RPN_LEVELS = ("P3", "P4", "P5")
    # Of P2 to P6; cells are 30 to 220 px large in an image of 256.
    RPN_ANCHOR_SCALES = (24, 48, 96, 176, 256)
    PRE_NMS_LIMIT = 1000
    POST_NMS_ROIS_TRAINING = 200
    POST_NMS_ROIS_INFERENCE = 50
    TRAIN_ROIS_PER_IMAGE = 32
    MAX_GT_INSTANCES = 50
    DETECTION_MAX_INSTANCES = 50
    TRAIN_ON_GT_BOXES = True
    TRAIN_ON_EMPTY_IMAGES = True
    ROI_ALIGN = "paper"


class SmallSmearConfig(SmearConfig):
    """White blood cells and their nuclei, by a network for laptops, see `mrcnn.network.backbone.small_resnet`.

    It sees images of 160 px, gives the same RoI features as the others, and has a ninth of the weights of ResNet-50's.
    """

    NAME = "smear-small"
    BACKBONE = "small"
    PYRAMID_HIDDEN_SIZE = 96
    RPN_CHANNELS = 128
    FPN_CLASSIF_FC_LAYERS_SIZE = 128
    MASK_PARTS = ("cell", "nucleus")
    MASK_CONV_CHANNELS = (64, 64)
    MASK_SHAPE = (56, 56)
    IMAGE_MIN_DIM = 160
    IMAGE_MAX_DIM = 160
    # Cells are 20 to 140 px large in an image of 160.
    RPN_ANCHOR_SCALES = (16, 32, 64, 112, 160)
    AUGMENTATION = "wide"
    AUGMENTATION_SHARE = 0.9
    AUGMENTATION_MOSAIC_SHARE = 0.4
    POST_NMS_ROIS_TRAINING = 100
    POST_NMS_ROIS_INFERENCE = 30
    TRAIN_ROIS_PER_IMAGE = 16
    ROI_POSITIVE_RATIO = 0.25
    MAX_GT_INSTANCES = 20
    DETECTION_MAX_INSTANCES = 20


def make_config(overrides: dict[str, Any], base: type[Config] = SmearConfig, *, keep_unknown: bool = False) -> Config:
    """Make a configuration from a dictionary, as read from YAML or JSON.

    Args:
        overrides: setting -> value; lists stand for tuples.
        base: class that gives the rest.
        keep_unknown: take settings that `base` does not know as they are: what a subclass added, read back.

    Raises:
        InputError: naming every unknown setting and every value that cannot be.
    """
    values = {name: _plain(getattr(base, name)) for name in _Checked.model_fields}
    overrides = {name: _plain(value) if name in values else value for name, value in overrides.items()}
    if isinstance(overrides.get("LOSS_WEIGHTS"), dict):
        overrides["LOSS_WEIGHTS"] = {**base.LOSS_WEIGHTS, **overrides["LOSS_WEIGHTS"]}
    added = set(_setting_names(base)) - values.keys()
    kept = {n: v for n, v in overrides.items() if n in added or (keep_unknown and n not in values and n.isupper())}
    checked = _Checked.from_dict({**values, **{n: v for n, v in overrides.items() if n not in kept}})
    kept |= {name: getattr(checked, name) for name in overrides if name not in kept}
    return type(base.__name__, (base,), kept)()


def _setting_names(config_class: type[Config]) -> list[str]:
    """Base class first."""
    return list(dict.fromkeys(n for cls in reversed(config_class.__mro__) for n in vars(cls) if n.isupper()))


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


class _Together(Settings):
    """What values of a `Config` must have to do with each other."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        mode, least, most = self.IMAGE_RESIZE_MODE, self.IMAGE_MIN_DIM or 0, self.IMAGE_MAX_DIM or 0
        levels, zoom = self.RPN_LEVELS, self.AUGMENTATION_ZOOM
        mask_shapes = [(factor * self.MASK_POOL_SIZE,) * 2 for factor in MASK_FACTORS]
        num_scales = len(self.RPN_ANCHOR_SCALES)
        faults = {
            f"BACKBONE_STRIDES must be {_STRIDES}, or the first of them": (
                self.BACKBONE_STRIDES != _STRIDES[: len(self.BACKBONE_STRIDES)]
            ),
            f"RPN_ANCHOR_SCALES must hold one scale for each of the levels P2 to P6 (BACKBONE_STRIDES), or for the "
            f"first of them; it has {num_scales}, leave the others out": not 0
            < num_scales
            <= len(self.BACKBONE_STRIDES),
            f"RPN_LEVELS must be among the {num_scales} levels from P2 on that RPN_ANCHOR_SCALES has a scale for": (
                levels != _LEVELS and not {*levels} <= {*_LEVELS[:num_scales]}
            ),
            f"RPN_LEVELS must name some of {', '.join(_LEVELS)}, each once and in this order": (
                not levels or levels != tuple(name for name in _LEVELS if name in levels)
            ),
            f"MASK_SHAPE must be two or four times MASK_POOL_SIZE, that is {mask_shapes[0]} or {mask_shapes[1]}": (
                self.MASK_SHAPE not in mask_shapes
            ),
            "MASK_PARTS must name each part once": len({*self.MASK_PARTS}) < len(self.MASK_PARTS),
            f"MEAN_PIXEL needs one value for each of the {self.IMAGE_CHANNEL_COUNT} channels": (
                len(self.MEAN_PIXEL) != self.IMAGE_CHANNEL_COUNT
            ),
            "AUGMENTATION_ZOOM must have the smaller factor first": zoom[0] > zoom[1],
            # So that the pyramid's levels fit on each other.
            "IMAGE_MAX_DIM must be a multiple of 32 from 64 on": mode == "square" and (most % 32 or most < 64),
            "IMAGE_MIN_DIM must be a multiple of 64 where images are cropped to it": (
                mode == "crop" and (least % 64 or least < 64)
            ),
            "IMAGE_MIN_DIM must be 0 or a multiple of 64 with 'pad64'": mode == "pad64" and least % 64,
        }
        # GroupNorm divides channels evenly, and a group of one value, as 1x1 features give it, normalises to 0.
        for name, smallest in (("TOP_DOWN_PYRAMID_SIZE", NUM_GROUPS), ("FPN_CLASSIF_FC_LAYERS_SIZE", 2 * NUM_GROUPS)):
            fault = f"{name} must be a multiple of {NUM_GROUPS} from {smallest} on with NORMALIZATION 'group'"
            size = getattr(self, name)
            faults[fault] = self.NORMALIZATION == "group" and (size % NUM_GROUPS or size < smallest)
        if any(faults.values()):
            raise ValueError("; ".join(text for text, is_there in faults.items() if is_there))
        return self


_Checked = create_model(
    "_Checked", __base__=_Together, **{name: (kind, ...) for name, kind in Config.__annotations__.items()}
)
