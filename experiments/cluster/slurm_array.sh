#!/usr/bin/env bash
# One run per task of a SLURM array: every category with every seed, each on one GPU.
#
#   sbatch --array=0-14 experiments/cluster/slurm_array.sh experiments/ddad_mvtec.yaml
#   CATEGORIES="candle cashew" SEEDS="0 1 2" sbatch --array=0-5 \
#     experiments/cluster/slurm_array.sh experiments/ddad_visa.yaml --trainer.max_epochs=100
#
# Tasks 0 to (categories x seeds - 1). Results land in RUNS/<category>/seed-<seed>; RUNS is
# runs/<name of the experiment> if not set. Stopped early, a task requeues itself and goes on.
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
read -ra categories <<<"${CATEGORIES:-bottle cable capsule carpet grid hazelnut leather metal_nut \
pill screw tile toothbrush transistor wood zipper}"
read -ra seeds <<<"${SEEDS:-0}"
runs=${RUNS:-runs/$(basename "$config" .yaml)}

task=$SLURM_ARRAY_TASK_ID
if ((task >= ${#categories[@]} * ${#seeds[@]})); then
  echo "task $task: only ${#categories[@]} categories x ${#seeds[@]} seeds" >&2
  exit 2
fi
category=${categories[task % ${#categories[@]}]}
seed=${seeds[task / ${#categories[@]}]}

srun lightning fit --config "$config" --data.category="$category" --seed_everything="$seed" \
  --run_dir="$runs/$category/seed-$seed" --trainer.devices=1 "$@" &
step=$!
requeue=0
trap 'requeue=1; kill -USR1 "$step"' USR1
status=0
wait "$step" || status=$?
if ((requeue)); then
  wait "$step" || true # the trap had cut the first wait short
fi
if ((requeue || status == 75)); then # 75: the run was told to end
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
