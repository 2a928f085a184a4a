#!/usr/bin/env bash
# Installs or upgrades the edge agent as a system service, on Raspberry Pi OS and Debian (12 and 13, 32 and 64 bit).
#
#   sudo deploy/install.sh --center http://center.local:5000
#   sudo deploy/install.sh --wheelhouse wheelhouse      # offline: made with `make wheelhouse`
#
# Asks nothing. Run it again to upgrade: configuration and buffer are not touched, and if the new version does not
# become ready, the old one is put back. Exit 0: it runs. 1: it does not, and the last lines say why.
set -euo pipefail

usage() {
  cat <<TEXT
Usage: install.sh [options]
  --center URL            the IoT Center to register with (only where there is no agent.toml yet)
  --device-id ID          the device's id (default: derived from the board)
  --config FILE           take this agent.toml (only where there is none yet)
  --sensor NAME           install what this sensor's driver needs (bme280, bmp280, bme680, sht4x, scd4x, aht20, mcp9808,
                          veml7700, ds18b20), and take it for the agent.toml that is made here; may be given several
                          times. What an agent.toml names is installed without being asked for
  --package PACKAGE       install this beside the agent as well, for a driver of your own or driver = "adafruit": a name, a
                          wheel or a folder; may be given several times. /etc/iot-agent/packages remembers it for
                          upgrades, which begin without what somebody installed by hand
  --enrollment-key FILE   the key for the first registration, copied to /etc/iot-agent
  --wheelhouse DIR        install from these wheels, without a network (default: ./wheelhouse beside deploy, if there)
  --python PROGRAM        which Python, 3.11 or newer (default: python3)
  --ready-timeout SECONDS how long the new version may take to become ready (default: 120)
  --no-i2c                leave I2C as it is
  --no-start              install and enable, do not start; without --center or --config agent.toml is taken from the
                          boot partition at the first start (for building an image)
  --dry-run               print every step, change nothing; needs no root
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_dir=$(dirname "$here")
opt=/opt/iot-agent etc=/etc/iot-agent state=/var/lib/iot-agent
unit=/etc/systemd/system/iot-agent.service
libraries=' bmp280 bme680 sht4x scd4x aht20 mcp9808 veml7700 ' # as in pyproject.toml
center='' device_id='' sensors='' config='' enrollment_key='' wheelhouse='' python=python3
packages=()
ready_timeout=120 i2c=yes start=yes dry=no

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
run() {
  if [ "$dry" = yes ]; then printf '  +'; printf ' %q' "$@"; echo; else "$@"; fi
}
write() { # target mode: its standard input, all of it or nothing
  if [ "$dry" = yes ]; then cat >/dev/null; printf '  + write %s (mode %s)\n' "$1" "$2"; return; fi
  local new="$1.new"
  (umask 077; cat >"$new"); chmod "$2" "$new"; mv "$new" "$1"
}

edits=()
set_key() { # pattern key text: in the sed program `edits`, the first line that matches becomes key = "text"
  local text
  text=$(printf '%s' "$3" | sed 's/[\\&|]/\\&/g')
  edits+=(-e "s|^$1|$2 = \"$text\"|")
}

while [ $# -gt 0 ]; do
  case $1 in
    --center | --device-id | --config | --enrollment-key | --wheelhouse | --python | --ready-timeout)
      [ $# -ge 2 ] || fail "$1 needs a value"
      name=${1#--}; name=${name//-/_}; printf -v "$name" '%s' "$2"; shift ;;
    --sensor)
      [ $# -ge 2 ] || fail "$1 needs a value"
      case "$libraries bme280 ds18b20 " in *" $2 "*) ;; *) fail "--sensor $2: there are bme280$libraries""ds18b20" ;; esac
      sensors="$sensors $2"; shift ;;
    --package)
      [ $# -ge 2 ] || fail "$1 needs a value"
      case $2 in '' | -* | *[[:space:]]*) fail "--package $2: a name, a wheel or a folder, without spaces" ;; esac
      if [ -e "$2" ]; then packages+=("$(realpath "$2")"); else packages+=("$2"); fi
      shift ;;
    --no-i2c) i2c=no ;;
    --no-start) start=no ;;
    --dry-run) dry=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown option $1" ;;
  esac
  shift
done

