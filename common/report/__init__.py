"""Tables, verdicts, figures and the page, from files that the analyses left on disk.

- tables: `rows` (summary.csv), `pie_rows` (what PIE detection adds to it), `by_image` (pies_*.csv),
  `summary` (what scripts print), `results` (all numbers in one file), `between` (PIEs between any
  two populations)
- verdicts: `evidence` (the numbers behind each claim), `claims` (claims.csv)
- figures: `plots` (one cell), `comparison` and `comparison_plots` (several cells), `style`
- page: `page`, with `page_figures`, `page_gallery` and `page_recipes`
- `stored_pies` reads what PIE detection left; `publish` makes all of this anew after an analysis
"""
