"""The notebooks run from their first cell to their last, as a reader would run them."""
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

# What the cells of each print, and how often.
PRINTED = {"identity_mappings": ("gradient of the first unit", 4), "fine_tuning": (" -> ", 3)}
NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples" / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    text, times = PRINTED[path.stem]
    assert printed.count(text) == times