# --- What must be there -------------------------------------------------------------------------------------------
[ "$dry" = yes ] || [ "$(id -u)" = 0 ] || fail "needs root: sudo $0 …"
[ ! -e /usr/lib/systemd/system/iot-agent.service ] ||
  fail "the Debian package iot-edge-agent is installed: upgrade it with apt-get install ./iot-edge-agent_….deb"
for file in "$config" "$enrollment_key"; do
  [ -z "$file" ] || [ -r "$file" ] || fail "$file cannot be read"
  [ -z "$file" ] || { [ -f "$file" ] && [ -s "$file" ]; } || fail "$file is empty, or no file"
done
case $center in '' | http://?* | https://?*) ;; *) fail "--center $center: must be a URL like http://center.local:5000" ;; esac
case $center in *[\"\\[:space:][:cntrl:]]*) fail "--center: no quotes or spaces in a URL" ;; esac
case $device_id in *[!A-Za-z0-9._-]*) fail "--device-id $device_id: only A-Z a-z 0-9 . _ -" ;; esac
case $ready_timeout in '' | *[!0-9]*) fail "--ready-timeout $ready_timeout: must be whole seconds" ;; esac
[ -n "$wheelhouse" ] || [ ! -d "$source_dir/wheelhouse" ] || wheelhouse=$source_dir/wheelhouse
if [ -n "$wheelhouse" ]; then
  compgen -G "$wheelhouse/iot_edge_agent-*.whl" >/dev/null || fail "no iot_edge_agent wheel in $wheelhouse: make wheelhouse"
  wheelhouse=$(cd "$wheelhouse" && pwd)
else
  [ -f "$source_dir/pyproject.toml" ] || fail "$source_dir holds no pyproject.toml, and there is no --wheelhouse"
fi
command -v "$python" >/dev/null || fail "no $python: apt-get install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$("$python" --version) is too old: 3.11 or newer is needed (Raspberry Pi OS Bookworm or later)"
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  say "python3-venv is missing: installing it"
  run apt-get install -y --no-install-recommends python3-venv ||
    fail "python3-venv could not be installed: with a network, apt-get update && apt-get install python3-venv"
fi
free_kb=$(df -Pk "$(dirname "$opt")" | awk 'NR == 2 { print $4 }')
[ "$free_kb" -ge 200000 ] || fail "only $((free_kb / 1024)) MB free on $(dirname "$opt"): 200 MB are needed"
systemd_runs=no
[ ! -d /run/systemd/system ] || systemd_runs=yes
[ "$systemd_runs" = yes ] || { start=no; warn "systemd does not run here: the agent is installed and enabled, not started"; }

# --- I2C ----------------------------------------------------------------------------------------------------------
enable_i2c() {
  compgen -G '/dev/i2c-*' >/dev/null && return
  if command -v raspi-config >/dev/null; then
    if [ "$(raspi-config nonint get_i2c)" != 0 ]; then
      local boot=/boot/firmware
      [ -d "$boot" ] || boot=/boot
      if findmnt -no OPTIONS --target "$boot" | tr , '\n' | grep -qx ro; then
        warn "I2C is off and $boot is read-only: mount -o remount,rw $boot, then run this again"
        return
      fi
      say "I2C is off: switching it on (no reboot needed)"
      run raspi-config nonint do_i2c 0 || warn "raspi-config could not switch I2C on: sudo raspi-config, Interface Options"
    fi
  else
    run modprobe i2c-dev 2>/dev/null || true
    if [ "$dry" = no ] && ! compgen -G '/dev/i2c-*' >/dev/null; then
      warn "no /dev/i2c-*: this board needs I2C switched on, for example by an overlay; the agent starts without"
    fi
    [ ! -d /etc/modules-load.d ] || [ -e /etc/modules-load.d/iot-agent.conf ] ||
      echo i2c-dev | write /etc/modules-load.d/iot-agent.conf 644
  fi
}
enable_one_wire() {
  [ ! -d /sys/bus/w1/devices ] || return 0
  if command -v raspi-config >/dev/null; then
    run raspi-config nonint do_onewire 0 || warn "raspi-config could not switch one-wire on: dtoverlay=w1-gpio in config.txt"
  fi
  warn "one-wire works after a reboot, once dtoverlay=w1-gpio is in config.txt"
}
# --- User and group -----------------------------------------------------------------------------------------------
getent group i2c >/dev/null || run groupadd --system i2c
rules=/etc/udev/rules.d/60-iot-agent-i2c.rules # Raspberry Pi OS has such a rule, plain Debian has not
if [ -d "${rules%/*}" ] && ! grep -qs 'GROUP="i2c"' /usr/lib/udev/rules.d/*.rules /etc/udev/rules.d/*.rules; then
  printf '%s\n' 'SUBSYSTEM=="i2c-dev", GROUP="i2c", MODE="0660"' | write "$rules" 644
  if [ -S /run/udev/control ]; then run udevadm control --reload && run udevadm trigger --subsystem-match=i2c-dev; fi
fi
[ "$i2c" = no ] || enable_i2c
for file in "$etc/agent.toml" "$config" /boot/firmware/iot-agent.toml /boot/iot-agent.toml; do # whichever it will be
  [ ! -r "$file" ] || sensors="$sensors $(sed -nE 's/^[[:space:]]*driver[[:space:]]*=[[:space:]]*["'"'"']([A-Za-z0-9]+)["'"'"'].*/\1/p' "$file" | tr 'A-Z\n' 'a-z ')"
