"""Mark coins in photos of a phone, keep the best weights, and look with them for coins.

A phone stores photos as its sensor lies and notes in EXIF how to turn them. The outlines (of VIA, as in balloon.py) are
in pixels of the stored photo, and so is everything here. The best weights come to best.weights.h5.

    python3 phone_photos.py train --dataset=/path/to/photos --weights=coco --epochs=10
    python3 phone_photos.py detect --dataset=/path/to/photos --weights=best.weights.h5
"""

import keras
import skimage.io
from balloon import CoinConfig, CoinDataset
from small_detector import load_model, parse_arguments

from mrcnn import model as modellib
from mrcnn import utils


class PhotoConfig(CoinConfig):
    NAME = "photo"
    DETECTION_MIN_CONFIDENCE = 0


class InferenceConfig(PhotoConfig):
    IMAGES_PER_GPU = 1


def load_photos(subset):
    dataset = CoinDataset()
    dataset.load_coins(args.dataset, subset)
    dataset.prepare()
    return dataset


def train(model, dataset_train, dataset_val):
    best = keras.callbacks.ModelCheckpoint(
        "best.weights.h5", monitor="val_loss", save_best_only=True, save_weights_only=True, verbose=1
    )
    model.train(
        dataset_train,
        dataset_val,
        learning_rate=model.config.LEARNING_RATE,
        epochs=args.epochs,
        layers="heads",
        custom_callbacks=[best],
    )


def detect(model, dataset):
    """Detections in each photo, and by how much the best of them overlap the marked coins."""
    results = []
    for image_id in dataset.image_ids:
        info = dataset.image_info[image_id]
        _, _, _, gt_boxes, _ = modellib.load_image_gt(dataset, model.config, image_id)
        r = model.detect([skimage.io.imread(info["path"])], verbose=0)[0]
        overlaps = utils.compute_overlaps(utils.extract_bboxes(r["masks"]), gt_boxes)
        print(f"{info['id']}: {len(r['rois'])} coins, best overlaps {overlaps.max(axis=0, initial=0)}")
        results.append(r)
    return results


if __name__ == "__main__":
    args = parse_arguments()
    dataset_val = load_photos("val")
    if args.command == "train":
        dataset_train = load_photos("train")
        model = load_model("training", PhotoConfig(), args.weights)
        train(model, dataset_train, dataset_val)
    else:
        model = load_model("inference", InferenceConfig(), args.weights)
        results = detect(model, dataset_val)
