"""The public names; the package loads each when it is first used."""
from .data.preprocessing import Preprocessing as Preprocessing
from .exporting.formats import export as export
from .exporting.predicting import Predictor as Predictor, predictor as predictor
from .exporting.savedmodel import export_savedmodel as export_savedmodel
from .exporting.simplification import simplify_for_inference as simplify_for_inference
from .networks.building import ResNet as ResNet
from .networks.config import NetworkConfig as NetworkConfig
from .networks.explanation import grad_cam as grad_cam
from .networks.pyramid import feature_pyramid as feature_pyramid
from .training.engine import Engine as Engine, train as train
from .training.evaluation import evaluate as evaluate
from .training.finetuning import fine_tune as fine_tune, freeze as freeze, unfreeze as unfreeze
from .training.forms.fused_batch_norm import fuse_batch_norm as fuse_batch_norm
from .training.recalibration import recalibrate as recalibrate
from .training.recipes import Recipe as Recipe
from .training.runs import load_run as load_run
from .version import __version__ as __version__
from .zoo.builders import (
    PreActResNet10 as PreActResNet10,
    PreActResNet12 as PreActResNet12,
    PreActResNet14 as PreActResNet14,
    PreActResNet16 as PreActResNet16,
    PreActResNet18 as PreActResNet18,
    PreActResNet20 as PreActResNet20,
    PreActResNet26 as PreActResNet26,
    PreActResNet32 as PreActResNet32,
    PreActResNet34 as PreActResNet34,
    PreActResNet44 as PreActResNet44,
    PreActResNet50 as PreActResNet50,
    PreActResNet56 as PreActResNet56,
    PreActResNet101 as PreActResNet101,
    PreActResNet110 as PreActResNet110,
    PreActResNet152 as PreActResNet152,
    PreActResNet164 as PreActResNet164,
    PreActResNet200 as PreActResNet200,
    PreActResNet269 as PreActResNet269,
    PreActResNet272 as PreActResNet272,
    PreActResNet542 as PreActResNet542,
    PreActResNet1001 as PreActResNet1001,
    PreActResNet1202 as PreActResNet1202,
    ResNet10 as ResNet10,
    ResNet12 as ResNet12,
    ResNet14 as ResNet14,
    ResNet16 as ResNet16,
    ResNet18 as ResNet18,
    ResNet20 as ResNet20,
    ResNet26 as ResNet26,
    ResNet32 as ResNet32,
    ResNet34 as ResNet34,
    ResNet44 as ResNet44,
    ResNet50 as ResNet50,
    ResNet56 as ResNet56,
    ResNet101 as ResNet101,
    ResNet110 as ResNet110,
    ResNet152 as ResNet152,
    ResNet164 as ResNet164,
    ResNet200 as ResNet200,
    ResNet269 as ResNet269,
    ResNet272 as ResNet272,
    ResNet542 as ResNet542,
    ResNet1001 as ResNet1001,
    ResNet1202 as ResNet1202,
    create_model as create_model,
    from_hub as from_hub,
)
from .zoo.catalogue import (
    list_models as list_models,
    list_weights as list_weights,
)
from .zoo.described import load_model as load_model
from .zoo.images import (
    decode_predictions as decode_predictions,
    load_image as load_image,
    preprocess_input as preprocess_input,
    preprocessing_layer as preprocessing_layer,
)
from .zoo.importers import convert as convert
from .zoo.metadata import Metadata as Metadata
from .zoo.publishing import push_to_hub as push_to_hub
from .zoo.resolving import (
    pull as pull,
)
