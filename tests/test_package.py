"""The house: who imports whom, what importing starts, and what an installed package holds."""
import ast
import itertools
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE, EXAMPLES = ROOT / "keras_preact", ROOT / "examples"


def rooms():
    """Yields the rooms of ARCHITECTURE.md in their order, as "wing/room", with what that page says of each."""
    wing = ""
    for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines():
        if heading := re.match(r"## `(\w+)/`", line):
            wing = "" if heading[1] == PACKAGE.name else f"{heading[1]}/"
        elif room := re.match(r"- `(\w+)`: (.+)", line):
            yield wing + room[1], room[2]


SAID = dict(rooms())
ROOMS = list(SAID)
ANYWHERE = {"keras", "numpy"}
OUTSIDE = {
    "_support/drawing": {"matplotlib"}, "networks/files": {"h5py"},
    "networks/explanation": {"PIL"}, "data/preprocessing": {"PIL"}, "data/randaugment": {"PIL"},
    "data/decoding": {"tensorflow"}, "data/augmentation": {"tensorflow"},
    "data/streams": {"tensorflow", "tensorflow_datasets"}, "data/datasets": {"tensorflow_datasets"},
    "training/distribution": {"tensorflow", "jax"}, "training/forms": {"tensorflow", "torch"},
    "training/runs": {"h5py"}, "training/tracking": {"wandb"}, "training/optimizers": {"tensorflow"},
    "exporting/savedmodel": {"tensorflow"},
    "exporting/files": {"tensorflow", "tf2onnx", "onnx", "openvino", "torch"},
    "exporting/runtimes": {"onnxruntime", "ai_edge_litert", "openvino", "torch"},
    "exporting/predicting": {"huggingface_hub"},
    "zoo/hub": {"huggingface_hub"}, "zoo/releases": {"huggingface_hub"}, "zoo/described": {"h5py"},
    "zoo/card": {"huggingface_hub"}, "zoo/publishing": {"huggingface_hub"},
    "zoo/importers": {"h5py", "safetensors", "torch"},
    "paper/signals": {"tensorflow", "rich"},
    "benchmarking/peers": {"pytorchcv", "torch"}, "benchmarking/contestants": {"tensorflow"},
    "demo": {"gradio"}, "cli": {"PIL", "click", "rich"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(room):
    """The files of a room: one, or those of a folder."""
    return sorted((PACKAGE / room).glob("*.py")) or [PACKAGE / f"{room}.py"]


def test_text_is_read_and_written_as_utf_8():
    """The locale may know ASCII alone, and no "±" of a report."""
    files = [ROOT / "setup.py", *(file for top in (PACKAGE, ROOT / "weights", EXAMPLES) for file in top.rglob("*.py"))]
    calls = [
        (file.name, ast.unparse(node)) for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and re.search(r"^open$|\.(read|write)_text$", ast.unparse(node.func))
    ]
    binary_or_ours = r"'(rb|wb|r\+b)'|^atomic\.write_text|LOCK"
    assert len(calls) > 20
    assert [call for call in calls if not re.search(rf"'(utf-8(-sig)?|ascii)'|{binary_or_ours}", call[1])] == []


def room_of(name):
    """The room that an imported name such as "keras_preact.networks.config.plan" is of; None of a public name."""
    parts = name.split(".")[1:]
    return next(("/".join(parts[:n]) for n in (1, 2) if "/".join(parts[:n]) in ROOMS), None)


def test_every_module_has_its_room():
    faces = {PACKAGE / "__init__.py", *(PACKAGE / room.split("/")[0] / "__init__.py" for room in ROOMS if "/" in room)}
    assert set(PACKAGE.rglob("*.py")) == faces | {path for room in ROOMS for path in modules(room)}
    assert len(SAID) == len(list(rooms()))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_before_it(room):
    for name in (name for path in modules(room) for name in imports(path)):
        top = name.split(".")[0]
        if top == "keras_preact":
            # Names that the package itself exports come from the rooms before those two.
            other = room_of(name)
            public = other is None and name.count(".") < 2 and room in ("benchmarking", "cli")
            inside = other == room and len(modules(room)) > 1
            assert public or inside or other and ROOMS.index(other) < ROOMS.index(room), name
        elif top not in sys.stdlib_module_names:
            assert top in ANYWHERE | OUTSIDE.get(room, set()), name


def test_a_wing_imports_only_from_wings_before_it():
    # So follows from the order of the rooms, where the rooms of a wing stand together.
    wings = [room.split("/")[0] for room in ROOMS]
    assert len([wing for wing, _ in itertools.groupby(wings)]) == len(set(wings))


@pytest.mark.parametrize("face", sorted(PACKAGE.rglob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_a_wing_says_what_it_holds_and_loads_nothing(face):
    if face.parent.relative_to(PACKAGE).as_posix() not in ROOMS:
        (node,) = ast.parse(face.read_text()).body
        assert ast.get_docstring(ast.Module([node], [])).endswith(".")


def run(code, **kwargs):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **kwargs).stdout


def test_importing_the_package_starts_no_backend():
    loaded = run("import sys, keras_preact; print(*sys.modules)").split()
    assert not {"keras", "tensorflow", "jax", "torch", "huggingface_hub", "PIL", "h5py"} & set(loaded)


def test_rooms_that_need_no_keras_do_not_load_it():
    plain = [f"keras_preact.{room.replace('/', '.')}" for room, said in SAID.items() if "*" in said]
    assert len(plain) > 10
    loaded = run(f"import sys, {', '.join(plain)}; print(*sys.modules)").split()
    assert not {"keras", "tensorflow", "jax", "torch"} & set(loaded)


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
    files = "py.typed", "data/imagenet.csv", "zoo/importers/timm.py", "weights/index.json", "weights/published.csv"
    for file in files:
        assert (site / "keras_preact" / file).is_file()
    out = run(
        "import sys; from keras_preact import cli; from keras_preact.zoo import index; print(index.folder()); "
        "sys.exit(cli.main(sys.argv[1:] or ['classify', 'cat_0000.png']))",
        cwd=ROOT / "examples" / "images", env=os.environ | {"PYTHONPATH": str(site)},
    )
    folder, line = out.splitlines()
    assert Path(folder) == site / "keras_preact" / "weights" and line.startswith("cat_0000.png  ")
