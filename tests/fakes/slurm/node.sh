# The first process of a node: $1 its name, $2 "home" if the node has the users' homes.
# What it writes to /tmp is on this node alone. It ends with the cluster.
set -e
hostname "$1"
mount -t tmpfs tmp /tmp -o mode=1777
[ "$2" = home ] || mount -t tmpfs home /home -o mode=1777
mkdir -p "/run/lab/spool/$1"
slurmd -N "$1"
echo ready
read -r _ || true
