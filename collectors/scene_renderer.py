"""Draws MuJoCo scenes off screen, with one OpenGL context for the whole process.

A second context in a process gave wrong images under OSMesa, and each costs tens of megabytes; so
every simulated robot of a process shares one, at any image size up to the scene's off-screen buffer.
"""

from __future__ import annotations

import importlib
import threading

import mujoco
import numpy as np

from collectors.gen3_scene import CAMERAS_WITHOUT_LINKS, LINK_GROUP
from collectors.gl_backend import PACKAGES, choose_backend
from pipeline.errors import InputError


class SceneRenderer:
    """Renders cameras of any model that looks the same as the one it was made for.

    Use :func:`shared_renderer`. Not for two threads at once; calls from different threads are
    serialised and the context moves to the calling thread.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        """Opens the OpenGL context. Raises :class:`InputError` where that fails."""
        self._lock = threading.Lock()
        self._thread = threading.get_ident()
        self.largest = (int(model.vis.global_.offwidth), int(model.vis.global_.offheight))
        try:
            self._gl = _context_class()(*self.largest)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except (ImportError, RuntimeError, mujoco.FatalError) as error:
            raise InputError(
                f"simulation cannot draw its cameras ({error}); run: apt-get install {PACKAGES}"
            ) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=100)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = False
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._options = mujoco.MjvOption()
        self._perturbation = mujoco.MjvPerturb()

    def draw(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        cameras: list[str],
        size: tuple[int, int],
        sky: bool = False,
    ) -> list[np.ndarray]:
        """Images of ``cameras``, each uint8 (height, width, 3) RGB; ``size`` is (height, width) px.

        The ``sky`` takes a tenth of the time, and cameras that look at the table hardly see it.
        """
        height, width = size
        if width > self.largest[0] or height > self.largest[1]:
            raise InputError(f"image {width}×{height} is larger than {self.largest[0]}×{self.largest[1]}")
        view = mujoco.MjrRect(0, 0, width, height)
        images = []
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = sky
        with self._lock:
            if threading.get_ident() != self._thread:
                self._gl.make_current()
                self._thread = threading.get_ident()
            for name in cameras:
                self._camera.fixedcamid = model.camera(name).id
                self._options.geomgroup[LINK_GROUP] = name not in CAMERAS_WITHOUT_LINKS
                everything = mujoco.mjtCatBit.mjCAT_ALL
                mujoco.mjv_updateScene(
                    model, data, self._options, self._perturbation, self._camera, everything, self._scene
                )
                mujoco.mjr_render(view, self._scene, self._context)
                pixels = np.empty((height, width, 3), dtype=np.uint8)
                mujoco.mjr_readPixels(pixels, None, view, self._context)
                images.append(np.ascontiguousarray(pixels[::-1]))  # OpenGL's first row is the bottom
        return images


def _context_class() -> type:
    """MuJoCo's class for the chosen backend, also where mujoco was imported before it was chosen."""
    backend = choose_backend()
    if backend in ("egl", "osmesa"):
        context: type = importlib.import_module(f"mujoco.{backend}").GLContext
        return context
    screen: type = mujoco.GLContext
    return screen


_SHARED: list[SceneRenderer] = []
_SHARED_LOCK = threading.Lock()


def shared_renderer(model: mujoco.MjModel) -> SceneRenderer:
    """This process's only renderer; made at the first call."""
    with _SHARED_LOCK:
        if not _SHARED:
            _SHARED.append(SceneRenderer(model))
        return _SHARED[0]
