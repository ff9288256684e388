"""iBOT: image BERT pre-training with an online tokenizer, as a command-line toolkit."""

__version__ = "0.1.0"
