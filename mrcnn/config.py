"""The detector's settings: subclass `Config` and override what differs.

The names and defaults up to `LOSS_WEIGHTS` are those of Matterport's Mask R-CNN, whose users know them. What follows
under "Training from scratch" is this package's own; its defaults leave Matterport's behaviour as it was.
"""

import difflib
import math
from typing import Any

import numpy as np

from mrcnn.files.errors import InputError

OPTIMIZERS = ("sgd", "adam")
AUGMENTATIONS = ("none", "thesis", "strong")
RESIZE_MODES = ("square", "pad64", "crop", "none")
NORMALIZATIONS = ("frozen_batch", "batch", "group")
STEM_PADDINGS = ("same", "symmetric")
ROI_ALIGNS = ("matterport", "paper")
# Wu & He 2018 use 32 groups throughout.
NUM_GROUPS = 32
# Least and largest; the largest are far beyond what anybody trains, and keep a mistake from filling the memory.
_RANGES: dict[str, tuple[float, float]] = {
    "GPU_COUNT": (1, 10_000),
    "IMAGES_PER_GPU": (1, 100_000),
    "NUM_CLASSES": (1, 10_000),
    "FPN_CLASSIF_FC_LAYERS_SIZE": (1, 2**15),
    "TOP_DOWN_PYRAMID_SIZE": (1, 2**12),
    "IMAGE_CHANNEL_COUNT": (1, 1024),
    "RPN_ANCHOR_STRIDE": (1, 64),
    "RPN_NMS_THRESHOLD": (0, 1),
    "RPN_TRAIN_ANCHORS_PER_IMAGE": (1, 10**6),
    "PRE_NMS_LIMIT": (1, 10**6),
    "POST_NMS_ROIS_TRAINING": (1, 10**5),
    "POST_NMS_ROIS_INFERENCE": (1, 10**5),
    "TRAIN_ROIS_PER_IMAGE": (1, 10**5),
    "POOL_SIZE": (1, 56),
    "MASK_POOL_SIZE": (1, 112),
    "MAX_GT_INSTANCES": (1, 10**5),
    "DETECTION_MAX_INSTANCES": (1, 10**5),
    "DETECTION_NMS_THRESHOLD": (0, 1),
    "LEARNING_RATE": (0, 100),
    "LEARNING_MOMENTUM": (0, 1),
    "WEIGHT_DECAY": (0, 100),
    "LEARNING_RATE_DROP_AFTER": (0, 1),
    "LEARNING_RATE_DROP_FACTOR": (0, 100),
    "SEED": (0, 2**32 - 1),
    "STEPS_PER_EPOCH": (1, 10**9),
    "VALIDATION_STEPS": (0, 10**9),
    "LEARNING_RATE_WARMUP_STEPS": (0, 10**12),
    "IMAGE_MIN_SCALE": (0, 1000),
    "GRADIENT_CLIP_NORM": (0, 10**12),
}
_MAY_BE_NONE = ("IMAGE_MIN_SCALE", "GRADIENT_CLIP_NORM")
_MAX_SIDE = 2**14  # pixels
_MAX_LISTED = 64


