"""The article, measured: the frameworks side by side, each claim with its number.

`lockstep report frameworks` composes it. `gather` reads what training and exporting left; `latency`, `padding`,
`epochs` and `load` measure what is missing, each into `kept`; `tables`, `claims` and `figures` turn that into what
`render` writes. What was not measured is shown as such: no number without a run behind it.
"""
