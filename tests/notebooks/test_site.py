"""The site as it is built: `make site`, and CI, check that no page leads nowhere or needs a network."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import attrain.challenger
import attrain.losses
import attrain.metrics
import attrain.training
from studies.files import ROOT
from studies.parameters import PAGES, experiments

pytestmark = [
    pytest.mark.ci,  # a minute
    pytest.mark.skipif(find_spec("myst_nb") is None, reason="needs Sphinx: pip install 'attrain-studies[docs]'"),
]
FETCHED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """ATTRAIN_SITE, a folder that is built already, or the site as Sphinx builds it without a warning."""
    if built := os.environ.get("ATTRAIN_SITE"):
        return Path(built).resolve()
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-d", folder / "doctrees"]
    done = subprocess.run([*command, ".", folder / "site"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return (folder / "site").resolve()


class Parsed(HTMLParser):
    """The ids of a page, and its tags with their attributes."""

    def __init__(self, page: Path):
        super().__init__()
        self.ids, self.tags = set(), []
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        self.tags.append((tag, found))


@pytest.fixture(scope="module")
def parsed(site) -> dict[Path, Parsed]:
    return {page: Parsed(page) for page in sorted(site.rglob("*.html"))}


def test_every_link_within_the_site_leads_somewhere(site, parsed):
    broken = []
    for page, found in parsed.items():
        for tag, attributes in found.tags:
            link = attributes.get("href" if tag == "a" else FETCHED.get(tag, ""), "") or ""
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not link:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchor = unquote(parts.fragment)
            reached = target.is_file() and (not anchor or target not in parsed or anchor in parsed[target].ids)
            if not reached:
                broken.append(f"{page.relative_to(site)}: {link}")
    assert not broken, "\n".join(broken)


def test_no_page_fetches_anything_from_elsewhere(parsed):
    outside = {
        found[FETCHED[tag]]
        for page in parsed.values()
        for tag, found in page.tags
        if tag in FETCHED and found.get("rel") != "canonical" and "//" in (found.get(FETCHED[tag]) or "")[:8]
    }
    assert not outside


def test_every_picture_says_in_words_what_it_shows(site, parsed):
    mute = [
        f"{page.relative_to(site)}: {found['src'][-60:]}"
        for page, parse in parsed.items()
        for tag, found in parse.tags
        if tag == "img" and (not (found.get("alt") or "").strip() or found["alt"].endswith(Path(found["src"]).name))
    ]
    assert not mute, "\n".join(mute)


def test_every_notebook_and_results_page_is_there_and_in_the_contents_of_the_first(site, parsed):
    pages = [f"notebooks/{name}" for name in [*experiments(), *PAGES]]
    pages += [f"notebooks/results/{page.stem}" for page in (ROOT / "notebooks/results").glob("*.md")]
    linked = {found.get("href") for tag, found in parsed[site / "index.html"].tags if tag == "a"}
    assert len(pages) > 20 and not {f"{page}.html" for page in pages} - linked


def test_every_public_name_of_the_library_has_its_docstring_in_the_reference(parsed):
    described = {id.rpartition(".")[2] for page, found in parsed.items() if "api" in page.parts for id in found.ids}
    rooms = [attrain.challenger, attrain.losses, attrain.masks, attrain.methods, attrain.metrics, attrain.training]
    names = {name for room in rooms for name, value in vars(room).items() if _ours(name, value)} | {*attrain.__all__}
    assert len(names) > 80 and not names - described


def _ours(name: str, value) -> bool:
    module = getattr(value, "__module__", None) or ""
    return (
        name[0] != "_"
        and callable(value)
        and module.startswith("attrain.")
        and module not in ("attrain.tensors", "attrain.numbers")
    )


def test_formulas_are_drawn_by_the_browser_alone(parsed):
    pages = [page for page, found in parsed.items() if any(tag == "math" for tag, _ in found.tags)]
    assert len(pages) > 10
