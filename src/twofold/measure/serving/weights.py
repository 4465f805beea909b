"""The weights that a proof serves: trained here by the embedded runtime, once, and kept.

Trained and not drawn at random: random weights leave the most likely tokens so close together
that greedy answers would part at every rounding, and have no held-out loss worth comparing.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from twofold import __version__
from twofold.document import content_hash, make_document
from twofold.engines import embedded_job
from twofold.engines.embedded import check_finished
from twofold.fleet import Fleet
from twofold.launch import run_job
from twofold.measure.finals import default_plan
from twofold.measure.progress import Progress
from twofold.measure.serving.experiment import TrainingSpec
from twofold.model import Model
from twofold.workload import Corpus, Train
from twofold.workload.text import cache_folder

_SEED = 11
_AT_THE_END_S = 86400.0
"""Between checkpoints: none but the last, which is written wherever any are asked for."""


def trained_weights(
    model: Model, spec: TrainingSpec, corpus: Corpus, fleet: Fleet, progress: Progress
) -> Path:
    """The folder of the training run, from the cache where it was made before."""
    workload = Train(
        text=spec.text,
        tokens=spec.tokens,
        seq_len=spec.seq_len,
        recipe=spec.recipe,
        text_hash=corpus.text_hash,
    )
    document = make_document(
        model=model,
        workload=workload,
        fleet=fleet,
        plan=default_plan(workload, fleet),
        estimate=None,
        seed=_SEED,
        twofold_version=__version__,
    )
    key = content_hash([document.hashes["model"], document.hashes["workload"], _SEED])
    folder = cache_folder() / f"served-{key[:16]}"
    if (folder / "done").is_file():
        return folder
    progress.note(f"training the served model on {workload.tokens} tokens; kept for later proofs")
    shutil.rmtree(folder, ignore_errors=True)
    job = embedded_job([document], [folder], checkpoint_every_s=_AT_THE_END_S)
    check_finished(job, run_job(job, progress.detail))
    (folder / "done").touch()
    return folder
