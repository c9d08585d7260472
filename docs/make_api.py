"""Writes docs/api.md from the docstrings of the public names.

python docs/make_api.py            # make docs
python docs/make_api.py --check    # exit code 1 if the file is not what it would write
"""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nlpmeta

PARTS = ("KeptClassifier", "AnsweringClassifier")
PAGE = Path(__file__).parent / "api.md"
HEAD = """# API reference

Written from the docstrings by `docs/make_api.py`; `from nlpmeta import NAME` gives each of these. Command line:
`nlpmeta --help`, and `nlpmeta COMMAND --help` for each command.
"""


def main() -> int:
    """Write the page, or compare it with the file."""
    named = dict(_public())
    described = {name: value for name, value in named.items() if inspect.isclass(value) or inspect.isroutine(value)}
    content = HEAD + "".join(_entry(name, value) for name, value in described.items())
    content += "\n".join(["\n## Values and types\n", *(f"- `{name}`" for name in named if name not in described), ""])
    if "--check" in sys.argv[1:]:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == content
        if not same:
            sys.stdout.write("docs/api.md is not what the docstrings say; write it anew with: make docs\n")
        return 0 if same else 1
    PAGE.write_text(content, encoding="utf-8")
    return 0


def _public() -> Iterator[tuple[str, object]]:
    """The public names, those of a module after its own."""
    for name in (name for name in nlpmeta.__all__ if name[0] != "_"):
        value = getattr(nlpmeta, name)
        if inspect.ismodule(value):
            yield from ((f"{name}.{each}", getattr(value, each)) for each in value.__all__)
        else:
            yield name, value


def _entry(name: str, value: object) -> str:
    """A class or function, and the public methods of the class or of a part that it was divided into."""
    lines = [f"\n## {name}\n", _code(name, value), _prose(value)]
    if inspect.isclass(value):
        if not issubclass(value, Exception):
            lines[2] += _constructor(value)
        for member, found in _members(value):
            lines += [f"### {name}.{member}\n", _code(member, found), _prose(found)]
    return "\n".join(line for line in lines if line)


def _members(kind: type) -> list[tuple[str, object]]:
    found, parts = [], [each for each in kind.__mro__ if _is_part(each, kind)]
    for name, value in [member for each in parts for member in vars(each).items()]:
        plain = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        plain = plain.fget if isinstance(plain, property) else plain
        if not name.startswith("_") and inspect.isfunction(plain) and inspect.getdoc(plain):
            found.append((name, plain))
    return found


def _is_part(base: type, kind: type) -> bool:
    """Whether it is the class itself, or a class that it was divided into and that has no entry of its own."""
    return base is kind or base.__name__ in PARTS


def _constructor(kind: type) -> str:
    own = next(
        (vars(each)["__init__"] for each in kind.__mro__ if _is_part(each, kind) and "__init__" in vars(each)), None
    )
    return _prose(own) if own is not None and own.__doc__ else ""


def _code(name: str, value: object) -> str:
    try:
        signature = str(inspect.signature(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    signature = re.sub(r"<(?:function|class) ([\w.]+)[^>]*>", r"\1", signature)
    return f"```text\n{name}{signature}\n```\n"


def _prose(value: object) -> str:
    """A docstring as Markdown: sections in bold, indented parts as lists."""
    text, section = [], False
    for line in (inspect.getdoc(value) or "").replace("``", "`").splitlines():
        if re.fullmatch(r"(Args|Raises|Returns|Attributes|Yields):", line):
            text += ["", f"**{line[:-1]}**", ""] if not text or text[-1] else [f"**{line[:-1]}**", ""]
            section = True
        elif section and re.match(r"    \S", line):
            text.append(f"- {line.strip()}")
        elif section and line.startswith("        "):
            text.append(f"  {line.strip()}")
        else:
            section = section and not line.strip()
            text.append(line)
    return "\n".join(text).strip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
