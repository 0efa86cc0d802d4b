"""Pre-activation ResNets for Keras 3, after "Identity Mappings in Deep Residual Networks" (He et al. 2016).

The public names are those in __init__.pyi. Each loads when it is first used, so that importing the package starts no
backend.
"""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
