"""Alarms: does something other than the work itself give the outcome away?

A value model that recognises the person, the day, or a mark in the first picture has perfect numbers and
teaches a policy nothing. Here are the measurements; what follows from them is :mod:`value_model.gate`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.episode import Outcome, Source
from pipeline.frame_table import FrameTable
from value_model.discrimination import Contest, contest, known, p_value, pooled_auc
from value_model.gate_report import Association, Probe
from value_model.returns import Outcomes, episode_outcomes

# The first pictures are shrunk to this many cells a side: a cube is one or two, a lamp or a coat several.
PROBE_CELLS = 8
_FOLDS = 5
# Cells that vary by less than this (of 255) vary by the camera's noise.
_PIXEL_NOISE = 2.0
_STATE_NOISE = 1e-3
# Inverse L2 penalty for features of unit length: strong, since there are more cells than episodes.
_INVERSE_PENALTY = 4.0
# So many shuffles that give as much settle that the AUC is chance's.
_SETTLED = 10
_MOST_PROBED = 400


def probe_first_frames(
    table: FrameTable, outcomes: Outcomes, permutations: int, rng: np.random.Generator
) -> tuple[Probe, ...]:
    """Per task: how well a plain classifier guesses the outcome from an episode's first frame alone.

    L2-regularised logistic regression (scikit-learn) on the shrunken first pictures and the state,
    cross-validated by episode; its AUC, and how often outcomes shuffled among the task's episodes give
    as much (Ojala & Garriga 2010, test 1), over at most ``permutations`` shuffles and fewer where the
    answer is plain (Besag & Clifford 1991). Tasks with fewer than five episodes of an outcome are left
    out; of very many episodes 400 are drawn.
    """
    found = np.array([o or "" for o in episode_outcomes(table, outcomes)], dtype=object)
    tasks = np.array(table.tasks, dtype=object)
    probes = []
    for task in dict.fromkeys(table.tasks):
        rows = np.flatnonzero((tasks == task) & (found != ""))
        if len(rows) > _MOST_PROBED:
            rows = np.sort(rng.choice(rows, _MOST_PROBED, replace=False))
        won = found[rows] == Outcome.SUCCESS
        if min(won.sum(), (~won).sum()) < _FOLDS:
            continue
        features = first_frame_features(table, rows)
        auc = _probe_auc(features, won)
        chance = _chance_aucs(features, won, auc, permutations, rng)
        likely = float(chance.mean() + 1.645 * chance.std(ddof=1))
        probes.append(Probe(task, len(rows), auc, likely, p_value(auc, chance)))
    return tuple(probes)


def first_frame_features(table: FrameTable, rows: np.ndarray) -> np.ndarray:
    """What the probe sees of the first frames of the episodes at ``rows``: ``(len(rows), D)`` float64.

    Every camera's picture in 8×8 cells of mean colour, and the state; each column centred and scaled by
    its spread, or by the noise floor where it varies by less; pictures and state then count alike, however
    many columns they are; and all by one number, so that rows have length 1 on average. Rotated onto at
    most ``len(rows)`` axes, which changes nothing for a classifier with an L2 penalty and makes it faster.
    """
    firsts = np.asarray(table.starts)[rows]
    parts = np.array_split(firsts, -(-len(firsts) // 64))
    pictures = np.concatenate([_shrink(table.images(part)) for part in parts])
    blocks = [_scaled(pictures, _PIXEL_NOISE), _scaled(np.asarray(table.state)[firsts], _STATE_NOISE)]
    left, size, _ = np.linalg.svd(np.concatenate(blocks, axis=1), full_matrices=False)
    rotated = left * size
    return rotated / max(1e-12, _row_length(rotated))


def association(
    table: FrameTable,
    values: np.ndarray,
    outcomes: Outcomes,
    factor: str,
    levels: Sequence[str],
    permutations: int,
    rng: np.random.Generator,
) -> Association:
    """How far the outcomes, and what V tells apart, follow ``levels`` (one per episode), within tasks.

    Strength is Cramér's V, √(Σ χ² / Σ n) over the tasks' 2-by-k tables (Cramér 1946, section 21.9); its
    p-value is that of outcomes shuffled within tasks, good for the rarest levels too. V is compared at
    equal ages, see :func:`value_model.discrimination.contest`.
    """
    pairs = contest(table, values, outcomes, same_age=True)
    within = pairs.within(levels)
    of_row = np.unique(np.asarray(levels, dtype=object)[pairs.rows].astype(str), return_inverse=True)[1]
    found = episode_outcomes(table, outcomes)
    counts: dict[str, tuple[int, int]] = {}
    for level, outcome in zip(levels, found, strict=True):
        won, lost = counts.get(str(level), (0, 0))
        counts[str(level)] = (won + (outcome == Outcome.SUCCESS), lost + (outcome == Outcome.FAILURE))
    strength, p = _strength(pairs, of_row, permutations, rng)
    any_within = within.pairs() > 0
    within_p_value = within.p_value(permutations, rng) if any_within else None
    within_drive = _strength(pairs.within(driven_by(table)), of_row, permutations, rng)
    return Association(
        factor=factor,
        strength=strength,
        p_value=p,
        auc_all=known(pairs.auc()[0]),
        auc_within=known(within.auc()[0]) if any_within else None,
        within_p_value=within_p_value,
        pairs_within=within.pairs(),
        counts={level: count for level, count in sorted(counts.items()) if sum(count)},
        rarer_within=within.rarer(),
        strength_within_drive=within_drive[0],
        p_value_within_drive=within_drive[1],
    )


def driven_by(table: FrameTable) -> list[str]:
    """Per episode: "demonstration", or "rollout" where a policy drove for any part of it."""
    own = np.asarray(table.source) != Source.TELEOP
    return [
        "rollout" if own[table.frames_of(i)].any() else "demonstration" for i in range(len(table.episode_ids))
    ]


def _shrink(images: np.ndarray) -> np.ndarray:
    """``(B, cameras, S, S, 3)`` uint8 to the cells' mean colours, ``(B, cameras × cells² × 3)``."""
    side = images.shape[2]
    edges = np.linspace(0, side, min(PROBE_CELLS, side) + 1).astype(np.int64)
    sums = np.add.reduceat(images.astype(np.float64), edges[:-1], axis=2)
    sums = np.add.reduceat(sums, edges[:-1], axis=3)
    area = np.diff(edges)[:, None] * np.diff(edges)[None, :]
    return (sums / area[None, None, :, :, None]).reshape(len(images), -1)


