"""Judging predictions: arrays and groups in, tables and verdicts out. Nothing here knows AnnData."""
