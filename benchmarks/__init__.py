"""How fast, and what it costs: one file per question, figures as ratios taken in one run on one machine.

`python -m benchmarks NAME` measures and appends JSON lines to a results file; `python -m benchmarks report` makes
`docs/benchmarks.md` and its plots of that file. Nothing here is imported by the product.
"""
