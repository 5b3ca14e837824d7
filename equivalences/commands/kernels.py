"""`kernels`: shows strangers' kernels, right ones and wrong ones, to `check` and to public judges."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from equivalences.commands import FAILED, Usage, natural


def add(commands: Any) -> None:
    """Adds the command and its options to the parser."""
    kernels = commands.add_parser("kernels", help="show strangers' kernels to check and to public judges")
    kernels.add_argument("names", metavar="NAME", nargs="*", help="globs of names of kernels (default: all)")
    kernels.add_argument("--format", action="append", default=[], metavar="FORMAT", help="only in these formats")
    kernels.add_argument("--examples", type=natural, default=20, metavar="N", help="drawn problems (default: 20)")
    kernels.add_argument("--docs", metavar="FILE", default="", help="write the page to FILE")
    kernels.set_defaults(run=run)


def run(asked: Any, console: Console) -> int:
    import fnmatch

    from equivalences import choices, files
    from equivalences.evidence.kernels import KERNELS
    from equivalences.report import kernels as report
    from equivalences.running import environment

    try:
        formats = choices.formats(asked.format)
    except choices.Unknown as error:
        raise Usage(str(error)) from None
    wanted = [
        kernel
        for kernel in KERNELS
        if not asked.names or any(fnmatch.fnmatchcase(kernel.name, name) for name in asked.names)
    ]
    if not wanted:
        raise Usage(f"no kernel is named {asked.names[0]!r}")
    shown = []
    for number, kernel in enumerate(wanted, 1):
        found = _shown(kernel, [fmt for fmt in kernel.formats if fmt in formats], asked.examples)
        if found is None:
            console.print(f"{number}/{len(wanted)} {kernel.name}: needs what is not installed")
            continue
        shown.append(found)
        word = "wrong" if kernel.wrong else "right"
        said = "as it is" if found.as_it_is else f"NOT SO: {dict(found.right)}"
        console.print(f"{number}/{len(wanted)} {word}: {kernel.name}: {said}", soft_wrap=True)
    missed = [each for each in shown if not each.as_it_is]
    console.print(f"{len(shown)} kernels, {len(missed)} of them not judged as they are")
    if asked.docs:
        with files.destination(asked.docs) as file:
            file.text(report.page(shown, environment.summary()))
    return FAILED if missed else 0


def _shown(kernel: Any, formats: list[str], examples: int) -> Any:
    """A kernel as it was judged in these formats; None where it cannot be built here."""
    from equivalences.evidence.peers import public
    from equivalences.own.check import check
    from equivalences.report.kernels import Shown

    try:
        kernel.build()
    except ImportError:
        return None
    asked: dict[str, Any] = {"name": kernel.name, "examples": examples, "stop": bool(kernel.wrong), **kernel.said}
    right = {fmt: check(kernel.build(), kernel.of, formats=(fmt,), **asked).ok for fmt in formats}
    verdicts = {
        judge.name: {fmt: said for fmt in formats if (said := public.accepts(judge, kernel, fmt)) is not None}
        for judge in public.JUDGES
    }
    return Shown(
        kernel,
        right,
        {name: tuple(fmt for fmt, said in each.items() if said) for name, each in verdicts.items()},
        {name: tuple(each) for name, each in verdicts.items()},
    )
