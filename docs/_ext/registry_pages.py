"""Pages of operators, priors, solvers and baselines, made from the registry and the docstrings.

Sphinx calls `setup`. A page has the formula and the references of the module's docstring, the
arguments with their defaults and ranges, the cost, and from `notes.toml` when to use it and when
it fails. Pictures are `docs/pictures/KIND/NAME.jpg`.
"""

import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from genprior.priors import base
from genprior.registry import BASELINES, OPERATORS, PRIORS, SOLVERS, lookup

KINDS: dict[str, tuple[str, Mapping[str, str]]] = {
    "operators": ("operator", OPERATORS.own),
    "priors": ("prior", PRIORS.own),
    "solvers": ("solver", SOLVERS.own),
    "baselines": ("baseline", BASELINES),
}
LEAD = {
    "operators": "What measures the image: the `A` of `y = A x + sigma n`. "
                 "[Operators](../../operators.md) tells how to make one.",
    "priors": "Models of images, by the name that `--prior` and `load_prior` take. "
              "[Priors](../../priors.md) tells how to choose one.",
    "solvers": "Methods, by the name that `--solver` and `make_solver` take. "
               "[Which solver?](../../which-solver.md) tells how to choose one.",
    "baselines": "Classical methods without a generative prior, of the option `--baseline` of "
                 "`genprior evaluate`.",
}
SECTION = re.compile(r"(Arguments|Attributes|Returns|Raises|Yields|References|"
                     r"Differs from the authors' code):$")
HERE = Path(__file__).parent
# Captions of the pictures of solvers with a Gaussian texture as their prior, where the posterior
# is known; by whether the solver draws samples.
SOLVER_PICTURE = {
    True: "A Gaussian texture of 32 x 32 pixels, blurred (above) and with a hole (below), noise "
          "0.05: reference, measurement, two samples, the standard deviation of 16 samples, and "
          "that of the exact posterior on the same scale.",
    False: "A Gaussian texture of 32 x 32 pixels, blurred (above) and with a hole (below), noise "
           "0.05: reference, measurement, the answer, and the exact posterior mean.",
}


def markdown(text: str) -> str:
    """Escapes prose of a docstring for Markdown, except what is in backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_<>|\[\]$])", r"\\\1", part)
                   for part in parts)


def blocks(docstring: str) -> Iterator[list[str]]:
    """Yields the paragraphs of a docstring as lists of lines."""
    block: list[str] = []
    for line in [*inspect.cleandoc(docstring).splitlines(), ""]:
        if line.strip():
            block.append(line.rstrip())
        elif block:
            yield block
            block = []


def items(lines: list[str]) -> list[str]:
    """Joins the lines of a section into items; deeper indentation continues an item."""
    least = min(len(line) - len(line.lstrip()) for line in lines)
    found: list[str] = []
    for line in lines:
        if len(line) - len(line.lstrip()) == least:
            found.append(line.strip())
        else:
            found[-1] += " " + line.strip()
    return found


def sections(docstring: str) -> dict[str, list[str]]:
    """Returns the items of each section, such as "Arguments", of a docstring in Google's style."""
    found: dict[str, list[str]] = {}
    for block in blocks(docstring):
        if match := SECTION.match(block[0]):
            found[match[1]] = items(block[1:])
    return found


def prose(docstring: str) -> str:
    """Returns a docstring without its sections as Markdown; formulas become literal blocks."""
    parts = []
    for block in blocks(docstring):
        if SECTION.match(block[0]) or block[0].startswith(">>>"):
            continue
        if all(line.startswith("    ") for line in block):
            code = inspect.cleandoc("\n".join(["", *block]))
            parts.append(f"```text\n{code}\n```")
        else:
            parts.append(markdown("\n".join(block)))
    return "\n\n".join(parts)


def bounds(metadata: Mapping[str, Any]) -> str:
    """Returns the range of a setting in words."""
    words = {"gt": ">", "ge": ">=", "le": "<="}
    limits = [f"{sign} {metadata[key]}" for key, sign in words.items()
              if metadata.get(key) is not None]
    return " and ".join(limits)


