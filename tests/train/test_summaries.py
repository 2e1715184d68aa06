"""What is written into event files is what tensorboard reads, without tensorflow."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vps_jax.train.summaries import ProgressLine, duration, make_writer


def test_scalars_images_and_texts_come_back(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    writer = make_writer(tmp_path)
    writer.write_scalars(3, {"loss": 2.5, "learning_rate": np.float32(1e-4)})
    writer.write_scalars(4, {"loss": 1.5})
    writer.write_images(4, {"overlay": image})
    writer.write_texts(0, {"config": "a: 1"})
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    losses = [(e.step, e.tensor_proto.float_val[0]) for e in events.Tensors("loss")]
    assert losses == [(3, 2.5), (4, 1.5)]
    assert events.Tensors("learning_rate")[0].tensor_proto.float_val[0] == pytest.approx(1e-4)
    (shown,) = events.Images("overlay/1")
    decoded = cv2.imdecode(np.frombuffer(shown.encoded_image_string, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decoded, image[1])
    assert events.Tensors("config")[0].tensor_proto.string_val[0] == b"a: 1"


def test_other_processes_write_no_files(tmp_path):
    writer = make_writer(tmp_path, just_logging=True)
    writer.write_scalars(1, {"loss": 1.0})
    writer.close()
    assert not list(tmp_path.iterdir())


def test_tensorflow_is_not_imported():
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from vps_jax.train.summaries import make_writer\n"
        "import tempfile; make_writer(tempfile.mkdtemp()).close()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_progress_is_a_plain_line_when_nobody_watches(capsys):
    line = ProgressLine(total=100, done=0)
    line.step(49)
    line.report(50, 3.14159, 0.5)
    line.close()
    assert capsys.readouterr().err == "step 50/100  loss 3.142  0.50 steps/s  0:01:40 left\n"


def test_duration_reads_like_a_clock():
    assert [duration(s) for s in (0, 61.7, 3725.2, 360_000)] == ["0:00:00", "0:01:01", "1:02:05", "100:00:00"]
