#!/usr/bin/env bash
# Removes the edge agent. Configuration, buffer, token and user stay, so that installing again goes on where it was.
#
#   sudo deploy/uninstall.sh            (also kept as /opt/iot-agent/current/libexec/uninstall.sh)
#   sudo deploy/uninstall.sh --purge    and all its data: points that wait and dead letters are lost
set -euo pipefail

opt=/opt/iot-agent etc=/etc/iot-agent state=/var/lib/iot-agent
unit=/etc/systemd/system/iot-agent.service
purge=no dry=no
for option in "$@"; do
  case $option in
    --purge) purge=yes ;;
    --dry-run) dry=yes ;;
    -h | --help) echo "Usage: uninstall.sh [--purge] [--dry-run]"; exit 0 ;;
    *) echo "error: unknown option $option" >&2; exit 1 ;;
  esac
done
[ "$dry" = yes ] || [ "$(id -u)" = 0 ] || { echo "error: needs root: sudo $0 $*" >&2; exit 1; }
run() {
  if [ "$dry" = yes ]; then printf '  +'; printf ' %q' "$@"; echo; else "$@"; fi
}

if [ -d /run/systemd/system ] && [ -e "$unit" ]; then
  run systemctl disable --quiet --now iot-agent.service
else
  run rm -f /etc/systemd/system/multi-user.target.wants/iot-agent.service
fi
run rm -f "$unit" /usr/local/bin/iot-agent /etc/modules-load.d/iot-agent.conf \
  /etc/udev/rules.d/60-iot-agent-i2c.rules
if [ -d /run/systemd/system ]; then
  run systemctl daemon-reload
  run systemctl reset-failed iot-agent.service 2>/dev/null || true
fi
run rm -rf "$opt"
if [ "$purge" = yes ]; then
  run rm -rf "$etc" /etc/systemd/system/iot-agent.service.d "$state"
  if getent passwd iot-agent >/dev/null; then run userdel iot-agent; fi
fi
if [ "$dry" = yes ]; then
  echo "nothing was changed: this was --dry-run"
elif [ "$purge" = yes ]; then
  echo "iot-agent and all its data are gone. Its registration at the center is not: its administrator can remove it."
else
  echo "iot-agent is gone. $etc and $state (configuration, buffer, token) stay; --purge removes them."
fi
