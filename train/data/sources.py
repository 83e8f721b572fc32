"""Where a run's data come from: real folders, or synthetic ones that are made when absent."""

from __future__ import annotations

import logging
from collections import Counter

from mambapro.cli import InputError
from mambapro.config import DataConfig, ExperimentConfig, SyntheticData
from mambapro.datasets import LAYOUT_FOLDERS, Dataset, Split, drop_unreadable, read_dataset
from mambapro.files import in_checkout

_log = logging.getLogger(__name__)


def open_dataset(config: ExperimentConfig) -> Dataset:
    """Return the checked dataset of ``config``; see mambapro.datasets for what is refused."""
    data = config.data
    if data.synthetic is not None:
        make_synthetic(data, data.synthetic)
    dataset = read_dataset(data.layout, in_checkout(data.root))
    dataset.check_cameras(config.model.cameras)
    dataset = drop_unreadable(dataset, data.max_unreadable_share)
    if not data.allow_single:
        refuse_single(dataset.train)
    return dataset


def refuse_single(split: Split) -> None:
    """Raise InputError when an identity has one triplet: it has no match to learn from."""
    counts = Counter(record.identity for record in split.records)
    single = [record for record in split.records if counts[record.identity] == 1]
    if single:
        raise InputError(
            f"{len(single)} of {len(counts)} training identities have one triplet, so no match to "
            f"learn from; the first is {single[0].paths[0]}; remove it, or set "
            "data.allow_single=true to train on it, repeated in its batch"
        )


def make_synthetic(data: DataConfig, synthetic: SyntheticData) -> None:
    """Render the synthetic dataset into ``data.root`` unless it is there.

    Raises InputError when the folder holds a dataset of other settings.
    """
    from mambapro.synthetic.datasets import write_dataset

    root = in_checkout(data.root)
    if not (root / LAYOUT_FOLDERS[data.layout]).exists():
        _log.info(
            "no %s data in %s: rendering %d training and %d test identities",
            data.layout,
            root,
            synthetic.train_identities,
            synthetic.test_identities,
        )
    write_dataset(
        data.layout,
        root,
        identities=(synthetic.train_identities, synthetic.test_identities),
        images_per_camera=synthetic.images_per_camera,
        cameras=synthetic.cameras,
        size=synthetic.size,
        seed=synthetic.seed,
    )
