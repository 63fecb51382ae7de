"""What only Lesson 3 draws."""

from __future__ import annotations
