"""`python -m leakyrelu_ext run`: programs that nobody edits, in all of their processes."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import leakyrelu_ext
from leakyrelu_ext import _run
from releases import CAN_INSTALL, needs_install

pytestmark = [pytest.mark.native, pytest.mark.cpu_only, pytest.mark.own_name]

PACKAGE_FOLDER = str(Path(leakyrelu_ext.__file__).parent.parent)

# Never names this package before it has computed: what it finds is there by itself.
PROGRAM = """
import json, os, sys
import torch
import torch.nn.functional as F

def activation():
    x = torch.ones(10, requires_grad=True)
    return hasattr(F.leaky_relu(x).grad_fn, "_saved_mask")

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, index):
        return activation()

def put(queue):
    queue.put(activation())

if __name__ == "__main__":
    found = {"here": activation(), "argv": sys.argv[1:], "name": __name__, "file": os.path.basename(__file__)}
    found["clean path"] = not any(folder.endswith("startup") for folder in sys.path)
    for method in ("fork", "spawn"):
        context = torch.multiprocessing.get_context(method)
        queue = context.SimpleQueue()
        process = context.Process(target=put, args=(queue,))
        process.start()
        found[method] = queue.get()
        process.join()
        loader = torch.utils.data.DataLoader(Data(), num_workers=1, multiprocessing_context=method)
        found["DataLoader, " + method] = all(bool(batch) for batch in loader)
    print(json.dumps(found))
