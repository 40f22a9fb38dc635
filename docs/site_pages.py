"""The pages of the documentation site: the Markdown files where they are in the repository, and what they link to.

MkDocs reads one folder, and the documents link to files all over the repository. So the site has the paths of the
repository. A file or folder that a document links to is a page, too, and shows the source. A link to what is not
there stays unknown to MkDocs, whose strict build fails.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("*.md", "docs/**/*.md", "docker/**/*.md", "benchmarks/*.md", "packages/*/*.md", "packages/*/docs/*.md")
IMAGES = {".png", ".svg"}
# Of a link in Markdown, beside its text or by a name, or in HTML.
_TARGETS = re.compile(r'\]\(([^)\s]+)|^\[[^\]]+\]: *(\S+)|(?:src|href)="([^"]+)"', re.MULTILINE)
_LANGUAGES = {"yml": "yaml", "jinja": "html", "": "text"}


class SourcePage(File):
    """A page that shows a file or a folder of the repository. Links to that file or folder lead to it."""

    def is_documentation_page(self) -> bool:
        return True


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Give the site its files in place of those of `docs_dir`."""
    for own in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(own)
    documents = sorted({path for pattern in DOCUMENTS for path in ROOT.glob(pattern)})
    for path in documents:
        files.append(File.generated(config, _uri(path), abs_src_path=str(path)))
    for path in sorted(_linked(documents) - set(documents)):
        files.append(_shown(path, config))
    return files


def on_page_context(context: dict[str, object], page: Page, config: MkDocsConfig, nav: Navigation) -> None:
    """Keep the sources out of the search: it is for the documents."""
    if isinstance(page.file, SourcePage):
        page.meta["search"] = {"exclude": True}


def _uri(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _linked(documents: Iterable[Path]) -> set[Path]:
    """Return the files and folders that the documents link to, and those that are there only."""
    return {target for document in documents for target in _targets(document) if target.exists()}


def _targets(document: Path) -> Iterator[Path]:
    for found in _TARGETS.finditer(document.read_text(encoding="utf-8")):
        link = urlsplit(found[1] or found[2] or found[3])
        if link.path and not link.scheme and not link.netloc:
            target = (document.parent / unquote(link.path)).resolve()
            if target.is_relative_to(ROOT):
                yield target


def _shown(path: Path, config: MkDocsConfig) -> File:
    if path.suffix in IMAGES:
        return File.generated(config, _uri(path), abs_src_path=str(path))
    page = SourcePage.generated(config, _uri(path), content=_listing(path) if path.is_dir() else _source(path))
    page.dest_uri = f"source/{_uri(path)}/index.html"
    return page


def _source(path: Path) -> str:
    language = _LANGUAGES.get(path.suffix[1:], path.suffix[1:])
    fence = "`````"
    return f"# {_uri(path)}\n\n{fence}{language}\n{path.read_text(encoding='utf-8')}\n{fence}\n"


def _listing(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith(("_", ".")))
    return f"# {_uri(folder)}/\n\n" + "".join(f"- `{name}`\n" for name in names)