done
extras=''
for sensor in $sensors; do
  case $libraries in *" $sensor "*) case ",$extras," in *",$sensor,"*) ;; *) extras=${extras:+$extras,}$sensor ;; esac ;; esac
done
case " $sensors " in *' ds18b20 '*) enable_one_wire ;; esac
getent passwd iot-agent >/dev/null ||
  run useradd --system --user-group --groups i2c --home-dir "$state" --no-create-home --shell /usr/sbin/nologin iot-agent
id -nG iot-agent 2>/dev/null | tr ' ' '\n' | grep -qx i2c || run usermod --append --groups i2c iot-agent

# --- The new version, beside the old one --------------------------------------------------------------------------
old=''
[ ! -L "$opt/current" ] || old=$(readlink -f "$opt/current")
new=$opt/$(date -u +%Y%m%d-%H%M%S)-$$
keep=no
[ "$dry" = yes ] || trap '[ "$keep" = yes ] || rm -rf "$new"' EXIT
say "Installing into $new"
run install -d -m 755 "$opt"
run "$python" -m venv "$new"
pip=("$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir)
if [ -n "$wheelhouse" ]; then
  wheel=$(find "$wheelhouse" -name 'iot_edge_agent-*.whl' | sort -V | tail -n 1)
  pip+=(--no-index --find-links "$wheelhouse")
else # from a copy: pip would leave files of root in the checkout
  wheel=$new/source
  run mkdir "$wheel"
  run cp -R "$source_dir"/{agent,drivers,center,app.py,iot_edge_agent.py,pyproject.toml,README.md,LICENSE} "$wheel"
fi
constraints=$wheelhouse/constraints.txt
[ -n "$wheelhouse" ] && [ -f "$constraints" ] || constraints=$source_dir/constraints.txt
[ ! -f "$constraints" ] || pip+=(--constraint "$constraints")
given=("${packages[@]}")
[ ! -r "$etc/packages" ] || while read -r package; do
  case " ${given[*]} " in *" $package "*) ;; *) [ -z "$package" ] || packages+=("$package") ;; esac
done <"$etc/packages"
run "${pip[@]}" "${packages[@]}" "$wheel${extras:+[$extras]}" ||
  fail "pip could not install it: without a network, give --wheelhouse; on 32 bit, sysv_ipc needs: apt-get install gcc libc6-dev python3-dev"
run rm -rf "$new/source"
run install -d "$new/libexec"
run install -m 755 "$here/take-boot-config" "$new/libexec/take-boot-config"
run install -m 755 "$here/uninstall.sh" "$new/libexec/uninstall.sh"
run install -m 755 "$here/wrapper" "$new/libexec/wrapper"
sed 's|/opt/iot-agent/|/opt/iot-agent/current/|' "$source_dir/agent/iot-agent.service" | write "$new/iot-agent.service" 644
[ "$dry" = yes ] || "$new/bin/iot-agent" --version

