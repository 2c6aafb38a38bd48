"""What must be there before a value model is trained, checked before anything is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import InputError
from pipeline.label_snapshot import Snapshot
from workflows.gpu_share import require_workers
from workflows.local_ray import available_cpus
from workflows.settings import ValueSettings


def require_outcomes(snapshot: Snapshot, folds: int) -> Counter[str]:
    """How many episodes ended in ``success`` and in ``failure``, of those that can be learned from.

    Raises ``InputError`` where one of the two is missing, or so rare that the models of some fold would
    never see it.
    """
    from workflows.snapshot_table import snapshot_outcomes

    labels = {row.episode_id: row.outcome for row in snapshot.rows}
    truncated = [row.episode_id for row in snapshot.rows if row.truncated]
    found = Counter(outcome for outcome in snapshot_outcomes(snapshot.rows).values() if outcome is not None)
    unseen = sum(labels[episode_id] is not None for episode_id in truncated)
    but = f" ({unseen} labelled ones were cut off before their end and do not count)" if unseen else ""
    if not found:
        raise InputError(
            f"none of the {len(labels)} episodes is labelled success or failure{but}: label some with "
            "'recap label'"
        )
    for outcome in ("success", "failure"):
        if not found[outcome]:
            raise InputError(
                f"no episode is labelled {outcome}{but}: a value model needs successes and failures; label "
                "some with 'recap label'"
            )
        if found[outcome] < folds:
            number = f"{found[outcome]} episode{'s' if found[outcome] > 1 else ''}"
            raise InputError(
                f"{number} labelled {outcome}{but} for {folds} folds, each of which some models do not see: "
                f"label {folds} or more as {outcome}, or use fewer folds"
            )
    return found


def require_backbone(value: ValueSettings) -> None:
    """Raises ``InputError`` where the backbone is no folder and may not be fetched; loads nothing for it."""
    if value.network == "vlm" and not value.allow_download and not Path(value.backbone).is_dir():
        raise InputError(
            f"there is no folder {value.backbone!r}: give the folder of a downloaded checkpoint, or, where "
            "this is an id on the Hugging Face Hub, use --allow-download (allow_download = true in "
            "recap.toml)"
        )


def penalty_warning(penalty: float | Mapping[str, float]) -> str | None:
    """A line on a failure penalty that does not put failures below successes; ``None`` where it does."""
    least = min(penalty.values(), default=1.0) if isinstance(penalty, Mapping) else penalty
    if least >= 1:
        return None
    return (
        f"warning: failure_penalty is {least:g}, below 1: frames of a failure may be worth more than frames "
        "of a slow success; set it to 1 or more in [value] of recap.toml and train again"
    )


def require_device(value: ValueSettings, cluster: Mapping[str, float] | None = None) -> None:
    """Raises ``InputError`` where the device or the cores that training asks for are not there.

    ``cluster``: what the Ray cluster in use has, ``CPU`` and ``GPU``; without one it is this machine's.
    """
    import torch

    try:
        device = torch.device(value.device)
    except RuntimeError:
        raise InputError(f"there is no device {value.device!r}: use cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"value models are trained on cpu or cuda, not on {value.device!r}")
    if cluster is None:
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        there = {"CPU": available_cpus(), "GPU": gpus}
    else:
        there = {kind: int(cluster.get(kind, 0)) for kind in ("CPU", "GPU")}
    if device.type == "cuda" and (device.index or 0) >= there["GPU"]:
        raise InputError(
            f"the device {value.device!r} is not there, {there['GPU']} GPUs were found: use --device cpu, or "
            "see 'recap doctor'"
        )
    require_workers(value.device, value.workers, there)
