"""The console command `keras-preact`; every verb is one call into the package, which loads only when it is needed."""
import argparse
import dataclasses
import importlib.util
import io
import json
import math
import os
import sys
from pathlib import Path

from keras_preact import processes

BATCH = 64  # images
DEFAULT = "PreActResNet20", "cifar10"  # network and weights
BACKENDS = ("tensorflow", "jax", "torch")
SWITCH = {"auto": "auto", "on": True, "off": False}


def main(arguments=None):
    """Runs the command and returns its exit status: 0, 1 where the work failed, 2 for a wrong command."""
    options = _parser().parse_args(arguments)
    try:
        _start_backend()
        return options.run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"keras-preact: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("keras-preact: interrupted", file=sys.stderr)
        return 130


def _parser():
    parser = argparse.ArgumentParser(
        prog="keras-preact",
        description="Pre-activation ResNets: classify images, and list, inspect, train, measure and publish networks.",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    verb = verbs.add_parser("classify", help="classify images with a pretrained network")
    verb.add_argument("paths", nargs="+", metavar="IMAGE", help="image files, folders of them, or - for standard input")
    _add_model(verb, "--model")
    verb.add_argument("--top", type=_positive, default=3, help="classes to print for each image (default: %(default)s)")
    verb.add_argument("--json", action="store_true", help="print a JSON object for each image")
    verb.set_defaults(run=_classify)

    verb = verbs.add_parser("explain", help="show where in an image a network sees a class (Grad-CAM)")
    verb.add_argument("image", metavar="IMAGE", help="image file, or - for standard input")
    _add_model(verb, "--model")
    verb.add_argument("--class", dest="label", help="label of the class (default: the most probable)")
    verb.add_argument("--output", metavar="PNG", help="where to write the overlay (default: IMAGE_grad_cam.png)")
    verb.set_defaults(run=_explain)

    verb = verbs.add_parser("list", help="list networks and their weights")
    verb.add_argument("pattern", nargs="?", default="*", help="of names, such as 'PreAct*' or '*110'")
    verb.set_defaults(run=_list)

    verb = verbs.add_parser("show", help="show one network: its stages, costs and weights")
    verb.add_argument("name")
    verb.set_defaults(run=_show)

    verb = verbs.add_parser("train", help="train a network by a recipe; the same command goes on where it was stopped")
    verb.add_argument("model", help="name of a network")
    verb.add_argument("--data", required=True, help="TensorFlow data set, .npz file, or folder of class folders")
    verb.add_argument("--recipe", default="cifar_paper", help="`recipes` lists them (default: %(default)s)")
    verb.add_argument("--output", required=True, help="folder for the log, checkpoints and final weights")
    verb.add_argument("--epochs", type=_positive, help="instead of the recipe's; its schedule scales with them")
    verb.add_argument("--batch-size", type=_positive, help="instead of the recipe's")
    verb.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE",
                      help="any other field of the recipe, as JSON: nesterov=true, drops=[0.5,0.75]")
    verb.add_argument("--seed", type=int, default=1, help="of everything random (default: %(default)s)")
    _add_engine(verb)
    verb.add_argument("--hold-out", type=_positive, metavar="IMAGES", default=0,
                      help="measure on so many training images, held out, instead of on the test images")
    verb.set_defaults(run=_train)

    verb = verbs.add_parser("evaluate", help="measure the test error of a network")
    _add_model(verb)
    verb.add_argument("--data", required=True, help="TensorFlow data set, .npz file, or folder of class folders")
    verb.add_argument("--views", default="single", help="single, flip or ten_crop (default: %(default)s)")
    verb.add_argument("--crop", type=_positive, help="side of the square views in pixels (default: the weights')")
    verb.add_argument("--resize", type=_positive, help="shorter side of photographs before the crop")
    verb.add_argument("--per-class", action="store_true", help="print the error of each class")
    verb.add_argument("--confusion", metavar="PNG", help="plot the confusion matrix there")
    verb.set_defaults(run=_evaluate)

    verb = verbs.add_parser("convert", help="turn weights of another zoo into a file that our builders take")
    verb.add_argument("source", help="timm, keras_applications, pytorchcv, image_classifiers or torch7")
    verb.add_argument("file", help="what that zoo publishes; for timm also the folder of a repository")
    verb.add_argument("--name", help="what that zoo calls the network (default: what the file is called)")
    verb.add_argument("--output", metavar="FILE.weights.h5", help="file to write")
    verb.add_argument("--push", metavar="owner/name", help="measure it and publish it on the Hugging Face Hub")
    verb.add_argument("--data", help="of --push: TensorFlow data set, .npz file or folder to measure it on")
    verb.add_argument("--licence", help="of --push: SPDX name of the weights' licence")
    verb.set_defaults(run=_convert)

    verb = verbs.add_parser("pull", help="fetch weights into the cache, for use without a network")
    verb.add_argument("names", nargs="+", metavar="NAME", help="a network, a pattern, or owner/name[@revision]")
    verb.set_defaults(run=_pull)

    verb = verbs.add_parser("push", help="publish a finished training run on the Hugging Face Hub")
    verb.add_argument("folder", metavar="RUN_DIR", help="output folder of the run")
    verb.add_argument("repository", metavar="owner/name", help="made if there is none")
    verb.add_argument("--private", action="store_true", help="only its owner sees the repository")
    verb.add_argument("--revision", default="main", help="branch (default: %(default)s)")
    verb.add_argument("--dry-run", action="store_true", help="show the files and the card, and publish nothing")
    verb.add_argument("--output", metavar="FOLDER", help="keep the files there; it must be new")
    verb.set_defaults(run=_push)

    verb = verbs.add_parser("export", help="write a network for production, with its preprocessing and labels")
    _add_model(verb)
    verb.add_argument("--format", default="savedmodel",
                      help="savedmodel, onnx, litert, litert_int8 or openvino (default: %(default)s)")
    verb.add_argument("--output", required=True, metavar="PATH",
                      help="of a SavedModel the folder of versions, whose name it is served under; else the file")
    verb.add_argument("--version", type=_positive, help="of a SavedModel (default: the next)")
    verb.add_argument("--calibration", metavar="DIR", help="of litert_int8, a folder of images like those to come")
    verb.add_argument("--overwrite", action="store_true", help="replace what is there already")
    verb.set_defaults(run=_export)

    verb = verbs.add_parser("reproduce", help="train the rows of a table of the paper; what is done is skipped")
    verb.add_argument("table", help="table1 to table5")
    verb.add_argument("--row", help="only rows that contain this text")
    verb.add_argument("--seeds", type=_positive, default=5, help="runs of each row (default: %(default)s)")
    verb.add_argument("--scale", type=float, default=1.0, help="part of the epochs; reported apart (default: 1)")
    verb.add_argument("--output", default="runs/paper", help="folder (default: %(default)s)")
    verb.add_argument("--data-dir", help="folder of .npz files or image folders (default: TensorFlow Datasets)")
    verb.add_argument("--list", action="store_true", help="show the rows and what there is of them; train nothing")
    _add_engine(verb)
    verb.set_defaults(run=_reproduce)

    verb = verbs.add_parser("report", help="write the paper's tables and figures beside what was trained")
    verb.add_argument("--output", default="runs/paper", help="folder of `reproduce` (default: %(default)s)")
    verb.set_defaults(run=_report)

    verb = verbs.add_parser("benchmark", help="time networks against each other, in turn, and print ratios")
    verb.add_argument("names", nargs="+", metavar="NAME",
                      help="networks; NAME:simplified for simplify_for_inference, NAME:onnxruntime for ONNX Runtime; "
                      "to train also NAME:plain, NAME:looped, NAME:unrolled, NAME:rematerialized, and "
                      "pytorchcv:preresnet20_cifar10 for PyTorch by hand; NAME@torch for another backend of Keras")
    verb.add_argument("--against", action="append", default=[], metavar="NAME",
                      help="what they are compared with, also keras.applications:ResNet50V2 (default: the first NAME)")
    verb.add_argument("--batch-size", type=_positive, action="append", help="images at a time (default: 1 and 32)")
    verb.add_argument("--train", action="store_true", help="training steps instead of predictions")
    verb.add_argument("--precision", default="float32", help="Keras dtype policy of training (default: %(default)s)")
    verb.add_argument("--first-step", action="store_true",
                      help="only the first training steps, from a fresh process each")
    verb.add_argument("--rounds", type=_positive, default=5, help="measurements of each (default: %(default)s)")
    verb.add_argument("--seconds", type=float, default=2.0, help="of each measurement at least (default: %(default)s)")
    verb.add_argument("--size", type=_positive, help="side of the images in pixels (default: the first network's)")
    verb.add_argument("--json", metavar="FILE", help="write every measurement there")
    verb.add_argument("--plot", metavar="PNG", help="plot the ratios, or with --first-step the memory, there")
    verb.set_defaults(run=_benchmark)

    verb = verbs.add_parser("signals", help="plot how signals and gradients pass through each shortcut and order")
    verb.add_argument("--depth", type=_positive, default=110, help="layers (default: %(default)s)")
    verb.add_argument("--data", help="TensorFlow data set, .npz file or folder (default: noise)")
    verb.add_argument("--steps", type=int, default=0, help="of training before the measurement (default: 0)")
    verb.add_argument("--output", default="signals.png", help="PNG (default: %(default)s)")
    verb.set_defaults(run=_signals)

    verb = verbs.add_parser("recipes", help="list the training recipes, or show one")
    verb.add_argument("name", nargs="?", help="of a recipe")
    verb.set_defaults(run=_recipes)
    return parser


