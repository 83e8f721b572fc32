"""Embed a dataset's test split by a model file, as if only some of the modalities were there."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from mambapro import native
from mambapro.cli import InputError
from mambapro.config import ExperimentConfig, from_record
from mambapro.contract import CAMERA, EMBEDDING, IMAGES, MODALITIES, MODALITY_MASK, Modality
from mambapro.datasets import Dataset, Record, drop_unreadable, load_triplet, read_dataset
from mambapro.files import in_checkout
from mambapro.metrics import Floats
from mambapro.preprocess import stack
from mambapro.spec import ModelSpec, spec_from_metadata

Subset = tuple[Modality, ...]

BATCH: Final = 32
"""Triplets held in memory at once."""

_log = logging.getLogger("threshold")


class ModelFile:
    """A model file opened in ONNX Runtime on the CPU."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Open ``path``; InputError when it is no model file of ours."""
        if not path.is_file():
            raise InputError(f"there is no model file {path}; write one with export/to_onnx.py")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # As the stream opens it: INT8 is summed in another order otherwise.
        options.add_session_config_entry(
            "optimization.disable_specified_optimizers", "MatMulAddFusion"
        )
        if threads is not None:
            options.intra_op_num_threads = threads
        library = native.find_library("onnxruntime")
        if library is not None:
            options.register_custom_ops_library(str(library))
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ORT 1.31 has a class for each status, with no public base
            message = " ".join(str(error).split())
            raise InputError(
                f"{path} is not an ONNX model that runs here: {message}. An .engine takes the "
                "thresholds of the model file it was built from"
            ) from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.spec: Final[ModelSpec] = spec_from_metadata(metadata, str(path))

    def embed(self, records: Sequence[Record], subsets: Sequence[Subset]) -> dict[Subset, Floats]:
        """Return (n, E) unit embeddings of ``records`` by subset; pictures are read once."""
        parts: dict[Subset, list[Floats]] = {subset: [] for subset in subsets}
        for start in range(0, len(records), BATCH):
            batch = records[start : start + BATCH]
            images = np.stack([self._images(record) for record in batch])  # (n, 3, H, W, 3)
            camera = np.array([record.camera for record in batch], np.int64)
            for subset, embedded in parts.items():
                present = np.array([[m in subset for m in MODALITIES]] * len(batch), np.float32)
                feed = {IMAGES: images, MODALITY_MASK: present, CAMERA: camera}
                embedded.append(self._session.run([EMBEDDING], feed)[0])
        return {subset: np.concatenate(embedded) for subset, embedded in parts.items()}

    def _images(self, record: Record) -> npt.NDArray[np.uint8]:
        pictures = load_triplet(record)
        images, _ = stack(
            {modality: pictures[modality] for modality in MODALITIES}, self.spec.image_size
        )
        return images


def read_identities(spec: ModelSpec, root: Path | None) -> Dataset:
    """Return the test split of the dataset that the model was trained for; nobody in it trained it.

    ``root`` is the folder that holds the dataset's own, by default the training's. Each record's
    camera becomes unknown (-1) when the model has no row for it.
    """
    config = from_record(ExperimentConfig, spec.training)
    try:
        dataset = read_dataset(config.data.layout, root or in_checkout(config.data.root))
    except InputError as error:
        raise InputError(f"{error}. Give the dataset's folder with --data") from error
    dataset = dataclasses.replace(dataset, train=dataset.query)
    return drop_unreadable(dataset, config.data.max_unreadable_share)