class Config:
    """Base settings. Class attributes hold the values; an instance adds the ones computed from them.

    Instance attributes:
        BATCH_SIZE: images in a training step over all devices.
        IMAGE_SHAPE: array [height, width, channels] of the network's input.
        IMAGE_META_SIZE: length of Matterport's image meta vector.
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
        self.BATCH_SIZE = self.IMAGES_PER_GPU * self.GPU_COUNT
        side = self.IMAGE_MIN_DIM if self.IMAGE_RESIZE_MODE == "crop" else self.IMAGE_MAX_DIM
        self.IMAGE_SHAPE = np.array([side, side, self.IMAGE_CHANNEL_COUNT])
        self.IMAGE_META_SIZE = 1 + 3 + 3 + 4 + 1 + self.NUM_CLASSES
        # Arrays, as scripts compute with them.
        for name in ("MEAN_PIXEL", "RPN_BBOX_STD_DEV", "BBOX_STD_DEV"):
            setattr(self, name, np.array(getattr(self, name), np.float64).reshape(-1))
        self.validate()

    @property
    def normalization(self) -> str:
        """The normalisation in force: NORMALIZATION, or what TRAIN_BN says."""
        return self.NORMALIZATION or ("frozen_batch" if self.TRAIN_BN is False else "batch")

    def validate(self) -> None:
        """Check the values against each other.

        Raises:
            InputError: naming the attribute, what it is and what it may be.
        """
        if self.NAME is not None and (not isinstance(self.NAME, str) or not self.NAME.isprintable()):
            raise InputError(f"NAME must be text of one line; got {self.NAME!r}")
        _choice("BACKBONE", self.BACKBONE, ("resnet50", "resnet101"))
        _choice("OPTIMIZER", self.OPTIMIZER, OPTIMIZERS)
        _choice("AUGMENTATION", self.AUGMENTATION, AUGMENTATIONS)
        _choice("NORMALIZATION", self.normalization, NORMALIZATIONS)
        _choice("ROI_ALIGN", self.ROI_ALIGN, ROI_ALIGNS)
        _choice("STEM_PADDING", self.STEM_PADDING, STEM_PADDINGS)
        self._validate_image()
        if tuple(self.BACKBONE_STRIDES) != (4, 8, 16, 32, 64):
            raise InputError(f"BACKBONE_STRIDES must be (4, 8, 16, 32, 64); got {tuple(self.BACKBONE_STRIDES)}")
        if len(self.RPN_ANCHOR_SCALES) != len(self.BACKBONE_STRIDES):
            raise InputError(
                f"RPN_ANCHOR_SCALES needs one scale for each of the {len(self.BACKBONE_STRIDES)} levels; "
                f"got {len(self.RPN_ANCHOR_SCALES)}"
            )
        levels = list(self.RPN_LEVELS)
        if not levels or levels != [level for level in Config.RPN_LEVELS if level in levels]:
            raise InputError(
                f"RPN_LEVELS must name some of {', '.join(Config.RPN_LEVELS)}, in this order; got {levels}"
            )
        if tuple(self.MASK_SHAPE) != (2 * self.MASK_POOL_SIZE,) * 2:
            raise InputError(
                f"MASK_SHAPE must be twice MASK_POOL_SIZE, ({2 * self.MASK_POOL_SIZE}, {2 * self.MASK_POOL_SIZE}); "
                f"got {tuple(self.MASK_SHAPE)}"
            )
        for name in (
            "NUM_CLASSES",
            "GPU_COUNT",
            "IMAGES_PER_GPU",
            "STEPS_PER_EPOCH",
            "TRAIN_ROIS_PER_IMAGE",
        ):
            if not _is_number(getattr(self, name)) or getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; got {getattr(self, name)}")
        for name in ("SEED", "VALIDATION_STEPS", "LEARNING_RATE_WARMUP_STEPS"):
            if not _is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more; got {getattr(self, name)}")
        for name in ("AUGMENTATION_SHARE", "DETECTION_MIN_CONFIDENCE", "ROI_POSITIVE_RATIO"):
            if not _is_number(getattr(self, name)) or not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name} must lie between 0 and 1; got {getattr(self, name)}")
        if self.ROI_POSITIVE_RATIO == 0.0:
            raise InputError("ROI_POSITIVE_RATIO must be above 0: without positives the heads learn nothing")
        zoom = tuple(self.AUGMENTATION_ZOOM)
        if len(zoom) != 2 or not 0.0 < zoom[0] <= zoom[1]:
            raise InputError(f"AUGMENTATION_ZOOM must be two factors above 0, the least first; got {zoom}")
        if not _is_number(self.AUGMENTATION_LEAST_RATIO) or not 0.1 <= self.AUGMENTATION_LEAST_RATIO <= 1.0:
            raise InputError(
                f"AUGMENTATION_LEAST_RATIO must lie between 0.1 and 1; got {self.AUGMENTATION_LEAST_RATIO}"
            )
        self._validate_ranges()
        if self.normalization == "group":
            self._validate_groups()

    def _validate_ranges(self) -> None:
        """Refuse numbers that no network has: a configuration may come with a detector that somebody else made."""
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if name in _MAY_BE_NONE and value is None:
                continue
            if not _is_number(value) or not least <= value <= most:
                raise InputError(f"{name} must lie between {least:g} and {most:g}; got {value!r}")
        for name in ("IMAGE_MIN_DIM", "IMAGE_MAX_DIM"):  # None and 0 stand for none
            value = getattr(self, name)
            if value is not None and (not _is_number(value) or not 0 <= value <= _MAX_SIDE):
                raise InputError(f"{name} must be at most {_MAX_SIDE}; got {value!r}")
        for name, length in (("RPN_ANCHOR_SCALES", 0), ("RPN_ANCHOR_RATIOS", 0), ("MINI_MASK_SHAPE", 2)):
            values = np.asarray(getattr(self, name), object).reshape(-1).tolist()
            are_right = all(_is_number(value) and 0 < value <= _MAX_SIDE for value in values)
            if not are_right or not 1 <= len(values) <= _MAX_LISTED or length not in (0, len(values)):
                raise InputError(f"{name} must be {length or 'some'} numbers above 0; got {getattr(self, name)!r}")
        for name in ("RPN_BBOX_STD_DEV", "BBOX_STD_DEV"):
            values = getattr(self, name)
            if values.shape != (4,) or not np.all(values > 0) or not np.all(np.isfinite(values)):
                raise InputError(f"{name} must be four numbers above 0; got {values.tolist()}")
        if not np.all(np.isfinite(self.MEAN_PIXEL)):
            raise InputError(f"MEAN_PIXEL must be finite numbers; got {self.MEAN_PIXEL.tolist()}")
        if not all(_is_number(v) and 0 <= v < math.inf for v in self.LOSS_WEIGHTS.values()):
            raise InputError(f"LOSS_WEIGHTS must be numbers of 0 or more; got {self.LOSS_WEIGHTS}")

    def _validate_image(self) -> None:
        _choice("IMAGE_RESIZE_MODE", self.IMAGE_RESIZE_MODE, RESIZE_MODES)
        if self.IMAGE_CHANNEL_COUNT < 1:
            raise InputError(f"IMAGE_CHANNEL_COUNT must be at least 1; got {self.IMAGE_CHANNEL_COUNT}")
        if len(self.MEAN_PIXEL) != self.IMAGE_CHANNEL_COUNT:
            raise InputError(
                f"MEAN_PIXEL needs one value for each of the {self.IMAGE_CHANNEL_COUNT} channels; "
                f"got {len(self.MEAN_PIXEL)}"
            )
        mode, least, most = self.IMAGE_RESIZE_MODE, self.IMAGE_MIN_DIM or 0, self.IMAGE_MAX_DIM or 0
        if mode == "square" and (most % 32 or most < 64):
            raise InputError(
                f"IMAGE_MAX_DIM must be a multiple of 32 from 64 on, so that the pyramid's levels fit on each other; "
                f"got {most}"
            )
        if mode == "crop" and (least % 64 or least < 64):
            raise InputError(f"IMAGE_MIN_DIM must be a multiple of 64 where images are cropped to it; got {least}")
        if mode == "pad64" and least % 64:
            raise InputError(f"IMAGE_MIN_DIM must be 0 or a multiple of 64 with 'pad64'; got {least}")

    def _validate_groups(self) -> None:
        """GroupNorm divides channels evenly, and a group of one value, as 1x1 features give it, normalises to 0."""
        for name, factor in (("TOP_DOWN_PYRAMID_SIZE", 1), ("FPN_CLASSIF_FC_LAYERS_SIZE", 2)):
            if getattr(self, name) % NUM_GROUPS or getattr(self, name) < factor * NUM_GROUPS:
                raise InputError(
                    f"{name} must be a multiple of {NUM_GROUPS} from {factor * NUM_GROUPS} on with NORMALIZATION "
                    f"'group'; got {getattr(self, name)}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, in the order of the class, as JSON can hold it.

        What a subclass has added and JSON cannot hold, such as a path, is there as text.
        """
        return {name: _plain(getattr(self, name)) for name in setting_names(type(self))}

    def display(self) -> None:
        """Print every value (Matterport's name for it)."""
        print("\nConfigurations:")
        computed = {name: _plain(value) for name, value in vars(self).items()}
        for name, value in sorted({**self.to_dict(), **computed}.items()):
            print(f"{name:30} {value}")
        print()


