"""The tables of our results and of the errors that others publish, and the labels of ImageNet."""
import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest

from keras_preact.data.preprocessing import LABELS
from keras_preact.networks.architectures import CONFIGS
from keras_preact.zoo import index

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "weights" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documents_have_the_tables(tables):
    assert tables.published() in (ROOT / "docs" / "weights.md").read_text()
    for readme in (ROOT / "README.md", ROOT / "weights" / "README.md"):
        assert tables.results() in readme.read_text()


def test_shortened_runs_and_other_zoos_have_columns_of_their_own(tables, monkeypatch):
    row = {
        "architecture": "PreActResNet20", "dataset": "cifar10", "tag": "t", "error_percent": "8.5", "published_in": "",
        "runs": "1", "recipe": "cifar_paper",
    }
    other = row | {"architecture": "ResNet32", "epochs": "30"}
    monkeypatch.setattr(tables, "read", lambda name: [row | {"epochs": "164"}, other])
    header, _, whole, short = tables.results().splitlines()
    assert header == "| weights | test error | shortened | published | other zoos | runs | trained |"
    theirs = "6.51 % (`cifar10_tf2cv`)"
    assert whole == f'| `PreActResNet20(weights="t")` | 8.50 % |  |  | {theirs} | 1 | 164 epochs, `cifar_paper` |'
    assert short == '| `ResNet32(weights="t")` |  | 8.50 % |  |  | 1 | 30 of 164 epochs, `cifar_paper` |'


def test_every_figure_has_a_network_a_crop_and_a_source(tables):
    rows = tables.read("published.csv")
    keys = [tuple(row[column] for column in ("source", "network", "dataset", "crop")) for row in rows]
    assert len(keys) == len(set(keys))
    for row in rows:
        assert row["network"] in CONFIGS and row["crop"] and row["reference"], row
        assert row["dataset"] in LABELS
        assert 0 < float(row["top5_error"] or 1) < float(row["top1_error"]) < 50, row


def test_ours_are_those_that_we_measured(tables):
    results = {
        (row["architecture"], row["dataset"], float(row["error_percent"])) for row in tables.read("results.csv")
    }
    ours = {
        (row["network"], row["dataset"], float(row["top1_error"]))
        for row in tables.read("published.csv") if row["measured_by"] == "us"
    }
    assert ours == results


@pytest.mark.parametrize("network, source, crop, top1, top5", [
    ("PreActResNet200", "the paper", "320", "20.7", "5.3"),
    ("PreActResNet152", "the paper", "320", "21.1", "5.5"),
    ("PreActResNet200", "Facebook", "320", "20.1", "4.8"),
    ("PreActResNet50", "timm", "224", "19.59", ""),
    ("PreActResNet200", "tf2cv `b`", "224", "18.96", "4.48"),
])
def test_figures_to_know_by_heart(tables, network, source, crop, top1, top5):
    assert [
        (row["top1_error"], row["top5_error"]) for row in tables.read("published.csv")
        if (row["network"], row["source"], row["crop"]) == (network, source, crop)
    ] == [(top1, top5)]


def test_labels_of_imagenet():
    names, ids = LABELS["imagenet"], LABELS["imagenet_wordnet_ids"]
    assert len(names) == len(set(names)) == len(ids) == 1000
    assert list(ids) == sorted(ids) and all(len(x) == 9 and x[0] == "n" and x[1:].isdigit() for x in ids)
    known = {0: "tench", 207: "golden retriever", 281: "tabby", 517: "crane (machine)", 999: "toilet tissue"}
    assert {i: names[i] for i in known} == known
    assert ids[0] == "n01440764" and ids[134] == "n02012849" and ids[999] == "n15075141"


def test_labels_of_imagenet_are_those_of_timm():
    pytest.importorskip("torch")
    import peers

    peers.timm()
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    assert info.label_names() == list(LABELS["imagenet_wordnet_ids"])
    corrected = {134: "crane (bird)", 517: "crane (machine)", 639: "tank suit"}
    for i, name in enumerate(LABELS["imagenet"]):
        assert name == corrected.get(i, info.index_to_description(i).split(",")[0])


def test_label_sets_behave_as_a_dict():
    assert set(LABELS) == {"cifar10", "cifar100", "svhn", "imagenet", "imagenet_wordnet_ids"} and len(LABELS) == 5
    assert LABELS["svhn"] == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert LABELS.get("flowers") is None and "imagenet" in LABELS


# The weights of other zoos.

STANDARD = {  # what the bare name of a data set stands for changes only with a minor version: CHANGELOG.md tells it
    ("PreActResNet50", "imagenet"): "imagenet_timm", ("PreActResNet152", "imagenet"): "imagenet_tf2cv_b",
    ("PreActResNet200", "imagenet"): "imagenet_tf2cv", ("PreActResNet269", "imagenet"): "imagenet_tf2cv",
    ("ResNet50", "imagenet"): "imagenet_tf2cv", ("ResNet101", "imagenet"): "imagenet_tf2cv_b",
    ("PreActResNet164", "cifar10"): "cifar10_tf2cv", ("ResNet1001", "svhn"): "svhn_tf2cv",
}


def test_what_the_names_of_data_sets_stand_for():
    assert {key: index.find(*key).tag for key in STANDARD} == STANDARD
    assert index.find("PreActResNet20", "cifar10").source == "keras_preact"
    assert index.find("PreActResNet20", "cifar10_tf2cv").measured["error"] == 6.51


def test_the_bare_name_of_a_data_set_is_the_best_that_others_published():
    of = {}
    for weight in index.upstream():
        of.setdefault((weight.architecture, weight.dataset), []).append(weight)
    for weights in of.values():
        (standard,) = [weight for weight in weights if weight.standard]
        errors = [tuple(weight.measured[name] for weight in weights) for name in ("error", "top5_error")]
        known = next(values for values in errors if None not in values)
        assert known[weights.index(standard)] == min(known), standard


def test_every_row_of_upstream_is_complete():
    hashes = {"https": 72 + 3, "hf": 4, "resnet-200.t7 from https": 1}
    assert Counter(weight.file.partition("://")[0] for weight in index.upstream()) == hashes
    assert len({(weight.architecture, tag) for weight in index.upstream() for tag in weight.tags}) == sum(
        len(weight.tags) for weight in index.upstream()
    )
    for weight in index.upstream():
        assert weight.architecture in CONFIGS and weight.dataset in LABELS and weight.source in index.CITATIONS
        assert weight.tag.startswith(f"{weight.dataset}_") and weight.licence and weight.citation
        assert 0 < min(filter(None, (weight.measured["error"], weight.measured["top5_error"]))) < 35
        if weight.source == "pytorchcv":
            pattern = r".*/((?:pre)?resnet\w+)-(\d{4})-(\w{8})\.tf2\.h5\.zip"
            name, error, start = re.fullmatch(pattern, weight.file).groups()
            algorithm, digits = weight.hash.split(":")
            assert algorithm == "sha1" and len(digits) == 40 and digits.startswith(start)
            told = weight.measured["top5_error" if weight.dataset == "imagenet" else "error"]
            assert told == int(error) / 100
            assert weight.architecture == ("PreAct" if name[0] == "p" else "") + "ResNet" + re.search(r"\d+", name)[0]
            assert weight.dataset == (name.partition("_")[2] or "imagenet")
            assert weight.measured["selection"] == (
                "not told" if weight.dataset == "imagenet" else "best epoch on the test set"
            )
