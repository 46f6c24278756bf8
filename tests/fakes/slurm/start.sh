# The first process of a cluster, in namespaces of its own: $1 is the cluster's folder.
# Every mount is the cluster's own. It ends, and the cluster with it, when its standard
# input is closed: when the test process has ended, in whatever way.
set -e
mount -t tmpfs run /run -o mode=755
mkdir /run/lab /run/munge /run/sshd
mount --bind "$1" /run/lab
ip link set lo up
for address in $2; do ip address add "$address/32" dev lo; done
hostname login
for file in hosts passwd shadow group resolv.conf; do
  # A link leads out of /etc, to a file that may not exist.
  [ ! -L "/etc/$file" ] || continue
  mount --bind "/run/lab/etc/$file" "/etc/$file"
done
mount --bind /run/lab/slurm /etc/slurm
mount -t tmpfs tmp /tmp -o mode=1777
mount -t tmpfs home /home -o mode=755
mkdir /home/ada
mount --bind /run/lab/home /home/ada
# What the mount point holds is what is seen when the file system is lost.
mount -t tmpfs mnt /mnt -o mode=755
mkdir /mnt/scratch
mount --bind /run/lab/scratch /mnt/scratch
munged --force --key-file=/run/lab/munge/key --log-file=/run/lab/munge/log \
  --pid-file=/run/munge/pid --seed-file=/run/munge/seed
echo ready
# bash, unlike sh, reaps the processes that lose their parents.
read -r _ || true
