"""Figures that anyone can repeat: one script for each, all of them with `make bench`.

Each script has `measure(runs, folder, …)` and runs alone: `python -m bench.drain --quick`.
"""
