"""Which layers learn: Matterport's short names and regular expressions."""

import re
from collections.abc import Iterator, Sequence

import keras

from mrcnn.errors import InputError

# Matterport's short names for "which layers learn".
LAYER_PATTERNS = {
    "heads": r"(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "3+": r"(res3.*)|(bn3.*)|(res4.*)|(bn4.*)|(res5.*)|(bn5.*)|(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "4+": r"(res4.*)|(bn4.*)|(res5.*)|(bn5.*)|(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "5+": r"(res5.*)|(bn5.*)|(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "all": ".*",
}


def choose_layers(layers: Sequence[keras.layers.Layer], layer_regex: str) -> Iterator[keras.layers.Layer]:
    """Let the layers learn whose whole name matches and freeze the others, those of nested models too.

    Args:
        layers: to choose among.
        layer_regex: a regular expression over names, or one of `LAYER_PATTERNS`.

    Returns:
        The layers with weights that learn; all are set before the first is given.

    Raises:
        InputError: if it is no regular expression.
    """
    try:
        pattern = re.compile(LAYER_PATTERNS.get(layer_regex, layer_regex))
    except re.error as error:
        raise InputError(f"layers {layer_regex!r}: not a regular expression ({error})") from None
    single = list(_without_models(layers))
    for layer in single:
        layer.trainable = pattern.fullmatch(layer.name) is not None
    return (layer for layer in single if layer.trainable and layer.weights)


def check_some_learn(layers: Sequence[keras.layers.Layer], layer_regex: str) -> None:
    """Refuse a choice under which nothing learns.

    Raises:
        InputError: if none of the layers has weights that learn.
    """
    if not any(layer.trainable and layer.weights for layer in layers):
        raise InputError(
            f"layers {layer_regex!r}: no layer with weights has such a name; give heads, 3+, 4+, 5+, all or a regular "
            "expression over whole names"
        )


def _without_models(layers: Sequence[keras.layers.Layer]) -> Iterator[keras.layers.Layer]:
    for layer in layers:
        if isinstance(layer, keras.Model):
            yield from _without_models(layer.layers)
        else:
            yield layer