def _add_model(verb, name="model"):
    what, default = "name of a network, output folder of a training run, or hf://owner/name", " ".join(DEFAULT)
    verb.add_argument(name, help=what if name == "model" else f"{what} (default: {default})")
    verb.add_argument("--weights", help="of a named network: a tag, a file, or hf://owner/name")


def _add_engine(verb):
    verb.add_argument("--strategy", default="none", help="none, mirrored, multi-worker or jax (default: %(default)s)")
    verb.add_argument("--precision", default="float32", help="Keras dtype policy (default: %(default)s)")
    verb.add_argument("--xla", choices=SWITCH, default="auto", help="compile by XLA (default: auto)")
    verb.add_argument("--steps-per-execution", type=_positive, default=1, help="steps in one call (default: 1)")
    verb.add_argument("--rematerialize", action="store_true", help="compute activations anew to save memory")
    verb.add_argument("--loop", choices=SWITCH, default="auto", help="alike units as one loop (default: auto)")
    verb.add_argument("--batch-norm", default="replica", help="replica or synchronized (default: %(default)s)")


def _positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, and is {text}")
    return number


def _start_backend():
    """Imports Keras without TensorFlow's start-up messages, on a backend that is installed if none is asked for."""
    if "KERAS_BACKEND" not in os.environ:
        installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
        if not installed:
            raise OSError("Keras needs a backend: pip install 'keras_preact[tensorflow]', or install jax or torch.")
        if installed[0] != BACKENDS[0]:
            os.environ["KERAS_BACKEND"] = installed[0]
    with processes.quietly():
        importlib.import_module("keras")


