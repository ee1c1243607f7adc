"""What the scripts beside this file share: a small network, and the weights that they begin with.

They are run from a folder two levels below the project.
"""

import argparse
import os

from mrcnn import model as modellib
from mrcnn import utils
from mrcnn.config import Config


class SmallConfig(Config):
    GPU_COUNT = 1
    IMAGES_PER_GPU = 2
    STEPS_PER_EPOCH = 2
    VALIDATION_STEPS = 1
    BACKBONE = "resnet50"
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 32, 48, 64)
    TRAIN_ROIS_PER_IMAGE = 8
    POST_NMS_ROIS_TRAINING = 40
    POST_NMS_ROIS_INFERENCE = 30
    DETECTION_MAX_INSTANCES = 8
    MAX_GT_INSTANCES = 6


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", help="train, or what the script does with a trained network")
    parser.add_argument("--dataset", help="directory of the data set")
    parser.add_argument("--subset", help="its directory to train or detect on")
    parser.add_argument("--image", help="an image")
    parser.add_argument("--weights", required=True, help="path, coco, last or imagenet")
    parser.add_argument("--type", default="segm", help="what is evaluated: bbox or segm")
    parser.add_argument("--epochs", type=int, default=1)
    return parser.parse_args()


def load_model(mode, config, weights):
    """Make the network and load a file, or what the words say."""
    root = os.path.abspath("../../")
    config.display()
    model = modellib.MaskRCNN(mode=mode, config=config, model_dir=os.path.join(root, "logs"))
    if weights == "coco":
        path = os.path.join(root, "mask_rcnn_coco.h5")
        if not os.path.exists(path):
            utils.download_trained_weights(path)
        # The number of classes differs, so the last layers cannot be taken over.
        model.load_weights(
            path, by_name=True, exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"]
        )
        return model
    path = {"last": model.find_last, "imagenet": model.get_imagenet_weights}.get(weights, lambda: weights)()
    print("Loading weights ", path)
    model.load_weights(path, by_name=True)
    return model
