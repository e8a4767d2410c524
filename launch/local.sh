#!/usr/bin/env bash
# Starts N processes of one command on this machine, as a pod would start one per host.
#
#   launch/local.sh N [--] COMMAND ...
#   launch/local.sh 2 python -m cxr_jax.main --config=configs/chexnet.py:phantom --workdir=RUN
#
# The processes find each other by CXR_COORDINATOR, CXR_NUM_PROCESSES, CXR_PROCESS_ID.
# A SIGTERM or SIGINT to this script goes to all of them. Exit status: 0 if all ended
# with 0; else 75 if all stopped after saving or cleanly; else the first failure's.
# Process 0 writes to this terminal; the others to $CXR_LOG_DIR/process-I.log
# (default: a temporary folder, printed).
set -u

usage() { echo "usage: $0 N [--] COMMAND ...; N is a number of processes, at least 1" >&2; exit 2; }
[ $# -ge 2 ] || usage
count=$1; shift
case $count in ''|*[!0-9]*|0*) usage ;; esac
[ "$1" = "--" ] && shift
[ $# -ge 1 ] || usage

free_port() {
  "${PYTHON:-python3}" -c 'import socket
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    print(s.getsockname()[1])'
}
export CXR_COORDINATOR="${CXR_COORDINATOR:-127.0.0.1:$(free_port)}"
export CXR_NUM_PROCESSES=$count
logs=${CXR_LOG_DIR:-$(mktemp -d)}
mkdir -p "$logs"
[ "$count" -gt 1 ] && echo "logs of processes 1 to $((count - 1)): $logs" >&2

pids=()
forward() { for pid in "${pids[@]}"; do kill -"$1" "$pid" 2>/dev/null; done; }
trap 'forward TERM' TERM
trap 'forward INT' INT
for ((i = 0; i < count; i++)); do
  if [ "$i" = 0 ]; then
    CXR_PROCESS_ID=$i "$@" &
  else
    CXR_PROCESS_ID=$i "$@" >"$logs/process-$i.log" 2>&1 &
  fi
  pids+=("$!")
done
# Tests and operators address a single process by its file.
for ((i = 0; i < count; i++)); do echo "${pids[$i]}" >"$logs/process-$i.pid"; done

status=0
for ((i = 0; i < count; i++)); do
  # `wait` returns early when a trapped signal arrives: wait again for the same process.
  while :; do
    wait "${pids[$i]}"; code=$?
    # Ended while a trap ran: bash remembers its status for one more `wait`.
    kill -0 "${pids[$i]}" 2>/dev/null || { wait "${pids[$i]}"; late=$?; [ "$late" = 127 ] || code=$late; break; }
  done
  [ "$code" = 0 ] && continue
  echo "process $i ended with status $code" >&2
  if [ "$code" = 75 ]; then [ "$status" = 0 ] && status=75
  else [ "$status" = 0 ] || [ "$status" = 75 ] && status=$code; fi
done
exit "$status"
