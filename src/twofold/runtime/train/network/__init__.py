"""The networks that the embedded runtime trains."""

from twofold.runtime.train.network.decoder import Block, Decoder, Part, build_network
from twofold.runtime.train.network.experts import load_skew
from twofold.runtime.train.network.initialisation import initialise

__all__ = ["Block", "Decoder", "Part", "build_network", "initialise", "load_skew"]
