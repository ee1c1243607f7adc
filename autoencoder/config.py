"""Settings of one autoencoder, kept as `config.json` beside its weights.

Nothing here imports TensorFlow: the command line makes the options of `aecfe train` of these fields.
"""

import math
import os
import re
from typing import Literal

from pydantic import Field, field_validator

from mrcnn.files.atomic import write_json
from mrcnn.files.settings import Settings

ADAPTATIONS = ("none", "mmd", "normal", "adversarial", "kernel-mmd", "coral")
_MODULE_AND_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
# How often a run looks after itself; two runs that differ only here train the same model.
HOUSEKEEPING = ("checkpoint_every", "log_every")
# How long a run is; one that has ended can be made longer.
LENGTH = ("steps", "epochs")


class AutoencoderConfig(Settings):
    """Decides how an autoencoder is built and trained; the defaults are the thesis' (2.10, 3.4.3)."""

    latent_size: int = Field(50, ge=1, le=20_000, description="length of the latent, the thesis' bottleneck size")
    image_size: Literal[128, 64, 32] = Field(
        128,
        description="side of the reconstructed image in pixels; 64 and 32 leave out one or two of the image decoder's "
        "doublings and most of the work",
    )
    image_source: Literal["crop", "image"] = Field(
        "crop", description="reconstruct the grown detection box, or the whole image (thesis 3.3.1)"
    )
    image_colours: Literal["stored", "standardised"] = Field(
        "stored",
        description="reconstruct images as they are, or with each colour channel of each image brought to one mean and "
        "standard deviation, so that the latent need not say how a laboratory stains and lights",
    )
    image_loss: Literal["ssim", "mse"] = Field("ssim", description="loss of the image; ssim stands for 1 - SSIM")
    ssim: Literal["tf", "reference"] = Field("tf", description="SSIM of TensorFlow, or of the reference implementation")
    group_norm: Literal["keras", "reference"] = Field(
        "keras", description="GroupNorm of Keras in the encoder, or of the reference implementation"
    )
    feature_scaling: Literal["minmax", "channel", "centre"] = Field(
        "minmax",
        description="bring each sample to [-1, 1], standardise each channel over all centres, or within each centre",
    )
    adaptation: str = Field(
        "mmd",
        description="none; mmd: match the first two moments (thesis 2.14); normal: those of N(0, I) (2.8); "
        "adversarial: hide the centre from a discriminator (2.9 to 2.13); kernel-mmd: Gaussian kernels; coral: "
        "covariances; or MODULE:FUNCTION, a loss of your own (docs/add-a-method.md)",
    )
    adaptation_reduction: Literal["mean", "sum"] = Field(
        "mean",
        description="of the divergence in mmd and normal: mean over the covariance as the reference implementation, or "
        "sum as the equation",
    )
    adaptation_units: Literal["latent", "deviation"] = Field(
        "latent",
        description="align latents as they are, or in units of their standard deviation over the batch, so that "
        "shrinking them aligns nothing",
    )
    beta: float = Field(5.0, ge=0, description="weight of the adaptation loss (thesis 2.20)")
    # The loss is small long before the latent says anything; a warm-up lets it say something first.
    adaptation_warmup_steps: int = Field(0, ge=0, description="steps over which the weight grows linearly to beta")
    source_centre: str | None = Field(
        None, min_length=1, description="centre that the others are brought to; if left out, that of the first store"
    )
    balance: Literal["none", "centre", "type"] = Field(
        "none",
        description="cells of a batch: by the sizes of the centres, as many of each centre, or also as many of each "
        "cell type of the source (labels of the others are not looked at)",
    )
    global_batch_size: int = Field(1500, ge=1, le=10**6, description="cells in a step, over all devices")
    learning_rate: float = Field(1e-3, gt=0, description="learning rate of Adam")
    discriminator_learning_rate: float = Field(1e-3, gt=0, description="that of the second Adam, for adversarial")
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = Field(
        "float32", description="Keras dtype policy of the network; weights, SSIM and the adaptation loss stay float32"
    )
    steps: int | None = Field(None, ge=1, description="training steps; if left out, epochs count")
    epochs: float = Field(150.0, gt=0, description="epochs over all cells, where steps is left out")
    seed: int = Field(0, ge=0, description="fixes initial weights and the order of samples")
    checkpoint_every: int = Field(100, ge=1, description="least number of steps between two checkpoints")
    log_every: int = Field(20, ge=1, description="steps of an epoch of Keras, whose mean makes a row of the log")

    @field_validator("adaptation")
    @classmethod
    def _check_adaptation(cls, value: str) -> str:
        if value not in ADAPTATIONS and not _MODULE_AND_FUNCTION.fullmatch(value):
            choices = ", ".join(ADAPTATIONS)
            raise ValueError(f"must be one of {choices}, or module:function for a loss of your own, got {value!r}")
        return value

    def num_steps(self, num_cells: int) -> int:
        """Steps of the whole training on `num_cells` cells: `steps`, or `epochs`, rounded up."""
        if self.steps is not None:
            return self.steps
        return math.ceil(self.epochs * num_cells / self.global_batch_size)

    def save(self, path: str | os.PathLike) -> None:
        """Write the settings to `path` as JSON, atomically."""
        write_json(path, self.to_dict())
