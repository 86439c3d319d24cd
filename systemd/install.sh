#!/bin/sh
# Installs weir as a systemd service. Run it again to upgrade: an existing /etc/weir/config.toml stays as it is.
#
#   install.sh [BINARY]        default: target/release/weir of this source tree
#
# DESTDIR=… installs below another root and does not touch the running system.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
binary=${1:-$here/../target/release/weir}
root=${DESTDIR:-}

if [ ! -x "$binary" ]; then
    echo "install.sh: $binary is not there; build it with: cargo build --release" >&2
    exit 1
fi
if [ -z "$root" ] && [ "$(id -u)" -ne 0 ]; then
    echo "install.sh: run this as root, or set DESTDIR" >&2
    exit 1
fi

install -D -m 0755 "$binary" "$root/usr/bin/weir"
install -D -m 0644 "$here/weir.service" "$root/usr/lib/systemd/system/weir.service"
install -D -m 0644 "$here/weir.sysusers" "$root/usr/lib/sysusers.d/weir.conf"
install -D -m 0644 "$here/../config.toml" "$root/usr/share/doc/weir/config.toml"
if [ -e "$root/etc/weir/config.toml" ]; then
    echo "kept $root/etc/weir/config.toml"
else
    install -D -m 0644 "$here/config.toml" "$root/etc/weir/config.toml"
fi
[ -z "$root" ] || exit 0

systemd-sysusers /usr/lib/sysusers.d/weir.conf
[ -e /var/lib/weir ] || install -d -o weir -g weir -m 0700 /var/lib/weir
/usr/bin/weir check --config /etc/weir/config.toml --user weir
systemctl daemon-reload
systemctl enable weir.service
systemctl restart weir.service
systemctl --no-pager --lines=0 status weir.service
