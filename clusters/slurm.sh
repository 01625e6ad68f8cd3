#!/usr/bin/env bash
# One search under Slurm: sbatch clusters/slurm.sh FILE RUN_DIRECTORY [options of gsfl-tune search]
#
# The options below suit a small GPU cluster: EDIT them, or pass others to sbatch. RUN_DIRECTORY is on a
# file system that all nodes share. Two minutes before the time limit, and when the job is preempted, the
# driver is told to save; the job is queued again and continues the run.
#
#SBATCH --job-name=gsfl-tune
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=32G
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -euo pipefail

(($# >= 2)) || {
  echo "usage: sbatch $0 FILE RUN_DIRECTORY [options of gsfl-tune search]" >&2
  exit 2
}
file=$1 run=$2
shift 2
[[ $run == /* ]] || {
  echo "RUN_DIRECTORY: found '$run', allowed is an absolute path that all nodes share" >&2
  exit 2
}
# EDIT: the command that makes gsfl-tune and ray available on every node
# source /shared/gsfl-tune-venv/bin/activate

umask 077
state=$run.slurm-$SLURM_JOB_ID
mkdir -p "$state"
python3 -c 'import secrets; print(secrets.token_hex(32), end="")' >"$state/token"
# As in --signal above; trials get most of it to end their epoch.
export GSFL_TUNE_STOP_SECONDS=120
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$state/token RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS RAY_AUTH_TOKEN

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# This script, the head and the driver run on the first node of the job.
address=$(getent ahostsv4 "${nodes[0]}" | awk 'NR == 1 {print $1}')
# Others may run Ray on the same machines, so this job uses its own ports and directories.
port=$((20000 + SLURM_JOB_ID % 20000))
temporary=/tmp/ray-$SLURM_JOB_ID

# Starts Ray on node $1 with the remaining arguments, in the background, as a step of the job. Ray gives a
# node 30 s to start. A slow shared file system may need longer, and a worker may start before the head.
start_node() {
  local node=$1
  shift
  # shellcheck disable=SC2016 # the inner shell expands it
  srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" --kill-on-bad-exit=0 \
    --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    bash -c 'for try in 1 2 3 4 5; do "$@" && break; echo "try $try failed"; sleep 5; done' bash \
    ray start --block --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --dashboard-agent-listen-port=0 \
    --temp-dir="$temporary" "$@" >>"$state/$node.log" 2>&1 &
}

driver=""
interrupted=0
# shellcheck disable=SC2329 # called by trap
stop() {
  interrupted=1
  [[ -z $driver ]] || kill -TERM "$driver" 2>/dev/null || true
}
# shellcheck disable=SC2329 # called by trap
finish() {
  # Steps end with the job; this removes what they left on this node.
  rm -rf "$state/token" "$temporary"
}
trap stop TERM
trap finish EXIT

start_node "${nodes[0]}" --head --node-ip-address="$address" --port="$port" --include-dashboard=false
head=$!
for node in "${nodes[@]:1}"; do
  start_node "$node" --address="$address:$port"
done
deadline=$((SECONDS + 600))
until timeout 60 python3 - "$address:$port" "${#nodes[@]}" 2>>"$state/wait.log" <<'PYTHON'; do
import sys
import ray

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
sys.exit(sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]))
PYTHON
  if ((SECONDS > deadline)) || ! kill -0 "$head" 2>/dev/null; then
    echo "the cluster did not come up; see $state" >&2
    exit 1
  fi
  sleep 2
done

code=3
if ((!interrupted)); then
  gsfl-tune search "$file" --run-dir "$run" --address "$address:$port" --resume-if-begun "$@" &
  driver=$!
  # A signal ends `wait` before the driver has ended. 127: `wait` has already returned its status.
  while :; do
    last=$code code=0
    wait "$driver" || code=$?
    if ((code == 127)); then code=$last; fi
    ((interrupted && code > 128 && code != last)) || break
  done
fi
if ((interrupted && code != 0)); then
  echo "interrupted; queueing the job again, it will continue $run"
  scontrol requeue "$SLURM_JOB_ID" || true
fi
exit "$code"
