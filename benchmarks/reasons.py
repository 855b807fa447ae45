"""What each part is about, and why a goal is missed: found with a profile, said in words."""

from __future__ import annotations

ABOUT = {
    "claim": ("Claiming, however much is pending", ""),
    "wake": ("Waking and waiting", ""),
    "growth": ("A million messages later", ""),
    "workloads": ("Workloads", ""),
    "memory": ("Memory and import", ""),
}

WHY: dict[str, dict[str, str]] = {name: {} for name in ABOUT}
