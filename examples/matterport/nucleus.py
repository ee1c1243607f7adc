"""Segment grains that lie in folders of PNG masks.

DATASET/SUBSET/ID/images/ID.png
DATASET/SUBSET/ID/masks/*.png      one for each grain

python3 nucleus.py train --dataset=/path/to/grains --subset=train --weights=imagenet
python3 nucleus.py detect --dataset=/path/to/grains --subset=test --weights=last
"""

import datetime
import os

import matplotlib
import numpy as np
import skimage.io
from imgaug import augmenters as iaa
from small_detector import SmallConfig, load_model, parse_arguments

if __name__ == "__main__":
    # Agg backend runs without a display
    matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from mrcnn import utils, visualize  # noqa: E402

# Submissions and pictures go here
RESULTS_DIR = os.path.join(os.path.abspath("../../"), "results/grain/")

# Images of the training set that are kept for validation
VAL_IMAGE_IDS = ["grain003"]


class GrainConfig(SmallConfig):
    NAME = "grain"
    NUM_CLASSES = 1 + 1  # background, grain
    VALIDATION_STEPS = max(1, len(VAL_IMAGE_IDS) // SmallConfig.IMAGES_PER_GPU)

    # Low, since many grains are near the threshold
    DETECTION_MIN_CONFIDENCE = 0

    # Random crops of 64 x 64 from images twice as large as on disk
    IMAGE_RESIZE_MODE = "crop"
    IMAGE_MIN_SCALE = 2.0

    RPN_NMS_THRESHOLD = 0.9
    RPN_TRAIN_ANCHORS_PER_IMAGE = 64
    MEAN_PIXEL = np.array([120.5, 95.0, 60.0])  # RGB
    USE_MINI_MASK = True
    MINI_MASK_SHAPE = (28, 28)  # (height, width)
    MAX_GT_INSTANCES = 20
    DETECTION_MAX_INSTANCES = 10


class GrainInferenceConfig(GrainConfig):
    # One image at a time, whole and padded
    IMAGES_PER_GPU = 1
    IMAGE_RESIZE_MODE = "pad64"
    RPN_NMS_THRESHOLD = 0.7


class GrainDataset(utils.Dataset):
    def load_grains(self, dataset_dir, subset):
        """Register images: "val" for the held-out ones, "train" for the others, else the name of a folder."""
        self.add_class("grain", 1, "grain")
        folder = os.path.join(dataset_dir, "train" if subset in ["train", "val"] else subset)
        if subset == "val":
            image_ids = VAL_IMAGE_IDS
        else:
            image_ids = sorted(set(next(os.walk(folder))[1]) - set(VAL_IMAGE_IDS))
        for image_id in image_ids:
            self.add_image("grain", image_id=image_id, path=os.path.join(folder, image_id, f"images/{image_id}.png"))

    def load_mask(self, image_id):
        mask_dir = os.path.join(os.path.dirname(os.path.dirname(self.image_info[image_id]["path"])), "masks")
        names = sorted(next(os.walk(mask_dir))[2])
        mask = np.stack([skimage.io.imread(os.path.join(mask_dir, f)).astype(bool) for f in names], axis=-1)
        return mask, np.ones([mask.shape[-1]], dtype=np.int32)


def train(model, dataset_dir, subset):
    dataset_train, dataset_val = GrainDataset(), GrainDataset()
    for dataset, name in ((dataset_train, subset), (dataset_val, "val")):
        dataset.load_grains(dataset_dir, name)
        dataset.prepare()
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
    rate = model.config.LEARNING_RATE
    for epochs, layers in ((args.epochs, "heads"), (2 * args.epochs, "all")):
        print("Train", layers)
        model.train(
            dataset_train, dataset_val, learning_rate=rate, epochs=epochs, augmentation=augmentation, layers=layers
        )


def rle_encode(mask):
    """Run lengths of a mask: start (from 1, down the columns) and length of each run."""
    m = np.concatenate([[0], mask.T.flatten(), [0]])
    change = np.where(m[1:] != m[:-1])[0] + 1
    change[1::2] -= change[::2]
    return " ".join(str(v) for v in change)


def mask_to_rle(image_id, mask, scores):
    """Lines of the submission for one image; of masks that overlap, the better one keeps the pixels."""
    if mask.shape[-1] == 0:
        return f"{image_id},"
    order = np.argsort(scores)[::-1] + 1
    mask = np.max(mask * np.reshape(order, [1, 1, -1]), -1)
    return "\n".join(f"{image_id}, {rle_encode(mask == o)}" for o in order if np.any(mask == o))


def detect(model, dataset_dir, subset):
    """Run detection on the images of a folder and write the submission."""
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
        found = r["rois"], r["masks"], r["class_ids"], dataset.class_names, r["scores"]
        visualize.display_instances(image, *found, show_bbox=False, show_mask=False, title="Predictions")
        plt.savefig(f"{submit_dir}/{source_id}.png")
        plt.close()
    with open(os.path.join(submit_dir, "submit.csv"), "w") as f:
        f.write("ImageId,EncodedPixels\n" + "\n".join(submission))
    return submit_dir, results


if __name__ == "__main__":
    args = parse_arguments()
    config = GrainConfig() if args.command == "train" else GrainInferenceConfig()
    model = load_model("training" if args.command == "train" else "inference", config, args.weights)
    if args.command == "train":
        train(model, args.dataset, args.subset)
    else:
        submit_dir, results = detect(model, args.dataset, args.subset)
