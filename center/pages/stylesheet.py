"""The rules of Bootstrap that the pages use: of its 232 kB a sixth."""

from __future__ import annotations

import re

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_BLOCK = re.compile(
    r"(@(?:media|supports)[^{]*)\{((?:[^{}]+\{[^{}]*\})*)\}|(@keyframes [^{]*)\{((?:[^{}]+\{[^{}]*\})*)\}"
)
_LIST = re.compile(r",(?![^(]*\))")  # not those of :not(a, b)
_NEGATED = re.compile(r":not\([^)]*\)")
_CLASS = re.compile(r"\.(-?[A-Za-z_][\w-]*)")


def needed(css: str, words: frozenset[str]) -> str:
    """A minified style sheet without the selectors of classes that are none of the words, and without animations."""

    def rules(text: str) -> str:
        kept = []
        for selectors, body in _RULE.findall(text):
            used = [s for s in _LIST.split(selectors) if words.issuperset(_CLASS.findall(_NEGATED.sub("", s)))]
            if used or selectors.startswith("@"):
                kept.append(f"{','.join(used) or selectors}{{{body}}}")
        return "".join(kept)

    css = _COMMENT.sub("", css).partition('@charset "UTF-8";')[2] or css
    pieces, at = [], 0
    for block in _BLOCK.finditer(css):
        pieces.append(rules(css[at : block.start()]))
        if block[1] and (inner := rules(block[2])):
            pieces.append(f"{block[1]}{{{inner}}}")
        at = block.end()
    return "".join([*pieces, rules(css[at:])])