def _classify(options):
    from rich.console import Console
    from rich.progress import Progress

    files = [file for path in options.paths for file in _images(Path(path))]
    width = max(len(str(file)) for file in files)
    failures = 0
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        loading = progress.add_task("Loading the network", total=None)
        import numpy as np

        import keras_preact

        model = _trained(options)
        progress.remove_task(loading)
        bar = progress.add_task("Classifying", total=len(files))
        for start in range(0, len(files), BATCH):
            readable, images = [], []
            for file in files[start:start + BATCH]:
                try:
                    images.append(keras_preact.load_image(_opened(file), model.preprocessing))
                    readable.append(file)
                except OSError as error:
                    failures += 1
                    print(f"{file}: cannot be read as an image: {error}", file=sys.stderr)
                    if options.json:
                        print(json.dumps({"file": str(file), "error": str(error)}))
            if readable:
                x = keras_preact.preprocess_input(np.stack(images), model.preprocessing)
                predictions = keras_preact.decode_predictions(model.predict_on_batch(x), options.top, model.labels)
                for file, best in zip(readable, predictions):
                    if options.json:
                        best = [{"label": label, "probability": probability} for label, probability in best]
                        print(json.dumps({"file": str(file), "predictions": best}))
                    else:
                        shares = (f"{label} {probability:.1%}" for label, probability in best)
                        print(f"{file!s:{width}}", *shares, sep="  ")
            progress.advance(bar, len(files[start:start + BATCH]))
    if failures:
        print(f"{failures} of {len(files)} files could not be read.", file=sys.stderr)
    return 1 if failures else 0


