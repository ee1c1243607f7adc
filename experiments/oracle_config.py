"""Settings of an oracle, the network that names the cells of Table 3.3."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from autoencoder.config import check_names
from experiments.resnext import BASE_FILTERS, BLOCKS, CARDINALITY, NORMALIZATIONS, WIDTH_PER_GROUP
from mrcnn.errors import InputError

_LEAST = {
    "image_size": 32,
    "base_filters": 1,
    "width_per_group": 1,
    "cardinality": 1,
    "steps": 1,
    "batch_size": 2,
    "seed": 0,
}
# Far beyond what anybody trains; they keep a mistake from filling the memory.
_MOST = {"image_size": 2048, "base_filters": 1024, "width_per_group": 1024, "cardinality": 256, "batch_size": 10**6}
_MOST_STAGES, _MOST_BLOCKS = 6, 300


@dataclass(frozen=True)
class OracleConfig:
    """What decides how an oracle is built and trained.

    Attributes:
        image_size: side in pixels to which images are brought.
        blocks: number of blocks in each stage; (3, 4, 6, 3) is ResNeXt-50.
        base_filters: channels of the first convolution.
        width_per_group: channels of a group in the first stage.
        cardinality: groups of the 3x3 convolutions.
        normalization: "batch" or "group".
        steps: number of steps. The thesis' 150 epochs in batches of 1,500 come to about 6,600 (section 3.4).
        batch_size: images in a step.
        learning_rate: Adam's at the first step (thesis section 3.4); it falls to 0 along a half cosine.
        augment: whether to flip and turn images, and to change their brightness and contrast a little.
        balance_classes: whether every class is equally frequent in a batch, however rare its images are.
        seed: of the initial weights, the order of the images and the augmentation.

    Raises:
        InputError: if a value has the wrong type or lies outside its range.
    """

    image_size: int = 64
    blocks: tuple[int, ...] = BLOCKS
    base_filters: int = BASE_FILTERS
    width_per_group: int = WIDTH_PER_GROUP
    cardinality: int = CARDINALITY
    normalization: str = "batch"
    steps: int = 6600
    batch_size: int = 32
    learning_rate: float = 1e-3
    augment: bool = True
    balance_classes: bool = True
    seed: int = 0

    def __post_init__(self):
        for name, least in _LEAST.items():
            if not _is_whole(getattr(self, name), least):
                raise InputError(f"{name} must be a whole number of at least {least}, got {getattr(self, name)!r}")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise InputError(f"{name} must be at most {most}, got {getattr(self, name)!r}")
        if (
            not isinstance(self.blocks, list | tuple)
            or not self.blocks
            or not all(_is_whole(n, 1) for n in self.blocks)
            or len(self.blocks) > _MOST_STAGES
            or sum(self.blocks) > _MOST_BLOCKS
        ):
            raise InputError(
                f"blocks must be a list of up to {_MOST_STAGES} whole numbers from 1 on, got {self.blocks!r}"
            )
        object.__setattr__(self, "blocks", tuple(self.blocks))  # JSON has lists alone
        if self.normalization not in NORMALIZATIONS:
            raise InputError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {self.normalization!r}")
        rate = self.learning_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < float("inf"):
            raise InputError(f"learning_rate must be a number above 0, got {rate!r}")
        for name in ("augment", "balance_classes"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be true or false, got {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {**asdict(self), "blocks": list(self.blocks)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "oracle config") -> "OracleConfig":
        """Make a config of some settings; those not given keep their defaults.

        Args:
            values: settings by name.
            where: what to call the place they come from in an error, such as a file.

        Raises:
            InputError: if a name is not a setting, or a value is not allowed.
        """
        check_names(values, cls, where)
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
