"""nnU-Net v2's own commands on a data set made here: `… run nnUNetv2_train …` gives the same losses."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import leakyrelu_ext
from releases import needs_install

pytestmark = [
    pytest.mark.slow,
    pytest.mark.native,
    pytest.mark.cpu_only,
    pytest.mark.own_name,
    needs_install,
    pytest.mark.skipif(importlib.util.find_spec("nnunetv2") is None, reason="nnunetv2 is not installed"),
]

TRAINER = """
import json
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class nnUNetTrainerShort(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 3, 1
        self.configuration_manager.configuration["batch_size"] = 2  # the plan's is for a GPU
        self.losses = []
        torch.manual_seed(0)

    def train_step(self, batch):
        # The images come from worker processes in an order of their own; these are the same in every run.
        generator = torch.Generator().manual_seed(len(self.losses))
        batch["data"] = torch.randn(batch["data"].shape, generator=generator)
        batch["target"] = [(torch.rand(t.shape, generator=generator) > 0.5).to(t.dtype) for t in batch["target"]]
        result = super().train_step(batch)
        self.losses.append(float(result["loss"]))
        return result

    def on_train_end(self):
        print("losses", json.dumps(self.losses), flush=True)

    def perform_actual_validation(self, *arguments, **keywords):
        pass
"""

IMAGES = """
import json, numpy as np, os
from PIL import Image
root = os.path.join(os.environ["nnUNet_raw"], "Dataset001_Discs")
os.makedirs(os.path.join(root, "imagesTr")); os.makedirs(os.path.join(root, "labelsTr"))
chance = np.random.default_rng(0)
rows, columns = np.mgrid[:96, :96]
for number in range(12):
    y, x, radius = chance.integers(25, 70, 2).tolist() + [chance.integers(8, 20)]
    disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    image = np.clip(disc * 120 + chance.normal(60, 20, disc.shape), 0, 255).astype(np.uint8)
    Image.fromarray(image).save(os.path.join(root, "imagesTr", f"disc_{number:03}_0000.png"))
    Image.fromarray(disc.astype(np.uint8)).save(os.path.join(root, "labelsTr", f"disc_{number:03}.png"))
about = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "disc": 1}, "numTraining": 12, "file_ending": ".png"}
json.dump(about, open(os.path.join(root, "dataset.json"), "w"))
"""


def test_the_training_command(tmp_path):
    commands = Path(sys.executable).parent
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "nnUNetTrainerShort.py").write_text(TRAINER)
    folders = {name: str(tmp_path / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    environment = os.environ | folders | {
        "nnUNet_extTrainer": str(tmp_path / "trainers"), "nnUNet_compile": "f", "nnUNet_n_proc_DA": "1",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    path = [str(Path(leakyrelu_ext.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(path)

    def run(*command):
        done = subprocess.run(
            list(map(str, command)), env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done

    run(sys.executable, "-c", IMAGES)
    run(commands / "nnUNetv2_plan_and_preprocess", "-d", 1, "-c", "2d", "-np", 1, "-npfp", 1)
    environment["nnUNet_n_proc_DA"] = "0"  # in the process itself
    train = [commands / "nnUNetv2_train", 1, "2d", 0, "-tr", "nnUNetTrainerShort", "-device", "cpu", "-num_gpus", 1]
    plain = run(*train)
    shutil.rmtree(folders["nnUNet_results"])
    ours = run(sys.executable, "-W", "ignore", "-m", "leakyrelu_ext", "run", "--stats", *train)
    losses = [json.loads(re.search(r"losses (\[.+\])", done.stdout)[1]) for done in (plain, ours)]
    assert len(losses[0]) == 6
    assert losses[1] == losses[0]
    counts = re.findall(r"(\d+) calls of PyTorch's leaky_relu on our kernels, (\d+) backward", ours.stderr)
    assert max(int(backward) for _, backward in counts) >= 6 * 10
