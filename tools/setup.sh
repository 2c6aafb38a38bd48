#!/usr/bin/env bash
# Prepares this clone: the virtual environment, and the system packages that rendering needs.
#
#   tools/setup.sh python   .venv with Python 3.12 and everything of constraints.txt
#   tools/setup.sh system   off-screen OpenGL for MuJoCo, libusb for RealSense cameras
#   tools/setup.sh browser  a browser, for the labelling app's tests only
#
# `make` runs it and keeps a stamp for each. Nothing outside .venv changes, except that `system`
# installs Debian or Ubuntu packages where it may (root, or sudo without a password); elsewhere it says in
# one line what to install.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=.venv

stop() {
    echo "setup: $*" >&2
    exit 1
}

# Prints a Python 3.12 interpreter, or nothing.
find_python() {
    local pyenv_python=""
    if command -v pyenv >/dev/null 2>&1; then
        pyenv_python="$(pyenv prefix 3.12 2>/dev/null || true)/bin/python3.12"
    fi
    local candidate
    for candidate in "${PYTHON:-}" python3.12 "$pyenv_python" "$HOME"/.pyenv/versions/3.12.*/bin/python3.12 python3 python; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
}

# Runs a command as root: directly, or with sudo when that asks no password. Status 1 when neither is possible.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

# Installs Debian packages; status 1 when this system or this user cannot.
install_packages() {
    command -v apt-get >/dev/null 2>&1 || return 1
    as_root true || return 1
    echo "setup: installing system packages: $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1 || {
        as_root apt-get update >/dev/null 2>&1 &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >/dev/null
    }
}

make_venv() {
    if [ -x "$VENV/bin/python" ] &&
        "$VENV/bin/python" -c 'import pip, sys; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1; then
        return
    fi
    local python
    python="$(find_python)"
    [ -n "$python" ] || stop "needs Python 3.12 (tried PYTHON, python3.12, pyenv, python3): install it, or run make PYTHON=/path/to/python3.12"
    # Debian and Ubuntu ship ensurepip in a package of its own.
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        install_packages python3.12-venv || stop "$python has no venv module: install the package python3.12-venv"
    fi
    echo "setup: creating $VENV with $("$python" --version 2>&1)"
    "$python" -m venv --clear "$VENV"
}

setup_python() {
    make_venv
    echo "setup: installing kinova-recap[dev] (about 6 GB with torch's GPU libraries; some minutes)"
    # Python compiles what is imported when it is; compiling all of it now would take a minute more.
    "$VENV/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]' ||
        stop "pip could not install everything: its last lines say why; run make setup again to go on"
}

# Whether the simulation finds a way to draw off-screen; the code's own choice, so that there is one truth.
can_render() {
    "$VENV/bin/python" -c 'from collectors.gl_backend import choose_backend; choose_backend()' >/dev/null 2>&1
}

has_libusb() {
    [ "$(uname)" = Linux ] || return 0
    "$VENV/bin/python" -c 'import ctypes; ctypes.CDLL("libusb-1.0.so.0")' >/dev/null 2>&1
}

setup_system() {
    if ! has_libusb; then
        install_packages libusb-1.0-0 ||
            echo "setup: RealSense cameras need libusb: install libusb-1.0-0 (Debian, Ubuntu) or libusb1 (Fedora); the simulation does not"
    fi
    if ! can_render; then
        install_packages libegl1 libgl1-mesa-dri || true
        can_render || install_packages libosmesa6 || true
        can_render || stop "MuJoCo cannot draw: install libegl1 and libgl1-mesa-dri, or libosmesa6 (Debian, Ubuntu), mesa-libEGL and mesa-dri-drivers (Fedora), then run make setup"
    fi
}

setup_browser() {
    local name
    for name in chromium chromium-browser google-chrome; do
        if command -v "$name" >/dev/null 2>&1; then return; fi
    done
    install_packages chromium ||
        echo "setup: no browser found: the labelling app's browser tests are skipped; install chromium to run them"
}

case "${1:-}" in
    python) setup_python ;;
    system) setup_system ;;
    browser) setup_browser ;;
    *) stop "usage: tools/setup.sh python|system|browser" ;;
esac
