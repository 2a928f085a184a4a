#!/usr/bin/env bash
# Installs or upgrades the edge agent from this checkout: makes the Debian package of it for this machine alone, and
# installs that. On Raspberry Pi OS and Debian (12 and 13, 32 and 64 bit). Everything else is the package's: deploy/README.md
#
#   sudo deploy/install.sh && sudo iot-agent init
#   sudo deploy/install.sh --wheelhouse wheelhouse      # offline: made with `make wheelhouse`
#
# Exit 0: it is installed, and runs where it has a configuration. 1: it does not, and the last lines say why; the version
# before, if there was one, runs on.
set -euo pipefail

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
wheelhouse='' dry=no

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case $1 in
    --wheelhouse) [ $# -ge 2 ] || fail "$1 needs a folder"; wheelhouse=$2; shift ;;
    --dry-run) dry=yes ;;
    -h | --help)
      echo "Usage: install.sh [--wheelhouse FOLDER] [--dry-run]
  --wheelhouse FOLDER  take what it depends on from these wheels, without a network (default: wheelhouse in the
                       checkout, if there)
  --dry-run            look whether it can be installed, change nothing; needs no root"
      exit 0 ;;
    *) fail "unknown option $1: there are --wheelhouse and --dry-run; what the agent measures and where to is asked by sudo iot-agent init" ;;
  esac
  shift
done

# --- What must be there ---
[ "$dry" = yes ] || [ "$(id -u)" = 0 ] || fail "needs root: sudo $0"
command -v dpkg-deb >/dev/null ||
  fail "there is no dpkg-deb: this is for Debian and Raspberry Pi OS; elsewhere pipx install $source_dir, then iot-agent init"
[ -n "$wheelhouse" ] || [ ! -d "$source_dir/wheelhouse" ] || wheelhouse=$source_dir/wheelhouse
[ -z "$wheelhouse" ] || compgen -G "$wheelhouse/iot_edge_agent-*.whl" >/dev/null ||
  fail "no iot_edge_agent wheel in $wheelhouse: make wheelhouse"
[ -z "$wheelhouse" ] || cmp -s "$wheelhouse/constraints.txt" "$source_dir/constraints.txt" ||
  fail "$wheelhouse is of another version than this checkout (its constraints.txt is not the same): make wheelhouse again"
[ -x /usr/bin/python3 ] || fail "no /usr/bin/python3: apt-get install python3 python3-venv"
/usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$(/usr/bin/python3 --version) is too old: 3.11 or newer is needed (Raspberry Pi OS Bookworm or later)"
/usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || fail "no python3-venv: apt-get install python3-venv"
for folder in /opt /var/tmp; do
  [ -d "$folder" ] || folder=/ # dpkg takes an empty /opt away
  free_kb=$(df -Pk "$folder" | awk 'NR == 2 { print $4 }')
  [ "$free_kb" -ge 200000 ] || fail "only $((free_kb / 1024)) MB free on $folder: 200 MB are needed"
done
if [ "$dry" = yes ]; then echo "it can be installed; nothing was changed: this was --dry-run"; exit 0; fi

# --- The package, of what pip chooses ---
work=$(mktemp -d /var/tmp/iot-agent.XXXXXX)
trap 'rm -rf "$work"' EXIT
umask 022
target=$work/stage/opt/iot-agent/lib/$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')/site-packages
mkdir -p "$target"
/usr/bin/python3 -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-compile --target "$target")
if [ -n "$wheelhouse" ]; then
  pip+=(--no-index --find-links "$wheelhouse" "iot-edge-agent[sensors,mqtt]")
else # from a copy: pip would leave files of root in the checkout
  mkdir "$work/source"
  cp -R "$source_dir"/{agent,drivers,center,app.py,iot_edge_agent.py,pyproject.toml,README.md,LICENSE} "$work/source"
  pip+=(--use-pep517 "$work/source[sensors,mqtt]") # Debian 12's pip builds by `wheel` otherwise, which is not there
fi
"${pip[@]}" --constraint "$source_dir/constraints.txt" ||
  fail "pip could not get what it depends on: without a network, give a --wheelhouse made with the same Python and processor; on 32 bit, sysv_ipc needs: apt-get install gcc libc6-dev python3-dev"
rm -rf "${target:?}/bin" # pip's commands; the package has its own
"$source_dir/deploy/debian/package" iot-agent "$(dpkg --print-architecture)" "$work/stage" "$work" -Znone
dpkg --install --force-confold "$work"/iot-edge-agent_*.deb
