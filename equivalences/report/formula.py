"""Statements for a terminal: what the catalogue writes in LaTeX, as Unicode text.

`pylatexenc` parses it.  What it would render so that the formula changes is replaced here: an exponent or a fraction of
several terms gets parentheses, an index gets Unicode's small letters where all of it has them.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

_SUPER = dict(
    zip("0123456789+-()abcdefghijklmnoprstuvwxyzT⊤", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᵀᵀ", strict=True)
)
_SUB = dict(zip("0123456789+-()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True))
_WORDS = ("log", "max", "min", "tanh", "exp", "arg")
_BETWEEN = {
    "le": "≤", "ge": "≥", "ne": "≠", "in": "∈", "odot": "⊙", "pm": "±", "iff": "⇔", "implies": "⇒", "Rightarrow": "⇒",
    "|": "‖", "quad": "  ",
}  # fmt: skip
_TIDY = (  # in this order
    (r"\s+", " "),
    (r"([∂∇±(\[]) ", r"\1"),
    (r" (?=[,;)\]])", ""),
    (r"(?<=\))(?=[a-z])", " "),  # a factor before a function
    (rf"\b({'|'.join(_WORDS)}) (?=[(ₐ-ₜᵢ-ᵥⱼ²])", r"\1"),  # log(1 + z), but log z
)


def text(statement: str) -> str:
    """The statement without a backslash; one that has none is prose, and stays as it is."""
    if "\\" not in statement:
        return statement
    reader, writer = _tools()
    # The parser takes the space after a macro for its end; here it stands between two factors.
    found: str = writer.nodelist_to_text(reader(re.sub(r"(\\(?!bar)[A-Za-z]+) ", r"\1\\ ", statement)))
    for pattern, instead in _TIDY:
        found = re.sub(pattern, instead, found)
    return found.strip()


def _script(marks: dict[str, str], sign: str, body: str) -> str:
    """An index or an exponent: in small letters, else after its sign."""
    body = body.strip()
    if 0 < len(body) < 5 and all(letter in marks for letter in body):
        return "".join(marks[letter] for letter in body)
    return sign + _one(body)


def _one(body: str) -> str:
    """The body as one operand: in parentheses if it has several terms or factors."""
    body = body.strip()
    whole = re.fullmatch(r"-?[^\W_]*(_\w)?[′'ᵢ-ᵥₐ-ₜⱼ₀-₉⁰-⁹ᵃ-ᶻᵀ]*|√\([^()]*\)|\|[^|]*\|", body)
    return body if whole else f"({body})"


@cache
def _tools() -> tuple[Any, Any]:
    """What parses, and what renders."""
    from pylatexenc import latex2text, latexwalker, macrospec

    def argument(number: int) -> Any:
        return lambda node, l2tobj: l2tobj.nodelist_to_text([node.nodeargd.argnlist[number]])

    first, second = argument(0), argument(1)

    def fraction(node: Any, l2tobj: Any) -> str:
        over, under = _one(first(node, l2tobj)), _one(second(node, l2tobj))
        return f"{over}/{under} " if len(over + under) < 5 else f"{over} / {under} "

    def accent(node: Any, l2tobj: Any) -> str:
        return unicodedata.normalize("NFC", first(node, l2tobj) + "\N{COMBINING MACRON}")

    syntax = latexwalker.get_default_latex_context_db()
    syntax.add_context_category(
        "scripts",
        macros=[macrospec.MacroSpec(name, "{{") for name in ("frac", "tfrac")] + [macrospec.MacroSpec("bar", "{")],
        specials=[macrospec.SpecialsSpec(sign, args_parser=macrospec.MacroStandardArgsParser("{")) for sign in "^_"],
        prepend=True,
    )
    macros = {
        **{name: f"{name} " for name in _WORDS},
        **{name: f" {sign} " for name, sign in _BETWEEN.items()},
        **dict.fromkeys(("frac", "tfrac"), fraction),
        "sqrt": lambda node, l2tobj: f"√({argument(1)(node, l2tobj)})",
        "bar": accent,
        "top": "⊤",
        "epsilon": "ε",
    }
    rendering = latex2text.get_default_latex_context_db()
    rendering.add_context_category(
        "scripts",
        macros=[latex2text.MacroTextSpec(name, how) for name, how in macros.items()],
        specials=[
            latex2text.SpecialsTextSpec("^", lambda node, l2tobj: _script(_SUPER, "^", first(node, l2tobj))),
            latex2text.SpecialsTextSpec("_", lambda node, l2tobj: _script(_SUB, "_", first(node, l2tobj))),
            latex2text.SpecialsTextSpec("''", "''"),  # two primes, not a quotation's end
        ],
        prepend=True,
    )
    writer = latex2text.LatexNodes2Text(latex_context=rendering, math_mode="text", strict_latex_spaces=False)
    return lambda source: latexwalker.LatexWalker(source, latex_context=syntax).get_latex_nodes()[0], writer
