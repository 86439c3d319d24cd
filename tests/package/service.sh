#!/usr/bin/env bash
# Installs weir in a booted systemd and tests its unit: faults of the configuration, a disk that comes back, reload, stop. Run by
# boot.sh; changes the system that it runs in.
set -euo pipefail

binary=$1
config=/etc/weir/config.toml
data=/var/lib/weir

step() { printf '== %s\n' "$1"; }
fail() {
    printf 'FAILED: %s\n' "$1"
    systemctl show weir -p ActiveState,SubState,Result,NRestarts,ExecMainStatus || true
    journalctl --no-pager --no-hostname -n 60 -u weir || true
    exit 1
}
property() { systemctl show weir --value -p "$1"; }
expect() { [[ $(property "$1") == "$2" ]] || fail "$1 is $(property "$1") and not $2"; }
# Waits for a command to succeed. The number of tries only bounds a run that has failed.
wait_for() {
    local what=$1 tries
    shift
    for ((tries = 0; tries < 600; tries++)); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    fail "$what did not happen"
}
journal() { journalctl --sync && journalctl -u weir --since "@$since" -o "$1"; }
logged() { grep -qF -- "$1" <(journal cat); }
restarted() { (($(property NRestarts) >= $1)); }
ready() { weir health --ready; }
# Messages that were logged before this moment do not count.
mark() { sleep 1; since=$(date +%s); }

step "the data directory is on a file system of its own"
mkdir -p $data
mount -t tmpfs -o size=320m tmpfs $data
since=$(date +%s)

step "the installation starts weir"
# A shorter delay: the number of restarts counts here, not their time.
mkdir -p /etc/systemd/system/weir.service.d
printf '[Service]\nRestartSec=100ms\nRestartMaxDelaySec=200ms\n' >/etc/systemd/system/weir.service.d/delay.conf
/src/systemd/install.sh "$binary" || fail "install.sh"
expect ActiveState active
wait_for "readiness" ready
[[ $(systemctl is-enabled weir) == enabled ]] || fail "weir is not enabled"

step "only weir's user can look into the data directory"
weir simulate --messages 5 --devices 2 --interval 1ms >/dev/null || fail "simulate"
open=$(find $data -mindepth 1 \( -type d ! -perm 0700 -o -type f ! -perm 0600 \) -printf '%m %p\n')
[[ -z $open ]] || fail "others may look into $open"
[[ $(stat -c '%U %a' $data) == "weir 700" ]] || fail "$data is $(stat -c '%U %a' $data)"

step "a reload takes effect, and a wrong one changes nothing"
cp $config /tmp/good.toml
sed -i 's/^format = "journald"/format = "journald"\nlevel = "debug"/' $config
systemctl reload weir || fail "the reload"
logged "took effect: log.level" || fail "the reload was not logged"
echo 'wrong = 1' >>$config
systemctl reload weir || fail "the reload"
logged "there is no such key" || fail "the wrong reload was not logged"
expect ActiveState active
cp /tmp/good.toml $config

step "a stop takes a checkpoint"
mark
systemctl stop weir
expect Result success
systemctl start weir || fail "the start after a stop"
logged "ready" || fail "weir did not log that it is ready"
grep -qF '"F_REPLAYED":"0"' <(journal json) || fail "the journal was replayed after an orderly stop"

step "weir comes back after kill -9"
systemctl kill --signal=KILL weir
wait_for "the restart" restarted 1
wait_for "readiness" ready
systemctl stop weir
systemctl reset-failed weir

step "a wrong config does not restart weir, and does not block the start after it was mended"
mark
sed -i 's/^format = .*/format = "xml"/; s/^# \[mqtt.auth\]/[mqtt.auth]/; s/^# users = .*/users = "\/etc\/weir\/users"/' $config
# More often than any limit of systemd for starts allows.
for _ in $(seq 12); do
    if systemctl start weir 2>/dev/null; then fail "weir started with a wrong config"; fi
    expect ActiveState failed
    expect ExecMainStatus 78
    expect NRestarts 0
done
logged 'log.format: "xml"' || fail "the wrong key is not in the journal"
logged "/etc/weir/users" || fail "the missing users file is not in the same run's output"
cp /tmp/good.toml $config
systemctl start weir || fail "the start with the mended config"
wait_for "readiness" ready
systemctl stop weir

step "weir check meets the faults that weir's user meets"
printf '\n[mqtt.auth]\nusers = "/etc/weir/users"\n' >>$config
weir passwd add pump-7 --generate --file /etc/weir/users >/dev/null 2>&1 || fail "passwd"
[[ $(stat -c '%U %a' /etc/weir/users) == "root 600" ]] || fail "the users file is not root's alone"
status=0
said=$(weir check --config $config 2>&1) || status=$?
[[ $status == 78 && $said == *"/etc/weir/users"*"Permission denied"* ]] || fail "as the data directory's owner: $status $said"
status=0
said=$(weir check --config $config --user weir 2>&1) || status=$?
[[ $status == 78 && $said == *"/etc/weir/users"*"Permission denied"* ]] || fail "as weir: $status $said"
weir check --config $config --user root >/dev/null 2>&1 || fail "root can read the file"
if systemctl start weir 2>/dev/null; then fail "weir read a file that its user cannot read"; fi
expect ExecMainStatus 78
chown weir: /etc/weir/users
weir check --config $config --user weir || fail "the check after the mend"
systemctl start weir || fail "the start after the mend"
wait_for "readiness" ready
systemctl stop weir

step "weir comes back by itself when the disk does"
dd if=/dev/zero of=$data/filler bs=64k status=none 2>/dev/null || true
dd if=/dev/zero of=$data/filler2 bs=1 status=none 2>/dev/null || true
mark
systemctl start --no-block weir
wait_for "more restarts than systemd's usual limit" restarted 12
logged "status=74" || fail "weir did not end with 74"
logged "No space left" || logged "disk is full" || fail "the reason is not in the journal"
rm $data/filler $data/filler2
wait_for "readiness" ready
expect ActiveState active

step "weir stops with the system"
systemctl stop weir
expect Result success
echo "all steps passed"
