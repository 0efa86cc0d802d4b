"""The public names; the package loads each when it is first used."""
from .evaluation import evaluate as evaluate
from .explanation import grad_cam as grad_cam
from .exporting import export as export
from .finetuning import freeze as freeze
from .finetuning import recalibrate as recalibrate
from .finetuning import unfreeze as unfreeze
from .importers import convert as convert
from .metadata import Metadata as Metadata
from .models import (
    PreActResNet18 as PreActResNet18,
)
from .models import (
    PreActResNet20 as PreActResNet20,
)
from .models import (
    PreActResNet32 as PreActResNet32,
)
from .models import (
    PreActResNet34 as PreActResNet34,
)
from .models import (
    PreActResNet44 as PreActResNet44,
)
from .models import (
    PreActResNet50 as PreActResNet50,
)
from .models import (
    PreActResNet56 as PreActResNet56,
)
from .models import (
    PreActResNet101 as PreActResNet101,
)
from .models import (
    PreActResNet110 as PreActResNet110,
)
from .models import (
    PreActResNet152 as PreActResNet152,
)
from .models import (
    PreActResNet164 as PreActResNet164,
)
from .models import (
    PreActResNet200 as PreActResNet200,
)
from .models import (
    PreActResNet269 as PreActResNet269,
)
from .models import (
    PreActResNet272 as PreActResNet272,
)
from .models import (
    PreActResNet542 as PreActResNet542,
)
from .models import (
    PreActResNet1001 as PreActResNet1001,
)
from .models import (
    PreActResNet1202 as PreActResNet1202,
)
from .models import (
    ResNet18 as ResNet18,
)
from .models import (
    ResNet20 as ResNet20,
)
from .models import (
    ResNet32 as ResNet32,
)
from .models import (
    ResNet34 as ResNet34,
)
from .models import (
    ResNet44 as ResNet44,
)
from .models import (
    ResNet50 as ResNet50,
)
from .models import (
    ResNet56 as ResNet56,
)
from .models import (
    ResNet101 as ResNet101,
)
from .models import (
    ResNet110 as ResNet110,
)
from .models import (
    ResNet152 as ResNet152,
)
from .models import (
    ResNet164 as ResNet164,
)
from .models import (
    ResNet200 as ResNet200,
)
from .models import (
    ResNet269 as ResNet269,
)
from .models import (
    ResNet272 as ResNet272,
)
from .models import (
    ResNet542 as ResNet542,
)
from .models import (
    ResNet1001 as ResNet1001,
)
from .models import (
    ResNet1202 as ResNet1202,
)
from .models import (
    decode_predictions as decode_predictions,
)
from .models import (
    from_hub as from_hub,
)
from .models import (
    list_models as list_models,
)
from .models import (
    list_weights as list_weights,
)
from .models import (
    load_image as load_image,
)
from .models import (
    preprocess_input as preprocess_input,
)
from .models import (
    pull as pull,
)
from .networks import NetworkConfig as NetworkConfig
from .networks import ResNet as ResNet
from .preprocessing import Preprocessing as Preprocessing
from .publishing import push_to_hub as push_to_hub
from .pyramid import feature_pyramid as feature_pyramid
from .recipes import Recipe as Recipe
from .runs import load_run as load_run
from .savedmodel import export_savedmodel as export_savedmodel
from .simplification import simplify_for_inference as simplify_for_inference
from .training import Engine as Engine
from .training import train as train
from .version import __version__ as __version__
