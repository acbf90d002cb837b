#!/usr/bin/env bash
# Install skrd4ad as a service, update it, go back to the version before, or remove it.
#
#   sudo deploy/install.sh install      (make install)    also the way to update
#   sudo deploy/install.sh rollback     the version before, at once
#   sudo deploy/install.sh uninstall    (make uninstall)  leaves configuration and data
#
# Each version has a folder of its own below PREFIX/releases; PREFIX/current points to the one in
# use and is switched in one step, so that a failed update leaves the old version untouched.
#
# Variables: PREFIX=/opt/skrd4ad  ETC=/etc/skrd4ad  UNITS=/etc/systemd/system  PYTHON=python3
#   EXTRAS=bridges        extras of pyproject.toml, with commas
#   SYSTEM_SITE=1         see the system's Python packages (Jetson: JetPack's TensorRT and OpenCV)
#   PIP_FLAGS="..."       more for pip, e.g. "--no-index --find-links wheels" without a network
#   NO_SYSTEM=1           no user, no systemctl: for images, packages and tests
set -euo pipefail

PREFIX=${PREFIX:-/opt/skrd4ad}
ETC=${ETC:-/etc/skrd4ad}
UNITS=${UNITS:-/etc/systemd/system}
PYTHON=${PYTHON:-python3}
EXTRAS=${EXTRAS:-}
SYSTEM_SITE=${SYSTEM_SITE:-}
PIP_FLAGS=${PIP_FLAGS:-}
NO_SYSTEM=${NO_SYSTEM:-}
KEEP_RELEASES=3
UNIT_FILES="skrd4ad@.service skrd4ad-serve@.service skrd4ad.slice"

say() { echo "skrd4ad: $*"; }
fail() {
  echo "error: $1" >&2
  [ $# -lt 2 ] || echo "try:   $2" >&2
  exit 2
}

need_root() {
  [ -n "$NO_SYSTEM" ] || [ "$(id -u)" = 0 ] || fail "this needs root" "sudo make install"
}

running_lines() {
  systemctl list-units --plain --no-legend --state=active 'skrd4ad@*' 'skrd4ad-serve@*' \
    | awk '{print $1}'
}

switch_to() { # the folder of a release
  ln -sfn "$1" "$PREFIX/.next" # one of an update that was cut off may be there
  mv -T "$PREFIX/.next" "$PREFIX/current"
}

tell_restart() {
  [ -z "$NO_SYSTEM" ] || return 0
  systemctl daemon-reload
  local lines
  lines=$(running_lines | xargs)
  [ -z "$lines" ] || say "still running the version before: systemctl restart $lines"
}

install() {
  need_root
  cd "$(dirname "$0")/.."
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
    || fail "$PYTHON is older than Python 3.10" "PYTHON=python3.11 make install"
  "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null \
    || fail "this Python has no venv module" "apt install python3-venv"
  local source release
  source=$(mktemp -d)
  release="$PREFIX/releases/$(date -u +%Y%m%dT%H%M%S)-$$"
  # shellcheck disable=SC2064  # both are known now
  trap "rm -rf '$source' '$release'" EXIT
  # pip builds in the folder it is given; the checkout stays as it is.
  tar -c --exclude=./.git --exclude='./.venv*' --exclude=./demo --exclude=./runs \
    --exclude=./.proof --exclude=./build --exclude='*.egg-info' --exclude=__pycache__ \
    --exclude='./engine/_resize*' . \
    | tar -x -C "$source"
  mkdir -p "$PREFIX/releases"
  "$PYTHON" -m venv ${SYSTEM_SITE:+--system-site-packages} "$release"
  # shellcheck disable=SC2086  # flags, separated on purpose
  "$release/bin/python" -m pip install --quiet --disable-pip-version-check $PIP_FLAGS \
    "$source${EXTRAS:+[$EXTRAS]}"
  cp -r docs "$release/docs"
  "$release/bin/skrd4ad" --version >/dev/null || fail "the installed program does not start"
  if [ -z "$NO_SYSTEM" ]; then
    id skrd4ad >/dev/null 2>&1 \
      || useradd --system --home-dir /var/lib/skrd4ad --shell /usr/sbin/nologin skrd4ad
    mkdir -p "$ETC" /var/lib/skrd4ad
    chown root:skrd4ad "$ETC" && chmod 0750 "$ETC"
    chown skrd4ad:skrd4ad /var/lib/skrd4ad && chmod 0750 /var/lib/skrd4ad
  fi
  mkdir -p "$ETC" "$UNITS"
  if [ ! -e "$ETC/line1.yaml" ]; then
    cp configs/station.yaml "$ETC/line1.yaml"
    chmod 0640 "$ETC/line1.yaml"
    [ -n "$NO_SYSTEM" ] || chown root:skrd4ad "$ETC/line1.yaml"
    say "$ETC/line1.yaml is a station file to start from"
  fi
  for unit in $UNIT_FILES; do
    sed "s|@PREFIX@|$PREFIX|g; s|/etc/skrd4ad/|$ETC/|g" "deploy/$unit" >"$UNITS/$unit.new"
    mv "$UNITS/$unit.new" "$UNITS/$unit"
  done
  switch_to "$release"
  trap "rm -rf '$source'" EXIT
  forget_old
  say "$("$PREFIX/current/bin/skrd4ad" --version | head -1) is installed in $release"
  tell_restart
  say "next: edit $ETC/line1.yaml, then: systemctl enable --now skrd4ad@line1"
}

forget_old() { # all but the newest few; never the one in use
  local current old
  current=$(readlink "$PREFIX/current")
  for old in $(ls -1d "$PREFIX"/releases/* | head -n -"$KEEP_RELEASES"); do
    [ "$old" = "$current" ] || rm -rf "$old"
  done
}

rollback() {
  need_root
  local current before=""
  current=$(readlink "$PREFIX/current") || fail "nothing is installed in $PREFIX" "make install"
  for one in "$PREFIX"/releases/*; do
    [ "$one" != "$current" ] || break
    before=$one
  done
  [ -n "$before" ] || fail "there is no version before $current"
  switch_to "$before"
  say "back at $before"
  tell_restart
}

uninstall() {
  need_root
  if [ -z "$NO_SYSTEM" ]; then
    for unit in $(running_lines); do systemctl disable --now "$unit"; done
  fi
  for unit in $UNIT_FILES; do rm -f "$UNITS/$unit"; done
  rm -rf "${PREFIX:?}/releases" "$PREFIX/current"
  rmdir --ignore-fail-on-non-empty "$PREFIX"
  [ -n "$NO_SYSTEM" ] || systemctl daemon-reload
  say "removed; kept are $ETC, /var/lib/skrd4ad and the user skrd4ad:"
  say "  rm -r $ETC /var/lib/skrd4ad; userdel skrd4ad"
}

case "${1:-}" in
  install | rollback | uninstall) "$1" ;;
  *) fail "which of install, rollback, uninstall?" "deploy/install.sh install" ;;
esac
