"""How a network and its passes are spread over ranks."""

from twofold.runtime.train.parallel.build import count_parameters, make_network, make_pass
from twofold.runtime.train.parallel.passes import Pass, WholePass

__all__ = ["Pass", "WholePass", "count_parameters", "make_network", "make_pass"]