def _network(name, weights, input_shape=None):
    """Returns the network that a command names: that of a run's folder or of hf://owner/name, or a builder's."""
    if name is None:
        name, weights = DEFAULT[0], weights or DEFAULT[1]
    import keras

    from keras_preact import from_hub, hub, models, runs
    from keras_preact.architectures import named

    keras.config.set_image_data_format("channels_last")
    run = (Path(name) / runs.RUN).exists()
    if run or hub.is_address(name):
        if weights is not None:
            raise ValueError(f"{name} has weights of its own: leave out --weights. Received: {weights}")
        return runs.load_run(name, input_shape)[0] if run else from_hub(name, input_shape=input_shape)
    named(name)
    if weights is None:
        raise ValueError(f"Give the weights of {name}: --weights TAG, FILE or hf://owner/name.")
    return getattr(models, name)(weights=weights, input_shape=input_shape)


def _trained(options):
    """Returns the `_network` of a command, with preprocessing and labels."""
    model = _network(options.model, options.weights)
    if not (getattr(model, "preprocessing", None) and model.labels):
        raise ValueError(
            "This file of weights does not say its preprocessing and labels; `--weights` must be a tag, a file that "
            f"`convert` wrote, or hf://owner/name. Received: {options.weights}"
        )
    return model


def _opened(file):
    """Returns what is read of an image file, where "-" is standard input."""
    return io.BytesIO(sys.stdin.buffer.read()) if str(file) == "-" else file


def _explain(options):
    import numpy as np

    from keras_preact import explanation, load_image, preprocess_input
    from keras_preact.checks import check_choice

    if options.output is None and options.image == "-":
        raise ValueError("Give --output, the name of a PNG file, for an image from standard input.")
    target = Path(options.output or f"{Path(options.image).with_suffix('')}_grad_cam.png")
    if target.suffix.lower() != ".png":
        raise ValueError(f"--output must end in .png. Received: {target}")
    model = _trained(options)
    classes = None
    if options.label is not None:
        check_choice("--class", options.label, model.labels)
        classes = [model.labels.index(options.label)]
    image = load_image(_opened(options.image), model.preprocessing)
    x = preprocess_input(image, model.preprocessing)[None]
    (heat,), (index,) = explanation.grad_cam(model, x, classes)
    probability = np.asarray(model.predict_on_batch(x))[0, index]
    explanation.overlay(image, heat).save(target)
    print(f"{target}  {model.labels[index]} {probability:.1%}")
    return 0


def _images(path):
    """Returns `path` itself, which may be "-", or, of a folder, the image files in it by name."""
    if not path.is_dir():
        return [path]
    from PIL import Image

    files = sorted(file for file in path.iterdir() if file.suffix.lower() in Image.registered_extensions())
    if not files:
        raise ValueError(f"There is no image file in the folder {path}")
    return files


def _list(options):
    from rich.console import Console

    from keras_preact import pretrained
    from keras_preact.models import list_models, list_weights

    weights, others = list_weights(options.pattern), pretrained.upstream()
    table = _table("Network", "Input", "Parameters", "Multiply-adds", "Weights (test error, or whose)")
    for info in list_models(options.pattern):
        table.add_row(
            info.name, _by(info.input_size), f"{info.parameters:,}", f"{info.multiply_adds:,}",
            ", ".join([
                *(f"{w.tag} ({w.measured['error']:.2f} %) {w.where}" for w in weights if w.architecture == info.name),
                *(f"{w.tag} ({w.source})" for w in others if w.architecture == info.name),
            ]),
        )
    Console().print(table)
    return 0


def _show(options):
    from rich.console import Console

    from keras_preact import costs, models
    from keras_preact.architectures import named

    config = named(options.name)
    console = Console()
    table = _table("Stage", "Layers", "Output", "Parameters", "Multiply-adds")
    for stage in costs.stages(config):
        cost = stage.cost
        table.add_row(stage.name, stage.layers, _by(stage.size), f"{cost.parameters:,}", f"{cost.multiply_adds:,}")
    total = costs.count(config)
    table.add_section()
    table.add_row("total", "", "", f"{total.parameters:,}", f"{total.multiply_adds:,}")
    console.print(f"{options.name}: {config.unit} units, {config.order}, shortcut {config.shortcut}", highlight=False)
    console.print(table)
    for weight in models.list_weights(options.name):
        console.print(
            f"weights={weight.tag!r}: {weight.measured['error']:.2f} % error on {weight.measured['split']} "
            f"({weight.measured['selection']}), {weight.made['epochs']} epochs of {weight.made['recipe']}, "
            f"{weight.licence}, {weight.where}",
            highlight=False, soft_wrap=True,
        )
    return 0


