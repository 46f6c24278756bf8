# Start a machine: $1 its folder, $2 its disk, $3 the layer, $4 its name, $5 its
# console, $6 its control group, $7 the command that takes rights away. It runs in
# the machine's network already; every mount is the machine's own.
set -e
mount --make-rprivate /
mkdir -p "$1/cgroup" "$1/root" "$1/base" "$1/work"
mount -t cgroup2 cgroup2 "$1/cgroup"
mkdir "$1/cgroup/$6"
echo $$ >"$1/cgroup/$6/cgroup.procs"
exec unshare --cgroup --pid --uts --ipc --mount --fork --kill-child=KILL \
  sh -e -c '
cd "$1"
umount cgroup
# Nobody writes to the layer, so that any number of machines may share it.
mount -t overlay base base -o "ro,index=off,lowerdir=/,upperdir=$3,workdir=$PWD/work"
mount -t overlay root root -o "lowerdir=base,upperdir=$2/upper,workdir=$2/work"
cp /proc/sys/kernel/random/uuid boot_id
echo "BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro console=ttyS0" >cmdline
cd root
# A kernel is not ours alone: what would change it cannot be written here.
mount -t proc proc proc -o nosuid,nodev,noexec
mount --bind proc/sys proc/sys
mount --bind ../boot_id proc/sys/kernel/random/boot_id
mount -o remount,bind,ro proc/sys
mount --bind ../cmdline proc/cmdline
[ ! -e proc/sysrq-trigger ] || mount --bind /dev/null proc/sysrq-trigger
mount -t sysfs sysfs sys -o nosuid,nodev,noexec
mount -t tmpfs class sys/class
mkdir sys/class/net
ln -s ../../devices/virtual/net/lo sys/class/net/lo
cp -r ../dmi sys/class/
mount -o remount,bind,ro sys
mount -t cgroup2 cgroup2 sys/fs/cgroup -o nosuid,nodev,noexec
mount -t tmpfs dev dev -o mode=755,nosuid
mkdir dev/pts dev/shm
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=666,mode=620,gid=5
for it in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
  mknod -m 666 dev/${it%% *} c ${it#* }
done
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for it in 0:stdin 1:stdout 2:stderr; do ln -s fd/${it%:*} dev/${it#*:}; done
touch dev/console
mount --bind "$5" dev/console
hostname "$4"
mkdir -p run/old
pivot_root . run/old
exec chroot . sh -e -c "
  umount -l /run/old
  rmdir /run/old
  exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    TERM=linux $7 /lib/systemd/systemd systemd.show_status=1 <dev/console >dev/console 2>&1
"' start "$@"
