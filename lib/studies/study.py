"""Inside a notebook: its study, of which a record stays: what ran, what it measured, what that says about the claims.

A notebook makes one `Study` right below its parameters, runs each seed through `Study.seed` (which keeps
finished seeds, so an interrupted run resumes), states what it measured through `Study.claim`, tells
what came out through `Study.tell`, and ends with `Study.finish`, which writes the record, a JSON file, atomically.
"""

import hashlib
import io
import json
import math
import os
import platform
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch

from studies import digests, findings, parameters, records
from studies.files import NOTE, ROOT, SCHEMA, check_writable, results_root, sole, write_bytes, write_json
from studies.statistics import estimate
from studies.verdicts import REQUIRED, SMOKE, judged, load_claims, stated

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "zennit")


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python, numpy and torch; returns a fresh CPU generator with the same seed."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def listed(text: str) -> list[str]:
    """The parts of a parameter that names several things, separated by commas.

    Example:
        >>> listed("plain, label smoothing,")
        ['plain', 'label smoothing']
    """
    return [part.strip() for part in text.split(",") if part.strip()]


def check_known(parameter: str, given: Iterable[str], known: Iterable[str]) -> None:
    """ValueError if a parameter names something that there is not."""
    known = [*known]
    if unknown := sorted({*given} - {*known}):
        raise ValueError(f"parameter {parameter}: unknown {unknown}; there are {', '.join(known)}")