def short(value: Any) -> str:
    """Returns a default value in few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def arguments(cls: type) -> list[tuple[str, str, str, str]]:
    """Returns name, default, range and meaning of every constructor argument of a class."""
    told: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        for item in sections(vars(parent).get("__doc__") or "").get("Arguments", []):
            names, _, meaning = item.partition(": ")
            for name in names.split(", "):
                if not (meaning.startswith("See ") and name in told):
                    told[name] = meaning
    rows = []
    metadata = {f.name: f.metadata for f in fields(cls)} if is_dataclass(cls) else {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = parameter.default
        text = "" if default in (parameter.empty, MISSING) else f"`{short(default)}`"
        rows.append((name, text, bounds(metadata.get(name, {})), told.get(name, "")))
    return rows


def facts(kind: str, cls: Any) -> list[str]:
    """Returns one line each of what a class needs, costs or is able to do."""
    if kind == "priors":
        able = [name for name, ability in base.ABILITIES.items() if issubclass(cls, ability)]
        return [f"Abilities: {', '.join(able)}."]
    if kind != "solvers":
        return []
    names = {ability: name for name, ability in base.ABILITIES.items()}
    solver = cls()
    answer = "posterior samples" if cls.stochastic else "point estimate"
    return [
        f"Answer: {answer}.",
        f"Needs a prior that is a {names[cls.needs]}.",
        f"Cost with the default settings: {solver.nfe} evaluations of the network"
        f" and {solver.jacobian_products} products with its Jacobian.",
        f"In short: {markdown(cls.summary)}.",
    ]


def page(kind: str, name: str, notes: Mapping[str, str]) -> str:
    """Returns the Markdown page of an operator, a prior, a solver or a baseline."""
    singular, table = KINDS[kind]
    cls = lookup(table, name, singular)
    module = inspect.getmodule(cls)
    assert module is not None
    text = module.__doc__ or cls.__doc__ or ""
    parts = [f"# {name}", prose(text)]
    if lines := facts(kind, cls):
        parts.append("\n".join(f"- {line}" for line in lines))
    if use := notes.get("use"):
        parts += ["## When to use it", use]
    if fails := notes.get("fails"):
        parts += ["## When it fails", fails]
    picture = Path("pictures") / kind / f"{name}.jpg"
    if (HERE.parent / picture).exists():
        caption = notes.get("picture") or SOLVER_PICTURE[getattr(cls, "stochastic", False)]
        parts += [f"![{name}](../../{picture.as_posix()})", caption]
    if rows := arguments(cls):
        parts += ["## Settings", "| name | default | range | meaning |\n|---|---|---|---|\n"
                  + "\n".join(f"| `{n}` | {d} | {markdown(r)} | {markdown(m)} |"
                              for n, d, r, m in rows)]
    own = sections(text)
    if references := own.get("References"):
        parts += ["## References", "\n".join(f"- {markdown(line)}" for line in references)]
    if differences := own.get("Differs from the authors' code"):
        numbered = "\n".join(markdown(line) for line in differences)
        parts += ["## Differs from the authors' code", numbered]
    parts.append(f"Code: `{module.__name__.replace('.', '/')}.py`.")
    return "\n\n".join(part for part in parts if part) + "\n"


def index(kind: str) -> str:
    """Returns the page that lists all of a kind, with the first line of their docstrings."""
    singular, table = KINDS[kind]
    rows = []
    for name in table:
        cls = lookup(table, name, singular)
        first = getattr(cls, "summary", None) or (cls.__doc__ or "").splitlines()[0]
        rows.append(f"| [{name}]({name}.md) | {markdown(first.rstrip('.'))} |")
    tree = "\n".join(table)
    return (f"# {kind.capitalize()}: one page each\n\n{LEAD[kind]}\n\n"
            f"| name | what it is |\n|---|---|\n" + "\n".join(rows)
            + f"\n\n```{{toctree}}\n:hidden:\n\n{tree}\n```\n")


def read_notes() -> dict[str, dict[str, dict[str, str]]]:
    """Returns the notes by kind and name."""
    return tomllib.loads((HERE / "notes.toml").read_text(encoding="utf-8"))


def write_pages(folder: Path) -> list[Path]:
    """Writes all pages below a folder; files that would not change keep their time.

    Returns:
        The files.
    """
    notes, written = read_notes(), []
    for kind, (_, table) in KINDS.items():
        pages = {"index": index(kind)}
        pages |= {name: page(kind, name, notes.get(kind, {}).get(name, {})) for name in table}
        for name, text in pages.items():
            path = folder / kind / f"{name}.md"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def setup(app: Any) -> dict[str, bool]:
    """Registers the extension with Sphinx."""
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / "reference"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
