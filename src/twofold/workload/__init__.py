"""What is to be done with a model: here, training on text."""

from twofold.workload.text import Corpus, open_corpus, prepare_corpus
from twofold.workload.train import Recipe, Train

__all__ = ["Corpus", "Recipe", "Train", "open_corpus", "prepare_corpus"]
