"""A hook of mkdocs: links between the documentation and the rest of the repository.

On a code host a page links to `../experiments/configs/thesis.yaml`, and the README to `docs/data.md`. In the site,
whose root is docs/, the same links lead to copies below `repository/`: of the pages named here as pages, of other files
as they are. What does not exist is left as it is, and the strict build complains of it.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = "docs"
COPIES = "repository"
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")

# A page of the name README would be taken for the front page of the section that it is in.
_RENAMED = {"README.md": "readme.md"}

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
# Target and fragment of an inline link or image.
_LINK = re.compile(r"(?<=\]\()([^()\s#]+)(#[^()\s]*)?(?=\))")


def site_path(path: str) -> str:
    """Where a file of the repository lies in the site; both from their roots."""
    inside = posixpath.relpath(path, DOCS)
    return posixpath.join(COPIES, _RENAMED.get(path, path)) if inside.startswith("../") else inside


def repository_path(path: str) -> str:
    """Where a file of the site lies in the repository; the inverse of `site_path`."""
    inside = posixpath.relpath(path, COPIES)
    names = {new: old for old, new in _RENAMED.items()}
    return posixpath.join(DOCS, path) if inside.startswith("../") else names.get(inside, inside)


def targets(markdown: str, path: str) -> Iterator[str]:
    """The files of the repository that a page links to.

    Args:
        markdown: the page's text.
        path: the page's path in the repository.

    Yields:
        Paths from the root of the repository, of files that exist.
    """
    for line in _prose(markdown):
        for match in _LINK.finditer(line):
            target = _resolve(match[1], path)
            if target is not None:
                yield target


def rewrite(markdown: str, path: str) -> str:
    """The page with its links as they must be in the site.

    Args:
        markdown: the page's text.
        path: the page's path in the repository.
    """
    folder = posixpath.dirname(site_path(path))

    def replace(match: re.Match) -> str:
        target = _resolve(match[1], path)
        if target is None:
            return match[0]
        return posixpath.relpath(site_path(target), folder or ".") + (match[2] or "")

    changed = {line: _LINK.sub(replace, line) for line in _prose(markdown)}
    return "".join(changed.get(line, line) for line in markdown.splitlines(keepends=True))


def on_files(files: Files, config) -> Files:
    """Add the pages and files outside docs/ that pages link to."""
    pages = {site_path(name): ROOT / name for name in PAGES if (ROOT / name).is_file()}
    pages |= {file.src_uri: Path(file.abs_src_path) for file in files.documentation_pages()}
    wanted = set(pages)
    for uri, source in pages.items():
        wanted |= {site_path(target) for target in targets(source.read_text(encoding="utf-8"), repository_path(uri))}
    for uri in sorted(wanted):
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / repository_path(uri))))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """Make a page's links fit the site."""
    return rewrite(markdown, repository_path(page.file.src_uri))


def _prose(markdown: str) -> Iterator[str]:
    """The lines outside blocks of code."""
    fence = None
    for line in markdown.splitlines(keepends=True):
        match = _FENCE.match(line)
        if fence is None and match is None:
            yield line
        elif fence is None:
            fence = match[1]
        elif match is not None and match[1].startswith(fence):
            fence = None


def _resolve(link: str, path: str) -> str | None:
    """The file that a page's link names, from the root of the repository; None for anything else."""
    if "://" in link or link.startswith(("/", "mailto:")):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return target if not target.startswith("../") and (ROOT / target).is_file() else None
