"""The feature pyramid on top of the backbone."""

import keras

from mrcnn.network.normalization import normalization


def feature_pyramid(stages: list[keras.KerasTensor], channels: int, norm: str) -> list[keras.KerasTensor]:
    """Merge backbone stages from coarse to fine.

    Args:
        stages: [C2, C3, C4, C5].
        channels: width of every level.
        norm: "group" adds GroupNorm after each 3x3 output convolution, which training from scratch needs
            (He et al. 2018); the other kinds leave the pyramid without normalisation, as in Matterport's.

    Returns:
        [P2, P3, P4, P5, P6] at strides 4 to 64, each `(batch, height / stride, width / stride, channels)`. P6 only
        serves the proposals.

    Reference:
        Lin et al. 2017 (FPN), section 3.
    """

    def conv(x, size, name):
        return keras.layers.Conv2D(channels, size, padding="same", name=name)(x)

    merged = {5: conv(stages[3], 1, "fpn_c5p5")}
    for level in (4, 3, 2):
        lateral = conv(stages[level - 2], 1, f"fpn_c{level}p{level}")
        upsampled = keras.layers.UpSampling2D(2, name=f"fpn_p{level + 1}upsampled")(merged[level + 1])
        merged[level] = keras.layers.Add(name=f"fpn_p{level}add")([upsampled, lateral])
    outputs = []
    for level in (2, 3, 4, 5):
        x = conv(merged[level], 3, f"fpn_p{level}")
        outputs.append(normalization(norm, f"fpn_p{level}_gn")(x) if norm == "group" else x)
    outputs.append(keras.layers.MaxPooling2D(1, strides=2, name="fpn_p6")(outputs[-1]))
    return outputs
