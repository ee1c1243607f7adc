"""The settings of one autoencoder, kept as `config.json` beside its weights."""

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from autoencoder.custom_losses import is_own_loss
from mrcnn.files.atomic import write_json
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import read_json_file

CHOICES: dict[str, tuple] = {
    "image_size": (128, 64, 32),
    "image_source": ("crop", "image"),
    "image_colours": ("stored", "standardised"),
    "image_loss": ("ssim", "mse"),
    "ssim": ("tf", "reference"),
    "group_norm": ("keras", "reference"),
    "feature_scaling": ("minmax", "channel", "centre"),
    "adaptation": ("none", "mmd", "normal", "adversarial", "kernel-mmd", "coral"),
    "adaptation_reduction": ("mean", "sum"),
    "adaptation_units": ("latent", "deviation"),
    "balance": ("none", "centre", "type"),
    "precision": ("float32", "mixed_float16", "mixed_bfloat16"),
}
# How often a run looks after itself; two runs that differ only here train the same model.
HOUSEKEEPING = ("checkpoint_every", "log_every")
# How long a run is; one that has ended can be made longer.
LENGTH = ("steps", "epochs")

_WHOLE_NUMBERS = {
    "latent_size": 1,
    "adaptation_warmup_steps": 0,
    "global_batch_size": 1,
    "steps": 1,
    "seed": 0,
    "checkpoint_every": 1,
    "log_every": 1,
}
# Far beyond what anybody trains; they keep a mistake from filling the memory.
_MOST = {"latent_size": 20_000, "global_batch_size": 10**6}
# Whether 0 is allowed.
_NUMBERS = (("beta", True), ("learning_rate", False), ("discriminator_learning_rate", False), ("epochs", False))


def check_names(values: Mapping[str, Any], config: type, where: str) -> None:
    """Refuse settings that a dataclass of settings does not know.

    Args:
        values: settings by name.
        config: the dataclass.
        where: what to call the place they come from.

    Raises:
        InputError: naming the setting, and the one that may have been meant.
    """
    names = [field.name for field in fields(config)]
    for key in values:
        if key not in names:
            close = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}"
            raise InputError(f"{where}: unknown setting {key!r}; {hint}")


