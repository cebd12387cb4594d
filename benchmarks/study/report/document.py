"""docs/study.md: a study as a document, generated."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...report.drawing import Picture
from ...report.markdown import table as markdown_table
from ...report.markdown import text as markdown_text
from ...report.markdown import where
from ...report.notation import plain
from ...results import write
from ..claims.effects import Effect
from ..study import ArmResult, ClaimResult, Study
from . import words
from .figures import of_claim, of_grid

_HEAD = """\
# Is it true what they say of Leaky ReLU?

<!-- Written by `leakyrelu-bench report … --study`; change benchmarks/study instead. -->

`leakyrelu-bench train {call}`, {where}.

{summary}

## How it was done

Small networks, real data, one CPU. An arm is everything but learning rate and seed. Each arm gets the same sweep of learning
rates (by optimiser), with seeds that nothing else uses, judged by the lowest loss on the validation split, mean over those
seeds; with the rate that wins it trains again from each of the fresh seeds. A seed decides the weights, the order of the
data and dropout, so arms are compared seed by seed. The test split is looked at once a run, with the weights of the lowest
validation loss (runs without early stopping: the last). Nothing is tuned for one arm. {effort}

An effect is the mean difference over seeds, positive in the direction of the claim, with a 95 % interval by Student's t.
Intervals are not corrected for how many there are: of twenty, one will err. An effect is *supported* if its interval lies
above 0 and the effect is as large as what would matter (its margin: half a point of the test score, say), *not supported* if
even the upper bound is less than that, else *undecided*. A margin below 0 is what may be lost at most. A claim is supported
if some of its effects are and none is not, not supported the other way round, else undecided on this data. Few seeds find
large effects only.
"""
# What changes no figure, or is in the line that tells the machine.
_UNTOLD = ("device", "threads", "jobs", "data")
_TAIL = """\
## What this does not tell