def check_device(name: str) -> torch.device:
    """The device of that name; ValueError if torch does not know it, it is not on this machine or has no float64."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device, dtype=torch.float64)  # as metrics are computed; Apple's mps has none
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}); try device=cpu") from None
    return device


def progress(total: int, what: str):
    """A bar that counts to `total`: use it in a `with` and call its `update`. On stdout, as all that is no error."""
    from tqdm import tqdm

    return tqdm(total=total, desc=what, file=sys.stdout)


def readable(table):
    """A DataFrame as a table (a pandas Styler) whose texts are whole, wrapped and on the left."""
    sides = [{"selector": "th, td", "props": "text-align: left; vertical-align: top; white-space: normal"}]
    sides += [{"selector": "th.row_heading", "props": "white-space: nowrap"}]
    return table.style.set_table_styles(sides)


# ---------------------------------------------------------------- the study


class Study:
    """One run of one notebook.

    Args:
        experiment: the notebook's path below `notebooks/` without its ending: "<paper>/<name>", or "<name>".
        namespace: the notebook's `globals()`. Its parameters are the names annotated as int, float, str or
            bool in the `parameters` cell; it must have `scale`, `seed`, `seeds`, `device`, `threads`, `out`.

    Sets the number of CPU threads (results depend on it, in the last bits) and deterministic algorithms; on a
    GPU, where some operations have none (adaptive average pooling is one), torch warns of these. float32 is
    float32 there too: convolutions do not round it to 10 bits (TF32), as torch else lets them, and maps add up. What a
    user's start-up file may have set of torch, another default dtype or device or no gradients, is set back.

    Attributes:
        parameters: name -> value; device: a torch.device; out: the folder that the run writes to;
        seeds: range(seed, seed + seeds).

    Raises:
        ValueError: unknown or ill-typed parameters or such out of range, an unusable device.
        OSError: the output folder cannot be written to.
    """

    def __init__(self, experiment: str, namespace: dict):
        self._started = time.time()
        self.experiment = experiment
        self.parameters = parameters.of_notebook(namespace, experiment)
        self._namespace = namespace
        self.seeds = range(self.parameters["seed"], self.parameters["seed"] + self.parameters["seeds"])
        self.device = check_device(self.parameters["device"])
        torch.set_num_threads(self.parameters["threads"])
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        # As `use_deterministic_algorithms`, which would import torch's compiler, for two seconds.
        torch.set_deterministic_debug_mode("error" if self.device.type == "cpu" else "warn")
        torch.backends.cudnn.allow_tf32 = False
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        scale = self.parameters["scale"]
        self.out = Path(namespace["out"] or results_root() / scale / experiment).absolute()
        check_writable(self.out)
        self._definitions = load_claims()
        self._claims: dict[tuple[str, str], dict] = {}
        self._figures: dict[str, bytes] = {}
        self._captions: dict[str, dict[str, str]] = {}
        self._data: dict[str, dict] = {}
        self._seconds: dict[int, float] = {}
        self._megabytes = 0.0

    def data(self, name: str, checksums: dict[str, str]) -> None:
        """Note a data set and its files' sha256 in the record."""
        self._data[name] = dict(checksums)

    def seed(self, seed: int, run: Callable[[int], dict]) -> dict:
        """`run(seed)`, or its kept result if it has run before with the same everything.

        `run` returns a dict of plain values and tensors, with "metrics": name -> float, NaN where one is
        undefined. Everything is: the parameters (but for which seeds, and where to), the cells executed so far
        and the name of `run`, the code (the library, data_prep, and the kit but for what only shows or runs studies),
        the data's checksums and the packages' versions; a change to any of these runs it anew, but none of comments
        or docstrings. A kept result that is not as it was written (`studies.digests`) is set aside with a word, and run
        anew too. A study of several stages calls this once a stage, with functions of different names; the record's
        time of a seed is that of all of them. Where another process is at the same `run(seed)`, as the jobs of a batch
        are that share a stage, this one waits for its result.
        """
        file = results_root() / "seeds" / self.experiment / f"{seed}-{self._fingerprint(seed, run)}.seed"
        with sole(file):
            if not _is_kept(file):
                seed_everything(seed)
                started = time.time()
                result, content = run(seed), io.BytesIO()
                result = {**result, "seconds": time.time() - started, "megabytes": peak_memory()}
                torch.save(result, content)
                digests.write_sealed(file, content.getvalue())
            content = io.BytesIO(digests.read_sealed(file))
        result = torch.load(content, map_location="cpu")  # also when just made: both ways give the same
        self._seconds[seed] = self._seconds.get(seed, 0.0) + result["seconds"]
        self._megabytes = max(self._megabytes, result["megabytes"])
        return result

    def _fingerprint(self, seed: int, run: Callable) -> str:
        cells = [digests.code(c) for c in self._namespace.get("In", []) if not c.startswith("# Parameters")]
        if "__file__" in self._namespace:  # run as a script
            cells.append(digests.code(Path(self._namespace["__file__"]).read_text("utf-8")))
        parameters = {k: v for k, v in self.parameters.items() if k not in ("seed", "seeds", "scale")}
        code = [digests.code_digest(without=digests.SHOWS_OR_RUNS), *(version(package) for package in PACKAGES)]
        state = [seed, getattr(run, "__name__", ""), parameters, cells, self._data, code]
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]

    def claim(self, id: str, values, of: str = "", draws=None) -> dict:
        """State what was measured for a claim of `notebooks/claims.yaml`.

        Args:
            id: the claim's id.
            values, draws: (S,) one number for each seed or (S, N) one a seed and test image, and draws of patients, see
                `estimate`.
            of: what of several things was measured, as a variant's name.

        Returns:
            the claim's entry in the record, with "measured" and "verdict", see `studies.verdicts.judged`.
        """
        if id not in self._definitions:
            raise ValueError(f"unknown claim {id!r}; claims.yaml has {', '.join(self._definitions)}")
        definition = {key: value for key, value in stated(id, of).items() if key in (*REQUIRED, "above", "below")}
        share = self._definitions[id].get("unit") == "share"
        entry = {"id": id, "of": of, **definition, "measured": estimate(values, draws, share)}
        entry["verdict"] = judged({"parameters": self.parameters, "claims": [entry]})[0]["verdict"]
        self._claims[id, of] = entry
        return entry

    @property
    def claims(self) -> list[dict]:
        """What has been stated so far, as the record will hold it."""
        return list(self._claims.values())

    def claims_table(self):
        """The claims stated so far: claim, expectation, measurement, interval, verdict; a table with whole sentences.

        At smoke scale it is without verdicts, and a line says why. Rows are in the order of `notebooks/claims.yaml`.

        Returns:
            a pandas Styler, whose `data` is the DataFrame.
        """
        ours = {"experiment": self.experiment, "parameters": self.parameters, "claims": self.claims}
        ours["claims"].sort(key=lambda claim: [*self._definitions].index(claim["id"]))
        table = records.claims([ours]).set_index("id").rename(columns={"95 % CI": "95 % interval"})
        smoke = self.parameters["scale"] == "smoke"
        if smoke:
            print(SMOKE)
        columns = ["claim", "of", "expected", "measured", "95 % interval", *([] if smoke else ["verdict"])]
        return readable(table[columns])

    def figure(self, figure, name: str, caption: str = "", alt: str = "") -> None:
        """Show a matplotlib figure with its caption, and keep it for `finish` to write, as figures/<name>.png.

        Args:
            figure: shown and closed, if it is not closed already, as where sliders stand in its place.
            name: of the file.
            caption: what to see in it, a sentence or two.
            alt: what is drawn, for those who do not see it.
        """
        from matplotlib import pyplot as plt

        from studies.pictures import captions

        self._figures[name] = captions.png(figure)
        self._captions[name] = {"caption": caption, "alt": alt}
        if getattr(figure, "number", None) in plt.get_fignums():
            captions.show(self._figures[name], caption, alt)
            plt.close(figure)

    def tell(self, came_out: Callable[[findings.Measured], findings.Sentences], results: Sequence[dict]):
        """What came out in this run and in the one on record at laptop scale: those of the sentences that are true.

        Args:
            came_out: from the means of a record to pairs of a condition and a sentence, see `studies.findings`.
            results: the seeds' results, as for `finish`.

        Returns:
            Markdown to show.
        """
        from IPython.display import Markdown

        return Markdown(findings.tell(came_out, self._record(results)))

    def finish(self, results: Sequence[dict]):
        """Write the record of the seeds' results, `record.json`, and the figures.

        A metric that is NaN in some seeds has no value there (null), and its mean is over the others.

        Returns:
            links to them, as Markdown to show.
        """
        from IPython.display import Markdown

        record = self._record(results) | {
            "times": {
                "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "notebook_seconds": round(time.time() - self._started, 1),
                "seed_seconds": [round(self._seconds[seed], 1) for seed in self.seeds],
                "megabytes": round(max(self._megabytes, peak_memory())),
            },
        }
        for name, picture in self._figures.items():
            write_bytes(self.out / "figures" / f"{name}.png", picture)
        write_json(self.out / "record.json", record | {"digest": digests.record_digest(record)})
        return Markdown(self._links())

    def _links(self) -> str:
        """Where the record, the figures, the report and the results page are, from the notebook's folder."""
        start = self.out if self._namespace["out"] else Path.cwd()  # where the executed notebook lies

        def link(words: str, file: Path) -> str:
            return f"[{words}]({quote(Path(os.path.relpath(file, start)).as_posix())})"

        figures = [link(name, self.out / "figures" / f"{name}.png") for name in self._figures]
        lines = [f"Written: {', '.join([link('the record', self.out / 'record.json'), *figures])}."]
        lines.append(f"`make report` shows all runs on {link('one page', results_root() / 'report.html')}.")
        page = records.RECORDS / f"{self.experiment.partition('/')[0]}.md"
        lines += [f"What larger runs found: {link('results', page)}."] if page.is_file() else []
        return " ".join(lines)

    def _record(self, results: Sequence[dict]) -> dict:
        """The record but for its times."""
        metrics = {name: [_defined(result["metrics"][name]) for result in results] for name in results[0]["metrics"]}
        return {
            "schema": SCHEMA,
            "experiment": self.experiment,
            "parameters": self.parameters,
            "seeds": list(self.seeds),
            "metrics": metrics,
            "summary": {name: _summary(values) for name, values in metrics.items()},
            "claims": self.claims,
            "figures": {name: digests.sha256(picture) for name, picture in self._figures.items()},
            "captions": self._captions,
            "data": self._data,
            "environment": environment(self.device),
            "commit": commit(),
        }