@dataclass(frozen=True)
class AutoencoderConfig:
    """What decides how an autoencoder is built and trained; the defaults are the thesis' (2.10, 3.4.3).

    Attributes:
        latent_size: length of the latent (the thesis' bottleneck size).
        image_size: side of the reconstructed image in pixels: 128 as in the thesis, or 64 or 32, which leave
            out one or two of the image decoder's doublings and most of the work.
        image_source: "crop" reconstructs the grown detection box, "image" the whole image (section 3.3.1).
        image_colours: "stored" reconstructs images as they are; "standardised" with each colour channel of each image
            brought to one mean and deviation, so that the latent need not say how a laboratory stains and lights.
        image_loss: "ssim" for 1 - SSIM, or "mse".
        ssim: "tf" computes SSIM as `tf.image.ssim` does, "reference" as the reference implementation.
        group_norm: "keras" for Keras' GroupNorm in the encoder, "reference" for the reference implementation's.
        feature_scaling: "minmax" brings each sample to [-1, 1]; "channel" standardises each channel over all
            centres; "centre" standardises each channel within its centre.
        adaptation: "mmd" for moment matching (eq. 2.14), "normal" for alignment to N(0, I) (eq. 2.8),
            "adversarial" for a discriminator of the centres (eq. 2.9 to 2.13), "kernel-mmd" for the maximum mean
            discrepancy under Gaussian kernels, "coral" for CORAL, "none" for a plain autoencoder; or
            "module:function" for a loss of the user's own, see `own_losses`.
        adaptation_reduction: of the divergence in "mmd" and "normal": "mean" over the entries of the covariance
            as in the reference implementation, or "sum" as the equation says.
        adaptation_units: "latent" computes the adaptation loss on the latents as they are; "deviation" in units of
            their deviation over the batch, so that latents cannot be aligned by shrinking them.
        beta: weight of the adaptation loss (eq. 2.20).
        adaptation_warmup_steps: steps over which the weight grows linearly to `beta`; 0 starts at `beta`. The
            adaptation loss is small long before the latent says anything, and a warm-up lets it say something
            first.
        source_centre: the centre that the others are brought to; None takes the first store.
        balance: "none" gives each centre its share of a batch by size, "centre" equal shares, "type" equal shares
            and, within that of the source, every cell type equally often; labels of targets are not looked at.
        global_batch_size: samples in a step over all replicas.
        learning_rate: Adam's.
        discriminator_learning_rate: that of the second Adam, for "adversarial".
        precision: Keras dtype policy of the network; statistics of the adaptation, SSIM and all weights are
            float32 with each of them.
        steps: number of steps to train; None counts `epochs` instead.
        epochs: passes over all cells, used only where `steps` is None.
        seed: of the initial weights and of the order of samples.
        checkpoint_every: steps between checkpoints.
        log_every: steps whose mean makes a row of the log.

    Raises:
        InputError: if a value has the wrong type or lies outside its range.
    """

    latent_size: int = 50
    image_size: int = 128
    image_source: str = "crop"
    image_colours: str = "stored"
    image_loss: str = "ssim"
    ssim: str = "tf"
    group_norm: str = "keras"
    feature_scaling: str = "minmax"
    adaptation: str = "mmd"
    adaptation_reduction: str = "mean"
    adaptation_units: str = "latent"
    beta: float = 5.0
    adaptation_warmup_steps: int = 0
    source_centre: str | None = None
    balance: str = "none"
    global_batch_size: int = 1500
    learning_rate: float = 1e-3
    discriminator_learning_rate: float = 1e-3
    precision: str = "float32"
    steps: int | None = None
    epochs: float = 150
    seed: int = 0
    checkpoint_every: int = 100
    log_every: int = 20

    def __post_init__(self):
        for name, least in _WHOLE_NUMBERS.items():
            value = getattr(self, name)
            if name == "steps" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
            if value > _MOST.get(name, 2**63):
                raise InputError(f"{name} must be at most {_MOST.get(name, 2**63)}, got {value!r}")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or value not in choices:
                own = name == "adaptation"
                if own and is_own_loss(value):
                    continue
                hint = ", or module:function for a loss of your own" if own else ""
                raise InputError(f"{name} must be one of {', '.join(map(str, choices))}{hint}, got {value!r}")
        for name, allows_zero in _NUMBERS:
            value = getattr(self, name)
            number = not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
            if not number or value < 0 or (value == 0 and not allows_zero):
                raise InputError(
                    f"{name} must be a number {'of at least' if allows_zero else 'above'} 0, got {value!r}"
                )
        if self.source_centre is not None and (not isinstance(self.source_centre, str) or not self.source_centre):
            raise InputError(f"source_centre must be the name of a centre or null, got {self.source_centre!r}")

    @property
    def feature_activation(self) -> str:
        """Last activation of the feature decoder: it must be able to reach the scaled features."""
        return "tanh" if self.feature_scaling == "minmax" else "linear"

    def num_steps(self, num_cells: int) -> int:
        """Steps of the whole training on `num_cells` cells: `steps`, or `epochs` passes, rounded up."""
        if self.steps is not None:
            return self.steps
        return math.ceil(self.epochs * num_cells / self.global_batch_size)

    def adaptation_weight(self, step: int) -> float:
        """Weight of the adaptation loss in a step, counted from 0: between 0 and `beta`."""
        if self.adaptation == "none":
            return 0.0
        if step + 1 >= self.adaptation_warmup_steps:
            return float(self.beta)
        return self.beta * (step + 1) / self.adaptation_warmup_steps

    def differences(self, other: "AutoencoderConfig") -> list[str]:
        """Names of the settings in which `other` would train another model, or would have by the same step."""
        mine, theirs = asdict(self), asdict(other)
        return [name for name in mine if name not in (*HOUSEKEEPING, *LENGTH) and mine[name] != theirs[name]]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "autoencoder config") -> "AutoencoderConfig":
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

    def save(self, path: str | os.PathLike) -> None:
        """Write the settings to `path` as JSON, atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "AutoencoderConfig":
        """Read settings that `save` wrote.

        Raises:
            InputError: if the file is missing, is not a JSON object, or holds a setting that is not allowed.
        """
        values = read_json_file(
            path, missing="is this the folder of a trained autoencoder?", advice="correct it or train again"
        )
        if not isinstance(values, dict):
            raise InputError(f"{path}: a JSON object is expected, not {type(values).__name__}")
        return cls.from_dict(values, where=str(path))
