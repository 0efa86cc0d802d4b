"""The model card of a repository, its README.md, written from its metadata."""
import json

from keras_preact.networks import costs
from keras_preact.zoo import hub

# The data sets' own names on the Hub, which its pages link to.
DATASETS = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}

_BODY = """
# {architecture} {task}

The {architecture} of the Python package `keras_preact`: {units} {unit} units in {stages}
stages, order of activations "{order}", shortcut "{shortcut}"; {parameters:,} parameters and {multiply_adds:,}
multiply-adds for an image of {size}. It tells {classes} classes apart.
It follows [Identity Mappings in Deep Residual Networks](https://arxiv.org/abs/1603.05027).

## Use

```python
import keras_preact as kp

model = kp.from_hub("{repository}")
image = kp.load_image("image.png", model.preprocessing)
predictions = model.predict(kp.preprocess_input(image, model.preprocessing)[None])
print(kp.decode_predictions(predictions, weights=model.labels))
```

Without that package `keras.saving.load_model("hf://{repository}")` opens it; its input, of shape
{input_shape}, is (pixel / 255 - mean) / std with mean {mean} and std {std}.

## Training and results

{result}
{training}
`keras_preact.json` holds all of this and the sha256 of every file, `golden.npz` pixel values and the outputs they give.

## Limits

Every image is assigned to one of the {classes} classes, whatever it shows. {limits}

## Citation

```bibtex
@inproceedings{{he2016identity,
  title = {{Identity Mappings in Deep Residual Networks}},
  author = {{Kaiming He and Xiangyu Zhang and Shaoqing Ren and Jian Sun}},
  booktitle = {{European Conference on Computer Vision (ECCV)}},
  year = {{2016}}
}}
```
"""


_RESULT = "{error} % top-1 error on {dataset}, {split}, {images:,} images; crop {crop}; {selection}."
_LIMITS = """The error was measured on images of the data
set above, and is higher on others. It is that of one run; another seed gives another, by some tenths of a percent."""
_UNMEASURED = "The error of these weights was not measured.", "How often that is wrong is not known."


def write(metadata, repository):
    """Returns the text of the card: metadata that the Hub's pages show, then the same for people.

    Args:
        metadata: a `Metadata`.
        repository: "owner/name".
    """
    config, preprocessing, measured = metadata.config, metadata.preprocessing, metadata.measured
    cost = costs.count(config, preprocessing.size, len(metadata.labels), len(preprocessing.mean))
    size, classes = "x".join(map(str, preprocessing.size)), len(metadata.labels)
    task = f"trained on {metadata.dataset}" if metadata.dataset else f"for {classes} classes"
    result, limits = (_RESULT.format(**measured, dataset=metadata.dataset), _LIMITS) if measured else _UNMEASURED
    body = _BODY.format(
        architecture=metadata.architecture, task=task, result=result, limits=limits, repository=repository,
        units=sum(config.units), unit=config.unit, stages=len(config.units), order=config.order,
        shortcut=config.shortcut, parameters=cost.parameters, multiply_adds=cost.multiply_adds, size=size,
        classes=classes, input_shape=f"({size.replace('x', ', ')}, {len(preprocessing.mean)})",
        mean=list(preprocessing.mean), std=list(preprocessing.std), training=_training(metadata),
    )
    return f"---\n{_data(metadata).to_yaml()}\n---\n{body}"


def _data(metadata):
    from huggingface_hub import EvalResult, ModelCardData

    measured, dataset = metadata.measured, DATASETS.get(metadata.dataset)
    base = metadata.made.get("base")
    return ModelCardData(
        base_model=hub.parse(base)[0] if hub.is_address(base) else None,
        library_name="keras", pipeline_tag="image-classification", license=metadata.licence.lower(),
        tags=["keras-preact", "resnet", "arxiv:1603.05027"], datasets=[dataset] if dataset else None,
        metrics=["accuracy"] if measured else None, model_name=metadata.architecture if measured else None,
        eval_results=None if not measured else [EvalResult(
            task_type="image-classification", dataset_type=dataset or metadata.dataset,
            dataset_name=metadata.dataset, dataset_split=measured["split"], metric_type="accuracy",
            metric_value=round(1 - measured["error"] / 100, 6), metric_name="Top-1 accuracy",
            metric_args={name: measured[name] for name in ("images", "crop", "selection")},
        )],
    )


def _training(metadata):
    """The lines that say how it was made, and the curve."""
    lines = [f"- {name}: {_words(value)}" for name, value in metadata.made.items()]
    if "curve.png" in metadata.files:
        lines.append("\n![training loss and test error by epoch](curve.png)")
    return "\n".join(["", *lines, ""]) if lines else ""


def _words(value):
    if isinstance(value, dict):
        return ", ".join(f"{name} {json.dumps(item)}" for name, item in value.items())
    return json.dumps(value)
