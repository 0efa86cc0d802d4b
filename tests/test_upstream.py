"""Weights of other zoos by their tags: from the files of a server on loopback, as their zoos write them."""
import csv
import dataclasses
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import helpers
import keras
import numpy as np
import pytest
import release_server

import keras_preact as kp
from keras_preact import cli
from keras_preact.zoo import hub, index, resolving

ROOT = Path(__file__).parent.parent
TF2CV = [weight for weight in index.upstream() if weight.source == "pytorchcv"]


@pytest.fixture
def server(tmp_path, monkeypatch):
    with release_server.serving(tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture
def publish(server, tf2cv_network, tmp_path, monkeypatch):
    """Has tf2cv write the files of weights, which are then all that other zoos publish; returns a list of logits."""
    def written(weight, images):
        name = weight.file.rpartition("/")[2].removesuffix(".zip")
        logits = tf2cv_network(name.partition("-")[0], images, tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        server.files[weight.file] = release_server.zipped({name: content})
        return dataclasses.replace(weight, hash=f"sha1:{hashlib.sha1(content).hexdigest()}"), logits

    def publish(weights, images):
        weights, logits = zip(*(written(weight, images) for weight in weights))
        monkeypatch.setattr(index, "upstream", lambda: weights)
        return logits

    yield publish
    shutil.rmtree(tmp_path)  # of the deepest networks a gigabyte


def of(network, tag):
    return next(weight for weight in TF2CV if (weight.architecture, weight.tag) == (network, tag))


every_row = pytest.mark.skipif("KERAS_PREACT_ALL_ROWS" not in os.environ, reason=(
    "one of the same layout is read, for CIFAR-10 or of fewer layers; KERAS_PREACT_ALL_ROWS=1 reads this one, too"))


def row(weight):
    marks = [pytest.mark.slow] * ((weight.architecture, weight.dataset) != ("PreActResNet20", "cifar10"))
    depth = int(re.search(r"\d+", weight.architecture)[0])
    deep = weight.dataset != "cifar10" and depth >= (152 if weight.dataset == "imagenet" else 272)
    if deep and depth != 200 or weight.architecture in ("ResNet1001", "ResNet1202"):
        marks.append(every_row)
    return pytest.param(weight, id=f"{weight.architecture}-{weight.tag}", marks=marks)


@pytest.mark.parametrize("weight", [row(weight) for weight in TF2CV])
def test_every_published_weight_of_tf2cv_builds_and_loads(weight, publish):
    side = weight.measured["crop"]
    images = helpers.images_like((int(side), int(side), 3), count=1)
    (logits,) = publish([weight], images)
    model = getattr(kp, weight.architecture)(weights=weight.tag, classifier_activation=None)
    assert helpers.relative_error(helpers.outputs_of(model, images), logits) < 1e-4
    assert len(model.labels) == logits.shape[1] and model.preprocessing.size == images.shape[1:3]
    keras.utils.clear_session()


@pytest.mark.slow
def test_all_are_verified_but_for_one_that_is_another_file(server, publish, samples, tmp_path, monkeypatch, capsys):
    good, wrong, other = (of("PreActResNet20", f"{data}_tf2cv") for data in ("cifar10", "cifar100", "svhn"))
    monkeypatch.syspath_prepend(ROOT / "weights")
    images, labels = samples["cifar10"]
    # tf2cv's own preprocessing, of its script for CIFAR.
    seen = (images / 255 - (0.4914, 0.4822, 0.4465)) / (0.2023, 0.1994, 0.2010)
    logits, *_ = publish([good, wrong, other], seen.astype("float32"))
    errors = int((logits.argmax(1) != labels).sum())
    assert errors != 1000 - np.bincount(labels)[logits[0].argmax()]  # several classes were predicted
    server.files[wrong.file] = server.files[good.file]
    data, table = tmp_path / "data.npz", tmp_path / "table.csv"
    np.savez(data, x_train=images[:10], y_train=np.arange(10), x_test=images, y_test=labels)

    def verify(*arguments):
        monkeypatch.setattr(sys, "argv", ["verify_upstream.py", "--output", str(table), *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "weights" / "verify_upstream.py"), run_name="__main__")
        return end.value.code, capsys.readouterr()

    def rows():
        with open(table, newline="") as file:
            return {row["tag"]: row for row in csv.DictReader(file)}

    status, told = verify("PreAct*20", "--tags", "cifar*")
    assert status == 1 and f"1 of 2 weights are in {table}" in told.out
    assert "PreActResNet20 cifar100_tf2cv failed: ReleaseError: http://127.0.0.1:" in told.err
    assert "was downloaded twice and is not what its zoo published" in told.err
    assert rows().keys() == {"cifar10_tf2cv"} and rows()["cifar10_tf2cv"]["measured_top1"] == ""
    # What was fetched without data is measured when there is some, and the one that failed is tried again.
    server.files[wrong.file], asked = release_server.zipped({}), len(server.requests)
    status, told = verify("--data", f"cifar10={data}")
    assert status == 1 and "holds 0 files" in told.err and f"2 of 3 weights are in {table}" in told.out
    row, fetched = rows()["cifar10_tf2cv"], rows()["svhn_tf2cv"]
    assert (row["wrong"], row["images"]) == (str(errors), "1000") and row["measured_top1"] == f"{errors / 10:.2f}"
    assert (row["published_top1"], fetched["published_top1"], fetched["wrong"]) == ("6.51", "3.22", "")
    assert len(server.requests) - asked == 2 * 3  # the wrong one twice, the third once, each over a redirect
    line = f'| `PreActResNet20(weights="cifar10_tf2cv")` | 6.51 | {errors / 10:.2f} |'
    assert line in table.with_suffix(".md").read_text()
    # What is in the table is passed over, whatever became of its files.
    shutil.rmtree(hub.folder())
    server.files.clear()
    for tag in ("cifar10_tf2cv", "svhn*"):
        assert verify("--data", f"cifar10={data}", "--tags", tag)[0] == 0
    assert rows() == {"cifar10_tf2cv": row, "svhn_tf2cv": fetched}
    for arguments, message in (("ResNet44",), "No weights of other zoos match"), (("--data", "cat"), "Received: cat"):
        status, told = verify(*arguments)
        assert status == 2 and message in told.err


PROCESS = """
import dataclasses, sys
import keras, keras_preact as kp
from keras_preact.zoo import index
weight = dataclasses.replace(index.find("PreActResNet20", "cifar10_tf2cv"), hash=sys.argv[1])
index.upstream = lambda: (weight,)
input()
model = kp.PreActResNet20(weights="cifar10_tf2cv")
print(sum(float(abs(array).sum()) for array in model.get_weights()))
"""


@pytest.mark.slow
def test_two_processes_that_ask_for_one_tag_both_get_it(server, publish):
    publish([of("PreActResNet20", "cifar10_tf2cv")], helpers.images_like((32, 32, 3)))
    (weight,) = index.upstream()
    environment = os.environ | {"HF_HOME": str(hub.folder().parent), "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([sys.executable, "-c", PROCESS, weight.hash], env=environment, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    results = [process.communicate(timeout=300) for process in both]
    (first, _), (second, _) = results
    assert first == second and float(first) > 0, results
    (entry,) = hub.folder().iterdir()
    assert sorted(path.name for path in entry.iterdir()) == ["entry.json", "model.weights.h5"]


def test_what_is_pulled_is_told_before(server, publish, capsys):
    assert [weight.tag for weight in resolving.to_pull("PreActResNet200")] == ["imagenet_tf2cv"]  # not Torch 7's
    names = [("PreActResNet20", "svhn_tf2cv"), ("ResNet20", "svhn_tf2cv")]
    publish([of(*name) for name in names], helpers.images_like((32, 32, 3)))
    told = []
    server.hook = lambda: told.append(capsys.readouterr().err)
    assert cli.main(["pull", "*ResNet20", "--tags", "svhn*", "--dry-run"]) == 0
    out, plan = capsys.readouterr()
    assert not out and not server.requests
    assert plan.splitlines() == [
        f"{network}(weights='svhn_tf2cv'): pytorchcv, MIT, about 1 MB; Oleg Semery, tf2cv of github.com/osmr/imgclsmob"
        for network, _ in names
    ]
    assert cli.main(["pull", "*ResNet20", "--tags", "svhn*"]) == 0
    assert told[0].startswith(plan) and len(told) == 2
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert cli.main(["pull", "*ResNet20", "--tags", "svhn*", "--dry-run"]) == 0
    assert capsys.readouterr() == ("", "")  # nothing is left to fetch
    assert cli.main(["pull", "ResNet20", "--tags", "imagenet*"]) == 2
    assert "There are no weights of ResNet20 tagged 'imagenet*'" in capsys.readouterr().err