def _is_kept(file: Path) -> bool:
    """Is a seed's file there, as it was written? One that is not is set aside."""
    try:
        digests.read_sealed(file)
        return True
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        aside = file.replace(file.with_name(f"{file.name}.damaged"))
        print(f"{NOTE}{error}: set aside as {aside.name}, and run again", file=sys.stderr)
        return False


def _defined(value) -> float | None:
    """A metric's value; None for NaN, as of the share of relevance in a network without any."""
    return None if math.isnan(value) else float(value)


def _summary(values: list[float | None]) -> dict:
    """`estimate` of the seeds that have a value, which says how many these are."""
    known = [value for value in values if value is not None]
    measured = estimate(known) if known else {"mean": None, "low": None, "high": None, "interval": "none"}
    found = {key: measured[key] for key in ("mean", "low", "high", "interval")}
    return (
        found
        if len(known) == len(values)
        else found | {"interval": f"{found['interval']}; undefined in {len(values) - len(known)} of {len(values)}"}
    )


def peak_memory() -> float:
    """The most main memory that this process has had so far, in MB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # of Apple's kernel, of Linux's
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def environment(device: torch.device) -> dict:
    """Versions and machine, as a record keeps them."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "python": platform.python_version(),
        "attrain": version("attrain"),
        **{package: version(package) for package in PACKAGES},
        "system": sys.platform,
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The code's git commit, with "+changes" if code has been edited since; None outside a clone."""

    def git(*args):
        return subprocess.run(["git", "-C", ROOT, *args], capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "lib", "data_prep", "notebooks/*.py", "notebooks/*.yaml")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
