"""What only Lesson 5 draws."""

from __future__ import annotations
