"""The benchmark's arithmetic, by hand, and one run of it."""
import json

import pytest

from keras_preact import benchmarking, cli
from keras_preact.benchmarking import Measurement


def test_ratios_are_taken_round_by_round():
    first = Measurement("a", 1.0, 0.5, 2.0, {"predict": {8: [100.0, 50.0, 80.0]}})
    other = Measurement("b", 1.0, 0.5, 2.0, {"predict": {8: [50.0, 100.0, 120.0]}})
    assert other.ratios(first, "predict", 8) == [0.5, 2.0, 1.5]
    assert benchmarking.summary([first, other]) == [
        ("a", "predict", "8", "80.0", "1.00 (1.00 to 1.00)"), ("b", "predict", "8", "100.0", "1.50 (0.50 to 2.00)"),
    ]


def test_unknown_contestants_and_works_are_refused():
    with pytest.raises(ValueError, match="`name` must be one of .*Received: 'PreActResNet21'; did you mean"):
        benchmarking.compare(["PreActResNet20", "PreActResNet21"])
    with pytest.raises(ValueError, match="`form` must be one of 'simplified', 'onnxruntime'. Received: 'fast'"):
        benchmarking.compare(["keras.applications:ResNet50V2:fast"])
    with pytest.raises(ValueError, match="`work` must be one of 'predict', 'train'. Received: 'rest'"):
        benchmarking.compare(["PreActResNet20"], works=("rest",))


@pytest.mark.slow
def test_networks_are_compared_in_processes_of_their_own(tmp_path, capsys):
    arguments = ["benchmark", "PreActResNet20", "PreActResNet20:simplified", "--batch-size", "2", "--rounds", "2"]
    arguments += ["--train", "--size", "8", "--seconds", "0.1"]
    assert cli.main([*arguments, "--json", str(tmp_path / "b.json"), "--plot", str(tmp_path / "b.png")]) == 0
    first, second = json.loads((tmp_path / "b.json").read_text())
    for found in (first, second):
        assert found["build"] > 0 and found["load"] > 0 and found["first_call"] > 0 and found["memory"] > 1e8
        assert all(len(found["speeds"][work]["2"]) == 2 for work in ("predict", "train"))
    assert "PreActResNet20:simplified" in capsys.readouterr().out
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RuntimeError, match="keras.applications:VGG99: AttributeError"):
        benchmarking.compare(["keras.applications:VGG99"], progress=lambda text: None)


@pytest.mark.slow
def test_first_steps_of_each_form(tmp_path, capsys):
    names = ["PreActResNet20", "PreActResNet20:looped:rematerialized"]
    arguments = ["--first-step", "--batch-size", "2", "--size", "8", "--json", str(tmp_path / "b.json")]
    assert cli.main(["benchmark", *names, *arguments, "--plot", str(tmp_path / "b.png")]) == 0
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    plain, looped = json.loads((tmp_path / "b.json").read_text())
    assert [plain["name"], looped["name"]] == names
    for found in (plain, looped):
        assert found["build"] > 0 and found["first_step"] > found["step"] > 0 and found["memory"] > 1e8
    assert "first" in capsys.readouterr().out.lower()
    with pytest.raises(ValueError, match="`form` must be one of 'looped'.*Received: 'rolled'"):
        benchmarking.first_steps(["PreActResNet20:rolled"])
