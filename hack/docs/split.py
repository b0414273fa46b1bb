# Copyright The Fairway Authors.
# SPDX-License-Identifier: Apache-2.0

"""Cuts long pages into one page for each task, in the folder with the site's pages, and turns all links to them.

In the repository such a page is one file, which is easier to search and to change; on the site its menu is easier to find things in.
What each of the new pages begins with is a heading of the long one: its anchor is the page's name."""

import pathlib
import posixpath
import re
import sys

fence = re.compile(r"^ *(`{3,}|~{3,})")
heading = re.compile(r"^(#{1,6}) (.+)$")
link = re.compile(r"(?<=\]\()([^()\s]+)(?=\))")


def anchor(text):
    """What GitHub makes of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def lines(text):
    """Each line, and whether it is of a block of code."""
    closing = ""
    for line in text.split("\n"):
        mark = fence.match(line)
        if closing:
            if mark and line.strip() == closing:
                closing = ""
            yield line, True
        elif mark:
            closing = mark.group(1)
            yield line, True
        else:
            yield line, False


def cut(text, folder, at):
    """The pages of a long one by file, and the file of each anchor. It is cut at headings of level 2, and at those named, which
    have what follows up to the next heading of their level."""
    pages, files = {}, {}
    open_pages = [(0, posixpath.join(folder, "index.md"))]
    for line, code in lines(text):
        found = None if code else heading.match(line)
        if found:
            level, name = len(found.group(1)), anchor(found.group(2))
            while level <= open_pages[-1][0]:
                open_pages.pop()
            if level == 2 or name in at:
                open_pages.append((level, posixpath.join(folder, name + ".md")))
            above, file = open_pages[-1]
            files[name] = file
            line = "#" * max(1, level - max(0, above - 1)) + " " + found.group(2)
        pages.setdefault(open_pages[-1][1], []).append(line)
    return {f: "\n".join(of) + "\n" for f, of in pages.items()}, files


def turn(text, was, now, moved):
    """The text of a page with links as they must be: it was in one file, and is in another."""

    def one(found):
        path, _, name = found.group(1).partition("#")
        if "://" in path or path.startswith("mailto:"):
            return found.group(1)
        target = posixpath.normpath(posixpath.join(posixpath.dirname(was), path)) if path else was
        if target in moved:
            if name and name not in moved[target]:
                raise SystemExit(f"{was}: {found.group(1)} names a heading that isn't there")
            target = moved[target][name] if name else moved[target][""]
        if target == now:
            return "#" + name
        return posixpath.relpath(target, posixpath.dirname(now) or ".") + ("#" + name if name else "")

    return "\n".join(line if code else link.sub(one, line) for line, code in lines(text))


def main(source):
    pages = {str(p.relative_to(source)): p.read_text() for p in source.rglob("*.md")}
    moved, new = {}, {}
    for page, folder, front, at in (
        ("user-guide.md", "guide", "index", {"extensions", "ask-an-authorization-service"}),
        (
            "install.md",
            "installing",
            "install",
            {"helm", "releases", "registries-of-your-own", "where-the-operator-runs", "certificates", "spire"},
        ),
    ):
        parts, files = cut(pages.pop(page), folder, at)
        if front != "index":  # there is nothing before its first heading
            del parts[posixpath.join(folder, "index.md")]
        moved[page] = files | {"": posixpath.join(folder, front + ".md")}
        new |= {file: (page, text) for file, text in parts.items()}
        (source / page).unlink()
    for file, text in pages.items():
        (source / file).write_text(turn(text, file, file, moved))
    for file, (page, text) in new.items():
        (source / file).parent.mkdir(exist_ok=True)
        (source / file).write_text(turn(text, page, file, moved))


main(pathlib.Path(sys.argv[1]))
