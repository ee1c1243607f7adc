"""How many cells of an image a detector can find, raising that, and telling where it was reached."""

import copy
import logging
from collections.abc import Sequence

from mrcnn.config import Config
from mrcnn.errors import InputError

log = logging.getLogger(__name__)

MAX_NAMED = 3
# Each cell comes from a proposal of its own.
LIMITS = ("DETECTION_MAX_INSTANCES", "POST_NMS_ROIS_INFERENCE")


def detection_limit(config: Config) -> int:
    """The most cells that a detector gives for one image."""
    return min(getattr(config, name) for name in LIMITS)


def with_detections(config: Config, max_detections: int) -> Config:
    """The same settings for `max_detections` cells of an image, with proposals enough for them.

    The number of proposals is raised where it is too small and never lowered.

    Raises:
        InputError: if `max_detections` is below 1.
    """
    if max_detections < 1:
        raise InputError(f"the number of detections must be at least 1; got {max_detections}")
    changed = copy.copy(config)
    changed.DETECTION_MAX_INSTANCES = max_detections
    changed.POST_NMS_ROIS_INFERENCE = max(config.POST_NMS_ROIS_INFERENCE, max_detections)
    changed.PRE_NMS_LIMIT = max(config.PRE_NMS_LIMIT, changed.POST_NMS_ROIS_INFERENCE)
    return changed


def warn_of_full(keys: Sequence[str], config: Config) -> None:
    """Say on which images as many cells were found as the detector gives, so that there may have been more.

    Args:
        keys: names of these images; nothing is said of none.
        config: of the detector.
    """
    if not keys:
        return
    more = f" and {len(keys) - MAX_NAMED} more" if len(keys) > MAX_NAMED else ""
    log.warning(
        "%d images have %d cells, the most that this detector gives, and perhaps others that were left out: %s%s "
        "(limits: DETECTION_MAX_INSTANCES %d, POST_NMS_ROIS_INFERENCE %d)",
        *(len(keys), detection_limit(config), ", ".join(keys[:MAX_NAMED]), more),
        *(config.DETECTION_MAX_INSTANCES, config.POST_NMS_ROIS_INFERENCE),
    )
