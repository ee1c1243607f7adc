"""Settings of the thesis' experiments: the section `reproduce` of a run's YAML file."""

from dataclasses import dataclass, field
from typing import Any

from mrcnn.errors import InputError

# Thesis Table 3.1.
SIZES = (5, 10, 50, 100, 150, 300, 400, 650, 1000)
BACKBONES = ("resnet101", "resnet50")
# Columns of thesis Table 3.2 that are autoencoders, and what tells them apart.
AUTOENCODER_COLUMNS: dict[str, dict[str, Any]] = {
    "AE-RF": {"adaptation": "none"},
    "ND-AE-DA": {"adaptation": "normal"},
    "AAE-DA": {"adaptation": "adversarial"},
    "AE-CFE": {"adaptation": "mmd"},
}
HANDMADE, HANDMADE_LAB, RESNET, RCNN = "Hand-made", "Hand-made, Lab", "ResNet-RF", "R-CNN-RF"
COLUMNS = (HANDMADE, HANDMADE_LAB, RESNET, RCNN, *AUTOENCODER_COLUMNS)
STANDARDISE = ("none", "centre")


@dataclass
class BottleneckSettings:
    """Thesis Table 3.1 and Figures 3.6 to 3.13.

    Attributes:
        sizes: of the latent.
        backbones: of the detectors, "resnet101" and "resnet50".
        image_losses: "mse", "ssim".
        image_sources: "image", the whole image, and "crop", the cell's box.
        centre: whose training part the forest learns from and whose test part it is tested on; None takes the
            autoencoder's source centre.
        autoencoder: overrides of the run's section `autoencoder`, for this grid alone, but not of what the grid sets.
    """

    sizes: list[int] = field(default_factory=lambda: list(SIZES))
    backbones: list[str] = field(default_factory=lambda: list(BACKBONES))
    image_losses: list[str] = field(default_factory=lambda: ["mse", "ssim"])
    image_sources: list[str] = field(default_factory=lambda: ["image", "crop"])
    centre: str | None = None
    autoencoder: dict[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Check what the types do not say.

        Raises:
            InputError: naming the setting.
        """
        for name, allowed in (
            ("backbones", BACKBONES),
            ("image_losses", ("mse", "ssim")),
            ("image_sources", ("image", "crop")),
        ):
            _check_choices(f"reproduce.bottleneck.{name}", getattr(self, name), allowed)
        if not self.sizes or any(size < 1 for size in self.sizes):
            raise InputError(f"reproduce.bottleneck.sizes: one number or more, of 1 or more each; got {self.sizes}")
        for taken in ("adaptation", "latent_size", "image_loss", "image_source"):
            if taken in self.autoencoder:
                raise InputError(f"reproduce.bottleneck.autoencoder.{taken}: is set by the table itself; leave it out")


@dataclass
class AblationSettings:
    """Thesis Table 3.2.

    Attributes:
        columns: representations to compare: "Hand-made", the same of crops that are standardised in Lab first
            ("Hand-made, Lab"), "ResNet-RF", "R-CNN-RF", and autoencoders, which are the four of the thesis or names of
            `autoencoders`.
        autoencoders: by column, overrides of the run's section `autoencoder`. Other names than those of the thesis make
            columns of their own.
        training_runs: trainings of each autoencoder, with seeds that follow each other; run number r of a classifier
            takes training number r modulo this.
        standardise: "none" takes features as they are, "centre" standardises each within its centre, without labels;
            each entry makes a column of each representation.
        reference: column that the others are compared with, cell by cell.
    """

    columns: list[str] = field(default_factory=lambda: list(COLUMNS))
    autoencoders: dict[str, dict[str, Any]] = field(default_factory=dict)
    training_runs: int = 1
    standardise: list[str] = field(default_factory=lambda: list(STANDARDISE))
    reference: str = "AE-CFE"

    def validate(self) -> None:
        """Check what the types do not say.

        Raises:
            InputError: naming the setting.
        """
        _check_choices("reproduce.ablation.columns", self.columns, (*COLUMNS, *self.autoencoders))
        _check_choices("reproduce.ablation.standardise", self.standardise, STANDARDISE)
        if self.training_runs < 1:
            raise InputError(f"reproduce.ablation.training_runs must be 1 or more; got {self.training_runs}")
        reserved = sorted({HANDMADE, HANDMADE_LAB, RESNET, RCNN} & set(self.autoencoders))
        if reserved:
            raise InputError(f"reproduce.ablation.autoencoders: {reserved[0]!r} is no autoencoder; choose another name")

    def autoencoder_of(self, column: str) -> dict[str, Any] | None:
        """Overrides of the run's section `autoencoder` for a column, or None if it is no autoencoder."""
        if column not in AUTOENCODER_COLUMNS and column not in self.autoencoders:
            return None
        return {**AUTOENCODER_COLUMNS.get(column, {}), **self.autoencoders.get(column, {})}


@dataclass
class OracleSettings:
    """Thesis Table 3.3.

    Attributes:
        normalizations: of the ResNeXt: "batch", "group".
        training_runs: trainings of each, with seeds that follow each other.
        network: overrides of `experiments.oracle_config.OracleConfig`.
    """

    normalizations: list[str] = field(default_factory=lambda: ["batch", "group"])
    training_runs: int = 1
    network: dict[str, Any] = field(default_factory=dict)

    def validate(self) -> None:
        """Check what the types do not say.

        Raises:
            InputError: naming the setting.
        """
        _check_choices("reproduce.oracle.normalizations", self.normalizations, ("batch", "group"))
        if self.training_runs < 1:
            raise InputError(f"reproduce.oracle.training_runs must be 1 or more; got {self.training_runs}")
        for taken in ("normalization", "seed"):
            if taken in self.network:
                raise InputError(f"reproduce.oracle.network.{taken}: is set elsewhere; leave it out")


@dataclass
class ReproduceSettings:
    """The thesis' experiments.

    Attributes:
        bottleneck: Table 3.1 and Figures 3.6 to 3.13.
        ablation: Table 3.2.
        oracle: Table 3.3.
        resnet_weights: of ResNet-RF's ResNet-101: "imagenet" (downloaded, with a checksum), the path of that file, or
            "random" for an untrained network where no weights can be had.
        resnet_image_size: side in pixels to which crops are resized for it.
        bootstrap: resamples behind each interval.
        figure_cells: cells in each row of sheets and reconstructions.
    """

    bottleneck: BottleneckSettings = field(default_factory=BottleneckSettings)
    ablation: AblationSettings = field(default_factory=AblationSettings)
    oracle: OracleSettings = field(default_factory=OracleSettings)
    resnet_weights: str = "imagenet"
    resnet_image_size: int = 224
    bootstrap: int = 1000
    figure_cells: int = 8

    def validate(self) -> None:
        """Check what the types do not say.

        Raises:
            InputError: naming the setting.
        """
        for part in (self.bottleneck, self.ablation, self.oracle):
            part.validate()
        for name, least in (("resnet_image_size", 32), ("bootstrap", 100), ("figure_cells", 1)):
            if getattr(self, name) < least:
                raise InputError(f"reproduce.{name} must be {least} or more; got {getattr(self, name)}")


def _check_choices(where: str, values: list[str], allowed: tuple[str, ...]) -> None:
    if not values or len(set(values)) != len(values):
        raise InputError(f"{where}: name one or more, each once; got {values}")
    for value in values:
        if value not in allowed:
            raise InputError(f"{where}: {value!r} is none of {', '.join(allowed)}")
