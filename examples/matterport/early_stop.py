"""Segment grains (folders as in nucleus.py) in two stages, each of which ends when the validation loss falls no more.

A stage begins with the best weights of the one before. `epochs` is the number of the last epoch and no count: wherever
stage 1 stopped, stage 2 counts on from the number that stage 1 was to reach.

    python3 early_stop.py train --dataset=/path/to/grains --subset=train --weights=imagenet --epochs=20
"""

import os

import keras
from imgaug import augmenters as iaa
from nucleus import GrainConfig, GrainDataset
from small_detector import load_model, parse_arguments


class StagedConfig(GrainConfig):
    NAME = "staged"
    STEPS_PER_EPOCH = 1

    # A fall of the loss that counts. For this small network it is so large that it stops soon; 0.001 is usual.
    LEAST_FALL = 5.0
    PATIENCE = 1


class StageLog(keras.callbacks.Callback):
    """Notes by stage the epochs that ran and one layer's weights at the beginning."""

    def __init__(self):
        super().__init__()
        self.stages = []

    def on_train_begin(self, logs=None):
        self.stages.append({"epochs": [], "kernel": self.model.get_layer("fpn_p2").get_weights()[0]})

    def on_epoch_begin(self, epoch, logs=None):
        self.stages[-1]["epochs"].append(epoch + 1)


def train(model):
    dataset_train, dataset_val = GrainDataset(), GrainDataset()
    for dataset, subset in ((dataset_train, args.subset), (dataset_val, "val")):
        dataset.load_grains(args.dataset, subset)
        dataset.prepare()
    config, log = model.config, StageLog()
    for epochs, layers, rate in ((args.epochs, "heads", 1.0), (2 * args.epochs, "all", 0.1)):
        stop = keras.callbacks.EarlyStopping(
            monitor="val_loss", min_delta=config.LEAST_FALL, patience=config.PATIENCE, restore_best_weights=True
        )
        model.train(
            dataset_train,
            dataset_val,
            learning_rate=config.LEARNING_RATE * rate,
            epochs=epochs,
            layers=layers,
            augmentation=iaa.Sequential([iaa.Fliplr(0.5), iaa.Flipud(0.5)]),
            custom_callbacks=[stop, log],
        )
        # The best weights, not those of the last epoch
        model.keras_model.save_weights(os.path.join(model.model_dir, f"grain_{layers}.h5"))
    return log


if __name__ == "__main__":
    args = parse_arguments()
    model = load_model("training", StagedConfig(), args.weights)
    log = train(model)
