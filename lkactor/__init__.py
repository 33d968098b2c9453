"""What bytes and states mean: the sans-IO half of lkactor. See docs/architecture.md."""

__version__ = "0.1.0"
