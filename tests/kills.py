"""Kills runs at random moments and compares what the same command then ends with.

    python -m tests.kills --kills 100 --folder kills/

Toy-sized DDAD, D3AD and DeCo-Diff, each with 0 and 2 data workers, first run undisturbed. Then runs
are killed (SIGKILL, all of their processes) at a random moment between start and end, and started
again until they finish. Weights, calibration, metrics and scores must equal those of the
undisturbed run bit for bit. With ``--tmpdir`` on another file system than ``--folder`` nothing can
be renamed from there. Prints a line per kill; the exit status says whether all came out equal. The
same call again goes on where it was stopped. Runs are forked from here with everything imported:
seconds of that, in which nothing can be lost, would take most of the kills.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

import lightning_ad.commands.experiment_cli  # noqa: F401
from lightning_ad.cli import main
from lightning_ad.methods import D3AD, DDAD, DeCoDiff
from tests.checkpoints import weights
from tests.fakes import write_autoencoder, write_mtd
from tests.shrunk import fit_method

METHODS = [method.__name__ for method in (DDAD, D3AD, DeCoDiff)]
PAIRS = [(method, workers) for method in METHODS for workers in (0, 2)]
FLEETING = ("images_per_second", "milliseconds_per_image")


def autoencoder_in(folder: Path) -> Path:
    """The smallest autoencoder, written once."""
    if not folder.exists():
        write_autoencoder(folder)
    return folder


def command(folder: Path, method: str, workers: int, run: Path) -> list[str]:
    """A whole experiment: two phases of three epochs where there are two."""
    more = ["--trainer.max_epochs=3", f"--data.num_workers={workers}"]
    more += ["--model.adaptation_epochs=2"] if method != "DeCoDiff" else []
    arguments = fit_method(method, folder, run, autoencoder_in(folder / "autoencoder"), *more)
    arguments = [a for a in arguments if a != "--data.num_workers=0" or not workers]
    # Each run decodes and encodes for itself, so that these are interrupted, too.
    cache = f"--data.cache_dir={run.with_name(run.name + '-cache')}"
    return [*arguments, cache]


def started(arguments: list[str], log: Path) -> int:
    """The process of a command, in a group of its own, forked from here."""
    process = os.fork()
    os.setpgid(process, process)  # by whoever comes first; 0 is the process itself
    if process:
        return process
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["lightning", *arguments]
    status = 1
    try:
        main()
        status = 0
    except SystemExit as end:
        status = int(end.code != 0)
    finally:
        os._exit(status)


def finish(arguments: list[str], log: Path) -> float:
    """Run to the end; the seconds it took."""
    began = time.monotonic()
    status = os.waitpid(started(arguments, log), 0)[1]
    if status:
        raise SystemExit(f"a run ended with status {status}, see the end of {log}: {arguments}")
    return time.monotonic() - began


def kill(arguments: list[str], after: float, log: Path) -> bool:
    """Start, and kill all processes of the run after some seconds; whether it still ran."""
    process, end = started(arguments, log), time.monotonic() + after
    while time.monotonic() < end:
        if os.waitpid(process, os.WNOHANG)[0]:
            return False
        time.sleep(0.005)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


def moment(run: Path) -> str:
    """What the run had reached, as its folder tells."""
    names = {file.name for file in run.glob("*")} if run.exists() else set()
    unfinished = sorted(file.stem for file in (run / "resume").glob("*.ckpt"))
    for sign, name in (("metrics.json", "after the test"), ("final.ckpt", "in the test")):
        if sign in names:
            return name
    finished = sorted(name for name in names if name.endswith(".ckpt"))
    return f"in {unfinished[0]}" if unfinished else f"after {finished or 'start-up'}"


def differences(run: Path, whole: Path) -> list[str]:
    """What a run ended with that the undisturbed one did not."""
    ours, theirs = weights(run / "final.ckpt"), weights(whole / "final.ckpt")
    found = [name for name in theirs if not torch.equal(ours[name], theirs[name])]
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (run, whole)]
    names = [name for name in metrics[1] if not name.endswith(FLEETING)]
    found += [name for name in names if metrics[0][name] != metrics[1][name]]
    if (run / "scores.csv").read_bytes() != (whole / "scores.csv").read_bytes():
        found.append("scores.csv")
    return found


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def arguments_of_the_command_line() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--tmpdir", help="TMPDIR of the runs")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def undisturbed(folder: Path) -> dict[str, float]:
    """Run each pair once to its end; the seconds by the name of its run, kept in the folder."""
    kept = folder / "seconds.json"
    if not kept.exists():
        write_mtd(folder / "mtd")
        seconds = {}
        for method, workers in PAIRS:
            name = f"{method}-{workers}"
            arguments = command(folder, method, workers, folder / name)
            seconds[name] = finish(arguments, folder / "log")
        kept.write_text(json.dumps(seconds))
    return dict(json.loads(kept.read_text()))


def kill_and_compare(
    folder: Path, number: int, share: float, seconds: dict[str, float]
) -> dict[str, Any]:
    """Kill a run at a share of its time, start it again; where it was and what differs."""
    method, workers = PAIRS[number % len(PAIRS)]
    name, run = f"{method}-{workers}", folder / f"killed-{number}"
    arguments, after = command(folder, method, workers, run), share * seconds[name]
    killed = kill(arguments, after, folder / "log")
    reached = moment(run) if killed else "after its end"
    finish(arguments, folder / "log")
    found = differences(run, folder / name)
    return {"run": name, "seconds": round(after, 1), "moment": reached, "differs": found}


def kill_many() -> int:
    """Kill, start again, compare; what an interrupted call has found is kept."""
    options = arguments_of_the_command_line()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if options.tmpdir:
        os.environ["TMPDIR"] = tempfile.tempdir = options.tmpdir
    torch.set_num_threads(1)
    seconds = undisturbed(folder)
    generator, kept = random.Random(options.seed), folder / "kills.jsonl"
    found = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    for number in range(options.kills):
        share = generator.random()
        if number < len(found):
            continue
        shutil.rmtree(folder / f"killed-{number}", ignore_errors=True)
        found.append(kill_and_compare(folder, number, share, seconds))
        with kept.open("a") as file:
            file.write(json.dumps(found[-1]) + "\n")
        say(f"{number + 1}: {found[-1]}")
    broken = sum(bool(kill["differs"]) for kill in found)
    moments = dict(Counter(kill["moment"] for kill in found))
    say(f"{len(found)} kills, {broken} ended differently; moments: {moments}")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(kill_many())