"""


def run(*arguments, folder, check=True, **environment):
    """With the package found by a .pth or PYTHONPATH, as the tests themselves find it."""
    path = os.pathsep.join([PACKAGE_FOLDER, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "leakyrelu_ext", "run", *map(str, arguments)],
        cwd=folder, env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(PROGRAM)
    return path


@needs_install
@pytest.mark.feature("Processes", "python -m leakyrelu_ext run: fork, spawn, DataLoader workers")
@pytest.mark.parametrize("how", ["file", "module", "command"])
def test_every_process_of_a_program(program, how):
    launch = {"file": ["train.py"], "module": ["-m", "train"], "command": [sys.executable, "train.py"]}[how]
    done = run(*launch, "--epochs", "3", "-m", folder=program.parent)
    found = json.loads(done.stdout)
    assert found.pop("argv") == ["--epochs", "3", "-m"]
    assert (found.pop("name"), found.pop("file")) == ("__main__", "train.py")
    assert len(found) == 6
    assert all(found.values()), found


@needs_install
def test_stats_of_every_process(program):
    done = run("--stats", "train.py", folder=program.parent)
    lines = re.findall(
        r"^leakyrelu_ext: process \d+: (\d+) calls of PyTorch's leaky_relu on our kernels, (\d+) ", done.stderr, re.M
    )
    assert lines.count(("1", "0")) >= 3  # the program, and the processes that it forked and spawned: each its own
    assert not any(int(calls) > 2 for calls, _ in lines)


@needs_install
def test_exit_status_and_output_are_the_program_s(tmp_path):
    (tmp_path / "fails.py").write_text("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")
    done = run("fails.py", folder=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


@needs_install
def test_torch_is_not_imported_where_the_program_does_not(tmp_path):
    (tmp_path / "plain.py").write_text(
        "import importlib.util, sys; importlib.util.find_spec('torch'); print('torch' in sys.modules)"
    )
    assert run("plain.py", folder=tmp_path).stdout == "False\n"


@needs_install
def test_words_and_options_reach_the_program_as_they_are(tmp_path):
    (tmp_path / "t.py").write_text("import sys; print(sys.argv[1:], sys.stdout.write_through, sys.flags.optimize)")
    (tmp_path / "python").mkdir()  # no folder stands before a program on PATH
    command = [sys.executable, "-u", "-O", "-W", "ignore", "-m", "leakyrelu_ext", "run", "t.py", "--", "-x", "--stats", "--"]
    path = os.pathsep.join([PACKAGE_FOLDER, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | {"PYTHONPATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "['--', '-x', '--stats', '--'] True 1\n"
    assert run("python", "t.py", "-h", folder=tmp_path).stdout.startswith("['-h']")


@needs_install
def test_what_goes_wrong_in_a_process_leaves_torch_importable(tmp_path):
    code = (
        "import sys\nclass Old:\n    def find_module(self, name, path=None): pass\n"  # a finder as before Python 3.4
        "sys.meta_path.insert(1, Old())\n"
        "import torch; print(torch.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=_run.environment(os.environ, stats=False),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "torch\n"


@needs_install
def test_another_sitecustomize_still_runs(program):
    (program.parent / "sitecustomize.py").write_text("import builtins; builtins.theirs = 41\n")
    (program.parent / "asks.py").write_text(
        "import sys, train; print(theirs, train.activation(), sys.modules['sitecustomize'].__file__)"
    )
    theirs = {"PYTHONPATH": os.pathsep.join([str(program.parent), PACKAGE_FOLDER])}
    value, installed, file = run("asks.py", folder=program.parent, **theirs).stdout.split()
    assert (value, installed, Path(file)) == ("41", "True", program.parent / "sitecustomize.py")


@needs_install
def test_a_python_that_has_no_leakyrelu_ext_says_so_and_goes_on(tmp_path):
    (tmp_path / "torch.py").write_text("there = True")
    hidden = "import sys; sys.modules['leakyrelu_ext'] = None\nimport torch; print(torch.there)"
    done = subprocess.run(
        [sys.executable, "-c", hidden], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=_run.environment(os.environ | {"PYTHONPATH": str(tmp_path)}, stats=False),
    )  # fmt: skip
    assert done.stdout == "True\n"
    assert "leakyrelu_ext: not installed in this process, PyTorch's own leaky_relu stays: " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing-of-this-name"], "there is no file and no program 'nothing-of-this-name'"),
        ([], "arguments are required: program"),
    ],
)
@needs_install
def test_what_cannot_be_run(arguments, message, tmp_path):
    done = run(*arguments, folder=tmp_path, check=False)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@needs_install
def test_options_that_keep_it_out_are_refused(tmp_path):
    command = [sys.executable, "-W", "ignore", "-E", "-m", "leakyrelu_ext", "run", "train.py"]
    done = subprocess.run(command, cwd=PACKAGE_FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == "python -m leakyrelu_ext: Python's options -I, -E and -S keep the kernels out of the program: leave them away\n"
    )


@pytest.mark.skipif(CAN_INSTALL, reason="install() works here")
def test_what_install_refuses_ends_it_in_one_sentence(program):
    done = run("train.py", folder=program.parent, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("python -m leakyrelu_ext: install(): needs torch >= 2.9")


TRAINING = """
import atexit, json, os, sys, torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
torch.manual_seed(0)
activation = nn.LeakyReLU(0.01, inplace=True)
net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.InstanceNorm2d(8), activation, nn.Flatten(), nn.Linear(288, 2))
net = DistributedDataParallel(net)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
losses = []
for step in range(4):
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(10 * step + dist.get_rank()))
    loss = net(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
gathered = [None, None]
dist.all_gather_object(gathered, losses)
if dist.get_rank() == 0:
    print("losses", json.dumps(gathered))
dist.destroy_process_group()
sys.stdout.flush()
atexit._run_exitfuncs()  # the statistics
os._exit(0)  # a gloo thread that lets go of a tensor during Python's shutdown ends the process (pytorch#179291)
"""


def losses_of(output):
    return re.findall(r"losses (.+)", output)


@needs_install
@pytest.mark.slow
def test_torchrun_on_two_processes(tmp_path):
    (tmp_path / "train.py").write_text(TRAINING)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    plain = subprocess.run(
        [sys.executable, "-W", "ignore", *torchrun], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=240,
    )  # fmt: skip
    done = run("--stats", *torchrun, folder=tmp_path, OMP_NUM_THREADS="1")
    assert losses_of(done.stdout) == losses_of(plain.stdout)
    assert len(losses_of(done.stdout)) == 1
    lines = re.findall(r"(\d+) calls of PyTorch's leaky_relu on our kernels, (\d+) backward", done.stderr)
    assert lines.count(("4", "4")) == 2  # the ranks; torchrun itself computes nothing


LIGHTNING = """
import logging, torch, warnings
warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
try:
    import lightning.pytorch as pl
except ImportError:
    import pytorch_lightning as pl
from torch import nn

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
        self.losses = []
    def training_step(self, batch):
        loss = (self.net(batch[0]) - batch[1]).square().mean()
        self.losses.append(loss.item())
        return loss
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)

pl.seed_everything(0)
data = torch.utils.data.TensorDataset(torch.randn(32, 8), torch.randn(32, 1))
net = Net()
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
pl.Trainer(max_epochs=2, accelerator="cpu", **quiet).fit(net, torch.utils.data.DataLoader(data, 8, shuffle=True))
print("losses", net.losses)
"""


@needs_install
@pytest.mark.slow
def test_a_lightning_script(tmp_path):
    if not any(map(importlib.util.find_spec, ("lightning", "pytorch_lightning"))):
        pytest.skip("neither lightning nor pytorch_lightning is installed")
    (tmp_path / "train.py").write_text(LIGHTNING)
    plain = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=240
    )
    done = run("--stats", "train.py", folder=tmp_path)
    assert losses_of(done.stdout) == losses_of(plain.stdout) != []
    assert "8 calls of PyTorch's leaky_relu on our kernels, 8 backward calls" in done.stderr