def _scaled(columns: np.ndarray, noise: float) -> np.ndarray:
    centred = np.asarray(columns, dtype=np.float64) - columns.mean(axis=0)
    scaled = centred / np.maximum(columns.std(axis=0), noise)
    # A block of noise alone stays as small as it is.
    return scaled / max(1.0, _row_length(scaled))


def _row_length(columns: np.ndarray) -> float:
    return float(np.sqrt((columns**2).sum(axis=1).mean()))


def _probe_auc(features: np.ndarray, won: np.ndarray) -> float:
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    guessed, fold = np.empty(len(won)), np.empty(len(won), dtype=np.int64)
    # liblinear: the others hand problems this small to a threaded BLAS, which takes longer on a busy machine.
    probe = LogisticRegression(C=_INVERSE_PENALTY, solver="liblinear", tol=1e-3)
    # The same dealing every time: only outcomes are shuffled, so that a difference is theirs.
    dealt = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    with config_context(assume_finite=True, skip_parameter_validation=True):
        for k, (train, test) in enumerate(dealt.split(features, won)):
            guessed[test] = probe.fit(features[train], won[train]).decision_function(features[test])
            fold[test] = k
    # Pairs within a fold only: between folds the classifiers' intercepts differ.
    return float(pooled_auc(guessed, won[None], fold)[0])


def _chance_aucs(
    features: np.ndarray, won: np.ndarray, auc: float, permutations: int, rng: np.random.Generator
) -> np.ndarray:
    chance: list[float] = []
    while len(chance) < permutations and (len(chance) < _SETTLED or sum(c >= auc for c in chance) < _SETTLED):
        chance.append(_probe_auc(features, rng.permutation(won)))
    return np.array(chance)


def _strength(
    pairs: Contest, level: np.ndarray, permutations: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Cramér's V within the strata and its p-value."""
    shuffled = _shuffled_outcomes(pairs, permutations, rng)
    strength = _cramers_v(pairs, level, np.concatenate([pairs.won[None], shuffled]))
    return float(strength[0]), p_value(float(strength[0]), strength[1:])


def _shuffled_outcomes(pairs: Contest, permutations: int, rng: np.random.Generator) -> np.ndarray:
    won = np.repeat(pairs.won[None], permutations, axis=0)
    for k in np.unique(pairs.stratum):
        here = np.flatnonzero(pairs.stratum == k)
        won[:, here] = rng.permuted(won[:, here], axis=1)
    return won


def _cramers_v(pairs: Contest, level: np.ndarray, won: np.ndarray) -> np.ndarray:
    """``(P,)`` from outcomes ``(P, E)`` and the episodes' levels ``(E,)``; 0 where there is no episode.

    Strata of one outcome have no say.
    """
    chi_squared, episodes = np.zeros(len(won)), 0
    for k in np.unique(pairs.stratum):
        here = pairs.stratum == k
        share = pairs.won[here].mean()
        if share in (0, 1):
            continue
        episodes += int(here.sum())
        for found in np.unique(level[here]):
            cell = here & (level == found)
            expected = share * cell.sum()
            chi_squared += (won[:, cell].sum(axis=1) - expected) ** 2 / (expected * (1 - share))
    return np.sqrt(chi_squared / max(1, episodes))
