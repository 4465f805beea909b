"""The proof of serving: arms under load, goodput at a target fixed beforehand."""