Networks of other sizes, longer training, other data, GPUs. Small test splits (wine: 36 samples) move by whole points for one
sample. The margins of what matters are ours. Times are one machine's. Two learning rates can reach nearly the same loss, one
of them sooner: where two arms got different ones (they stand in the tables of arms), that is part of their effect.
"""


def _rows(columns: Sequence[str], rows: Iterable[Sequence[str]], texts: int) -> str:
    return markdown_table(columns, [[markdown_text(cell) for cell in row] for row in rows], texts) + "\n"


def summary(study: Study) -> str:
    """A table, a line a claim."""
    if not study.claims:
        return ""
    rows = [
        (
            claim.statement,
            claim.verdict,
            words.counted(claim.effects),
            ", ".join(dict.fromkeys(e.dataset for e in claim.effects)),
        )
        for claim in study.claims
    ]
    return _rows(("they say", "verdict", "effects", "on"), rows, 4)


def _images(pictures: Sequence[Picture], folder: str | None) -> str:
    if folder is None:
        return ""
    images = [
        f'<img src="{html.escape(folder)}/{picture.name}.png" width="49%" alt="{html.escape(plain(picture.alt))}">'
        for picture in pictures
    ]
    return "\n".join(images) + "\n"


def _folded(what: str, text: str) -> str:
    return f"<details><summary>{what}</summary>\n\n{text}\n</details>\n"


def _effects(effects: Sequence[Effect], among: Sequence[Effect]) -> str:
    return _rows(words.EFFECTS, [words.effect(each, among) for each in effects], 5)


def _claim(study: Study, claim: ClaimResult, folder: str | None) -> str:
    among = claim.effects + claim.others
    parts = [
        f"## {markdown_text(claim.name)}\n",
        f"> {markdown_text(claim.statement)}\n",
        f"Who says it: {markdown_text(claim.source)}. {markdown_text(claim.method)}\n",
        f"**{claim.verdict.capitalize()}** on this data: {words.counted(claim.effects)}.\n",
        _effects(claim.effects, among),
        _images(of_claim(study, claim), folder),
    ]
    if claim.others:
        parts.append(_folded("Beside that", _effects(claim.others, among)))
    if claim.costs:
        parts.append(_folded("All training steps", _rows(words.COSTS, map(words.cost, claim.costs), 2)))
    if claim.arms:
        parts.append(_folded("All arms", _arms(claim.arms)))
    return "\n".join(parts)


def _arms(arms: Sequence[ArmResult]) -> str:
    common = words.common(arms)
    return (markdown_text(common) + "\n\n" if common else "") + _rows(words.ARMS, words.arms(arms), 3)


def _by_domain(study: Study) -> str:
    """Of every dataset the arms with Leaky ReLU and ReLU as they usually are."""
    arms = [arm for claim in study.claims if claim.name == "domains" for arm in claim.arms]
    parts = []
    for domain in dict.fromkeys(arm.domain for arm in arms):
        parts.append(f"### {markdown_text(domain)}\n\n" + _arms([arm for arm in arms if arm.domain == domain]))
    return "## By domain\n\n" + "\n".join(parts) if parts else ""


def _datasets(study: Study) -> str:
    text = "## Datasets\n\n" + _rows(words.DATASETS, words.datasets(study.datasets), 6)
    if study.skipped:
        text += "\nSkipped:\n\n" + _rows(words.SKIPPED, words.skipped(study.skipped), 3)
    return text


def _call(study: Study) -> str:
    """Its options but for those that change no figure; of its file only what can stand in a call."""
    parts = []
    for name, value in study.arguments.items():
        for each in value if isinstance(value, list) else [value]:
            option = f"--{name.replace('_', '-')}" + ("" if each is True else f" {each}")
            if (
                each not in (None, False, "default")
                and name not in _UNTOLD
                and re.fullmatch(r"--[\w-]+( [\w.+-]+)?", option)
            ):
                parts.append(option)
    return " ".join(parts)


def _effort(study: Study) -> str:
    """How many seeds and learning rates there were."""
    arms = [*study.arms, *(arm for claim in study.claims for arm in claim.arms)]
    seeds = sorted({len(arm.scores) for arm in arms})
    rates = sorted({len(arm.sweep) for arm in arms if arm.sweep})
    counts = [(seeds, "fresh seeds an arm"), (rates, "learning rates a sweep")]
    found = [" to ".join(dict.fromkeys((str(of[0]), str(of[-1])))) + f" {what}" for of, what in counts if of]
    if of_sweep := len({outcome.configuration.seed for outcome in study.outcomes if outcome.configuration.seed < 0}):
        found.append(f"{of_sweep} seed{'s' * (of_sweep > 1)} for each rate")
    return f"Here: {', '.join(found)}, {len(study.outcomes)} trainings in all." if found else ""


def render(study: Study, folder: str | None) -> str:
    """The document; ``folder``: of its pictures, from where it lies; None: without pictures."""
    head = _HEAD.format(call=_call(study), where=markdown_text(where(study)), summary=summary(study), effort=_effort(study))
    parts = [head.rstrip() + "\n"]
    parts += [_claim(study, claim, folder) for claim in study.claims]
    if study.arms:
        parts.append("## Grid\n\n" + _arms(study.arms) + "\n" + _images(of_grid(study), folder))
    parts += [_by_domain(study), _datasets(study), _TAIL]
    return "\n".join(part for part in parts if part)


def overview(study: Study, folder: str) -> str:
    """For the page of results: the claims, and the figures of the first of them."""
    head = f"`leakyrelu-bench train {_call(study)}`, {markdown_text(where(study))}.\n\n"
    return head + summary(study) + "\n" + "".join(_images(of_claim(study, claim)[:2], folder) for claim in study.claims[:1])


def save(study: Study, path: Path, pictures: Path | None) -> None:
    """Writes the document; ``pictures``: the folder that its pictures lie in, if they are to be shown.

    Raises:
        ResultsError: the file cannot be written.
    """
    folder = Path(os.path.relpath(pictures, path.absolute().parent)).as_posix() if pictures else None
    write(path, render(study, folder))
