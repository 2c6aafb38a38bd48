"""The names of what the loop's steps leave in their folders."""

CHECKPOINT = "checkpoint"
VALUES_FILE = "values.npz"
# In what unit the values are (seconds, by task), and the penalty that goes with them.
UNITS_FILE = "units.json"
PENALTY_FILE = "failure_penalty.json"
ADVANTAGES_FILE = "advantages.npz"
THRESHOLDS_FILE = "thresholds.json"
QUALITY_FILE = "value_quality.json"
GATE_FILE = "gate.json"
# The name of the step that leaves it; before there was one, advantages did.
JUDGEMENT = "judge_values"
DATASET = "dataset"
EVALUATION_FILE = "evaluation.json"
TRAINING_FILE = "training.json"
FILM_FILE = "base-against-recap.gif"
REPORT_FILE = "report.html"
