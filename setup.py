from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
version = {}
exec((HERE / "keras_preact" / "version.py").read_text(encoding="utf-8"), version)

extras = {
    "tensorflow": ["tensorflow>=2.18"],
    "jax": ["jax>=0.4.30"],
    "torch": ["torch"],
    "training": ["tensorflow>=2.18", "tensorflow-datasets", "importlib_resources", "matplotlib", "tensorboard"],
    "export": ["tensorflow>=2.18"],
    "onnx": ["tensorflow>=2.18", "onnxruntime", "tf2onnx>=1.17"],
    "onnx-torch": ["torch>=2.6", "onnxscript", "onnxruntime"],
    "litert": ["tensorflow>=2.18", "keras>=3.13", "ai-edge-litert"],
    "openvino": ["tensorflow>=2.18", "keras>=3.13", "openvino"],
    "convert": ["torch>=2.6"],
    "demo": ["tensorflow>=2.18", "gradio>=6"],
    "docs": ["mkdocs-material", "mkdocstrings[python]"],
}
# The zoos that importers are held against, and what two of them need to run on a Keras of today.
peers = ["timm", "pytorchcv", "tf2cv", "tf-keras", "image-classifiers", "torchfile"]
extras["test"] = [
    *extras["tensorflow"], *extras["jax"], *extras["training"], *extras["onnx"], "onnxscript", *extras["litert"],
    *extras["openvino"], *extras["convert"], *extras["docs"], "tensorflow-serving-api", "torch==2.13.0", *peers,
    "build", "ipykernel", "mypy", "nbclient", "nbformat", "pytest>=8", "pytest-xdist", "ruff", "setuptools>=77",
    "wandb", "wheel",
]

setup(
    name="keras_preact",
    version=version["__version__"],
    description="Pre-activation ResNets for Keras 3: every network of He et al. 2016, with trained weights",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    install_requires=[
        # The oldest that `.ci/oldest` tests.
        "click>=8.4.2", "h5py>=3.11", "huggingface_hub>=2.4", "keras>=3.11", "lazy_loader>=0.1", "numpy>=1.26",
        "pillow>=9.2", "rich>=12.6", "safetensors>=0.4.3",
    ],
    extras_require=extras,
    # The weights/ folder beside the package is installed inside it.
    packages=[*find_packages(include=["keras_preact", "keras_preact.*"]), "keras_preact.weights"],
    package_dir={"keras_preact": "keras_preact", "keras_preact.weights": "weights"},
    package_data={
        "keras_preact": ["py.typed", "*.pyi"],
        "keras_preact.data": ["*.csv"],
        "keras_preact.weights": ["*.json", "*.csv", "*.h5", "*.md", "records/*/*"],
    },
    entry_points={"console_scripts": ["keras-preact=keras_preact.cli:main"]},
    keywords="keras tensorflow jax pytorch resnet pre-activation image-classification pretrained-weights model-zoo",
    author="The keras_preact authors",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
