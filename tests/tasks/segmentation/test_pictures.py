"""Pictures of images, truth and prediction side by side."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ddpnas_ray.tasks.base import Illustrates
from tests.tasks.segmentation.making import HEIGHT, WIDTH, own, write_pairs


def test_six_images_are_shown_with_truth_and_prediction(tmp_path: Path) -> None:
    write_pairs(tmp_path, 16, ids=(0, 1, 2, 255))
    task = own(tmp_path)
    assert isinstance(task, Illustrates) and task.val_examples == 8

    def says_one(inputs: Any) -> torch.Tensor:
        logits = torch.zeros(len(inputs), 3, *inputs.shape[2:])
        logits[:, 1] = 1
        return logits

    outputs = [task.compact(says_one(batch.inputs), batch.targets) for batch in task.validation_batches(3)]
    found = task.illustrate(says_one, outputs)
    counts_C = task.data.val.counts_NC.sum(axis=0)
    assert found.classes == task.classes
    assert found.confusion == [[0, int(count), 0] for count in counts_C]
    assert len(found.pictures) == 6
    caption, stored = next(iter(found.pictures.items()))
    assert caption.startswith("image 0: image, truth, prediction; mIoU 0.") and "% of pixels right" in caption
    picture = np.asarray(Image.open(io.BytesIO(stored)))
    assert picture.shape == (HEIGHT, 3 * WIDTH + 2 * 4, 3)
    pixels, labels = task.data.val.pairs.gather(np.array([0]))
    image = pixels[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(picture[:, :WIDTH], image)
    truth, prediction = picture[:, WIDTH + 4 : 2 * WIDTH + 4], picture[:, 2 * WIDTH + 8 :]
    np.testing.assert_array_equal(truth[labels[0] == 255], image[labels[0] == 255])
    colour = np.array(task.data.palette[1])
    np.testing.assert_allclose(prediction, np.rint(0.4 * image + 0.6 * colour), atol=1)
    np.testing.assert_array_equal(truth[labels[0] == 1], prediction[labels[0] == 1])
