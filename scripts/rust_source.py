"""Reads Rust source well enough for the checks in this folder: no dependency, no type inference.

Everything is blanked in place rather than cut, so that offsets and line numbers stay those of the file.
"""

import re

CFG = re.compile(r"#!?\[cfg\(")


def blank(text):
    return re.sub(r"[^\n]", " ", text)


def without_comments_and_strings(text):
    out, at = [], 0
    pattern = re.compile(
        r"//[^\n]*|/\*|b?r(#*)\"|b?\"(?:\\.|[^\"\\])*\"|b?'(?:\\[^\n]{1,9}?|[^\\'\n])'", re.S
    )
    while match := pattern.search(text, at):
        out.append(text[at : match.start()])
        end = match.end()
        if match.group().startswith("/*"):
            depth = 1
            while depth:
                edge = re.compile(r"/\*|\*/").search(text, end)
                depth += 1 if edge.group() == "/*" else -1
                end = edge.end()
        elif match.group(1) is not None:
            end = text.index('"' + match.group(1), end) + 1 + len(match.group(1))
        out.append(blank(text[match.start() : end]))
        at = end
    return "".join(out) + text[at:]


def closing(text, at):
    """The offset of the bracket that closes the one at `at`."""
    depth = 0
    for offset in range(at, len(text)):
        if text[offset] in "([{":
            depth += 1
        elif text[offset] in ")]}":
            depth -= 1
            if depth == 0:
                return offset
    raise SystemExit("a bracket that nothing closes")


def holds(condition):
    """Whether a `cfg` condition holds in a plain build: every feature on, no test, no loom."""
    condition = condition.strip()
    match = re.fullmatch(r"(all|any|not)\s*\((.*)\)", condition, re.S)
    if not match:
        return condition not in ("test", "doctest", "keep_loom")
    parts, depth, start = [], 0, 0
    for offset, letter in enumerate(match.group(2) + ","):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(match.group(2)[start:offset])
            start = offset + 1
    answers = [holds(part) for part in parts if part.strip()]
    return {"all": all(answers), "any": any(answers), "not": not all(answers)}[match.group(1)]


def without_absent_code(text, raw, hide=blank):
    """Hides every item whose `cfg` does not hold. Conditions come from `raw`, which has its strings."""
    while True:
        for match in CFG.finditer(text):
            end = closing(text, match.end() - 1)
            if not holds(raw[match.end() : end]):
                break
        else:
            return text
        if match.group().startswith("#!"):
            return hide(text)
        at = end + 2
        while text[at] not in ";{,}":  # to the end of the item: its block, or its semicolon
            at = closing(text, at) + 1 if text[at] in "([" else at + 1
        end = closing(text, at) + 1 if text[at] == "{" else at + (text[at] != "}")
        text = text[: match.start()] + hide(text[match.start() : end]) + text[end:]


def code_of(raw):
    """The code of a plain build, in its place: comments, strings, tests and loom models are blank."""
    return without_absent_code(without_comments_and_strings(raw), raw)


def files_of(file):
    """Yields a file and, below it, the files of its modules in a plain build."""
    yield file
    folder = file.parent if file.stem in ("lib", "mod") else file.parent / file.stem
    for name in re.findall(r"\bmod\s+(\w+)\s*;", code_of(file.read_text())):
        places = [folder / f"{name}.rs", folder / name / "mod.rs"]
        yield from files_of(next(place for place in places if place.exists()))
