"""Why a part was not inspected: the reasons an `err` can have. Programs may rely on the words."""

from __future__ import annotations

REASONS = {
    "unreadable": "the file of the picture cannot be read",
    "no_frame": "the part was announced or triggered, and no picture came",
    "incomplete": "packets of the picture were lost on the network",
    "missed_trigger": "the trigger came before the camera was ready for it",
    "camera_lost": "the camera was away when the part was due",
    "trigger_mismatch": "triggers and pictures do not fit together; nobody knows whose this is",
    "unannounced": "a picture came that no trigger had announced",
    "frozen": "a live camera repeated an older picture",
    "wrong_size": "the picture has another size than the camera's first ones",
    "wrong_image": "the picture has another size than region of interest or correction need",
    "part_not_found": "the part is not where its template was found in training",
    "engine": "the network failed on this part",
    "not_finite": "the network's score or map is no number",
    "late": "the result came after its deadline",
    "stopped": "the line was stopped before the part was inspected",
}
"""Reason -> what it means, in a sentence for people."""
