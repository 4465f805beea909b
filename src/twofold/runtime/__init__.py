"""The embedded PyTorch engine. Started as `python -m twofold.runtime...`; imported by nobody."""
