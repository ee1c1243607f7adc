"""Warnings of a training whose latents, or one side of whose adversarial training, collapse."""

import logging
import math
from collections.abc import Mapping

import keras

from autoencoder.step import DISCRIMINATOR, LATENT_DEVIATION

logger = logging.getLogger(__name__)

# Epochs in a row that must show the same before anything is said.
PATIENCE = 5
# Latents lie in (-1, 1); an untrained encoder gives about 0.1.
SHRUNKEN_DEVIATION = 0.005
SURE_ACCURACY = 0.99
# Above the accuracy, and below the loss, of a discriminator that knows nothing.
CHANCE_MARGIN = 0.02


class CollapseWatch(keras.callbacks.Callback):
    """Warn, once for each, when the latents or one side of the adversarial training collapse."""

    def __init__(self, num_centres: int):
        super().__init__()
        self.num_centres = num_centres
        self._rows: dict[str, int] = {}  # epochs, one after the other, by the warning that they call for

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Look at the means of an epoch, with the number of its last step."""
        # Without a discriminator both are NaN, and nothing holds of NaN.
        loss, accuracy = (logs.get(name, math.nan) for name in DISCRIMINATOR)
        is_lost = accuracy < 1 / self.num_centres + CHANCE_MARGIN and loss > math.log(self.num_centres) - CHANCE_MARGIN
        signs = {
            "step %(step)d: the latents have shrunk to a standard deviation of %(latent_deviation).2g and hardly tell "
            "cells apart; lower beta, or give adaptation_warmup_steps": logs[LATENT_DEVIATION] < SHRUNKEN_DEVIATION,
            "step %(step)d: the discriminator knows the centre of nearly every cell (accuracy "
            "%(discriminator_accuracy).2f) and the encoder cannot hide it; raise beta, or lower "
            "discriminator_learning_rate": accuracy > SURE_ACCURACY,
            "step %(step)d: the discriminator only guesses (accuracy %(discriminator_accuracy).2f, loss "
            "%(discriminator_loss).2f) and no longer guides the encoder: the centres are mixed, or it has collapsed; "
            "against that raise discriminator_learning_rate or lower beta": is_lost,
        }
        for message, holds in signs.items():
            rows = self._rows.get(message, 0)
            if rows < PATIENCE:
                self._rows[message] = rows + 1 if holds else 0
                if self._rows[message] == PATIENCE:
                    logger.warning(message, logs)
