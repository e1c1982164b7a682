"""The site, `make site`: README, notebooks as they are kept, results, and the library's reference from its docstrings.

The source folder is the repository's, so that links are the same here and on GitHub; see the Makefile. Pages need no
network: formulas are MathML, which browsers draw themselves, and all else lies beside the pages.
"""

import hashlib
import json
import re
import shutil
from binascii import a2b_base64
from importlib import metadata
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

from studies.outline import chapters

project = "attrain"
author = "the authors of attrain"
release = metadata.version("attrain")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

root_doc = "README"  # also as index.html, see `setup`
include_patterns = [
    "*.md",
    "docs/**.rst",
    "docs/*.md",
    "notebooks/**.ipynb",
    "notebooks/*/README.md",
    "notebooks/results/*.md",
]
exclude_patterns = [".*", "build", "data", "data_prep", "lib", "results", "tests", "**/.ipynb_checkpoints"]
REFERENCE = "explaining methods losses metrics training engine".split()

# ---------------------------------------------------------------- notebooks and Markdown

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_number_source_lines = False
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
# Folders and files outside of the site are linked on GitHub; a page's own line of front matter says nothing here.
suppress_warnings = ["mystnb.unknown_mime_type"]

# ---------------------------------------------------------------- the reference

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of a NamedTuple are its members already
napoleon_use_rtype = False

# ---------------------------------------------------------------- looks

html_theme = "furo"
html_title = "attrain"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
smartquotes = False  # "mean" is what one types


EXAMPLES = re.compile(r"(^ *>>>.*(?:\n.*\S.*)*)", re.MULTILINE)
CODE = re.compile(r"(``.+?``|`(?:[^`\n]|\n(?! *\n))+`)")


def as_rst(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain text with `code`: all else that reStructuredText would take for its own is escaped."""
    texts = EXAMPLES.split("\n".join(lines))
    for n in range(0, len(texts), 2):
        parts = CODE.split(texts[n])
        parts[::2] = [re.sub(r"[*|]|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
        parts[1::2] = [f"``{part.strip('`')}``" for part in parts[1::2]]
        texts[n] = "".join(parts)
    lines[:] = "".join(texts).split("\n")


def inline_formula(self, node) -> None:
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def shown_formula(self, node) -> None:
    self.body.append(convert(node.astext(), display="block"))
    raise nodes.SkipNode


def describe_pictures(app, doctree) -> None:
    """A figure's text and width are in the notebook, with its picture; without, the heading above it has to do."""
    file = Path(app.env.doc2path(app.env.docname))
    about = {}
    for cell in json.loads(file.read_text("utf-8"))["cells"] if file.suffix == ".ipynb" else ():
        for output in cell.get("outputs", ()):
            if picture := output.get("data", {}).get("image/png"):
                name = hashlib.sha256(a2b_base64("".join(picture))).hexdigest()  # as MyST-NB names its file
                about[name] = output["metadata"].get("image/png") or output["metadata"]
    for picture in [*doctree.findall(nodes.image)]:
        if picture["uri"].startswith("https:"):  # a badge; the pages need no network
            picture.replace_self(nodes.Text(picture["alt"]))
            continue
        name = Path(picture["uri"]).stem
        if name in about:
            heading = picture
            while heading.parent and not isinstance(heading, nodes.section):
                heading = heading.parent
            picture["alt"] = (
                about[name].get("alt") or f"Figure below the heading “{heading.next_node(nodes.title).astext()}”"
            )
            if "width" in about[name]:
                picture["width"] = f"{about[name]['width']}px"


def contents() -> str:
    """All pages in the README's order, as lists that the navigation shows."""
    lists = {
        "Start": ["README", "notebooks/first_look", "docs/which_method", "notebooks/index", "notebooks/results/README"]
    }
    for chapter in chapters():
        page = [f"notebooks/results/{chapter.paper}"] if chapter.paper else ["notebooks/benchmarks"]
        lists[chapter.title] = [f"notebooks/{study.experiment}" for study in chapter.studies] + page
    lists["The library"] = [f"docs/api/{room}" for room in REFERENCE]
    lists["Carrying it on"] = ["CONTRIBUTING", "notebooks/results/zoo", "notebooks/cluster/README", "CHANGELOG"]
    text = ""
    for name, pages in lists.items():
        entries = "\n".join("About <self>" if page == root_doc else f"/{page}" for page in pages)
        text += f"```{{toctree}}\n:hidden:\n:caption: {name}\n\n{entries}\n```\n\n"
    return text


def with_contents(app, docname: str, source: list[str]) -> None:
    """README has no directives, which GitHub would show; on the site it holds the contents."""
    if docname == root_doc:
        source[0] += "\n\n" + contents()


def home(app, exception) -> None:
    """README.html is the site's index.html, too."""
    if exception is None and app.builder.format == "html":
        shutil.copyfile(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


def setup(app) -> None:
    app.connect("source-read", with_contents)
    app.connect("doctree-read", describe_pictures)
    app.connect("autodoc-process-docstring", as_rst, priority=100)  # before napoleon, at 500, reads its sections
    app.connect("build-finished", home)
    app.add_html_math_renderer("mathml", (inline_formula, None), (shown_formula, None))
