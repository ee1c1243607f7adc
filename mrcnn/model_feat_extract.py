"""The names of `mrcnn.model` under the module that scripts of the first AE-CFE import; `detect` gives "feats" in both.

There it was a copy of Matterport's file whose `detect` gave the RoI features too: float32 (n, 14, 14, channels), a row
for each of the n detections, in their order.
"""

from mrcnn.model import *  # noqa: F403
from mrcnn.model import __all__  # noqa: F401
