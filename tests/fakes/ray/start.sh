# The first process of a cluster, in namespaces of its own: $1 is the cluster's folder,
# $2 the addresses of the nodes. Every mount is the cluster's own. It ends, and the
# cluster with it, when its standard input is closed: when the test process has ended.
set -e
mount -t tmpfs run /run -o mode=755
mkdir /run/lab /run/sshd
mount --bind "$1" /run/lab
ip link set lo up
for address in $2; do ip address add "$address/32" dev lo; done
hostname head
for file in hosts passwd shadow group resolv.conf; do
  # A link leads out of /etc, to a file that may not exist.
  [ ! -L "/etc/$file" ] || continue
  mount --bind "/run/lab/etc/$file" "/etc/$file"
done
echo ready
# bash, unlike sh, reaps the processes that lose their parents.
read -r _ || true
