"""Breaks a room of the package on purpose, one small change at a time, and counts the changes that its tests notice.

    pip install cosmic-ray
    python tests/mutants.py units building
    python tests/mutants.py keras_preact/networks/costs.py "tests/test_counts.py -k stage" --mutants 40 --seed 1

It takes names of rooms in the table below, or one file and what pytest takes. Of the places that cosmic-ray's operators
change it draws some at random, and one change of each; one that makes the tests run for too long is noticed, too. It
draws none in annotations and in what is raised, none of `==` to `is`, and none that does not compile. It changes a copy
of the tree alone. A room takes from four minutes to a quarter of an hour, so that this is no test.
"""
import argparse
import difflib
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from itertools import islice
from pathlib import Path
from shutil import copyfile

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parent.parent
# The file of each room and what pytest takes, first the tests that notice most.
ROOMS = {
    "units": ("keras_preact/networks/units.py", "tests/test_agreement.py tests/test_signals.py"),
    "building": ("keras_preact/networks/building.py", "tests/test_networks_input.py tests/test_agreement.py"),
    "simplification": ("keras_preact/exporting/simplification.py", "tests/test_simplification.py"),
    "recipes": (
        "keras_preact/training/recipes.py",
        "tests/test_training.py tests/test_fine_tune.py -k 'recipe or warm_up or cosine or rate_may or more_often'",
    ),
    "augmentation": (
        "keras_preact/data/augmentation.py",
        "tests/test_streams.py -k '(crop or area or attempt or colour or lighting) and not epoch'",
    ),
    "mixing": ("keras_preact/data/mixing.py", "tests/test_datasets.py -k 'crop or cut or mix or eras'"),
    "randaugment": ("keras_preact/data/randaugment.py", "tests/test_randaugment.py"),
    "evaluation": ("keras_preact/training/evaluation.py", "tests/test_evaluation.py"),
}
# Equal strings, small numbers and names of classes are mostly the same objects, too.
ALIKE = re.compile("_(Eq_Is|Is_Eq|NotEq_IsNot|IsNot_NotEq)$")


def told(node):
    """Whether `node` is part of an annotation or of what is raised."""
    while parent := node.parent:
        if parent.type in ("raise_stmt", "tfpdef") or node is getattr(parent, "annotation", None):
            return True
        if parent.type == "annassign" and node is parent.children[1]:
            return True
        node = parent
    return False


def changes(source):
    """Returns {place in `source`: [(operator, number of its use)]}."""
    nodes, places = list(ast_nodes(get_ast(source))), {}
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments() or ALIKE.search(name):
            continue
        uses = ((node, place) for node in nodes for place in operator().mutation_positions(node))
        for number, (node, place) in enumerate(uses):
            if not told(node):
                places.setdefault(place, []).append((operator(), number))
    return places


def compiles(source):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            compile(source, "mutant", "exec")
        except SyntaxError:
            return False
    return True


def sample(source, count, rng):
    """Returns up to `count` mutants of `source`, each changed at another place."""
    places, found = changes(source), []
    for place in rng.sample(sorted(places), len(places)):
        mutants = (mutate_code(source, *change) for change in rng.sample(places[place], len(places[place])))
        found += islice(filter(compiles, mutants), 1)
        if len(found) == count:
            break
    return found


def copy_tree(target):
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            copyfile(ROOT / name, target / name)


def passes(tree, tests, limit=None, **environment):
    """Whether pytest passes `tests` in `tree` within so many seconds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests], cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )
    try:
        return process.wait(limit) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def survives(mutant, tree, file, tests, limit):
    (tree / file).write_text(mutant, encoding="utf-8")
    # Two mutants of one second have the same time, by which Python tells what it has compiled.
    return passes(tree, tests, limit, PYTHONDONTWRITEBYTECODE="1")


def difference(old, new):
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0))[2:]
    return "\n".join(f"    {line}" for line in lines)


def measure(tree, file, tests, options):
    """Prints which of the mutants of `file` that are drawn survive `tests`, and how many do not."""
    source = (ROOT / file).read_text(encoding="utf-8")
    mutants = sample(source, options.mutants, random.Random(options.seed))
    numbers, tests = options.only or range(1, len(mutants) + 1), shlex.split(tests)
    start = time.monotonic()
    if not passes(tree, tests):
        raise SystemExit(f"{file}: the tests fail as it is.")
    whole = time.monotonic() - start
    print(f"{file}: {len(numbers)} mutants of {len(changes(source))} places; its tests take {whole:.0f} s", flush=True)
    start, killed = time.monotonic(), 0
    for done, number in enumerate(numbers, start=1):
        mutant = mutants[number - 1]
        if survives(mutant, tree, file, tests, 3 * whole + 10):
            print(f"  mutant {number} survives\n{difference(source, mutant)}")
        else:
            killed += 1
        left = (time.monotonic() - start) / done * (len(numbers) - done)
        print(f"  {done} of {len(numbers)}, {killed} killed, {left / 60:.1f} min left", flush=True)
    (tree / file).write_text(source, encoding="utf-8")
    print(f"{file}: {killed} of {len(numbers)} killed ({100 * killed / len(numbers):.0f} %), seed {options.seed}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="+", metavar="ROOM", help=f"of {', '.join(ROOMS)}; or FILE TESTS")
    parser.add_argument("--mutants", type=int, default=30, help="of a room at most (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="of the sample these mutants alone")
    options = parser.parse_args()
    first, *others = options.rooms
    unknown = [room for room in options.rooms if room not in ROOMS]
    if unknown and not first.endswith(".py"):
        parser.error(f"There is no room {unknown[0]!r}, but {', '.join(ROOMS)}.")
    rooms = [(first, " ".join(others))] if unknown else [ROOMS[room] for room in options.rooms]
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        for file, tests in rooms:
            measure(Path(folder), file, tests, options)


if __name__ == "__main__":
    main()
