#!/usr/bin/env bash
# A Ray cluster of several raylets on this machine, to try out cluster features.
#
#   clusters/local.sh up [--nodes 2] [--cpus 1] [--gpus 0] [--port 6399] [--dashboard-port 8299]
#   eval "$(clusters/local.sh env)"    # token and address for this shell
#   gsfl-tune submit search_spaces/typefaces.yaml --run-dir "$PWD/runs/typefaces" --follow
#   clusters/local.sh down
#
# Everything listens on 127.0.0.1 and requires a token. Every raylet has its own temporary directory,
# as their agents would otherwise overwrite each other's files. Processes are ended by their ids: `ray
# stop` would end every Ray on the machine. GPUs are split: each node takes the next --gpus of them.
#
# GSFL_TUNE_LOCAL   directory of the cluster (keep it short: paths of Ray's sockets below it may have
#                   107 characters); default /tmp/gsfl-tune-UID
# PYTHON            a Python that has gsfl-tune[cluster]; default: .venv of this checkout, else python3
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
directory=${GSFL_TUNE_LOCAL:-/tmp/gsfl-tune-$(id -u)}
nodes=2 cpus=1 gpus=0 port=6399 dashboard_port=8299

fail() {
  echo "local.sh: $*" >&2
  exit 1
}

usage() {
  sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'
}

whole() {
  [[ $2 =~ ^[0-9]+$ ]] || fail "$1: found '$2', allowed is a whole number"
}

# Checks that process $1 is a raylet's parent started in $directory, not a later process with its id.
ours() {
  [[ -n $1 ]] && tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -qF -- "--temp-dir $directory/"
}

environment() {
  local address
  address=$(cat "$directory/address")
  echo "export RAY_AUTH_MODE=token"
  echo "export RAY_AUTH_TOKEN_PATH='$directory/token'"
  echo "export RAY_API_SERVER_ADDRESS='$address'"
  echo "export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0"
}

# Starts node $1 with the remaining arguments of `ray start`.
start_node() {
  local name=$1 number=$2
  shift 2
  local devices=""
  if ((gpus > 0)); then
    devices=$(seq -s, $((number * gpus)) $(((number + 1) * gpus - 1)))
  fi
  CUDA_VISIBLE_DEVICES=$devices nohup setsid "$python" -m gsfl_tune.cluster.session.loopback start --block \
    --node-ip-address 127.0.0.1 --num-cpus "$cpus" --num-gpus "$gpus" \
    --object-store-memory 134217728 --dashboard-agent-listen-port 0 --log-color false \
    --temp-dir "$directory/$name" "$@" >"$directory/$name.log" 2>&1 </dev/null &
  echo $! >"$directory/$name.pid"
}

# Waits until the dashboard reports $1 live nodes.
wait_for_nodes() {
  "$python" - "$1" "$(cat "$directory/address")" "$directory" <<'PYTHON'
import json, os, pathlib, sys, time, urllib.request

count, address, directory = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
token = (directory / "token").read_text()
request = urllib.request.Request(
    address + "/nodes?view=summary", headers={"Authorization": f"Bearer {token}"}
)
pids = [int(file.read_text()) for file in directory.glob("*.pid")]
deadline, found = time.monotonic() + 180, 0
while time.monotonic() < deadline:
    if not all(os.path.exists(f"/proc/{pid}") for pid in pids):
        sys.exit(f"a node ended; see {directory}/*.log")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            nodes = json.load(answer)["data"]["summary"]
        found = sum(node["raylet"].get("state") == "ALIVE" for node in nodes)
        if found >= count:
            sys.exit(0)
    except (OSError, ValueError, KeyError):
        pass
    time.sleep(0.5)
sys.exit(f"{found} of {count} nodes after 180 s; see {directory}/*.log")
PYTHON
}

up() {
  while (($#)); do
    (($# > 1)) || fail "$1 needs a value"
    whole "$1" "$2"
    case $1 in
      --nodes) nodes=$2 ;;
      --cpus) cpus=$2 ;;
      --gpus) gpus=$2 ;;
      --port) port=$2 ;;
      --dashboard-port) dashboard_port=$2 ;;
      *) fail "unknown option $1" ;;
    esac
    shift 2
  done
  ((nodes > 0)) || fail "--nodes: found 0, allowed is 1 or more"
  if [[ -n ${PYTHON:-} ]]; then
    python=$PYTHON
  elif [[ -x $here/../.venv/bin/python ]]; then
    python=$here/../.venv/bin/python
  else
    python=python3
  fi
  python=$(command -v "$python") || fail "no Python: set PYTHON"
  "$python" -c 'import gsfl_tune, aiohttp' || fail "$python lacks it: pip install 'gsfl-tune[cluster]'"
  # Jobs run `gsfl-tune`, which is beside this Python.
  PATH=$(dirname "$python"):$PATH
  export PATH

  umask 077
  mkdir -p "$directory"
  [[ -O $directory && ! -L $directory ]] || fail "$directory belongs to somebody else"
  chmod 700 "$directory"
  local file
  for file in "$directory"/*.pid; do
    [[ -e $file ]] && ours "$(cat "$file")" && fail "runs already in $directory: local.sh down"
  done
  rm -rf "$directory"/node* "$directory/address"
  "$python" -c 'import secrets; print(secrets.token_hex(32), end="")' >"$directory/token"
  echo "http://127.0.0.1:$dashboard_port" >"$directory/address"
  eval "$(environment)"
  # Connects to this cluster, not to that of the caller's shell.
  unset RAY_ADDRESS RAY_AUTH_TOKEN
  local client_port
  client_port=$("$python" -c 'import socket
with socket.socket() as s: s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

  trap 'down >/dev/null 2>&1' EXIT
  start_node node0 0 --head --port "$port" --disable-usage-stats --dashboard-host 127.0.0.1 \
    --dashboard-port "$dashboard_port" --ray-client-server-port "$client_port"
  wait_for_nodes 1
  local number
  for ((number = 1; number < nodes; number++)); do
    start_node "node$number" "$number" --address "127.0.0.1:$port"
  done
  wait_for_nodes "$nodes"
  trap - EXIT
  echo "$nodes nodes with $cpus CPUs and $gpus GPUs each, dashboard $(cat "$directory/address")"
  echo "for this shell: eval \"\$($0 env)\""
}

down() {
  local file pid number waited
  # Workers first: without a head they would wait for it.
  for ((number = $(find "$directory" -maxdepth 1 -name 'node*.pid' 2>/dev/null | wc -l) - 1; number >= 0; number--)); do
    file=$directory/node$number.pid
    pid=$(cat "$file" 2>/dev/null || true)
    if ours "$pid"; then
      kill -TERM "$pid" || true
      for ((waited = 0; waited < 80; waited++)); do
        ours "$pid" || break
        sleep 0.5
      done
      # The group contains what the node did not end itself.
      kill -KILL -- "-$pid" 2>/dev/null || true
      echo "node$number ended"
    fi
    rm -f "$file"
  done
}

case ${1:-} in
  up)
    shift
    up "$@"
    ;;
  down) down ;;
  env)
    [[ -f $directory/address ]] || fail "nothing runs in $directory: local.sh up"
    environment
    ;;
  -h | --help | help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
