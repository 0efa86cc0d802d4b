"""The house: who imports whom, what importing starts, and what an installed package holds."""
import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_preact"
# From the ground floor up: a room imports only from those before it.
ROOMS = (
    "version", "checks", "units", "networks", "architectures", "simplification", "costs", "preprocessing", "metadata",
    "hub", "pretrained", "importers", "models", "recipes", "augmentation", "streams", "datasets", "distribution",
    "runs", "card", "publishing", "rematerialization", "looping", "training", "evaluation", "finetuning", "experiments",
    "reporting", "signals", "pyramid", "inference", "savedmodel", "exporting", "benchmarking", "explanation",
    "cli",
)
OUTSIDE = {
    "units": {"keras"}, "networks": {"keras"}, "simplification": {"keras", "numpy"}, "costs": set(),
    "preprocessing": {"keras", "numpy", "PIL"}, "hub": {"huggingface_hub"}, "pretrained": {"h5py", "numpy"},
    "models": {"keras"}, "importers": {"h5py", "keras", "numpy", "safetensors", "torch"},
    "recipes": {"keras", "numpy"}, "augmentation": {"numpy", "PIL", "tensorflow"},
    "streams": {"keras", "numpy", "tensorflow", "tensorflow_datasets"},
    "datasets": {"keras", "numpy", "tensorflow_datasets"}, "distribution": {"keras", "tensorflow", "jax"},
    "runs": {"matplotlib"}, "card": {"huggingface_hub"}, "publishing": {"huggingface_hub", "keras", "numpy"},
    "rematerialization": {"keras"}, "looping": {"keras", "numpy", "tensorflow"}, "training": {"keras", "tensorflow"},
    "evaluation": {"keras", "numpy"}, "finetuning": {"keras", "numpy"},
    "benchmarking": {"keras", "numpy", "tensorflow", "onnxruntime"},
    "signals": {"keras", "numpy", "tensorflow", "rich"},
    "pyramid": {"keras"}, "inference": {"keras", "numpy"}, "savedmodel": {"numpy", "tensorflow"},
    "exporting": {"keras", "numpy", "tensorflow", "onnxruntime", "ai_edge_litert", "openvino"},
    "explanation": {"keras", "numpy", "PIL"}, "cli": {"keras", "numpy", "rich", "PIL"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" if node.module == "keras_preact" else node.module
                        for alias in node.names)


def modules(room):
    """The files of a room: one, or those of a folder."""
    return sorted((PACKAGE / room).glob("*.py")) or [PACKAGE / f"{room}.py"]


def test_every_module_has_its_room():
    assert set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"} == {path for room in ROOMS for path in modules(room)}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_before_it(room):
    for name in (name for path in modules(room) for name in imports(path)):
        top, *rest = name.split(".")
        if top == "keras_preact":
            # Names that the package itself exports come from the rooms before the command.
            inside = rest[:1] == [room] and len(modules(room)) > 1
            assert inside or not rest or rest[0] not in ROOMS or ROOMS.index(rest[0]) < ROOMS.index(room), name
        elif top not in sys.stdlib_module_names:
            assert top in OUTSIDE.get(room, set()), name


def run(code, **kwargs):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **kwargs).stdout


def test_importing_the_package_starts_no_backend():
    loaded = run("import sys, keras_preact; print(*sys.modules)").split()
    assert not {"keras", "tensorflow", "jax", "torch", "huggingface_hub", "PIL", "h5py"} & set(loaded)


def test_the_public_names_are_those_of_the_stub():
    import keras_preact

    names = {alias.asname for node in ast.walk(ast.parse((PACKAGE / "__init__.pyi").read_text()))
             if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names == set(keras_preact.__all__)
    for name in names:
        assert getattr(keras_preact, name) is not None


@pytest.mark.slow
def test_a_wheel_built_from_the_sdist_carries_weights_and_classifies(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", ROOT],
        check=True, capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    site = tmp_path / "site"
    for file in ("py.typed", "imagenet.csv", "importers/timm.py", "weights/index.json", "weights/published.csv"):
        assert (site / "keras_preact" / file).is_file()
    out = run(
        "import sys; from keras_preact import cli, pretrained; print(pretrained.folder()); "
        "sys.exit(cli.main(sys.argv[1:] or ['classify', 'cat_0000.png']))",
        cwd=ROOT / "examples" / "images", env=os.environ | {"PYTHONPATH": str(site)},
    )
    folder, line = out.splitlines()
    assert Path(folder) == site / "keras_preact" / "weights" and line.startswith("cat_0000.png  ")
