"""The commands `aecfe centres check` and `aecfe synth`: looking at centres, and making synthetic ones."""

import argparse
from pathlib import Path

from aecfe.commands import options


def add_parser(commands) -> None:
    """Add the commands."""
    group = options.new_group(commands, "centres", "look at the data before they are used")
    summary = "tell how a centre is read, and what is wrong with its images: labels and cell types, unreadable files, "
    parser = options.new_command(group, "check", check, summary + "duplicates, sizes", overwrite=False)
    parser.add_argument("roots", nargs="+", metavar="ROOT", help="folder of a centre, or a folder of centres")
    options.add_centre_options(parser)
    texts = {
        "--json FILE": "also write what was found to this file",
        "--no-decode": "do not decode the images; their headers are read, and their files compared",
    }
    options.add(parser, texts)

    summary = "make synthetic smears of three centres, with masks and labels"
    parser = options.new_command(commands, "synth", synth, summary)
    parser.add_argument("output", help="folder; each centre becomes a folder in it")
    options.add(parser, {"--centres NAME...": "which of the centres"}, default=["north", "river", "harbour"])
    parser.add_argument("--images", type=options.positive, default=150, metavar="N", help="images of each centre")
    options.add(parser, {"--size PX": "side in pixels (default: the centre's own)"}, type=options.positive)
    options.add_seed(parser)


def check(arguments: argparse.Namespace) -> None:
    """Look at centres before they are used."""
    from experiments.centres.centre import load_centres
    from experiments.centres.check import FORMAT, check_centres, check_text
    from experiments.centres.tree import find_centres
    from mrcnn.files.atomic import write_json
    from mrcnn.files.output_paths import check_output_file

    if arguments.json:
        check_output_file(arguments.json, "--json")
    places = {Path(root): find_centres(root) for root in arguments.roots}
    folders = [folder for found, _ in places.values() for folder in found]
    centres = load_centres(folders, arguments.layout, arguments.scheme)
    result = check_centres(list(centres.values()), decode=not arguments.no_decode)
    result["places"] = [
        {"root": str(root), "centres": [centre.resolve().name for centre in found], "skipped": skipped}
        for root, (found, skipped) in places.items()
    ]
    print(check_text(result))
    # After the printing, so that what cannot be written is not lost.
    if arguments.json:
        write_json(arguments.json, {"format": FORMAT, **result})


def synth(arguments: argparse.Namespace) -> None:
    """Make synthetic centres."""
    from experiments.synthetic.centre import generate_centre
    from mrcnn.files.output_paths import check_output_folder

    check_output_folder(arguments.output, "output")
    for name in arguments.centres:
        sizes = {"num_images": arguments.images, "image_size": arguments.size}
        given = options.chosen(arguments, "seed", "overwrite")
        print(generate_centre(name, Path(arguments.output) / name, **sizes, **given))
