"""A `Model` from anywhere: the catalog, a Hugging Face config, a TOML of one's own."""

from twofold.sources.huggingface import model_from_config, supported_model_types
from twofold.sources.models import find_model, model_names, published_parameters

__all__ = [
    "find_model",
    "model_from_config",
    "model_names",
    "published_parameters",
    "supported_model_types",
]
