"""Segment grains that lie in folders of PNG masks.

    DATASET/SUBSET/ID/images/ID.png
    DATASET/SUBSET/ID/masks/*.png      one for each grain

Run it from a folder two levels below the project:

    python3 nucleus_style.py train --dataset=/path/to/grains --subset=train --weights=imagenet
    python3 nucleus_style.py detect --dataset=/path/to/grains --subset=test --weights=last
"""

import datetime
import os
import sys

import matplotlib
import numpy as np
import skimage.io
from imgaug import augmenters as iaa

if __name__ == "__main__":
    # Agg backend runs without a display
    matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

ROOT_DIR = os.path.abspath("../../")

sys.path.append(ROOT_DIR)
from mrcnn import model as modellib  # noqa: E402
from mrcnn import utils, visualize  # noqa: E402
from mrcnn.config import Config  # noqa: E402

COCO_WEIGHTS_PATH = os.path.join(ROOT_DIR, "mask_rcnn_coco.h5")
DEFAULT_LOGS_DIR = os.path.join(ROOT_DIR, "logs")
# Submissions and pictures go here
RESULTS_DIR = os.path.join(ROOT_DIR, "results/grain/")

# Images of the training set that are kept for validation
VAL_IMAGE_IDS = ["grain003"]


class GrainConfig(Config):
    NAME = "grain"
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 1 + 1  # background, grain
    STEPS_PER_EPOCH = 2
    VALIDATION_STEPS = max(1, len(VAL_IMAGE_IDS) // IMAGES_PER_GPU)

    # Low, since many grains are near the threshold
    DETECTION_MIN_CONFIDENCE = 0
    BACKBONE = "resnet50"

    # Random crops of 64 x 64 from images twice as large as on disk
    IMAGE_RESIZE_MODE = "crop"
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    IMAGE_MIN_SCALE = 2.0

    RPN_ANCHOR_SCALES = (8, 16, 32, 48, 64)
    POST_NMS_ROIS_TRAINING = 40
    POST_NMS_ROIS_INFERENCE = 30
    RPN_NMS_THRESHOLD = 0.9
    RPN_TRAIN_ANCHORS_PER_IMAGE = 64

    # RGB
    MEAN_PIXEL = np.array([120.5, 95.0, 60.0])

    USE_MINI_MASK = True
    MINI_MASK_SHAPE = (28, 28)  # (height, width)

    TRAIN_ROIS_PER_IMAGE = 8
    MAX_GT_INSTANCES = 20
    DETECTION_MAX_INSTANCES = 10


class GrainInferenceConfig(GrainConfig):
    # One image at a time
    GPU_COUNT = 1
    IMAGES_PER_GPU = 1
    # Whole images, padded
    IMAGE_RESIZE_MODE = "pad64"
    RPN_NMS_THRESHOLD = 0.7


class GrainDataset(utils.Dataset):
    def load_grains(self, dataset_dir, subset):
        """Register images.

        subset: "val" for the held-out images, "train" for the others, else the name of a folder
        """
        self.add_class("grain", 1, "grain")

        subset_dir = "train" if subset in ["train", "val"] else subset
        dataset_dir = os.path.join(dataset_dir, subset_dir)
        if subset == "val":
            image_ids = VAL_IMAGE_IDS
        else:
            image_ids = sorted(next(os.walk(dataset_dir))[1])
            if subset == "train":
                image_ids = sorted(set(image_ids) - set(VAL_IMAGE_IDS))

        for image_id in image_ids:
            self.add_image(
                "grain", image_id=image_id, path=os.path.join(dataset_dir, image_id, f"images/{image_id}.png")
            )

    def load_mask(self, image_id):
        info = self.image_info[image_id]
        mask_dir = os.path.join(os.path.dirname(os.path.dirname(info["path"])), "masks")
        mask = []
        for f in sorted(next(os.walk(mask_dir))[2]):
            if f.endswith(".png"):
                m = skimage.io.imread(os.path.join(mask_dir, f)).astype(bool)
                mask.append(m)
        mask = np.stack(mask, axis=-1)
        return mask, np.ones([mask.shape[-1]], dtype=np.int32)

    def image_reference(self, image_id):
        info = self.image_info[image_id]
        if info["source"] == "grain":
            return info["id"]
        return super(self.__class__, self).image_reference(image_id)


def train(model, dataset_dir, subset):
    dataset_train = GrainDataset()
    dataset_train.load_grains(dataset_dir, subset)
    dataset_train.prepare()

    dataset_val = GrainDataset()
    dataset_val.load_grains(dataset_dir, "val")
    dataset_val.prepare()

    augmentation = iaa.SomeOf(
        (0, 2),
        [
            iaa.Fliplr(0.5),
            iaa.Flipud(0.5),
            iaa.OneOf([iaa.Affine(rotate=90), iaa.Affine(rotate=180), iaa.Affine(rotate=270)]),
            iaa.Multiply((0.8, 1.5)),
            iaa.GaussianBlur(sigma=(0.0, 5.0)),
        ],
    )

    print("Train network heads")
    model.train(
        dataset_train,
        dataset_val,
        learning_rate=config.LEARNING_RATE,
        epochs=args.epochs,
        augmentation=augmentation,
        layers="heads",
    )

    print("Train all layers")
    model.train(
        dataset_train,
        dataset_val,
        learning_rate=config.LEARNING_RATE,
        epochs=2 * args.epochs,
        augmentation=augmentation,
        layers="all",
    )


def rle_encode(mask):
    """Run lengths of a mask: start (from 1, down the columns) and length of each run."""
    assert mask.ndim == 2, "Mask must be of shape [Height, Width]"
    m = np.concatenate([[0], mask.T.flatten(), [0]])
    change = np.where(m[1:] != m[:-1])[0] + 1
    change[1::2] -= change[::2]
    return " ".join(str(v) for v in change)


def mask_to_rle(image_id, mask, scores):
    """Lines of the submission for one image; of masks that overlap, the better one keeps the pixels."""
    assert mask.ndim == 3, "Mask must be [H, W, count]"
    if mask.shape[-1] == 0:
        return f"{image_id},"
    order = np.argsort(scores)[::-1] + 1
    mask = np.max(mask * np.reshape(order, [1, 1, -1]), -1)
    lines = []
    for o in order:
        m = np.where(mask == o, 1, 0)
        if m.sum() == 0.0:
            continue
        lines.append(f"{image_id}, {rle_encode(m)}")
    return "\n".join(lines)


def detect(model, dataset_dir, subset):
    """Run detection on the images of a folder and write the submission."""
    print(f"Running on {dataset_dir}")

    if not os.path.exists(RESULTS_DIR):
        os.makedirs(RESULTS_DIR)
    submit_dir = os.path.join(RESULTS_DIR, f"submit_{datetime.datetime.now():%Y%m%dT%H%M%S}")
    os.makedirs(submit_dir)

    dataset = GrainDataset()
    dataset.load_grains(dataset_dir, subset)
    dataset.prepare()

    submission, results = [], []
    for image_id in dataset.image_ids:
        image = dataset.load_image(image_id)
        r = model.detect([image], verbose=0)[0]
        results.append((image, r))
        source_id = dataset.image_info[image_id]["id"]
        submission.append(mask_to_rle(source_id, r["masks"], r["scores"]))
        visualize.display_instances(
            image,
            r["rois"],
            r["masks"],
            r["class_ids"],
            dataset.class_names,
            r["scores"],
            show_bbox=False,
            show_mask=False,
            title="Predictions",
        )
        plt.savefig(f"{submit_dir}/{source_id}.png")
        plt.close()

    file_path = os.path.join(submit_dir, "submit.csv")
    with open(file_path, "w") as f:
        f.write("ImageId,EncodedPixels\n" + "\n".join(submission))
    print("Saved to ", submit_dir)
    return submit_dir, results


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description="Mask R-CNN for counting and segmenting grains")
    parser.add_argument("command", metavar="<command>", help="'train' or 'detect'")
    parser.add_argument("--dataset", required=True, metavar="/path/to/dataset/", help="Root directory of the data")
    parser.add_argument("--weights", required=True, metavar="/path/to/weights.h5", help="or 'coco', 'last', 'imagenet'")
    parser.add_argument("--logs", default=DEFAULT_LOGS_DIR, metavar="/path/to/logs/", help="default: logs/")
    parser.add_argument("--subset", metavar="Dataset sub-directory", help="Subset to train or detect on")
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()

    if args.command == "train":
        assert args.dataset, "Argument --dataset is required for training"
    elif args.command == "detect":
        assert args.subset, "Provide --subset to run prediction on"

    config = GrainConfig() if args.command == "train" else GrainInferenceConfig()
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
        model.load_weights(
            weights_path, by_name=True, exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]
        )
    else:
        model.load_weights(weights_path, by_name=True)

    if args.command == "train":
        train(model, args.dataset, args.subset)
    elif args.command == "detect":
        submit_dir, results = detect(model, args.dataset, args.subset)
    else:
        print(f"'{args.command}' is not recognized. Use 'train' or 'detect'")
