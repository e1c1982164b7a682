"""What came out of a run, in sentences; one is printed only where it is true."""

import math
import re
from collections.abc import Callable, Iterable

from studies.records import RECORDS, load_record, scale, seeds_in_words

PICTURES = {"scenes": "objects", "shifted_backgrounds": "source"}  # data sets made of other pictures: who names those
Sentences = Iterable[tuple[bool, str]]


class Measured(dict):
    """A record's means over seeds: of a metric by its name, of a claim by (id, of). NaN for what was not measured."""

    def __init__(self, record: dict):
        super().__init__({name: summary["mean"] for name, summary in record["summary"].items()})
        self.update({(claim["id"], claim["of"]): claim["measured"]["mean"] for claim in record["claims"]})
        self.update({name: math.nan for name, mean in self.items() if mean is None})

    def __missing__(self, name) -> float:
        return math.nan


def true_sentences(said: Sentences) -> list[str]:
    """Of (condition, sentence) the sentences whose condition holds, without those that name a number that is not there.

    Example:
        >>> true_sentences([(0.9 > 0.5, "It is above one half."), (0.9 < 0.5, "It is below."), (True, "It is nan.")])
        ['It is above one half.']
    """
    return [sentence for true, sentence in said if true and not re.search(r"\bnan\b", sentence)]


def tell(came_out: Callable[[Measured], Sentences], record: dict) -> str:
    """What came out in a run, and beside it in the kept run at laptop scale, as Markdown.

    Args:
        came_out: Measured -> (condition, sentence) each, asked of either record.
        record: that of this run, as far as it is known: experiment, parameters, seeds, summary, claims.
    """
    parts = [_paragraph("In this run", came_out, record)]
    kept = RECORDS / "laptop" / record["experiment"] / "record.json"
    if kept.is_file() and scale(record) != "laptop":
        parts.append(_paragraph("In the run on record", came_out, load_record(kept)))
    return "\n\n".join(parts)


def _paragraph(which: str, came_out, record: dict) -> str:
    about = ", ".join([f"{scale(record)} scale", *_data(record["parameters"]), seeds_in_words(record["seeds"])])
    sentences = true_sentences(came_out(Measured(record))) or ["Nothing that is asked here was measured."]
    return f"**{which}** ({about}): {' '.join(sentences)}"


def _data(parameters: dict) -> list[str]:
    """What was looked at."""
    sets = [parameters[name] for name in ("dataset", "datasets") if name in parameters]
    return [*sets, *(parameters[PICTURES[name]] for name in sets if name in PICTURES)]


def shortcut_cost(m: Measured, name: str, what: str) -> Sentences:
    """What a misleading shortcut costs a network whose accuracy was measured with a true one and a misleading one.

    Args:
        m: has "<name>.biased" and "<name>.deceiving".
        what: the misleading shortcut, as "a wrong mark".
    """
    before, after = m[f"{name}.biased"], m[f"{name}.deceiving"]
    lost, told = 100 * (before - after), f"Under {what} the accuracy of {name} falls from {before:.2f} to {after:.2f}"
    yield after < 0.5 * before, f"{told}, by more than half."
    yield lost > 1 and after >= 0.5 * before, f"{told}."
    yield lost <= 1, f"Under {what} {name} loses no more than one point of accuracy ({before:.2f}, {after:.2f})."


def from_few_samples(m: Measured) -> Sentences:
    """How Challenger compares with plain training, its control and FGSM, for each number of training samples.

    Args:
        m: has "<number of samples>.<method>.accuracy" and ".nll", perhaps with a data set's name before.
    """
    ends = ".plain.accuracy"
    cases = [name.removesuffix(ends) for name in m if isinstance(name, str) and name.endswith(ends)]

    def wins(other: str, what: str, sign: int) -> int:
        return sum(sign * (m[f"{case}.Challenger.{what}"] - m[f"{case}.{other}.{what}"]) > 0 for case in cases)

    rivals = {"plain training": "plain", "permuted maps": "permuted", "FGSM": "FGSM"}
    for case in cases[:1]:
        told = ", ".join(f"{m[f'{case}.{name}.accuracy']:.3f} with {words}" for words, name in rivals.items())
        where = f"{case.replace('.', ', ')} training samples"
        yield True, f"With {where} accuracy is {m[f'{case}.Challenger.accuracy']:.3f} with Challenger, {told}."
    plain, permuted, fgsm = (wins(name, "accuracy", 1) for name in rivals.values())
    of = f"Of {len(cases)} cases its mean accuracy is higher than"
    higher = f"plain training's in {plain}, than permuted maps' in {permuted} and than FGSM's in {fgsm}"
    yield len(cases) > 1, f"{of} {higher}."
    better = wins("plain", "nll", -1)
    yield len(cases) > 1, f"Its negative log-likelihood is lower than plain training's in {better}."
