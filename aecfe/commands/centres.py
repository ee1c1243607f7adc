"""The commands `aecfe centres check` and `aecfe synth`: looking at centres, and making synthetic ones."""

import argparse
from pathlib import Path

from aecfe.commands.options import START_AGAIN, add_centre_options, add_seed, new_command, new_group, positive


def add_parser(commands) -> None:
    """Add the commands."""
    parser = new_command(
        new_group(commands, "centres", "look at the data before they are used"),
        "check",
        check,
        "tell how a centre is read, and what is wrong with its images: labels and cell types, files that cannot be "
        "read, duplicates, sizes",
        overwrite=False,
        after_interrupt=START_AGAIN,
    )
    parser.add_argument("roots", nargs="+", metavar="ROOT", help="folder of a centre, or a folder of centres")
    add_centre_options(parser)
    parser.add_argument("--json", metavar="FILE", help="also write what was found to this file")
    parser.add_argument(
        "--no-decode",
        action="store_true",
        help="do not decode the images; their headers are read, and their files compared",
    )

    parser = new_command(commands, "synth", synth, "make synthetic smears of three centres, with masks and labels")
    parser.add_argument("output", help="folder; each centre becomes a folder in it")
    parser.add_argument(
        "--centres", nargs="+", default=["north", "river", "harbour"], metavar="NAME", help="which of the centres"
    )
    parser.add_argument("--images", type=positive, default=150, metavar="N", help="images of each centre")
    parser.add_argument("--size", type=positive, metavar="PX", help="side in pixels (default: the centre's own)")
    add_seed(parser)


def check(arguments: argparse.Namespace) -> None:
    """Look at centres before they are used."""
    from experiments.centres.centre import load_centres
    from experiments.centres.check import FORMAT, check_centres, check_text
    from experiments.centres.tree import find_centres
    from mrcnn.files.atomic import write_json
    from mrcnn.files.output_paths import check_output_file

    if arguments.json:
        check_output_file(arguments.json, "--json")
    places = [find_centres(root) for root in arguments.roots]
    folders = [folder for place in places for folder in place.centres]
    centres = load_centres(folders, arguments.layout, arguments.scheme)
    result = check_centres(list(centres.values()), decode=not arguments.no_decode)
    result["places"] = [
        {
            "root": str(place.root),
            "centres": [centre.resolve().name for centre in place.centres],
            "skipped": list(place.skipped),
        }
        for place in places
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
        folder = generate_centre(
            name,
            Path(arguments.output) / name,
            num_images=arguments.images,
            seed=arguments.seed,
            image_size=arguments.size,
            overwrite=arguments.overwrite,
        )
        print(folder)
