#!/usr/bin/env bash
# One run on all GPUs of one machine, or of several machines without a scheduler.
#
#   experiments/cluster/torchrun.sh experiments/deco_visa.yaml [--option=value ...]
#   NODES=2 NODE_RANK=0 MASTER_ADDR=first-machine experiments/cluster/torchrun.sh ...  # on the first
#   NODES=2 NODE_RANK=1 MASTER_ADDR=first-machine experiments/cluster/torchrun.sh ...  # on the second
#
# PROCESSES is the number on each machine: one per GPU if not set, or one where there is no GPU.
# data.batch_size is per process.
set -euo pipefail

config=${1:?usage: torchrun.sh EXPERIMENT.yaml [--option=value ...]}
shift
nodes=${NODES:-1}
processes=${PROCESSES:-$(python -c 'import torch; print(max(1, torch.cuda.device_count()))')}

exec torchrun --nnodes="$nodes" --node-rank="${NODE_RANK:-0}" --nproc-per-node="$processes" \
  --master-addr="${MASTER_ADDR:-localhost}" --master-port="${MASTER_PORT:-29500}" --no-python \
  lightning fit --config "$config" --trainer.strategy=ddp \
  --trainer.num_nodes="$nodes" --trainer.devices="$processes" "$@"