class SmearConfig(Config):
    """White blood cells in smears, trained from scratch as in the thesis (3.2).

    One class, Adam at 1e-3, half of the samples augmented online. GroupNorm stands for the pretrained weights that
    cells seldom have (He et al. 2018). What cells do not need is left out, as measured in `docs/speed.md`: an image of
    256 px shows them well enough, none is so small that anchors on the finest level matter or so large that those on
    the coarsest do, and fifty proposals hold them all. The thesis' own ResNet-101 at 1024 px is in
    `experiments/configs/thesis.yaml`.
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


def setting_names(config_class: type[Config]) -> list[str]:
    """Names of the settings of a configuration class, base class first."""
    names: dict[str, None] = {}
    for cls in reversed(config_class.__mro__):
        names.update((n, None) for n in vars(cls) if n.isupper())
    return list(names)


def make_config(overrides: dict[str, Any], base: type[Config] = SmearConfig, *, keep_unknown: bool = False) -> Config:
    """Make a configuration from a dictionary, as read from YAML or JSON.

    Args:
        overrides: setting -> value; lists stand for tuples.
        base: class that gives the rest.
        keep_unknown: take settings that `base` does not know as they are: what a subclass added, read back.

    Raises:
        InputError: for an unknown setting or a value of the wrong kind.
    """
    known = setting_names(base)
    values = {}
    for name, value in overrides.items():
        if name not in known and keep_unknown and str(name).isupper() and str(name).isidentifier():
            values[name] = value
            continue
        if name not in known:
            close = difflib.get_close_matches(str(name).upper(), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(f"detector setting {name!r} is unknown{hint}")
        default = getattr(base, name)
        values[name] = _like(name, value, default)
    return type(base.__name__, (base,), values)()


def _like(name: str, value: Any, default: Any) -> Any:
    """Bring `value` to the type of `default`."""
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)):
            raise InputError(f"detector setting {name} must be a list; got {value!r}")
        if _all_numbers(default) and not _all_numbers(value):
            raise InputError(f"detector setting {name} must be a list of numbers; got {value!r}")
        return tuple(value)
    if isinstance(default, bool) or isinstance(value, bool):
        if not (isinstance(default, bool) and isinstance(value, bool)):
            kind = "true or false" if isinstance(default, bool) else "a number or a name"
            raise InputError(f"detector setting {name} must be {kind}; got {value!r}")
        return value
    if isinstance(default, (int, float)):
        if not isinstance(value, (int, float)):
            raise InputError(f"detector setting {name} must be a number; got {value!r} (write 1.0e-3 for 1e-3)")
        if name in ("STEPS_PER_EPOCH", "VALIDATION_STEPS") and math.isfinite(value):
            return math.ceil(value)  # scripts divide for them
        if isinstance(default, int) and name != "IMAGE_MIN_SCALE":
            if not float(value).is_integer():
                raise InputError(f"detector setting {name} must be a whole number; got {value!r}")
            return int(value)
        # Not a whole number for a fraction: the class made of it would then take no fraction any more.
        return float(value) if isinstance(default, float) else value
    if isinstance(default, dict):
        unknown = set(value) - set(default) if isinstance(value, dict) else {repr(value)}
        if unknown:
            raise InputError(f"detector setting {name} does not know {', '.join(sorted(unknown))}")
        return {**default, **value}
    return value


def _all_numbers(values: Any) -> bool:
    return all(_is_number(v) for v in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _choice(name: str, value: Any, choices: tuple) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(map(str, choices))}; got {value!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