def _train(options):
    from keras_preact import recipes, training

    recipe = recipes.find(options.recipe)
    changes = dict(_assignment(text, recipe) for text in options.set)
    for field in ("epochs", "batch_size"):
        if getattr(options, field):
            changes[field] = getattr(options, field)
    recipe = dataclasses.replace(recipe, **changes)
    try:
        log = training.train(
            options.model, options.data, recipe, options.output, options.seed, _engine(options), options.hold_out
        )
    except training.Diverged as error:
        print(f"keras-preact: {error}", file=sys.stderr)
        return 1
    measured = "held-out" if options.hold_out else "test"
    last = log[-1]
    print(f"{last['test_error']} % {measured} error after the last of {last['epoch']} epochs; see {options.output}")
    return 0


def _engine(options):
    from keras_preact import training

    return training.Engine(
        options.strategy, options.precision, SWITCH[options.xla], options.steps_per_execution, options.batch_norm,
        options.rematerialize, SWITCH[options.loop],
    )


def _assignment(text, recipe):
    name, _, value = text.partition("=")
    fields = [field.name for field in dataclasses.fields(recipe) if field.name not in ("name", "source")]
    if name not in fields:
        raise ValueError(f"--set takes FIELD=VALUE with a field among {', '.join(fields)}. Received: {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _evaluate(options):
    from keras_preact import evaluation, pretrained

    # Of any size, so that the crop may be another than the weights were trained on.
    model = _network(options.model, options.weights, (None, None, None))
    report = evaluation.evaluate(
        model, options.data, getattr(model, "preprocessing", None), options.views, options.crop, options.resize
    )
    print(
        f"{report.top1_error:.2f} % top-1 and {report.top5_error:.2f} % top-5 error: {report.wrong} and "
        f"{report.wrong5} of {report.images} test images of {report.dataset}, {_by(report.crop)}, views: {report.views}"
    )
    for row in pretrained.published(model.name, report.dataset):
        errors = " / ".join(filter(None, (row["top1_error"], row["top5_error"])))
        print(f"  published: {errors} % ({row['source']}, crop {row['crop']}; {row['reference']})")
    if options.per_class:
        from rich.console import Console

        table = _table("Class", "Images", "Error (%)")
        for label, images, error in report.per_class():
            table.add_row(label, str(images), f"{error:.2f}")
        Console().print(table)
    if options.confusion:
        report.plot(options.confusion)
    return 0


def _convert(options):
    from keras_preact import evaluation, importers, push_to_hub

    if not (options.output or options.push):
        raise ValueError("Give --output FILE.weights.h5, or --push owner/name with --data and --licence.")
    if options.push and not (options.data and options.licence):
        raise ValueError("What is published is measured first, and has a licence: --push needs --data and --licence.")
    model, report = importers.convert(options.source, options.file, options.name, options.output)
    print(report)
    if options.output:
        print(f"written: {report.architecture}(weights={options.output!r})")
    if options.push:
        measured = evaluation.evaluate(model, options.data, report.preprocessing)
        print(f"{measured.top1_error:.2f} % top-1 error on {measured.images} test images of {measured.dataset}")
        metadata = report.metadata(measured, Path(options.file).name, options.licence)
        published = push_to_hub(model, options.push, metadata)
        print(f"Published and read back: hf://{published.repository}@{published.commit}")
    return 0


def _pull(options):
    from keras_preact import pull

    for name in options.names:
        for path in pull(name):
            print(path)
    return 0


def _push(options):
    import keras

    from keras_preact import push_to_hub

    keras.config.set_image_data_format("channels_last")
    published = push_to_hub(
        options.folder, options.repository, private=options.private, revision=options.revision,
        dry_run=options.dry_run, folder=options.output,
    )
    for file, size in published.files.items():
        print(f"{size:>12,}  {file}")
    if published.commit:
        print(f"Published and read back: hf://{published.repository}@{published.commit}")
    else:
        print(f"\nNothing was published. The card would be:\n\n{published.card}")
    return 0


def _export(options):
    import numpy as np

    from keras_preact import export, load_image

    model = _trained(options)
    calibration = None
    if options.calibration:
        calibration = np.stack([load_image(file, model.preprocessing) for file in _images(Path(options.calibration))])
    exported = export(
        model, options.output, options.format, version=options.version, calibration=calibration,
        overwrite=options.overwrite,
    )
    print(f"{exported.path}  {exported.size:,} bytes, at most {exported.disagreement:.1g} from the Keras model")
    return 0


def _reproduce(options):
    from rich.console import Console

    from keras_preact import experiments

    rows = experiments.find(options.table, options.row)
    if options.list:
        table = _table("Row", "Data", "Published error (%)", "Ours")
        for row in rows:
            ours = experiments.results(row, options.output)
            table.add_row(row.row, row.data, row.published, ", ".join(map(str, ours)))
        Console().print(table)
        return 0
    experiments.reproduce(rows, options.output, options.seeds, options.scale, options.data_dir, _engine(options))
    print(f"keras-preact report --output {options.output} writes the tables.")
    return 0


def _report(options):
    from keras_preact import reporting

    print(reporting.report(options.output))
    return 0


def _benchmark(options):
    from rich.console import Console

    from keras_preact import benchmarking

    if options.first_step:
        return _first_steps(options)
    work = "train" if options.train else "predict"
    with Console(stderr=True).status("Starting") as status:
        found = benchmarking.compare(
            [*options.against, *options.names], tuple(options.batch_size or (1, 32)), work, options.rounds,
            options.seconds, options.size, options.precision, status.update,
        )
    if work == "predict":
        table = _table("Network", "Build (s)", "Load (s)", "First call (s)", "Peak memory (GB)")
        for measurement in found:
            if not measurement.error:
                values = measurement.build, measurement.load, measurement.first_call, measurement.memory / 1e9
                table.add_row(measurement.name, *(f"{value:.2f}" for value in values))
        _print_whole(table)
    table = _table("Network", "Batch", "Images/s", f"Over {found[0].name}")
    for line in benchmarking.summary(found):
        table.add_row(*line)
    _print_whole(table)
    return _kept(options, found, benchmarking.plot)


def _first_steps(options):
    from rich.console import Console

    from keras_preact import benchmarking

    with Console(stderr=True).status("Starting") as status:
        names = [*options.against, *options.names]
        found = [
            measured for batch in options.batch_size or (16,)
            for measured in benchmarking.first_steps(names, batch, options.size, options.precision, status.update)
        ]
    whole = f"Both over {names[0]}"
    table = _table("Network", "Batch", "Build (s)", "First step (s)", whole, "Step (s)", "Peak memory (GB)")
    for line in benchmarking.summary_of_first_steps(found):
        table.add_row(*line)
    _print_whole(table)
    return _kept(options, found, benchmarking.plot_memory)


def _kept(options, found, plot):
    """Writes and plots what was measured where that was asked for, and names what failed; returns the exit status."""
    if options.json:
        Path(options.json).write_text(json.dumps([dataclasses.asdict(m) for m in found], indent=2) + "\n")
    if options.plot:
        plot(found, options.plot)
    failures = [f"keras-preact: {m.name}: {m.error}" for m in found if m.error]
    print(*failures, sep="\n", end="\n" if failures else "", file=sys.stderr)
    return 1 if failures else 0


def _print_whole(table):
    """Prints a table without breaking its lines, however narrow the terminal."""
    from rich.console import Console

    console = Console()
    needed = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    Console(width=max(needed, console.width)).print(table)


def _signals(options):
    from rich.console import Console

    from keras_preact import signals

    table = _table("Compared", "Unit", "Output, first to last unit (RMS)", "Gradient, first to last unit (RMS)")
    for (panel, label), found in signals.plot(options.output, options.depth, options.data, options.steps).items():
        table.add_row(panel, label, *(f"{_finite(values[0])} to {_finite(values[-1])}" for values in found))
    Console().print(table)
    print(f"See {options.output}")
    return 0


def _finite(value):
    return f"{value:.3g}" if math.isfinite(value) else "beyond float32"


def _recipes(options):
    from rich.console import Console

    from keras_preact import recipes

    for recipe in [recipes.find(options.name)] if options.name else recipes.RECIPES.values():
        values = dataclasses.asdict(recipe)
        Console().print(f"{values.pop('name')}: {values.pop('source')}", highlight=False, soft_wrap=True)
        for field, value in values.items() if options.name else ():
            Console().print(f"  {field} = {json.dumps(value)}", highlight=False)
    return 0


def _table(*columns):
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        justify = "right" if column in ("Parameters", "Multiply-adds") else "left"
        table.add_column(column, justify=justify, overflow="fold")
    return table


def _by(size):
    return "x".join(map(str, size))


if __name__ == "__main__":
    sys.exit(main())
