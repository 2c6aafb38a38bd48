"""Chooses how MuJoCo draws without a screen: EGL where it works, else OSMesa.

Call :func:`choose_backend` before ``mujoco`` is first imported; MuJoCo reads ``MUJOCO_GL`` then.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys

from pipeline.errors import InputError

_EGL_PLATFORM_DEVICE = 0x313F  # EGL_PLATFORM_DEVICE_EXT, from the EXT_platform_device registry entry
PACKAGES = "libegl1 libgl1-mesa-dri (or libosmesa6)"


def choose_backend() -> str:
    """Sets ``MUJOCO_GL`` (unless it is set) and keeps software rendering on the calling thread.

    Returns the backend's name: ``egl`` or ``osmesa``; on other systems than Linux, or where the user
    wants a screen (``glfw``), whatever ``MUJOCO_GL`` holds. Raises :class:`InputError` where the
    library does not work, naming the Debian packages to install.
    """
    # llvmpipe would start a thread per core and hand over small images: slower than not to.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if sys.platform != "linux" or chosen not in ("", *_WORKS):
        return chosen
    for name in (chosen,) if chosen else tuple(_WORKS):
        if _WORKS[name]():
            os.environ["MUJOCO_GL"] = name
            return name
    raise InputError(
        f"simulation cannot draw its cameras: no working {chosen or 'egl or osmesa'} library; "
        f"run: apt-get install {PACKAGES}"
    )


def _egl_works() -> bool:
    """Whether EGL is installed and at least one of its devices starts.

    The library alone is not enough: without a driver (Debian's libgl1-mesa-dri) it has no device.
    """
    egl = _library("EGL", "libEGL.so.1")
    if egl is None:
        return False
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    query_address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    display_address = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query_address or not display_address:
        return False
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(query_address)
    get_display = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)(
        display_address
    )
    devices = (ctypes.c_void_p * 16)()
    count = ctypes.c_int(0)
    if not query(len(devices), ctypes.byref(devices), ctypes.byref(count)):
        return False
    egl.eglInitialize.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    for device in devices[: count.value]:
        display = get_display(_EGL_PLATFORM_DEVICE, device, None)
        if display and egl.eglInitialize(display, None, None):
            return True  # left initialised: EGL hands MuJoCo this same display
    return False


def _library(name: str, *sonames: str) -> ctypes.CDLL | None:
    for candidate in (*sonames, ctypes.util.find_library(name)):
        if candidate:
            try:
                return ctypes.CDLL(candidate)
            except OSError:
                continue
    return None


def _osmesa_works() -> bool:
    return _library("OSMesa", "libOSMesa.so.8", "libOSMesa.so.6") is not None


_WORKS = {"egl": _egl_works, "osmesa": _osmesa_works}  # in order of preference
