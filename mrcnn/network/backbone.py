"""ResNet-50 and ResNet-101, the layers named as in Matterport's weights, a small network, and the pyramid on them."""

import keras

from mrcnn.network.normalization import normalization

# Number of bottleneck blocks in stages 2 to 5 (He et al. 2016, table 1).
STAGE_BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
STAGE_FILTERS = (64, 128, 256, 512)
# Channels of the stem and of stages 2 to 5 of the small network.
SMALL_STEM, SMALL_FILTERS, SMALL_BLOCKS = 32, (48, 96, 160, 256), 2


def resnet(
    images: keras.KerasTensor, architecture: str, norm: str, stem_padding: str = "same"
) -> list[keras.KerasTensor]:
    """Build a ResNet on `images`, float `(batch, height, width, channels)`, mean subtracted.

    Args:
        images: what it sees.
        architecture: "resnet50" or "resnet101".
        norm: see `normalization`.
        stem_padding: how the first pooling meets the border. "same", as in Matterport's, pads images of even size at
            the bottom and right alone; "symmetric", as in `keras.applications`, pads all sides. Weights learned with
            one work with the other, but give slightly different numbers.

    Returns:
        [C2, C3, C4, C5]: the outputs of stages 2 to 5, at strides 4, 8, 16, 32 with 256, 512, 1024, 2048 channels.

    Reference:
        He et al. 2016, with the stride in the first 1x1 convolution of a stage, as its authors' weights have it.
    """
    x = keras.layers.ZeroPadding2D(3, name="conv1_pad")(images)
    x = keras.layers.Conv2D(64, 7, strides=2, kernel_initializer="he_normal", name="conv1")(x)
    x = normalization(norm, "bn_conv1")(x)
    x = keras.layers.ReLU(name="conv1_relu")(x)
    if stem_padding == "symmetric":
        x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same" if stem_padding == "same" else "valid", name="pool1")(x)
    stages = []
    for stage, (num_blocks, filters) in enumerate(zip(STAGE_BLOCKS[architecture], STAGE_FILTERS, strict=True), 2):
        for block in range(num_blocks):
            stride = 2 if block == 0 and stage > 2 else 1
            x = _bottleneck(x, filters, stride, block == 0, f"{stage}{chr(ord('a') + block)}", norm)
        stages.append(x)
    return stages


def _bottleneck(x, filters: int, stride: int, project: bool, block: str, norm: str):
    """One residual block of 1x1, 3x3 and 1x1 convolutions; `project` gives the shortcut its own 1x1."""

    def conv_norm(y, num_filters, size, branch, strides=1):
        name, initializer = f"res{block}_branch{branch}", "he_normal"
        y = keras.layers.Conv2D(num_filters, size, strides, "same", kernel_initializer=initializer, name=name)(y)
        return normalization(norm, f"bn{block}_branch{branch}")(y)

    y = keras.layers.ReLU(name=f"res{block}_relu_a")(conv_norm(x, filters, 1, "2a", stride))
    y = keras.layers.ReLU(name=f"res{block}_relu_b")(conv_norm(y, filters, 3, "2b"))
    y = conv_norm(y, 4 * filters, 1, "2c")
    shortcut = conv_norm(x, 4 * filters, 1, "1", stride) if project else x
    y = keras.layers.Add(name=f"res{block}_add")([y, shortcut])
    return keras.layers.ReLU(name=f"res{block}_out")(y)


def small_resnet(images: keras.KerasTensor, norm: str) -> list[keras.KerasTensor]:
    """Build a network for laptops: two blocks of two 3x3 convolutions in each stage, and few channels.

    At 160 px it takes a fifth of the multiply-adds of ResNet-50. Arguments and result are those of `resnet`, with 48,
    96, 160 and 256 channels.

    Reference:
        He et al. 2016, figure 5, left (the block); He et al. 2019, figure 2 (the stem of 3x3 convolutions).
    """

    def conv_norm(y, filters, name, strides=1, size=3):
        conv = keras.layers.Conv2D(
            filters, size, strides, "same", use_bias=False, kernel_initializer="he_normal", name=f"small{name}"
        )
        return normalization(norm, f"small{name}_norm", filters)(conv(y))

    x = images
    for place, filters in enumerate((SMALL_STEM, SMALL_FILTERS[0]), 1):
        x = keras.layers.ReLU(name=f"small_stem{place}_relu")(conv_norm(x, filters, f"_stem{place}", 2))
    stages = []
    for stage, filters in enumerate(SMALL_FILTERS, 2):
        for block in range(SMALL_BLOCKS):
            name = f"{stage}{chr(ord('a') + block)}"
            stride = 2 if block == 0 and stage > 2 else 1
            y = keras.layers.ReLU(name=f"small{name}_relu_a")(conv_norm(x, filters, f"{name}_conv1", stride))
            y = conv_norm(y, filters, f"{name}_conv2")
            shortcut = conv_norm(x, filters, f"{name}_shortcut", stride, 1) if stride > 1 else x
            x = keras.layers.ReLU(name=f"small{name}_out")(keras.layers.Add(name=f"small{name}_add")([y, shortcut]))
        stages.append(x)
    return stages


def feature_pyramid(
    stages: list[keras.KerasTensor], channels: int, norm: str, hidden: int | None = None
) -> list[keras.KerasTensor]:
    """Merge backbone stages from coarse to fine.

    Args:
        stages: [C2, C3, C4, C5].
        channels: width of every level.
        hidden: width in which the levels are merged, and from which a 1x1 convolution brings them to `channels`; None:
            in `channels`, without it.
        norm: "group" adds GroupNorm after each 3x3 output convolution, which training from scratch needs
            (He et al. 2018); the other kinds leave the pyramid without normalisation, as in Matterport's.

    Returns:
        [P2, P3, P4, P5, P6] at strides 4 to 64, each `(batch, height / stride, width / stride, channels)`. P6 only
        serves the proposals.

    Reference:
        Lin et al. 2017 (FPN), section 3.
    """

    def conv(x, size, name):
        return keras.layers.Conv2D(hidden or channels, size, padding="same", name=name)(x)

    merged = {5: conv(stages[3], 1, "fpn_c5p5")}
    for level in (4, 3, 2):
        lateral = conv(stages[level - 2], 1, f"fpn_c{level}p{level}")
        upsampled = keras.layers.UpSampling2D(2, name=f"fpn_p{level + 1}upsampled")(merged[level + 1])
        merged[level] = keras.layers.Add(name=f"fpn_p{level}add")([upsampled, lateral])
    outputs = []
    for level in (2, 3, 4, 5):
        x = conv(merged[level], 3, f"fpn_p{level}")
        x = normalization(norm, f"fpn_p{level}_gn", hidden or channels)(x) if norm == "group" else x
        outputs.append(keras.layers.Conv2D(channels, 1, name=f"fpn_p{level}_wide")(x) if hidden else x)
    outputs.append(keras.layers.MaxPooling2D(1, strides=2, name="fpn_p6")(outputs[-1]))
    return outputs
