# Copyright The Fairway Authors.
# SPDX-License-Identifier: Apache-2.0

"""Makes a site of docs/ by Sphinx. Pages are Markdown as GitHub reads it: MyST parses them by the same rules."""

import posixpath
import re

project = "Fairway"
author = "The Fairway Authors"
copyright = author
repository = "https://github.com/fairway-mesh/fairway/blob/main/"

extensions = ["myst_parser", "sphinx_copybutton"]
root_doc = "index"
exclude_patterns = []
nitpicky = True
# Links between pages name headings as GitHub does.
myst_heading_anchors = 5
myst_links_external_new_tab = False
# A diagram of words is no language, and in examples values are left out.
suppress_warnings = ["misc.highlighting_failure"]
highlight_language = "text"
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

html_theme = "furo"
html_title = "Fairway"
html_logo = html_favicon = "../packages/internal/bundle/files/icon.svg"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1d5c8f", "color-brand-content": "#1d5c8f"},
    "dark_css_variables": {"color-brand-primary": "#3fa7d6", "color-brand-content": "#6cc0e5"},
}

# A link's target, behind its text; the same for images.
link = re.compile(r"(?<=\]\()([^()\s]+)(?=\))")
fence = re.compile(r"^ *(`{3,}|~{3,})")


def outside(page, target):
    """What a link of a page leads to: pages are part of the site, all else of the repository is shown where it is kept."""
    path, _, heading = target.partition("#")
    if not path or "://" in target or target.startswith("mailto:"):
        return target
    full = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), path))
    if full.startswith("docs/") and posixpath.splitext(full)[1] in (".md", ".svg", ".png"):
        return target
    if full == "docs":
        return target
    return repository + full + ("#" + heading if heading else "")


def relink(app, page, source):
    out, closing = [], ""
    for line in source[0].split("\n"):
        mark = fence.match(line)
        if closing:
            if mark and line.strip() == closing:
                closing = ""
        elif mark:
            closing = mark.group(1)
        else:
            line = link.sub(lambda m: outside(page, m.group(1)), line)
        out.append(line)
    # Pages of these folders are listed by their first one.
    if page in ("design/README", "states/README"):
        out += ["", "```{toctree}", ":hidden:", ":glob:", "", "*", "```"]
    source[0] = "\n".join(out)


def setup(app):
    app.connect("source-read", relink)
    return {"parallel_read_safe": True}
