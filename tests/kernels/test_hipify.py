"""The CUDA sources go through torch's hipify, as an installation on ROCm would send them. More is not known of AMD; that
nothing depends on the warp's size is shown by cuda_on_host/test_kernels.py."""

import re
import shutil
from pathlib import Path

import pytest
from torch.utils.hipify import hipify_python

from releases import since

CSRC = Path(__file__).parents[2] / "csrc"


@pytest.mark.cpu_only
@since(2, 9, "hipify translates cudaLaunchKernel")
def test_every_name_of_the_cuda_runtime_is_translated(tmp_path: Path) -> None:
    source = tmp_path / "csrc"
    shutil.copytree(CSRC, source)
    result = hipify_python.hipify(
        project_directory=str(tmp_path),
        output_directory=str(tmp_path),
        includes=[f"{source}/*"],
        is_pytorch_extension=True,
        show_progress=False,
    )
    originals = {path.relative_to(CSRC) for path in (CSRC / "cuda").iterdir()}
    hipified = {Path(name).relative_to(source): Path(entry.hipified_path or name) for name, entry in result.items()}
    assert hipified.keys() >= originals
    for original in originals:
        for line in hipified[original].read_text().splitlines():
            assert not re.search(r"\bcuda[A-Z]\w*|#include <.*cuda", line), f"{original}: {line}"
    launch = hipified[Path("cuda/launch.cuh")].read_text()
    assert "hipLaunchKernel" in launch
    assert "hipStream_t" in launch
