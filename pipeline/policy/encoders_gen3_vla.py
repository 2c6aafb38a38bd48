"""How ``gen3_vla`` sees: cameras, robot state and task words, each turned into a vector."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.policy.configuration_gen3_vla import QUATERNION_NAMES, Gen3VLAConfig


def random_shift(images: Tensor, pixels: int) -> Tensor:
    """Each image of ``(B, C, H, W)`` moved by its own random -pixels..pixels in both directions.

    Random shifts as in DrQ (Kostrikov et al. 2020), except that the uncovered border keeps the old
    pixels: cheaper than padding, and closer to a real image. Draws from torch's global generator.
    """
    if pixels == 0:
        return images
    height, width = images.shape[-2:]
    shifted = images.clone(memory_format=torch.preserve_format)
    for index, (down, right) in enumerate(torch.randint(-pixels, pixels + 1, (len(images), 2)).tolist()):
        rows, columns = height - abs(down), width - abs(right)
        shifted[index, :, max(down, 0) :, max(right, 0) :][:, :rows, :columns] = images[
            index, :, max(-down, 0) :, max(-right, 0) :
        ][:, :rows, :columns]
    return shifted


def scale_images(images: Tensor, jitter: float) -> Tensor:
    """Images (B, C, H, W), uint8 0..255 or float 0..1, as float in about [-1, 1].

    Each gets its own random contrast (1 ± jitter) and brightness (± jitter). One pass over the pixels.
    """
    # A copy also of floats: whoever gave them may need them again.
    floats = images.to(torch.float32, copy=True)
    gain = 2.0 / (255.0 if images.dtype == torch.uint8 else 1.0)
    if jitter == 0:
        return floats.mul_(gain).sub_(1.0)
    contrast, brightness = (torch.rand(2, len(images), 1, 1, 1, device=images.device) * 2 - 1) * jitter
    return floats.mul_(gain * (1 + contrast)).add_(brightness - 1 - contrast)


def augmented(images: Tensor, config: Gen3VLAConfig, *, training: bool) -> Tensor:
    """Images (B, 3, H, W) as float in about [-1, 1], shifted and jittered while ``training``."""
    if not training:
        return scale_images(images, 0.0)
    return scale_images(random_shift(images, config.random_shift), config.color_jitter)


class CameraEncoder(nn.Module):
    """One camera's image to ``(B, feature_size)``: patches, two convolutions, two read-outs.

    The task's text scales and shifts the last feature map (FiLM), so that the network can look for the
    cube that is named. Read-outs: the mean position of each of some soft keypoints, which is precise to
    a fraction of a cell, and a flattened map of a few channels, which learns fast.
    """

    grid: Tensor

    def __init__(self, config: Gen3VLAConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        first, second, third = config.vision_channels
        patch = config.patch_size
        self.patches = nn.Conv2d(3, first, patch, patch)
        self.conv1 = nn.Conv2d(first, second, 3, 2, 1)
        self.conv2 = nn.Conv2d(second, third, 3, 1, 1)
        self.film = nn.Linear(config.word_width, 2 * third)
        self.keypoints = nn.Conv2d(third, config.keypoints, 1)
        self.map = nn.Conv2d(third, config.map_channels, 1)
        rows, columns = ((size // patch + 1) // 2 for size in image_size)
        grid = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
        self.register_buffer("grid", torch.stack(grid).reshape(2, -1), persistent=False)
        self.feature_size = 2 * config.keypoints + config.map_channels * rows * columns

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """``images`` (B, 3, H, W) in [-1, 1], ``text`` (B, word_width)."""
        hidden = self.feature_map(images, text)
        attention = self.keypoints(hidden).flatten(2).softmax(-1)
        points = attention @ self.grid.T
        return torch.cat([points.flatten(1), self.map(hidden).flatten(1)], dim=1)

    def feature_map(self, images: Tensor, text: Tensor) -> Tensor:
        """The last feature map (B, channels, rows, columns), in which the text is."""
        hidden = F.relu(self.conv1(F.relu(self.patches(images))))
        scale, shift = self.film(text)[:, :, None, None].chunk(2, dim=1)
        return F.relu(self.conv2(hidden) * (1 + scale) + shift)


class TextEncoder(nn.Module):
    """Hashed words (B, max_words) int64 to (B, word_width); word order matters ("red on blue")."""

    def __init__(self, config: Gen3VLAConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.word_buckets, config.word_width)
        self.positions = nn.Parameter(torch.randn(config.max_words, config.word_width))
        self.mix = nn.Linear(config.word_width, config.word_width)
        self.norm = nn.LayerNorm(config.word_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Padding (0) does not count; a text with no words gives the norm of zero."""
        return self.summary(self.each_word(tokens), tokens)

    def each_word(self, tokens: Tensor) -> Tensor:
        """Every word by itself, (B, max_words, word_width)."""
        return F.relu(self.mix(self.words(tokens) + self.positions))

    def summary(self, words: Tensor, tokens: Tensor) -> Tensor:
        """All words of :meth:`each_word` as one vector (B, word_width)."""
        return self.norm((words * (tokens != 0)[..., None]).sum(1))


class StateEncoder(nn.Module):
    """The named components of ``observation.state`` as numbers of about unit size.

    Tool coordinates (m) are multiplied by 5, joint angles (rad) become sine and cosine, the tool's
    quaternion becomes the first two columns of its rotation matrix (Zhou et al. 2019), which is the same
    for q and -q, and the gripper's 0..1 becomes -1..1.
    """

    def __init__(self, config: Gen3VLAConfig) -> None:
        super().__init__()
        chosen, index = config.state_components, config.state_names.index
        self.lengths = [index(n) for n in chosen if n in ("tool.x", "tool.y", "tool.z")]
        self.angles = [index(n) for n in chosen if n.startswith("joint_") and n.endswith(".pos")]
        self.quaternion = [index(n) for n in QUATERNION_NAMES] if QUATERNION_NAMES[0] in chosen else []
        self.fractions = [index(n) for n in chosen if n == "gripper.pos"]
        known = len(self.lengths) + len(self.angles) + len(self.quaternion) + len(self.fractions)
        if known != len(chosen):
            raise ValueError(f"state_components {chosen} holds names that gen3_vla cannot scale")
        self.feature_size = (
            len(self.lengths) + 2 * len(self.angles) + 6 * bool(self.quaternion) + len(self.fractions)
        )

    def forward(self, state: Tensor) -> Tensor:
        """``state`` (B, len(state_names)) in SI units to (B, feature_size)."""
        parts = [state[:, self.lengths] * 5.0, state[:, self.fractions] * 2.0 - 1.0]
        angles = state[:, self.angles]
        parts += [angles.sin(), angles.cos()]
        if self.quaternion:
            parts.append(rotation_columns(state[:, self.quaternion]))
        return torch.cat(parts, dim=1)


def rotation_columns(quaternion: Tensor) -> Tensor:
    """The first two columns (B, 6) of the rotation matrices of unit quaternions (B, 4), w x y z."""
    w, x, y, z = F.normalize(quaternion, dim=1).unbind(1)
    first = [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]
    second = [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)]
    return torch.stack(first + second, dim=1)
