"""The detector's settings: subclass `Config` and override what differs.

The names and defaults up to `LOSS_WEIGHTS` are those of Matterport's Mask R-CNN, whose users know them. What follows
is this package's own; its defaults leave Matterport's behaviour as it was.
"""

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, WrapValidator, model_validator

from mrcnn.files.settings import Settings

OPTIMIZERS = ("sgd", "adam")
AUGMENTATIONS = ("none", "thesis", "strong")
RESIZE_MODES = ("square", "pad64", "crop", "none")
NORMALIZATIONS = ("frozen_batch", "batch", "group")
STEM_PADDINGS = ("same", "symmetric")
ROI_ALIGNS = ("matterport", "paper")
# Wu & He 2018 use 32 groups throughout.
NUM_GROUPS = 32
_STRIDES = (4, 8, 16, 32, 64)
_MAX_SIDE = 2**14  # pixels


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
    NAME: str | None = None

    # Devices, and images that each of them takes in a training step.
    GPU_COUNT = 1
    IMAGES_PER_GPU = 2

    # Training steps in an epoch, and validation steps after it (0: none).
    STEPS_PER_EPOCH = 1000
    VALIDATION_STEPS = 50

    # "resnet50" or "resnet101", and the strides of the pyramid on it.
    BACKBONE = "resnet101"
    BACKBONE_STRIDES = (4, 8, 16, 32, 64)
    # Width of the two hidden layers of the box head, and channels of each pyramid level.
    FPN_CLASSIF_FC_LAYERS_SIZE = 1024
    TOP_DOWN_PYRAMID_SIZE = 256

    # Classes, the background included.
    NUM_CLASSES = 1

    # Side in pixels of the square anchor of each level; width / height of each; 2 skips every second position.
    RPN_ANCHOR_SCALES = (32, 64, 128, 256, 512)
    RPN_ANCHOR_RATIOS = (0.5, 1, 2)
    RPN_ANCHOR_STRIDE = 1
    # Overlap above which the weaker of two proposals goes.
    RPN_NMS_THRESHOLD = 0.7
    RPN_TRAIN_ANCHORS_PER_IMAGE = 256
    # Anchors that enter the suppression, and proposals that leave it.
    PRE_NMS_LIMIT = 6000
    POST_NMS_ROIS_TRAINING = 2000
    POST_NMS_ROIS_INFERENCE = 1000

    # Keep masks as small arrays over their box: saves memory with little loss.
    USE_MINI_MASK = True
    MINI_MASK_SHAPE = (56, 56)

    # "square": scale the shorter side up to MIN_DIM, never the longer beyond MAX_DIM, pad to MAX_DIM x MAX_DIM.
    # "pad64": scale the shorter side up to MIN_DIM (a multiple of 64, or 0), pad both to the next multiple of 64.
    # "crop": train on random crops of MIN_DIM x MIN_DIM of the scaled image; detection works as in "pad64".
    # "none": take images as they are; their sides must be multiples of 64.
    IMAGE_RESIZE_MODE = "square"
    IMAGE_MIN_DIM = 800
    IMAGE_MAX_DIM = 1024
    # Least factor that images are enlarged by; 0 sets no least.
    IMAGE_MIN_SCALE = 0
    # 3 for RGB, 1 for greyscale; colour images turn grey and grey ones are repeated where they have the other number.
    # Another number is for images that have just so many.
    IMAGE_CHANNEL_COUNT = 3
    # Subtracted from the image, one value for each channel, RGB.
    MEAN_PIXEL = (123.7, 116.8, 103.9)

    # RoIs that the heads see in each training image, and the largest share of positives among them.
    TRAIN_ROIS_PER_IMAGE = 200
    ROI_POSITIVE_RATIO = 0.33
    # Bins of RoIAlign for the box head and for the mask head; size of a mask.
    POOL_SIZE = 7
    MASK_POOL_SIZE = 14
    MASK_SHAPE = (28, 28)
    # Ground-truth cells used in one image.
    MAX_GT_INSTANCES = 100
    # Spread of the box deltas, which the networks learn in these units.
    RPN_BBOX_STD_DEV = (0.1, 0.1, 0.2, 0.2)
    BBOX_STD_DEV = (0.1, 0.1, 0.2, 0.2)

    # Final detections: how many, from which score on, and the overlap above which the weaker goes.
    DETECTION_MAX_INSTANCES = 100
    DETECTION_MIN_CONFIDENCE = 0.7
    DETECTION_NMS_THRESHOLD = 0.3

    LEARNING_RATE = 0.001
    LEARNING_MOMENTUM = 0.9
    WEIGHT_DECAY = 0.0001
    # False freezes the BatchNorm statistics; True and None train them. NORMALIZATION below overrides it.
    TRAIN_BN = False
    GRADIENT_CLIP_NORM = 5.0
    # Take the heads' RoIs from the proposals; training refuses False (Matterport's random boxes).
    USE_RPN_ROIS = True
    LOSS_WEIGHTS = {
        "rpn_class_loss": 1.0,
        "rpn_bbox_loss": 1.0,
        "mrcnn_class_loss": 1.0,
        "mrcnn_bbox_loss": 1.0,
        "mrcnn_mask_loss": 1.0,
    }

    # --- What Matterport's has not; these defaults leave its behaviour as it was ---
    # Levels of the pyramid, of "P2" to "P6", that anchors lie on. Each left out saves time, P2 most.
    RPN_LEVELS = ("P2", "P3", "P4", "P5", "P6")
    # "matterport": RoIAlign samples a grid whose outer points lie on the box, from the level nearest to the box's size.
    # "paper": it samples the centres of bins, from the level that the floor of eq. 1 of the FPN paper gives.
    # Weights want the one that they were trained with.
    ROI_ALIGN = "matterport"
    # How the first pooling pads: "same", as Matterport's, or "symmetric", as the ResNets of `keras.applications`.
    STEM_PADDING = "same"

    # --- Training from scratch ---
    # "frozen_batch", "batch" or "group"; None follows TRAIN_BN.
    NORMALIZATION: str | None = None
    # "sgd" with LEARNING_MOMENTUM, or "adam"; GRADIENT_CLIP_NORM bounds the norm of all gradients together.
    OPTIMIZER = "sgd"
    # Steps over which the learning rate rises from 0.
    LEARNING_RATE_WARMUP_STEPS = 0
    # After this share of the steps the learning rate is multiplied by the factor; 1.0 never does.
    LEARNING_RATE_DROP_AFTER = 1.0
    LEARNING_RATE_DROP_FACTOR = 0.2
    # Add the ground-truth boxes to the proposals in training: heads see positives before the proposals are good.
    TRAIN_ON_GT_BOXES = False
    # Learn from images without instances too, as background. False takes another image in their place.
    TRAIN_ON_EMPTY_IMAGES = False
    # "none", "thesis" (the five augmentations of 2.4.2) or "strong"; share of the samples that are augmented.
    AUGMENTATION = "none"
    AUGMENTATION_SHARE = 0.5
    # Least and largest zoom of "strong": cells of other centres may be smaller or larger in the image.
    AUGMENTATION_ZOOM = (0.35, 1.1)
    # Least ratio of an image's sides after "strong" has cut half of the samples, in mode "square": a detector that
    # never saw the black padding of images that are not square finds cells along it. 1 cuts nothing.
    AUGMENTATION_LEAST_RATIO = 0.6
    # Fixes initial weights, order of images, augmentation and sampling.
    SEED = 0

    def __init__(self) -> None:
        _Checked.from_dict({name: _plain(getattr(self, name)) for name in _Checked.model_fields})
        self.BATCH_SIZE = self.IMAGES_PER_GPU * self.GPU_COUNT
        side = self.IMAGE_MIN_DIM if self.IMAGE_RESIZE_MODE == "crop" else self.IMAGE_MAX_DIM
        self.IMAGE_SHAPE = np.array([side, side, self.IMAGE_CHANNEL_COUNT])
        self.IMAGE_META_SIZE = 1 + 3 + 3 + 4 + 1 + self.NUM_CLASSES
        # Arrays, as scripts compute with them.
        for name in ("MEAN_PIXEL", "RPN_BBOX_STD_DEV", "BBOX_STD_DEV"):
            setattr(self, name, np.array(getattr(self, name), np.float64).reshape(-1))

    @property
    def normalization(self) -> str:
        """The normalisation in force: NORMALIZATION, or what TRAIN_BN says."""
        return self.NORMALIZATION or ("batch" if self.TRAIN_BN is None or self.TRAIN_BN else "frozen_batch")

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, in the order of the class, as JSON can hold it.

        What a subclass has added and JSON cannot hold, such as a path, is there as text.
        """
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
    LEARNING_RATE = 0.001
    AUGMENTATION = "thesis"
    AUGMENTATION_SHARE = 0.5
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


def _setting_names(config_class: type[Config]) -> list[str]:
    """Base class first."""
    return list(dict.fromkeys(n for cls in reversed(config_class.__mro__) for n in vars(cls) if n.isupper()))


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


def _count(least: int, most: int) -> Any:
    return Annotated[int, BeforeValidator(_whole), Field(ge=least, le=most)]


def _steps(least: int) -> Any:
    return Annotated[int, BeforeValidator(_ceiling), Field(ge=least, le=10**9)]


def _number(least: float, most: float) -> Any:
    return Annotated[float, Field(ge=least, le=most), WrapValidator(_as_given)]


_Share = _number(0, 1)
_Flag = Annotated[bool, BeforeValidator(_flag)]
_Positive = Annotated[float, Field(gt=0, le=_MAX_SIDE), WrapValidator(_as_given)]
_Sides = Annotated[tuple[_count(1, _MAX_SIDE), _count(1, _MAX_SIDE)], Field(strict=False)]
_Deviations = Annotated[tuple[_Positive, _Positive, _Positive, _Positive], Field(strict=False)]
_Channels = Annotated[
    tuple[Annotated[float, WrapValidator(_as_given)], ...],
    Field(strict=False),
    BeforeValidator(lambda v: v if isinstance(v, (list, tuple)) else [v]),
]


class _Checked(Settings):
    """Types and ranges of a `Config`. The largest values, far beyond what anybody trains, keep memory from filling."""

    NAME: Annotated[str, Field(pattern=r"^[^\n\r]*$")] | None
    GPU_COUNT: _count(1, 10_000)
    IMAGES_PER_GPU: _count(1, 100_000)
    STEPS_PER_EPOCH: _steps(1)
    VALIDATION_STEPS: _steps(0)
    BACKBONE: Literal["resnet50", "resnet101"]
    BACKBONE_STRIDES: Annotated[tuple[int, ...], Field(strict=False)]
    FPN_CLASSIF_FC_LAYERS_SIZE: _count(1, 2**15)
    TOP_DOWN_PYRAMID_SIZE: _count(1, 2**12)
    NUM_CLASSES: _count(1, 10_000)
    RPN_ANCHOR_SCALES: Annotated[tuple[_Positive, ...], Field(strict=False, min_length=5, max_length=5)]
    RPN_ANCHOR_RATIOS: Annotated[tuple[_Positive, ...], Field(strict=False, min_length=1, max_length=64)]
    RPN_ANCHOR_STRIDE: _count(1, 64)
    RPN_NMS_THRESHOLD: _Share
    RPN_TRAIN_ANCHORS_PER_IMAGE: _count(1, 10**6)
    PRE_NMS_LIMIT: _count(1, 10**6)
    POST_NMS_ROIS_TRAINING: _count(1, 10**5)
    POST_NMS_ROIS_INFERENCE: _count(1, 10**5)
    USE_MINI_MASK: _Flag
    MINI_MASK_SHAPE: _Sides
    IMAGE_RESIZE_MODE: Literal[RESIZE_MODES]
    IMAGE_MIN_DIM: _count(0, _MAX_SIDE) | None
    IMAGE_MAX_DIM: _count(0, _MAX_SIDE) | None
    IMAGE_MIN_SCALE: _number(0, 1000) | None
    IMAGE_CHANNEL_COUNT: _count(1, 1024)
    MEAN_PIXEL: _Channels
    TRAIN_ROIS_PER_IMAGE: _count(1, 10**5)
    # Without positives the heads learn nothing.
    ROI_POSITIVE_RATIO: Annotated[float, Field(gt=0, le=1), WrapValidator(_as_given)]
    POOL_SIZE: _count(1, 56)
    MASK_POOL_SIZE: _count(1, 112)
    MASK_SHAPE: _Sides
    MAX_GT_INSTANCES: _count(1, 10**5)
    RPN_BBOX_STD_DEV: _Deviations
    BBOX_STD_DEV: _Deviations
    DETECTION_MAX_INSTANCES: _count(1, 10**5)
    DETECTION_MIN_CONFIDENCE: _Share
    DETECTION_NMS_THRESHOLD: _Share
    LEARNING_RATE: _number(0, 100)
    LEARNING_MOMENTUM: _Share
    WEIGHT_DECAY: _number(0, 100)
    TRAIN_BN: _Flag | None
    GRADIENT_CLIP_NORM: _number(0, 10**12) | None
    USE_RPN_ROIS: _Flag
    LOSS_WEIGHTS: dict[Literal[tuple(Config.LOSS_WEIGHTS)], _number(0, 10**12)]
    RPN_LEVELS: Annotated[tuple[Literal[Config.RPN_LEVELS], ...], Field(strict=False)]
    ROI_ALIGN: Literal[ROI_ALIGNS]
    STEM_PADDING: Literal[STEM_PADDINGS]
    NORMALIZATION: Literal[NORMALIZATIONS] | None
    OPTIMIZER: Literal[OPTIMIZERS]
    LEARNING_RATE_WARMUP_STEPS: _count(0, 10**12)
    LEARNING_RATE_DROP_AFTER: _Share
    LEARNING_RATE_DROP_FACTOR: _number(0, 100)
    TRAIN_ON_GT_BOXES: _Flag
    TRAIN_ON_EMPTY_IMAGES: _Flag
    AUGMENTATION: Literal[AUGMENTATIONS]
    AUGMENTATION_SHARE: _Share
    AUGMENTATION_ZOOM: Annotated[tuple[_Positive, _Positive], Field(strict=False)]
    AUGMENTATION_LEAST_RATIO: _number(0.1, 1)
    SEED: _count(0, 2**32 - 1)

    @model_validator(mode="after")
    def _fit_together(self) -> "_Checked":
        mode, least, most = self.IMAGE_RESIZE_MODE, self.IMAGE_MIN_DIM or 0, self.IMAGE_MAX_DIM or 0
        group = self.NORMALIZATION == "group"
        faults = {
            f"BACKBONE_STRIDES must be {_STRIDES}": self.BACKBONE_STRIDES != _STRIDES,
            f"RPN_LEVELS must name some of {', '.join(Config.RPN_LEVELS)}, each once and in this order": (
                not self.RPN_LEVELS or self.RPN_LEVELS != tuple(n for n in Config.RPN_LEVELS if n in self.RPN_LEVELS)
            ),
            f"MASK_SHAPE must be twice MASK_POOL_SIZE, that is {(2 * self.MASK_POOL_SIZE,) * 2}": (
                self.MASK_SHAPE != (2 * self.MASK_POOL_SIZE,) * 2
            ),
            f"MEAN_PIXEL needs one value for each of the {self.IMAGE_CHANNEL_COUNT} channels": (
                len(self.MEAN_PIXEL) != self.IMAGE_CHANNEL_COUNT
            ),
            "AUGMENTATION_ZOOM must have the smaller factor first": self.AUGMENTATION_ZOOM
            != tuple(sorted(self.AUGMENTATION_ZOOM)),
            # So that the pyramid's levels fit on each other.
            "IMAGE_MAX_DIM must be a multiple of 32 from 64 on": mode == "square" and (most % 32 or most < 64),
            "IMAGE_MIN_DIM must be a multiple of 64 where images are cropped to it": (
                mode == "crop" and (least % 64 or least < 64)
            ),
            "IMAGE_MIN_DIM must be 0 or a multiple of 64 with 'pad64'": mode == "pad64" and least % 64,
        }
        # GroupNorm divides channels evenly, and a group of one value, as 1x1 features give it, normalises to 0.
        for name, factor in (("TOP_DOWN_PYRAMID_SIZE", 1), ("FPN_CLASSIF_FC_LAYERS_SIZE", 2)):
            size, smallest = getattr(self, name), factor * NUM_GROUPS
            fault = f"{name} must be a multiple of {NUM_GROUPS} from {smallest} on with NORMALIZATION 'group'"
            faults[fault] = group and (size % NUM_GROUPS or size < smallest)
        found = [text for text, is_there in faults.items() if is_there]
        if found:
            raise ValueError("; ".join(found))
        return self


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
