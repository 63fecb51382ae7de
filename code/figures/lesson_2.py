"""What only Lesson 2 draws."""

from __future__ import annotations
