#!/usr/bin/env bash
# One run on all GPUs of several nodes, one process per GPU.
#
#   sbatch experiments/cluster/slurm_multinode.sh experiments/deco_visa.yaml [--option=value ...]
#   sbatch --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 experiments/cluster/slurm_multinode.sh ...
#
# data.batch_size is per process: with 2 x 4 GPUs a step sees 8 times as many images, and the
# learning rate is not changed for it. Results land in the experiment's run_dir, which all nodes
# must see. Stopped early, the job requeues itself and goes on in the phase where it was; the
# script's status is 75 then.
#SBATCH --job-name=lightning_ad
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@90
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -euo pipefail

config=${1:?usage: sbatch slurm_multinode.sh EXPERIMENT.yaml [--option=value ...]}
shift
: "${SLURM_JOB_ID:?this is a script for sbatch; without SLURM see torchrun.sh}"

srun --kill-on-bad-exit=1 lightning fit --config "$config" --trainer.strategy=ddp \
  --trainer.num_nodes="$SLURM_NNODES" --trainer.devices="$SLURM_NTASKS_PER_NODE" "$@" &
step=$!
told=0
cut=1
trap 'told=1; cut=1; kill -USR1 "$step" || true' USR1
while ((cut)); do # a signal cuts a wait short
  cut=0
  status=0
  wait "$step" || status=$?
done
# 75: the run was told to end. Where it did not hear of it in time, srun has another status.
if ((status == 75 || (told && status))); then
  scontrol requeue "$SLURM_JOB_ID"
  exit 75
fi
exit "$status"
