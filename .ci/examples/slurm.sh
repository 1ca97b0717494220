#!/usr/bin/env bash
#SBATCH --job-name=assay
#SBATCH --array=1-8
#SBATCH --cpus-per-task=8
#SBATCH --time=00:30:00
# sbatch .ci/examples/slurm.sh, and behind it: sbatch --dependency=afterany:JOB --wrap .ci/examples/merge.sh
here=${SLURM_SUBMIT_DIR:-.}
cd "$here" && exec .ci/examples/shard.sh --fixture '*' --exclude 'qwen3_235b*' --pipeline "${PIPELINE:-predicted}"
