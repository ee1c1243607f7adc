"""The commands and the code of README.md and of the pages in docs/: each runs here or is listed below with a reason.

A page gets a folder of its own with what a reader has who did the steps before it: `smears/` with the three drawn
centres, `detector/`, `autoencoder/`, `features/<centre>.h5`, `embedding.h5ad`, and `runs/demo/`. What a command is
about to make there itself is taken away first.
"""

import argparse
import glob
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from aecfe.cli import build_parser, main

ROOT = Path(__file__).parents[2]
# What begins a block of commands that does not say that it is one.
PROGRAMS = ("make", "aecfe", ".venv/bin/aecfe", "python", "python3", ".venv/bin/python")
CATEGORIES = ("neutrophil", "eosinophil", "monocyte")
# What the commands get added here, so that all of them together take a minute; no result on the pages is of this size.
SMALLER = {
    "synth": "--images 20 --size 64",
    "detector train": """
        --set settings.BACKBONE=resnet50 --set settings.FPN_CLASSIF_FC_LAYERS_SIZE=64
        --set settings.IMAGE_MIN_DIM=64 --set settings.IMAGE_MAX_DIM=64
        --set settings.RPN_ANCHOR_SCALES=[8,16,24,32,48] --set settings.TRAIN_ROIS_PER_IMAGE=8
        --set settings.PRE_NMS_LIMIT=200 --set settings.POST_NMS_ROIS_TRAINING=40
        --set settings.POST_NMS_ROIS_INFERENCE=20 --set settings.MAX_GT_INSTANCES=4
        --set settings.DETECTION_MAX_INSTANCES=4 --set settings.IMAGES_PER_GPU=2
        --set settings.STEPS_PER_EPOCH=2 --set settings.VALIDATION_STEPS=0 --set epochs=1
        --set settings.DETECTION_MIN_CONFIDENCE=0""",  # having learned nothing it is sure of nothing
    "train": "--steps 2 --batch-size 6 --image-size 32 --set log_every=1",
    "evaluate": "--runs 1",
}
PREPARATION = """
    aecfe synth smears
    aecfe detector train smears/north --instances -o detector
    aecfe extract smears/north --detector detector -o features/north.h5
    aecfe extract smears/river --detector detector -o features/river.h5
    aecfe extract smears/harbour --detector detector -o features/harbour.h5
    aecfe train features/north.h5 features/river.h5 -o autoencoder
    aecfe embed autoencoder features/north.h5 features/river.h5 -o embedding.h5ad
"""
# Commands that are not run here, though those of aecfe must still be understood: they work on the whole repository for
# minutes; install or download; need data, GPUs, machines or programs that the reader has; or tests elsewhere run them.
NOT_RUN = re.compile(
    r"make (demo|test|bench)|benchmarks/|pip install|list_physical_devices|python3 -m venv"
    r"|reproduce |/path/to|my-images/|my\.yaml|matek|--weights|--gpus|TF_CONFIG|^#!|report runs/demo"
    r"|saved_model_cli|docker run|export pipeline"
)
# The same of code, found anywhere in a block.
CODE_NOT_RUN = re.compile(
    r"get_imagenet_weights|models/(pipeline|autoencoder)|find_cells\(\"smears|find_cells\(path\)|localhost|import grpc",
    re.MULTILINE,
)
# Pages on what a detector learns from: its training stops there once that was read and found good.
ONLY_READ = ("docs/data.md",)
# What stands in code on a page, and what takes its place here.
SMALLER_CODE = {
    "STEPS_PER_EPOCH = 100\n": "STEPS_PER_EPOCH = 2\n",
    "VALIDATION_STEPS = 5\n": "VALIDATION_STEPS = 0\n",  # which saves compiling
    "_DIM = 128\n": "_DIM = 64\n",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its info string after that, and its text."""

    page: str
    line: int
    language: str
    info: str
    text: str

    @property
    def title(self) -> str | None:
        """The file's name that the block is given, if any."""
        match = re.search(r'title="([^"]+)"', self.info)
        return match and match[1]

    @property
    def is_script(self) -> bool:
        """Whether it is a file for another program and no lines to type."""
        return self.text.startswith("#!")

    def commands(self) -> Iterator[str]:
        """The commands of a block of shell lines, each on one line and without its comment."""
        if self.is_script:
            yield self.text.splitlines()[0]
            return
        for line in re.sub(r" *\\\n *", " ", self.text).splitlines():
            command = re.sub(r"(^|\s+)#.*", "", line)
            if command:
                yield command


def page_names() -> list[str]:
    pages = [path for path in ROOT.glob("docs/**/*.md") if "api" not in path.parts]
    return [name for name in ("README.md", "SECURITY.md") if (ROOT / name).is_file()] + sorted(
        path.relative_to(ROOT).as_posix() for path in pages
    )


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = re.finditer(r"^( *)```(\w*)([^\n`]*)\n(.*?)^\1```$", text, flags=re.MULTILINE | re.DOTALL)
    return [
        Block(page, text.count("\n", 0, m.start()) + 1, m[2], m[3], re.sub(f"^{m[1]}", "", m[4], flags=re.MULTILINE))
        for m in fences
    ]


def is_shell(block: Block) -> bool:
    first = block.text.split(maxsplit=1)[0] if block.text.strip() else ""
    return block.language == "bash" or (not block.language and first in PROGRAMS)


def is_left_out(block: Block) -> bool:
    if block.language == "python":
        return CODE_NOT_RUN.search(block.text) is not None
    return all(NOT_RUN.search(command) for command in block.commands())


def words_of(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables that a command sets, and its words as a shell would expand them in the present folder."""
    words, variables = shlex.split(command), {}
    while words and re.match(r"[A-Z_]+=", words[0]):
        name, _, variables[name] = words.pop(0).partition("=")
    expanded = []
    for word in words:
        braces = re.fullmatch(r"(.*)\{([^{}\[\]]*,[^{}\[\]]*)\}(.*)", word)
        for one in [f"{braces[1]}{part}{braces[3]}" for part in braces[2].split(",")] if braces else [word]:
            expanded += sorted(glob.glob(one)) or [one]
    return variables, expanded


def aecfe_words(command: str) -> list[str] | None:
    words = words_of(command)[1]
    return words[1:] if words and words[0] in ("aecfe", ".venv/bin/aecfe") else None


def smaller(words: list[str]) -> list[str]:
    """The arguments with what makes their command small."""
    for command in (" ".join(words[:2]), words[0]):
        if command in SMALLER:
            return [*words, *shlex.split(SMALLER[command])]
    return words


def understood(words: list[str]) -> dict:
    """What a command is told here, by option."""
    return {name: value for name, value in vars(build_parser().parse_args(smaller(words))).items() if name != "command"}


def smaller_code(text: str) -> str:
    for shown, here in SMALLER_CODE.items():
        text = text.replace(shown, here)
    return text


def run_aecfe(words: list[str]) -> None:
    assert main(smaller(words)) == 0, shlex.join(["aecfe", *words])


def make_way(words: list[str], made: set[Path]) -> None:
    """Take away what the preparation made and this command makes itself; keep what the page has made.

    A command that is one of the preparation's finds its work done, as a reader would who gives it twice.
    """
    arguments = build_parser().parse_args(words)
    output = getattr(arguments, "output", None)
    if output is None or words[0] in ("run", "report"):
        return
    path = Path(output)
    prepared = [understood(shlex.split(line)[1:]) for line in PREPARATION.strip().splitlines()]
    if path not in made and path.exists() and understood(words) not in prepared:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    made.add(path)


def draw_outlines(folder: Path) -> None:
    """The masks of two centres as boxes in the formats of the tools that people draw with."""
    images, objects, project = [], [], {}
    (folder / "smears" / "north" / "drawn").mkdir()
    for number, path in enumerate(sorted((folder / "smears" / "north" / "masks").iterdir())):
        mask = np.asarray(Image.open(path))
        height, width = mask.shape
        images.append({"id": number, "file_name": path.name, "height": height, "width": width})
        shapes = []
        for cell in np.unique(mask[mask > 0]):
            rows, columns = np.nonzero(mask == cell)
            y1, x1, y2, x2 = (int(v) for v in (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1))
            polygon = [x1, y1, x2, y1, x2, y2, x1, y2]
            category = number % len(CATEGORIES)
            objects.append({"id": len(objects), "image_id": number, "category_id": category, "segmentation": [polygon]})
            shapes.append({"label": "WBC", "shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]})
        labelme = {"imagePath": path.name, "imageHeight": height, "imageWidth": width, "shapes": shapes}
        (folder / "smears" / "north" / "drawn" / f"{path.stem}.json").write_text(json.dumps(labelme))
    categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES)]
    coco = {"images": images, "annotations": objects, "categories": categories}
    (folder / "smears" / "north" / "instances.json").write_text(json.dumps(coco))
    for path in sorted((folder / "smears" / "river" / "masks").iterdir()):
        rows, columns = np.nonzero(np.asarray(Image.open(path)))
        box = {"name": "rect", "x": int(columns.min()), "y": int(rows.min())}
        box |= {"width": int(np.ptp(columns)) + 1, "height": int(np.ptp(rows)) + 1}
        regions = [{"shape_attributes": box, "region_attributes": {}}]
        project[path.name] = {"filename": path.name, "size": 0, "regions": regions, "file_attributes": {}}
    (folder / "smears" / "river" / "via_project.json").write_text(json.dumps({"_via_img_metadata": project}))


@pytest.fixture(scope="module", autouse=True)
def short_backbone(small_resnet):
    with small_resnet(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "agg")
        patch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=FirstPlane))
        yield


class FirstPlane:
    """A map at once, in the place of UMAP, which takes long to start."""

    def __init__(self, **options):
        pass

    def fit_transform(self, vectors):
        return vectors[:, :2]


@pytest.fixture(scope="module", autouse=True)
def open_detectors_once():
    """A detector that was opened stays open for the commands after it, which saves each of them its compiling."""
    from experiments.cells import detector as detector_stage
    from experiments.cells import export as export_pipeline
    from experiments.cells import features as embed_images
    from mrcnn import model

    original, opened = model.load_detector, {}

    def load_detector(folder, overrides=None, max_detections=None):
        contents = [(Path(folder) / name).read_bytes() for name in (model.CONFIG_NAME, model.WEIGHTS_NAME)]
        key = (*contents, repr(overrides), max_detections)
        if key not in opened:
            opened[key] = original(folder, overrides, max_detections)
        return opened[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in (model, detector_stage, embed_images, export_pipeline):
            patch.setattr(module, "load_detector", load_detector)
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder that every page gets a copy of."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in PREPARATION.strip().splitlines():
            run_aecfe(shlex.split(line)[1:])
    run = folder / "runs" / "demo"
    run.mkdir(parents=True)
    for name in ("detector", "autoencoder", "features"):
        shutil.copytree(folder / name, run / name)
    shutil.copytree(folder / "smears" / "river" / "images", folder / "my-images")
    shutil.copyfile(sorted((folder / "my-images").iterdir())[0], folder / "smear.png")
    return folder


@pytest.fixture
def reader(prepared, tmp_path, monkeypatch):
    """The present folder of somebody who reads a page."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    for name in ("experiments", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.parametrize("page", page_names())
def test_page_does_what_it_says(page, request):
    blocks = [block for block in blocks_of(page) if is_shell(block) or block.language == "python"]
    to_run = [block for block in blocks if not is_left_out(block)]
    if not to_run:
        return
    folder, monkeypatch = request.getfixturevalue("reader"), request.getfixturevalue("monkeypatch")
    if page in ONLY_READ:
        draw_outlines(folder)
        monkeypatch.setattr("experiments.cells.detector.train_detector", only_read)
    namespace, made = {"__name__": page}, set()
    for block in to_run:
        where = f"{page}:{block.line}"
        if block.title is not None:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        if block.language == "python":
            exec(compile(smaller_code(block.text), where, "exec"), namespace)
            continue
        for command in block.commands():
            if not NOT_RUN.search(command):
                run_command(command, made, where, keep=page in ONLY_READ)


def only_read(images, output, *, settings, **others) -> None:
    """Look at the first image and its cells instead of training."""
    for masked in images:
        dataset = masked.dataset()
        assert len(dataset.image_ids) > 0 and dataset.load_mask(0)[0].any()


def run_command(command: str, made: set[Path], where: str, *, keep: bool) -> None:
    words = aecfe_words(command)
    assert words is not None, f"{where}: `{command}` is no command of aecfe; add it to NOT_RUN if it is not to run here"
    if not keep:
        make_way(words, made)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in words_of(command)[0].items():
            patch.setenv(name, value)
            if name == "PYTHONPATH":
                patch.syspath_prepend(value)
        run_aecfe(words)


@pytest.mark.parametrize("page", page_names())
def test_every_command_of_aecfe_is_understood(page):
    for block in blocks_of(page):
        # Scripts and programs of several lines hold commands too.
        lines = re.sub(r" *\\\n *", " ", block.text).splitlines()
        for line in lines if is_shell(block) else []:
            words = aecfe_words(re.sub(r"(^|\s+)#.*", "", line)) if "aecfe " in line else None
            if words is None:
                continue
            try:
                build_parser().parse_args(words)
            except (SystemExit, argparse.ArgumentError):
                pytest.fail(f"{page}:{block.line}: `{line}` is not understood")


# Pages of results are written by programs.
@pytest.mark.parametrize("page", [page for page in page_names() if re.fullmatch(r"docs/[^/]+", page)])
def test_every_block_says_what_it_is(page):
    for block in blocks_of(page):
        assert block.language in ("bash", "python", "yaml", "text", "csv", "json"), f"{page}:{block.line}"
