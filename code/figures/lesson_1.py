"""What only Lesson 1 draws."""

from __future__ import annotations
