"""Mark coins in photos and leave only them in colour.

Annotations come from the VGG Image Annotator (VIA 1 or 2), as DATASET/SUBSET/via_region_data.json beside the images:

    python3 balloon.py train --dataset=/path/to/coins --weights=coco
    python3 balloon.py splash --weights=last --image=photo.png
"""

import datetime
import json
import os

import numpy as np
import skimage.color
import skimage.draw
import skimage.io
from small_detector import SmallConfig, load_model, parse_arguments

from mrcnn import utils


class CoinConfig(SmallConfig):
    NAME = "coin"
    NUM_CLASSES = 1 + 1  # background, coin
    DETECTION_MIN_CONFIDENCE = 0.3


class InferenceConfig(CoinConfig):
    IMAGES_PER_GPU = 1


class CoinDataset(utils.Dataset):
    def load_coins(self, dataset_dir, subset):
        self.add_class("coin", 1, "coin")
        folder = os.path.join(dataset_dir, subset)
        with open(os.path.join(folder, "via_region_data.json")) as f:
            annotations = [a for a in json.load(f).values() if a["regions"]]
        for a in annotations:
            # VIA 1 saves the regions as a dict, VIA 2 as a list.
            regions = a["regions"].values() if isinstance(a["regions"], dict) else a["regions"]
            polygons = [r["shape_attributes"] for r in regions]
            path = os.path.join(folder, a["filename"])
            height, width = skimage.io.imread(path).shape[:2]  # the json has none
            self.add_image("coin", image_id=a["filename"], path=path, width=width, height=height, polygons=polygons)

    def load_mask(self, image_id):
        info = self.image_info[image_id]
        if info["source"] != "coin":
            return super(self.__class__, self).load_mask(image_id)
        mask = np.zeros([info["height"], info["width"], len(info["polygons"])], dtype=np.uint8)
        for i, p in enumerate(info["polygons"]):
            rr, cc = skimage.draw.polygon(p["all_points_y"], p["all_points_x"], mask.shape[:2])
            mask[rr, cc, i] = 1
        return mask.astype(bool), np.ones([mask.shape[-1]], dtype=np.int32)

    def image_reference(self, image_id):
        info = self.image_info[image_id]
        if info["source"] == "coin":
            return info["path"]
        return super(self.__class__, self).image_reference(image_id)


def train(model):
    dataset_train, dataset_val = CoinDataset(), CoinDataset()
    for dataset, subset in ((dataset_train, "train"), (dataset_val, "val")):
        dataset.load_coins(args.dataset, subset)
        dataset.prepare()
    print("Training network heads")
    rate = model.config.LEARNING_RATE
    model.train(dataset_train, dataset_val, learning_rate=rate, epochs=args.epochs, layers="heads")


def detect_and_color_splash(model, image_path):
    """Keep colour where any instance is; the rest becomes grey."""
    image = skimage.io.imread(image_path)
    r = model.detect([image], verbose=1)[0]
    gray = skimage.color.gray2rgb(skimage.color.rgb2gray(image)) * 255
    inside = np.sum(r["masks"], -1, keepdims=True) >= 1
    splash = np.where(inside, image, gray).astype(np.uint8)
    skimage.io.imsave(f"splash_{datetime.datetime.now():%Y%m%dT%H%M%S}.png", splash)
    return r


if __name__ == "__main__":
    args = parse_arguments()
    if args.command == "train":
        train(load_model("training", CoinConfig(), args.weights))
    else:
        model = load_model("inference", InferenceConfig(), args.weights)
        result = detect_and_color_splash(model, args.image)
