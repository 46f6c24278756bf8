# The first process of the head or of a worker: $1 is its name, the rest the options of
# `ray start`. Its /tmp is its own: two nodes with one /tmp mix their environments up.
set -e
name=$1
shift
hostname "$name"
mount --bind "/run/lab/tmp/$name" /tmp
mount -t tmpfs shm /dev/shm -o mode=1777
cd "$HOME"
# Ray gives a node 30 s to start, whatever else the machine is doing.
for attempt in 1 2 3; do
  if python /run/lab/ray_start.py start "$@" >&2; then break; fi
  [ "$attempt" -lt 3 ]
  python /run/lab/ray_start.py stop --force >&2 || true
done
echo ready
read -r _ || true
