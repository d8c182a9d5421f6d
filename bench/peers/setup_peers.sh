#!/bin/bash
# Written for this project's comparisons.
# PyTorch, transformers and DeepSpeed in a virtual environment outside the tree: setup_peers.sh DIR
# PyTorch's wheel is a CUDA build and wants CUDA's libraries even on a CPU: the toolkit's are used,
# the few it lacks are installed.
set -eu
d=${1:?usage: setup_peers.sh DIR}; cuda=${CUDA_HOME:-$(dirname "$(dirname "$(command -v nvcc)")")}
python3 -m venv "$d"
"$d/bin/pip" -q install --upgrade pip wheel 'setuptools>=77'
"$d/bin/pip" -q install --no-deps torch nvidia-nccl-cu13 nvidia-cufile nvidia-cusparselt-cu13 \
    nvidia-nvshmem-cu13
"$d/bin/pip" -q install numpy transformers safetensors tokenizers sympy networkx jinja2 fsspec \
    filelock typing_extensions psutil hjson ninja py-cpuinfo msgpack einops pydantic tqdm
DS_BUILD_OPS=0 "$d/bin/pip" -q install --no-build-isolation --no-deps deepspeed
site=$("$d/bin/python" -c 'import site; print(site.getsitepackages()[0])')
echo "export LD_LIBRARY_PATH=$site/nvidia/nccl/lib:$cuda/lib64 HF_HUB_OFFLINE=1"
LD_LIBRARY_PATH=$site/nvidia/nccl/lib:$cuda/lib64 "$d/bin/python" -c '
import torch, transformers
print("torch", torch.__version__, "transformers", transformers.__version__,
      torch.backends.cpu.get_cpu_capability())'