# --- Configuration: never touched where there is one ---------------------------------------------------------------
run install -d -m 755 "$etc"
[ "${#given[@]}" = 0 ] || printf '%s\n' "${packages[@]}" | write "$etc/packages" 644
if [ -n "$enrollment_key" ]; then
  tr -d '\r' <"$enrollment_key" | write "$etc/enrollment.key" 640
  run chgrp iot-agent "$etc/enrollment.key"
fi
if [ -e "$etc/agent.toml" ]; then
  say "$etc/agent.toml is there and stays as it is"
  [ -z "$config$center$device_id" ] || warn "--config, --center and --device-id are not used: edit $etc/agent.toml"
else
  run "$new/libexec/take-boot-config"
  if [ "$start$config$center" = no ]; then
    say "no $etc/agent.toml yet: it is taken from the boot partition when the agent starts"
  elif [ ! -e "$etc/agent.toml" ] || [ -n "$config" ]; then
    [ -z "$center" ] || set_key 'url = "http://center.local:5000"' url "$center"
    read -r sensor others <<<"$sensors"
    [ -z "$sensor" ] || set_key 'driver = "bme280"' driver "$sensor"
    [ -z "$others" ] || [ -n "$config" ] || warn "agent.toml names $sensor alone: sudo iot-agent scan --write puts the others into it"
    [ -z "$device_id" ] || set_key '# id = .*' id "$device_id"
    if [ -e "$etc/enrollment.key" ] || [ -n "$enrollment_key" ]; then
      set_key '# enrollment_key_file = .*' enrollment_key_file "$etc/enrollment.key"
    fi
    if [ -n "$config" ]; then cat "$config"; else sed "${edits[@]:--e;}" "$source_dir/agent/agent.toml.example"; fi |
      write "$etc/agent.toml" 640
    run chgrp iot-agent "$etc/agent.toml"
  fi
fi
if [ "$dry" = no ] && [ -e "$etc/agent.toml" ] && ! "$new/bin/iot-agent" check --config "$etc/agent.toml"; then
  [ -z "$old" ] || fail "the new version does not accept $etc/agent.toml; the old one goes on running"
  fail "mend $etc/agent.toml, then run this again"
fi

# --- Switch over, and back if it does not become ready -------------------------------------------------------------
use() { # version folder: its programs and its unit
  run ln -sfn "$1" "$opt/current.new"
  run mv -T "$opt/current.new" "$opt/current"
  run install -m 644 "$1/iot-agent.service" "$unit"
  run install -m 755 "$1/libexec/wrapper" /usr/local/bin/iot-agent
  if [ "$systemd_runs" = yes ]; then run systemctl daemon-reload; fi
}
becomes_ready() { # within so many seconds
  run systemctl reset-failed iot-agent.service 2>/dev/null || true
  run timeout "$1" systemctl restart iot-agent.service || return 1
  [ "$dry" = no ] || return 0
  sleep 3 # ready, and still there
  [ "$(systemctl show -P ActiveState iot-agent.service)/$(systemctl show -P NRestarts iot-agent.service)" = active/0 ]
}

keep=yes
use "$new"
run systemctl enable --quiet iot-agent.service
if [ "$start" = yes ] && ! becomes_ready "$ready_timeout"; then
  journalctl --unit iot-agent --lines 20 --no-pager --output cat >&2 || true
  if [ -z "$old" ]; then
    fail "iot-agent does not become ready (its last lines are above): sudo iot-agent doctor"
  fi
  warn "the new version does not become ready (its last lines are above): putting $old back"
  systemctl kill --signal=KILL iot-agent.service 2>/dev/null || true # it may hang in its start
  use "$old"
  rm -rf "$new"
  becomes_ready 150 || fail "and the old one does not become ready either: sudo iot-agent doctor"
  fail "the upgrade was taken back: the old version runs as before"
fi

# --- The version before stays, those before it go ------------------------------------------------------------------
for folder in "$opt"/*-*/; do
  folder=${folder%/}
  if [ -d "$folder" ] && [ "$folder" != "$new" ] && [ "$folder" != "$old" ]; then run rm -rf "$folder"; fi
done
if [ "$dry" = yes ]; then
  say "nothing was changed: this was --dry-run"
elif [ "$start" = yes ]; then
  say "iot-agent runs. Look at it with: sudo iot-agent status, sudo iot-agent doctor, journalctl -u iot-agent"
else
  say "iot-agent is installed and starts with the next boot"
fi
