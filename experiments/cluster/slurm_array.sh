#!/usr/bin/env bash
# One run per task of a SLURM array: every category with every seed, each on one GPU.
#
#   sbatch --array=0-14 experiments/cluster/slurm_array.sh experiments/ddad_mvtec.yaml
#   CATEGORIES="candle cashew" SEEDS="0 1 2" sbatch --array=0-5 \
#     experiments/cluster/slurm_array.sh experiments/ddad_visa.yaml --trainer.max_epochs=100
#
# Tasks 0 to (categories x seeds - 1). CATEGORIES are all of the experiment's data set if not set
# (`lightning categories --config EXPERIMENT.yaml` lists them), SEEDS is 0. Results land in
# RUNS/<category>/seed-<seed>; RUNS is runs/<name of the experiment> if not set. Stopped early, a
# task requeues itself and goes on, and the script's status is 75.
#SBATCH --job-name=lightning_ad
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@90
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%A_%a.log
set -euo pipefail

config=${1:?usage: sbatch --array=0-N slurm_array.sh EXPERIMENT.yaml [--option=value ...]}
shift
task=${SLURM_ARRAY_TASK_ID:?this is a script for sbatch --array=0-N; without SLURM see torchrun.sh}
if [[ -n ${CATEGORIES:-} ]]; then
  read -ra categories <<<"$CATEGORIES"
else
  found=$(lightning categories --config "$config" "$@")
  readarray -t categories <<<"$found"
fi
read -ra seeds <<<"${SEEDS:-0}"
runs=${RUNS:-runs/$(basename "$config" .yaml)}

if ((task >= ${#categories[@]} * ${#seeds[@]})); then
  echo "task $task: only ${#categories[@]} categories x ${#seeds[@]} seeds" >&2
  exit 2
fi
category=${categories[task % ${#categories[@]}]}
seed=${seeds[task / ${#categories[@]}]}

srun lightning fit --config "$config" --data.category="$category" --seed_everything="$seed" \
  --run_dir="$runs/$category/seed-$seed" --trainer.devices=1 "$@" &
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
