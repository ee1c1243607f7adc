"""Mark coins in photos and leave only them in colour.

Annotations come from the VGG Image Annotator (VIA 1 or 2), as DATASET/train/via_region_data.json and
DATASET/val/via_region_data.json beside the images. Run it from a folder two levels below the project:

    python3 balloon_style.py train --dataset=/path/to/coins --weights=coco
    python3 balloon_style.py train --dataset=/path/to/coins --weights=last
    python3 balloon_style.py train --dataset=/path/to/coins --weights=imagenet
    python3 balloon_style.py splash --weights=/path/to/mask_rcnn_coin_0002.h5 --image=photo.png
"""

import datetime
import json
import os
import sys

import numpy as np
import skimage.color
import skimage.draw
import skimage.io

# Root directory of the project
ROOT_DIR = os.path.abspath("../../")

sys.path.append(ROOT_DIR)
from mrcnn import model as modellib  # noqa: E402
from mrcnn import utils  # noqa: E402
from mrcnn.config import Config  # noqa: E402

COCO_WEIGHTS_PATH = os.path.join(ROOT_DIR, "mask_rcnn_coco.h5")
DEFAULT_LOGS_DIR = os.path.join(ROOT_DIR, "logs")


class CoinConfig(Config):
    """One class, small photos."""

    NAME = "coin"
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 1 + 1  # background, coin
    STEPS_PER_EPOCH = 2
    VALIDATION_STEPS = 1
    DETECTION_MIN_CONFIDENCE = 0.3
    BACKBONE = "resnet50"
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 32, 48, 64)
    TRAIN_ROIS_PER_IMAGE = 8
    POST_NMS_ROIS_TRAINING = 40
    POST_NMS_ROIS_INFERENCE = 30
    DETECTION_MAX_INSTANCES = 8
    MAX_GT_INSTANCES = 6


class CoinDataset(utils.Dataset):
    def load_coins(self, dataset_dir, subset):
        """Register the images of "train" or "val" that have regions."""
        self.add_class("coin", 1, "coin")

        assert subset in ["train", "val"]
        dataset_dir = os.path.join(dataset_dir, subset)

        with open(os.path.join(dataset_dir, "via_region_data.json")) as f:
            annotations = json.load(f)
        annotations = [a for a in annotations.values() if a["regions"]]

        for a in annotations:
            # VIA 1 saves the regions as a dict, VIA 2 as a list.
            if isinstance(a["regions"], dict):
                polygons = [r["shape_attributes"] for r in a["regions"].values()]
            else:
                polygons = [r["shape_attributes"] for r in a["regions"]]

            # The json has no image size, so the image must be read.
            image_path = os.path.join(dataset_dir, a["filename"])
            image = skimage.io.imread(image_path)
            height, width = image.shape[:2]

            self.add_image(
                "coin", image_id=a["filename"], path=image_path, width=width, height=height, polygons=polygons
            )

    def load_mask(self, image_id):
        image_info = self.image_info[image_id]
        if image_info["source"] != "coin":
            return super(self.__class__, self).load_mask(image_id)

        mask = np.zeros([image_info["height"], image_info["width"], len(image_info["polygons"])], dtype=np.uint8)
        for i, p in enumerate(image_info["polygons"]):
            rr, cc = skimage.draw.polygon(p["all_points_y"], p["all_points_x"], mask.shape[:2])
            mask[rr, cc, i] = 1

        return mask.astype(bool), np.ones([mask.shape[-1]], dtype=np.int32)

    def image_reference(self, image_id):
        info = self.image_info[image_id]
        if info["source"] == "coin":
            return info["path"]
        return super(self.__class__, self).image_reference(image_id)


def train(model):
    dataset_train = CoinDataset()
    dataset_train.load_coins(args.dataset, "train")
    dataset_train.prepare()

    dataset_val = CoinDataset()
    dataset_val.load_coins(args.dataset, "val")
    dataset_val.prepare()

    print("Training network heads")
    model.train(dataset_train, dataset_val, learning_rate=config.LEARNING_RATE, epochs=args.epochs, layers="heads")


def color_splash(image, mask):
    """Keep colour where any instance is; the rest becomes grey.

    image: RGB image [height, width, 3]
    mask: instance masks [height, width, instance count]
    """
    gray = skimage.color.gray2rgb(skimage.color.rgb2gray(image)) * 255
    if mask.shape[-1] > 0:
        inside = np.sum(mask, -1, keepdims=True) >= 1
        splash = np.where(inside, image, gray).astype(np.uint8)
    else:
        splash = gray.astype(np.uint8)
    return splash


def detect_and_color_splash(model, image_path):
    print(f"Running on {image_path}")
    image = skimage.io.imread(image_path)
    r = model.detect([image], verbose=1)[0]
    splash = color_splash(image, r["masks"])
    file_name = f"splash_{datetime.datetime.now():%Y%m%dT%H%M%S}.png"
    skimage.io.imsave(file_name, splash)
    print("Saved to ", file_name)
    return r


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description="Train Mask R-CNN to find coins.")
    parser.add_argument("command", metavar="<command>", help="'train' or 'splash'")
    parser.add_argument("--dataset", metavar="/path/to/coins/", help="Directory of the data set")
    parser.add_argument("--weights", required=True, metavar="/path/to/weights.h5", help="or 'coco', 'last', 'imagenet'")
    parser.add_argument("--logs", default=DEFAULT_LOGS_DIR, metavar="/path/to/logs/", help="default: logs/")
    parser.add_argument("--image", metavar="path to image", help="Image to splash")
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()

    if args.command == "train":
        assert args.dataset, "Argument --dataset is required for training"
    elif args.command == "splash":
        assert args.image, "Provide --image to apply color splash"

    print("Weights: ", args.weights)
    print("Dataset: ", args.dataset)
    print("Logs: ", args.logs)

    if args.command == "train":
        config = CoinConfig()
    else:

        class InferenceConfig(CoinConfig):
            # One image at a time
            GPU_COUNT = 1
            IMAGES_PER_GPU = 1

        config = InferenceConfig()
    config.display()

    if args.command == "train":
        model = modellib.MaskRCNN(mode="training", config=config, model_dir=args.logs)
    else:
        model = modellib.MaskRCNN(mode="inference", config=config, model_dir=args.logs)

    if args.weights.lower() == "coco":
        weights_path = COCO_WEIGHTS_PATH
        if not os.path.exists(weights_path):
            utils.download_trained_weights(weights_path)
    elif args.weights.lower() == "last":
        weights_path = model.find_last()
    elif args.weights.lower() == "imagenet":
        weights_path = model.get_imagenet_weights()
    else:
        weights_path = args.weights

    print("Loading weights ", weights_path)
    if args.weights.lower() == "coco":
        # The number of classes differs, so the last layers cannot be taken over.
        model.load_weights(
            weights_path, by_name=True, exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]
        )
    else:
        model.load_weights(weights_path, by_name=True)

    if args.command == "train":
        train(model)
    elif args.command == "splash":
        result = detect_and_color_splash(model, image_path=args.image)
    else:
        print(f"'{args.command}' is not recognized. Use 'train' or 'splash'")
