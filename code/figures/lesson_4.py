"""What only Lesson 4 draws."""

from __future__ import annotations
