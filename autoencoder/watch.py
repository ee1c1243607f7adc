"""Watching a training for what no loss shows: latents that shrink to a point, and an adversary that has won or lost."""

import logging
import math
from collections.abc import Mapping

from autoencoder.step import DISCRIMINATOR, LATENT_DEVIATION

logger = logging.getLogger(__name__)

# Rows of the log in a row that must show the same before anything is said.
PATIENCE = 5
# Latents lie in (-1, 1); an untrained encoder gives about 0.1.
SHRUNKEN_DEVIATION = 0.005
SURE_ACCURACY = 0.99
# Above the accuracy, and below the loss, of a discriminator that knows nothing.
CHANCE_MARGIN = 0.02


class CollapseWatch:
    """Warn, once for each, when the latents or one side of the adversarial training collapse.

    Args:
        num_centres: centres that a discriminator tells apart.
    """

    def __init__(self, num_centres: int):
        self.num_centres = num_centres
        self._rows: dict[str, int] = {}  # of the log, one after the other, by what they show
        self._told: set[str] = set()

    def add(self, step: int, means: Mapping[str, float]) -> None:
        """Take a row of the log.

        Args:
            step: number of steps done.
            means: what `TrainingLog.add` returned.
        """
        deviation = means[LATENT_DEVIATION]
        self._count(
            deviation < SHRUNKEN_DEVIATION,
            "step %d: the latents have shrunk to a deviation of %.2g and hardly tell cells apart; lower beta, or give "
            "adaptation_warmup_steps",
            step,
            deviation,
        )
        if DISCRIMINATOR[0] not in means:
            return
        loss, accuracy = (means[name] for name in DISCRIMINATOR)
        self._count(
            accuracy > SURE_ACCURACY,
            "step %d: the discriminator knows the centre of nearly every cell (accuracy %.2f) and the encoder cannot "
            "hide it; raise beta, or lower discriminator_learning_rate",
            step,
            accuracy,
        )
        helpless = accuracy < 1 / self.num_centres + CHANCE_MARGIN and loss > math.log(self.num_centres) - CHANCE_MARGIN
        self._count(
            helpless,
            "step %d: the discriminator only guesses (accuracy %.2f, loss %.2f) and no longer guides the encoder: the "
            "centres are mixed, or it has collapsed; against that raise discriminator_learning_rate or lower beta",
            step,
            accuracy,
            loss,
        )

    def _count(self, holds: bool, message: str, *values: float) -> None:
        self._rows[message] = self._rows.get(message, 0) + 1 if holds else 0
        if self._rows[message] == PATIENCE and message not in self._told:
            self._told.add(message)
            logger.warning(message, *values)
