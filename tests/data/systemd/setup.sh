# Becomes systemd, in namespaces of its own. Arguments: the folder to share, then the paths
# to keep readable for everybody.
set -eu
share=$1
shift
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
# Only the part of the hierarchy below the group made for this test is seen from here.
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/share /run/staging /run/systemd/system
mount --bind "$share" /run/share
mount -t tmpfs -o mode=755 tmpfs /var/lib
# An interpreter in somebody's home: a service with another account cannot get there.
count=0
for path in "$@"; do
    count=$((count + 1))
    mkdir "/run/staging/$count"
    mount --bind "$path" "/run/staging/$count"
done
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
count=0
for path in "$@"; do
    count=$((count + 1))
    folder=$path
    closed=
    while [ "$folder" != / ]; do
        folder=$(dirname "$folder")
        case $(stat -c %A "$folder") in *[xt]) ;; *) closed=$folder ;; esac
    done
    if [ -n "$closed" ]; then
        mount -t tmpfs -o mode=755 tmpfs "$closed"
    fi
    if [ ! -e "$path" ]; then
        mkdir -p "$path"
        mount --bind "/run/staging/$count" "$path"
    fi
done
mount -o remount,bind,ro /
cp -r /run/share/units/. /run/systemd/system/
export SYSTEMD_UNIT_PATH=/run/systemd/system container=unshare
exec "$SYSTEMD" --system --unit=default.target --log-target=null --show-status=no
