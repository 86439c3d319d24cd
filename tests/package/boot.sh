#!/usr/bin/env bash
# Boots systemd as PID 1 in a container and runs one command in it. The container's root is a throw-away overlay over the root of
# this machine, with this source tree at /src and the binary at /usr/local/lib/weir-under-test. Nothing on this machine changes.
#
#   boot.sh WEIR_BINARY COMMAND      prints what COMMAND prints; the exit code is that of COMMAND
#
# Needs root, overlayfs, and systemd-nspawn (Debian: systemd-container).
set -euo pipefail

binary=$(realpath "$1") command=$2
source=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rmdir "$scratch"' EXIT

# A mount namespace of its own: all mounts below end with it.
unshare --mount --propagation private bash -euo pipefail -c '
source=$1 binary=$2 command=$3 scratch=$4
# nspawn boots systemd only in the unified cgroup hierarchy.
umount -R /sys/fs/cgroup 2>/dev/null || true
mkdir -p /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o size=1g tmpfs "$scratch"
mkdir "$scratch"/{upper,work,root}
root=$scratch/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$root"
mkdir -p "$root/src" "$root/var/log/journal"
touch "$root/usr/local/lib/weir-under-test"

printf "#!/bin/sh\n%s\n" "$command" >"$root/var/under-test.sh"
cat >"$root/etc/systemd/system/under-test.target" <<END
[Unit]
Wants=systemd-journald.service under-test.service
END
# Type=exec, not oneshot: units that the command starts do not wait for the end of this one.
cat >"$root/etc/systemd/system/under-test.service" <<END
[Unit]
DefaultDependencies=no
After=systemd-journald.service
[Service]
ExecStart=/bin/sh -c "/bin/sh /var/under-test.sh; systemctl exit \$\$?"
StandardOutput=append:/var/under-test.out
StandardError=append:/var/under-test.out
END

status=0
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout 300 systemd-nspawn -q -D "$root" --boot --register=no --keep-unit \
    --private-network --console=pipe --machine="weir-test-$$" --bind-ro="$source:/src" \
    --bind-ro="$binary:/usr/local/lib/weir-under-test" \
    systemd.unit=under-test.target systemd.show_status=0 >"$scratch/boot.log" 2>&1 </dev/null || status=$?
if [[ -e $root/var/under-test.out ]]; then
    cat "$root/var/under-test.out"
else
    echo "the container did not run the command; its console:"
    tail -30 "$scratch/boot.log"
    [[ $status -ne 0 ]] || status=1
fi
exit $status
' boot "$source" "$binary" "$command" "$scratch"
