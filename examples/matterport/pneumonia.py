"""Find opacities in grey X-ray images whose boxes stand in a table, and write a submission.

DATASET/train/*.png, DATASET/test/*.png
DATASET/labels.csv    patientId,x,y,width,height,Target: a line for each box; the box of a patient of target 0 is empty

    python3 pneumonia.py train --dataset=/path/to/data --weights=coco --epochs=10
"""

import csv
import glob
import os
from collections import defaultdict

import cv2
import numpy as np
from imgaug import augmenters as iaa
from small_detector import SmallConfig, load_model, parse_arguments

from mrcnn import model as modellib
from mrcnn import utils


class DetectorConfig(SmallConfig):
    NAME = "pneumonia"
    NUM_CLASSES = 1 + 1  # background, opacity
    RPN_ANCHOR_SCALES = (8, 16, 32, 48)  # none for the last level of the pyramid
    DETECTION_MIN_CONFIDENCE = 0
    DETECTION_NMS_THRESHOLD = 0.1


class InferenceConfig(DetectorConfig):
    IMAGES_PER_GPU = 1


class DetectorDataset(utils.Dataset):
    def __init__(self, image_fps, image_annotations, orig_height, orig_width):
        super().__init__(self)
        self.add_class("pneumonia", 1, "Lung Opacity")
        for i, fp in enumerate(image_fps):
            annotations = image_annotations[os.path.splitext(os.path.basename(fp))[0]]
            self.add_image("pneumonia", i, fp, annotations=annotations, orig_height=orig_height, orig_width=orig_width)

    def image_reference(self, image_id):
        return self.image_info[image_id]["path"]

    def load_image(self, image_id):
        image = cv2.imread(self.image_info[image_id]["path"], cv2.IMREAD_GRAYSCALE)
        return np.stack((image,) * 3, -1)

    def load_mask(self, image_id):
        info = self.image_info[image_id]
        boxes = [a for a in info["annotations"] if int(a["Target"])]
        # A healthy patient has one mask, which is empty and of no class.
        mask = np.zeros((info["orig_height"], info["orig_width"], max(len(boxes), 1)), dtype=np.uint8)
        class_ids = np.zeros((mask.shape[-1],), dtype=np.int32)
        for i, a in enumerate(boxes):
            x, y, w, h = (int(float(a[k])) for k in ("x", "y", "width", "height"))
            mask[y : y + h, x : x + w, i] = 1
            class_ids[i] = 1
        return mask.astype(bool), class_ids


def load_dataset(subset, side=64):
    annotations = defaultdict(list)
    with open(os.path.join(args.dataset, "labels.csv")) as f:
        for row in csv.DictReader(f):
            annotations[row["patientId"]].append(row)
    image_fps = sorted(glob.glob(os.path.join(args.dataset, subset, "*.png")))
    dataset = DetectorDataset(image_fps, annotations, side, side)
    dataset.prepare()
    return dataset


def train(model):
    """Train in two stages; the losses of all epochs, by name."""
    augmentation = iaa.SomeOf((0, 1), [iaa.Fliplr(0.5), iaa.Affine(scale=(0.9, 1.1)), iaa.Multiply((0.9, 1.1))])
    datasets, rate, history = (load_dataset("train"), load_dataset("val")), model.config.LEARNING_RATE, {}
    for epochs, layers, augmenter in ((args.epochs, "heads", None), (2 * args.epochs, "all", augmentation)):
        model.train(*datasets, learning_rate=rate, epochs=epochs, layers=layers, augmentation=augmenter)
        # Each call begins a history of its own.
        new_history = model.keras_model.history.history
        history = {k: history.get(k, []) + new_history[k] for k in new_history}
    return history


def predict(model, dataset):
    """Lines of the submission: score x y width height of each box."""
    lines = ["patientId,PredictionString"]
    for image_id in dataset.image_ids:
        r = model.detect([dataset.load_image(image_id)])[0]
        boxes = zip(r["scores"], r["rois"], strict=True)
        boxes = [f"{s:.3f} {x1} {y1} {x2 - x1} {y2 - y1}" for s, (y1, x1, y2, x2) in boxes]
        patient = os.path.splitext(os.path.basename(dataset.image_reference(image_id)))[0]
        lines.append(patient + "," + " ".join(boxes))
    return lines


if __name__ == "__main__":
    args = parse_arguments()
    model = load_model("training", DetectorConfig(), args.weights)
    history = train(model)
    best_epoch = np.argmin(history["val_loss"])
    print("Best epoch:", best_epoch + 1, history["val_loss"][best_epoch])
    model_path = sorted(glob.glob(os.path.join(model.log_dir, "mask_rcnn*.h5")))[best_epoch]

    model = modellib.MaskRCNN(mode="inference", config=InferenceConfig(), model_dir=model.model_dir)
    model.load_weights(model_path, by_name=True)
    lines = predict(model, load_dataset("test"))
    with open("submission.csv", "w") as f:
        f.write("\n".join(lines) + "\n")
